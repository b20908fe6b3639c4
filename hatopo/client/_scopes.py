"""Choices for a stretch of code instead of a client: one context variable, for middleware and tasks.

Knows what was chosen, and keeps what happened inside; whoever makes a call asks and tells. Scopes nest: the nearest
choice of a policy counts, and the nearest end.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from time import monotonic
from typing import ParamSpec, TypeVar

from hatopo.address import Address
from hatopo.client._options import read_policy
from hatopo.errors import OptionError
from hatopo.routing import ReadFrom, ReadFromLike

P = ParamSpec("P")
T = TypeVar("T")

MAX_NODES = 1000


class Scope:
    """What was chosen for a stretch of code, and what has happened in it. May be looked at from any thread.

    Attributes:
        read_from: the policy for reads, or None for that of whoever is around, at last the client's.
        end: the moment (monotonic clock) at which every call in it must have ended, or None.
        outer: the scope around it, or None.
        wrote: a command that may write was sent.
    """

    __slots__ = ("_nodes", "_pins", "end", "outer", "read_from", "wrote")

    def __init__(
        self,
        outer: Scope | None,
        *,
        read_from: ReadFrom | None = None,
        end: float | None = None,
        pins: bool = False,
        wrote: bool = False,
    ) -> None:
        self.outer = outer
        self._pins = pins
        self.read_from = read_from
        self.wrote = wrote
        self._nodes: dict[Address, None] = {}
        ends = [one for one in (end, None if outer is None else outer.end) if one is not None]
        self.end: float | None = min(ends, default=None)

    @property
    def nodes(self) -> tuple[Address, ...]:
        """The nodes that have answered, in the order of their first answer."""
        return tuple(self._nodes)

    def policy(self) -> ReadFrom | None:
        """The policy for a read that is made now, or None for the client's own."""
        scope: Scope | None = self
        while scope is not None:
            if scope.read_from is not None:
                return scope.read_from
            if scope._pins and scope.wrote:
                return ReadFrom.MASTER
            scope = scope.outer
        return None

    def note_write(self) -> None:
        """A command that may write is about to be sent."""
        scope: Scope | None = self
        while scope is not None:
            scope.wrote = True
            scope = scope.outer

    def note_answer(self, node: Address) -> None:
        """A node has answered."""
        scope: Scope | None = self
        while scope is not None:
            if len(scope._nodes) < MAX_NODES:
                scope._nodes.setdefault(node)
            scope = scope.outer


SCOPE: ContextVar[Scope | None] = ContextVar("hatopo_scope", default=None)
"""The innermost scope, or None."""


class Stretch:
    """The scope in force, to be left and entered again: steps may run in other contexts and threads, one after another.

    Nothing of it stays where a step has run, and nothing else that is set there is taken away.
    """

    def __init__(self) -> None:
        self._scope = SCOPE.get()

    def run(self, step: Callable[P, T], *args: P.args, **options: P.kwargs) -> T:
        """Runs a step in the scope that the one before has left."""
        token = SCOPE.set(self._scope)
        try:
            return step(*args, **options)
        finally:
            self._scope = SCOPE.get()
            SCOPE.reset(token)


@contextmanager
def _entered(scope: Scope) -> Iterator[Scope]:
    SCOPE.set(scope)
    try:
        yield scope
    finally:
        # A generator may be closed by the garbage collector, in the middle of somebody else's scope: it stays.
        around = SCOPE.get()
        while around is not None and around is not scope:
            around = around.outer
        if around is scope:
            SCOPE.set(scope.outer)


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
    with _entered(Scope(SCOPE.get(), end=monotonic() + seconds)):
        yield


@contextmanager
def read_from(policy: ReadFromLike) -> Iterator[Scope]:
    """Reads of every client inside follow this policy: `with hatopo.read_from("master"): ...`.

    Scopes nest; the nearest one counts. `client.using(read_from=...)` goes before any scope.

    Args:
        policy: see `ReadFrom`.

    Returns:
        The scope: `scope.nodes` has the nodes that have answered in it, `scope.wrote` tells whether it has written.

    Raises:
        OptionError: it is no policy.
    """
    with _entered(Scope(SCOPE.get(), read_from=read_policy(policy))) as scope:
        yield scope


@contextmanager
def pin_after_write(*, pinned: bool = False) -> Iterator[Scope]:
    """Reads inside follow the clients' policies until something is written; from then on the master answers them.

    What a request has written it reads again, though replicas lag behind. `hatopo.contrib.web` does this for every
    request.

    Args:
        pinned: as if something had been written already.

    Returns:
        The scope: `scope.wrote` tells whether it is pinned, `scope.nodes` has the nodes that have answered in it.
    """
    with _entered(Scope(SCOPE.get(), pins=True, wrote=pinned)) as scope:
        yield scope


def end_of(seconds: float | None) -> float:
    """The moment at which a call that starts now must have ended.

    Args:
        seconds: what its client allows for a call, or None.
    """
    scope = SCOPE.get()
    end = None if scope is None else scope.end
    if seconds is None:
        return float("inf") if end is None else end
    own = monotonic() + seconds
    return own if end is None else min(own, end)
