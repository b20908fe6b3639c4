"""Blocked clients: first come, first served; who has gone takes nothing; and they wait by the deployment's clock."""

from __future__ import annotations

import pytest

from hatopo.testing import ManualClock, Node, Replication
from tests.control import eventually
from tests.testing.conftest import Dial
from tests.testing.wire import CLOSED, Connection, request


def waiting(node: Node) -> int:
    """How many clients are blocked."""
    fields = dict(line.split(":", 1) for line in node.execute("INFO", "clients").splitlines() if ":" in line)
    return int(fields["blocked_clients"])


def block(node: Node, connection: Connection, *words: bytes) -> Connection:
    """Send a command that blocks, and return when it does."""
    before = waiting(node)
    connection.send(request(words))
    eventually(lambda: waiting(node) == before + 1)
    return connection


def test_many_are_served_in_the_order_in_which_they_came(node: Node, dial: Dial) -> None:
    clients = [block(node, dial(node), b"BLPOP", b"l", b"0") for _ in range(20)]
    node.execute("RPUSH", "l", *range(15))
    assert [str(client.read()) for client in clients[:15]] == [f'*[$"l" $"{number}"]' for number in range(15)]
    assert waiting(node) == 5
    for number in range(15, 20):
        node.execute("RPUSH", "l", number)
    assert [str(client.read()) for client in clients[15:]] == [f'*[$"l" $"{number}"]' for number in range(15, 20)]
    assert node.execute("EXISTS", "l") == 0


@pytest.mark.parametrize(
    ("blocks", "feeds"),
    [
        ((b"BRPOP", b"k", b"0"), ("RPUSH", "k", "x")),
        ((b"BLMOVE", b"k", b"other", b"LEFT", b"LEFT", b"0"), ("RPUSH", "k", "x")),
        ((b"BZPOPMIN", b"k", b"0"), ("ZADD", "k", "1", "x")),
        ((b"XREAD", b"BLOCK", b"0", b"STREAMS", b"k", b"$"), ("XADD", "k", "*", "f", "v")),
    ],
    ids=lambda words: str(words[0]),
)
def test_each_kind_wakes(node: Node, dial: Dial, blocks: tuple[bytes, ...], feeds: tuple[str, ...]) -> None:
    client = block(node, dial(node), *blocks)
    node.execute(*feeds)
    assert client.read().kind in "*$"
    assert waiting(node) == 0


def test_who_has_gone_takes_nothing(node: Node, dial: Dial) -> None:
    gone, next_one = block(node, dial(node), b"BLPOP", b"l", b"0"), block(node, dial(node), b"BLPOP", b"l", b"0")
    gone.close()
    eventually(lambda: waiting(node) == 1)
    node.execute("RPUSH", "l", "x")
    assert str(next_one.read()) == '*[$"l" $"x"]'


def test_when_all_have_gone_the_element_stays(node: Node, dial: Dial) -> None:
    clients = [block(node, dial(node), command, b"l", b"0") for command in (b"BLPOP", b"BRPOP")]
    for client in clients:
        client.close()
    eventually(lambda: waiting(node) == 0)
    assert node.execute("RPUSH", "l", "x") == 1
    assert node.execute("LRANGE", "l", 0, -1) == ["x"]


def test_who_was_disconnected_takes_nothing(node: Node, dial: Dial) -> None:
    client = block(node, dial(node), b"BLPOP", b"l", b"0")
    assert node.disconnect("normal") == 1
    assert client.read() == CLOSED
    node.execute("RPUSH", "l", "x")
    assert node.execute("LLEN", "l") == 1


def test_a_timeout_passes_with_the_clock_and_not_with_the_wall(manual: Node, clock: ManualClock, dial: Dial) -> None:
    short, long = (block(manual, dial(manual), b"BLPOP", b"l", seconds) for seconds in (b"60", b"3600.5"))
    clock.advance(59.9)
    assert waiting(manual) == 2
    clock.advance(0.2)
    assert str(short.read()) == "*nil"
    clock.advance(3500)
    assert (waiting(manual), long.rest()) == (1, ())
    clock.advance(100)
    assert str(long.read()) == "*nil"


def test_a_client_that_was_served_is_not_timed_out(manual: Node, clock: ManualClock, dial: Dial) -> None:
    client = block(manual, dial(manual), b"BLPOP", b"l", b"10")
    manual.execute("RPUSH", "l", "x")
    assert str(client.read()) == '*[$"l" $"x"]'
    block(manual, client, b"BLPOP", b"l", b"100")
    clock.advance(20)  # the first timeout has passed
    assert (waiting(manual), client.rest()) == (1, ())


def test_for_ever_means_for_ever(manual: Node, clock: ManualClock, dial: Dial) -> None:
    client = block(manual, dial(manual), b"BLPOP", b"l", b"0")
    clock.advance(10_000)
    assert (waiting(manual), client.rest()) == (1, ())


def test_what_follows_a_command_that_waits_runs_after_it(manual: Node, clock: ManualClock, dial: Dial) -> None:
    client = block(manual, dial(manual), b"BLPOP", b"l", b"5")
    client.send(request([b"SET", b"k", b"v"]) + request([b"GET", b"k"]))
    assert manual.execute("EXISTS", "k") == 0
    clock.advance(5)
    assert [str(client.read()) for _ in range(3)] == ["*nil", "+OK", '$"v"']


def test_pushes_of_a_transaction_are_seen_when_it_has_ended(node: Node, dial: Dial) -> None:
    first, second = block(node, dial(node), b"BLPOP", b"l", b"0"), block(node, dial(node), b"BLPOP", b"l", b"0")
    pusher = dial(node)
    words = [[b"MULTI"], [b"RPUSH", b"l", b"a"], [b"LPUSH", b"l", b"b"], [b"LLEN", b"l"], [b"EXEC"]]
    assert str([pusher.ask(*each) for each in words][-1]) == "*[:1 :2 :2]"
    assert [str(client.read()) for client in (first, second)] == ['*[$"l" $"b"]', '*[$"l" $"a"]']


def test_what_a_transaction_takes_back_wakes_nobody(node: Node, dial: Dial) -> None:
    client, pusher = block(node, dial(node), b"BLPOP", b"l", b"0"), dial(node)
    for words in ([b"MULTI"], [b"RPUSH", b"l", b"a"], [b"DEL", b"l"], [b"EXEC"]):
        pusher.ask(*words)
    assert waiting(node) == 1
    node.execute("RPUSH", "l", "b")
    assert str(client.read()) == '*[$"l" $"b"]'


def test_pushes_of_a_script_wake_in_order(node: Node, dial: Dial) -> None:
    clients = [block(node, dial(node), b"BLPOP", b"l", b"0") for _ in range(3)]
    node.execute(
        "EVAL", "for i = 1, 3 do redis.call('RPUSH', KEYS[1], i) end return redis.call('LLEN', KEYS[1])", 1, "l"
    )
    assert [str(client.read()) for client in clients] == [f'*[$"l" $"{number}"]' for number in (1, 2, 3)]


def test_a_chain_of_moves_runs_through(node: Node, dial: Dial) -> None:
    end = block(node, dial(node), b"BLPOP", b"c", b"0")
    movers = [
        block(node, dial(node), b"BLMOVE", source, target, b"LEFT", b"RIGHT", b"0")
        for source, target in ((b"b", b"c"), (b"a", b"b"))
    ]
    node.execute("RPUSH", "a", "x")
    assert [str(one.read()) for one in (*movers, end)] == ['$"x"', '$"x"', '*[$"c" $"x"]']


def test_within_a_transaction_nothing_waits(node: Node, dial: Dial) -> None:
    client = dial(node)
    for words in ([b"MULTI"], [b"BLPOP", b"l", b"0"], [b"BLPOP", b"l", b"0"]):
        client.ask(*words)
    assert str(client.ask(b"EXEC")) == "*[*nil *nil]"
    assert waiting(node) == 0


def test_the_end_of_a_server_ends_the_wait(node: Node, dial: Dial) -> None:
    client = block(node, dial(node), b"BLPOP", b"l", b"0")
    node.kill()
    assert client.read() == CLOSED
    node.restart()
    assert waiting(node) == 0


def test_a_demoted_master_lets_nobody_wait_for_writes(dial: Dial) -> None:
    with Replication(1) as pair:
        master = pair.master()
        client = dial(master)
        client.send(request([b"BLPOP", b"l", b"0"]))
        eventually(lambda: "cmd=blpop" in master.execute("CLIENT", "LIST"))
        pair.promote(pair.replicas()[0])
        assert str(client.read()).startswith("-UNBLOCKED force unblock from blocking operation")
        assert client.read() == CLOSED


def test_a_key_that_expires_by_the_clock_serves_nobody(manual: Node, clock: ManualClock, dial: Dial) -> None:
    manual.execute("RPUSH", "l", "x")
    manual.execute("EXPIRE", "l", 10)
    clock.advance(11)
    client = block(manual, dial(manual), b"BLPOP", b"l", b"0")
    manual.execute("RPUSH", "l", "y")
    assert str(client.read()) == '*[$"l" $"y"]'
