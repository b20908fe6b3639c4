"""A master and its replicas by their own word: who is what, where nobody else tells.

Decides which of the nodes that say "master" is the one, which replicas are its own, and whom it knows beyond those that
we do. Does no I/O and reads no clock. Addresses are as they are dialled.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hatopo.address import Address
from hatopo.topology._model import Node, Shard, Topology
from hatopo.topology._parse import RoleReport

ENOUGH = 3
"""Questions without an answer after which a node that only its master names is asked no more."""


@dataclass(frozen=True, slots=True)
class Statement:
    """What a node said of itself.

    Attributes:
        role: its role.
        run_id: its identity, or "" where it does not tell.
        peer: the IP address and port at which it was reached, if it is dialled by name.
    """

    role: RoleReport
    run_id: str = ""
    peer: Address | None = None


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
        role, names = statements[address].role, _names(address, statements)
        naming = sum(1 for said in statements.values() if said.role.master in names)
        return max(len(role.replicas), naming), address == current, role.offset, -places.get(address, len(places))

    master = max(claims, key=weight)
    return Election(master, tuple(address for address in claims if address != master))


def describe(
    statements: Statements, election: Election, last: Topology | None, gone: Collection[Address] = ()
) -> Topology:
    """The deployment as its nodes describe it, without those that have `gone` for good.

    Replicas that were known and do not answer stay, so that they are used again as soon as they do. Those that follow
    somebody else stay, flagged: their data are not this master's. While the master does not answer, what was held
    against them before still is.
    """
    silent = () if last is None else last.shards[0].replicas
    replicas = {node.address: node for node in silent if node.address not in statements and node.address not in gone}
    for address, said in statements.items():
        if said.role.role == "replica":
            replicas[address] = Node(address, said.run_id)
    master = None if last is None else last.shards[0].master
    if election.master is not None:
        master = Node(election.master, statements[election.master].run_id)
    elif master is not None and master.address in statements:
        master = None  # it says itself that it is none
    if master is not None:
        replicas.pop(master.address, None)
        before = {node.address: node.flagged for node in silent}
        family = _family(master.address, statements) if master.address in statements else None
        for address, node in replicas.items():
            known = replace(node, flagged=before.get(address, ""))
            replicas[address] = known if family is None else _judged(node, family, statements)
    shard = Shard(master, tuple(replicas[address] for address in sorted(replicas)))
    return Topology((shard,), roles_matter=True)


def _family(master: Address, statements: Statements) -> set[Address]:
    """A master and those that follow it, also through each other: the addresses by which they may be named."""
    family = _names(master, statements)
    rest = {address: said for address, said in statements.items() if said.role.role == "replica"}
    while True:
        listed = {one for address, said in statements.items() if address in family for one in said.role.replicas}
        joined = [
            address
            for address, said in rest.items()
            if said.role.master in family or not listed.isdisjoint(_names(address, statements))
        ]
        if not joined:
            return family
        for address in joined:
            family |= _names(address, statements)
            del rest[address]


def _judged(node: Node, family: set[Address], statements: Statements) -> Node:
    """A replica, flagged if it follows somebody else than this master or one of its replicas."""
    said = statements.get(node.address)
    if said is None or said.role.master is None or node.address in family:
        return node
    why = f"it follows {said.role.master}, which is not the master here (or known by another address: address_map=)"
    return replace(node, flagged=why)


def _names(address: Address, statements: Statements) -> set[Address]:
    """The addresses by which a node may be named."""
    said = statements.get(address)
    return {address} if said is None or said.peer is None else {address, said.peer}


class Census:
    """The last words of the nodes, and those whom only their master names. Its owner locks it."""

    def __init__(self) -> None:
        self.said: dict[Address, Statement] = {}
        self.invited: tuple[Address, ...] = ()
        """Replicas that a master names and nobody else: they are to be asked, too."""
        self._unheard: dict[Address, int] = {}  # how often one of them was asked in vain

    def note(self, address: Address, statement: Statement | None) -> None:
        """A node has said what it is; None: it does not answer."""
        if statement is not None:
            self.said[address] = statement
            self._unheard.pop(address, None)
        else:
            self.said.pop(address, None)
            self._unheard[address] = self._unheard.get(address, 0) + 1

    @property
    def expects_more(self) -> bool:
        """Whether some of the invited have not been asked yet."""
        return any(address not in self.said and address not in self._unheard for address in self.invited)

    def gone(self, seeds: Collection[Address]) -> frozenset[Address]:
        """Those that have not answered for a while, that no master names, and that nobody has listed."""
        masters = [said.role for said in self.said.values() if said.role.role == "master"]
        if not masters:
            return frozenset()
        named = {one for role in masters for one in role.replicas}
        asked_in_vain = {address for address, count in self._unheard.items() if count >= ENOUGH}
        return frozenset(asked_in_vain - named - set(seeds))

    def invite(self, masters: Iterable[Address], known: Iterable[Address]) -> None:
        """Replicas that these masters name are to be asked, but those that we know by another address, or ask in vain.

        A node may be known by a name and named by an IP address: the place where it was reached tells, or its run id.
        """
        have = {name for address in known for name in _names(address, self.said)}
        ids = {self.said[address].run_id for address in known if address in self.said} - {""}
        named = [one for master in masters if master in self.said for one in self.said[master].role.replicas]
        kept = {*named, *known}
        self._unheard = {address: count for address, count in self._unheard.items() if address in kept}
        for address in named:
            if address in self.said and self.said[address].run_id in ids:
                self._unheard[address] = ENOUGH
        self.invited = tuple(
            address
            for address in dict.fromkeys(named)
            if address not in have and self._unheard.get(address, 0) < ENOUGH
        )
        for address in self.said.keys() - have - set(self.invited):
            del self.said[address]

    def joined(self, known: Iterable[Address]) -> tuple[Node, ...]:
        """Those of the invited that are replicas by their own word, and tell who they are."""
        ids = {self.said[address].run_id for address in known if address in self.said} - {""}
        fresh = []
        for address in self.invited:
            said = self.said.get(address)
            if said is not None and said.role.role == "replica" and said.run_id and said.run_id not in ids:
                ids.add(said.run_id)
                fresh.append(Node(address, said.run_id))
        return tuple(fresh)
