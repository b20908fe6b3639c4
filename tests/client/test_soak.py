"""100,000 calls over connections that are cut, split and mixed with pushes at random: every reply is its own.

Each reply betrays its request: values carry their key, echoes are unique, and the counter of a worker must
lie between what was acknowledged and what may have been executed. The seed is fixed; threads vary the order.
"""

from __future__ import annotations

import gc
import random
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis

import hatopo
from tests.client.support import batch, client_of, value_of
from tests.control import eventually
from tests.faulty import SOUND, Fault, FaultyServer

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import TypeAlias

    Drawn: TypeAlias = tuple[str, tuple[Any, ...], Callable[[Any], None]]

WORKERS, SINGLES, BATCHES, BATCH = 8, 2_500, 500, 20  # 8 * (2,500 + 500 * 20) = 100,000 calls
KEYS = [f"key{number}" for number in range(200)]


def chaos(seed: int) -> Callable[[str], Fault]:
    """Two commands of 1,000 lose their connection, at any byte; many more have split replies or pushes."""
    rng = random.Random(seed)
    splits = [Fault(every=size) for size in (1, 2, 5, 30)]
    drops = [Fault(drop_before=True)] * 20 + [Fault(drop_after=True)] * 20
    drops += [Fault(cut=size) for size in range(60)]
    push = Fault(push=True)

    def choose(_: str) -> Fault:
        dice = rng.random()
        if dice < 0.002:
            return rng.choice(drops)
        if dice < 0.007:
            return rng.choice(splits)
        return push if dice < 0.03 else SOUND

    return choose


def open_files() -> int:
    """The file descriptors of this process; 0 where that cannot be told."""
    gc.collect()
    listing = Path("/proc/self/fd")
    return len(list(listing.iterdir())) if listing.exists() else 0


def equal_to(wanted: Any) -> Callable[[Any], None]:
    def check(got: Any) -> None:
        assert isinstance(got, Exception) or got == wanted, (got, wanted)

    return check


@dataclass
class Counter:
    """What a worker knows of its counter on the server: it lies in `low` to `high`."""

    key: str
    low: int = 0
    high: int = 0

    def learn(self, reply: Any) -> None:
        if isinstance(reply, hatopo.AmbiguousResultError):
            self.high += 1
        elif not isinstance(reply, Exception):
            assert self.low < reply <= self.high + 1, (self, reply)
            self.low = self.high = reply


class Worker:
    """Draws commands, and holds each reply against its request."""

    def __init__(self, client: hatopo.Redis, number: int) -> None:
        self.client = client
        self.rng = random.Random(number)
        self.counter = Counter(f"counter{number}")
        self.name = f"worker{number}"
        self.calls = self.lost = self.ambiguous = 0

    def run(self) -> Worker:
        for _ in range(SINGLES):
            method, args, check = self.draw()
            try:
                got = getattr(self.client, method)(*args)
            except redis.RedisError as error:
                got = error
            self.settle(got, check)
        for _ in range(BATCHES):
            self.run_batch([self.draw() for _ in range(BATCH)])
        return self

    def run_batch(self, drawn: list[Drawn]) -> None:
        pipeline = batch(self.client)
        for method, args, _ in drawn:
            getattr(pipeline, method)(*args)
        try:
            replies = pipeline.execute(raise_on_error=False)
        except redis.RedisError as error:
            replies = [error] * len(drawn)
        for got, (_, _, check) in zip(replies, drawn, strict=True):
            self.settle(got, check)

    def draw(self) -> Drawn:
        """A command, and the check of its reply."""
        self.calls += 1
        dice = self.rng.random()
        key = self.rng.choice(KEYS)
        if dice < 0.6:
            return "get", (key,), equal_to(value_of(key))
        if dice < 0.75:
            word = f"{self.name} call {self.calls}"
            return "echo", (word,), equal_to(word.encode())
        if dice < 0.85:
            return "set", (key, value_of(key)), equal_to(True)
        return "incr", (self.counter.key,), self.counter.learn

    def settle(self, got: Any, check: Callable[[Any], None]) -> None:
        """Only errors of redis-py's tree may come out, and few that are not ambiguous."""
        check(got)
        if isinstance(got, hatopo.AmbiguousResultError):
            self.ambiguous += 1
        elif isinstance(got, Exception):
            assert isinstance(got, redis.RedisError), repr(got)
            self.lost += 1


@pytest.mark.timeout(400)
def test_no_reply_is_wrong_and_nothing_leaks() -> None:
    files = open_files()
    with FaultyServer() as fake, client_of(fake, protocol=3) as client:
        fake.data = {key.encode(): value_of(key) for key in KEYS}
        fake.chaos = chaos(seed=1)
        with ThreadPoolExecutor(WORKERS) as pool:
            workers = list(pool.map(Worker.run, [Worker(client, number) for number in range(WORKERS)]))
        fake.heal()
        for worker in workers:
            total = int(fake.data[worker.counter.key.encode()])
            assert worker.counter.low <= total <= worker.counter.high
        assert sum(worker.calls for worker in workers) == 100_000
        assert sum(worker.lost for worker in workers) < 1_000
        assert sum(worker.ambiguous for worker in workers) > 0
        assert fake.connections > 50, "the faults did not bite"
        assert client.get("key1") == value_of("key1")
        eventually(lambda: fake.open <= WORKERS)
        client.close()
        eventually(lambda: fake.open == 0)
    assert open_files() <= files
