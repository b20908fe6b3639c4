"""Faults: each does to a client what it says, as often as it says, and never touches the test's own questions."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from hatopo.testing import CLIENTS, ManualClock, Node, NodeHandle, Replication, SentinelDeployment, ServerError
from tests.control import eventually
from tests.testing.conftest import Dial
from tests.testing.wire import CLOSED, SILENCE, Connection, request

SHORT = 0.05
"""Seconds for which a test looks for what must not come."""


@pytest.fixture
def node() -> Iterator[Node]:
    with Node() as one:
        yield one


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def manual(clock: ManualClock) -> Iterator[Node]:
    with Node(clock=clock) as one:
        yield one


@pytest.fixture
def pair() -> Iterator[Replication]:
    with Replication(1) as deployment:
        yield deployment


@pytest.fixture
def make_client() -> Iterator[Callable[..., Any]]:
    made: list[Any] = []

    def make(server: NodeHandle, **options: Any) -> Any:
        options = {"retry": Retry(NoBackoff(), 0), "socket_timeout": 5, **options}
        made.append(redis.Redis(server.host, server.port, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()


def is_silent(connection: Connection) -> bool:
    """Whether nothing has come, and the connection is still there; it is not to be read again."""
    return connection.read(SHORT) is SILENCE


# The life of a server


def test_a_killed_server_breaks_connections_and_refuses_new_ones(node: Node, make_client: Callable[..., Any]) -> None:
    client = make_client(node)
    assert client.set("k", "v")
    node.kill()
    assert not node.running
    with pytest.raises(redis.ConnectionError):
        client.get("k")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(node.address)
    with pytest.raises(ConnectionRefusedError, match=str(node.port)):
        node.execute("PING")


@pytest.mark.parametrize(("empty", "found"), [(False, b"v"), (True, None)])
def test_a_restarted_server_has_the_same_port_and_its_data_or_none(
    node: Node, make_client: Callable[..., Any], empty: bool, found: bytes | None
) -> None:
    client, address = make_client(node), node.address
    client.set("k", "v")
    run = client.info("server")["run_id"]
    node.restart(empty=empty)
    assert (node.address, node.running) == (address, True)
    assert client.get("k") == found
    assert client.info("server")["run_id"] != run


def test_a_restarted_server_has_forgotten_sessions_pauses_and_scripts(node: Node, dial: Dial) -> None:
    subscriber, blocked = dial(node), dial(node)
    subscriber.ask(b"SUBSCRIBE", b"c")
    blocked.send(request([b"BLPOP", b"l", b"0"]))
    digest = node.execute("SCRIPT", "LOAD", "return 1")
    node.execute("CLIENT", "PAUSE", 60_000)
    node.restart()
    assert (subscriber.read(), blocked.read()) == (CLOSED, CLOSED)
    again = dial(node)
    assert str(again.ask(b"RPUSH", b"l", b"x")) == ":1"
    assert str(again.ask(b"LLEN", b"l")) == ":1"
    assert str(again.ask(b"PUBLISH", b"c", b"x")) == ":0"
    assert again.ask(b"EVALSHA", digest.encode(), b"0").body == b"NOSCRIPT No matching script. Please use EVAL."


def test_start_after_kill_and_stop(node: Node) -> None:
    for end in (node.kill, node.stop):
        end()
        assert not node.running
        node.start()
        assert node.execute("PING") == "PONG"
        run = node.execute("CLIENT", "ID")
        node.start()  # it runs already
        assert node.execute("CLIENT", "ID") > run


def test_a_killed_replica_comes_back_and_follows(pair: Replication) -> None:
    replica = pair.replicas()[0]
    replica.kill()
    pair.master().execute("SET", "k", "v")
    replica.restart()
    pair.wait_stable()
    assert replica.execute("GET", "k") == "v"


def test_a_paused_server_accepts_and_answers_later(node: Node, dial: Dial) -> None:
    there = dial(node)
    node.pause()
    assert node.paused
    new = dial(node)
    there.send(request([b"INCR", b"n"]))
    new.send(request([b"INCR", b"n"]))
    with pytest.raises(TimeoutError, match="node-1"):
        node.execute("PING", timeout=SHORT)
    node.resume()
    assert sorted([str(there.read()), str(new.read())]) == [":1", ":2"]
    assert node.execute("GET", "n") == "2"


def test_a_pause_holds_up_timeouts_and_faults_that_are_due(manual: Node, clock: ManualClock, dial: Dial) -> None:
    waiting, delayed = dial(manual), dial(manual)
    waiting.send(request([b"BLPOP", b"l", b"5"]))
    eventually(lambda: "cmd=blpop" in manual.execute("CLIENT", "LIST"))
    manual.delay("incr", 5)
    delayed.send(request([b"INCR", b"n"]))
    eventually(lambda: not manual._server.faults.rules)
    manual.pause()
    clock.advance(10)
    pausing = dial(manual)
    pausing.send(request([b"PING"]))
    assert is_silent(pausing)
    assert (waiting.rest(), delayed.rest()) == ((), ())
    manual.resume()
    assert str(waiting.read()) == "*nil"
    assert str(delayed.read()) == ":1"


def test_killing_a_paused_server_ends_the_pause(node: Node, dial: Dial) -> None:
    connection = dial(node)
    node.pause()
    connection.send(request([b"SET", b"k", b"v"]))
    node.kill()
    assert connection.read() == CLOSED
    node.restart()
    assert (node.paused, node.execute("GET", "k")) == (False, None)


def test_a_refusing_server_keeps_the_connections_that_it_has(node: Node, dial: Dial) -> None:
    there = dial(node)
    node.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(node.address)
    assert str(there.ask(b"PING")) == "+PONG"
    node.restart()
    with pytest.raises(ConnectionRefusedError):  # it still refuses
        socket.create_connection(node.address)
    node.refuse(False)
    assert str(dial(node).ask(b"PING")) == "+PONG"


def test_loading(node: Node, make_client: Callable[..., Any]) -> None:
    client = make_client(node)
    node.set_loading()
    with pytest.raises(redis.BusyLoadingError):
        client.get("k")
    assert client.info("persistence")["loading"] == 1
    node.set_loading(False)
    assert client.get("k") is None


# Connections


@pytest.mark.parametrize("kind", ["normal", "pubsub", "all"])
def test_disconnecting_clients_of_one_kind(node: Node, dial: Dial, kind: str) -> None:
    normal, subscriber = dial(node), dial(node)
    normal.ask(b"PING")
    subscriber.ask(b"SUBSCRIBE", b"c")
    assert node.disconnect(kind) == (2 if kind == "all" else 1)
    assert (normal.read(SHORT) is CLOSED) == (kind != "pubsub")
    assert (subscriber.read(SHORT) is CLOSED) == (kind != "normal")


def test_disconnecting_nobody_and_a_kind_that_there_is_not(node: Node) -> None:
    assert node.disconnect("pubsub") == 0
    with pytest.raises(ValueError, match="nonsense"):
        node.disconnect("nonsense")


@pytest.mark.parametrize(("at", "kind"), [("master", "replica"), ("replica", "master")])
def test_disconnecting_the_two_sides_of_replication(pair: Replication, at: str, kind: str) -> None:
    master, replica = pair.master(), pair.replicas()[0]
    before = master.execute("INFO", "stats")
    assert (master if at == "master" else replica).disconnect(kind) == 1
    pair.wait_stable()
    after = master.execute("INFO", "stats")
    assert synced(after) == synced(before) + 1
    master.execute("SET", "k", "v")
    eventually(lambda: replica.execute("GET", "k") == "v")


def synced(info: str) -> int:
    """How often a replica has begun to follow, wholly or from where it was."""
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    return int(fields["sync_full"]) + int(fields["sync_partial_ok"])


# Faults on commands

COMMANDS = [("GET", "k"), ("INCR", "n"), ("LPUSH", "l", "x"), ("EVAL", "return 1", "0"), ("CLIENT", "ID"), ("PING",)]
NAMED = pytest.mark.parametrize("words", COMMANDS, ids=lambda words: words[0].lower())


def sent(words: tuple[str, ...]) -> tuple[bytes, ...]:
    return tuple(word.encode() for word in words)


def named(words: tuple[str, ...]) -> str:
    return "client|id" if words[0] == "CLIENT" else words[0]


@NAMED
def test_fail(node: Node, dial: Dial, words: tuple[str, ...]) -> None:
    connection = dial(node)
    node.fail(named(words), "OOM not now")
    assert str(connection.ask(*sent(words))) == "-OOM not now"
    assert connection.ask(*sent(words)).kind != "-"
    assert node.execute("GET", "n") in (None, "1")  # what failed did not run


@NAMED
def test_drop_before(node: Node, dial: Dial, words: tuple[str, ...]) -> None:
    node.drop_before(named(words))
    assert dial(node).ask(*sent(words)) == CLOSED
    assert node.execute("EXISTS", "n", "l") == 0
    assert dial(node).ask(*sent(words)) != CLOSED


@NAMED
def test_drop_after_execute(node: Node, dial: Dial, words: tuple[str, ...]) -> None:
    node.drop_after_execute(named(words))
    assert dial(node).ask(*sent(words)) == CLOSED
    assert node.execute("EXISTS", "n", "l") == (words[0] in ("INCR", "LPUSH"))


@NAMED
@pytest.mark.parametrize("size", [1, 2, 3])
def test_cut_reply(node: Node, dial: Dial, words: tuple[str, ...], size: int) -> None:
    node.cut_reply(named(words), size)
    with socket.create_connection(node.address, 5) as sock:
        sock.sendall(request(sent(words)))
        heard = b"".join(iter(lambda: sock.recv(100), b""))
    whole = dial(node)
    whole.ask(*sent(words))
    assert len(heard) == size
    assert heard[:1] in b"$:+"


@NAMED
def test_delay(manual: Node, clock: ManualClock, dial: Dial, words: tuple[str, ...]) -> None:
    slow, other = dial(manual), dial(manual)
    manual.delay(named(words), 3)
    slow.send(request(sent(words)) + request([b"ECHO", b"after"]))
    eventually(lambda: not manual._server.faults.rules)
    clock.advance(2.9)
    assert str(other.ask(b"ECHO", b"x")) == '$"x"'  # others do not wait
    assert slow.rest() == ()
    assert manual.execute("EXISTS", "n", "l") == 0
    clock.advance(0.1)
    assert slow.read().kind in "$:+"
    assert str(slow.read()) == '$"after"'


def test_a_delayed_command_of_a_client_that_has_gone_does_not_run(manual: Node, clock: ManualClock, dial: Dial) -> None:
    gone, other = dial(manual), dial(manual)
    manual.delay("incr", 1, times=2)
    gone.send(request([b"INCR", b"n"]))
    eventually(lambda: manual._server.faults.rules[0].met == 1)
    gone.close()
    eventually(lambda: manual.execute("CLIENT", "LIST").count("\n") == 2)
    other.send(request([b"INCR", b"n"]))
    eventually(lambda: not manual._server.faults.rules)
    clock.advance(1)
    assert str(other.read()) == ":1"


def test_times_and_after(node: Node, dial: Dial) -> None:
    connection = dial(node)
    node.fail("incr", "ERR now", times=2, after=3)
    replies = [str(connection.ask(b"INCR", b"n")) for _ in range(7)]
    assert replies == [":1", ":2", ":3", "-ERR now", "-ERR now", ":4", ":5"]


def test_for_ever_until_cleared(node: Node, dial: Dial) -> None:
    connection = dial(node)
    node.fail("*", "ERR all", times=None)
    for words in COMMANDS:
        assert str(connection.ask(*sent(words))) == "-ERR all"
    node.clear_faults()
    assert str(connection.ask(b"PING")) == "+PONG"


def test_faults_of_one_command_follow_each_other(node: Node, dial: Dial) -> None:
    connection = dial(node)
    node.fail("get", "ERR first")
    node.fail("get", "ERR second")
    node.drop_before("get", after=1)
    assert [str(connection.ask(b"GET", b"k")) for _ in range(4)] == ["-ERR first", "-ERR second", "$nil", "!closed"]


def test_a_container_means_all_its_subcommands(node: Node, dial: Dial) -> None:
    connection = dial(node)
    node.fail("CLIENT", "ERR no", times=2)
    assert str(connection.ask(b"CLIENT", b"ID")) == "-ERR no"
    assert str(connection.ask(b"client", b"getname")) == "-ERR no"
    assert connection.ask(b"CLIENT", b"ID").kind == ":"


def test_what_is_refused_anyway_meets_no_fault(node: Node, dial: Dial) -> None:
    connection = dial(node)
    node.fail("get", "ERR fault")
    assert connection.ask(b"GET").body == b"ERR wrong number of arguments for 'get' command"
    assert str(connection.ask(b"GET", b"k")) == "-ERR fault"


def test_a_restart_leaves_the_faults(node: Node, dial: Dial) -> None:
    node.fail("get", "ERR fault")
    node.restart()
    assert str(dial(node).ask(b"GET", b"k")) == "-ERR fault"


# Transactions and pipelines


def test_exec_that_fails_ends_the_transaction(node: Node, make_client: Callable[..., Any]) -> None:
    client = make_client(node, single_connection_client=True)
    node.fail("exec", "OOM not now")
    with pytest.raises(redis.OutOfMemoryError):
        client.pipeline().incr("n").execute()
    assert client.execute_command("INCR", "n") == 1  # and is no longer queued
    assert client.pipeline().incr("n").execute() == [2]


@pytest.mark.parametrize(("fault", "ran"), [("drop_before", False), ("drop_after_execute", True)])
def test_exec_that_is_dropped(node: Node, make_client: Callable[..., Any], fault: str, ran: bool) -> None:
    client = make_client(node)
    getattr(node, fault)("exec")
    with pytest.raises(redis.ConnectionError):
        client.pipeline().incr("n").incr("n").execute()
    assert client.get("n") == (b"2" if ran else None)


def test_exec_whose_reply_is_cut(node: Node, make_client: Callable[..., Any]) -> None:
    client = make_client(node)
    node.cut_reply("exec", len("*2\r\n:1\r\n"))
    with pytest.raises(redis.ConnectionError):
        client.pipeline().incr("n").incr("n").execute()
    assert client.get("n") == b"2"


def test_exec_that_is_delayed(manual: Node, clock: ManualClock, dial: Dial) -> None:
    connection = dial(manual)
    manual.delay("exec", 1)
    connection.send(b"".join(map(request, [[b"MULTI"], [b"INCR", b"n"], [b"EXEC"]])))
    assert [str(connection.read()) for _ in range(2)] == ["+OK", "+QUEUED"]
    assert manual.execute("GET", "n") is None
    clock.advance(1)
    assert str(connection.read()) == "*[:1]"


def test_a_queued_command_meets_no_fault(node: Node, make_client: Callable[..., Any]) -> None:
    client = make_client(node)
    node.fail("incrby", "ERR no")
    assert client.pipeline().incr("n").execute() == [1]
    with pytest.raises(redis.ResponseError):
        client.incr("n")


def test_a_failure_within_a_pipeline_is_one_reply_of_it(node: Node, make_client: Callable[..., Any]) -> None:
    client = make_client(node)
    node.fail("get", "ERR no", after=1)
    replies = client.pipeline(transaction=False).get("k").get("k").get("k").execute(raise_on_error=False)
    assert [str(reply) for reply in replies] == ["None", "no", "None"]


@pytest.mark.parametrize("apart", [False, True], ids=["one packet", "many packets"])
@pytest.mark.parametrize(("fault", "count"), [("drop_before", 2), ("drop_after_execute", 3)])
def test_a_drop_within_a_pipeline_comes_after_the_replies_before_it(
    node: Node, dial: Dial, fault: str, count: int, apart: bool
) -> None:
    connection = dial(node)
    getattr(node, fault)("incr", after=2)
    if apart:
        assert [str(connection.ask(b"INCR", b"n")) for _ in range(3)] == [":1", ":2", "!closed"]
    else:
        connection.send(request([b"INCR", b"n"]) * 5)
        assert [str(connection.read()) for _ in range(3)] == [":1", ":2", "!closed"]
    assert node.execute("GET", "n") == str(count)


def test_a_cut_within_a_pipeline(node: Node) -> None:
    node.cut_reply("incr", 2, after=1)
    with socket.create_connection(node.address, 5) as sock:
        sock.sendall(request([b"INCR", b"n"]) * 4)
        assert b"".join(iter(lambda: sock.recv(100), b"")) == b":1\r\n:2"
    assert node.execute("GET", "n") == "2"


def test_a_blocking_command_that_is_dropped_takes_nothing(node: Node, dial: Dial) -> None:
    node.drop_after_execute("blpop")
    assert dial(node).ask(b"BLPOP", b"l", b"0") == CLOSED
    assert node.execute("RPUSH", "l", "x") == 1
    assert node.execute("LLEN", "l") == 1


def test_no_fault_touches_the_tests_own_questions(pair: Replication, dial: Dial) -> None:
    master = pair.master()
    master.fail("*", "ERR no", times=None)
    master.drop_before("*", times=None)
    pair.partition(master, CLIENTS)
    master.execute("SET", "k", "v")
    assert master.execute("GET", "k") == "v"
    assert master.disconnect("normal") == 0
    pair.heal()
    assert str(dial(master).ask(b"GET", b"k")) == "-ERR no"


def test_no_fault_touches_what_servers_say_to_each_other() -> None:
    with SentinelDeployment(1, 3) as deployment:
        for node in deployment.nodes:
            node.fail("*", "ERR no", times=None)
        for sentinel in deployment.sentinel_nodes:
            sentinel.fail("*", "ERR no", times=None)
        deployment.add_replica()
        new = deployment.wait_switched(deployment.kill_master())
        assert new.role() == "master"


def test_a_rule_must_be_able_to_apply(node: Node) -> None:
    with pytest.raises(ValueError, match="times"):
        node.fail("get", "ERR no", times=0)
    with pytest.raises(ValueError, match="after"):
        node.drop_before("get", after=-1)


# Replication


def test_a_replica_lags_by_seconds(clock: ManualClock) -> None:
    with Replication(1, clock=clock) as pair:
        master, replica = pair.master(), pair.replicas()[0]
        replica.set_lag(seconds=30)
        master.execute("SET", "k", "1")
        clock.advance(20)
        master.execute("SET", "k", "2")
        assert replica.execute("GET", "k") is None
        clock.advance(10)
        assert replica.execute("GET", "k") == "1"
        clock.advance(20)
        assert replica.execute("GET", "k") == "2"
        master.execute("SET", "k", "3")
        replica.set_lag()
        pair.wait_stable()
        assert replica.execute("GET", "k") == "3"


def test_a_replica_lags_by_writes(pair: Replication) -> None:
    master, replica = pair.master(), pair.replicas()[0]
    replica.set_lag(ops=2)
    for number in range(1, 6):
        master.execute("SET", "k", number)
    eventually(lambda: replica.execute("GET", "k") == "3")
    replica.set_lag()
    eventually(lambda: replica.execute("GET", "k") == "5")


def test_a_lagging_replica_delays_wait(clock: ManualClock, dial: Dial) -> None:
    with Replication(1, clock=clock) as pair:
        replica, client = pair.replicas()[0], dial(pair.master())
        replica.set_lag(seconds=5)
        client.ask(b"SET", b"k", b"v")
        client.send(request([b"WAIT", b"1", b"0"]))
        eventually(lambda: "cmd=wait" in pair.master().execute("CLIENT", "LIST"))
        clock.advance(4)
        assert client.rest() == ()
        pair.wait_until(client.rest, seconds=10)


def test_an_announced_address_is_what_others_know(pair: Replication) -> None:
    master, replica = pair.master(), pair.replicas()[0]
    replica.announce("10.1.2.3", 7777)
    eventually(lambda: [entry[:2] for entry in master.execute("ROLE")[2]] == [["10.1.2.3", "7777"]])
    assert "ip=10.1.2.3,port=7777" in master.execute("INFO", "replication")
    replica.restart()
    eventually(lambda: [entry[:2] for entry in master.execute("ROLE")[2]] == [["10.1.2.3", "7777"]])


# Partitions


def test_a_partition_between_nodes_closes_nothing_and_heals(pair: Replication) -> None:
    master, replica = pair.master(), pair.replicas()[0]
    full = master.execute("INFO", "stats").count("sync_full:1")
    pair.partition(master, replica)
    master.execute("SET", "k", "v")
    assert replica.execute("GET", "k") is None
    assert replica.execute("ROLE")[3] == "connected"
    pair.heal()
    eventually(lambda: replica.execute("GET", "k") == "v")
    assert master.execute("INFO", "stats").count("sync_full:1") == full == 1


def test_a_replica_cannot_connect_through_a_partition(clock: ManualClock) -> None:
    with Replication(1, clock=clock) as pair:
        master, replica = pair.master(), pair.replicas()[0]
        pair.partition(master, replica)
        replica.restart()
        clock.advance(30)
        assert replica.execute("ROLE")[3] in ("connect", "connecting")
        pair.heal()
        pair.wait_stable()


def test_a_partition_from_clients_holds_everything_back(pair: Replication, dial: Dial) -> None:
    master = pair.master()
    there, subscriber = dial(master), dial(master)
    subscriber.ask(b"SUBSCRIBE", b"c")
    pair.partition(master, CLIENTS)
    there.send(request([b"INCR", b"n"]) * 2)
    master.execute("PUBLISH", "c", "hello")
    new = dial(master)
    new.send(request([b"ECHO", b"new"]))
    assert (there.rest(), subscriber.rest(), new.rest()) == ((), (), ())
    assert master.execute("GET", "n") is None
    pair.heal()
    assert [str(there.read()) for _ in range(2)] == [":1", ":2"]
    assert str(subscriber.read()) == '*[$"message" $"c" $"hello"]'
    assert str(new.read()) == '$"new"'
    assert str(there.ask(b"PING")) == "+PONG"


def test_a_client_that_is_cut_off_does_not_see_its_connection_being_closed(pair: Replication, dial: Dial) -> None:
    master = pair.master()
    clients = [dial(master) for _ in range(3)]
    for client in clients:
        client.ask(b"PING")
    pair.partition(master, CLIENTS)
    assert master.disconnect("normal") == 3
    assert [client.rest() for client in clients] == [(), (), ()]
    pair.heal()
    assert [client.read() for client in clients] == [CLOSED] * 3


def test_what_was_answered_before_the_cut_connection_was_closed_arrives_with_the_end(
    pair: Replication, dial: Dial
) -> None:
    master = pair.master()
    blocked = dial(master)
    blocked.send(request([b"BLPOP", b"l", b"0"]))
    eventually(lambda: "cmd=blpop" in master.execute("CLIENT", "LIST"))
    pair.partition(master, CLIENTS)
    master.execute("RPUSH", "l", "x")
    master.disconnect("normal")
    pair.heal()
    assert [str(blocked.read()) for _ in range(2)] == ['*[$"l" $"x"]', "!closed"]


def test_a_partition_from_clients_leaves_nodes_alone(pair: Replication) -> None:
    master, replica = pair.nodes
    pair.partition([master, replica], CLIENTS)
    master.execute("SET", "k", "v")
    eventually(lambda: replica.execute("GET", "k") == "v")


def test_only_the_cut_side_of_the_clients_is_cut(pair: Replication, dial: Dial) -> None:
    master, replica = pair.nodes
    pair.partition(CLIENTS, master)
    assert str(dial(replica).ask(b"PING")) == "+PONG"
    cut = dial(master)
    cut.send(request([b"PING"]))
    assert is_silent(cut)


def test_a_deployment_can_end_in_a_partition(dial: Dial) -> None:
    with Replication(1) as pair:
        client = dial(pair.master())
        pair.partition(pair.nodes, CLIENTS)
        client.send(request([b"PING"]))
    assert client.read() == CLOSED


# Threads


def test_handles_may_be_used_from_many_threads(node: Node) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            for _ in range(50):
                node.execute("INCR", "n")
                node.fail("get", "ERR x")
                node.clear_faults()
        except BaseException as error:
            errors.append(error)

    threads = [threading.Thread(target=work) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert node.execute("GET", "n") == "400"


def test_execute_has_the_values_of_resp2_and_raises_errors(node: Node) -> None:
    assert node.execute("SET", b"\xff", 1.5) == "OK"
    assert node.execute("GET", b"\xff") == "1.5"
    assert node.execute("KEYS", "*") == ["\udcff"]
    assert node.execute("MGET", "a", "b") == [None, None]
    with pytest.raises(ServerError, match="wrong number"):
        node.execute("GET")
    assert node.execute("EVAL", "return {1, redis.error_reply('ERR x'), 'a'}", 0)[::2] == [1, "a"]
