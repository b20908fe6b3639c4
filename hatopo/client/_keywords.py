"""The keywords that a client takes, for type checkers and editors. What they mean is checked in `_options`."""

from __future__ import annotations

import ssl
from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

from redis.credentials import CredentialProvider
from redis.event import EventDispatcher
from redis.retry import Retry

from hatopo.routing import PolicyLike


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
        ping_after: idleness after which a connection is asked for a PING before use (30), or None.
        max_idle_time: idleness after which a connection is replaced (None: never).
        max_connection_age: age after which a connection is replaced, +-20 % (None: never).
        error_arguments: errors of pipelines show the arguments of commands, as redis-py's do (False).
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
