"""Keywords and URLs, checked before any I/O and frozen.

Decides which of redis-py's keywords are taken, which are refused and why, and what hatopo's own mean. Every
keyword is known by name: a misspelt one is an error that names the nearest.
"""

from __future__ import annotations

import difflib
import inspect
import socket
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import parse_qs, urlsplit

import redis
from redis import connection as redis_connection
from redis.credentials import CredentialProvider
from redis.exceptions import ClusterDownError, MasterDownError, TryAgainError
from redis.retry import Retry

from hatopo import errors
from hatopo.client._keywords import HatopoOptions
from hatopo.connection import (
    MAX_REPLY_BYTES,
    Care,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    Wire,
)
from hatopo.errors import OptionError, UnknownOptionError
from hatopo.routing import Policies

CONNECT_TIMEOUT = 1.5
SOCKET_TIMEOUT = 5.0
PROFILES = {"web": 2.0, "worker": 15.0, "batch": 60.0}
MAX_CONNECTIONS = 100
MAX_WAITING = 10_000

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


OWN = frozenset(HatopoOptions.__annotations__)
_DEFAULTS: Mapping[str, object] = {
    "username": None,
    "password": None,
    "encoding": "utf-8",
    "encoding_errors": "strict",
    "decode_responses": False,
    "client_name": None,
    "protocol": None,
}
"""What frameworks expect to find in `connection_kwargs` even where nobody set it."""
_URL_PARSERS: Mapping[str, Callable[[str], object]] = {
    "retry_policy": str,
    "failover_timeout": float,
    "profile": str,
    "deadline": float,
    "max_waiting": int,
    "max_reply_bytes": int,
    "ping_after": float,
    "max_idle_time": float,
    "max_connection_age": float,
    "error_arguments": lambda value: value.lower() in ("1", "true", "yes"),
}
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
_SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "valkey": "redis",
    "valkeys": "rediss",
}


def _parameters(function: Callable[..., Any]) -> frozenset[str]:
    return frozenset(inspect.signature(function).parameters) - {"self", "kwargs", "args"}


_REDIS = _parameters(redis.Redis.__init__)
_SOCKET = _parameters(redis_connection.AbstractConnection.__init__)
_TCP = _SOCKET | _parameters(redis_connection.Connection.__init__)
_TLS = _TCP | _parameters(redis_connection.SSLConnection.__init__)
_KNOWN = _REDIS | _TLS | _CLIENT_ONLY


@dataclass(frozen=True)
class Options:
    """What a client was asked to be.

    Attributes:
        connection_class: of its connections.
        connection_kwargs: redis-py's keywords for them, address included; live: frameworks write into them.
        max_connections: for each node.
        care: how connections are kept.
        policies: what may be sent again.
        failover_timeout, deadline: see `HatopoOptions`.
        retries: how many attempts after the first (`retry=Retry(...)`), or None.
    """

    connection_class: type[Wire]
    connection_kwargs: dict[str, Any] = field(repr=False)
    max_connections: int
    care: Care
    policies: Policies
    failover_timeout: float
    deadline: float | None
    retries: int | None
    max_waiting: int
    max_reply_bytes: int


def read_options(given: Mapping[str, Any]) -> Options:
    """Checks keywords of redis-py's and hatopo's.

    Raises:
        UnknownOptionError: nobody knows a keyword.
        OptionError: a value is wrong, or the keyword is refused.
    """
    options = {
        name: value for name, value in given.items() if name not in ("connection_pool", "single_connection_client")
    }
    _check_names(options)
    connection_class, known = _connection_class(options)
    kwargs = _connection_kwargs(options, known)
    profile = options.get("profile", "worker")
    if profile not in PROFILES:
        raise OptionError(f"profile must be one of {', '.join(map(repr, PROFILES))}, not {profile!r}")
    return Options(
        connection_class=connection_class,
        connection_kwargs=kwargs,
        max_connections=_count(options.get("max_connections") or MAX_CONNECTIONS, "max_connections"),
        care=Care(
            _seconds(options.get("ping_after", float(options.get("health_check_interval") or 30.0)), "ping_after"),
            _seconds(options.get("max_idle_time"), "max_idle_time"),
            _seconds(options.get("max_connection_age"), "max_connection_age"),
        ),
        policies=Policies.of(options.get("retry_policy", "safe")),
        failover_timeout=_seconds(options.get("failover_timeout", PROFILES[profile]), "failover_timeout") or 0.0,
        deadline=_seconds(options.get("deadline"), "deadline"),
        retries=_retries(options),
        max_waiting=_count(options.get("max_waiting", MAX_WAITING), "max_waiting"),
        max_reply_bytes=_count(options.get("max_reply_bytes", MAX_REPLY_BYTES), "max_reply_bytes"),
    )


def read_url(url: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Reads a URL into keywords; what it says wins over `given`, as in redis-py.

    Raises:
        UnknownOptionError: a parameter nobody knows.
        OptionError: the scheme is unknown, or a value is wrong.
    """
    parts = urlsplit(url)
    scheme = _SCHEMES.get(parts.scheme)
    if scheme is None:
        known = ", ".join(f"{name}://" for name in _SCHEMES)
        raise OptionError(f"the URL scheme {parts.scheme!r} is not one of {known}")
    try:
        number = parts.port
    except ValueError:
        raise OptionError("the port in the URL is no number from 1 to 65535") from None
    if number == 0:
        raise OptionError("the port in the URL is 0")
    query = parse_qs(parts.query, keep_blank_values=True)
    own = {name: _url_value(name, query[name][0]) for name in query if name in OWN}
    _check_names({name: True for name in query if name not in ("timeout", "path", "host", "port")})
    if scheme != "unix" and parts.path.strip("/") and not parts.path.strip("/").isdigit():
        raise OptionError("the path of the URL must be a database number (a / in a password is written %2F)")
    try:
        found = redis_connection.parse_url(scheme + url[len(parts.scheme) :])
    except ValueError as error:
        raise OptionError(str(error)) from None
    connection_class = found.pop("connection_class", None)
    found = {name: value for name, value in found.items() if name not in OWN}
    if scheme == "unix":
        found["unix_socket_path"] = found.pop("path", "")
    elif connection_class is not None:
        found["ssl"] = True
    return {**given, **found, **own}


def _url_value(name: str, value: str) -> object:
    if value.lower() in ("none", ""):
        return None
    try:
        return _URL_PARSERS[name](value)
    except ValueError:
        raise OptionError(f"{name} in the URL is not a number: {value!r}") from None


def _check_names(options: Mapping[str, Any]) -> None:
    for name, value in options.items():
        if name in REFUSED and value is not None:
            if getattr(value, "enabled", True) is False:
                continue
            raise OptionError(f"{name}= is refused: {REFUSED[name]}")
        if name not in _KNOWN and name not in OWN and name not in REFUSED:
            near = difflib.get_close_matches(name, sorted(_KNOWN | OWN), 1)
            hint = f": did you mean {near[0]!r}?" if near else ""
            raise UnknownOptionError(f"unknown option {name!r}{hint}")


def _connection_class(options: Mapping[str, Any]) -> tuple[type[Wire], frozenset[str]]:
    if options.get("unix_socket_path") is not None:
        return UnixDomainSocketConnection, _SOCKET
    if options.get("ssl"):
        return SSLConnection, _TLS
    return Connection, _TCP  # ssl_* without ssl=True is ignored, as by redis-py: frameworks always pass them


def _connection_kwargs(options: Mapping[str, Any], known: frozenset[str]) -> dict[str, Any]:
    kwargs = {name: value for name, value in options.items() if name in known and name not in REFUSED}
    for name, value in _DEFAULTS.items():
        kwargs.setdefault(name, value)
    kwargs["socket_timeout"] = _seconds(options.get("socket_timeout", SOCKET_TIMEOUT), "socket_timeout")
    kwargs["socket_connect_timeout"] = _seconds(
        options.get("socket_connect_timeout", CONNECT_TIMEOUT), "socket_connect_timeout"
    )
    kwargs["db"] = _database(options.get("db", 0))
    if options.get("protocol") is not None and str(options["protocol"]) not in ("2", "3"):
        raise OptionError(f"protocol must be 2 or 3, not {options['protocol']!r}")
    provider = options.get("credential_provider")
    if provider is not None:
        if options.get("username") or options.get("password"):
            raise redis.DataError("'username' and 'password' cannot be passed along with 'credential_provider'")
        if not isinstance(provider, CredentialProvider):
            raise OptionError("credential_provider must be a redis.credentials.CredentialProvider")
    if options.get("unix_socket_path") is not None:
        kwargs["path"] = options["unix_socket_path"]
        return kwargs
    kwargs.setdefault("socket_keepalive", True)
    if not isinstance(kwargs.get("socket_keepalive_options"), Mapping) and "socket_keepalive_options" not in options:
        kwargs["socket_keepalive_options"] = _keepalive()
    return kwargs


def _keepalive() -> dict[int, int]:
    """30/5/3 s, and 10 s for data that nobody acknowledges, where the platform has the options."""
    wanted = {"TCP_KEEPIDLE": 30, "TCP_KEEPINTVL": 5, "TCP_KEEPCNT": 3, "TCP_USER_TIMEOUT": 10_000}
    return {getattr(socket, name): value for name, value in wanted.items() if hasattr(socket, name)}


def _seconds(value: Any, name: str) -> float | None:
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise OptionError(f"{name} must be a number of seconds, not {value!r}")
    if value < 0 or value != value:
        raise OptionError(f"{name} must not be negative: {value!r}")
    return float(value)


def _count(value: Any, name: str) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise OptionError(f"{name} must be a positive number, not {value!r}")
    return value


def _database(value: Any) -> int:
    if value is None:
        return 0
    try:
        number = int(value)
    except (TypeError, ValueError):
        raise OptionError(f"db must be a number, not {value!r}") from None
    if number < 0:
        raise OptionError(f"db must not be negative: {number}")
    return number


def _retries(options: Mapping[str, Any]) -> int | None:
    """How many attempts `retry=` allows. What is safe to repeat is `retry_policy`'s business."""
    for error in options.get("retry_on_error") or ():
        if not (isinstance(error, type) and issubclass(error, _RETRIED)):
            name = getattr(error, "__name__", error)
            raise OptionError(f"retry_on_error cannot hold {name}: after an error reply the command was executed")
    retry = options.get("retry")
    if retry is None:
        return None
    if not isinstance(retry, Retry):
        raise OptionError(f"retry must be a redis.retry.Retry, not {type(retry).__name__}")
    count = retry.get_retries() if hasattr(retry, "get_retries") else retry._retries
    return None if count < 0 else int(count)


_RETRIED = (
    redis.ConnectionError,
    redis.TimeoutError,
    redis.BusyLoadingError,
    redis.ReadOnlyError,
    ClusterDownError,
    MasterDownError,
    TryAgainError,
    OSError,
    errors.HatopoError,
)
