"""Calls that sleep until something happens.

No lock is held while they sleep. `threading.Condition` gives its lock away inside Python code, where an exception
from a signal handler leaves it in a state that nobody expects; here an exception leaves nothing behind.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress

_LONGEST = 3600.0


class Waiters:
    """Who sleeps, first come first woken. True while there is anybody."""

    def __init__(self) -> None:
        self._bells: deque[threading.Lock] = deque()  # taken locks; releasing one wakes its sleeper

    def __bool__(self) -> bool:
        return bool(self._bells)

    def sleep(self, seconds: float, ready: Callable[[], object]) -> None:
        """Sleeps for `seconds`, until somebody wakes, or not at all if `ready()` once the others can see us."""
        bell = threading.Lock()
        bell.acquire()
        self._bells.append(bell)
        try:
            if seconds > 0 and not ready():
                bell.acquire(timeout=min(seconds, _LONGEST))
        finally:
            with suppress(ValueError):  # it has rung
                self._bells.remove(bell)

    def wake_one(self) -> None:
        """Wakes who has slept longest."""
        try:
            bell = self._bells.popleft()
        except IndexError:
            return
        bell.release()

    def wake_all(self) -> None:
        """Wakes everybody."""
        while self._bells:
            self.wake_one()
