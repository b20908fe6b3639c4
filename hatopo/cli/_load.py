"""The load of the demo: readers and writers through one client, and a record of each of their calls.

Writers count with HINCRBY of a field used once: the end says how often each call was applied (0: lost, 2: doubled).
After each they SET a key to the time; readers GET it and note when it goes back. Nothing here knows what is broken.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple, Protocol

import redis

import hatopo

PACE = 0.002  # seconds between two calls of a worker
AMBIGUOUS = "AmbiguousResultError"


class Call(NamedTuple):
    """A call of the application: the field that it counts in, if it is an HINCRBY, and the type of its error."""

    field: str
    began: float
    ended: float
    error: str


class Observer(Protocol):
    """Who is told what the application sees."""

    def failed(self, kind: str, error: str, seconds: float) -> None:
        """A call has failed."""

    def succeeded(self, kind: str, began: float, ended: float) -> None:
        """A call has succeeded."""


class Worker(threading.Thread):
    """A thread of the application: calls in a loop, whatever happens, and keeps a record."""

    kind = ""

    def __init__(self, client: redis.Redis, key: str, number: int, observer: Observer) -> None:
        super().__init__(daemon=True)
        self.client, self.key, self.number, self.observer = client, key, number, observer
        self.calls = list[Call]()
        self.ending = False

    def run(self) -> None:
        """Call until it is told to end."""
        while not self.ending:
            self.work()

    def work(self) -> None:
        """A call or two."""
        raise NotImplementedError

    def call(self, command: Callable[..., Any], *words: Any, field: str = "") -> Any:
        """Call, and note how it ended."""
        result, error, began = None, "", time.monotonic()
        try:
            result = command(*words)
        except Exception as raised:  # whatever it is, the application sees it
            error = AMBIGUOUS if isinstance(raised, hatopo.AmbiguousResultError) else type(raised).__name__
        ended = time.monotonic()
        self.calls.append(Call(field, began, ended, error))
        if error:
            self.observer.failed(self.kind, error, ended - began)
        else:
            self.observer.succeeded(self.kind, began, ended)
        time.sleep(PACE)
        return result

    def goes_on_since(self, moment: float) -> bool:
        """Whether there was a success of a call that began after this moment."""
        return any(call.began > moment and not call.error for call in self.calls[-10:])

    def outage(self) -> float:
        """The longest time without a success, in seconds."""
        successes = [call.ended for call in self.calls if not call.error]
        return max((later - earlier for earlier, later in pairwise(successes)), default=0.0)


class Writer(Worker):
    """Counts, and SETs a key of its own to the time."""

    kind = "write"

    def work(self) -> None:
        field = f"{self.number}.{len(self.calls)}"
        self.call(self.client.hincrby, self.key, field, 1, field=field)
        self.call(self.client.set, f"{self.key}:{self.number}", time.monotonic())


class Reader(Worker):
    """Reads the time that a writer has SET, and notes by how many seconds it has gone back."""

    kind, latest, back = "read", 0.0, 0.0

    def work(self) -> None:
        found = float(self.call(self.client.get, f"{self.key}:{self.number}") or 0)
        if found:
            self.latest, self.back = max(self.latest, found), max(self.back, self.latest - found)


class Pulse(threading.Thread):
    """Wakes all the time, and notes by how much too late: for how long the machine has stood still."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.stall = 0.0  # seconds
        self.ending = False

    def run(self) -> None:
        """Wake until it is told to end."""
        while not self.ending:
            began = time.monotonic()
            time.sleep(PACE)
            self.stall = max(self.stall, time.monotonic() - began - PACE)


class Load:
    """Readers and writers that run."""

    def __init__(self, client: redis.Redis, key: str, readers: int, writers: int, observer: Observer) -> None:
        self.key = key
        self.readers = [Reader(client, key, number % writers, observer) for number in range(readers)]
        self.writers = [Writer(client, key, number, observer) for number in range(writers)]
        self.workers: list[Worker] = [*self.readers, *self.writers]
        self.pulse = Pulse()

    def start(self) -> None:
        """Let them call."""
        self.pulse.start()
        for worker in self.workers:
            worker.start()

    def all_go_on_since(self, moment: float) -> bool:
        """Whether each of them has succeeded with a call that it began after this moment."""
        return all(worker.goes_on_since(moment) for worker in self.workers)

    def end(self) -> None:
        """Let them end the calls that they are in."""
        for worker in self.workers:
            worker.ending = True
        self.pulse.ending = True
        for worker in self.workers:
            worker.join(60)
