"""What a deployment looks like: nodes in shards, as frozen values.

One model for every kind of deployment: one server, a master with replicas and Sentinel are one shard that
owns every slot; Cluster is many. Knows nothing of how it was found out or who uses it.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from hatopo.address import Address


@dataclass(frozen=True, slots=True)
class Node:
    """One server process.

    Attributes:
        address: where it listens; may change, and may be reused by another node.
        id: its identity (run id, node id), or "" while that is unknown.
        flagged: why those who know the deployment would send no read to it, or "".
        name: the host name that stands for it, if it is dialled by IP address: what its certificate carries.
    """

    address: Address
    id: str = ""
    flagged: str = ""
    name: str = ""


@dataclass(frozen=True, slots=True)
class Shard:
    """A master with its replicas, and the slots that they own (ranges, both ends included)."""

    master: Node | None
    replicas: tuple[Node, ...] = ()
    slots: tuple[tuple[int, int], ...] = ((0, 16383),)


@dataclass(frozen=True, slots=True)
class Topology:
    """A whole deployment at one moment. Replaced whole, never changed.

    Attributes:
        shards: at least one.
        epoch: the highest configuration epoch in it (Sentinel's config-epoch); 0 where there is none.
        agreed: whether a majority of those who know said so.
        roles_matter: whether a node must say itself that it is the master before it is used as one.
        provisional: it runs ahead of those who know: the node says that it is the master, they have not said so yet.
        by_name: names that the user gave tell which node has which role; what readers say of themselves counts not.
    """

    shards: tuple[Shard, ...]
    epoch: int = 0
    agreed: bool = True
    roles_matter: bool = False
    provisional: bool = False
    by_name: bool = False

    @property
    def complete(self) -> bool:
        """Whether every shard has a master."""
        return bool(self.shards) and all(shard.master is not None for shard in self.shards)

    @property
    def masters(self) -> tuple[Address, ...]:
        """The addresses of the masters."""
        return tuple(shard.master.address for shard in self.shards if shard.master is not None)

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Every node, masters first."""
        masters = [shard.master for shard in self.shards if shard.master is not None]
        return (*masters, *(node for shard in self.shards for node in shard.replicas))

    def node_at(self, address: Address) -> Node | None:
        """The node with this address, whatever its role."""
        return next((node for node in self.nodes if node.address == address), None)

    def led_by(self, node: Node) -> Topology:
        """The same deployment with `node`, one of its replicas, as the master of its shard: a provisional view.

        The former master is in it no more: nobody knows yet what it is.
        """
        shards = tuple(
            replace(shard, master=node, replicas=tuple(r for r in shard.replicas if r.address != node.address))
            if any(replica.address == node.address for replica in shard.replicas)
            else shard
            for shard in self.shards
        )
        return replace(self, shards=shards, agreed=False, provisional=True)

    def with_replicas(self, more: Iterable[Node]) -> Topology:
        """The same deployment of one shard with further replicas; itself, if it has them all."""
        if len(self.shards) != 1:
            return self
        known = {node.address for node in self.nodes}
        fresh = tuple(node for node in more if node.address not in known)
        if not fresh:
            return self
        replicas = sorted((*self.shards[0].replicas, *fresh), key=lambda node: node.address)
        return replace(self, shards=(replace(self.shards[0], replicas=tuple(replicas)),))


def one_node(address: Address) -> Topology:
    """The topology of a single server, whatever its role."""
    return Topology((Shard(Node(address)),))
