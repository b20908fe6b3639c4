"""A port of the loopback interface: decides who gets it, and keeps it for a server that does not run at the moment.

Who connects to a port that is kept is refused, and nobody else gets it meanwhile. It knows no protocol.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import socket
from typing import TYPE_CHECKING

from hatopo.testing._loop import LOOP

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
        self.number = number
        self._socket: socket.socket | None = None
        self._listens = False
        self._accepted: set[asyncio.Task[object]] = set()
        """Connections that are about to have their protocol."""
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
            task = LOOP.loop.create_task(LOOP.loop.connect_accepted_socket(protocol, accepted, ssl=tls))
            self._accepted.add(task)
            task.add_done_callback(self._begun)

    def _begun(self, task: asyncio.Task[object]) -> None:
        self._accepted.discard(task)
        if not task.cancelled() and isinstance(task.exception(), OSError):
            log.info("a connection to port %d has not begun: %s", self.number, task.exception())

    def shut(self) -> None:
        """Refuse connections, and keep the port."""
        if self._listens:
            self.release()
            self.keep()

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
