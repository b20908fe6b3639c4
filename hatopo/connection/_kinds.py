"""The three kinds of connections: TCP, TLS, unix socket. All else is in `_wire`."""

from __future__ import annotations

from typing import Any

from redis import connection as redis_connection

from hatopo.connection._wire import Wire


class Connection(Wire, redis_connection.Connection):  # type: ignore[misc]  # RedisPart describes the same attributes
    """A TCP connection."""


class SSLConnection(Wire, redis_connection.SSLConnection):  # type: ignore[misc]
    """A TLS connection."""

    def _wrap_socket_with_ssl(self, sock: Any) -> Any:
        """Shakes TLS hands within the time of the dial: redis-py would give it `socket_timeout`.

        redis-py asks for a certificate of `self.host`. Where another name is expected, that stands there meanwhile;
        the socket is connected already, and only the thread that dials reads it.
        """
        sock.settimeout(self.time_to_dial())
        dialled = self.host
        try:
            self.host = self.wire.server_name or dialled
            return super()._wrap_socket_with_ssl(sock)  # type: ignore[no-untyped-call]
        finally:
            self.host = dialled


class UnixDomainSocketConnection(Wire, redis_connection.UnixDomainSocketConnection):  # type: ignore[misc]
    """A connection to a unix socket."""
