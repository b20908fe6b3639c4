"""hatopo: the high-availability layer for redis-py.

    r = hatopo.sentinel("mymaster", ["10.0.0.1:26379", "10.0.0.2:26379"])
    r.set("k", "v")

The map: `topology` knows what nodes there are, `routing` where a command goes and what to do when it fails,
`connection` moves the bytes, `client` wears redis-py's face.
"""

from hatopo import events
from hatopo.address import Address
from hatopo.client import ClientOptions as ClientOptions
from hatopo.client import (
    ConnectionPool,
    Pipeline,
    PubSub,
    Redis,
    Sentinels,
    deadline,
    from_url,
    read_from,
    replicated,
    sentinel,
    standalone,
)
from hatopo.client import HatopoOptions as HatopoOptions
from hatopo.client import SentinelOptions as SentinelOptions
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
    NoSuitableNodeError,
    OptionError,
    PoolExhaustedError,
    ServiceUnknownError,
    TooManyWaitingError,
    UnknownOptionError,
)
from hatopo.routing import NodeStatus as NodeStatus
from hatopo.routing import ReadFrom, RetryPolicy

__version__ = "0.1.0"

__all__ = [
    "Address",
    "AmbiguousConnectionError",
    "AmbiguousResultError",
    "AmbiguousTimeoutError",
    "CallError",
    "ConnectionPool",
    "ConnectionStateError",
    "HatopoError",
    "MasterNotFoundError",
    "NoSuitableNodeError",
    "NodeTimeoutError",
    "NodeUnavailableError",
    "OptionError",
    "Pipeline",
    "PoolExhaustedError",
    "PubSub",
    "ReadFrom",
    "Redis",
    "RetryPolicy",
    "Sentinels",
    "ServiceUnknownError",
    "TooManyWaitingError",
    "UnknownOptionError",
    "deadline",
    "events",
    "from_url",
    "read_from",
    "replicated",
    "sentinel",
    "standalone",
]

for _public in (ConnectionPool, Pipeline, PubSub, Redis, Sentinels):
    _public.__module__ = "hatopo"
