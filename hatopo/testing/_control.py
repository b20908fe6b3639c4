"""What tests need in order to ask a server something without any Redis client, and to wait for an answer.

`Control` speaks RESP2 over a bare socket, so that what a test learns about a server does not pass through the code
that the test judges. Nothing here knows whether the server is embedded or a process.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hatopo.testing._checks import words as packed

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

T = TypeVar("T")
Address = tuple[str, int]
HOST = "127.0.0.1"


class ServerError(Exception):
    """An error reply of a server to a control command."""


class Unsupported(Exception):  # noqa: N818 - named for what it says
    """This kind of server cannot do what a test asks of it."""


@dataclass(frozen=True, slots=True)
class Event:
    """What a sentinel has published."""

    time: float
    """When, in seconds since 1970, by the deployment's clock."""
    sentinel: Address
    """Who."""
    channel: str
    """What kind of event: "+switch-master"."""
    payload: str
    """What it says of it."""


def _moment() -> float:
    time.sleep(0.01)
    return 0.0


def wait_until(
    check: Callable[[], T], seconds: float = 30.0, what: str = "", let_pass: Callable[[], float] = _moment
) -> T:
    """Ask until `check` says something true, and return that.

    Args:
        check: a server that does not answer, or answers with an error, means "not yet".
        seconds: how long to ask, by the wall's clock or by that of `let_pass`.
        what: what is waited for, for the error.
        let_pass: called between two looks; returns for how many seconds a clock has gone on that stands otherwise.

    Raises:
        TimeoutError: it was not so in time.
    """
    deadline, passed, last = time.monotonic() + seconds, 0.0, ""
    while True:
        try:
            if found := check():
                return found
        except (OSError, ServerError) as error:
            last = f": {error}"
        if time.monotonic() > deadline or passed > seconds:
            raise TimeoutError(f"not within {seconds:g} s: {what or check}{last}")
        passed += let_pass()


class Control:
    """One raw RESP2 connection to a server; bulk strings come back as text, what is no UTF-8 as surrogates.

    Args:
        address: host and port of the server.
        timeout: seconds that connecting may take, and each wait for a reply; None: for ever.
        tls: True: whatever certificate the server has.

    Raises:
        OSError: nobody answers there.
    """

    def __init__(self, address: Address, *, timeout: float | None = 10.0, tls: ssl.SSLContext | bool = False) -> None:
        self._socket = socket.create_connection(address, timeout)
        try:
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if tls:
                context = tls if isinstance(tls, ssl.SSLContext) else _trusting()
                self._socket = context.wrap_socket(self._socket, server_hostname=address[0])
        except BaseException:
            self._socket.close()
            raise
        self._replies = self._socket.makefile("rb")

    def __call__(self, *words: str | int | float | bytes) -> Any:
        """Send a command and return its reply.

        Raises:
            ServerError: an error reply.
            OSError: the connection is closed, or silent for too long.
        """
        self.send(*words)
        return self.read()

    def send(self, *words: str | int | float | bytes) -> None:
        """Send a command without waiting for its reply."""
        parts = packed(words)
        request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self._socket.sendall(request)

    def read(self) -> Any:
        """The next reply, or on a subscribed connection the next message; errors inside an array are values of it."""
        reply = self._value()
        if isinstance(reply, ServerError):
            raise reply
        return reply

    def wait_for_ever(self) -> None:
        """Let every further `read` take as long as it may."""
        self._socket.settimeout(None)

    def _value(self) -> Any:
        line = self._replies.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the control connection")
        kind, rest = line[:1], line[1:-2].decode(errors="surrogateescape")
        if kind == b"-":
            return ServerError(rest)
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        size = int(rest)
        if size < 0:
            return None
        if kind == b"$":
            return self._bulk(size)
        return [self._value() for _ in range(size)]

    def _bulk(self, size: int) -> str:
        data = self._replies.read(size + 2)
        if len(data) < size + 2:
            raise ConnectionResetError("the server closed the control connection")
        return data[:-2].decode(errors="surrogateescape")

    def close(self) -> None:
        """End the connection; a `read` that waits in another thread ends with an error."""
        with contextlib.suppress(OSError):  # it has ended already
            self._socket.shutdown(socket.SHUT_RDWR)
        self._replies.close()
        self._socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _trusting() -> ssl.SSLContext:
    """For the tests' own connections, which learn nothing secret."""
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context
