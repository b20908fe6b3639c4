"""The doors: one function for each kind of deployment."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from hatopo.address import Address, AddressLike, parse_addresses
from hatopo.client._deployment import Deployment
from hatopo.client._keywords import ClientOptions
from hatopo.client._options import Options, read_options
from hatopo.client._pool import ConnectionPool
from hatopo.client._redis import Redis
from hatopo.client._sentinels import QUERY_TIMEOUT, SentinelSource
from hatopo.connection import Wire, WireOptions
from hatopo.errors import OptionError

if TYPE_CHECKING:
    from typing_extensions import Unpack

SENTINEL_PORT = 26379
_NOT_OURS = ("host", "port", "unix_socket_path")


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


def sentinel(
    service: str,
    sentinels: Iterable[AddressLike],
    *,
    sentinel_username: str | None = None,
    sentinel_password: str | None = None,
    sentinel_kwargs: dict[str, Any] | None = None,
    **options: Unpack[ClientOptions],
) -> Redis:
    """A client for the master of a service that sentinels watch. Nothing is dialled before the first command.

    Args:
        service: the name by which the sentinels know it ("mymaster").
        sentinels: where they listen: "host", "host:port" or (host, port); the default port is 26379.
        sentinel_username: their user, where they want one; never the data nodes'.
        sentinel_password: their password.
        sentinel_kwargs: more of redis-py's keywords for the connections to them (`ssl=True`, `ssl_ca_certs=...`).
        **options: redis-py's keywords for the data nodes, and hatopo's (`hatopo.HatopoOptions`).

    Raises:
        OptionError: an option is wrong.
    """
    if not isinstance(service, str) or not service:
        raise OptionError(f"service must be the name of a master, not {service!r}")
    addresses = parse_addresses(sentinels, SENTINEL_PORT, "sentinels")
    for name in _NOT_OURS:
        if name in options:
            raise OptionError(f"{name}= has no meaning here: the sentinels name the master")
    single = options.pop("single_connection_client", False)
    shown = options.pop("error_arguments", False)
    kwargs = {"username": sentinel_username, "password": sentinel_password, **(sentinel_kwargs or {})}
    source = SentinelSource(service, addresses, _maker(read_options(kwargs)))
    pool = ConnectionPool(Deployment(read_options(options), source=source))
    client = Redis(connection_pool=pool, single_connection_client=single, error_arguments=shown)
    client.auto_close_connection_pool = True
    return client


def _maker(options: Options) -> Callable[[Address], Wire]:
    """What makes connections to sentinels: RESP2, which every version of them speaks, and little patience."""
    kwargs = {**options.connection_kwargs, "protocol": 2, "socket_timeout": QUERY_TIMEOUT}
    kwargs["socket_connect_timeout"] = QUERY_TIMEOUT

    def make(sentinel: Address) -> Wire:
        target = {**kwargs, "host": sentinel.host, "port": sentinel.port}
        return options.connection_class(wire=WireOptions(address=sentinel), **target)

    return make


def from_url(url: str, **options: Unpack[ClientOptions]) -> Redis:
    """A client for `redis://`, `rediss://`, `unix://`, `valkey://` or `valkeys://`; the URL's options win.

    Args:
        url: as redis-py reads it, and hatopo's options as parameters (`?failover_timeout=2`).
        **options: redis-py's keywords and hatopo's.

    Raises:
        OptionError: the URL or an option is wrong; a misspelt parameter is named.
    """
    return Redis.from_url(url, **options)
