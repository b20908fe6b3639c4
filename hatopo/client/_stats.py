"""What a client has been through, counted where it happens: never on the success path."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field

RESTLESS = 1.0
"""Seconds without a failure after which an outage is over even if nobody has seen its end."""


@dataclass(frozen=True, slots=True)
class Stats:
    """Counts since the client was made. Shared by its clones.

    Attributes:
        failovers: how often commands were sent to another master than before.
        outage_seconds: for how long calls could not be carried out, in all.
        ambiguous: how many calls ended with AmbiguousResultError, by command.
        retries: how often a call was tried again, by the cause of its failure.
        waiters: how many calls wait for a node now.
        dials: how many connections to nodes were begun.
        topology_age: seconds since another view of the topology was put in force, or None.
        last_word: seconds since a sentinel (or who else knows the topology) was last heard, or None.
    """

    failovers: int = 0
    outage_seconds: float = 0.0
    ambiguous: Mapping[str, int] = field(default_factory=dict)
    retries: Mapping[str, int] = field(default_factory=dict)
    waiters: int = 0
    dials: int = 0
    topology_age: float | None = None
    last_word: float | None = None


class Tally:
    """The counters. Its owner locks it."""

    def __init__(self) -> None:
        self.failovers = 0
        self.outage_seconds = 0.0
        self.ambiguous: Counter[str] = Counter()
        self.retries: Counter[str] = Counter()
        self.dials = 0
        self.outage: float | None = None  # when the last outage began, unless its end was seen
        self._last_trouble = 0.0

    def trouble(self, now: float) -> None:
        """A call could not be carried out, and waits."""
        if self.began(now) is None:
            self.relief(now)
        self.outage = now if self.outage is None else self.outage
        self._last_trouble = now

    def began(self, now: float) -> float | None:
        """The moment at which the outage began that still lasts."""
        return self.outage if now - self._last_trouble <= RESTLESS else None

    def seconds(self, now: float) -> float:
        """The seconds of all outages, the one that lasts included."""
        return self.outage_seconds + self._last(now)

    def relief(self, now: float) -> float:
        """A call was carried out: the seconds of the outage that has ended, or 0."""
        seconds, self.outage = self._last(now), None
        self.outage_seconds += seconds
        return seconds

    def _last(self, now: float) -> float:
        """The seconds of the last outage, so far or until it ended unseen."""
        if self.outage is None:
            return 0.0
        return (self._last_trouble if self.began(now) is None else now) - self.outage
