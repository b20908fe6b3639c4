"""A cache-aside store: what a slow database knows, kept in Redis for a while.

Three things go wrong with a cache that only reads, loads and stores:

penetration   Somebody asks for what is not there, again and again, and every time the database is asked, too.
              So "not there" is stored as well, for a short while.
breakdown     A popular entry expires, and a hundred requests ask the database for it at once.
              So there is a lock for each key: who gets it loads, the others wait and look again.
avalanche     Entries that were stored together expire together.
              So each of them lives for a time of its own.

Entries are read from replicas. A replica may lag behind, so whoever is about to load, or waits for somebody who does,
looks at the master. Without Redis there is still the database.
"""

from __future__ import annotations

import contextlib
import json
import random
import time
from collections.abc import Callable
from typing import Any, TypeAlias

import redis

import hatopo

Document: TypeAlias = "dict[str, Any]"

NO_REDIS = (redis.ConnectionError, redis.TimeoutError)
KEEP = """
if redis.call('get', KEYS[2]) ~= ARGV[1] then return 0 end
redis.call('set', KEYS[1], ARGV[2], 'PX', ARGV[3])
return redis.call('del', KEYS[2])
"""
"""Stores an entry and gives its lock back, if it is still ours."""


class CacheAside:
    """Documents by key, from Redis if it has them.

    Args:
        client: with `decode_responses=True`.
        load: asks the database; None: it has no such document.
        name: what keys in Redis begin with.
        seconds: how long an entry lives, at most; `jitter` says by which part of that it may be less.
        missing_seconds: how long it is believed that there is no such document.
        lock_seconds: how long the database may take. If whoever holds a lock has died, it is free after that.
        patience: how long others wait for him before they ask the database themselves.
    """

    def __init__(
        self,
        client: hatopo.Redis,
        load: Callable[[str], Document | None],
        *,
        name: str = "cache",
        seconds: float = 300,
        jitter: float = 0.2,
        missing_seconds: float = 5,
        lock_seconds: float = 2,
        patience: float = 3,
    ) -> None:
        self._near = client
        self._master = client.using(read_from="master")
        self._keep = self._master.register_script(KEEP, idempotent=True)  # twice is once: the lock is gone by then
        self._load = load
        self._name = name
        self._seconds, self._jitter, self._missing_seconds = seconds, jitter, missing_seconds
        self._lock_seconds, self._patience = lock_seconds, patience

    def get(self, key: str) -> Document | None:
        """A document, or None if there is none."""
        entry = f"{self._name}:{key}"
        try:
            found = self._near.get(entry)
            if found is None:
                found = self._load_once(key, entry)
        except NO_REDIS:
            return self._load(key)  # slower, but an answer
        return decoded(found)

    def forget(self, key: str) -> None:
        """What the database has has changed. Whoever is loading it now may have the old state: he cannot store it."""
        entry = f"{self._name}:{key}"
        self._master.using(retry_policy={"DEL": "always"}).delete(entry, lock_of(entry))

    def _load_once(self, key: str, entry: str) -> str:
        """The text of an entry that is not there: loaded by us, or by whoever is at it."""
        lock = self._master.lock(lock_of(entry), timeout=self._lock_seconds)
        end = time.monotonic() + self._patience
        while time.monotonic() < end:
            ours = lock.acquire(blocking=False)
            found = self._master.get(entry)  # also with the lock: somebody may just have been faster
            if found is not None:
                if ours:
                    give_back(lock)
                return str(found)
            if ours:
                return self._load_and_keep(key, entry, lock)
            time.sleep(random.uniform(0.01, 0.03))
        return json.dumps(self._load(key))

    def _load_and_keep(self, key: str, entry: str, lock: Any) -> str:
        try:
            document = self._load(key)
        except BaseException:
            give_back(lock)
            raise
        text = json.dumps(document)
        seconds = self._missing_seconds if document is None else self._seconds
        life = seconds * random.uniform(1 - self._jitter, 1)
        with contextlib.suppress(*NO_REDIS):  # not stored: whoever comes next loads it again
            self._keep([entry, lock_of(entry)], [lock.local.token, text, round(life * 1000)])
        return text


def decoded(text: object) -> Document | None:
    """An entry; `null` stands for a document that is not there."""
    document: Document | None = json.loads(str(text))
    return document


def lock_of(entry: str) -> str:
    """The key of the lock for an entry."""
    return f"{entry}:lock"


def give_back(lock: Any) -> None:
    """The end of a lock; if Redis cannot be told, it ends by itself."""
    with contextlib.suppress(redis.RedisError):
        lock.release()
