"""Faults: each does to a client what it says, as often as it says, and never touches the test's own questions."""

from __future__ import annotations

import socket
import threading

import pytest
import redis

from hatopo.testing import CLIENTS, ManualClock, Node, Replication, SentinelDeployment, ServerError
from tests.control import eventually
from tests.testing.conftest import Dial, MakeClient
from tests.testing.wire import CLOSED, Connection, request

SHORT = 0.05
"""Seconds for which a test looks for what must not come."""


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


def test_exec_that_fails_ends_the_transaction(node: Node, make_client: MakeClient) -> None:
    client = make_client(node, single_connection_client=True)
    node.fail("exec", "OOM not now")
    with pytest.raises(redis.OutOfMemoryError):
        client.pipeline().incr("n").execute()
    assert client.execute_command("INCR", "n") == 1  # and is no longer queued
    assert client.pipeline().incr("n").execute() == [2]


@pytest.mark.parametrize(("fault", "ran"), [("drop_before", False), ("drop_after_execute", True)])
def test_exec_that_is_dropped(node: Node, make_client: MakeClient, fault: str, ran: bool) -> None:
    client = make_client(node)
    getattr(node, fault)("exec")
    with pytest.raises(redis.ConnectionError):
        client.pipeline().incr("n").incr("n").execute()
    assert client.get("n") == (b"2" if ran else None)


def test_exec_whose_reply_is_cut(node: Node, make_client: MakeClient) -> None:
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


def test_a_queued_command_meets_no_fault(node: Node, make_client: MakeClient) -> None:
    client = make_client(node)
    node.fail("incrby", "ERR no")
    assert client.pipeline().incr("n").execute() == [1]
    with pytest.raises(redis.ResponseError):
        client.incr("n")


def test_a_failure_within_a_pipeline_is_one_reply_of_it(node: Node, make_client: MakeClient) -> None:
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


@pytest.mark.parametrize(("size", "heard"), [(0, b""), (2, b"*2")])
@pytest.mark.parametrize(
    ("words", "ended_by"),
    [((b"BLPOP", b"l", b"0"), "RPUSH l x"), ((b"BRPOPLPUSH", b"l", b"m", b"0"), "RPUSH l x")],
    ids=lambda value: None,
)
def test_a_blocking_command_whose_reply_is_lost_has_run(
    node: Node, words: tuple[bytes, ...], ended_by: str, size: int, heard: bytes
) -> None:
    node.cut_reply(words[0].decode(), size)
    with socket.create_connection(node.address, 5) as sock:
        sock.sendall(request(words))
        eventually(lambda: " flags=b " in node.execute("CLIENT", "LIST"))
        node.execute(*ended_by.split())
        got = b"".join(iter(lambda: sock.recv(100), b""))
    assert len(got) == size
    assert words[0] != b"BLPOP" or got == heard
    assert node.execute("LLEN", "l") == 0


def test_a_blocking_command_that_meets_a_lost_reply_hears_messages_while_it_waits(node: Node, dial: Dial) -> None:
    client = dial(node, 3)
    client.ask(b"SUBSCRIBE", b"c")
    node.drop_after_execute("blpop")
    client.send(request([b"BLPOP", b"l", b"0"]))
    eventually(lambda: "cmd=blpop" in node.execute("CLIENT", "LIST"))
    node.execute("PUBLISH", "c", "m")
    assert str(client.read()) == '>[$"message" $"c" $"m"]'
    node.execute("RPUSH", "l", "x")
    assert client.read() == CLOSED


@pytest.mark.parametrize("command", ["subscribe", "psubscribe", "ssubscribe"])
@pytest.mark.parametrize("size", [0, 3])
def test_the_confirmation_of_a_subscription_is_its_reply(node: Node, command: str, size: int) -> None:
    node.cut_reply(command, size)
    with socket.create_connection(node.address, 5) as sock:
        sock.sendall(request([command.encode(), b"c", b"d"]))
        assert b"".join(iter(lambda: sock.recv(100), b"")) == b"*3\r"[:size]


# What has changed while a command was delayed


def delayed(node: Node, dial: Dial, *words: bytes) -> Connection:
    """A client whose command waits."""
    client = dial(node)
    client.ask(b"PING")
    node.delay(words[0].decode(), 5)
    client.send(request(words))
    eventually(lambda: not node._server.faults.rules)
    return client


def test_a_delayed_write_does_not_run_on_what_has_become_a_replica(
    manual: Node, clock: ManualClock, dial: Dial
) -> None:
    client = delayed(manual, dial, b"SET", b"k", b"v")
    manual.execute("REPLICAOF", "127.0.0.1", "1")
    clock.advance(5)
    assert client.read().body == b"READONLY You can't write against a read only replica."
    assert manual.execute("GET", "k") is None
    assert manual.execute("INFO", "errorstats").count("READONLY") == 1


def test_a_delayed_command_meets_what_every_command_meets(manual: Node, clock: ManualClock, dial: Dial) -> None:
    client = delayed(manual, dial, b"GET", b"k")
    manual.set_loading()
    clock.advance(5)
    assert client.read().body == b"LOADING Redis is loading the dataset in memory"
    manual.set_loading(False)
    client = delayed(manual, dial, b"INCR", b"n")
    manual.execute("ACL", "SETUSER", "default", "-incr")
    clock.advance(5)
    assert client.read().body == b"NOPERM this user has no permissions to run the 'incr' command"
    manual.execute("ACL", "SETUSER", "default", "+incr")


def test_a_delayed_command_waits_for_client_unpause_and_meets_no_other_fault(
    manual: Node, clock: ManualClock, dial: Dial
) -> None:
    client = delayed(manual, dial, b"INCR", b"n")
    manual.fail("incr", "ERR the next one")
    manual.execute("CLIENT", "PAUSE", 60_000)
    clock.advance(5)
    assert client.rest() == ()
    manual._call(manual._server.unpause_clients)
    assert str(client.read()) == ":1"
    assert str(client.ask(b"INCR", b"n")) == "-ERR the next one"
    assert "calls=1," in manual.execute("INFO", "commandstats").partition("cmdstat_incr:")[2]


def test_no_delay_at_all_is_a_delay(node: Node, dial: Dial) -> None:
    rule = node.delay("get", 0)
    assert str(dial(node).ask(b"GET", b"k")) == "$nil"
    assert rule.met == 1


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
    for number in (1.5, "1"):
        with pytest.raises(ValueError, match="times must be a whole number"):
            node.drop_before("get", times=number)  # type: ignore[arg-type]
    for seconds in (-1, float("nan"), float("inf")):
        with pytest.raises(ValueError, match="delay"):
            node.delay("get", seconds)
    for error in ("", " ", "ERR a\r\n+OK", "ERR a\n"):
        with pytest.raises(ValueError, match="error"):
            node.fail("get", error)
    with pytest.raises(ValueError, match="cut"):
        node.cut_reply("get", -1)
    assert node._server.faults.rules == []


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
