"""A managed service: names of endpoints tell who is the master, and behind which addresses replicas are."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from hatopo.client import _replicated
from tests.conftest import eventually
from tests.drivers import Load
from tests.names import Names
from tests.scenarios.reading import NOBODY, executed, gets, take_over
from tests.scenarios.support import assert_only_ambiguous, assert_rode_through

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hatopo.testing import NodeHandle, Replication
    from tests.drivers import WatchingDriver

PRIMARY, READERS = "primary.example", "readers.example"


@pytest.fixture
def replication(make_replication: Callable[..., Replication]) -> Replication:
    """A master and two replicas of the test's own."""
    return make_replication()


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch, replication: Replication) -> Iterator[Names]:
    """The names of the endpoints, which begin as the nodes are; readers' names are looked up often."""
    monkeypatch.setattr(_replicated, "RESOLVE_GAP", 0.2)
    names = Names(monkeypatch)
    master, *replicas = replication.nodes
    names.point(PRIMARY, master.address)
    names.point(READERS, *(node.address for node in replicas))
    yield names
    names.close()


def open_named(driver: WatchingDriver, names: Names, **options: Any) -> None:
    driver.open_replicated(primary=(PRIMARY, names.port), readers=[(READERS, names.port)], **options)


def wait_reads_at(*nodes: NodeHandle) -> None:
    """Returns when each of these has executed reads that were sent from now on."""
    before = [gets(node) for node in nodes]
    eventually(
        lambda: all(gets(node) > earlier for node, earlier in zip(nodes, before, strict=True)),
        20,
        f"reads at {', '.join(node.name for node in nodes)}",
    )


def wait_asked(node: NodeHandle) -> None:
    """Returns when the client has asked this node how it is, and once more."""
    before = executed("role", node)
    eventually(lambda: executed("role", node) > before + 1, 20, f"{node.name} is asked how it is")


def assert_no_reads_at(load: Load, node: NodeHandle) -> None:
    load.progress()
    before = gets(node)
    for _ in range(5):
        load.progress()
    assert gets(node) == before


pytestmark = pytest.mark.usefixtures("patient")


class TestNames:
    def test_a_name_of_several_addresses_is_several_nodes(
        self, driver: WatchingDriver, replication: Replication, names: Names
    ) -> None:
        """The reads are shared out between them, whatever the resolver names first."""
        master, *replicas = replication.nodes
        open_named(driver, names, read_from="replica_preferred")
        expected = {(PRIMARY, names.port): "master"} | {names.address_of(one.address): "replica" for one in replicas}
        with Load(driver, incr=2, get=2, set=2, replica_preferred=2) as load:
            wait_reads_at(*replicas)
            assert {place: node.role for place, node in driver.nodes().items()} == expected
            assert_no_reads_at(load, master)
        assert_rode_through(load.ledger(master), outages=0)
        assert driver.master() == (PRIMARY, names.port)

    def test_writes_follow_the_name_of_the_primary(
        self, driver: WatchingDriver, replication: Replication, names: Names
    ) -> None:
        """It moves some time after the roles have changed: until then calls wait, and nobody sees READONLY."""
        old, new, other = replication.nodes
        open_named(driver, names, read_from="replica_preferred")
        with Load(driver, incr=4, get=2, set=2, replica_preferred=2) as load:
            wait_reads_at(new, other)
            discarded = take_over(new, old, [other], Load.KEY)
            eventually(lambda: driver.stats().retries.get("readonly", 0) > 0, what="calls meet it")
            names.point(PRIMARY, new.address)
            names.point(READERS, old.address, other.address)
            load.progress()
            wait_reads_at(old, other)
            eventually(lambda: names.address_of(new.address) not in driver.nodes(), what="it is no reader any more")
            assert_no_reads_at(load, new)
        ledger = load.ledger(new)
        assert_only_ambiguous(ledger, outages=0)
        assert ledger.doubled == []
        assert {*ledger.lost} <= discarded


class TestWhoIsBehindThem:
    """Servers of whatever kind: what matters is which of them is met."""

    @pytest.fixture(params=["embedded"])
    def backend(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def test_connections_that_are_old_are_rebalanced(
        self, driver: WatchingDriver, replication: Replication, names: Names
    ) -> None:
        """A name that gives one address at a time is one node, whoever is behind it: their age brings others in."""
        master, first, second = replication.nodes
        names.point(READERS, first.address)
        open_named(driver, names, read_from="replica_preferred", max_connection_age=0.3)
        with Load(driver, incr=1, get=4, set=1, replica_preferred=4) as load:
            wait_reads_at(first)
            assert_no_reads_at(load, second)
            names.rotate(READERS, first.address, second.address)
            wait_reads_at(second)
            assert {*driver.nodes()} == {(PRIMARY, names.port), (READERS, names.port)}
            names.point(READERS, second.address)
            eventually(lambda: no_reads_at(load, first), 20, "nobody is left there")
            wait_reads_at(second)
        assert_rode_through(load.ledger(master), outages=0)

    def test_one_that_has_left_its_name_is_asked_no_more(
        self, driver: WatchingDriver, replication: Replication, names: Names
    ) -> None:
        """What it says of itself speaks against nobody who is behind the name now."""
        master, leaving, staying = replication.nodes
        names.point(READERS, leaving.address)
        open_named(driver, names, read_from="replica", max_connection_age=0.3)
        with Load(driver, get=2, replica=2) as load:
            wait_reads_at(leaving)
            names.point(READERS, staying.address)
            eventually(lambda: no_reads_at(load, leaving), 20, "nobody is left there")
            leaving.replicate(NOBODY)
            eventually(lambda: "master_link_status:down" in leaving.execute("INFO", "replication"), what="it grows old")
            wait_asked(staying)
            before = executed("role", leaving)
            wait_asked(staying)
            assert executed("role", leaving) == before
            load.progress()
            wait_reads_at(staying)
        assert load.ledger(master).other_errors == []

    def test_readers_may_be_the_primary(self, driver: WatchingDriver, replication: Replication, names: Names) -> None:
        """As where there is no replica yet: the endpoint for reads leads to the master, and that will do."""
        master, *replicas = replication.nodes
        names.point(READERS, master.address)
        open_named(driver, names, read_from="replica", max_connection_age=0.3)
        with Load(driver, incr=1, get=2, set=1, replica=2) as load:
            wait_reads_at(master)
            assert driver.nodes()[READERS, names.port].role == "replica"
            names.point(READERS, *(one.address for one in replicas))
            wait_reads_at(*replicas)
            eventually(lambda: no_reads_at(load, master), 20, "it is relieved")
        assert_rode_through(load.ledger(master), outages=0)

    def test_a_resolver_that_fails_takes_nobody_away(
        self, driver: WatchingDriver, replication: Replication, names: Names
    ) -> None:
        master, *replicas = replication.nodes
        open_named(driver, names, read_from="replica")
        with Load(driver, get=2, replica=2) as load:
            wait_reads_at(*replicas)
            names.point(READERS)
            asked = names.asked[READERS]
            eventually(lambda: names.asked[READERS] > asked + 1, what="it is looked up in vain")
            wait_reads_at(*replicas)
        assert load.ledger(master).other_errors == []


def no_reads_at(load: Load, node: NodeHandle) -> bool:
    """Whether no thread reads there in its next calls."""
    before = gets(node)
    load.progress()
    return gets(node) == before
