"""The world of a deployment: what its servers share, and the network between them.

Decides who reaches whom: a server finds another one by its address, and a cut between two parties holds back what
they send each other, as a network does that drops packets: nothing is refused, nothing is closed, and what was sent
arrives when the cut is healed. Servers of the same world talk to each other without sockets, in the order of the
world's clock; everybody else is reached over TCP. It does not know what is said.
"""

from __future__ import annotations

import asyncio
import random
from typing import TYPE_CHECKING, Any, Protocol, Union

import hiredis

from hatopo.testing._reply import ErrorReply, Reply, Status
from hatopo.testing.world._loop import LOOP

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from hatopo.testing.server._server import Server
    from hatopo.testing.server._session import Session
    from hatopo.testing.world._clock import Clock, Timer

Address = tuple[str, int]
Word = bytes | str | int


class Clients:
    """Everybody outside, as a party that a server can be cut off from."""

    def __repr__(self) -> str:
        return "CLIENTS"


CLIENTS = Clients()
Party = Union["Server", Clients]


class World:
    """Clock, chance and network of a deployment."""

    def __init__(self, clock: Clock, seed: int | None = None) -> None:
        self.clock = clock
        self.rng = random.Random(seed)
        self.servers: dict[Address, Server] = {}
        self._cuts: set[frozenset[Party]] = set()
        self._links: list[LocalLink] = []
        self.when_healed: list[Callable[[], object]] = []
        """What was held back and belongs to no link any more."""

    @property
    def now(self) -> float:
        """Seconds since 1970, in the time of this world."""
        return self.clock.now

    def after(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call back in `delay` seconds of this world's time."""
        return self.clock.after(delay, callback, *args, owner=self)

    @property
    def data_now(self) -> float:
        """The time by which keys expire."""
        return self.clock.data.now

    def data_after(self, delay: float, callback: Callable[..., object], *args: Any) -> Timer:
        """Call back in `delay` seconds of a client's time: what a blocking command waits."""
        return self.clock.data.after(delay, callback, *args, owner=self)

    def close(self) -> None:
        """Nothing happens any more."""
        self.clock.drop(self)
        self.clock.data.drop(self)

    def new_id(self) -> str:
        """Forty hexadecimal digits, such as name a run of a server, a data set or a node."""
        return f"{self.rng.getrandbits(160):040x}"

    def is_cut(self, one: Party, other: Party) -> bool:
        """Whether what one of them sends does not reach the other now."""
        return bool(self._cuts) and frozenset((one, other)) in self._cuts

    def cut(self, one: Iterable[Party], other: Iterable[Party]) -> None:
        """Hold back all that members of the two groups send each other."""
        others = [*other]
        self._cuts |= {frozenset((a, b)) for a in one for b in others if a is not b}
        self.network_changed()

    def heal(self) -> None:
        """Let everybody reach everybody; what was held back arrives."""
        self._cuts.clear()
        self.network_changed()
        held, self.when_healed = self.when_healed, []
        for arrive in held:
            arrive()

    def network_changed(self) -> None:
        """What was held back may have to move now."""
        for server in self.servers.values():
            server.reach_changed()
        for link in [*self._links]:
            link.flush()

    def link(self, origin: Server, address: Address, owner: LinkOwner) -> Link:
        """Connect a server to whoever listens at an address; `owner` is told what comes of it."""
        target = self.servers.get(address)
        if target is None:
            return TcpLink(self.clock, address, owner)
        return LocalLink(self, origin, target, owner)


class LinkOwner(Protocol):
    """Who holds a link."""

    def link_up(self, link: Link) -> None:
        """It is connected."""

    def link_down(self, link: Link, reason: str) -> None:
        """It could not be connected, or has ended; never called after `link.close()`."""

    def link_push(self, link: Link, message: Sequence[Reply]) -> None:
        """A message of a channel: ["message", channel, data]; confirmations of SUBSCRIBE are replies."""


class Link(Protocol):
    """A connection from a server to another one."""

    @property
    def pending(self) -> int:
        """Commands that wait for their reply."""
        ...

    def send(self, *words: Word, then: Callable[[Reply], object] | None = None) -> None:
        """Send a command, also before it is connected; `then` gets the reply, an ErrorReply included, in order."""

    def close(self) -> None:
        """End it; nobody is called back."""


def packed(words: Sequence[Word]) -> list[bytes]:
    """Words as they are sent."""
    return [word if isinstance(word, bytes) else str(word).encode() for word in words]


class _Calls:
    """The replies that are awaited on a link, in order."""

    def __init__(self) -> None:
        self._waiting: list[Callable[[Reply], object] | None] = []

    def __len__(self) -> int:
        return len(self._waiting)

    def add(self, then: Callable[[Reply], object] | None) -> None:
        self._waiting.append(then)

    def take(self, reply: Reply) -> None:
        """Give a reply to whom it belongs."""
        then = self._waiting.pop(0) if self._waiting else None
        if then is not None:
            then(reply)


class LocalLink:
    """A link within the world: a session on the target that has no socket.

    Both directions are queues, emptied by timers of the world's clock; a cut stops them, a pause of the origin
    stops what it would read.
    """

    def __init__(self, world: World, origin: Server, target: Server, owner: LinkOwner) -> None:
        self._world, self.origin, self._target, self._owner = world, origin, target, owner
        self._session: Session | None = None
        self._calls = _Calls()
        self._out: list[list[bytes]] = []
        self._in: list[tuple[str, Any]] = []
        self._closed = False
        world._links.append(self)
        world.after(0, self.flush)

    @property
    def pending(self) -> int:
        return len(self._calls)

    def send(self, *words: Word, then: Callable[[Reply], object] | None = None) -> None:
        self._calls.add(then)
        self._out.append(packed(words))
        self._world.after(0, self.flush)

    def flush(self) -> None:
        """Move what can be moved, in both directions."""
        if self._closed or self._world.is_cut(self.origin, self._target):
            return
        if self._session is None and not self._connect():
            return
        while self._out and self._session is not None:
            self._session.feed(self._out.pop(0))
        while self._in and not self._closed and not self.origin.paused:
            kind, value = self._in.pop(0)
            self._arrived(kind, value)

    def _connect(self) -> bool:
        if self._in:
            return True  # the target has ended it: the origin is about to read that
        session = self._target.open_local(self)
        if session is None:
            self._in.append(("end", "connection refused"))
            return True
        self._session = session
        self._in.append(("up", None))
        return True

    def _arrived(self, kind: str, value: Any) -> None:
        if kind == "up":
            self._owner.link_up(self)
        elif kind == "reply":
            self._calls.take(value)
        elif kind == "push":
            self._owner.link_push(self, value)
        else:
            self._forget()
            self._owner.link_down(self, value)

    def deliver(self, reply: Reply) -> None:
        """What the target's session answers."""
        self._in.append(("reply", reply))
        self._world.after(0, self.flush)

    def push(self, message: Sequence[Reply]) -> None:
        """A message for the origin; confirmations of subscriptions count as replies."""
        confirms = isinstance(message[0], bytes) and message[0].endswith(b"subscribe")
        self._in.append(("reply" if confirms else "push", message))
        self._world.after(0, self.flush)

    def ended(self, reason: str) -> None:
        """The target has closed the session."""
        self._session = None
        self._in.append(("end", reason))
        self._world.after(0, self.flush)

    def close(self) -> None:
        session, self._session = self._session, None
        self._forget()
        if session is not None:
            self._world.after(0, self._hang_up, session)

    def _hang_up(self, session: Session) -> None:
        """Let the target know, as soon as anything reaches it."""
        if self._world.is_cut(self.origin, self._target):
            self._world.when_healed.append(lambda: self._hang_up(session))
        else:
            session.end()

    def _forget(self) -> None:
        self._closed = True
        self._out.clear()
        self._in.clear()
        if self in self._world._links:
            self._world._links.remove(self)


class LocalPeer:
    """The other end of a session that has no socket: a link within the world."""

    def __init__(self, link: LocalLink) -> None:
        self._link = link
        self.party = link.origin

    def deliver(self, reply: Reply, protocol: int, limit: int | None = None) -> None:
        if limit is None:
            self._link.deliver(reply)

    def push(self, message: Sequence[Reply], protocol: int) -> None:
        self._link.push([part.encode() if isinstance(part, str) else part for part in message])

    def ended(self, reason: str, *, flush: bool = True) -> None:
        self._link.ended(reason)


class TcpLink(asyncio.Protocol):
    """A link to a server that is not of this world: another process."""

    def __init__(self, clock: Clock, address: Address, owner: LinkOwner) -> None:
        self._clock, self._owner = clock, owner
        self._calls = _Calls()
        self._reader = hiredis.Reader()
        self._transport: asyncio.Transport | None = None
        self._early: list[bytes] = []
        self._closed = False
        self._task = LOOP.loop.create_task(self._dial(address))

    @property
    def pending(self) -> int:
        return len(self._calls)

    async def _dial(self, address: Address) -> None:
        try:
            await LOOP.loop.create_connection(lambda: self, *address)
        except (OSError, UnicodeError) as error:
            if not self._closed:
                self._closed = True
                self._owner.link_down(self, str(error))

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport
        LOOP.sockets.add(self)
        if self._closed:
            transport.abort()
            return
        self._clock.catch_up()
        transport.write(b"".join(self._early))
        self._owner.link_up(self)

    def send(self, *words: Word, then: Callable[[Reply], object] | None = None) -> None:
        self._calls.add(then)
        data = hiredis.pack_command(tuple(packed(words)))  # type: ignore[arg-type]
        if self._transport is None:
            self._early.append(data)
        elif not self._closed and not self._transport.is_closing():
            self._transport.write(data)

    @property
    def descriptor(self) -> int:
        """The number of its socket's file; -1: it has none."""
        sock = self._transport.get_extra_info("socket") if self._transport is not None else None
        return sock.fileno() if sock is not None else -1

    def data_received(self, data: bytes) -> None:
        self._clock.catch_up()
        self._reader.feed(data)
        while not self._closed:
            try:
                reply = self._reader.gets()
            except hiredis.ProtocolError as error:
                self.close()
                self._owner.link_down(self, f"no Redis server: {error}")
                return
            if reply is False:
                return
            if isinstance(reply, list) and reply and reply[0] in (b"message", b"pmessage"):
                self._owner.link_push(self, reply)
            else:
                self._calls.take(_as_value(reply))

    def connection_lost(self, exc: Exception | None) -> None:
        if not self._closed:
            self._closed = True
            self._owner.link_down(self, str(exc or "closed by the server"))

    def close(self) -> None:
        self._closed = True
        self._task.cancel()
        if self._transport is not None:
            self._transport.abort()


def _as_value(reply: Any) -> Reply:
    """What hiredis read, as a value of this room."""
    if isinstance(reply, hiredis.ReplyError):
        return ErrorReply(str(reply))
    if isinstance(reply, list):
        return [_as_value(one) for one in reply]
    if reply in (b"OK", b"PONG"):
        return Status(reply.decode())
    if isinstance(reply, (bytes, int, float, bool, dict)) or reply is None:
        return reply
    return str(reply)
