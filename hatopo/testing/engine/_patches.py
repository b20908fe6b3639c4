"""Time and chance for fakeredis: decides whose clock and generator its commands see, and knows no command.

The modules of fakeredis read the global names `time` and `random`. Both become stand-ins that ask who is running a
command in this thread: while a keyspace is, its own time and chance answer; at any other moment, and for every other
user of fakeredis in the process, the real modules do.
"""

from __future__ import annotations

import random as real_random
import sys
import threading
import time as real_time
from typing import Any, Protocol

__all__ = ["RUNNING", "Surroundings", "install"]


class Surroundings(Protocol):
    """What a command takes from outside."""

    rng: real_random.Random

    def milliseconds(self) -> int:
        """The time, in milliseconds since 1970."""


class _Running(threading.local):
    """What runs in this thread."""

    keyspace: Surroundings | None = None


RUNNING = _Running()


class _Time:
    """The module `time` as fakeredis sees it."""

    def time(self) -> float:
        keyspace = RUNNING.keyspace
        return real_time.time() if keyspace is None else keyspace.milliseconds() / 1000

    def __getattr__(self, name: str) -> Any:
        return getattr(real_time, name)


class _Random:
    """The module `random` as fakeredis sees it."""

    def __getattr__(self, name: str) -> Any:
        keyspace = RUNNING.keyspace
        return getattr(real_random if keyspace is None else keyspace.rng, name)


_STAND_INS = {"time": (real_time, _Time()), "random": (real_random, _Random())}


def install() -> list[str]:
    """Put the stand-ins into every module of fakeredis that is loaded; again does no harm. Names what it changed."""
    changed = []
    for path, module in list(sys.modules.items()):
        if path.partition(".")[0] != "fakeredis":
            continue
        for name, (real, stand_in) in _STAND_INS.items():
            if module.__dict__.get(name) is real:
                setattr(module, name, stand_in)
                changed.append(f"{path}.{name}")
    return changed
