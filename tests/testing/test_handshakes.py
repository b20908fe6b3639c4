"""Connections that have not begun yet, and the port itself: what a kill, a pause and a partition do to them."""

from __future__ import annotations

import contextlib
import errno
import socket
import ssl
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hatopo.testing import CLIENTS, Node, Replication, TlsFiles
from hatopo.testing.server import _port
from tests.control import Certificates, eventually
from tests.testing.conftest import Dial
from tests.testing.wire import CLOSED

SHORT = 0.05
"""Seconds for which a test looks for what must not come."""


class Shaking:
    """A client that has connected, and makes its handshake by and by."""

    def __init__(self, address: Any, files: TlsFiles) -> None:
        self.raw = socket.create_connection(address, 5)
        self.ours, self.theirs = ssl.MemoryBIO(), ssl.MemoryBIO()
        context = ssl.create_default_context(cafile=str(files.ca_file))
        context.check_hostname = False
        self.tls = context.wrap_bio(self.theirs, self.ours)

    def hello(self) -> None:
        """Say the first word of the handshake."""
        with contextlib.suppress(ssl.SSLWantReadError):
            self.tls.do_handshake()
        self.raw.sendall(self.ours.read())

    def heard(self, patience: float = 5) -> bytes | None:
        """What the server says; empty: nothing more, for ever; None: nothing yet."""
        self.raw.settimeout(patience)
        try:
            return self.raw.recv(10_000)
        except TimeoutError:
            return None
        except ConnectionError:
            return b""


Shake = Callable[[Any], Shaking]


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture
def shaking(certificates: Certificates) -> Iterator[Shake]:
    with contextlib.ExitStack() as stack:

        def connect(address: Any) -> Shaking:
            one = Shaking(address, certificates.files)
            stack.callback(one.raw.close)
            return one

        yield connect


def begun(node: Any) -> None:
    """Wait until the server has accepted a connection."""
    eventually(lambda: node._server._port._accepted)


def test_no_handshake_while_paused(certificates: Certificates, shaking: Shake) -> None:
    with Node(tls=certificates.files) as node:
        before = shaking(node.address)
        begun(node)
        node.pause()
        after = shaking(node.address)
        for one in (before, after):
            one.hello()
            assert one.heard(SHORT) is None
        node.resume()
        assert all(one.heard() for one in (before, after))


def test_no_handshake_while_cut_off(certificates: Certificates, shaking: Shake) -> None:
    with Replication(0, tls=certificates.files) as deployment:
        node = deployment.nodes[0]
        deployment.partition(node, CLIENTS)
        one = shaking(node.address)
        one.hello()
        assert one.heard(SHORT) is None
        deployment.heal()
        assert one.heard()


@pytest.mark.parametrize("said", [False, True])
@pytest.mark.parametrize("end", ["kill", "restart", "stop"])
@pytest.mark.parametrize("paused", [False, True])
def test_a_connection_in_its_handshake_ends_with_the_server(
    certificates: Certificates, shaking: Shake, end: str, said: bool, paused: bool
) -> None:
    with Node(tls=certificates.files) as node:
        one = shaking(node.address)
        begun(node)
        if said:
            one.hello()
            assert one.heard()
        if paused:
            node.pause()
        getattr(node, end)()
        assert one.heard() == b""
        assert not node._server._port._accepted


def test_who_is_cut_off_learns_of_the_end_when_the_cut_is_healed(certificates: Certificates, shaking: Shake) -> None:
    with Replication(0, tls=certificates.files) as deployment:
        node = deployment.nodes[0]
        deployment.partition(node, CLIENTS)
        one = shaking(node.address)
        one.hello()
        begun(node)
        node.restart()
        assert one.heard(SHORT) is None
        deployment.heal()
        assert one.heard() == b""


def test_refusing_leaves_a_handshake_that_has_begun(certificates: Certificates, shaking: Shake) -> None:
    with Node(tls=certificates.files) as node:
        one = shaking(node.address)
        begun(node)
        node.refuse()
        one.hello()
        assert one.heard()


def test_a_port_is_not_let_go_of_while_it_is_shut(monkeypatch: pytest.MonkeyPatch) -> None:
    if not hasattr(socket, "SO_REUSEPORT"):
        pytest.skip("this system does not let two sockets have a port")
    with Node() as node:
        released = _port.Port.release

        def release(port: _port.Port) -> None:
            """Let another program ask for the port at the worst moment."""
            released(port)
            with socket.socket() as other, pytest.raises(OSError, match=str(errno.EADDRINUSE)):
                other.bind(node.address)

        with monkeypatch.context() as patch:
            patch.setattr(_port.Port, "release", release)
            node.kill()
        for reuse in ("SO_REUSEADDR", "SO_REUSEPORT"):
            node.restart()
            with socket.socket() as other:
                other.setsockopt(socket.SOL_SOCKET, getattr(socket, reuse), 1)
                with pytest.raises(OSError, match=str(errno.EADDRINUSE)):
                    other.bind(node.address)


def test_a_port_that_is_lost_nevertheless_is_told_when_all_else_has_ended(
    monkeypatch: pytest.MonkeyPatch, dial: Dial
) -> None:
    def taken(port: int) -> socket.socket:
        raise OSError(errno.EADDRINUSE, "taken")

    with Node() as node:
        client = dial(node)
        client.ask(b"PING")
        with monkeypatch.context() as patch:
            patch.setattr(_port, "_beside", lambda *args: None)
            patch.setattr(_port, "_bound", taken)
            with pytest.raises(OSError, match="taken"):
                node.kill()
        assert client.read() == CLOSED
        assert (node.running, node._server.sessions) == (False, {})
