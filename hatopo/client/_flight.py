"""One at a time for all: work that many callers ask for at once is done by one of them, and not too often.

Decides who does it and who waits. Knows nothing of what is done.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from time import monotonic

from hatopo.connection import Waiters

GAP = 0.1
"""The least number of seconds between two flights."""
PATIENCE = 5.0
"""Seconds after which a flight counts no more: it was interrupted, or hangs."""


class SingleFlight:
    """See the module."""

    def __init__(self) -> None:
        self.after_fork()

    def after_fork(self) -> None:
        """In a forked child nothing is under way."""
        self._lock = threading.Lock()
        self._sleepers = Waiters()
        self._flights = 0  # that have ended
        self._began = self._ended = float("-inf")  # when the one under way began; when the last one ended

    def do(self, work: Callable[[], None], gap: float) -> bool:
        """Does `work`, unless it is being done or was done within the last `gap` seconds; whether it did."""
        with self._lock:
            now = monotonic()
            if now - self._began < PATIENCE or now - self._ended < gap:
                return False
            self._began = now
        try:
            work()
        finally:
            with self._lock:
                self._began, self._ended = float("-inf"), monotonic()
                self._flights += 1
            self._sleepers.wake_all()
        return True

    def join(self, until: float, ready: Callable[[], bool]) -> None:
        """Waits for the end of a flight that is under way, or for `ready()`; shortly, if there is none."""
        flights = self._flights
        left = min(until - monotonic(), PATIENCE if monotonic() - self._began < PATIENCE else GAP)
        self._sleepers.sleep(left, lambda: self._flights != flights or ready())

    def insist(self, work: Callable[[], None]) -> None:
        """Does `work` as soon as nothing is under way and the gap has passed."""
        end = monotonic() + PATIENCE
        while not self.do(work, GAP) and monotonic() < end:
            self._sleepers.sleep(GAP / 2, lambda: False)
