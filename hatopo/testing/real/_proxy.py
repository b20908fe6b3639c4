"""A TCP proxy in front of one server, which can part those who go through it from the server.

A cut is a black hole: connections stay open, nothing passes in either direction, and new connections are taken
and not answered. What was sent meanwhile arrives when the cut is healed, as after a real partition.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import TYPE_CHECKING

from hatopo.testing._control import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hatopo.testing._control import Address


class Proxy:
    """Listens on a port of its own and passes bytes to and from `target`, until `close()`."""

    def __init__(self, target: Address) -> None:
        self._target = target
        self._listener = socket.create_server((HOST, 0))
        self.address: Address = (HOST, self._listener.getsockname()[1])
        self._open = threading.Event()  # set: bytes pass
        self._open.set()
        self._closing = False
        self._lock = threading.Lock()
        self._sockets: set[socket.socket] = set()  # under _lock
        self._threads: list[threading.Thread] = []  # under _lock
        self._start(self._accept)

    def cut(self) -> None:
        """From now on nothing passes."""
        self._open.clear()

    def heal(self) -> None:
        """What was held back passes, and all that comes."""
        self._open.set()

    def drop(self) -> None:
        """Ends the connections that are open now; new ones are taken."""
        with self._lock:
            doomed = [*self._sockets]
        for each in doomed:
            _hang_up(each)

    def close(self) -> None:
        """Ends everything; twice is once."""
        self._closing = True
        _hang_up(self._listener)
        self.heal()
        while threads := self._alive():
            self.drop()
            threads[0].join(0.1)
        self._listener.close()

    def _alive(self) -> list[threading.Thread]:
        with self._lock:
            self._threads = [one for one in self._threads if one.is_alive()]
            return self._threads

    def _start(self, work: Callable[..., None], *args: socket.socket) -> None:
        thread = threading.Thread(target=work, args=args, name="proxy", daemon=True)
        thread.start()
        with self._lock:
            self._threads.append(thread)

    def _accept(self) -> None:
        while not self._closing:
            self._alive()  # forgets those that have ended
            try:
                caller, _ = self._listener.accept()
            except OSError:
                return  # closed
            self._start(self._serve, caller)

    def _serve(self, caller: socket.socket) -> None:
        with caller, self._known(caller):
            self._open.wait()
            if self._closing:
                return
            with contextlib.suppress(OSError), socket.create_connection(self._target, 5) as server:
                server.settimeout(None)
                with self._known(server):
                    back = threading.Thread(target=self._pump, args=(server, caller), name="proxy", daemon=True)
                    back.start()
                    self._pump(caller, server)
                    back.join()

    @contextlib.contextmanager
    def _known(self, each: socket.socket) -> Iterator[None]:
        with self._lock:
            self._sockets.add(each)
        try:
            yield
        finally:
            with self._lock:
                self._sockets.discard(each)

    def _pump(self, source: socket.socket, sink: socket.socket) -> None:
        """Carries one direction to its end; the end itself passes only through an open proxy, too."""
        with contextlib.suppress(OSError):
            while data := source.recv(65_536):
                self._open.wait()
                sink.sendall(data)
        self._open.wait()
        _hang_up(source)
        _hang_up(sink)


def _hang_up(each: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended already
        each.shutdown(socket.SHUT_RDWR)
