"""Reads from the replicas of a Sentinel set: whatever befalls one of them, the application sees no error.

And a node that cannot answer, or whose data are not the master's, gets no reads until that is over.
"""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

import hatopo
from tests.conftest import eventually
from tests.control import ServerError
from tests.drivers import Load
from tests.scenarios.reading import (
    FAULTS,
    MAX_LAG,
    POLICIES,
    assert_spared,
    assert_told,
    executed,
    gets,
    hands_off,
    is_fit,
    wait_read_from,
    why_refused,
)
from tests.scenarios.support import (
    SLOW,
    assert_only_ambiguous,
    assert_rode_through,
    change_master,
    demoted,
    hears_all,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hatopo.testing import NodeHandle, SentinelDeployment, SentinelHandle
    from tests.drivers import WatchingDriver

READERS = dict.fromkeys(POLICIES, 2)
NEVER = 100_000.0
"""Seconds: of what would hang, if it happened."""
EMBEDDED_ONLY = {"lag", "loading"}


@pytest.fixture
def fault(request: pytest.FixtureRequest, backend: str) -> str:
    """The name of one of `FAULTS`; skipped where no process can suffer it."""
    if backend == "real" and request.param in EMBEDDED_ONLY:
        pytest.skip("no process can be asked for it")
    return str(request.param)


def suffer(driver: WatchingDriver, deployment: SentinelDeployment, name: str) -> None:
    """A fault at one of two replicas, under readers of three policies, from its beginning to its end."""
    fault, (master, bad, good) = FAULTS[name], deployment.nodes
    driver.open_sentinel(
        "mymaster", deployment.sentinels, read_from="replica_preferred", max_lag=MAX_LAG, socket_timeout=2
    )
    with Load(driver, incr=1, get=2, set=1, **READERS) as load:
        wait_read_from(load, bad, good)
        fault.begin(driver, bad, master)
        eventually(lambda: why_refused(driver, bad), 20, "it is noticed")
        assert fault.why in why_refused(driver, bad)
        assert_spared(driver, load, bad)
        wait_read_from(load, good)
        fault.end(driver, bad, master)
        wait_read_from(load, bad, good)
        load.progress()
    assert_rode_through(load.ledger(master), outages=0)


class TestOneOfTwoReplicas:
    """One client, whose threads read by three policies."""

    @pytest.mark.parametrize("fault", FAULTS, indirect=True)
    def test_it_is_left_alone_until_it_heals(
        self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment], fault: str
    ) -> None:
        """No sentinel notices anything, or does: the client finds out by itself."""
        deployment = make_set(down_after=NEVER)
        hands_off(deployment)
        suffer(driver, deployment, fault)
        assert_told(driver, deployment.nodes[1])

    def test_one_that_is_promoted_by_hand_gets_no_reads(
        self, driver: WatchingDriver, sentinel_set: SentinelDeployment
    ) -> None:
        """Its data go their own way from then on."""
        hands_off(sentinel_set)
        master, stray, good = sentinel_set.nodes
        driver.open_sentinel("mymaster", sentinel_set.sentinels, read_from="replica_preferred")
        with Load(driver, incr=1, get=2, set=1, **READERS) as load:
            wait_read_from(load, stray, good)
            stray.replicate(None)
            stray.execute("SET", Load.READ, "of another world")
            eventually(lambda: why_refused(driver, stray) == "it says that it is a master", what="it is noticed")
            assert_spared(driver, load, stray)
            assert driver.call("get", Load.READ) is None
            stray.replicate(master.address)
            wait_read_from(load, stray, good)
        assert_rode_through(load.ledger(master), outages=0)


class TestWhatSentinelsSay:
    """And what they do not say, or not yet. No process can be asked for a partition between a replica and them."""

    @pytest.fixture(params=["embedded"])
    def backend(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def test_one_that_they_hold_to_be_down_gets_no_reads(
        self, driver: WatchingDriver, sentinel_set: SentinelDeployment
    ) -> None:
        """Clients reach it, and it says that all is well."""
        master, cut_off, good = sentinel_set.nodes
        driver.open_sentinel("mymaster", sentinel_set.sentinels, read_from="replica_preferred")
        with Load(driver, incr=1, get=2, set=1, **READERS) as load:
            wait_read_from(load, cut_off, good)
            sentinel_set.partition(cut_off, sentinel_set.sentinel_nodes)
            eventually(lambda: "sentinels" in why_refused(driver, cut_off), what="it is flagged")
            assert_spared(driver, load, cut_off)
            assert cut_off.execute("ROLE")[3] == "connected"
            sentinel_set.heal()
            wait_read_from(load, cut_off, good)
        assert_rode_through(load.ledger(master), outages=0)

    def test_one_that_is_frozen(self, driver: WatchingDriver, sentinel_set: SentinelDeployment) -> None:
        """They notice it long before the client does, and what is under way there is not waited for."""
        suffer(driver, sentinel_set, "freeze")

    def test_one_sentinel_alone_flags_nobody(self, driver: WatchingDriver, sentinel_set: SentinelDeployment) -> None:
        _, cut_off, good = sentinel_set.nodes
        lonely = sentinel_set.sentinel_nodes[0]
        driver.open_sentinel("mymaster", sentinel_set.sentinels, read_from="replica")
        with Load(driver, any=2) as load:
            wait_read_from(load, cut_off, good)
            eventually(lambda: hears_all(driver, sentinel_set), what="it is heard")
            sentinel_set.partition(cut_off, lonely)
            eventually(lambda: "s_down" in flags(lonely, cut_off), what="it is flagged")
            load.progress()
            wait_read_from(load, cut_off, good)
            assert why_refused(driver, cut_off) == ""
        assert load.ledger(good).other_errors == []

    def test_one_that_no_sentinel_knows_yet_is_used(
        self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]
    ) -> None:
        """Sentinels ask a master for its replicas every ten seconds, these never do; the client asks more often."""
        deployment = make_set(replicas=1)
        with contextlib.suppress(ServerError):  # before 7.0 they may come first
            deployment.tune(info_period=3_600_000)
        driver.open_sentinel("mymaster", deployment.sentinels, read_from="replica_preferred")
        master, known = deployment.nodes
        with Load(driver, incr=1, set=1, replica_preferred=2) as load:
            wait_read_from(load, known)
            fresh = deployment._start_node(master)
            wait_read_from(load, fresh, known)
        assert_rode_through(load.ledger(master), outages=0)


def flags(sentinel: SentinelHandle, node: NodeHandle) -> str:
    """What a sentinel thinks of a replica."""
    listed = [
        dict(zip(one[::2], one[1::2], strict=True)) for one in sentinel.execute("SENTINEL", "REPLICAS", "mymaster")
    ]
    return next(str(one["flags"]) for one in listed if int(one["port"]) == node.port)


@pytest.mark.usefixtures("patient")
class TestAllReplicas:
    """Nobody but the master is left."""

    @pytest.mark.parametrize("known", [True, False], ids=["known", "unknown"])
    def test_replicas_alone_are_an_error_at_once(
        self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment], known: bool
    ) -> None:
        """It names every node, and why it was not taken. Nothing waits for anything: that would take for ever."""
        deployment = make_set(down_after=NEVER)
        master, *replicas = deployment.nodes
        driver.open_sentinel("mymaster", deployment.sentinels, read_from="replica", failover_timeout=NEVER)
        driver.call("set", "key", "value")
        eventually(lambda: driver.call("get", "key") == b"value", what="it is replicated")
        for replica in replicas:
            replica.kill()
        if known:
            eventually(lambda: all(why_refused(driver, one) for one in replicas), what="they are missed")
        before = sum(driver.stats().retries.values())
        with pytest.raises(hatopo.NoSuitableNodeError) as caught:
            driver.call("get", "key")
        attempts = sum(driver.stats().retries.values()) - before
        assert attempts == 0 if known else attempts <= len(replicas)
        assert caught.value.command == "GET"
        assert not caught.value.maybe_executed
        assert {*caught.value.refused} == {f"{node.host}:{node.port}" for node in deployment.nodes}
        assert "read_from=replica does not permit" in caught.value.refused[f"{master.host}:{master.port}"]
        assert all(f"{node.host}:{node.port}" in str(caught.value) for node in deployment.nodes)
        assert driver.call("set", "key", "later"), "writes go on"
        replicas[0].start()
        eventually(lambda: reads(driver, "key") == b"later", what="one is back")

    def test_the_master_answers_where_it_may(
        self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]
    ) -> None:
        deployment = make_set(down_after=NEVER)
        master, *replicas = deployment.nodes
        driver.open_sentinel("mymaster", deployment.sentinels, read_from="replica_preferred")
        with Load(driver, incr=1, set=1, get=2, replica_preferred=2, any=2) as load:
            wait_read_from(load, *replicas)
            for replica in replicas:
                replica.kill()
            wait_read_from(load, master)
            for replica in replicas:
                replica.start()
            wait_read_from(load, *replicas)
            eventually(lambda: idle_of_reads(driver, master), what="the master is relieved")
        assert_rode_through(load.ledger(master), outages=0)

    def test_no_replica_is_no_error_where_the_master_may_answer(
        self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]
    ) -> None:
        deployment = make_set(replicas=0)
        driver.open_sentinel("mymaster", deployment.sentinels, read_from="replica_preferred")
        driver.call("set", "key", "value")
        assert driver.call("get", "key") == b"value"
        with pytest.raises(hatopo.NoSuitableNodeError, match="read_from=replica does not permit"):
            driver.read("get", "key", read_from="replica")


def reads(driver: WatchingDriver, key: str) -> object:
    """What a read brings, or None while nobody may answer."""
    try:
        return driver.call("get", key)
    except hatopo.NoSuitableNodeError:
        return None


def idle_of_reads(driver: WatchingDriver, master: NodeHandle) -> bool:
    """Whether reads that prefer replicas pass this master by."""
    before = gets(master)
    answered = [driver.read("get", Load.READ, read_from="replica_preferred").nodes for _ in range(20)]
    assert gets(master) >= before
    return all(nodes != (master.address,) for nodes in answered)


class TestAFailover:
    """The master changes under readers of every kind."""

    @pytest.mark.parametrize("trouble", ["kill", "pause", "planned"])
    def test_reads_ride_through(
        self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment], trouble: str
    ) -> None:
        """Writes wait, reads hardly do; the former master is read from when it has come back as a replica."""
        deployment = make_set(speed=SLOW)
        driver.open_sentinel("mymaster", deployment.sentinels, read_from="replica_preferred", socket_timeout=60)
        old = deployment.master()
        with Load(driver, incr=2, get=2, set=2, **READERS) as load:
            wait_read_from(load, *deployment.replicas())
            new = change_master(deployment, trouble)
            load.progress()
            if trouble == "kill":
                old.start()
            elif trouble == "pause":
                old.resume()
            demoted(old, deployment)
            others = [node for node in deployment.nodes if node is not new]
            wait_read_from(load, *others)
            load.progress()
            eventually(lambda: idle_of_reads(driver, new), what="the new master is relieved")
        ledger = load.ledger(new)
        assert_only_ambiguous(ledger, outages=1)
        assert ledger.doubled == []
        if trouble != "planned":  # then the old master acknowledges for a moment what is thrown away
            assert_rode_through(ledger)

    @pytest.mark.usefixtures("patient")
    def test_while_there_is_no_master_replicas_answer(
        self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]
    ) -> None:
        """Their links are down with it, and nobody has newer data. Who waited for a master would wait in vain."""
        deployment = make_set(down_after=NEVER)
        master, *replicas = deployment.nodes
        driver.open_sentinel(
            "mymaster", deployment.sentinels, read_from="replica_preferred", failover_timeout=20, max_lag=MAX_LAG
        )
        policies = (*POLICIES, "replica", "master_preferred")
        with Load(driver, get=2, **dict.fromkeys(policies, 1)) as load:
            load.progress()
            master.kill()
            eventually(lambda: why_refused(driver, master), what="it is missed")
            eventually(lambda: all(one.execute("ROLE")[3] != "connected" for one in replicas), what="links are down")
            asked = [executed("role", one) for one in replicas]
            eventually(
                lambda: all(executed("role", one) > before + 1 for one, before in zip(replicas, asked, strict=True)),
                what="and the client knows",
            )
            load.progress()
            wait_read_from(load, *replicas)
        assert load.ledger(replicas[0]).other_errors == []


@pytest.mark.usefixtures("patient")
class TestMembers:
    """Replicas that come and go."""

    def test_one_that_comes_is_used_and_one_that_goes_is_forgotten(
        self, driver: WatchingDriver, sentinel_set: SentinelDeployment
    ) -> None:
        master, leaving, staying = sentinel_set.nodes
        driver.open_sentinel("mymaster", sentinel_set.sentinels, read_from="replica_preferred")
        with Load(driver, incr=1, get=2, set=1, **READERS) as load:
            wait_read_from(load, leaving, staying)
            joined = sentinel_set.add_replica()
            wait_read_from(load, joined, leaving, staying)
            sentinel_set.remove(leaving)
            load.progress()
            eventually(lambda: leaving.address not in driver.nodes(), 20, "it is forgotten")
            wait_read_from(load, joined, staying)
        assert_rode_through(load.ledger(master), outages=0)


SOUND = 15_000
"""Reads after which the shares of three nodes differ by a tenth once in a million times."""


def shared_out(driver: WatchingDriver, deployment: SentinelDeployment, threads: int, reads: int) -> list[int]:
    """How many reads of so many threads each replica has executed; nothing speaks against any of them."""
    _, *replicas = deployment.nodes
    before = [gets(one) for one in replicas]

    def work(number: int) -> None:
        for _ in range(reads // threads):
            assert driver.call("get", f"key-{number}") is None

    with ThreadPoolExecutor(threads) as pool:
        assert list(pool.map(work, range(threads))) == [None] * threads
    return [gets(one) - earlier for one, earlier in zip(replicas, before, strict=True)]


def assert_equal(shares: list[int], reads: int) -> None:
    assert sum(shares) == reads
    assert max(shares) - min(shares) < 0.1 * reads / len(shares), shares


def open_with_three(driver: WatchingDriver, deployment: SentinelDeployment) -> None:
    """Returns when all three replicas are fit."""
    _, *replicas = deployment.nodes
    driver.open_sentinel("mymaster", deployment.sentinels, read_from="replica")
    driver.call("ping")
    eventually(lambda: driver.call("get", "key") is None and all(is_fit(driver, one) for one in replicas))


@pytest.mark.usefixtures("patient")
class TestBalance:
    """Equals share the reads equally, and one that is slower gets less."""

    def test_equals_get_equal_shares(self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]) -> None:
        deployment = make_set(replicas=3)
        open_with_three(driver, deployment)
        assert_equal(shared_out(driver, deployment, threads=1, reads=SOUND), SOUND)


@pytest.mark.usefixtures("patient")
class TestBalanceOfThreads:
    """Processes are no equals: the machine lets now one wait, now another, and then it is given less."""

    @pytest.fixture(params=["embedded"])
    def backend(self, request: pytest.FixtureRequest) -> str:
        return str(request.param)

    def test_equals_get_equal_shares_of_threads(
        self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]
    ) -> None:
        deployment = make_set(replicas=3)
        open_with_three(driver, deployment)
        reads = SOUND // 8 * 8
        assert_equal(shared_out(driver, deployment, threads=8, reads=reads), reads)

    def test_a_slow_one_gets_less(self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]) -> None:
        """Those who wait for it count as its load."""
        deployment = make_set(replicas=3)
        open_with_three(driver, deployment)
        fault = deployment.nodes[1].delay("get", 0.1, times=None)
        slow, *quick = shared_out(driver, deployment, threads=8, reads=800)
        assert fault.met == slow > 0
        assert slow < min(quick) / 2, (slow, quick)
