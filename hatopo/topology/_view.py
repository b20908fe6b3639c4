"""The one mutable cell of the topology: the view that is in force.

Decides whether an offered view replaces it. The laws: a view that has a master for every shard is never
replaced by one that lacks a master; a lower epoch is refused unless a majority says it.
"""

from __future__ import annotations

from hatopo.topology._model import Topology


class TopologyView:
    """Holds the current topology. Readers take no lock: they read one reference."""

    def __init__(self) -> None:
        self.current: Topology | None = None  # written by offer(), which its owner calls under its lock

    def offer(self, found: Topology) -> bool:
        """Makes `found` the current view if the laws allow it; whether it differs from the last one."""
        if not acceptable(self.current, found) or found == self.current:
            return False
        self.current = found
        return True


def acceptable(current: Topology | None, found: Topology) -> bool:
    """Whether `found` may replace `current`."""
    if not found.complete:
        return current is None or not current.complete
    return current is None or found.epoch >= current.epoch or found.agreed
