"""The keywords that a client takes: by type for checkers and editors, by name for those who misspell them.

Decides which names there are. What the values mean is checked in `_options` and `_sentinel_options`.
"""

from __future__ import annotations

import difflib
import inspect
import ssl
from collections.abc import Callable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, Literal, TypedDict

import redis
from redis import connection as redis_connection
from redis.credentials import CredentialProvider
from redis.event import EventDispatcher
from redis.retry import Retry

from hatopo.errors import OptionError, UnknownOptionError
from hatopo.routing import PolicyLike, ReadFromLike
from hatopo.topology import AddressMapLike, AllowedHostsLike, ServerName


class HatopoOptions(TypedDict, total=False):
    """hatopo's own keywords. Times are seconds.

    Attributes:
        retry_policy: which commands are sent again after their reply was lost: "safe" (default), "state",
            "always", "never", or a mapping by command name.
        failover_timeout: how long a call rides on after its first failure (15).
        profile: sets `failover_timeout` by kind of application: "web" 2, "worker" 15, "batch" 60.
        deadline: how long a whole call may take, or None (default).
        max_waiting: how many calls may wait for a failover at once; more fail at once (10,000).
        max_reply_bytes: larger replies are refused (512 MiB).
        ping_after: idleness after which a connection is asked for a PING before use (30), or None. Also, after a
            connection was lost, before the next call that must not be repeated.
        max_idle_time: idleness after which a connection is replaced (None: never).
        max_connection_age: age after which a connection is replaced, +-20 % (None: never).
        error_arguments: errors of pipelines show the arguments of commands, as redis-py's do (False).
        address_map: where announced addresses are dialled (NAT, port forwards): a dictionary of "host:port" or "host",
            a function of (host, port), or "seed-host" for the host of whoever announced it.
        allowed_hosts: the only hosts that are dialled when somebody announces them, after `address_map`: IP addresses,
            networks ("10.0.0.0/8"), names, suffixes (".example.com": names below it). None (default): all.
        tls_server_name: the name that the nodes' certificates carry, if it is not the host that is dialled: a name,
            "seed" for the host that was given first, or a function of the (host, port) that is dialled.
        read_from: which nodes answer reads: a `ReadFrom`, its name ("replica_preferred", "nearest", "zone:a" ...), or a
            function of nodes ("master").
        max_lag: bytes of replication that a replica may be behind its master and still answer reads (None: any).
    """

    retry_policy: PolicyLike
    failover_timeout: float
    profile: str
    deadline: float | None
    max_waiting: int
    max_reply_bytes: int
    ping_after: float | None
    max_idle_time: float | None
    max_connection_age: float | None
    error_arguments: bool
    address_map: AddressMapLike
    allowed_hosts: AllowedHostsLike
    tls_server_name: ServerName
    read_from: ReadFromLike
    max_lag: int | None


class ClientOptions(HatopoOptions, total=False):
    """hatopo's keywords and redis-py's, which mean what they mean there.

    Those that redis-py knows and this lists not are taken at run time as well, or refused with the reason.
    """

    db: int
    username: str | None
    password: str | None
    credential_provider: CredentialProvider | None
    socket_timeout: float | None
    socket_connect_timeout: float | None
    socket_read_size: int
    socket_keepalive: bool | None
    socket_keepalive_options: Mapping[int, int | bytes] | None
    encoding: str
    encoding_errors: str
    decode_responses: bool
    retry: Retry | None
    retry_on_timeout: bool
    retry_on_error: Sequence[type[Exception]] | None
    ssl: bool
    ssl_keyfile: str | None
    ssl_certfile: str | None
    ssl_cert_reqs: str | ssl.VerifyMode
    ssl_ca_certs: str | None
    ssl_ca_path: str | None
    ssl_ca_data: str | None
    ssl_check_hostname: bool
    ssl_password: str | None
    ssl_min_version: ssl.TLSVersion | None
    ssl_ciphers: str | None
    max_connections: int | None
    single_connection_client: bool
    health_check_interval: int
    client_name: str | None
    lib_name: str | None
    lib_version: str | None
    driver_info: Any
    redis_connect_func: Any
    protocol: int | None
    legacy_responses: bool
    event_dispatcher: EventDispatcher | None


class SentinelOptions(ClientOptions, total=False):
    """The keywords of `hatopo.sentinel`. Those without `sentinel_` in front are for the data nodes.

    Attributes:
        sentinel_username: the user at the sentinels; never the data nodes'.
        sentinel_password: the password at the sentinels.
        sentinel_credential_provider: what hands out both.
        sentinel_ssl: whether the sentinels speak TLS (None: no, whatever `ssl` says). Each `sentinel_ssl_...` is
            redis-py's `ssl_...` for them; what is not given is taken from the data nodes' `ssl_...`.
        sentinel_kwargs: more of redis-py's keywords for the connections to the sentinels, without a prefix, and
            `tls_server_name` for them.
        early_promotion: the promoted replica is used as soon as it says itself that it is the master, without waiting
            for the sentinels to agree (True).
        watch: listen to the sentinels' events; False: ask them when something fails (True).
        startup: "lazy" dials nothing before the first command; "fail" finds the master first or raises.
    """

    sentinel_username: str | None
    sentinel_password: str | None
    sentinel_credential_provider: CredentialProvider | None
    sentinel_ssl: bool | None
    sentinel_ssl_keyfile: str | None
    sentinel_ssl_certfile: str | None
    sentinel_ssl_cert_reqs: str | ssl.VerifyMode
    sentinel_ssl_ca_certs: str | None
    sentinel_ssl_ca_path: str | None
    sentinel_ssl_ca_data: str | None
    sentinel_ssl_check_hostname: bool
    sentinel_ssl_password: str | None
    sentinel_ssl_min_version: ssl.TLSVersion | None
    sentinel_ssl_ciphers: str | None
    sentinel_kwargs: Mapping[str, Any] | None
    early_promotion: bool
    watch: bool
    startup: Literal["lazy", "fail"]


REFUSED = {
    "cache": "client-side caching is not supported yet: cached replies would outlive a failover",
    "cache_config": "client-side caching is not supported yet: cached replies would outlive a failover",
    "maint_notifications_config": "they are Redis Enterprise's; hatopo follows the topology itself",
    "oss_cluster_maint_notifications_handler": "hatopo follows the topology itself",
    "parser_class": "replies are read by hiredis",
    "command_packer": "commands are packed by hiredis, or by redis-py's encoder where encoding= asks for it",
    "connection_class": "the connection class follows from ssl= and unix_socket_path=",
}
"""Keywords of redis-py that are refused, and why."""


def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters) - {"self", "kwargs", "args"}


SOCKET = _parameters(redis_connection.AbstractConnection.__init__)
TCP = SOCKET | _parameters(redis_connection.Connection.__init__)
TLS = TCP | _parameters(redis_connection.SSLConnection.__init__)
TLS_DETAILS = frozenset(name for name in TLS if name.startswith("ssl_"))
"""What connections of each kind take, in the redis-py that is installed."""
_CLIENT_ONLY = frozenset(
    {
        "connection_pool",
        "single_connection_client",
        "max_connections",
        "ssl",
        "unix_socket_path",
        "event_dispatcher",
    }
)
OWN = frozenset(HatopoOptions.__annotations__)
DATA = _parameters(redis.Redis.__init__) | TLS | _CLIENT_ONLY | OWN
"""All that concerns data nodes."""
SENTINEL = (frozenset(SentinelOptions.__annotations__) - frozenset(ClientOptions.__annotations__)) | frozenset(
    f"sentinel_{name}" for name in TLS_DETAILS
)
"""What only `hatopo.sentinel` takes."""


def check_names(options: Mapping[str, Any], known: AbstractSet[str] = DATA) -> None:
    """Checks the names of keywords.

    Raises:
        UnknownOptionError: nobody knows one; the nearest is named.
        OptionError: one is refused.
    """
    for name, value in options.items():
        if name in REFUSED and value is not None:
            if getattr(value, "enabled", True) is False:
                continue
            raise OptionError(f"{name}= is refused: {REFUSED[name]}")
        if name in known or name in REFUSED:
            continue
        if name in SENTINEL:
            raise UnknownOptionError(f"unknown option {name!r}: only hatopo.sentinel() and its URLs take it")
        near = nearest(name, known)
        raise UnknownOptionError(f"unknown option {name!r}{near and f': did you mean {near!r}?'}")


def nearest(name: str, known: AbstractSet[str]) -> str:
    """The known name that was probably meant, or ""."""
    return next(iter(difflib.get_close_matches(name, sorted(known), 1)), "")
