"""Choices for a stretch of code instead of a client: context variables, for middleware and tasks.

Knows what was chosen; whoever makes a call asks.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic

from hatopo.errors import OptionError

DEADLINE: ContextVar[float | None] = ContextVar("hatopo_deadline", default=None)
"""The moment (monotonic clock) at which every call in this context must have ended."""


@contextmanager
def deadline(seconds: float) -> Iterator[None]:
    """Bounds all calls inside together: `with hatopo.deadline(0.5): ...`.

    Scopes nest; the nearest end counts. A call that runs out of time raises a `redis.TimeoutError` (or an
    `AmbiguousTimeoutError`, if it may have been executed).

    Args:
        seconds: from now on.

    Raises:
        OptionError: `seconds` is no positive number.
    """
    if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not seconds > 0:
        raise OptionError(f"deadline must be a positive number of seconds, not {seconds!r}")
    end = monotonic() + seconds
    outer = DEADLINE.get()
    token = DEADLINE.set(end if outer is None else min(end, outer))
    try:
        yield
    finally:
        DEADLINE.reset(token)


def end_of(seconds: float | None) -> float:
    """The moment at which a call that starts now must have ended.

    Args:
        seconds: what its client allows for a call, or None.
    """
    end = DEADLINE.get()
    if seconds is None:
        return float("inf") if end is None else end
    own = monotonic() + seconds
    return own if end is None else min(own, end)
