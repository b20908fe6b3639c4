"""The one mutable cell of the topology: the view that is in force.

Decides whether an offered view replaces it. The laws:

- A view that has a master for every shard never gives way to one that lacks a master.
- A lower epoch is refused, unless a majority of all who should know says it (a reset: SENTINEL RESET, a rebuilt set).
- A provisional view runs ahead of the confirmed one at the same epoch and raises none. It stands until a higher
  epoch (or a reset) is confirmed, or until it is withdrawn; then the confirmed view is in force again.
"""

from __future__ import annotations

import enum

from hatopo.topology._model import Topology


class Offer(enum.Enum):
    """What became of an offered view."""

    REFUSED = "refused"
    """The laws forbid it."""
    KNOWN = "known"
    """Nothing new is in force."""
    TAKEN = "taken"
    """It is in force."""
    RESET = "reset"
    """It is in force, at a lower epoch than the last one."""


class TopologyView:
    """Holds the current topology. Readers take no lock: they read one reference. Its owner locks the writers."""

    def __init__(self) -> None:
        self.current: Topology | None = None
        self.confirmed: Topology | None = None

    def offer(self, found: Topology) -> Offer:
        """Makes `found` the current view if the laws allow it."""
        if not acceptable(self.confirmed, found):
            return Offer.REFUSED
        if found.provisional:
            news = found != self.current
            self.current = found
            return Offer.TAKEN if news else Offer.KNOWN
        before, self.confirmed = self.confirmed, found
        if self.current is not None and self.current.provisional and before is not None:
            if found.epoch == before.epoch and found.masters != self.current.masters:
                return Offer.KNOWN  # those who know have not heard of it yet: the provisional view stands
        elif found == self.current:
            return Offer.KNOWN
        self.current = found
        return Offer.RESET if before is not None and found.epoch < before.epoch else Offer.TAKEN

    def withdraw(self) -> bool:
        """Ends a provisional view: the confirmed one is in force again. Whether there was one."""
        if self.current is None or not self.current.provisional:
            return False
        self.current = self.confirmed
        return True


def acceptable(confirmed: Topology | None, found: Topology) -> bool:
    """Whether `found` may be put in force over `confirmed`."""
    if found.provisional:
        return confirmed is not None and confirmed.complete and found.complete and found.epoch == confirmed.epoch
    if not found.complete:
        return confirmed is None or not confirmed.complete
    return confirmed is None or found.epoch >= confirmed.epoch or found.agreed
