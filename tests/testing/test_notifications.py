"""Keyspace notifications by clock and by configuration; the events of all commands are compared in the corpus."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from hatopo.testing import ManualClock, Node, Replication
from hatopo.testing._handles import NodeHandle
from hatopo.testing.node._notifications import Change, events
from tests.control import eventually
from tests.testing.conftest import Dial
from tests.testing.wire import Connection, request


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def node(clock: ManualClock) -> Iterator[Node]:
    with Node(clock=clock) as one:
        yield one


def listener(dial: Dial, node: NodeHandle, wanted: str) -> Connection:
    """Who hears the names of the events that are wanted."""
    node.execute("CONFIG", "SET", "notify-keyspace-events", wanted)
    connection = dial(node)
    connection.ask(b"PSUBSCRIBE", b"__keyspace@*")
    return connection


def heard(node: NodeHandle, connection: Connection) -> list[str]:
    for _ in range(2):
        node.execute("PING")
    return [f"{one.body[2]}={one.body[3]}" for one in connection.rest() if isinstance(one.body, tuple)]


def test_what_expires_is_told_also_if_nobody_asks_for_it(node: Node, clock: ManualClock, dial: Dial) -> None:
    connection = listener(dial, node, "KA")
    node.execute("SET", "k", "v", "PX", 1000)
    assert heard(node, connection) == ['$"__keyspace@0__:k"=$"set"', '$"__keyspace@0__:k"=$"expire"']
    clock.advance(0.9)
    assert heard(node, connection) == []
    clock.advance(0.3)
    assert heard(node, connection) == ['$"__keyspace@0__:k"=$"expired"']


def test_what_is_not_wanted_is_not_told(node: Node, dial: Dial) -> None:
    connection = listener(dial, node, "Kl")
    for words in (("SET", "k", "v"), ("DEL", "k"), ("GET", "k"), ("LPUSH", "l", "a")):
        node.execute(*words)
    assert heard(node, connection) == ['$"__keyspace@0__:l"=$"lpush"']
    node.execute("CONFIG", "SET", "notify-keyspace-events", "A")  # neither K nor E
    node.execute("LPUSH", "l", "a")
    assert heard(node, connection) == []


def test_who_is_served_takes_in_the_name_of_the_command_that_waited(node: Node, dial: Dial) -> None:
    connection, waits = listener(dial, node, "KA"), dial(node)
    waits.send(request((b"BRPOP", b"l", b"0")))
    eventually(lambda: "blocked_clients:1" in node.execute("INFO", "clients"))
    node.execute("RPUSH", "l", "a")
    assert str(waits.read()) == '*[$"l" $"a"]'
    assert [one.rpartition("=")[2] for one in heard(node, connection)] == ['$"rpush"', '$"rpop"', '$"del"']


def test_events_stay_on_their_node(clock: ManualClock, dial: Dial) -> None:
    with Replication(clock=clock) as deployment:
        master, replica = deployment.nodes[0], deployment.nodes[1]
        connection = listener(dial, replica, "KA")
        node_events = listener(dial, master, "KA")
        master.execute("SET", "k", "v")
        assert heard(master, node_events) == ['$"__keyspace@0__:k"=$"set"']
        assert heard(replica, connection) == []


@pytest.mark.parametrize(
    ("words", "changes", "kept", "names"),
    [
        ((b"SET", b"k", b"v"), [(0, b"k", None), (0, b"k", False)], True, [b"expired", b"new", b"set"]),
        ((b"GET", b"k"), [(0, b"k", None)], False, [b"expired"]),
        ((), [(0, b"k", None), (3, b"l", None)], False, [b"expired", b"expired"]),
        ((b"LPOP", b"k"), [(0, b"k", True)], False, [b"lpop", b"del"]),
        ((b"LPOP", b"k"), [(0, b"k", True)], True, [b"lpop"]),
        ((b"EXPIRE", b"k", b"-1"), [(0, b"k", True)], False, [b"del"]),
        ((b"SUNIONSTORE", b"k", b"none"), [(0, b"k", True)], False, [b"del"]),
        ((b"SUNIONSTORE", b"k", b"none"), [(0, b"k", False)], False, []),
        ((b"FLUSHALL",), [(0, b"k", True)], False, []),
        ((b"NOPE",), [(0, b"k", True)], True, []),
    ],
)
def test_events_of_a_change(words: tuple[bytes, ...], changes: list[Change], kept: bool, names: list[bytes]) -> None:
    assert [name for _, name, _, _ in events(words, changes, lambda db, key: kept)] == names
