"""What the two web applications have in common: a Redis, a slow database, and what can be asked of them.

REDIS_SENTINELS   host:port,host:port,...; without it a Sentinel set starts in this process, and can be broken
REDIS_SERVICE     the service's name (mymaster)
PORT              where to serve (8000; 0: any free port)
DEMO_SPEED        how fast the time of the embedded set runs (1; tests want 5)
"""

from __future__ import annotations

import contextlib
import os
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Any
from urllib.parse import quote

import redis
from cache_aside import CacheAside, Document

import hatopo
from hatopo.client import Scope
from hatopo.testing import RealClock, ScaledClock, SentinelDeployment

COOKIE = "fresh"
PORT = int(os.environ.get("PORT", "8000"))
GUIDE = """\
curl -X PUT  {url}/items/a -d hello          write
curl -i      {url}/items/a                   read: X-Redis-Nodes says who has answered
curl -iL -c jar -b jar {url}/items/a -d hi   write, and be sent to read it: the master answers, for some seconds
curl -i      {url}/products/7                a cache over a slow database
curl -i      {url}/health                    who is the master, which replicas answer reads
"""
BREAK_IT = """\
curl -X POST {url}/demo/failover             kill the master, and read on
curl -X POST {url}/demo/restart              start it again; some ten seconds later it is a replica
curl -X POST {url}/demo/lag -d 5             let replicas lag by 5 s: who has no cookie reads old values (0: end it)
"""


class Database:
    """Stands for something slow: ten products, and how often each was asked for."""

    def __init__(self, seconds: float = 0.2) -> None:
        self.queries: Counter[str] = Counter()
        self._seconds = seconds
        self._names = {str(number): f"product {number}" for number in range(1, 11)}
        self._lock = threading.Lock()

    def find(self, number: str) -> Document | None:
        """A product, or None."""
        with self._lock:
            self.queries[number] += 1
            name = self._names.get(number)
        time.sleep(self._seconds)
        return None if name is None else {"id": number, "name": name}

    def save(self, number: str, name: str) -> None:
        """Change a product, or add one."""
        with self._lock:
            self._names[number] = name


class Shop:
    """What can be asked of the applications, whatever framework they are written in."""

    def __init__(self, client: hatopo.Redis, servers: SentinelDeployment | None = None) -> None:
        self.client = client
        self.database = Database()
        self.products = CacheAside(client, self.database.find, name="product")
        self.servers = servers

    def set_item(self, key: str, value: str) -> None:
        """Keep a value."""
        self.client.set(f"item:{key}", value)

    def item(self, key: str) -> str | None:
        """A value, or None."""
        found = self.client.get(f"item:{key}")
        return None if found is None else str(found)

    def rename_product(self, number: str, name: str) -> None:
        """Change a product: the database first, then the cache forgets it."""
        self.database.save(number, name)
        self.products.forget(number)

    def health(self) -> tuple[int, dict[str, Any]]:
        """Whether the master answers, what is known of each node, and what the client has been through."""
        problem = None
        try:
            self.client.using(read_from="master", deadline=0.5).ping()
        except redis.RedisError as error:
            problem = str(error)
        topology = self.client.topology
        found = {
            "status": "ok" if problem is None else "no usable master",
            "problem": problem,
            "agreed": topology is not None and topology.agreed,  # a majority of the sentinels says so
            "nodes": [{**asdict(node), "address": str(node.address)} for node in self.client.nodes()],
            "stats": asdict(self.client.stats()),
        }
        return (200 if problem is None else 503), found

    def kill_master(self) -> str:
        """Kill the embedded master; says who it was."""
        return self._breakable().kill_master().name

    def restart(self) -> None:
        """Start whoever was killed; the sentinels make him a replica."""
        for node in self._breakable().nodes:
            node.start()

    def lag(self, seconds: float) -> None:
        """Let the embedded replicas apply what they receive so much later."""
        servers = self._breakable()
        for node in servers.replicas():
            node.set_lag(seconds * servers.clock.speed if isinstance(servers.clock, ScaledClock) else seconds)

    def _breakable(self) -> SentinelDeployment:
        if self.servers is None:
            raise LookupError("only embedded servers can be broken")
        return self.servers


def path_of(key: str) -> str:
    """Where an item is read."""
    return f"/items/{quote(key, safe='')}"


def shown(scope: Scope) -> str:
    """The nodes that have answered a request, for a header."""
    return ", ".join(str(node) for node in scope.nodes)


@contextlib.contextmanager
def opened() -> Iterator[Shop]:
    """The shop, on the sentinels that the environment names, or on servers of its own; all is closed at the end."""
    with contextlib.ExitStack() as stack:
        servers, sentinels = None, os.environ.get("REDIS_SENTINELS", "").split(",")
        if sentinels == [""]:
            speed = float(os.environ.get("DEMO_SPEED", "1"))
            clock = RealClock() if speed == 1 else ScaledClock(speed)
            servers = stack.enter_context(SentinelDeployment(clock=clock, down_after=0.5))
            sentinels = [f"{host}:{port}" for host, port in servers.sentinels]
        client = hatopo.sentinel(
            os.environ.get("REDIS_SERVICE", "mymaster"),
            sentinels,
            profile="web",  # a request waits for a failover for 2 s, not for 15
            read_from="replica_preferred",
            decode_responses=True,
        )
        yield Shop(stack.enter_context(client), servers)


def welcome(port: int, shop: Shop) -> None:
    """Say where it is served, and what to try."""
    url = f"http://127.0.0.1:{port}"
    guide = GUIDE if shop.servers is None else GUIDE + BREAK_IT
    print(f"Serving on {url}\n\n{guide.format(url=url)}\nCtrl-C ends it.", flush=True)
