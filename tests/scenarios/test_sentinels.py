"""Sentinels that die, come back, are learned of, or know nothing of the service."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

import hatopo
from hatopo import events
from tests.conftest import eventually
from tests.drivers import Load
from tests.scenarios.support import assert_rode_through, told, write_arrives

if TYPE_CHECKING:
    from hatopo.testing import SentinelDeployment
    from tests.control import Address
    from tests.drivers import WatchingDriver

LONG = 600.0
"""Seconds: a test that waits for it fails."""


@pytest.mark.parametrize("trouble", ["kill", "pause"])
def test_a_first_sentinel_that_does_not_answer_is_passed_over(
    driver: WatchingDriver, sentinel_set: SentinelDeployment, trouble: str
) -> None:
    getattr(sentinel_set.sentinel_nodes[0], trouble)()
    driver.open_sentinel("mymaster", sentinel_set.sentinels)
    assert driver.call("incr", "counter") == 1
    assert sentinel_set.master().execute("GET", "counter") == "1"


@pytest.mark.parametrize("trouble", ["kill", "pause"])
def test_a_failover_is_followed_without_the_first_sentinel(
    driver: WatchingDriver, sentinel_set: SentinelDeployment, trouble: str
) -> None:
    driver.open_sentinel("mymaster", sentinel_set.sentinels)
    with Load(driver, incr=2, get=1, set=1) as load:
        load.progress()
        getattr(sentinel_set.sentinel_nodes[0], trouble)()
        old = sentinel_set.kill_master()
        new = sentinel_set.wait_switched(old)
        load.progress()
    assert_rode_through(load.ledger(new))


def test_without_any_sentinel_the_last_master_serves_on(
    driver: WatchingDriver, sentinel_set: SentinelDeployment
) -> None:
    """Even new connections need none; and once there are sentinels again, they are followed."""
    driver.open_sentinel("mymaster", sentinel_set.sentinels)
    with Load(driver, incr=4, get=2, set=2) as load:
        load.progress()
        master = sentinel_set.master()
        for sentinel in sentinel_set.sentinel_nodes:
            sentinel.kill()
        eventually(lambda: told(driver, events.DiscoveryDegraded), 30, "the client notices")
        assert master.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes") >= 1
        load.progress()
    assert_rode_through(load.ledger(master), outages=1)
    with Load(driver, get=2, set=2) as load:
        load.progress()
        for _ in range(3):
            master.execute("CLIENT", "KILL", "TYPE", "normal", "SKIPME", "yes")
            load.progress()
        before = len(told(driver, events.SentinelFound))
        for sentinel in sentinel_set.sentinel_nodes:
            sentinel.start()
        sentinel_set.wait_stable()
        eventually(
            lambda: {*map(addressed, told(driver, events.SentinelFound)[before:])} >= {*sentinel_set.sentinels},
            what="all are heard again",
        )
        old = sentinel_set.kill_master()
        new = sentinel_set.wait_switched(old)
        load.progress()
    calls = load.ledger(new).calls
    assert [call.error for call in calls if call.error is not None] == []
    assert write_arrives(driver, new, "followed")


def addressed(event: events.SentinelFound | events.SentinelLost) -> Address:
    return (event.address.host, event.address.port)


def test_one_seed_is_enough_and_may_die(driver: WatchingDriver, sentinel_set: SentinelDeployment) -> None:
    """The others are learned from it: one that was there, and one that came later."""
    seed, *others = sentinel_set.sentinel_nodes
    driver.open_sentinel("mymaster", [seed.address])
    with Load(driver, incr=2, get=1, set=1) as load:
        load.progress()
        others.append(sentinel_set.add_sentinel())
        eventually(
            lambda: {addressed(found) for found in told(driver, events.SentinelFound)} >= {*sentinel_set.sentinels},
            30,
            "all sentinels are known",
        )
        seed.kill()
        old = sentinel_set.kill_master()
        new = sentinel_set.wait_switched(old)
        load.progress()
    assert_rode_through(load.ledger(new))
    assert driver.master() == new.address
    eventually(lambda: seed.address in map(addressed, told(driver, events.SentinelLost)), what="its end is told")


def test_an_unknown_service_is_an_error_at_once(driver: WatchingDriver, sentinel_set: SentinelDeployment) -> None:
    """The error names what the sentinels do know."""
    driver.open_sentinel("mymistress", sentinel_set.sentinels, failover_timeout=LONG)
    with pytest.raises(hatopo.ServiceUnknownError, match=r"mymistress.*mymaster"):
        driver.call("get", "key")
    with pytest.raises(hatopo.ServiceUnknownError, match=r"mymistress.*mymaster"):
        driver.wait_ready(LONG)


def test_a_client_can_fail_when_it_is_made(driver: WatchingDriver, sentinel_set: SentinelDeployment) -> None:
    with pytest.raises(hatopo.ServiceUnknownError, match=r"mymistress.*mymaster"):
        driver.open_sentinel("mymistress", sentinel_set.sentinels, startup="fail", failover_timeout=LONG)
    driver.open_sentinel("mymaster", sentinel_set.sentinels, startup="fail")
    assert driver.master() == sentinel_set.master().address


def test_readiness_is_a_known_master(driver: WatchingDriver, sentinel_set: SentinelDeployment) -> None:
    driver.open_sentinel("mymaster", sentinel_set.sentinels)
    assert driver.master() is None, "nothing is asked before the first call"
    driver.wait_ready(30)
    assert driver.master() == sentinel_set.master().address


def test_readiness_says_what_went_wrong(driver: WatchingDriver, sentinel_set: SentinelDeployment) -> None:
    for sentinel in sentinel_set.sentinel_nodes:
        sentinel.kill()
    driver.open_sentinel("mymaster", sentinel_set.sentinels)
    with pytest.raises(hatopo.MasterNotFoundError, match=rf"{sentinel_set.sentinels[2][1]}.*refused"):
        driver.wait_ready(3)
    for sentinel in sentinel_set.sentinel_nodes:
        sentinel.start()
    driver.wait_ready(30)
    assert driver.call("set", "key", "value")
