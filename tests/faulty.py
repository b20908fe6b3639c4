"""A scripted Redis server whose connection breaks exactly where a test says.

`FaultyServer` speaks enough RESP2 and RESP3 for a client to connect and to run a few commands on a dict,
counts what it was asked and what it executed, and injects one fault per rule:

    with FaultyServer() as fake:
        fake.on("INCR", nth=1).cut_reply(after_bytes=2)
        ...
        assert fake.executed["INCR"] == 1

Its law: everything that was received is executed, unless it follows a dropped command. So a cut reply is
the worst case: a command that was done and not acknowledged.
"""

from __future__ import annotations

import selectors
import socket
import threading
import time
from collections import Counter, deque
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, TypeAlias

import hiredis

from tests.tinyredis import Command, Refusal, Session, TinyRedis, encode, full_name

if TYPE_CHECKING:
    from collections.abc import Callable

PUSH = b">2\r\n+x\r\n+y\r\n"
GARBAGE = b"@\x00what\xff is this?\r\n"
HUGE_HEADER = b"$3000000000\r\n"
PAUSE = 0.0003  # between two segments, so that the reader gets them one by one
CLOSE = b""  # in an output queue: everything before it is sent, then the connection ends

Segment: TypeAlias = "bytes | float | threading.Event"


@dataclass(frozen=True)
class Fault:
    """What happens to one command; several rules that match are laid over each other."""

    drop_before: bool = False  # close without executing
    drop_after: bool = False  # execute, then close without a reply
    cut: int | None = None  # so many bytes of this reply and those that follow it, then close
    every: int = 0  # a segment of its own for each so many bytes
    push: bool = False  # a RESP3 push before and after the reply
    raw: bytes | None = None  # executed, but this is sent in place of the reply
    error: str | None = None  # refused with this text
    gate: threading.Event | None = None  # the reply waits for it

    def over(self, other: Fault) -> Fault:
        """`other`, with every choice that this fault makes laid over it."""
        chosen = {name: value for name, value in vars(self).items() if value != getattr(SOUND, name)}
        return replace(other, **chosen)


SOUND = Fault()


@dataclass
class Rule:
    """Which commands a fault meets: all named `command` (None: all), or only the `nth` of them from now."""

    command: str | None
    nth: int | None
    fault: Fault = SOUND
    seen: int = 0

    def hits(self, name: str) -> bool:
        """Counts a command and says whether the fault applies to it."""
        if self.command is not None and name != self.command:
            return False
        self.seen += 1
        return self.nth is None or self.seen == self.nth

    def cut_reply(self, after_bytes: int) -> None:
        """Sends so many bytes of the reply, and of those that follow it, then closes."""
        self.fault = Fault(cut=after_bytes)

    def drop_before(self) -> None:
        """Closes without executing."""
        self.fault = Fault(drop_before=True)

    def drop_after_execute(self) -> None:
        """Executes and closes without a byte of a reply."""
        self.fault = Fault(drop_after=True)

    def delay_reply_until(self, event: threading.Event) -> None:
        """Executes at once, replies when the event is set."""
        self.fault = Fault(gate=event)

    def split_reply(self, every: int) -> None:
        """Sends the reply in segments of so many bytes."""
        self.fault = Fault(every=every)

    def push_between(self) -> None:
        """Sends a push before and after the reply, on RESP3 connections."""
        self.fault = Fault(push=True)

    def error(self, text: str) -> None:
        """Refuses with an error."""
        self.fault = Fault(error=text)

    def error_once(self, text: str) -> None:
        """Refuses with an error, the first time if the rule names no other."""
        self.nth = self.nth or 1
        self.error(text)

    def garbage(self) -> None:
        """Replies bytes that are no RESP, and keeps the connection open."""
        self.fault = Fault(raw=GARBAGE)

    def huge_header(self) -> None:
        """Announces a reply of 3 GB, and keeps the connection open."""
        self.fault = Fault(raw=HUGE_HEADER)

    def refuse(self) -> None:
        """Does not know the command, as an old server or a proxy would not."""
        self.fault = Fault(error=f"ERR unknown command '{self.command}', with args beginning with: ")


@dataclass(eq=False)
class Peer:
    """One client connection and what is still to be sent to it."""

    sock: socket.socket
    session: Session
    reader: hiredis.Reader = field(default_factory=hiredis.Reader)
    budget: int | None = None  # bytes until the cut
    closing: bool = False  # CLOSE is in the queue: nothing more is said
    deaf: bool = False  # nothing more is executed either
    out: deque[Segment] = field(default_factory=deque)
    ready_at: float = 0.0

    def say(self, data: bytes, every: int = 0) -> None:
        """Queues bytes, within the budget."""
        if self.closing:
            return
        if self.budget is not None:
            data = data[: self.budget]
            self.budget -= len(data)
        step = every or len(data) or 1
        for start in range(0, len(data), step):
            self.out.append(data[start : start + step])
            if every:
                self.out.append(PAUSE)
        if self.budget == 0:
            self.hang_up()

    def hang_up(self) -> None:
        """Closes after what is queued."""
        self.closing = True
        self.out.append(CLOSE)


class FaultyServer(TinyRedis):
    """See the module. A context manager; `port`, `data`, the counts and `on()` are its face."""

    def __init__(self, password: str | None = None) -> None:
        super().__init__(password)
        self.received: Counter[str] = Counter()
        self.connections = 0
        self.chaos: Callable[[str], Fault] | None = None
        self.rules: list[Rule] = []
        self._peers: set[Peer] = set()
        self._tasks: deque[Callable[[], None]] = deque()
        self._selector = selectors.SelectSelector()  # it alone waits for less than a millisecond
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=256)
        self._wake, self._woken = socket.socketpair()
        self.port: int = self._listener.getsockname()[1]
        self._running = True
        self._thread = threading.Thread(target=self._run, name="faulty-server", daemon=True)

    def __enter__(self) -> FaultyServer:
        for sock in (self._listener, self._woken):
            sock.setblocking(False)
            self._selector.register(sock, selectors.EVENT_READ)
        self._thread.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self._ask(self._stop)
        self._thread.join(10)
        assert not self._thread.is_alive()
        self._wake.close()
        self._woken.close()

    def on(self, command: str | None = None, nth: int | None = None) -> Rule:
        """A rule for a command ("GET", "CLIENT SETINFO"; None: any): choose its fault by a method."""
        rule = Rule(command, nth)
        self.rules.append(rule)
        return rule

    def heal(self) -> None:
        """Forgets all rules."""
        self.rules.clear()
        self.chaos = None

    @property
    def open(self) -> int:
        """How many connections are open now, as far as the server has noticed."""
        return len(self._peers)

    def idle_close(self) -> None:
        """Closes all connections and returns when that is done."""
        self._ask(self._drop_all)

    def _ask(self, task: Callable[[], None]) -> None:
        done = threading.Event()

        def carry_out() -> None:
            task()
            done.set()

        self._tasks.append(carry_out)
        self._wake.send(b"!")
        assert done.wait(10), "the faulty server hangs"

    def _stop(self) -> None:
        self._running = False
        self._drop_all()
        self._listener.close()
        self._selector.close()

    # ------------------------------------------------------------ the loop
    def _run(self) -> None:
        while self._running:
            for key, _ in self._selector.select(self._patience()):
                if key.fileobj is self._listener:
                    self._accept()
                elif key.fileobj is self._woken:
                    self._woken.recv(64)
                else:
                    self._receive(key.data)
            while self._tasks:
                self._tasks.popleft()()
            now = time.monotonic()
            for peer in [peer for peer in self._peers if peer.out and peer.ready_at <= now]:
                self._send(peer)

    def _patience(self) -> float | None:
        waiting = [peer for peer in self._peers if peer.out]
        if not waiting:
            return None
        return max(0.0, min(peer.ready_at for peer in waiting) - time.monotonic())

    def _accept(self) -> None:
        sock, _ = self._listener.accept()
        sock.setblocking(False)
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.connections += 1
        peer = Peer(sock, Session(self.connections, authenticated=self.password is None))
        self._peers.add(peer)
        self._selector.register(sock, selectors.EVENT_READ, peer)

    def _drop(self, peer: Peer) -> None:
        self._peers.discard(peer)
        self._selector.unregister(peer.sock)
        peer.sock.close()

    def _drop_all(self) -> None:
        for peer in list(self._peers):
            self._drop(peer)

    def _receive(self, peer: Peer) -> None:
        if peer not in self._peers:
            return
        try:
            data = peer.sock.recv(1 << 16)
        except OSError:
            data = b""
        if not data:
            self._drop(peer)
            return
        peer.reader.feed(data)
        while not peer.deaf and (command := peer.reader.gets()) is not False:
            self._serve(peer, command)
        self._send(peer)

    def _send(self, peer: Peer) -> None:
        out = peer.out
        try:
            while out:
                head = out[0]
                if isinstance(head, float):
                    peer.ready_at = time.monotonic() + head
                elif isinstance(head, threading.Event):
                    if not head.is_set():
                        peer.ready_at = time.monotonic() + 0.002
                        return
                elif head == CLOSE:
                    self._drop(peer)
                    return
                elif (sent := peer.sock.send(head)) < len(head):
                    out[0] = head[sent:]
                    return
                out.popleft()
                if isinstance(head, float):
                    return
        except BlockingIOError:
            peer.ready_at = time.monotonic() + 0.001
        except OSError:
            self._drop(peer)

    # ------------------------------------------------------------ commands
    def _serve(self, peer: Peer, command: Command) -> None:
        name = full_name(command)
        self.received[name] += 1
        fault = self.chaos(name) if self.chaos else SOUND
        for rule in self.rules:
            if rule.hits(name):
                fault = rule.fault.over(fault)
        if fault.drop_before or fault.drop_after:
            if fault.drop_after:
                self.reply(peer.session, name, command)
            peer.deaf = True
            peer.hang_up()
            return
        reply = self.reply(peer.session, name, command) if fault.error is None else Refusal(fault.error)
        if fault.error is not None:
            peer.session.aborted = peer.session.queued is not None
        if fault.gate is not None:
            peer.out.append(fault.gate)
        if fault.cut is not None:
            peer.budget = fault.cut
        data = encode(reply, peer.session.protocol) if fault.raw is None else fault.raw
        if fault.push and peer.session.protocol == 3 and name != "HELLO":
            data = PUSH + data + PUSH
        peer.say(data, fault.every)
