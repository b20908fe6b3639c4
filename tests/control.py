"""What tests need in order to ask a server something without any Redis client, and to wait for an answer.

`eventually` is the one way in which tests wait.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, TypeVar

import trustme

from hatopo.testing._control import HOST, Address, Control, ServerError, Unsupported
from hatopo.testing.real import TlsFiles

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

__all__ = ["HOST", "Address", "Certificates", "Control", "ServerError", "Unsupported", "eventually"]

T = TypeVar("T")


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

    @property
    def files(self) -> TlsFiles:
        """What makes a real server present this certificate."""
        return TlsFiles(self.cert_file, self.key_file, self.ca_file)
