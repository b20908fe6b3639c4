"""Names that a test decides: fake DNS, and the addresses that it hands out.

Each address is one of the loopback interface's, all with the same port, as the endpoints of a managed service have
them; behind it is a node, wherever that listens.
"""

from __future__ import annotations

import contextlib
import socket
import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    import pytest

    from tests.control import Address


class Relay:
    """Passes bytes between whoever connects to its address and a node, until `close()`."""

    def __init__(self, host: str, port: int, target: Address) -> None:
        self._target = target
        self._listener = socket.create_server((host, port))
        self.address: Address = self._listener.getsockname()
        self._closing = False
        self._sockets: set[socket.socket] = set()
        self._threads = [threading.Thread(target=self._accept, name="relay", daemon=True)]
        self._threads[0].start()

    def _accept(self) -> None:
        while not self._closing:
            with contextlib.suppress(OSError):
                caller, _ = self._listener.accept()
                self._sockets.add(caller)
                try:
                    node = socket.create_connection(self._target, 5)
                except OSError:
                    caller.close()
                    continue
                node.settimeout(None)
                self._sockets.add(node)
                for ends in ((caller, node), (node, caller)):
                    self._threads.append(threading.Thread(target=_pump, args=ends, name="relay", daemon=True))
                    self._threads[-1].start()

    def close(self) -> None:
        """Ends everything."""
        self._closing = True
        for each in (self._listener, *self._sockets):
            _hang_up(each)
        for thread in self._threads:
            thread.join(10)
        for each in (self._listener, *self._sockets):
            each.close()


def _pump(source: socket.socket, sink: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while data := source.recv(65_536):
            sink.sendall(data)
    _hang_up(source)
    _hang_up(sink)


def _hang_up(each: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it has ended already
        each.shutdown(socket.SHUT_RDWR)


class Names:
    """The names of a test; all other names are resolved as ever."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._real = socket.getaddrinfo
        self._relays: dict[Address, Relay] = {}  # by the node behind
        self._known: dict[str, list[str]] = {}
        self._rotating: set[str] = set()
        self.port = 0
        """The port of all addresses, once there is one."""
        self.asked: Counter[str] = Counter()
        """How often each name was looked up."""
        monkeypatch.setattr(socket, "getaddrinfo", self._resolve)

    def point(self, name: str, *nodes: Address) -> Address:
        """Lets a name stand for these nodes from now on; returns it, with its port."""
        self._rotating.discard(name)
        self._known[name] = [self.address_of(node)[0] for node in nodes]
        return (name, self.port)

    def rotate(self, name: str, *nodes: Address) -> Address:
        """The same, but each look-up gives one of them, in turn."""
        place = self.point(name, *nodes)
        self._rotating.add(name)
        return place

    def address_of(self, node: Address) -> Address:
        """The address that is handed out for a node."""
        if node not in self._relays:
            relay = Relay(f"127.0.0.{len(self._relays) + 2}", self.port, node)
            self._relays[node], self.port = relay, relay.address[1]
        return self._relays[node].address

    def _resolve(self, host: Any, port: Any, *args: Any, **options: Any) -> Sequence[Any]:
        if host not in self._known:
            return self._real(host, port, *args, **options)
        self.asked[host] += 1
        hosts = self._known[host]
        if host in self._rotating:
            self._known[host] = [*hosts[1:], hosts[0]]
            hosts = hosts[:1]
        if not hosts:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (each, port)) for each in hosts]

    def close(self) -> None:
        """Ends the relays."""
        for relay in self._relays.values():
            relay.close()
