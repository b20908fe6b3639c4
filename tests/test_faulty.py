"""Holds the scripted server to what its rules promise, with a bare socket, so that no client hides a slip."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

import pytest

from tests.faulty import GARBAGE, HUGE_HEADER, PUSH, FaultyServer
from tests.tinyredis import encode

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def fake() -> Iterator[FaultyServer]:
    with FaultyServer() as server:
        yield server


def dial(fake: FaultyServer) -> socket.socket:
    return socket.create_connection(("127.0.0.1", fake.port), timeout=5)


def send(sock: socket.socket, *commands: str) -> None:
    sock.sendall(b"".join(encode(command.split()) for command in commands))


def read(sock: socket.socket, size: int) -> bytes:
    """At most `size` bytes: fewer only if the connection ends."""
    got = b""
    while len(got) < size and (more := sock.recv(size - len(got))):
        got += more
    return got


def until_closed(sock: socket.socket) -> bytes:
    return read(sock, 1 << 20)


def test_commands_are_executed_and_counted(fake: FaultyServer) -> None:
    with dial(fake) as sock:
        send(sock, "SET k v", "GET k", "INCR n", "MULTI", "APPEND k w", "EXEC", "ECHO hi", "NONSENSE")
        wanted = b"+OK\r\n$1\r\nv\r\n:1\r\n+OK\r\n+QUEUED\r\n*1\r\n:2\r\n$2\r\nhi\r\n"
        assert read(sock, len(wanted)) == wanted
        assert read(sock, 4) == b"-ERR"
    assert fake.executed == {"SET": 1, "GET": 1, "INCR": 1, "MULTI": 1, "APPEND": 1, "EXEC": 1, "ECHO": 1}
    assert fake.received["NONSENSE"] == 1
    assert (fake.connections, fake.data[b"k"]) == (1, b"vw")


def test_a_script_runs_once_it_is_loaded(fake: FaultyServer) -> None:
    with dial(fake) as sock:
        send(sock, "EVALSHA 0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33 1 n", "SCRIPT LOAD foo")
        assert until(sock, b"33\r\n").startswith(b"-NOSCRIPT")
        send(sock, "EVALSHA 0beec7b5ea3f0fdbc95d0dd47f3c5bc275da8a33 1 n")
        assert read(sock, 4) == b":1\r\n"


def until(sock: socket.socket, end: bytes) -> bytes:
    got = b""
    while not got.endswith(end):
        more = sock.recv(1)
        assert more, got
        got += more
    return got


@pytest.mark.parametrize("size", range(10))
def test_a_cut_counts_from_its_reply_on_and_everything_is_executed(fake: FaultyServer, size: int) -> None:
    fake.on("INCR", nth=2).cut_reply(after_bytes=size)
    with dial(fake) as sock:
        send(sock, "INCR n", "INCR n", "INCR n", "INCR n")
        assert until_closed(sock) == b":1\r\n:2\r\n:3\r\n:4\r\n"[: 4 + size]
    assert fake.executed["INCR"] == 4


def test_a_dropped_command_and_what_follows_it_is_not_executed(fake: FaultyServer) -> None:
    fake.on("INCR", nth=2).drop_before()
    with dial(fake) as sock:
        send(sock, "INCR n", "INCR n", "INCR n")
        assert until_closed(sock) == b":1\r\n"
    assert fake.executed["INCR"] == 1


def test_a_drop_after_execution_executes(fake: FaultyServer) -> None:
    fake.on("INCR").drop_after_execute()
    with dial(fake) as sock:
        send(sock, "INCR n", "INCR n")
        assert until_closed(sock) == b""
    assert fake.executed["INCR"] == 1


def test_a_delayed_reply_waits_for_its_event_and_delays_nobody_else(fake: FaultyServer) -> None:
    event = threading.Event()
    fake.on("GET", nth=1).delay_reply_until(event)
    with dial(fake) as slow, dial(fake) as quick:
        send(slow, "GET k", "ECHO a")
        send(quick, "ECHO b")
        assert read(quick, 7) == b"$1\r\nb\r\n"
        slow.setblocking(False)
        with pytest.raises(BlockingIOError):
            slow.recv(1)
        slow.settimeout(5)
        event.set()
        assert read(slow, 12) == b"$-1\r\n$1\r\na\r\n"


def test_a_split_reply_arrives_in_segments(fake: FaultyServer) -> None:
    fake.on("GET").split_reply(every=1)
    fake.data[b"k"] = b"x" * 50
    with dial(fake) as sock:
        for _ in range(20):
            send(sock, "GET k")
            segments: list[bytes] = []
            while len(b"".join(segments)) < 57:
                segments.append(sock.recv(100))
            assert b"".join(segments) == encode(b"x" * 50)
            if len(segments) > 10:
                return
    pytest.fail("whoever does not read in time gets several at once, but not every time")


def test_pushes_stand_around_every_reply_of_a_resp3_connection_only(fake: FaultyServer) -> None:
    fake.on().push_between()
    with dial(fake) as sock:
        send(sock, "ECHO a")
        assert read(sock, 7) == b"$1\r\na\r\n"
        send(sock, "HELLO 3")
        until(sock, b"$7\r\nmodules\r\n*0\r\n")
        send(sock, "ECHO a", "ECHO b")
        wanted = PUSH + b"$1\r\na\r\n" + PUSH + PUSH + b"$1\r\nb\r\n" + PUSH
        assert read(sock, len(wanted)) == wanted


def test_errors_garbage_and_refusals(fake: FaultyServer) -> None:
    fake.on("GET").error_once("LOADING the dataset")
    fake.on("ECHO", nth=1).garbage()
    fake.on("PING", nth=1).huge_header()
    fake.on("HELLO").refuse()
    with dial(fake) as sock:
        send(sock, "GET k", "GET k", "ECHO a", "PING", "HELLO 3", "PING")
        wanted = b"-LOADING the dataset\r\n$-1\r\n" + GARBAGE + HUGE_HEADER + b"-ERR unknown command 'HELLO'"
        assert read(sock, len(wanted)) == wanted
        assert until(sock, b"+PONG\r\n")
    assert fake.executed == {"GET": 1, "ECHO": 1, "PING": 2}


def test_an_error_inside_multi_aborts_it(fake: FaultyServer) -> None:
    fake.on("INCR", nth=1).error_once("LOADING the dataset")
    with dial(fake) as sock:
        send(sock, "MULTI", "INCR n", "INCR n", "EXEC", "GET n")
        assert b"-EXECABORT" in until(sock, b"$-1\r\n")
    assert fake.executed["EXEC"] == 0


def test_idle_connections_are_closed_at_once(fake: FaultyServer) -> None:
    with dial(fake) as one, dial(fake) as two:
        for sock in (one, two):
            send(sock, "PING")
            read(sock, 7)
        assert fake.open == 2
        fake.idle_close()
        assert fake.open == 0
        assert one.recv(1) == two.recv(1) == b""


def test_a_password_is_asked_for() -> None:
    with FaultyServer(password="secret") as fake, dial(fake) as sock:
        send(sock, "GET k", "AUTH wrong", "AUTH default secret", "ECHO a")
        got = until(sock, b"$1\r\na\r\n")
        assert [line[:9] for line in got.splitlines()[:3]] == [b"-NOAUTH A", b"-WRONGPAS", b"+OK"]
        assert fake.auths == 2
