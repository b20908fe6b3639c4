"""The `connection_pool` that frameworks reach for: a real redis-py pool whose connections follow the topology.

Lends foreign code (PubSub, Monitor, kombu, celery) connections to the current master, from the same pools that
commands use. Decides nothing itself: the deployment does.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterable
from typing import Any

import redis
from redis import connection as redis_connection

from hatopo.client._calls import Borrow, Call
from hatopo.client._deployment import Deployment
from hatopo.client._scopes import SCOPE, end_of
from hatopo.client._terms import Terms
from hatopo.connection import Wire
from hatopo.errors import OptionError


class Keeping:
    """Lends from the deployment and leaves the connection with the caller."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        self.discard = deployment.discard
        self.kept: Wire

    def lend(self, call: Call, until: float) -> Wire:
        """A connection from the deployment."""
        self.kept = self._deployment.lend(call, until)
        return self.kept

    def give_back(self, connection: Wire, *, check: bool = False) -> None:
        """Not yet: `ConnectionPool.release` does."""


class ConnectionPool(redis.ConnectionPool):
    """A redis-py pool over a deployment.

    `get_connection` rides through a failover like a command does. What it lends belongs to the caller until
    `release`; if the node is replaced meanwhile, the connection ends and raises `redis.ConnectionError`.
    """

    def __init__(self, deployment: Deployment) -> None:
        self.deployment = deployment
        options = deployment.options
        extra: dict[str, Any] = {}
        if "maint_notifications_config" in inspect.signature(redis.ConnectionPool.__init__).parameters:
            extra["maint_notifications_config"] = _no_notifications()
        super().__init__(
            connection_class=options.connection_class,
            max_connections=options.max_connections,
            **options.connection_kwargs,
            **extra,
        )
        options.connection_kwargs.update(self.connection_kwargs)
        self.connection_kwargs = options.connection_kwargs  # one live dictionary: frameworks write into it
        self.terms = Terms(
            options.policies, options.failover_timeout, options.deadline, options.retries, options.read_from
        )

    @classmethod
    def from_url(cls, url: str, **kwargs: Any) -> ConnectionPool:
        """Not the way in: a pool belongs to a client.

        Raises:
            OptionError: always.
        """
        raise OptionError("make a client with hatopo.from_url(url) and use its connection_pool")

    def __repr__(self) -> str:
        topology = self.deployment.topology
        where = ", ".join(str(node.address) for node in topology.nodes) if topology is not None else "not known yet"
        return f"<hatopo.ConnectionPool({where}; db {self.connection_kwargs.get('db', 0)})>"

    def get_connection(self, command_name: Any = None, *keys: Any, **options: Any) -> Any:
        """A connection to the master, connected and checked.

        Raises:
            redis.ConnectionError: there was none within the failover timeout.
        """
        scope = SCOPE.get()
        if scope is not None:
            scope.note_write()  # nobody knows what will be sent over it
        end = end_of(self.terms.deadline)
        keeping = Keeping(self.deployment)
        self.deployment.run(Borrow(), self.terms, end, lender=keeping)
        keeping.kept.lend_to_foreign_code()
        return keeping.kept

    def release(self, connection: Any) -> None:
        """Takes a connection back, whatever state it is in."""
        if not isinstance(connection, Wire):
            connection.disconnect()
        elif connection.take_back():  # else it was released before: somebody else may have it by now
            self.deployment.give_back(connection, check=True)

    def make_connection(self) -> Any:
        """As `get_connection`: connections are made where they are lent."""
        return self.get_connection()

    def reset(self) -> None:
        """Forgets the idle connections. redis-py calls it in its constructor, frameworks after a fork."""
        super().reset()
        self.deployment.disconnect(lent=False)

    def disconnect(self, inuse_connections: bool = True) -> None:
        """Closes the idle connections, and those in use unless told otherwise. The next call opens new ones."""
        self.deployment.disconnect(lent=inuse_connections)

    def owns_connection(self, connection: Any) -> bool:
        """Whether a connection came from here."""
        return isinstance(connection, Wire) and connection.home() in self.deployment.pools

    def re_auth_callback(self, token: Any) -> None:
        """New credentials: every connection is replaced before its next use, by one that logs in with them."""
        del token  # the credential provider hands it to new connections
        for pool in self.deployment.pools:
            pool.renew()

    def set_retry(self, retry: Any) -> None:
        """Bounds the attempts of frameworks that borrow connections; see `Redis.set_retry`."""
        self.connection_kwargs["retry"] = retry

    def _get_free_connections(self) -> Iterable[Any]:
        return [connection for pool in self.deployment.pools for connection in list(pool.idle)]

    def _get_in_use_connections(self) -> Iterable[Any]:
        idle = set(self._get_free_connections())
        return {each for pool in self.deployment.pools for each in pool.connections() if each not in idle}


def _no_notifications() -> Any:
    return vars(redis_connection)["MaintNotificationsConfig"](enabled=False)  # absent before redis-py 7
