"""TCP: bytes to commands and replies to bytes, for the sessions of clients that have a socket.

Decides when bytes may pass: not while the client is cut off, which then does not learn either that its connection
was closed. What is a command is decided by `_requests`; what a command means is not known here.
"""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING

from hatopo.testing._reply import ErrorReply, Reply, encode
from hatopo.testing.server._requests import Requests
from hatopo.testing.world._loop import LOOP
from hatopo.testing.world._world import CLIENTS

NOBODY = ("?", 0)
"""The address of a client that has gone before it could be asked."""

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatopo.testing.server._server import Server


class Connection(asyncio.Protocol):
    """The socket of a session."""

    party = CLIENTS

    def __init__(self, server: Server) -> None:
        self._server = server
        self._clock = server.world.clock
        self._requests = Requests()
        self._out: list[bytes] | None = None
        """Replies that leave together, while commands that came together are run."""
        self._cut_off: _CutOff | None = None
        self._reads = False
        """asyncio has begun to read: before Python 3.11 it does so even if reading was paused at once."""
        self._frozen = False
        """The server stands still: what arrives, the end of the connection included, stays where it is."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport
        sock = transport.get_extra_info("socket")
        if sock is not None and sock.family != socket.AF_UNIX:
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        LOOP.sockets.add(self)
        LOOP.loop.call_soon(self._begin_to_read)
        self._server.accepted(self)
        self.session = self._server.open_session(self, transport.get_extra_info("peername", NOBODY)[:2])
        if not self._server.running:
            self.session.close("the server was killed", flush=False)
            self.transport.abort()  # even where it is cut off: it was never open

    def connection_lost(self, exc: Exception | None) -> None:
        self._server.connections.discard(self)
        self.session.end()

    @property
    def descriptor(self) -> int:
        """The number of its socket's file; -1: it has none any more."""
        sock = self.transport.get_extra_info("socket")
        return sock.fileno() if sock is not None else -1

    def set_reachable(self, reachable: bool) -> None:
        """Hold back what is sent in both directions, or let it through again."""
        if reachable == (self._cut_off is None):
            return
        if not reachable:
            self._cut_off = _CutOff()
            self._read_or_not()
            return
        held, self._cut_off = self._cut_off, None
        if held is None:
            return
        self.write(b"".join(held.sent))
        if held.closed:
            self.transport.close()
            return
        self._read_or_not()
        if held.arrived:
            self.data_received(b"".join(held.arrived))

    def freeze(self, frozen: bool) -> None:
        """Read nothing while the server stands still; what has arrived by its end is run, whoever has gone since."""
        self._frozen = frozen
        self._read_or_not()

    def _begin_to_read(self) -> None:
        self._reads = True
        self._read_or_not()

    def _read_or_not(self) -> None:
        if not self._reads:
            return
        if self._frozen or self._cut_off is not None:
            self.transport.pause_reading()
        else:
            self.transport.resume_reading()

    def data_received(self, data: bytes) -> None:
        if self._cut_off is not None:
            self._cut_off.arrived.append(data)
            return
        self._clock.catch_up()
        session = self.session
        self._out = []
        try:
            for args in self._requests.feed(data, session):
                session.feed(args)
        except ErrorReply as error:
            session.answer(error)
            session.close("protocol error")
        finally:
            out, self._out = self._out, None
            if out:
                self.write(b"".join(out) if len(out) > 1 else out[0])

    def deliver(self, reply: Reply, protocol: int, limit: int | None = None) -> None:
        data = encode(reply, protocol)
        self.write(data if limit is None else data[:limit])

    def push(self, message: Sequence[Reply], protocol: int) -> None:
        self.write(encode(message, protocol))

    def write(self, data: bytes) -> None:
        """Send bytes, with those of the same batch where there is one."""
        if not data:
            return  # an empty piece keeps a transport of Python 3.12 and later from ever closing
        if self._out is not None:
            self._out.append(data)
        elif self._cut_off is not None:
            self._cut_off.sent.append(data)
        elif not self.transport.is_closing():
            self.transport.write(data)

    def ended(self, reason: str, *, flush: bool = True) -> None:
        out, self._out = self._out, None if self._out is None else []
        if flush and out:
            (self._cut_off.sent.extend if self._cut_off is not None else self.transport.writelines)(out)
        if self._cut_off is not None:
            self._cut_off.closed = True
        elif flush:
            self.transport.close()
        else:
            self.transport.abort()

    def abort(self) -> None:
        """The end, also of what is held back."""
        self.transport.abort()


class _CutOff:
    """What waits for the end of a partition."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.arrived: list[bytes] = []
        self.closed = False
        """The server has closed the connection, which the client cannot know."""
