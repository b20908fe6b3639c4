"""The redis-py face: the client, its pipeline, pub/sub and pool, and the loop that drives calls."""

from hatopo.client._factories import Sentinels, from_url, replicated, sentinel, standalone
from hatopo.client._keywords import ClientOptions, HatopoOptions, SentinelOptions
from hatopo.client._pipeline import Pipeline
from hatopo.client._pool import ConnectionPool
from hatopo.client._pubsub import PubSub
from hatopo.client._redis import Redis
from hatopo.client._scopes import Scope, Stretch, deadline, pin_after_write, read_from
from hatopo.client._scripts import Lock, Script
from hatopo.client._stats import Stats

__all__ = [
    "ClientOptions",
    "ConnectionPool",
    "HatopoOptions",
    "Lock",
    "Pipeline",
    "PubSub",
    "Redis",
    "Scope",
    "Script",
    "SentinelOptions",
    "Sentinels",
    "Stats",
    "Stretch",
    "deadline",
    "from_url",
    "pin_after_write",
    "read_from",
    "replicated",
    "sentinel",
    "standalone",
]
