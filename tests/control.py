"""What tests need in order to ask a server something without any Redis client, and to wait for an answer.

`Control` speaks RESP2 over a bare socket, so that what a test learns about a server does not pass through the
code that the test judges. `eventually` is the one way in which tests wait.
"""

from __future__ import annotations

import socket
import ssl
import time
from typing import TYPE_CHECKING, Any, TypeVar

import trustme

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")
Address = tuple[str, int]
HOST = "127.0.0.1"


class ServerError(Exception):
    """An error reply of a server to a control command."""


def eventually(check: Callable[[], T], seconds: float = 10, what: str = "") -> T:
    """Ask until `check()` is true, and return what it said.

    A server that is unreachable or answers with an error, and a failed assert, mean "not yet".
    """
    deadline = time.monotonic() + seconds
    last: Exception | None = None
    while True:
        try:
            if answer := check():
                return answer
        except (OSError, ServerError, AssertionError) as error:
            last = error
        if time.monotonic() > deadline:
            name = what or getattr(check, "__name__", repr(check))
            raise AssertionError(f"not within {seconds} s: {name}") from last
        time.sleep(0.02)


class Certificates:
    """A certificate authority and one server certificate for the given names, as files in a directory."""

    def __init__(self, directory: Path, *names: str) -> None:
        self.names = names or ("localhost", HOST)
        self.authority = trustme.CA()
        issued = self.authority.issue_cert(*self.names)
        self.ca_file, self.cert_file, self.key_file = (directory / f"{part}.pem" for part in ("ca", "cert", "key"))
        self.authority.cert_pem.write_to_path(str(self.ca_file))
        issued.private_key_pem.write_to_path(str(self.key_file))
        for number, blob in enumerate(issued.cert_chain_pems):
            blob.write_to_path(str(self.cert_file), append=number > 0)

    def options(self) -> list[str]:
        """What makes a server present this certificate."""
        files = {
            "tls-cert-file": self.cert_file,
            "tls-key-file": self.key_file,
            "tls-ca-cert-file": self.ca_file,
        }
        return [
            *(word for name, path in files.items() for word in (f"--{name}", str(path))),
            "--tls-auth-clients",
            "no",
        ]


class Control:
    """One raw RESP2 connection to a server; bulk strings come back as text."""

    def __init__(self, address: Address, *, tls: Certificates | None = None, timeout: float = 2.0) -> None:
        self._socket = socket.create_connection(address, timeout)
        try:
            if tls is not None:
                context = ssl.create_default_context(cafile=str(tls.ca_file))
                self._socket = context.wrap_socket(self._socket, server_hostname=tls.names[0])
        except BaseException:
            self._socket.close()
            raise
        self._replies = self._socket.makefile("rb")

    def __call__(self, *words: str | int | bytes) -> Any:
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        request = b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts)
        self._socket.sendall(request)
        return self.read()

    def read(self) -> Any:
        """The next reply, or on a subscribed connection the next message."""
        line = self._replies.readline()
        if not line.endswith(b"\r\n"):
            raise ConnectionResetError("the server closed the control connection")
        kind, rest = line[:1], line[1:-2].decode()
        if kind == b"-":
            raise ServerError(rest)
        if kind == b"+":
            return rest
        if kind == b":":
            return int(rest)
        size = int(rest)
        if size < 0:
            return None
        if kind == b"$":
            return self._replies.read(size + 2)[:-2].decode(errors="surrogateescape")
        return [self.read() for _ in range(size)]

    def close(self) -> None:
        self._replies.close()
        self._socket.close()

    def __enter__(self) -> Control:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
