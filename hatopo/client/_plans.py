"""Plans for the hot path of reads, and the order of asking where there is none.

Decides which of several pools a read takes its connection from. Does not know why their nodes are candidates.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from random import random

from hatopo.address import Address
from hatopo.connection import NodePool
from hatopo.routing import ReadFrom

SHORT_WAIT, LONG_WAIT = 0.05, 0.1
"""Seconds that a read waits for one of several nodes of whom none has a connection free: at first for as long as dials
take, then, where all their connections are in use, again and again. Another one may have a connection before that."""


class Plan:
    """What the hot path needs: pairs of pools, all as good as each other, until some moment."""

    __slots__ = ("count", "pairs", "until")

    def __init__(self, pools: Iterable[NodePool], until: float) -> None:
        equals = tuple(pools)
        pairs = [(one, other) for one in equals for other in equals if one is not other]
        self.pairs = tuple(pairs or [(pool, pool) for pool in equals])
        self.count = len(self.pairs)
        self.until = until


STALE = Plan((), float("-inf"))


class Reader:
    """A policy in use, and the plan for it."""

    __slots__ = ("__weakref__", "plan", "policy")

    def __init__(self, policy: ReadFrom) -> None:
        self.policy = policy
        self.plan = STALE

    def pick(self, now: float) -> NodePool | None:
        """Of two random equals the one with fewer connections in use; None if there is no plan: the hot path."""
        plan = self.plan
        if now >= plan.until:
            return None
        one, other = plan.pairs[int(random() * plan.count)]
        busy = len(one.alive) - len(one.idle)
        return other if busy and busy > len(other.alive) - len(other.idle) else one


def attempts(
    order: Sequence[NodePool], spares: Container[Address], busy: Sequence[NodePool], seconds: float
) -> Iterator[tuple[NodePool, float]]:
    """Whom a read asks for a connection, one after the other, and for how long it waits there.

    A master that comes after replicas answers where none of them is fit, not where all are busy: then one of these is
    waited for. If they have room, and could not be dialled in that time, the master answers after all.

    Args:
        order: the candidates.
        spares: which of them are masters that replicas are preferred to.
        busy: those who had no connection free, as far as that was found out; it grows meanwhile.
        seconds: for how long to wait.
    """
    rest: list[NodePool] = []
    for pool in order:
        if busy and pool.address in spares:
            rest.append(pool)
        else:
            yield pool, 0.0
    if busy:
        yield min(busy, key=lambda pool: pool.in_flight), seconds
        if not any(pool.is_full for pool in busy):
            yield from ((pool, 0.0) for pool in rest)
