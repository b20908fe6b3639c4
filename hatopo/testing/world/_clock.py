"""Clocks: decide what time it is for a deployment, and run what is due, in the order in which it is due.

A deployment's time is virtual: it may run as fast as the wall's, many times as fast, or only when a test says so.
Whatever waits (a sentinel's next PING, the expiry of a blocked command, a message under way to a lagging replica)
is a timer here. Timers that are late, because the machine was busy, still run in order, each at its own moment: a
stall delays questions and answers alike, and no sentinel takes it for a dead master.

A clock knows nothing of servers. All but `advance` happens on the loop's thread.
"""

from __future__ import annotations

import heapq
import itertools
import logging
import math
import time
from typing import TYPE_CHECKING, Any

from hatopo.testing.world._loop import LOOP

if TYPE_CHECKING:
    import asyncio
    from collections.abc import Callable

log = logging.getLogger("hatopo.testing")

FEW = 64
"""So many cancelled timers are no reason to tidy up."""
TURN = 0.003
"""Seconds of the wall's clock for which the timers of a scaled clock may keep the loop busy at a time."""


class Timer:
    """Something that is to happen at a moment; `cancel` prevents it."""

    __slots__ = ("_clock", "args", "callback", "due", "owner")

    def __init__(
        self, clock: Clock, due: float, callback: Callable[..., object], args: tuple[Any, ...], owner: object
    ) -> None:
        self._clock = clock
        self.due = due
        self.owner = owner
        self.callback: Callable[..., object] | None = callback
        self.args = args

    def cancel(self) -> None:
        """Make sure that it does not happen."""
        if self.callback is not None:
            self.callback = None
            self.args = ()
            self._clock.cancelled += 1

    def run(self) -> None:
        """Let it happen; an error is logged, and stops nobody else."""
        callback, args = self.callback, self.args
        self.callback, self.args = None, ()
        if callback is not None:
            try:
                callback(*args)
            except Exception:
                log.exception("a timer of the embedded server failed")


class Clock:
    """The time of a deployment, in seconds since 1970, and its timers.

    Use `RealClock`, `ScaledClock` or `ManualClock`. Deployments that are given the same clock share it.
    """

    def __init__(self, start: float | None = None) -> None:
        self.now = time.time() if start is None else start
        """Seconds since 1970 in the deployment's time."""
        self.data: Clock = self
        """The clock of what clients ask for: expiry, timeouts of blocking commands."""
        self._heap: list[tuple[float, int, Timer]] = []
        self.cancelled = 0
        """How many of its timers will not happen, and are kept."""
        self._numbers = itertools.count()
        self._alarm: asyncio.Handle | None = None
        self._alarm_at = float("inf")
        self._running = False

    def after(self, delay: float, callback: Callable[..., object], *args: Any, owner: object = None) -> Timer:
        """Call back in `delay` seconds of this clock."""
        if self.cancelled > FEW and self.cancelled > len(self._heap) // 2:
            self._tidy_up()
        timer = Timer(self, self.now + max(delay, 0.0), callback, args, owner)
        heapq.heappush(self._heap, (timer.due, next(self._numbers), timer))
        if not self._running and timer.due < self._alarm_at:
            self._arm()
        return timer

    def _tidy_up(self) -> None:
        """Forget what was cancelled."""
        self._heap[:] = [entry for entry in self._heap if entry[2].callback is not None]
        heapq.heapify(self._heap)
        self.cancelled = 0

    def catch_up(self) -> None:
        """Run what is due by now."""
        if not self._running:
            self._run_until(self._current())
        if self.data is not self:
            self.data.catch_up()

    def drop(self, owner: object) -> None:
        """Cancel all timers of an owner that has ended."""
        for _, _, timer in self._heap:
            if timer.owner is owner:
                timer.cancel()
        if not self._running:
            self._arm()

    def _run_until(self, moment: float) -> None:
        self._running = True
        try:
            heap = self._heap
            while heap and heap[0][0] <= moment:
                due, _, timer = heapq.heappop(heap)
                if timer.callback is None:
                    self.cancelled -= 1
                if due > self.now:
                    self.now = due
                timer.run()
                if self._is_too_fast():
                    moment = self.now
                    break
        finally:
            self._running = False
        if moment > self.now:
            self.now = moment
        self._arm()

    def _arm(self) -> None:
        """Have the loop wake this clock when the next timer is due."""
        while self._heap and self._heap[0][2].callback is None:
            heapq.heappop(self._heap)
            self.cancelled -= 1
        due = self._heap[0][0] if self._heap else float("inf")
        if due == self._alarm_at:
            return
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None
        self._alarm_at = float("inf")
        wait = self._real_seconds_until(due)
        if wait is not None:
            self._alarm_at = due
            self._alarm = LOOP.call_later(wait, self._wake)

    def _wake(self) -> None:
        self._alarm = None
        self._alarm_at = float("inf")
        self.catch_up()

    def _is_too_fast(self) -> bool:
        """Whether to leave off: more is due than the machine can do in time."""
        return False

    def _current(self) -> float:
        """What time it is; `now` follows when all that is due before has happened."""
        raise NotImplementedError

    def _real_seconds_until(self, due: float) -> float | None:
        """How long the loop may sleep before `due`; None: for ever."""
        raise NotImplementedError


class RealClock(Clock):
    """As fast as the wall's clock; what real processes that take part need."""

    def __init__(self, start: float | None = None) -> None:
        super().__init__(start)
        self._speed = 1.0
        self._start, self._began = self.now, time.monotonic()

    def _current(self) -> float:
        return self._start + (time.monotonic() - self._began) * self._speed

    def _real_seconds_until(self, due: float) -> float | None:
        return None if due == float("inf") else max(0.0, (due - self._current()) / self._speed)

    def __repr__(self) -> str:
        return "RealClock()"


class ScaledClock(RealClock):
    """Runs `speed` times as fast as the wall's clock: at 50, a failover of 4 s takes 80 ms.

    What servers do by themselves is faster: pings, elections, lag. What clients ask for is not: keys expire and
    blocking commands wait in seconds of the wall's clock. Where the machine cannot keep up, it runs slower, so that
    clients get their turn.
    """

    def __init__(self, speed: float = 50.0, start: float | None = None) -> None:
        super().__init__(start)
        self._speed = _checked(speed)
        self.data = RealClock(self.now)
        self._turn_ends = 0.0

    def _run_until(self, moment: float) -> None:
        self._turn_ends = time.monotonic() + TURN
        super()._run_until(moment)

    def _is_too_fast(self) -> bool:
        now = time.monotonic()
        if now < self._turn_ends:
            return False
        self._start, self._began = self.now, now
        return True

    @property
    def speed(self) -> float:
        """How many seconds pass while one passes on the wall; may be set at any time."""
        return self._speed

    @speed.setter
    def speed(self, speed: float) -> None:
        _checked(speed)

        def change() -> None:
            self._start, self._began, self._speed = self._current(), time.monotonic(), speed
            if self._alarm is not None:
                self._alarm.cancel()
            self._alarm, self._alarm_at = None, float("inf")
            self._arm()

        if LOOP.running:
            LOOP.call(change)
        else:
            change()

    def __repr__(self) -> str:
        return f"ScaledClock({self._speed:g})"


def _checked(speed: float) -> float:
    if not 0 < speed < float("inf"):
        raise ValueError(f"speed must be a positive number, not {speed!r}")
    return speed


class ManualClock(Clock):
    """Stands still but for `advance`: a test decides when a second has passed, and it passes at once."""

    def advance(self, seconds: float) -> None:
        """Let `seconds` pass, and all that is due in them happen, in order; returns when it has."""
        if seconds < 0:
            raise ValueError(f"time does not run backwards: {seconds!r}")
        if not math.isfinite(seconds):
            raise ValueError(f"seconds must be a number, and finite, not {seconds!r}")
        LOOP.call(lambda: self._run_until(self.now + seconds))

    def _current(self) -> float:
        return self.now

    def _real_seconds_until(self, due: float) -> float | None:
        return 0.0 if due <= self.now else None

    def __repr__(self) -> str:
        return "ManualClock()"
