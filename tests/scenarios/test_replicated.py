"""A master and its replicas whom nobody watches: an operator changes their roles by hand."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from types import ModuleType
from typing import TYPE_CHECKING, Any

import pytest
import redis

import hatopo
from hatopo import events
from hatopo.client import _threads
from hatopo.testing import RealNode
from tests.conftest import eventually
from tests.drivers import Load
from tests.scenarios.reading import (
    NOBODY,
    addresses,
    assert_spared,
    is_fit,
    promote_in_peace,
    take_over,
    wait_read_from,
    wait_replicated,
)
from tests.scenarios.support import (
    assert_only_ambiguous,
    assert_rode_through,
    masters_told,
    threads_of_hatopo,
    told,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hatopo.testing import Replication
    from tests.control import Address
    from tests.drivers import Ledger, WatchingDriver

READERS = {"replica_preferred": 2, "any": 2}

pytestmark = pytest.mark.usefixtures("patient")


@pytest.fixture
def replication(make_replication: Callable[..., Replication]) -> Replication:
    """A master and two replicas of the test's own."""
    return make_replication()


def assert_followed(ledger: Ledger, discarded: set[str]) -> None:
    """No error, nothing applied twice, nothing lost but what Redis itself threw away when it was told to."""
    assert ledger.acknowledged > 0
    assert_only_ambiguous(ledger, outages=0)
    assert ledger.doubled == []
    assert {*ledger.lost} <= discarded


class TestRolesByHand:
    """REPLICAOF, as operators and their scripts use it."""

    def test_it_is_followed(self, driver: WatchingDriver, replication: Replication) -> None:
        """Once in one direction, once back: the former master is read from as soon as it is a replica."""
        old, new, other = replication.nodes
        driver.open_replicated(addresses(replication), read_from="replica_preferred")
        discarded: set[str] = set()
        with Load(driver, incr=4, get=2, set=2, **READERS) as load:
            wait_read_from(load, new, other)
            for former, chosen in ((old, new), (new, old)):
                discarded |= take_over(chosen, former, [other], Load.KEY)
                load.progress()
                assert driver.master() == chosen.address
                wait_read_from(load, former, other)
                replication.wait_stable()
        assert_followed(load.ledger(old), discarded)
        eventually(lambda: masters_told(driver) == [(new.address, False), (old.address, False)], what="it is told")
        assert driver.stats().failovers == 2

    def test_a_killed_master_is_replaced(self, driver: WatchingDriver, replication: Replication) -> None:
        """Calls wait for whoever is promoted; nobody is asked but the nodes."""
        old, new, other = replication.nodes
        driver.open_replicated(addresses(replication), read_from="any")
        with Load(driver, incr=4, get=2, set=2, **READERS) as load:
            wait_read_from(load, new, other)
            wait_replicated([new, other])
            old.kill()
            wait_read_from(load, new, other)
            promote_in_peace(replication, new)
            load.progress()
            old.start()
            old.replicate(new.address)
            wait_read_from(load, old, other)
        assert_rode_through(load.ledger(new))
        assert driver.master() == new.address

    def test_all_are_restarted(self, driver: WatchingDriver, replication: Replication) -> None:
        driver.open_replicated(addresses(replication), read_from="replica_preferred")
        master, *replicas = replication.nodes
        with Load(driver, incr=4, get=2, set=2, **READERS) as load:
            wait_read_from(load, *replicas)
            for node in replication.nodes:
                node.kill()
            load.stall()
            for node in replication.nodes:
                node.start()
            load.progress()
            wait_read_from(load, *replicas)
        assert_rode_through(load.ledger(master))
        assert masters_told(driver) == []

    def test_one_seed_is_enough(self, driver: WatchingDriver, replication: Replication) -> None:
        """The master names its replicas; one of them is promoted later."""
        old, new, other = replication.nodes
        driver.open_replicated([old.address], read_from="replica_preferred")
        driver.call("set", Load.READ, "value")
        with Load(driver, incr=2, get=2, set=2, **READERS) as load:
            wait_read_from(load, new, other)
            discarded = take_over(new, old, [other], Load.KEY)
            load.progress()
            wait_read_from(load, old, other)
            old.kill()
            load.progress()
            wait_read_from(load, other)
        assert_followed(load.ledger(new), discarded)

    def test_one_seed_serves_the_first_read_by_a_replica(
        self, driver: WatchingDriver, replication: Replication
    ) -> None:
        """The master has named them when it was asked for the first time."""
        master, *replicas = replication.nodes
        master.execute("SET", "key", "value")
        replication.wait_stable()
        driver.open_replicated([master.address], read_from="replica")
        answer = driver.read("get", "key")
        assert answer.reply == b"value"
        assert {*answer.nodes} <= {one.address for one in replicas}

    def test_one_that_comes_is_used_and_one_that_goes_is_forgotten(
        self, driver: WatchingDriver, replication: Replication
    ) -> None:
        """Only its master has ever named it, and does so no more."""
        master, leaving, staying = replication.nodes
        driver.open_replicated([master.address], read_from="replica_preferred")
        with Load(driver, incr=1, get=2, set=1, **READERS) as load:
            wait_read_from(load, leaving, staying)
            joined = replication.add_replica()
            wait_read_from(load, joined, leaving, staying)
            replication.remove(leaving)
            eventually(lambda: not is_fit(driver, leaving), what="it is missed")
            load.progress()
            eventually(lambda: leaving.address not in driver.nodes(), 20, "it is forgotten")
            wait_read_from(load, joined, staying)
        assert_rode_through(load.ledger(master), outages=0)


class TestWhoIsTheMaster:
    """Several, none, and one that only says so."""

    def test_the_one_that_others_follow(self, driver: WatchingDriver, replication: Replication) -> None:
        master, stray, other = replication.nodes
        seeds = [stray.address, master.address, other.address]
        driver.open_replicated(seeds, read_from="replica_preferred")
        with Load(driver, incr=2, set=2, **READERS) as load:
            wait_read_from(load, stray, other)
            stray.replicate(None)
            (several,) = eventually(lambda: told(driver, events.SeveralMasters), what="it is told")
            assert_spared(driver, load, stray)
            assert stray.execute("HLEN", Load.KEY) < master.execute("HLEN", Load.KEY), "it gets no writes"
        assert (several.chosen.host, several.chosen.port) == master.address
        assert [(one.host, one.port) for one in several.others] == [stray.address]
        assert_rode_through(load.ledger(master), outages=0)
        assert masters_told(driver) == []

    @pytest.mark.parametrize("replicas", [1, 2])
    def test_an_empty_one_that_comes_back_is_not_followed(
        self, driver: WatchingDriver, make_replication: Callable[..., Replication], replicas: int
    ) -> None:
        """Without its configuration it is a master again, whom nobody follows; nor may anybody follow the other one."""
        deployment = make_replication(replicas=replicas)
        old, new = deployment.nodes[:2]
        driver.open_replicated(addresses(deployment), read_from="any")
        with Load(driver, incr=2, get=2, set=2) as load:
            load.progress()
            wait_replicated(deployment.nodes[1:])
            old.kill()
            promote_in_peace(deployment, new)
            load.progress()
            assert driver.master() == new.address
            old.restart(empty=True)
            assert old.role() == "master"
            eventually(lambda: told(driver, events.SeveralMasters), what="it is told")
            assert_spared(driver, load, old)
            assert old.execute("DBSIZE") == 0
        assert_rode_through(load.ledger(new))
        eventually(lambda: [address for address, _ in masters_told(driver)] == [new.address], what="it is told")

    def test_a_new_client_takes_the_one_with_the_data(
        self, driver: WatchingDriver, make_replication: Callable[..., Replication]
    ) -> None:
        deployment = make_replication(replicas=1)
        old, new = deployment.nodes
        old.execute("SET", "key", "value")
        deployment.wait_stable()
        old.kill()
        deployment.promote(new)
        old.restart(empty=True)
        driver.open_replicated(addresses(deployment))
        assert driver.call("get", "key") == b"value"
        assert driver.master() == new.address

    def test_none_is_an_error_in_time_and_the_first_is_followed(
        self, driver: WatchingDriver, replication: Replication
    ) -> None:
        """The error says what each node is."""
        first = replication.nodes[0]
        first.replicate(NOBODY)
        driver.open_replicated(addresses(replication), failover_timeout=2)
        with pytest.raises(hatopo.MasterNotFoundError) as caught:
            driver.call("set", "key", "value")
        for node in replication.nodes:
            assert f"{node.host}:{node.port} says that it is a replica" in str(caught.value)
        first.replicate(None)
        eventually(lambda: sets(driver), what="it is followed")
        assert first.execute("GET", "key") == "value"

    def test_a_call_waits_for_the_first_one(self, driver: WatchingDriver, replication: Replication) -> None:
        first = replication.nodes[0]
        first.replicate(NOBODY)
        driver.open_replicated(addresses(replication), failover_timeout=60)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(driver.call, "set", "key", "value")
            eventually(lambda: driver.stats().retries.get("no_master", 0) > 3, what="it waits")
            assert not waiting.done()
            first.replicate(None)
            assert waiting.result(30) is True
        assert first.execute("GET", "key") == "value"


def sets(driver: WatchingDriver) -> bool:
    """Whether there is a master by now."""
    try:
        return bool(driver.call("set", "key", "value"))
    except hatopo.MasterNotFoundError:
        return False


RIGHTS = "user app on >app-secret ~* &* +@all"


class TestLogins:
    """Nodes that want a password, and users who may not do everything."""

    def test_with_a_password(self, driver: WatchingDriver, make_replication: Callable[..., Replication]) -> None:
        deployment = make_replication(password="secret")
        self._follow(driver, deployment, password="secret")

    def test_without_role(self, driver: WatchingDriver, make_replication: Callable[..., Replication]) -> None:
        """INFO tells the role as well."""
        deployment = make_replication(users=[f"{RIGHTS} -role"])
        self._follow(driver, deployment, username="app", password="app-secret")

    def _follow(self, driver: WatchingDriver, deployment: Replication, **login: Any) -> None:
        old, new, other = deployment.nodes
        driver.open_replicated([old.address, new.address, other.address], read_from="replica_preferred", **login)
        with Load(driver, incr=2, get=2, set=2, **READERS) as load:
            wait_read_from(load, new, other)
            discarded = take_over(new, old, [other], Load.KEY)
            load.progress()
            wait_read_from(load, old, other)
        assert_followed(load.ledger(new), discarded)

    def test_without_role_and_info_it_is_said_what_is_missing(
        self, driver: WatchingDriver, make_replication: Callable[..., Replication]
    ) -> None:
        deployment = make_replication(users=[f"{RIGHTS} -role -info"])
        driver.open_replicated(addresses(deployment), failover_timeout=2, username="app", password="app-secret")
        with pytest.raises(hatopo.MasterNotFoundError, match=r"\+role"):
            driver.call("set", "key", "value")

    def test_a_wrong_password_is_said(
        self, driver: WatchingDriver, make_replication: Callable[..., Replication]
    ) -> None:
        deployment = make_replication(password="secret")
        driver.open_replicated(addresses(deployment), failover_timeout=60, read_from="replica", password="wrong")
        for command in (("get", "key"), ("set", "key", "value")):
            with pytest.raises(hatopo.HatopoError, match=r"WRONGPASS|invalid") as raised:
                driver.call(*command)
            assert isinstance(raised.value, redis.AuthenticationError), "at once, though a master would be waited for"


class TestWithoutThreads:
    """Nobody asks the nodes while nobody calls; calls that fail do."""

    @pytest.fixture(params=["embedded"])
    def backend(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    @pytest.fixture(params=["uwsgi", "impossible"])
    def threadless(self, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
        """A process of uWSGI without `enable-threads`, or one that can have no more threads."""

        class Refused:
            def __init__(self, *_: Any, **__: Any) -> None:
                raise RuntimeError("can't start new thread")

        class Threading:
            Thread = Refused

        if request.param == "impossible":
            monkeypatch.setattr(_threads, "threading", Threading)
        else:
            uwsgi: Any = ModuleType("uwsgi")
            uwsgi.opt = {}
            monkeypatch.setitem(sys.modules, "uwsgi", uwsgi)
        return str(request.param)

    def test_roles_and_reads_are_followed(
        self, driver: WatchingDriver, replication: Replication, threadless: str
    ) -> None:
        del threadless
        old, new, other = replication.nodes
        driver.open_replicated(addresses(replication), read_from="replica_preferred")
        with Load(driver, incr=2, get=2, set=2, **READERS) as load:
            wait_read_from(load, new, other)
            discarded = take_over(new, old, [other], Load.KEY)
            load.progress()
            wait_read_from(load, old, other)
            other.kill()
            wait_read_from(load, old)
            other.start()
            wait_read_from(load, other)
        assert_followed(load.ledger(new), discarded)


class TestTwoNetworks:
    """The nodes know each other by addresses of one network, clients dial those of another one."""

    @pytest.fixture
    def nodes(self, redis_installed: tuple[int, ...]) -> Iterator[tuple[RealNode, RealNode]]:
        if redis_installed < (7,):
            pytest.skip("before 7.0 a server cannot be told to listen elsewhere")
        with RealNode() as master, RealNode() as replica:
            for node in (master, replica):
                node.configure(bind="127.0.0.1 127.0.0.2")
            replica.announce("127.0.0.2", replica.port)
            replica.replicate(("127.0.0.2", master.port))
            eventually(lambda: f"ip=127.0.0.2,port={replica.port},state=online" in master.execute("INFO"), 30)
            yield master, replica

    @pytest.mark.parametrize("listed", ["both", "the master", "the master twice"])
    def test_they_are_recognised(self, driver: WatchingDriver, nodes: tuple[RealNode, RealNode], listed: str) -> None:
        master, replica = nodes
        more = {"both": [replica.address], "the master": [], "the master twice": [("127.0.0.2", master.port)]}[listed]
        driver.open_replicated([master.address, *more], read_from="replica", failover_timeout=10)
        assert driver.call("set", "key", "value")
        reached = replica.address if listed == "both" else ("127.0.0.2", replica.port)
        eventually(lambda: {*driver.nodes()} == {master.address, reached}, what="both are known")
        eventually(lambda: driver.call("get", "key") == b"value", what="the replica answers")
        assert driver.master() == master.address

    def test_a_network_that_is_out_of_reach(self, driver: WatchingDriver, nodes: tuple[RealNode, RealNode]) -> None:
        """The master is known by its replicas; these are not known for its own, and so get no reads."""
        master, replica = nodes
        nowhere = {"127.0.0.2": "127.0.0.3"}
        addresses = [master.address, replica.address]
        driver.open_replicated(addresses, read_from="replica_preferred", address_map=nowhere, failover_timeout=10)
        assert driver.call("set", "key", "value")
        assert driver.call("get", "key") == b"value"
        eventually(lambda: "address_map" in driver.nodes()[replica.address].refused, what="it is said")


class TestProcesses:
    """What forks, and what is left behind."""

    @pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
    def test_a_forked_child_reads_from_replicas(self, replication: Replication) -> None:
        ports = [str(node.port) for node in replication.nodes]
        script = [sys.executable, "-m", "tests.scenarios.scripts.reading_forked", *ports]
        ended = subprocess.run(script, capture_output=True, text=True, timeout=90, check=False)
        assert (ended.stdout, ended.stderr, ended.returncode) == ("ok\n", "", 0)
        assert replication.nodes[0].execute("GET", "child") == "was here"

    @pytest.mark.parametrize("how", ["closed", "dropped"])
    def test_clients_that_are_gone_leave_nothing(self, replication: Replication, how: str) -> None:
        """Neither a thread nor a connection, of those that asked the nodes included."""
        eventually(lambda: not threads_of_hatopo(), what="the threads of earlier tests are gone")
        kept = [used_once(addresses(replication)) for _ in range(5)]
        assert threads_of_hatopo("health")
        if how == "closed":
            for client in kept:
                client.close()
        else:
            kept.clear()
            gc.collect()
        eventually(lambda: not threads_of_hatopo(), what="no thread stays")
        eventually(
            lambda: all("name=gone" not in node.execute("CLIENT", "LIST") for node in replication.nodes),
            what="no connection stays",
        )
        assert len(kept) == (5 if how == "closed" else 0)


def used_once(nodes: list[Address]) -> hatopo.Redis:
    """A client that has read and written, and is not needed any more."""
    client = hatopo.replicated(nodes, read_from="replica_preferred", client_name="gone")
    client.set("key", "value")
    client.get("key")
    return client
