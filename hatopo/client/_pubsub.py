"""Pub/sub: redis-py's, which moves to the current master when its connection ends."""

from __future__ import annotations

import inspect
from time import monotonic
from typing import Any

import redis.client
import redis.connection
import redis.exceptions as rx

from hatopo.client._calls import Borrow
from hatopo.client._pool import ConnectionPool
from hatopo.client._scopes import end_of
from hatopo.connection import Wire
from hatopo.events import PubSubGap

_READS_TAKE_A_TIMEOUT = "timeout" in inspect.signature(redis.connection.AbstractConnection.read_response).parameters


class PubSub(redis.client.PubSub):
    """`redis.client.PubSub` that subscribes again, on the current master, after its connection was lost.

    Messages that were published meanwhile are lost: Redis keeps none.
    """

    connection_pool: ConnectionPool

    def _execute(self, conn: Any, command: Any, *args: Any, **kwargs: Any) -> Any:
        failures = 0
        while True:
            if not conn.is_connected:
                self._move(conn, monotonic())
            try:
                if not _READS_TAKE_A_TIMEOUT:
                    conn._sock.settimeout(None)  # silence is no failure here; a read that must not block asks first
                return command(*args, **kwargs)
            except (rx.AuthenticationError, rx.MaxConnectionsError):
                raise
            except (rx.ConnectionError, rx.TimeoutError, OSError):
                conn.disconnect()
                self._move(conn, monotonic())
                failures += 1
                allowed = self.connection_pool.terms.retries
                if allowed is not None and failures > allowed:
                    raise  # subscribed again all the same, as by redis-py

    def _move(self, conn: Wire, lost: float) -> None:
        """Connects again, to the node that is the master now; the subscriptions follow in `on_connect`."""
        pool, deployment = self.connection_pool, self.connection_pool.deployment
        deployment.run(Borrow(), pool.terms, end_of(pool.terms.deadline), lender=_Rebind(pool, conn))
        conn.lend_to_foreign_code()
        channels = len(self.channels) + len(self.patterns) + len(self.shard_channels)
        if channels:
            deployment.emit(PubSubGap(deployment.name, channels, monotonic() - lost))


class _Rebind:
    """Lends the subscriber his own connection, dialled anew to the current master."""

    def __init__(self, pool: ConnectionPool, connection: Wire) -> None:
        self._pool = pool
        self._connection = connection

    def lend(self, call: Any, until: float) -> Wire:
        if monotonic() > until:
            raise rx.TimeoutError("time is up")
        self._pool.deployment.pool_for(call).redial(self._connection, until)
        return self._connection

    def give_back(self, connection: Wire, *, check: bool = False) -> None:
        """It is the subscriber's."""

    def discard(self, connection: Wire) -> None:
        connection.disconnect()
