"""A port of the loopback interface: decides who gets it, and keeps it for a server that does not run at the moment.

Who connects to a port that is kept is refused, and nobody else gets it meanwhile. It knows no protocol.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from typing import TYPE_CHECKING

from hatopo.testing.world._loop import LOOP

if TYPE_CHECKING:
    import asyncio
    import ssl
    from collections.abc import Callable

log = logging.getLogger("hatopo.testing")

HOST = "127.0.0.1"
BACKLOG = 511


class Port:
    """A port, kept from `keep` to `release`; number 0: wherever there is room.

    Accepts by itself: a server of asyncio that is closed loses a connection that it is about to accept.
    """

    def __init__(self, number: int = 0) -> None:
        if not 0 <= number <= 65535:
            raise ValueError(f"there is no port {number}")
        self.number = number
        self._socket: socket.socket | None = None
        self._listens = False
        self._accepted: dict[asyncio.Task[None], socket.socket] = {}
        """Connections that are about to have their protocol: with TLS, when their client has begun to speak."""
        self._lost: set[asyncio.Task[None]] = set()
        """Those that have ended, which their clients cannot know before the end of `hold`."""
        self._held = False
        self._waiting: list[asyncio.Future[None]] = []
        LOOP.sockets.add(self)

    @property
    def descriptor(self) -> int:
        """The number of its socket's file; -1: it has none."""
        return self._socket.fileno() if self._socket is not None else -1

    def keep(self) -> None:
        """Take the port, without listening yet."""
        if self._socket is None:
            self._socket = _bound(self.number)
            self.number = self._socket.getsockname()[1]

    def listen(self, protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None) -> None:
        """Accept connections."""
        if self._socket is None:
            raise RuntimeError("the deployment of this server has ended")
        if not self._listens:
            self._listens = True
            self._socket.listen(BACKLOG)
            LOOP.loop.add_reader(self._socket, self._accept, protocol, tls)

    def _accept(self, protocol: Callable[[], asyncio.Protocol], tls: ssl.SSLContext | None) -> None:
        while self._socket is not None:
            try:
                accepted, _ = self._socket.accept()
            except (BlockingIOError, ConnectionAbortedError):
                return
            task = LOOP.loop.create_task(self._begin(protocol, accepted, tls))
            self._accepted[task] = accepted
            task.add_done_callback(self._begun)

    async def _begin(
        self, protocol: Callable[[], asyncio.Protocol], accepted: socket.socket, tls: ssl.SSLContext | None
    ) -> None:
        """Give a connection its protocol; no handshake begins while connections are held."""
        if tls is not None:
            accepted.setblocking(False)
            await _readable(accepted)
            while self._held:
                self._waiting.append(LOOP.loop.create_future())
                await self._waiting[-1]
        await LOOP.loop.connect_accepted_socket(protocol, accepted, ssl=tls)

    def _begun(self, task: asyncio.Task[None]) -> None:
        accepted = self._accepted.pop(task)
        self._lost.discard(task)
        if task.cancelled():
            accepted.close()
        elif isinstance(task.exception(), OSError):
            log.info("a connection to port %d has not begun: %s", self.number, task.exception())

    def hold(self, held: bool) -> None:
        """Begin no handshake, as the server stands still or is cut off from its clients; or do so again."""
        self._held = held
        if not held:
            for task in self._lost:
                task.cancel()
            waiting, self._waiting = self._waiting, []
            for one in waiting:
                _fulfil(one)

    def hang_up(self) -> None:
        """End the connections that have not begun; where they are held, their clients learn of it later."""
        self._lost |= self._accepted.keys()
        self.hold(self._held)

    def shut(self) -> None:
        """Refuse connections, and keep the port, where the system can at every moment."""
        if not self._listens:
            return
        kept = _beside(self._socket, self.number)
        self.release()
        if kept is None:
            self.keep()
        else:
            self._socket = kept

    def release(self) -> None:
        """Let go of the port."""
        sock, self._socket = self._socket, None
        if sock is not None and self._listens:
            LOOP.loop.remove_reader(sock)
            with contextlib.suppress(OSError):  # not everywhere, and needed only where a forked child has it, too
                sock.shutdown(socket.SHUT_RDWR)
        if sock is not None:
            sock.close()
        self._listens = False

    def close(self) -> None:
        """Let go of the port, and of those that have just come."""
        self.release()
        for task in self._accepted:
            task.cancel()


async def _readable(sock: socket.socket) -> None:
    """Return when something has arrived, or the other side has gone."""
    arrived: asyncio.Future[None] = LOOP.loop.create_future()
    LOOP.loop.add_reader(sock, _fulfil, arrived)
    try:
        await arrived
    finally:
        LOOP.loop.remove_reader(sock)


def _fulfil(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _beside(listening: socket.socket | None, port: int) -> socket.socket | None:
    """A second socket that holds the port of one that listens; None: the system does not let two have it."""
    if listening is None or not hasattr(socket, "SO_REUSEPORT"):
        return None
    kept = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        kept.bind((HOST, port))
        kept.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 0)  # nobody else may come beside it
        kept.setblocking(False)
    except OSError:
        kept.close()
        return None
    return kept


def _bound(port: int) -> socket.socket:
    """A socket that holds a port without listening at it."""
    sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind((HOST, port))
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        if error.errno in (errno.EADDRINUSE, errno.EACCES):
            raise OSError(error.errno, f"port {port} of {HOST} cannot be had: {error.strerror}") from None
        raise
    return sock
