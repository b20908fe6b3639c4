"""hatopo: the high-availability layer for redis-py.

    r = hatopo.sentinel("mymaster", ["10.0.0.1:26379", "10.0.0.2:26379"])
    r.set("k", "v")

The map: `topology` knows what nodes there are, `routing` where a command goes and what to do when it fails,
`connection` moves the bytes, `client` wears redis-py's face.
"""

from hatopo import events
from hatopo.address import Address
from hatopo.client import (
    ClientOptions,
    ConnectionPool,
    HatopoOptions,
    Pipeline,
    PubSub,
    Redis,
    SentinelOptions,
    Sentinels,
    deadline,
    from_url,
    sentinel,
    standalone,
)
from hatopo.errors import (
    AmbiguousConnectionError,
    AmbiguousResultError,
    AmbiguousTimeoutError,
    CallError,
    ConnectionStateError,
    HatopoError,
    MasterNotFoundError,
    NodeTimeoutError,
    NodeUnavailableError,
    OptionError,
    PoolExhaustedError,
    ServiceUnknownError,
    TooManyWaitingError,
    UnknownOptionError,
)
from hatopo.routing import RetryPolicy

__version__ = "0.1.0"

__all__ = [
    "Address",
    "AmbiguousConnectionError",
    "AmbiguousResultError",
    "AmbiguousTimeoutError",
    "CallError",
    "ClientOptions",
    "ConnectionPool",
    "ConnectionStateError",
    "HatopoError",
    "HatopoOptions",
    "MasterNotFoundError",
    "NodeTimeoutError",
    "NodeUnavailableError",
    "OptionError",
    "Pipeline",
    "PoolExhaustedError",
    "PubSub",
    "Redis",
    "RetryPolicy",
    "SentinelOptions",
    "Sentinels",
    "ServiceUnknownError",
    "TooManyWaitingError",
    "UnknownOptionError",
    "deadline",
    "events",
    "from_url",
    "sentinel",
    "standalone",
]

for _public in (ConnectionPool, Pipeline, PubSub, Redis, Sentinels):
    _public.__module__ = "hatopo"
