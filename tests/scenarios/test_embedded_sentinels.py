"""What no real sentinel can be asked for: lies, silence about what happens, wrong addresses; and any partition.

Whomever the sentinels name, writes go to one master at a time, and what it acknowledged stays on it.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

import pytest

import hatopo
from hatopo import events
from hatopo.testing import CLIENTS
from hatopo.topology import CHANNELS
from tests.conftest import eventually
from tests.drivers import Ledger, Load
from tests.scenarios.support import (
    AS_REAL,
    SLOW,
    assert_only_ambiguous,
    assert_rode_through,
    demoted,
    hears_all,
    masters_told,
    members,
    told,
    write_arrives,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hatopo.testing import Node, NodeHandle, SentinelDeployment, SentinelHandle
    from tests.control import Address
    from tests.drivers import WatchingDriver


@pytest.fixture(params=["embedded"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def nowhere() -> Iterator[Address]:
    """An address at which nobody listens, and nobody will."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[:2]


def cut_off(deployment: SentinelDeployment, sentinel: SentinelHandle) -> None:
    """Keep a sentinel from telling anybody but clients: others would believe a higher epoch."""
    deployment.partition(sentinel, [one for one in members(deployment) if one is not sentinel])


def named(sentinel: SentinelHandle, deployment: SentinelDeployment) -> Address:
    host, port = sentinel.execute("SENTINEL", "GET-MASTER-ADDR-BY-NAME", deployment.name)
    return (host, int(port))


def ask_again(driver: WatchingDriver, deployment: SentinelDeployment) -> None:
    """Have the client ask all sentinels anew; returns when it has."""
    before = len(told(driver, events.SentinelFound))
    for sentinel in deployment.sentinel_nodes:
        assert sentinel.disconnect("pubsub") >= 1
    eventually(
        lambda: len(told(driver, events.SentinelFound)) >= before + len(deployment.sentinels), 30, "all are heard again"
    )


@pytest.mark.usefixtures("patient")
class TestLies:
    @pytest.mark.parametrize("epoch", [None, 7], ids=["same epoch", "higher epoch"])
    @pytest.mark.parametrize("wrong", ["stranger", "replica"])
    def test_one_of_three_is_not_believed(
        self,
        driver: WatchingDriver,
        sentinel_set: SentinelDeployment,
        own_server: Node,
        wrong: str,
        epoch: int | None,
    ) -> None:
        """Not from the first call on, and not in a failover either; though it is asked first."""
        liar, *others = sentinel_set.sentinel_nodes
        lie = own_server if wrong == "stranger" else sentinel_set.nodes[2]
        cut_off(sentinel_set, liar)
        liar.lie(lie.address, epoch)
        master = sentinel_set.nodes[0]
        driver.open_sentinel("mymaster", [liar.address, *(one.address for one in others)])
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            eventually(lambda: hears_all(driver, sentinel_set), what="the liar is heard, too")
            ask_again(driver, sentinel_set)
            eventually(lambda: driver.master() == master.address, what="the others are believed")
            load.progress()
            # One by one, for the liar would be waited for in vain.
            sentinel_set.nodes[2].execute("CONFIG", "SET", "replica-priority", 0)
            sentinel_set.tune(info_period=100)
            eventually(lambda: 0 in priorities(sentinel_set, others), 30, "the replica is not to be promoted")
            master.kill()
            new = sentinel_set.nodes[1]
            eventually(lambda: {named(one, sentinel_set) for one in others} == {new.address}, 30, "the failover")
            eventually(lambda: driver.master() == new.address, 30, "the failover is followed")
            load.progress()
            assert named(liar, sentinel_set) == lie.address
        assert_rode_through(load.ledger(new), outages=2)
        assert own_server.execute("DBSIZE") == 0

    @pytest.mark.parametrize("epoch", [None, 7], ids=["same epoch", "higher epoch"])
    def test_two_of_three_are_believed(
        self, driver: WatchingDriver, sentinel_set: SentinelDeployment, own_server: Node, epoch: int | None
    ) -> None:
        """A majority decides, and the node says that it is a master; when they return, so does the client."""
        liars = sentinel_set.sentinel_nodes[:2]
        master = sentinel_set.master()
        driver.open_sentinel("mymaster", sentinel_set.sentinels)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            eventually(lambda: hears_all(driver, sentinel_set), what="all are heard")
            for liar in liars:
                cut_off(sentinel_set, liar)
                liar.lie(own_server.address, epoch)
            ask_again(driver, sentinel_set)
            eventually(lambda: driver.master() == own_server.address, 30, "they are believed")
            load.progress()
            for liar in liars:
                liar.honest()
                liar.restart()  # with it, what it was about to tell the others is gone
            sentinel_set.heal()
            eventually(lambda: driver.master() == master.address, 30, "the return")
            load.progress()
        here, there = load.ledger(master), load.ledger(own_server)
        assert there.applied, "the stranger was written to"
        assert here.doubled == there.doubled == []
        assert here.applied.keys() & there.applied.keys() == set()
        assert {*here.lost} <= there.applied.keys(), "what was acknowledged is on one of them"
        assert_only_ambiguous(here, outages=2)
        changes = [own_server.address, master.address]
        eventually(lambda: [address for address, _ in masters_told(driver)] == changes, what="both are told")
        assert bool(told(driver, events.TopologyReset)) == (epoch is not None)


def priorities(deployment: SentinelDeployment, sentinels: list[SentinelHandle]) -> set[int]:
    """The priority of the last replica, as each of these sentinels has it."""
    port = str(deployment.nodes[2].port)
    found = set()
    for sentinel in sentinels:
        for one in sentinel.execute("SENTINEL", "REPLICAS", deployment.name):
            about = dict(zip(one[::2], one[1::2], strict=True))
            if about["port"] == port:
                found.add(int(about["slave-priority"]))
    return found if len(found) == 1 else set()


class TestSilence:
    @pytest.mark.parametrize("early", [True, False], ids=["early", "confirmed"])
    @pytest.mark.parametrize("trouble", ["kill", "planned"])
    def test_a_switch_that_nobody_announces_is_followed(
        self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment], trouble: str, early: bool
    ) -> None:
        """By any other sign: an event is a hint to ask, whatever it says."""
        deployment = make_set(speed=AS_REAL)
        for sentinel in deployment.sentinel_nodes:
            sentinel.swallow("+switch-master")
        driver.open_sentinel("mymaster", deployment.sentinels, early_promotion=early)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            eventually(lambda: hears_all(driver, deployment), what="all are heard")
            new, began = switch(driver, deployment, trouble)
            load.progress()
        assert "+switch-master" not in {event.channel for event in deployment.events}
        assert_nothing_later_is_lost(load.ledger(new), began)
        eventually(lambda: masters_told(driver) == [(new.address, early)], what="one change of the master")

    @pytest.mark.parametrize("trouble", ["kill", "planned"])
    def test_a_candidate_that_nobody_announces_is_not_followed_early(
        self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment], trouble: str
    ) -> None:
        deployment = make_set(speed=SLOW)
        for sentinel in deployment.sentinel_nodes:
            sentinel.swallow("+selected-slave")
            sentinel.swallow("+promoted-slave")
        driver.open_sentinel("mymaster", deployment.sentinels)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            eventually(lambda: hears_all(driver, deployment), what="all are heard")
            new, began = switch(driver, deployment, trouble)
            load.progress()
        assert_nothing_later_is_lost(load.ledger(new), began)
        eventually(lambda: masters_told(driver) == [(new.address, False)], what="one change of the master")

    @pytest.mark.parametrize("trouble", ["kill", "planned"])
    def test_sentinels_that_publish_nothing_are_asked(
        self, driver: WatchingDriver, sentinel_set: SentinelDeployment, trouble: str
    ) -> None:
        """Calls that fail have them asked; so does a master that has become a replica."""
        for sentinel in sentinel_set.sentinel_nodes:
            for channel in CHANNELS:
                sentinel.swallow(channel)
        before = len(sentinel_set.events)
        driver.open_sentinel("mymaster", sentinel_set.sentinels)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            new, began = switch(driver, sentinel_set, trouble)
            load.progress()
        assert not {event.channel for event in sentinel_set.events[before:]} & {*CHANNELS}
        assert_nothing_later_is_lost(load.ledger(new), began)
        eventually(lambda: [address for address, _ in masters_told(driver)] == [new.address], what="one change")


def switch(driver: WatchingDriver, deployment: SentinelDeployment, trouble: str) -> tuple[NodeHandle, float]:
    """Change the master; the new one, and a moment at which the client uses it."""
    old = deployment.master()
    if trouble == "planned":
        deployment.failover()
    else:
        old.kill()
    new = deployment.wait_switched(old)
    eventually(lambda: driver.master() == new.address, 30, "it is followed")
    return new, time.monotonic()


def assert_nothing_later_is_lost(ledger: Ledger, moment: float) -> None:
    """What a demoted master acknowledged is lost by Redis; nothing that was asked for after that, nothing twice."""
    assert ledger.doubled == []
    assert [call.name for call in ledger.lost_calls if call.began > moment] == []
    assert [call for call in ledger.incremented if call.began > moment]
    assert_only_ambiguous(ledger, outages=1)


class TestWrongAddresses:
    def test_of_a_sentinel(self, driver: WatchingDriver, sentinel_set: SentinelDeployment, nowhere: Address) -> None:
        """The others tell of one that cannot be reached; two of three are enough."""
        *seeds, hidden = sentinel_set.sentinel_nodes
        hidden.announce(*nowhere)
        eventually(lambda: all(knows(one, sentinel_set, nowhere) for one in seeds), 30, "the others know the address")
        driver.open_sentinel("mymaster", [one.address for one in seeds])
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            eventually(lambda: nowhere in found(driver), what="the client has heard of it")
            old = sentinel_set.kill_master()
            new = sentinel_set.wait_switched(old)
            load.progress()
        assert_rode_through(load.ledger(new))
        assert driver.master() == new.address

    def test_of_a_replica(self, driver: WatchingDriver, sentinel_set: SentinelDeployment, nowhere: Address) -> None:
        """It is in the view, and cannot be promoted: the other one is."""
        hidden, other = sentinel_set.replicas()
        hidden.announce(*nowhere)
        hidden.disconnect("master")
        # What was known of it at its right address is forgotten.
        eventually(lambda: nowhere[1] in followers(sentinel_set.master()), 30, "the master knows the address")
        for sentinel in sentinel_set.sentinel_nodes:
            sentinel.execute("SENTINEL", "RESET", sentinel_set.name)
        driver.open_sentinel("mymaster", sentinel_set.sentinels)
        driver.wait_ready(30)
        eventually(lambda: nowhere[1] in replicas(driver) and other.port in replicas(driver), 30, "both are known")
        eventually(lambda: all(knows_peers(one, sentinel_set) for one in sentinel_set.sentinel_nodes), 30, "agreement")
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            old = sentinel_set.kill_master()
            assert sentinel_set.wait_switched(old) is other
            load.progress()
        assert_rode_through(load.ledger(other))
        assert driver.master() == other.address


def knows(sentinel: SentinelHandle, deployment: SentinelDeployment, address: Address) -> bool:
    listed = sentinel.execute("SENTINEL", "SENTINELS", deployment.name)
    return any(f"{address[1]}" in one for one in listed)


def knows_peers(sentinel: SentinelHandle, deployment: SentinelDeployment) -> bool:
    return len(sentinel.execute("SENTINEL", "SENTINELS", deployment.name)) == len(deployment.sentinels) - 1


def found(driver: WatchingDriver) -> set[Address]:
    return {(one.address.host, one.address.port) for one in told(driver, events.SentinelFound)}


def followers(master: NodeHandle) -> set[int]:
    return {int(port) for _, port, _ in master.execute("ROLE")[2]}


def replicas(driver: WatchingDriver) -> set[int]:
    changed = told(driver, events.TopologyChanged)
    return {node.address.port for node in changed[-1].topology.shards[0].replicas} if changed else set()


class TestPartitions:
    def test_clients_that_lose_the_master_for_a_moment(
        self, driver: WatchingDriver, sentinel_set: SentinelDeployment
    ) -> None:
        """The sentinels see nothing of it. What was held back arrives: latency, and no error."""
        driver.open_sentinel("mymaster", sentinel_set.sentinels, socket_timeout=20)
        master = sentinel_set.master()
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            sentinel_set.partition(CLIENTS, master)
            load.stall()
            sentinel_set.heal()
            load.progress()
        assert_rode_through(load.ledger(master), outages=0)
        assert masters_told(driver) == []

    def test_clients_that_lose_the_master_for_longer(
        self, driver: WatchingDriver, sentinel_set: SentinelDeployment
    ) -> None:
        """What was under way may have been executed, and is when the network is back: once. The rest waits."""
        driver.open_sentinel("mymaster", sentinel_set.sentinels, socket_timeout=1.5)
        master = sentinel_set.master()
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            sentinel_set.partition(CLIENTS, master)
            eventually(lambda: driver.stats().ambiguous.get("HINCRBY", 0) >= 1, 30, "calls are given up")
            eventually(lambda: told(driver, events.NodeDown), 30, "nobody reaches it")
            sentinel_set.heal()
            load.progress()
        ledger = load.ledger(master)
        assert_rode_through(ledger)
        assert all(isinstance(call.error, hatopo.AmbiguousTimeoutError) for call in ledger.ambiguous)
        eventually(lambda: applied(master) >= {call.name for call in ledger.ambiguous}, what="they were executed")
        assert load.ledger(master).doubled == []
        assert masters_told(driver) == []

    def test_a_switch_behind_the_back_of_a_master_out_of_reach(
        self, driver: WatchingDriver, sentinel_set: SentinelDeployment
    ) -> None:
        """The clients cannot reach it, the sentinels can: the new one is followed."""
        driver.open_sentinel("mymaster", sentinel_set.sentinels, socket_timeout=60)
        old = sentinel_set.master()
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            sentinel_set.partition(CLIENTS, old)
            load.stall()
            sentinel_set.failover()
            new = sentinel_set.wait_switched(old)
            load.progress()
            sentinel_set.heal()
            demoted(old, sentinel_set)
            load.progress()
        assert_rode_through(load.ledger(new))
        assert driver.master() == new.address

    def test_a_sentinel_out_of_reach_changes_nothing(
        self, driver: WatchingDriver, sentinel_set: SentinelDeployment
    ) -> None:
        """Of clients, nodes and the others: two of three are enough; it learns of the failover when it is back."""
        lonely = sentinel_set.sentinel_nodes[0]
        driver.open_sentinel("mymaster", sentinel_set.sentinels)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            cut_off(sentinel_set, lonely)
            sentinel_set.partition(CLIENTS, lonely)
            old = sentinel_set.nodes[0]
            old.kill()
            others = sentinel_set.sentinel_nodes[1:]
            eventually(lambda: all(named(one, sentinel_set) != old.address for one in others), 30, "the failover")
            load.progress()
            assert named(lonely, sentinel_set) == old.address
            sentinel_set.heal()
            new = sentinel_set.wait_switched(old)
            load.progress()
        assert_rode_through(load.ledger(new))
        assert [address for address, _ in masters_told(driver)] == [new.address]

    @pytest.mark.usefixtures("patient")
    def test_a_sentinel_that_has_missed_a_failover_misleads_nobody(
        self, driver: WatchingDriver, sentinel_set: SentinelDeployment
    ) -> None:
        """It names the old master, which is back and says that it is one; a client asks it first."""
        lonely, *others = sentinel_set.sentinel_nodes
        old = sentinel_set.nodes[0]
        sentinel_set.partition([lonely, old], [one for one in members(sentinel_set) if one not in (lonely, old)])
        eventually(lambda: all(named(one, sentinel_set) != old.address for one in others), 30, "the failover")
        (address,) = {named(one, sentinel_set) for one in others}
        new = sentinel_set.at(address)
        assert named(lonely, sentinel_set) == old.address
        assert old.role() == "master"
        driver.open_sentinel("mymaster", sentinel_set.sentinels)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            eventually(lambda: hears_all(driver, sentinel_set), what="the lonely one is heard")
            ask_again(driver, sentinel_set)
            load.progress()
            assert old.execute("EXISTS", Load.KEY) == 0
            sentinel_set.heal()
            assert sentinel_set.wait_switched(old) is new
            load.progress()
        ledger = load.ledger(sentinel_set.master())
        assert_rode_through(ledger, outages=0)
        assert write_arrives(driver, sentinel_set.master(), "one master")


def applied(node: NodeHandle) -> set[str]:
    return {*node.execute("HKEYS", Load.KEY)}
