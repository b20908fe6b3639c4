"""A master and its replicas by their own word: who is what, where nobody else tells.

Decides which of the nodes that say "master" is the one, and what the deployment looks like. Does no I/O and reads no
clock. Addresses are as they are dialled.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from hatopo.address import Address
from hatopo.topology._model import Node, Shard, Topology
from hatopo.topology._parse import RoleReport


@dataclass(frozen=True, slots=True)
class Statement:
    """What a node said of itself: its role and its run id ("" where it does not tell)."""

    role: RoleReport
    run_id: str = ""


Statements = Mapping[Address, Statement]
"""The last words of the nodes that answer; others have none."""


@dataclass(frozen=True, slots=True)
class Election:
    """Who is the master.

    Attributes:
        master: the one, or None where nobody says "master".
        others: those who say so as well.
    """

    master: Address | None
    others: tuple[Address, ...] = ()


def elect(statements: Statements, current: Address | None, seeds: Sequence[Address]) -> Election:
    """The master by the nodes' own word.

    Of several, the one that most of the others follow. Where that decides nothing, the one that was the master before:
    a replica that was started without its configuration says that it is a master, too, and has no data. At the very
    first, the one that has replicated most, then the one that was named first.
    """
    claims = [address for address, said in statements.items() if said.role.role == "master"]
    if not claims:
        return Election(None)
    places = {address: place for place, address in enumerate(seeds)}

    def weight(address: Address) -> tuple[int, bool, int, int]:
        listed = len(statements[address].role.replicas)
        naming = sum(1 for said in statements.values() if said.role.master == address)
        return max(listed, naming), address == current, statements[address].role.offset, -places.get(address, 99_999)

    master = max(claims, key=weight)
    return Election(master, tuple(address for address in claims if address != master))


def census(statements: Statements, election: Election, last: Topology | None) -> Topology:
    """The deployment as its nodes describe it.

    Replicas that were known and do not answer stay, so that they are used again as soon as they do; who says something
    else of himself leaves.
    """
    silent = () if last is None else (node for shard in last.shards for node in shard.replicas)
    kept = {node.address: node for node in silent if node.address not in statements}
    known = {address: Node(address, said.run_id) for address, said in statements.items() if said.role.role == "replica"}
    replicas = {**kept, **known}
    master = None
    if election.master is not None:
        replicas.pop(election.master, None)
        master = Node(election.master, statements[election.master].run_id)
    elif last is not None:
        master = last.shards[0].master
    shard = Shard(master, tuple(replicas[address] for address in sorted(replicas)))
    return Topology((shard,), roles_matter=True)


class Census:
    """The last words of the nodes, and those whom only their master names. Its owner locks it."""

    def __init__(self) -> None:
        self.said: dict[Address, Statement] = {}
        self.invited: tuple[Address, ...] = ()
        """Replicas that a master names and nobody else: they are to be asked, too."""

    def note(self, address: Address, role: RoleReport | None, run_id: str) -> None:
        """A node has said what it is; None: it does not answer."""
        if role is None:
            self.said.pop(address, None)
        else:
            self.said[address] = Statement(role, run_id)

    def invite(self, masters: Iterable[Address], known: Iterable[Address]) -> None:
        """Replicas that these masters name are to be asked; those that nobody names any more are not."""
        have = set(known)
        named = [one for master in masters if master in self.said for one in self.said[master].role.replicas]
        self.invited = tuple(address for address in dict.fromkeys(named) if address not in have)
        for address in self.said.keys() - have - set(self.invited):
            del self.said[address]

    def joined(self, known: Iterable[Address]) -> tuple[Node, ...]:
        """Those of the invited that are replicas by their own word, and no node that is known by another address.

        A node may be known by a name and named by an IP address: its run id tells.
        """
        ids = {self.said[address].run_id for address in known if address in self.said} - {""}
        fresh = []
        for address in self.invited:
            said = self.said.get(address)
            if said is not None and said.role.role == "replica" and said.run_id and said.run_id not in ids:
                ids.add(said.run_id)
                fresh.append(Node(address, said.run_id))
        return tuple(fresh)
