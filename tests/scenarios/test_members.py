"""Data nodes that come, go, or change their roles beside Sentinel."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

from hatopo import events
from tests.conftest import eventually
from tests.drivers import Load
from tests.scenarios.support import (
    HOURS,
    SLOW,
    all_name,
    assert_only_ambiguous,
    assert_rode_through,
    confirmed,
    hears_all,
    masters_told,
    told,
    write_arrives,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hatopo.testing import Node, NodeHandle, SentinelDeployment
    from tests.drivers import WatchingDriver


def test_a_failover_to_a_node_that_came_later(driver: WatchingDriver, sentinel_set: SentinelDeployment) -> None:
    """One replica leaves for good, another joins and is the only one that may be promoted."""
    driver.open_sentinel("mymaster", sentinel_set.sentinels)
    with Load(driver, incr=4, get=2, set=2) as load:
        load.progress()
        _, leaving, staying = sentinel_set.nodes
        sentinel_set.remove(leaving)
        staying.execute("CONFIG", "SET", "replica-priority", 0)
        joined = sentinel_set.add_replica()
        eventually(lambda: priorities(sentinel_set) == {0, 100}, 30, "all sentinels know the priorities")
        old = sentinel_set.kill_master()
        new = sentinel_set.wait_switched(old)
        assert new is joined
        load.progress()
    assert_rode_through(load.ledger(new))
    assert driver.master() == joined.address


def priorities(deployment: SentinelDeployment) -> set[int]:
    deployment.tune(info_period=100)
    listed = [
        [int(one[one.index("slave-priority") + 1]) for one in sentinel.execute("SENTINEL", "REPLICAS", deployment.name)]
        for sentinel in deployment.sentinel_nodes
    ]
    return {priority for each in listed for priority in each} if all(map(len, listed)) else set()


def test_replicas_are_part_of_the_view(driver: WatchingDriver, sentinel_set: SentinelDeployment) -> None:
    driver.open_sentinel("mymaster", sentinel_set.sentinels)
    driver.wait_ready(30)
    eventually(lambda: replicas(driver) == ports(sentinel_set), what="both")
    sentinel_set.add_replica()
    eventually(lambda: replicas(driver) == ports(sentinel_set), 30, "the third is known")


def test_a_master_that_comes_back_empty_is_told(
    driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]
) -> None:
    """Restarted before the sentinels noticed: the same address, and nothing of what was written."""
    deployment = make_set(replicas=1, down_after=HOURS)
    driver.open_sentinel("mymaster", deployment.sentinels)
    driver.call("set", "key", "value")
    master = deployment.master()
    old_id = run_id(master)
    assert told(driver, events.DatasetReplaced) == []
    master.restart(empty=True)
    assert driver.call("get", "key") is None
    (replaced,) = eventually(lambda: told(driver, events.DatasetReplaced), what="it is told")
    assert (replaced.address.port, replaced.old_id, replaced.new_id) == (master.port, old_id, run_id(master))
    assert masters_told(driver) == []


def run_id(node: NodeHandle) -> str:
    (line,) = [line for line in node.execute("INFO", "server").splitlines() if line.startswith("run_id:")]
    return str(line.partition(":")[2])


def test_a_deployment_that_is_set_up_anew_is_followed(
    driver: WatchingDriver, sentinel_set: SentinelDeployment, make_node: Callable[[], Node]
) -> None:
    """After a failover the same name is given to another server: its epoch is lower, and all sentinels say so."""
    driver.open_sentinel("mymaster", sentinel_set.sentinels)
    driver.call("set", "key", "value")
    old = sentinel_set.kill_master()
    sentinel_set.wait_switched(old)
    eventually(lambda: confirmed(driver, epoch=1), 30, "the failover is confirmed")
    other = make_node()
    for sentinel in sentinel_set.sentinel_nodes:
        sentinel.execute("SENTINEL", "REMOVE", "mymaster")
    sentinel_set.monitor("mymaster", other)
    eventually(lambda: driver.master() == other.address, 30, "the other is followed")
    assert write_arrives(driver, other, "anew")
    (reset,) = eventually(lambda: told(driver, events.TopologyReset), what="it is told")
    assert (reset.old_epoch, reset.new_epoch) == (1, 0)


def test_events_tell_a_failover_in_order(driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]) -> None:
    sentinel_set = make_set(down_after=HOURS)
    driver.open_sentinel("mymaster", sentinel_set.sentinels)
    driver.call("set", "key", "value")
    eventually(lambda: hears_all(driver, sentinel_set), what="all are heard")
    old = sentinel_set.kill_master()
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(driver.call, "set", "key", "later")
        eventually(lambda: told(driver, events.NodeDown), what="the call meets it")
        sentinel_set.set(down_after_milliseconds=1500)  # only now may the sentinels notice
        assert waiting.result(30)
    new = sentinel_set.wait_switched(old)
    eventually(lambda: confirmed(driver, epoch=1), what="confirmation")
    heard = [each.event for each in driver.events]
    started = [index for index, event in enumerate(heard) if isinstance(event, events.FailoverStarted)]
    changed = [
        index for index, event in enumerate(heard) if isinstance(event, events.MasterChanged) and event.old is not None
    ]
    assert len(started) == len(changed) == 1
    assert started < changed
    (change,) = [heard[index] for index in changed]
    assert isinstance(change, events.MasterChanged)
    assert change.old is not None
    assert (change.old.port, change.new.port) == (old.port, new.port)
    assert change.seconds > 0
    assert {down.address.port for down in told(driver, events.NodeDown)} == {old.port}


def replicas(driver: WatchingDriver) -> set[int]:
    changed = told(driver, events.TopologyChanged)
    return {node.address.port for node in changed[-1].topology.shards[0].replicas} if changed else set()


def ports(deployment: SentinelDeployment) -> set[int]:
    return {node.port for node in deployment.nodes[1:]}


def test_a_failover_by_hand_beside_the_sentinels(
    driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]
) -> None:
    """The command FAILOVER: for many seconds the sentinels name a node that says it is a replica, and of whom."""
    sentinel_set = make_set(speed=SLOW)
    driver.open_sentinel("mymaster", sentinel_set.sentinels, failover_timeout=60)
    old = sentinel_set.master()
    with Load(driver, incr=4, get=2, set=2) as load:
        load.progress()
        old.execute("FAILOVER")
        eventually(lambda: old.role() == "slave", what="the handover")
        new = master_of(old, sentinel_set)
        load.progress()
        assert sentinel_set.master() is old, "no sentinel has told the client"
        assert driver.master() == new.address
    ledger = load.ledger(new)
    assert_rode_through(ledger)
    assert write_arrives(driver, new, "by hand")
    # In the end the sentinels find a master of their own, and that is the client's, too.
    sentinel_set.tune(publish_period=250, info_period=300)
    driver.call("delete", Load.KEY)  # a ledger of its own
    with Load(driver, incr=2, get=1, set=1) as load:
        load.progress()
        final = eventually(lambda: agreed(driver, sentinel_set), 60, "agreement")
        assert final is not None
        load.progress()
    ledger = load.ledger(final)
    assert ledger.doubled == []
    assert_only_ambiguous(ledger, outages=3)


def master_of(replica: NodeHandle, deployment: SentinelDeployment) -> NodeHandle:
    port = replica.execute("ROLE")[2]
    return next(node for node in deployment.nodes if node.port == port)


def agreed(driver: WatchingDriver, deployment: SentinelDeployment) -> NodeHandle | None:
    named = deployment.master()
    return named if all_name(driver, deployment, named) else None
