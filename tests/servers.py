"""The real servers of hatopo.testing under the names that tests use, and the face that they had before."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hatopo.testing._access import ADMIN, DEFAULT_OFF
from hatopo.testing.real import RealNode, TlsFiles, available, server_version, tls_supported
from hatopo.testing.real._process import BINARY, Process
from tests.control import Address, Certificates, Control, ServerError, eventually

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "ADMIN",
    "BINARY",
    "DEFAULT_OFF",
    "PLAIN",
    "Address",
    "Certificates",
    "Control",
    "Process",
    "RealNode",
    "Server",
    "ServerError",
    "available",
    "eventually",
    "server_version",
    "tls_supported",
]

PLAIN = {"appendonly": "no"}
"""A server as it comes, which keeps nothing."""


class Server(RealNode):
    """A node as it comes, by options as on its command line ("--maxmemory", "1mb") or as keywords."""

    def __init__(
        self, *options: str, tls: TlsFiles | None = None, users: Sequence[str] = (), **settings: str | int
    ) -> None:
        given = zip((name.removeprefix("--") for name in options[::2]), options[1::2], strict=True)
        config = {**PLAIN, **dict(given), **{name.replace("_", "-"): value for name, value in settings.items()}}
        users_file = config.pop("aclfile", None)
        super().__init__(config=config, tls=tls, users=users)
        if users_file is not None:
            self._settings["aclfile"] = str(users_file)

    def call(self, *words: str | int | bytes, timeout: float = 2.0) -> Any:
        return self.execute(*words, timeout=timeout)
