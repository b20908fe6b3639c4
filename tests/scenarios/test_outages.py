"""Masters that die or fall silent under load, and callers of every kind that ride it out."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

import hatopo
from tests.conftest import eventually
from tests.drivers import Load
from tests.scenarios.support import (
    HOURS,
    SLOW,
    assert_rode_through,
    commands_processed,
    connections_received,
    demoted,
    hears_all,
    masters_told,
    members,
    threads_of_hatopo,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hatopo.testing import SentinelDeployment
    from tests.drivers import WatchingDriver


def test_reads_from_a_frozen_master_are_moved(driver: WatchingDriver, sentinel_set: SentinelDeployment) -> None:
    """Its connections stay open: without the sentinels' word each call would wait a minute for a reply."""
    driver.open_sentinel("mymaster", sentinel_set.sentinels, socket_timeout=60)
    with Load(driver, incr=4, get=2, set=2) as load:
        load.progress()
        old = sentinel_set.master()
        old.pause()
        new = sentinel_set.wait_switched(old)
        load.progress()
        old.resume()
        load.progress()
        demoted(old, sentinel_set)
        load.progress()
    assert_rode_through(load.ledger(new))


def test_two_masters_die_one_after_the_other(driver: WatchingDriver, sentinel_set: SentinelDeployment) -> None:
    driver.open_sentinel("mymaster", sentinel_set.sentinels)
    masters = []
    with Load(driver, incr=4, get=2, set=2) as load:
        for _ in range(2):
            load.progress()
            eventually(lambda: driver.call("wait", 1, 1000) >= 1, what="a replica has it all")
            old = sentinel_set.kill_master()
            masters.append(sentinel_set.wait_switched(old))
            load.progress()
    assert_rode_through(load.ledger(masters[-1]), outages=2)
    # Early or not: so soon after a switch the sentinels may know too little of the candidate for it to be believed.
    followed = [one.address for one in masters]
    eventually(lambda: [address for address, _ in masters_told(driver)] == followed, what="both are told")
    assert driver.stats().failovers == 2


def test_without_anybody_calls_end_and_begin_again(driver: WatchingDriver, sentinel_set: SentinelDeployment) -> None:
    """Neither master nor sentinels: an error in time; the master alone is enough to go on."""
    driver.open_sentinel("mymaster", sentinel_set.sentinels, failover_timeout=1)
    driver.call("set", "key", "value")
    master = sentinel_set.master()
    for sentinel in sentinel_set.sentinel_nodes:
        sentinel.kill()
    master.kill()
    with pytest.raises(hatopo.NodeUnavailableError) as caught:
        driver.call("incr", "counter")
    assert not caught.value.maybe_executed
    assert driver.master() == master.address, "the last known one is kept"
    master.start()
    eventually(lambda: goes_on(driver), what="it goes on")
    assert master.execute("GET", "key") == "later"
    assert master.execute("GET", "counter") is None


def goes_on(driver: WatchingDriver) -> bool:
    """A node that did not answer is dialled again every two seconds only: longer than these calls wait."""
    try:
        return bool(driver.call("set", "key", "later"))
    except hatopo.NodeUnavailableError:
        return False


def test_a_client_that_is_closed_in_a_failover_leaves_no_thread(
    driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]
) -> None:
    """A promotion that nobody confirms is guarded by a thread: it ends with the client."""
    eventually(lambda: not threads_of_hatopo(), what="the threads of earlier tests are gone")
    deployment = make_set(speed=SLOW, failover_timeout=HOURS)
    deployment.crash_leader_after_promotion()
    driver.open_sentinel("mymaster", deployment.sentinels)
    driver.call("set", "key", "value")
    eventually(lambda: hears_all(driver, deployment), what="the sentinels are heard")
    deployment.kill_master()
    driver.call("set", "key", "later")
    assert threads_of_hatopo("promotion"), "the view is provisional"
    driver.close()
    eventually(lambda: not threads_of_hatopo(), what="no thread stays")


QUESTIONS = 5
"""Commands with which a client asks a sentinel about a service."""


def test_many_callers_do_not_storm_anybody(driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]) -> None:
    """200 threads in an outage ask no oftener than one, and dial the new master about once a connection."""
    sentinel_set = make_set(speed=SLOW)  # sentinels that ask each other fifty times as often would drown the callers
    driver.open_sentinel("mymaster", sentinel_set.sentinels)
    with Load(driver, incr=100, get=50, set=50) as load:
        load.progress()
        asked = [commands_processed(sentinel) for sentinel in sentinel_set.sentinel_nodes]
        dialled = {each: connections_received(each) for each in members(sentinel_set)}
        old = sentinel_set.kill_master()
        eventually(lambda: driver.master() != old.address, 30, "a new master")
        load.progress(60)
        again = [commands_processed(sentinel) for sentinel in sentinel_set.sentinel_nodes]
        rounds = max(connections_received(one) - dialled[one] for one in sentinel_set.sentinel_nodes)
        new = sentinel_set.wait_switched(old)
    assert_rode_through(load.ledger(new))
    stats = driver.stats()
    outage = max(1.0, stats.outage_seconds)
    commands = max(now - before for now, before in zip(again, asked, strict=True))
    # Ten rounds a second, and a question for each of some 30 events. The sentinels' own talk is some ten a second.
    assert QUESTIONS <= commands <= (10 * QUESTIONS + 20) * outage + 30 * QUESTIONS
    assert rounds <= 10 * outage + 10  # each round dials each sentinel once; so does each question of this test
    # A pool holds 100 connections; the sentinels, the other replica and this test dial the new master, too.
    received = connections_received(new) - dialled[new]
    assert 0 < received <= 150 + 20 * outage
    assert 0 < stats.dials <= 250 + 20 * outage


@pytest.mark.parametrize("trouble", ["kill", "planned"])
def test_a_forked_child_follows_as_well(sentinel_set: SentinelDeployment, trouble: str) -> None:
    """A client that was used before the fork; parent and child are both there when the master changes."""
    sentinels = [f"{host}:{port}" for host, port in sentinel_set.sentinels]
    script = [sys.executable, "-m", "tests.scenarios.scripts.forking", *sentinels]
    with subprocess.Popen(script, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "forked\n"
            old = sentinel_set.master()
            if trouble == "kill":
                old.kill()
            else:
                sentinel_set.failover()
            new = sentinel_set.wait_switched(old)
            new.execute("SET", "end", "of the test")
            said, _ = process.communicate(timeout=60)
        finally:
            process.kill()
    assert said == "parent followed\nok\n"
    assert process.returncode == 0
    assert int(new.execute("GET", "child")) > 0
    assert int(new.execute("GET", "parent")) > 0


def test_without_watching_no_thread_stays_and_a_kill_is_followed(
    driver: WatchingDriver, sentinel_set: SentinelDeployment
) -> None:
    eventually(lambda: not threads_of_hatopo(), what="the threads of earlier tests are gone")
    driver.open_sentinel("mymaster", sentinel_set.sentinels, watch=False)
    driver.call("set", "key", "value")
    eventually(lambda: not threads_of_hatopo("sentinel") and not threads_of_hatopo("ask"), what="no thread")
    with Load(driver, incr=4, get=2, set=2) as load:
        load.progress()
        old = sentinel_set.kill_master()
        new = sentinel_set.wait_switched(old)
        load.progress()
    assert_rode_through(load.ledger(new))
    eventually(lambda: not threads_of_hatopo(), what="no thread stays")
