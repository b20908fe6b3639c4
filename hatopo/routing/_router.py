"""Where a command goes: from a topology and a key to a node.

Does not ask what kind of deployment it is: one shard owns every slot, several share them.
"""

from __future__ import annotations

from collections.abc import Callable

from hatopo.routing._slots import slot_of
from hatopo.topology import Node, Shard, Topology


def pick(topology: Topology, first_key: Callable[[], bytes | None]) -> Node | None:
    """The master that should take a command, or None if that shard has none.

    Args:
        topology: the view in force.
        first_key: tells the command's first key, asked only where keys matter.
    """
    shard = shard_of(topology, first_key)
    return shard.master if shard is not None else None


def shard_of(topology: Topology, first_key: Callable[[], bytes | None]) -> Shard | None:
    """The shard that a command belongs to, or None if nobody owns its slot."""
    if len(topology.shards) == 1:
        return topology.shards[0]
    key = first_key()
    return topology.shards[0] if key is None else _owner(topology, slot_of(key))


def _owner(topology: Topology, slot: int) -> Shard | None:
    for shard in topology.shards:
        if any(first <= slot <= last for first, last in shard.slots):
            return shard
    return None
