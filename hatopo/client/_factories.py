"""The doors: one function for each kind of deployment."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from hatopo.address import Address, AddressLike, parse_addresses
from hatopo.client._deployment import Deployment
from hatopo.client._hub import hub_of
from hatopo.client._keywords import SENTINEL, ClientOptions, SentinelOptions
from hatopo.client._options import read_options
from hatopo.client._pool import ConnectionPool
from hatopo.client._redis import Redis
from hatopo.client._replicated import NameSource, RoleSource
from hatopo.client._sentinel_options import split_sentinel_options
from hatopo.client._service import Service
from hatopo.client._source import Source
from hatopo.client._urls import (
    REDIS_PORT,
    SENTINEL_PORT,
    is_replicated_url,
    is_sentinel_url,
    read_replicated_url,
    read_sentinel_url,
)
from hatopo.errors import OptionError

if TYPE_CHECKING:
    from typing_extensions import Unpack


def standalone(host: str = "localhost", port: int = 6379, **options: Unpack[ClientOptions]) -> Redis:
    """A client for one server. Nothing is dialled before the first command.

    Args:
        host: its name or address.
        port: its port.
        **options: redis-py's keywords and hatopo's (`hatopo.HatopoOptions`).

    Raises:
        OptionError: an option is wrong.
    """
    return Redis(host=host, port=port, **options)


def sentinel(service: str, sentinels: Iterable[AddressLike], **options: Unpack[SentinelOptions]) -> Redis:
    """A client for the master of a service that sentinels watch.

    Nothing is dialled before the first command, unless `startup="fail"`. All clients of a process that were given the
    same sentinels share what watches them.

    Args:
        service: the name by which the sentinels know it ("mymaster").
        sentinels: where they listen: "host", "host:port" or (host, port); the default port is 26379.
        **options: redis-py's keywords for the data nodes, hatopo's, and those for the sentinels
            (`sentinel_password=...`, `early_promotion=...`: see `SentinelOptions`).

    Raises:
        OptionError: an option is wrong.
        MasterNotFoundError, redis.ConnectionError: with `startup="fail"`: the master cannot be used now.
    """
    return _client(parse_addresses(sentinels, SENTINEL_PORT, "sentinels"), service, dict(options))


def replicated(
    nodes: Iterable[AddressLike] | None = None,
    *,
    primary: AddressLike | None = None,
    readers: Iterable[AddressLike] | None = None,
    **options: Unpack[ClientOptions],
) -> Redis:
    """A client for a master and its replicas without sentinels.

    Nothing is dialled before the first command. With `nodes`, the nodes themselves tell who is the master, and are
    asked more than once a second for as long as the client is in use: a `REPLICAOF` by hand is followed. With `primary`
    and `readers`, the endpoints of a managed service, names tell; each is looked up at every connect, and a reader's
    name that stands for several addresses is several nodes.

    Args:
        nodes: where nodes listen: "host", "host:port" or (host, port); the default port is 6379. Some will do: the
            master names its replicas.
        primary: the endpoint for writes.
        readers: the endpoints for reads.
        **options: redis-py's keywords and hatopo's (`hatopo.HatopoOptions`), such as `read_from=`.

    Raises:
        OptionError: an option is wrong, or there are both nodes and a primary, or neither.
    """
    given: dict[str, Any] = dict(options)
    for name in ("host", "port", "unix_socket_path"):
        if name in given:
            raise OptionError(f"{name}= has no meaning here: name the nodes, or primary= and readers=")
    if (nodes is None) == (primary is None):
        raise OptionError("replicated() takes a list of nodes, or primary= and readers=: one of the two")
    if nodes is not None:
        if readers is not None:
            raise OptionError("readers= goes with primary=: nodes of a list tell their roles themselves")
        seeds = parse_addresses(nodes, REDIS_PORT, "nodes")
        source: Source = RoleSource(_listed(seeds), seeds)
        return _make(given, _listed(seeds), seeds[0], source)
    assert primary is not None
    (master,) = parse_addresses([primary], REDIS_PORT, "primary")
    behind = () if readers is None else parse_addresses(readers, REDIS_PORT, "readers")
    return _make(given, str(master), master, NameSource(str(master), master, behind))


def _listed(addresses: Sequence[Address]) -> str:
    return ",".join(map(str, addresses))


class Sentinels:
    """Sentinels that watch several services; a client for each of them.

    Args:
        sentinels: where they listen, as in `hatopo.sentinel`.
        **options: those for the sentinels, and defaults for the clients.

    Raises:
        OptionError: an option is wrong.
    """

    def __init__(self, sentinels: Iterable[AddressLike], **options: Unpack[SentinelOptions]) -> None:
        self._addresses = parse_addresses(sentinels, SENTINEL_PORT, "sentinels")
        self._options: dict[str, Any] = dict(options)
        split_sentinel_options(self._options)

    def __repr__(self) -> str:
        return f"<hatopo.Sentinels({', '.join(map(str, self._addresses))})>"

    def client(self, service: str, **options: Unpack[ClientOptions]) -> Redis:
        """A client for the master of one service.

        Args:
            service: its name.
            **options: redis-py's keywords for the data nodes and hatopo's; they win over those of the constructor.

        Raises:
            as `hatopo.sentinel`.
        """
        for name in options:
            if name in SENTINEL:
                raise OptionError(f"{name}= concerns the sentinels: give it to hatopo.Sentinels")
        return _client(self._addresses, service, {**self._options, **options})


def _client(addresses: Sequence[Address], service: str, options: dict[str, Any]) -> Redis:
    if not isinstance(service, str) or not service:
        raise OptionError(f"service must be the name of a master, not {service!r}")
    watching, data = split_sentinel_options(options)
    read_options(data)  # before a hub is made for nothing
    hub = hub_of(addresses, watching)
    client = _make(data, service, hub.seeds[0], hub.service(service, Service))
    if watching.startup == "fail":
        try:
            client.wait_ready(client._terms.failover_timeout)
        except BaseException:
            client.close()
            raise
    return client


def _make(options: dict[str, Any], name: str, seed: Address, source: Source) -> Redis:
    """A client that owns a deployment whose topology comes from this source."""
    single = options.pop("single_connection_client", False)
    shown = options.pop("error_arguments", False)
    deployment = Deployment(read_options(options), name, seed=seed, source=source)
    client = Redis(connection_pool=ConnectionPool(deployment), single_connection_client=single, error_arguments=shown)
    client.auto_close_connection_pool = True
    return client


def from_url(url: str, **options: Unpack[SentinelOptions]) -> Redis:
    """A client for what a URL names; the URL's options win over the keywords.

    Args:
        url: `redis://`, `rediss://`, `unix://`, `valkey://` or `valkeys://`, as redis-py reads it;
            `redis+sentinel://user:password@host:26379,host2/service/0` (also `rediss+sentinel://`, `sentinel://`);
            `redis+replicated://user:password@host:6379,host2/0` (also `rediss+replicated://`). hatopo's options are
            parameters (`?failover_timeout=2`).
        **options: redis-py's keywords and hatopo's.

    Raises:
        OptionError: the URL or an option is wrong; a misspelt parameter is named.
    """
    if is_sentinel_url(url):
        found = read_sentinel_url(url, options)
        return sentinel(found.service, found.sentinels, **found.options)
    if is_replicated_url(url):
        return replicated(**read_replicated_url(url, options))
    return Redis.from_url(url, **options)
