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
from hatopo.client._sentinel_options import split_sentinel_options
from hatopo.client._service import Service
from hatopo.client._urls import SENTINEL_PORT, is_sentinel_url, read_sentinel_url
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
    single = data.pop("single_connection_client", False)
    shown = data.pop("error_arguments", False)
    checked = read_options(data)
    hub = hub_of(addresses, watching)
    deployment = Deployment(checked, service, seed=hub.seeds[0], source=hub.service(service, Service))
    client = Redis(connection_pool=ConnectionPool(deployment), single_connection_client=single, error_arguments=shown)
    client.auto_close_connection_pool = True
    if watching.startup == "fail":
        try:
            client.wait_ready(checked.failover_timeout)
        except BaseException:
            client.close()
            raise
    return client


def from_url(url: str, **options: Unpack[SentinelOptions]) -> Redis:
    """A client for what a URL names; the URL's options win over the keywords.

    Args:
        url: `redis://`, `rediss://`, `unix://`, `valkey://` or `valkeys://`, as redis-py reads it, or
            `redis+sentinel://user:password@host:26379,host2/service/0` (also `rediss+sentinel://`, `sentinel://`);
            hatopo's options are parameters (`?failover_timeout=2`).
        **options: redis-py's keywords and hatopo's.

    Raises:
        OptionError: the URL or an option is wrong; a misspelt parameter is named.
    """
    if is_sentinel_url(url):
        found = read_sentinel_url(url, options)
        return sentinel(found.service, found.sentinels, **found.options)
    return Redis.from_url(url, **options)
