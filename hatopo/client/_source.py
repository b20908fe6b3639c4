"""Where the topology of a deployment comes from: what every kind of discovery offers, and none is more than that."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Protocol

from hatopo import errors
from hatopo.address import Address
from hatopo.routing import Checkup

if TYPE_CHECKING:
    from hatopo.client._deployment import Deployment


class Source(Protocol):
    """Where a deployment's topology comes from, and who tells of its changes."""

    def join(self, follower: Deployment) -> None:
        """Publishes the view in force to a deployment, and every later one. Cheap if it has joined already."""

    def leave(self, follower: Deployment) -> None:
        """Ends that; watching ends with the last follower."""

    def refresh(self, until: float, *, join: bool = False) -> None:
        """One round of questions for all who follow, unless one is under way or has just ended.

        Returns soon, at `until` at the latest. `join`: waits for the end of a round that is under way.
        """

    def silent(self, follower: Deployment, address: Address, calm: bool, until: float) -> None:
        """A node is silent; `calm`: that was asked for (a blocking command)."""

    def demoted(self, address: Address) -> None:
        """A node that was taken for a master says that it is none."""

    def why_unknown(self) -> errors.MasterNotFoundError | errors.LoginError:
        """Why no master is known."""

    def absent(self) -> Mapping[Address, str]:
        """Nodes that belong and have no place in the view in force, and why."""

    def last_word(self) -> float | None:
        """The moment at which somebody who knows the topology was last heard."""

    @property
    def keeps_watch(self) -> bool:
        """Whether it needs to know how the nodes are even while nobody reads from replicas."""

    @property
    def may_grow(self) -> bool:
        """Whether the nodes themselves may name others."""

    def watched(self) -> Iterable[Address]:
        """Nodes that it wants to hear of, beside those of the view in force."""

    def expects_more(self) -> bool:
        """Whether nodes are about to join of whom it has just heard."""

    def checked(self, follower: Deployment, address: Address, checkup: Checkup) -> None:
        """A node was asked how it is."""

    def looked(self, follower: Deployment) -> None:
        """All of them were."""
