"""The wire: however the bytes are cut into pieces, they are the same commands; and broken ones do no harm."""

from __future__ import annotations

import itertools
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hatopo.testing import Node
from hatopo.testing._reply import ErrorReply
from hatopo.testing.real import RealNode
from hatopo.testing.server import _requests
from hatopo.testing.server._requests import Requests, split_words
from tests.control import eventually
from tests.testing.conftest import Dial
from tests.testing.wire import CLOSED, Wire, request


@pytest.fixture(scope="module")
def shared() -> Iterator[Node]:
    with Node() as node:
        yield node


@pytest.fixture
def node(shared: Node) -> Node:
    shared.execute("FLUSHALL")
    return shared


class Known:
    """A client that has logged in, or that has not."""

    def __init__(self, user: Any = "somebody") -> None:
        self.user = user


def parsed(pieces: list[bytes], user: Any = "somebody") -> list[Any]:
    """The commands in these pieces, and the error that ends them."""
    requests, found = Requests(), list[Any]()
    try:
        for piece in pieces:
            found += requests.feed(piece, Known(user))  # type: ignore[arg-type]
    except ErrorReply as error:
        found.append(error.text)
    return found


WORDS = st.lists(st.binary(max_size=30), min_size=1, max_size=5)
WHOLE = st.builds(request, WORDS)
INLINE = st.sampled_from([b"PING\r\n", b"SET k 'a b'\n", b"\r\n", b'ECHO "\\x41"\r\n'])
ODD = st.sampled_from([b"*0\r\n", b"*-1\r\n", b"*1\r\n$0\r\n\r\n", b"*2\r\n$4\r\nECHO\r\n$2\r\n\r\n\r\n"])
BROKEN = st.sampled_from(
    [
        *(b"*x\r\n", b"*1\r\n:1\r\n", b"*1\r\n$-1\r\n", b"*2\r\n$1\r\na\r\n+b\r\n", b"*1\r\n$01\r\n"),
        *(b"*9999999999\r\n", b"*1\r\n$536870913\r\n", b"*1\r\n*1\r\n$1\r\na\r\n", b'ECHO "\r\n', b"*2\r\n_\r\n"),
    ]
)
STREAM = st.lists(st.one_of(WHOLE, WHOLE, INLINE, ODD), max_size=6).map(b"".join)


@st.composite
def cut_streams(draw: st.DrawFn) -> list[bytes]:
    """Requests, perhaps with a broken one among them, in pieces."""
    data = draw(STREAM) + draw(st.one_of(st.just(b""), BROKEN)) + draw(STREAM)
    cuts = sorted({0, len(data), *draw(st.lists(st.integers(0, len(data)), max_size=12))})
    return [data[start:end] for start, end in itertools.pairwise(cuts)]


@given(cut_streams(), st.sampled_from(["somebody", None]))
@settings(max_examples=400, deadline=None)
def test_any_split_of_the_bytes_gives_the_same_commands(pieces: list[bytes], user: str | None) -> None:
    assert parsed(pieces, user) == parsed([b"".join(pieces)], user)


@pytest.mark.parametrize("user", ["somebody", None])
def test_no_string_of_an_incomplete_command_is_looked_at_twice(
    monkeypatch: pytest.MonkeyPatch, user: str | None
) -> None:
    looked_at, read = [0], [0]
    monkeypatch.setattr(_requests, "MAX_COUNT_BEFORE_LOGIN", 10_000)
    size, well_formed = _requests._size, Requests._well_formed

    def counted_size(line: bytes, stranger: bool) -> int:
        looked_at[0] += 1
        return size(line, stranger)

    def counted(self: Requests, data: bytes) -> tuple[list[list[bytes]], int]:
        read[0] += len(data)
        return well_formed(self, data)

    monkeypatch.setattr(_requests, "_size", counted_size)
    monkeypatch.setattr(Requests, "_well_formed", counted)
    words = [b"MSET", *(b"%d" % number for number in range(4000))]
    whole = request(words)
    pieces = [whole[start : start + 10] for start in range(0, len(whole), 10)]
    assert parsed([*pieces, *pieces], user) == [words, words]
    # each string once, and once more for each piece that ends within it
    assert looked_at[0] <= 2 * (len(words) + len(pieces))
    assert read[0] <= 2 * len(whole)


@given(st.lists(WORDS, max_size=8), st.data())
@settings(max_examples=200, deadline=None)
def test_what_was_sent_is_what_is_run(commands: list[list[bytes]], data: st.DataObject) -> None:
    whole = b"".join(map(request, commands))
    cut = data.draw(st.integers(0, len(whole)))
    assert parsed([whole[:cut], whole[cut:]]) == commands


@given(st.integers(0, 200), st.integers(0, 200))
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_any_split_gives_the_same_replies(node: Node, dial: Dial, one: int, two: int) -> None:
    node.execute("DEL", "n", "k")
    script = [[b"INCR", b"n"], [b"SET", b"k", b"a\r\n*1\r\n"], [b"GET", b"k"], [b"NOPE"], [b"INCR", b"n"]]
    data = b"".join(map(request, script)) + b"INCR n\r\n" + request([b"GET", b"n"]) + b"*1\r\n:5\r\nINCR n\r\n"
    first, second = sorted((min(one, len(data)), min(two, len(data))))
    connection = dial(node)
    for piece in filter(None, (data[:first], data[first:second], data[second:])):
        connection.send(piece)
    replies = [str(connection.read()) for _ in range(9)]
    assert replies == [
        *(":1", "+OK", '$"a\\r\\n*1\\r\\n"', "-ERR unknown command 'NOPE', with args beginning with: "),
        *(":2", ":3", '$"3"', "-ERR Protocol error: expected '$', got ':'", "!closed"),
    ]
    assert node.execute("GET", "n") == "3"  # nothing ran twice, and nothing after the error


def test_requests_byte_by_byte(node: Node, dial: Dial) -> None:
    connection = dial(node)
    data = request([b"SET", b"k", b"\r\n$\x00"]) + b"get k\r\n"
    for at in range(len(data)):
        connection.send(data[at : at + 1])
    assert [str(connection.read()) for _ in range(2)] == ["+OK", '$"\\r\\n$\\x00"']


def test_a_long_pipeline_is_answered_in_order(node: Node, dial: Dial) -> None:
    connection = dial(node)
    count = 20_000
    connection.send(b"".join(request([b"ECHO", b"%d" % number]) for number in range(count)))
    assert [connection.read().body for _ in range(count)] == [b"%d" % number for number in range(count)]


def test_an_inline_command_among_others(node: Node, dial: Dial) -> None:
    connection = dial(node)
    connection.send(request([b"PING"]) + b"  echo  'a  b' \r\n\r\n" + request([b"ECHO", b"c"]))
    assert [str(connection.read()) for _ in range(3)] == ["+PONG", '$"a  b"', '$"c"']


def test_a_huge_bulk_comes_back_as_it_was(node: Node, dial: Dial) -> None:
    value = bytes(range(256)) * 4096 * 20  # 20 MB
    connection = dial(node)
    assert connection.ask(b"SET", b"huge", value) == Wire("+", b"OK")
    assert connection.ask(b"STRLEN", b"huge") == Wire(":", b"%d" % len(value))
    assert connection.ask(b"GETRANGE", b"huge", b"-300", b"-1").body == value[-300:]
    connection.send(request([b"GET", b"huge"]))
    connection.send(request([b"PING"]))
    assert connection.read(10).body == value
    assert connection.read() == Wire("+", b"PONG")


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"*x\r\n", "invalid multibulk length"),
        (b"*2147483648\r\n", "invalid multibulk length"),
        (b"*1\r\n$x\r\n", "invalid bulk length"),
        (b"*1\r\n$536870913\r\n", "invalid bulk length"),
        (b"*3\r\n$3\r\nSET\r\n:1\r\n", "expected '$', got ':'"),  # two strings are missing still
        (b"ECHO 'a\r\n", "unbalanced quotes in request"),
        (b"x" * 70_000, "too big inline request"),
        (b"*" + b"1" * 70_000, "too big mbulk count string"),
        (b"*1\r\n$" + b"1" * 70_000, "too big bulk count string"),
    ],
)
def test_what_is_no_request_is_refused_at_once_and_the_connection_closed(
    node: Node, dial: Dial, sent: bytes, error: str
) -> None:
    connection = dial(node)
    connection.send(request([b"INCR", b"n"]) + sent)
    assert str(connection.read()) == ":1"
    assert str(connection.read()) == f"-ERR Protocol error: {error}"
    assert connection.read() == CLOSED
    assert node.execute("GET", "n") == "1"


def test_before_the_login_requests_must_be_small(dial: Dial) -> None:
    with Node(password="secret") as node:
        for sent, error in ((b"*11\r\n", "multibulk"), (b"*2\r\n$16385\r\n", "bulk")):
            connection = dial(node)
            connection.send(sent)
            assert str(connection.read()) == f"-ERR Protocol error: unauthenticated {error} length"
            assert connection.read() == CLOSED
        connection = dial(node)
        words = [b"RPUSH", b"l", *[b"x"] * 20]
        connection.send(request([b"AUTH", b"secret"]) + request(words))  # the login is in the same packet
        assert [str(connection.read()) for _ in range(2)] == ["+OK", ":20"]


@pytest.mark.parametrize("line", [b"POST / HTTP/1.1\r\n", b"Host: localhost\r\n"])
def test_a_browser_is_not_answered(node: Node, dial: Dial, line: bytes) -> None:
    connection = dial(node)
    connection.send(line + b"SET hacked 1\r\n")
    assert connection.read() == CLOSED
    assert node.execute("GET", "hacked") is None


def test_a_client_that_goes_in_the_middle_of_a_request_changes_nothing(node: Node, dial: Dial) -> None:
    before = len(node.execute("CLIENT", "LIST").splitlines())
    connection = dial(node)
    connection.send(request([b"SET", b"a", b"1"]) + request([b"SET", b"b", b"2"])[:-5])
    assert str(connection.read()) == "+OK"
    connection.close()
    eventually(lambda: len(node.execute("CLIENT", "LIST").splitlines()) == before)
    assert node.execute("MGET", "a", "b") == ["1", None]


def test_a_client_that_has_gone_before_it_is_answered_does_no_harm(node: Node, dial: Dial) -> None:
    for _ in range(20):
        with socket.create_connection(node.address) as sock:
            sock.sendall(request([b"PING"]) * 500)
    assert str(dial(node).ask(b"PING")) == "+PONG"


def test_after_quit_nothing_runs(node: Node, dial: Dial) -> None:
    connection = dial(node)
    connection.send(request([b"SET", b"a", b"1"]) + request([b"QUIT"]) + request([b"SET", b"a", b"2"]))
    assert [str(connection.read()) for _ in range(3)] == ["+OK", "+OK", "!closed"]
    assert node.execute("GET", "a") == "1"


@pytest.mark.parametrize(
    ("line", "words"),
    [
        (b"SET k v", [b"SET", b"k", b"v"]),
        (b"a \"b c\" 'd e'", [b"a", b"b c", b"d e"]),
        (b'"\\x00\\n\\"\\\\"', [b'\x00\n"\\']),
        (b"'it\\'s' ''", [b"it's", b""]),
        (b'pre"fix"', [b"prefix"]),
        (b"a\\b", [b"a\\b"]),
        (b"\t a \v b ", [b"a", b"b"]),
    ],
)
def test_the_words_of_an_inline_command(line: bytes, words: list[bytes]) -> None:
    assert split_words(line) == words


@pytest.mark.parametrize("line", [b'"a', b"'a", b"'a'b", b'"a"b', b"'a\\'", b'a"b""c"'])
def test_quotes_that_do_not_match(line: bytes) -> None:
    with pytest.raises(ErrorReply, match="unbalanced quotes"):
        split_words(line)


@pytest.mark.parametrize(
    "sent", [b"*1\r\n$01\r\n", b"*2\r\n_\r\n", b"*1\r\n*1\r\n$1\r\na\r\n", b"*2\r\n$1\r\na\r\n+b\r\n"]
)
def test_what_is_broken_here_is_broken_for_the_real_server(server: RealNode, dial: Dial, sent: bytes) -> None:
    connection = dial(server)
    connection.send(sent)
    assert str(connection.read()) == f"-{parsed([sent])[-1]}"
