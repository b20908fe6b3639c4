"""What no real process can be asked for: replies that are lost, cut or late, and errors at a chosen moment.

Whatever the server does to a command, the ledger holds: what was acknowledged was applied once, what was not
acknowledged at most once, and an error says which of the two it may be.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest
import redis

import hatopo
from hatopo import events
from tests.conftest import eventually
from tests.drivers import Load
from tests.scenarios.support import HOURS, assert_rode_through, masters_told, told

if TYPE_CHECKING:
    from collections.abc import Callable

    from hatopo.testing import Node, SentinelDeployment
    from tests.drivers import WatchingDriver

TIMES = 5
LARGE = "x" * 100_000


@pytest.fixture(params=["embedded"])
def backend(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def applied(ledger: Any) -> set[int]:
    """How often each of the ambiguous calls was applied."""
    return {ledger.applied.get(call.name, 0) for call in ledger.ambiguous}


class TestLostReplies:
    """One server; the connection ends in the middle of a command."""

    @pytest.mark.parametrize("executed", [True, False])
    def test_a_write_without_its_reply_may_have_been_executed(
        self, driver: WatchingDriver, own_server: Node, executed: bool
    ) -> None:
        """The client cannot tell the two apart, and repeats neither."""
        drop = own_server.drop_after_execute if executed else own_server.drop_before
        driver.open_standalone(own_server.address)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            fault = drop("hincrby", times=TIMES)
            eventually(lambda: fault.met == TIMES, what="all faults are met")
            load.progress()
        ledger = load.ledger(own_server)
        assert_rode_through(ledger, outages=TIMES)
        assert len(ledger.ambiguous) == TIMES
        assert all(isinstance(call.error, hatopo.AmbiguousConnectionError) for call in ledger.ambiguous)
        assert applied(ledger) == {int(executed)}
        assert driver.stats().ambiguous == {"HINCRBY": TIMES}

    @pytest.mark.parametrize("fault", ["drop_after_execute", "drop_before"])
    def test_what_may_be_repeated_is_repeated(self, driver: WatchingDriver, own_server: Node, fault: str) -> None:
        driver.open_standalone(own_server.address)
        with Load(driver, incr=2, get=2, set=2) as load:
            load.progress()
            faults = [getattr(own_server, fault)(command, times=TIMES) for command in ("get", "set")]
            eventually(lambda: all(one.met == TIMES for one in faults), what="all faults are met")
            load.progress()
        ledger = load.ledger(own_server)
        assert_rode_through(ledger)
        assert ledger.ambiguous == []
        assert driver.stats().retries == {"reply_lost": 2 * TIMES}

    def test_a_reply_that_is_cut_is_no_reply(self, driver: WatchingDriver, own_server: Node) -> None:
        """Neither is half a value taken for one, nor half a number."""
        driver.open_standalone(own_server.address)
        driver.call("set", "large", LARGE)
        own_server.execute("SET", "counter", 12344)
        faults = [own_server.cut_reply("get", 50_000), own_server.cut_reply("incrby", 3)]
        assert driver.call("get", "large") == LARGE.encode()
        with pytest.raises(hatopo.AmbiguousConnectionError):
            driver.call("incr", "counter")
        assert [fault.met for fault in faults] == [1, 1]
        assert own_server.execute("GET", "counter") == "12345"
        assert driver.call("incr", "counter") == 12346

    def test_replies_of_a_pipeline_that_are_cut(self, driver: WatchingDriver, own_server: Node) -> None:
        """What was answered stands, reads are repeated, and the writes behind the cut are not: one may not be."""
        driver.open_standalone(own_server.address)
        driver.call("set", "large", LARGE)
        fault = own_server.cut_reply("get", 50_000)
        first, second, large, third, fourth, last = driver.pipeline(
            ("set", "early", "1"),
            ("incr", "counted"),
            ("get", "large"),
            ("incr", "cut"),
            ("set", "late", "1"),
            ("get", "early"),
        )
        assert fault.met == 1
        assert (first, second, large, last) == (True, 1, LARGE.encode(), b"1")
        assert isinstance(third, hatopo.AmbiguousResultError)
        assert isinstance(fourth, hatopo.AmbiguousResultError)
        held = own_server.execute("MGET", "early", "counted", "cut", "late")
        assert held == ["1", "1", None, None], "the server closed the connection behind the cut"

    @pytest.mark.parametrize(("fault", "times"), [("drop_after_execute", 1), ("drop_before", 0)])
    def test_a_transaction_without_its_reply_is_not_repeated(
        self, driver: WatchingDriver, own_server: Node, fault: str, times: int
    ) -> None:
        """Not even one of commands that might be repeated one by one."""
        driver.open_standalone(own_server.address)
        met = getattr(own_server, fault)("exec")
        with pytest.raises(hatopo.AmbiguousConnectionError):
            driver.pipeline(("set", "key", "value"), ("rpush", "list", "one"), transaction=True)
        assert met.met == 1
        assert own_server.execute("LLEN", "list") == times
        assert own_server.execute("EXISTS", "key") == times

    def test_a_transaction_that_ended_at_once_is_ambiguous_too(self, driver: WatchingDriver, own_server: Node) -> None:
        """All of it was sent, EXEC included, though the server has executed nothing."""
        driver.open_standalone(own_server.address)
        met = own_server.drop_before("multi")
        with pytest.raises(hatopo.AmbiguousConnectionError):
            driver.pipeline(("incr", "counter"), transaction=True)
        assert met.met == 1
        assert own_server.execute("EXISTS", "counter") == 0

    def test_a_late_reply_is_none(self, driver: WatchingDriver, own_server: Node) -> None:
        """It is nobody's later, either: the connection is closed with it."""
        driver.open_standalone(own_server.address, socket_timeout=1)
        driver.call("set", "key", "value")
        faults = [own_server.delay("get", 5), own_server.delay("incrby", 5)]
        assert driver.call("get", "key") == b"value"
        with pytest.raises(hatopo.AmbiguousTimeoutError):
            driver.call("incr", "counter")
        assert [fault.met for fault in faults] == [1, 1]
        before = int(own_server.execute("GET", "counter") or 0)
        assert before <= 1
        assert [driver.call("incr", "other") for _ in range(50)] == [*range(1, 51)]
        assert int(own_server.execute("GET", "counter") or 0) <= 1

    def test_a_set_that_gets_no_reply_was_not_left_alone(self, driver: WatchingDriver, own_server: Node) -> None:
        """It may be sent again, and was: the error does not say that this could apply twice."""
        driver.open_standalone(own_server.address, failover_timeout=2)
        met = own_server.drop_after_execute("set", times=None)
        with pytest.raises(hatopo.AmbiguousConnectionError, match="It was tried again") as raised:
            driver.call("set", "key", "value")
        assert "twice" not in str(raised.value)
        assert met.met > 1

    def test_a_pop_that_had_waited_is_issued_again(self, driver: WatchingDriver, own_server: Node) -> None:
        driver.open_standalone(own_server.address)
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(driver.call, "blpop", ["queue"], 0)
            eventually(lambda: "cmd=blpop" in own_server.execute("CLIENT", "LIST"), what="it waits")
            eventually(lambda: longer_than_a_moment(own_server), what="it has waited for a while")
            assert own_server.disconnect("normal") >= 1
            eventually(lambda: "cmd=blpop" in own_server.execute("CLIENT", "LIST"), what="it waits again")
            own_server.execute("RPUSH", "queue", "element")
            assert [*waiting.result(30)] == [b"queue", b"element"]
        assert own_server.execute("LLEN", "queue") == 0


def longer_than_a_moment(node: Node) -> bool:
    """Whether a client has been blocked in BLPOP for a second."""
    lines = [dict(word.split("=", 1) for word in line.split()) for line in node.execute("CLIENT", "LIST").splitlines()]
    return any(line["cmd"] == "blpop" and int(line["idle"]) >= 1 for line in lines)


REFUSALS = {
    "LOADING": "Redis is loading the dataset in memory",
    "READONLY": "You can't write against a read only replica.",
    "NOREPLICAS": "Not enough good replicas to write.",
    "MASTERDOWN": "Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "CLUSTERDOWN": "The cluster is down",
    "TRYAGAIN": "Multiple keys request during rehashing of slot",
    "ERR": "max number of clients reached",
}


@pytest.mark.usefixtures("patient")
class TestErrorReplies:
    """A Sentinel set: what the server has refused was not executed, so it costs latency, whatever it is."""

    @pytest.mark.parametrize("code", REFUSALS)
    def test_what_was_refused_is_tried_again(
        self, driver: WatchingDriver, sentinel_set: SentinelDeployment, code: str
    ) -> None:
        driver.open_sentinel("mymaster", sentinel_set.sentinels)
        master = sentinel_set.master()
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            error = f"{code} {REFUSALS[code]}"
            faults = [master.fail(command, error, times=TIMES) for command in ("hincrby", "get", "set")]
            eventually(lambda: all(fault.met == TIMES for fault in faults), 30, "all faults are met")
            load.progress()
        ledger = load.ledger(master)
        assert_rode_through(ledger, outages=0)
        assert ledger.acknowledged == len(ledger.applied)
        assert sum(driver.stats().retries.values()) >= 3 * TIMES
        assert masters_told(driver) == []

    @pytest.mark.parametrize(
        "error",
        [
            "OOM command not allowed when used memory > 'maxmemory'.",
            "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
            "NOPERM this user has no permissions to run the 'incrby' command",
            "BUSY Redis is busy running a script.",
        ],
        ids=lambda error: error.split()[0],
    )
    def test_other_errors_are_the_callers(self, driver: WatchingDriver, own_server: Node, error: str) -> None:
        """Tried once, told as it was said."""
        driver.open_standalone(own_server.address)
        fault = own_server.fail("incrby", error, times=2)
        with pytest.raises(redis.ResponseError, match=error.split(" ", 1)[1][:20]):
            driver.call("incr", "counter")
        assert fault.met == 1
        own_server.clear_faults()
        assert driver.call("incr", "counter") == 1

    def test_a_pop_that_was_unblocked_waits_again(
        self, driver: WatchingDriver, sentinel_set: SentinelDeployment
    ) -> None:
        driver.open_sentinel("mymaster", sentinel_set.sentinels)
        error = "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"
        fault = sentinel_set.master().fail("blpop", error, times=2)
        driver.call("rpush", "queue", "element")
        assert [*driver.call("blpop", ["queue"], 10)] == [b"queue", b"element"]
        assert fault.met == 2
        assert driver.call("llen", "queue") == 0

    def test_a_handshake_that_is_dropped_is_dialled_again(self, driver: WatchingDriver, own_server: Node) -> None:
        """Connecting executes nothing: the calls that wait for it wait on."""
        driver.open_standalone(own_server.address, protocol=3)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            fault = own_server.drop_before("hello", times=3)
            for _ in range(3):
                own_server.disconnect()
                load.progress()
            eventually(lambda: fault.met == 3, what="all faults are met")
            load.progress()
        assert_rode_through(load.ledger(own_server), outages=3)


@pytest.mark.usefixtures("patient")
class TestRestarts:
    """Nodes that come back in another state than they were in."""

    def test_a_master_that_loads_is_waited_for(
        self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]
    ) -> None:
        """Restarted before the sentinels notice, with all its data: they are there when they are loaded."""
        deployment = make_set(down_after=HOURS)
        master = deployment.master()
        driver.open_sentinel("mymaster", deployment.sentinels)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            master.kill()
            master.set_loading()
            master.start()
            assert master.execute("INFO", "persistence").count("loading:1") == 1
            eventually(lambda: driver.stats().retries.get("loading", 0) > 0, what="calls meet it")
            load.stall()
            master.set_loading(False)
            load.progress()
        assert_rode_through(load.ledger(master))
        assert masters_told(driver) == []

    def test_a_new_master_that_loads_is_waited_for(
        self, driver: WatchingDriver, sentinel_set: SentinelDeployment
    ) -> None:
        driver.open_sentinel("mymaster", sentinel_set.sentinels)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            old = sentinel_set.kill_master()
            new = sentinel_set.wait_switched(old)
            new.set_loading()
            eventually(lambda: driver.stats().retries.get("loading", 0) > 0, what="calls meet it")
            load.stall()
            new.set_loading(False)
            load.progress()
        assert_rode_through(load.ledger(new))
        assert driver.stats().failovers == 1

    def test_a_replica_that_loads_is_not_followed(
        self, driver: WatchingDriver, sentinel_set: SentinelDeployment
    ) -> None:
        _, loading, other = sentinel_set.nodes
        driver.open_sentinel("mymaster", sentinel_set.sentinels)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            loading.kill()
            loading.set_loading()
            loading.start()
            old = sentinel_set.kill_master()
            assert sentinel_set.wait_switched(old) is other
            load.progress()
            loading.set_loading(False)
            load.progress()
        assert_rode_through(load.ledger(other))
        eventually(lambda: {address for address, _ in masters_told(driver)} == {other.address}, what="it is told")

    def test_an_empty_master_is_told(self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment]) -> None:
        """What it had is lost by Redis, replicas included; what is acknowledged afterwards is not."""
        deployment = make_set(down_after=HOURS)
        master = deployment.master()
        driver.open_sentinel("mymaster", deployment.sentinels)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            before = [call.name for worker in load.workers for call in worker.finished if worker.kind == "incr"]
            master.restart(empty=True)
            load.progress()
        ledger = load.ledger(master)
        assert ledger.doubled == []
        assert {*before} <= {*ledger.lost} | {call.name for call in ledger.ambiguous}
        kept = [call for call in ledger.incremented if call.name in ledger.applied]
        assert kept
        last_lost = max(call.ended for call in ledger.lost_calls)
        assert all(call.ended > last_lost or call.began < last_lost for call in kept)
        assert [call.name for call in ledger.lost_calls if call.began > min(one.ended for one in kept)] == []
        (replaced,) = eventually(lambda: told(driver, events.DatasetReplaced), what="it is told")
        assert replaced.address.port == master.port
        assert replaced.old_id != replaced.new_id
        assert masters_told(driver) == []

    def test_a_replica_that_lags_is_not_promoted(
        self, driver: WatchingDriver, sentinel_set: SentinelDeployment
    ) -> None:
        """There is one that has it all: nothing that was acknowledged is lost."""
        _, lagging, other = sentinel_set.nodes
        driver.open_sentinel("mymaster", sentinel_set.sentinels)
        lagging.set_lag(ops=10_000)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            old = sentinel_set.kill_master()
            assert sentinel_set.wait_switched(old) is other
            load.progress()
        assert_rode_through(load.ledger(other))

    def test_what_no_replica_has_is_lost_with_the_master(
        self, driver: WatchingDriver, sentinel_set: SentinelDeployment
    ) -> None:
        """By Redis itself: the client told no lie, and WAIT would have said so."""
        driver.open_sentinel("mymaster", sentinel_set.sentinels)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
        kept = {call.name for worker in load.workers for call in worker.finished if worker.kind == "incr"}
        sentinel_set.wait_stable()
        for replica in sentinel_set.replicas():
            replica.set_lag(ops=10_000)
        driver.call("hset", Load.KEY, "not-replicated", 1)
        assert driver.call("wait", 1, 100) == 0
        old = sentinel_set.kill_master()
        new = sentinel_set.wait_switched(old)
        ledger = load.ledger(new)
        assert {*ledger.applied} == kept
        assert_rode_through(ledger)
        driver.call("hset", Load.KEY, "afterwards", 1)
        assert new.execute("HGET", Load.KEY, "afterwards") == "1"
