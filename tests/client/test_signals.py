"""An exception out of a signal handler, at any point of a call, leaves no reply behind for the next call.

Every value is made of its key, so that a reply that reaches the wrong call is seen at once. Signals come at
random moments; a trace function then raises at every point of a call where one could, which needs no luck.
"""

from __future__ import annotations

import _weakrefset
import gc
import random
import signal
import socket
import sys
import threading
from dis import opname
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hiredis
import pytest
import redis

import hatopo
from tests.client.support import batch, run_script, value_of
from tests.control import eventually
from tests.tinyredis import encode

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import CodeType, FrameType

    from hatopo.testing.real import RealNode

# pytest-timeout's own way is SIGALRM, which is what these tests use.
pytestmark = [
    pytest.mark.timeout(300, method="thread"),
    # A socket may be interrupted between its birth and its name; then it is collected, and says so.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
]

KEYS = [f"key{number}" for number in range(50)]
LIMIT = 3  # connections in the pool
SOURCES = (
    *(str(Path(str(module.__file__)).parent) for module in (hatopo, redis)),
    threading.__file__,
    _weakrefset.__file__,
)
CHECKPOINTS = ("CALL", "JUMP_BACKWARD", "JUMP_ABSOLUTE")  # the last one before Python 3.11


class SoftLimit(Exception):
    """As a task queue raises it."""


class HardLimit(BaseException):
    """As KeyboardInterrupt and gevent's Timeout are."""


INTERRUPTS = pytest.mark.parametrize("interrupt", [SoftLimit, HardLimit])


class Alarm:
    """Raises once, a random moment after `arm()`, and never when it is not armed."""

    def __init__(self, interrupt: type[BaseException]) -> None:
        self.interrupt = interrupt
        self.rng = random.Random(11)
        self.armed = False

    def arm(self) -> None:
        self.armed = True
        signal.setitimer(signal.ITIMER_REAL, self.rng.uniform(0.00001, 0.0003))

    def __call__(self, *_: object) -> None:
        if self.armed:
            self.armed = False
            raise self.interrupt

    def __enter__(self) -> Alarm:
        self.before = signal.signal(signal.SIGALRM, self)
        return self

    def __exit__(self, *_: object) -> None:
        self.armed = False
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, self.before)


def bombard(ask: Callable[[str], Any], interrupt: type[BaseException], calls: int = 3_000) -> int:
    """Asks for one key after another under fire; every answer must be that of its key. Returns the hits."""
    done = hits = 0
    with Alarm(interrupt) as alarm:
        while done < calls:
            try:
                while done < calls:
                    done += 1
                    key = KEYS[done % len(KEYS)]
                    alarm.arm()
                    got = ask(key)
                    alarm.armed = False
                    assert got == value_of(key)
            except interrupt:
                hits += 1
    return hits


@pytest.fixture
def client(server: RealNode, monkeypatch: pytest.MonkeyPatch) -> Iterator[hatopo.Redis]:
    """A client whose lost connections come back at once: nobody collects garbage while all wait for a connection."""
    client = hatopo.standalone(*server.address, client_name="under-fire", max_connections=LIMIT)
    client.mset({key: value_of(key) for key in KEYS})
    # An interrupt that meets a `__del__` cannot be passed on; pytest would keep it, and with it what it met.
    monkeypatch.setattr(sys, "unraisablehook", lambda _: None)
    gc.collect()
    gc.disable()
    yield client
    gc.enable()
    client.close()
    eventually(lambda: "name=under-fire" not in server.execute("CLIENT", "LIST"))


def expect_no_leak(client: hatopo.Redis, server: RealNode) -> None:
    """Nothing open that the pool has lost sight of: it can still lend all it may, and these are all."""
    pool = client.connection_pool
    lent = [pool.get_connection() for _ in range(LIMIT)]
    for connection in lent:
        pool.release(connection)
    eventually(lambda: server.execute("CLIENT", "LIST").count("name=under-fire") <= LIMIT)
    for key in KEYS:
        assert client.get(key) == value_of(key)


def by_batch(client: hatopo.Redis, transaction: bool) -> Callable[[str], Any]:
    def ask(key: str) -> Any:
        first, second = batch(client, transaction).get(key).get(KEYS[0]).execute()
        assert second == value_of(KEYS[0])
        return first

    return ask


@INTERRUPTS
def test_calls_of_a_pool(client: hatopo.Redis, server: RealNode, interrupt: type[BaseException]) -> None:
    assert bombard(client.get, interrupt) > 100
    expect_no_leak(client, server)


@INTERRUPTS
def test_calls_of_a_pinned_connection(client: hatopo.Redis, server: RealNode, interrupt: type[BaseException]) -> None:
    with client.client() as pinned:
        assert bombard(pinned.get, interrupt) > 100
    expect_no_leak(client, server)


@INTERRUPTS
@pytest.mark.parametrize("transaction", [False, True])
def test_batches(client: hatopo.Redis, server: RealNode, transaction: bool, interrupt: type[BaseException]) -> None:
    assert bombard(by_batch(client, transaction), interrupt, calls=2_000) > 100
    expect_no_leak(client, server)


def test_numbers_among_the_arguments(server: RealNode) -> None:
    """In an interpreter of its own: it was seen to crash."""
    run_script("interrupted", server.port)


def test_the_fire_catches_a_client_that_keeps_a_connection_with_an_unread_reply(server: RealNode) -> None:
    class Careless:
        """What a client must not be: it leaves the connection as it is when it is interrupted."""

        def __init__(self) -> None:
            self.sock = socket.create_connection(server.address, timeout=5)
            self.reader = hiredis.Reader()

        def get(self, key: str) -> Any:
            self.sock.sendall(encode(["GET", key]))
            while (reply := self.reader.gets()) is False:
                self.reader.feed(self.sock.recv(4096))
            return reply

    for key in KEYS:
        server.execute("SET", key, value_of(key))
    careless = Careless()
    with careless.sock, pytest.raises(AssertionError, match="the value of key"):
        bombard(careless.get, SoftLimit)


class Bomb:
    """A trace function that raises at the nth point at which the interpreter would run a signal handler.

    That is where a Python function begins, after a call of a C function, and where a loop turns back; between
    other instructions (before a `with` block is left, for one) no signal is noticed.
    """

    def __init__(self, nth: int) -> None:
        self.left = nth
        self.last: tuple[int, str] = (0, "")  # the instruction before, and the frame that it was in

    def __call__(self, frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(SOURCES):
            return None
        frame.f_trace_lines, frame.f_trace_opcodes = False, True
        frame_before, before = self.last
        self.last = (0, "")
        if event == "opcode":
            self.last = (id(frame), instruction(frame.f_code, frame.f_lasti))
        if event == "call" or (frame_before == id(frame) and before.startswith(CHECKPOINTS)):
            self.left -= 1
            if self.left == 0:
                raise SoftLimit
        return self


@cache
def instruction(code: CodeType, offset: int) -> str:
    return opname[code.co_code[offset]]


def interrupted_at(nth: int, call: Callable[[], Any]) -> bool:
    """Runs a call that is interrupted at its nth point; false once it has not so many."""
    bomb = Bomb(nth)
    before = sys.gettrace()
    sys.settrace(bomb)
    try:
        call()
    except SoftLimit:
        pass
    except UnboundLocalError:
        assert redis.VERSION < (7,)  # whose connections are made in a `finally` that trips over an interrupt
    finally:
        sys.settrace(before)
    return bomb.left <= 0


def ask_for(client: hatopo.Redis, how: str) -> Callable[[], Any]:
    if how == "call":
        return lambda: client.get("key1")
    return lambda: by_batch(client, how == "transaction")("key1")


@pytest.mark.parametrize("fresh", [False, True], ids=["connected", "connecting"])
@pytest.mark.parametrize("how", ["call", "batch", "transaction"])
def test_an_exception_at_any_point(client: hatopo.Redis, server: RealNode, how: str, fresh: bool) -> None:
    call = ask_for(client, how)
    nth, interrupted = 0, True
    while interrupted:
        nth += 1
        if fresh:
            client.connection_pool.disconnect()
        assert not interrupted_at(sys.maxsize, call)  # some versions trace instructions from the second run on
        if fresh:
            client.connection_pool.disconnect()
        interrupted = interrupted_at(nth, call)
        for key in KEYS[nth % 40 : nth % 40 + 5]:
            assert client.get(key) == value_of(key), nth
    assert nth > 10, "the bomb did not meet the client's code"
    expect_no_leak(client, server)
