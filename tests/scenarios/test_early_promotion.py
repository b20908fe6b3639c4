"""The client follows a promotion before the sentinels announce it, and returns when it does not come to anything."""

from __future__ import annotations

import contextlib
import time
from typing import TYPE_CHECKING

import pytest

from tests.control import ServerError, eventually
from tests.drivers import Load
from tests.scenarios.support import (
    AS_REAL,
    HOURS,
    SLOW,
    Recorder,
    all_name,
    assert_only_ambiguous,
    assert_rode_through,
    demoted,
    hears_all,
    masters_told,
    write_arrives,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hatopo.testing import SentinelDeployment
    from tests.drivers import WatchingDriver


@pytest.mark.parametrize("early", [True, False], ids=["early", "confirmed"])
def test_a_kill_is_followed_early_or_when_confirmed(
    driver: WatchingDriver, make_set: Callable[..., SentinelDeployment], early: bool
) -> None:
    sentinel_set = make_set(speed=AS_REAL)
    driver.open_sentinel("mymaster", sentinel_set.sentinels, early_promotion=early)
    with Load(driver, incr=4, get=2, set=2) as load:
        load.progress()
        eventually(lambda: hears_all(driver, sentinel_set), what="all are heard")
        old = sentinel_set.kill_master()
        new = sentinel_set.wait_switched(old)
        load.progress()
    assert_rode_through(load.ledger(new))
    # A confirmed view of the same master changes no master: exactly one change, of one kind.
    eventually(lambda: masters_told(driver) == [(new.address, early)], what="one change of the master")
    assert driver.stats().failovers == 1


def test_no_switch_is_waited_for(driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]) -> None:
    """The leader dies between promotion and announcement: no sentinel tells anybody, and the client writes."""
    deployment = make_set(speed=SLOW, failover_timeout=HOURS)
    deployment.crash_leader_after_promotion()
    driver.open_sentinel("mymaster", deployment.sentinels)
    with Recorder(deployment.sentinel_nodes) as recorder, Load(driver, incr=4, get=2, set=2) as load:
        load.progress()
        eventually(lambda: hears_all(driver, deployment), what="all are heard")
        old = deployment.kill_master()
        load.progress()
        eventually(lambda: [one for one in deployment.sentinel_nodes if not one.running], what="the leader's end")
        load.progress()
        assert recorder.of("+switch-master") == []
        assert deployment.master() is old, "the sentinels that are left know of nothing"
        promoted = [node for node in deployment.nodes if node is not old and node.role() == "master"]
    (new,) = promoted
    assert_rode_through(load.ledger(new))
    eventually(lambda: masters_told(driver) == [(new.address, True)], what="one change of the master")


def test_the_leader_dies_right_after_the_promotion(
    driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]
) -> None:
    """The sentinels that are left begin anew; in the end all agree."""
    deployment = make_set(speed=SLOW, failover_timeout=HOURS)
    deployment.crash_leader_after_promotion()
    driver.open_sentinel("mymaster", deployment.sentinels)
    with Load(driver, incr=2, get=1, set=1) as load:
        load.progress()
        old = deployment.kill_master()
        (dead,) = eventually(
            lambda: [one for one in deployment.sentinel_nodes if not one.running], 30, "the leader's end"
        )
        assert dead in deployment.leaders()
        deployment.let_leaders_live()
        deployment.set(failover_timeout=1500)  # only now may the next one lead
        new = deployment.wait_switched(old, 60)
        eventually(lambda: all_name(driver, deployment, new), 30, "agreement")
        load.progress()
    ledger = load.ledger(new)
    assert ledger.doubled == []
    assert_only_ambiguous(ledger, outages=2)
    assert write_arrives(driver, new, "in the end")


def test_a_promotion_that_comes_to_nothing_is_left_again(
    driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]
) -> None:
    """The leader of a planned failover dies after promoting; the others make the promoted node a replica again."""
    deployment = make_set(speed=SLOW, failover_timeout=HOURS)
    old = deployment.master()
    deployment.tune(publish_period=HOURS * 1000)  # after four of these the node is taken back
    deployment.crash_leader_after_promotion()
    driver.open_sentinel("mymaster", deployment.sentinels)
    with Load(driver, incr=2, get=1, set=1) as load:
        load.progress()
        eventually(lambda: hears_all(driver, deployment), what="all are heard")
        deployment.failover()
        eventually(lambda: masters_told(driver), what="the promotion is followed")
        promoted, provisional = masters_told(driver)[0]
        deployment.tune(publish_period=500, info_period=500)
        assert provisional
        assert promoted != old.address
        eventually(lambda: driver.master() == old.address, 30, "the return")
        load.progress()
    eventually(lambda: masters_told(driver) == [(promoted, True), (old.address, False)], what="both changes are told")
    assert all_name(driver, deployment, old)
    assert write_arrives(driver, old, "where the sentinels are")
    ledger = load.ledger(old)
    assert ledger.doubled == []
    assert_only_ambiguous(ledger, outages=2)


def test_a_planned_failover_loses_little(driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]) -> None:
    """What the old master acknowledges after the promotion is lost, by Redis itself.

    A client that stays until the old master is demoted loses all that is written in between. The one that follows
    the promotion loses what it writes until it has seen it: a twentieth of that is far more than it needs.
    """
    sentinel_set = make_set(speed=AS_REAL)
    driver.open_sentinel("mymaster", sentinel_set.sentinels)
    sentinel_set.tune(publish_period=1000, info_period=300)  # four seconds until the old master is demoted
    with Recorder(sentinel_set.sentinel_nodes) as recorder, Load(driver, incr=4, get=2, set=2) as load:
        load.progress()
        eventually(lambda: hears_all(driver, sentinel_set), what="all are heard")
        old = sentinel_set.master()
        sentinel_set.failover()
        new = sentinel_set.wait_switched(old)
        eventually(lambda: old.role() == "slave", 30, "the old master is demoted")
        end = time.monotonic()
        load.progress()
    begin = recorder.of("+selected-slave")[0].moment
    ledger = load.ledger(new)
    at_stake = [call for call in ledger.incremented if begin < call.ended < end]
    assert len(at_stake) > 100
    assert len(ledger.lost) <= len(at_stake) / 20
    assert ledger.doubled == []
    assert ledger.other_errors == []
    assert_only_ambiguous(ledger, outages=1)
    eventually(lambda: masters_told(driver) == [(new.address, True)], what="one change of the master")


def test_a_planned_failover_without_early_promotion(driver: WatchingDriver, sentinel_set: SentinelDeployment) -> None:
    driver.open_sentinel("mymaster", sentinel_set.sentinels, early_promotion=False)
    with contextlib.suppress(ServerError):  # before 7.0 the old master stays one for eight seconds
        sentinel_set.tune(publish_period=HOURS * 1000)  # for four of these the old master stays one
    with Load(driver, incr=4, get=2, set=2) as load:
        load.progress()
        old = sentinel_set.master()
        sentinel_set.failover()
        new = sentinel_set.wait_switched(old)
        # Told by the sentinels: long before the old master is demoted.
        eventually(lambda: driver.master() == new.address, what="the switch is followed")
        load.progress()
        assert old.role() == "master"
        began = time.monotonic()
        load.progress()
        demoted(old, sentinel_set)
        load.progress()
    ledger = load.ledger(new)
    assert ledger.doubled == []
    assert [call.name for call in ledger.lost_calls if call.began > began] == []
    assert_only_ambiguous(ledger, outages=1)
    eventually(lambda: masters_told(driver) == [(new.address, False)], what="one change of the master")
