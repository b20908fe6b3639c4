"""The client and the old master on one side, replicas and sentinels on the other; the client hears the sentinels."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from hatopo.testing.real import Proxy
from tests.conftest import eventually
from tests.control import Control
from tests.drivers import Load
from tests.scenarios.support import HOURS, SLOW, assert_only_ambiguous, demoted, errors_replied, members, write_arrives

if TYPE_CHECKING:
    from collections.abc import Callable

    from hatopo.testing import NodeHandle, RealNode, SentinelDeployment
    from tests.drivers import WatchingDriver
    from tests.scenarios.support import AnyServer


def test_a_master_that_was_cut_off_is_left(driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]) -> None:
    """It still answers, and says that it is the master: the sentinels' word counts."""
    deployment = make_set(partitionable=True, speed=SLOW)
    old = deployment.nodes[0]
    driver.open_sentinel("mymaster", deployment.sentinels, address_map=deployment.address_map)
    with Load(driver, incr=4, get=2, set=2) as load:
        load.progress()
        assert driver.master() == old.address
        deployment.partition(old, others(old, deployment))
        new = deployment.wait_switched(old)
        eventually(lambda: driver.master() == new.address, what="the switch is followed")
        began = time.monotonic()
        load.progress()
        assert old.role() == "master"
        deployment.heal()
        demoted(old, deployment)
        load.progress()
    ledger = load.ledger(new)
    assert ledger.doubled == []
    assert ledger.lost, "without min-replicas-to-write the old master acknowledges what is thrown away"
    assert [call.name for call in ledger.lost_calls if call.began > began] == []
    assert_only_ambiguous(ledger, outages=1)
    assert write_arrives(driver, new, "after the partition")


def test_a_master_that_refuses_writes_costs_latency_only(
    driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]
) -> None:
    """With min-replicas-to-write the old master refuses (NOREPLICAS), and the application never hears of it."""
    deployment = make_set(partitionable=True, down_after=HOURS)
    deployment.configure(min_replicas_to_write=1, min_replicas_max_lag=1)
    old = deployment.nodes[0]
    driver.open_sentinel("mymaster", deployment.sentinels, address_map=deployment.address_map, failover_timeout=60)
    with Load(driver, incr=4, get=2, set=2) as load:
        load.progress()
        before = errors_replied(old, "NOREPLICAS")
        deployment.partition(old, others(old, deployment))
        eventually(lambda: errors_replied(old, "NOREPLICAS") > before + 10, what="writes are refused")
        refused = time.monotonic()
        deployment.set(down_after_milliseconds=1500)  # only now may the sentinels notice
        new = deployment.wait_switched(old)
        switched = time.monotonic()
        load.progress()
        deployment.heal()
        demoted(old, deployment)
        load.progress()
    ledger = load.ledger(new)
    assert ledger.doubled == []
    # What was acknowledged before the refusals may have been noted by its thread after them, but not so late.
    assert [call.name for call in ledger.lost_calls if call.began > refused or call.ended > switched] == []
    assert_only_ambiguous(ledger, outages=1)


def others(node: NodeHandle, deployment: SentinelDeployment) -> list[AnyServer]:
    """All nodes and sentinels but one."""
    return [one for one in members(deployment) if one is not node]


def test_the_proxy_parts_and_joins(server: RealNode) -> None:
    """Proof of the instrument: a cut ends nothing and lets nothing pass, until it is healed."""
    proxy = Proxy(server.address)
    try:
        with Control(proxy.address, timeout=1) as early:
            assert early("PING") == "PONG"
            proxy.cut()
            with pytest.raises(TimeoutError):
                early("SET", "key", "value")
            with Control(proxy.address, timeout=1) as late, pytest.raises(TimeoutError):
                late("PING")
            assert server.execute("GET", "key") is None
            proxy.heal()
            eventually(lambda: server.execute("GET", "key") == "value", what="what was held back arrives")
        with Control(proxy.address) as last:
            assert last("PING") == "PONG"
            proxy.drop()
            with pytest.raises(OSError, match=r"closed|reset|pipe"):
                last("PING")
    finally:
        proxy.close()
    with pytest.raises(ConnectionRefusedError):
        Control(proxy.address)
