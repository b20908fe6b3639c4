"""The values of keywords, checked before any I/O and frozen.

Decides what hatopo's keywords mean and which of redis-py's reach the connections. Which names there are, `_keywords`
knows; nothing is known of URLs, nor of what concerns sentinels only.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import redis
from redis.credentials import CredentialProvider
from redis.exceptions import ClusterDownError, MasterDownError, TryAgainError
from redis.retry import Retry

from hatopo import errors
from hatopo.client._keywords import REFUSED, SOCKET, TCP, TLS, check_names
from hatopo.client._urls import read_url as read_url
from hatopo.connection import (
    MAX_REPLY_BYTES,
    Care,
    Connection,
    SSLConnection,
    UnixDomainSocketConnection,
    Wire,
)
from hatopo.errors import OptionError
from hatopo.routing import Policies, ReadFrom, ReadFromLike
from hatopo.topology import AddressMap, AllowedHosts, ServerName, check_server_name

CONNECT_TIMEOUT = 1.5
SOCKET_TIMEOUT = 5.0
PROFILES = {"web": 2.0, "worker": 15.0, "batch": 60.0}
MAX_CONNECTIONS = 100
MAX_WAITING = 10_000

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
        address_map, allowed_hosts, tls_server_name: see `HatopoOptions`; for the data nodes.
        read_from, max_lag: see `HatopoOptions`.
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
    address_map: AddressMap = field(default_factory=AddressMap)
    allowed_hosts: AllowedHosts | None = None
    tls_server_name: ServerName = None
    read_from: ReadFrom = ReadFrom.MASTER
    max_lag: int | None = None


def read_options(given: Mapping[str, Any]) -> Options:
    """Checks keywords of redis-py's and hatopo's.

    Raises:
        UnknownOptionError: nobody knows a keyword.
        OptionError: a value is wrong, or the keyword is refused.
    """
    options = {
        name: value for name, value in given.items() if name not in ("connection_pool", "single_connection_client")
    }
    check_names(options)
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
        address_map=AddressMap.of(options.get("address_map")),
        allowed_hosts=AllowedHosts.of(options.get("allowed_hosts")),
        tls_server_name=_server_name(options),
        read_from=read_policy(options.get("read_from") or ReadFrom.MASTER),
        max_lag=None if options.get("max_lag") is None else _count(options["max_lag"], "max_lag", least=0),
    )


def read_policy(value: ReadFromLike) -> ReadFrom:
    """A policy, told the zone of this process if it needs one.

    Raises:
        OptionError: it is none, or needs a zone and the environment variable HATOPO_ZONE is not set.
    """
    return ReadFrom.of(value).at_home(os.environ.get("HATOPO_ZONE", ""))


def _connection_class(options: Mapping[str, Any]) -> tuple[type[Wire], frozenset[str]]:
    if options.get("unix_socket_path") is not None:
        return UnixDomainSocketConnection, SOCKET
    if options.get("ssl"):
        return SSLConnection, TLS
    return Connection, TCP  # ssl_* without ssl=True is ignored, as by redis-py: frameworks always pass them


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


def _server_name(options: Mapping[str, Any]) -> ServerName:
    name = check_server_name(options.get("tls_server_name"))
    if name is not None and (not options.get("ssl") or options.get("unix_socket_path") is not None):
        raise OptionError("tls_server_name= is given, but not ssl=True: the connections would be plain")
    if name is not None and (options.get("ssl_validate_ocsp") or options.get("ssl_validate_ocsp_stapled")):
        raise OptionError("tls_server_name= and ssl_validate_ocsp= exclude each other: redis-py would dial that name")
    return name


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


def _count(value: Any, name: str, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise OptionError(f"{name} must be {'a positive' if least else 'no negative'} number, not {value!r}")
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
