"""A master and its replicas by their own word: who is what, where nobody else tells.

Decides which of the nodes that say "master" is the one, which replicas are its own, and whom it knows beyond those that
we do. Does no I/O and reads no clock. Addresses are as they are dialled.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

from hatopo.address import Address
from hatopo.topology._model import Node, Shard, Topology
from hatopo.topology._parse import RoleReport

ENOUGH = 3
"""Questions without an answer after which a node that nobody names any more is forgotten."""


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
Names = Mapping[Address, Collection[Address]]
"""Further addresses by which nodes are named."""


@dataclass(frozen=True, slots=True)
class Election:
    """Who is the master.

    Attributes:
        master: the one, or None where nobody says "master".
        others: those who say so as well.
    """

    master: Address | None
    others: tuple[Address, ...] = ()


def elect(
    statements: Statements,
    current: Address | None,
    seeds: Sequence[Address],
    names: Names,
    *,
    pending: bool = False,
) -> Election:
    """The master by the nodes' own word.

    Of several, the one that most of the others follow. Where that decides nothing, the one that was the master before:
    a replica that was started without its configuration says that it is a master, too, and has no data. At the very
    first, the one that has replicated most, then the one that was named first.

    The master before has its followers also while it does not answer: nobody takes its place who has no more of them.
    So has, at the very first, one that was not heard yet.

    Args:
        statements: of those who have a vote.
        current: the master before, or None.
        seeds: the nodes that the user has listed, in his order.
        names: further addresses by which nodes are named.
        pending: some of the seeds have not been heard yet, and may be the master.
    """
    claims = [address for address, said in statements.items() if said.role.role == "master"]
    if not claims:
        return Election(None)
    places = {address: place for place, address in enumerate(seeds)}
    votes = {address: _votes(address, statements, names) for address in claims}

    def weight(address: Address) -> tuple[int, bool, int, int]:
        offset = statements[address].role.offset
        return votes[address], address == current, offset, -places.get(address, len(places))

    master = max(claims, key=weight)
    if current is None:
        unsure = _may_be_another(master, votes[master], statements, seeds, names) or (pending and not votes[master])
    else:
        heard = any(current in _called(address, names) for address in statements)
        kept = 0 if heard else _votes(current, statements, names)
        unsure = 0 < kept >= votes[master]
    if unsure:
        return Election(None, tuple(claims))
    return Election(master, tuple(address for address in claims if address != master))


def _may_be_another(
    master: Address, votes: int, statements: Statements, seeds: Collection[Address], names: Names
) -> bool:
    """Whether more replicas follow somebody who has not been heard than this master.

    Where that is nobody whom the user has listed, it may be this master by an address of another network: then those
    of its own replicas count that it names by addresses which nobody has, either.
    """
    heard = {name for address in statements for name in _called(address, names)}
    strangers = len(set(statements[master].role.replicas) - heard)
    followed = Counter(said.role.master for said in statements.values() if said.role.role == "replica")
    return any(
        count > votes + (0 if address in seeds else strangers)
        for address, count in followed.items()
        if address is not None and address not in heard
    )


def _votes(address: Address, statements: Statements, names: Names) -> int:
    """How many replicas follow a node, by their word or by its own."""
    called = _called(address, names)
    said = statements.get(address)
    listed = set() if said is None else set(said.role.replicas)
    return sum(
        1
        for replica, word in statements.items()
        if word.role.role == "replica"
        and (word.role.master in called or not listed.isdisjoint(_called(replica, names)))
    )


def describe(
    statements: Statements,
    election: Election,
    last: Topology | None,
    names: Names,
    gone: Collection[Address] = (),
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
        family = _family(master.address, statements, names) if master.address in statements else None
        for address, node in replicas.items():
            known = replace(node, flagged=before.get(address, ""))
            replicas[address] = known if family is None else _judged(node, family, statements)
    shard = Shard(master, tuple(replicas[address] for address in sorted(replicas)))
    return Topology((shard,), roles_matter=True)


def _family(master: Address, statements: Statements, names: Names) -> set[Address]:
    """A master and those that follow it, also through each other: the addresses by which they may be named."""
    family = set(_called(master, names))
    rest = {address: said for address, said in statements.items() if said.role.role == "replica"}
    while True:
        listed = {one for address, said in statements.items() if address in family for one in said.role.replicas}
        joined = [
            address
            for address, said in rest.items()
            if said.role.master in family or not listed.isdisjoint(_called(address, names))
        ]
        if not joined:
            return family
        for address in joined:
            family |= _called(address, names)
            del rest[address]


def _judged(node: Node, family: set[Address], statements: Statements) -> Node:
    """A replica, flagged if it follows somebody else than this master or one of its replicas."""
    said = statements.get(node.address)
    if said is None or said.role.master is None or node.address in family:
        return node
    why = f"it follows {said.role.master}, which is not the master here (or known by another address: address_map=)"
    return replace(node, flagged=why)


def _called(address: Address, names: Names) -> set[Address]:
    """The addresses by which a node may be named."""
    return {address, *names.get(address, ())}


class Census:
    """The last words of the nodes, and those whom only other nodes name. Its owner locks it."""

    def __init__(self) -> None:
        self.said: dict[Address, Statement] = {}
        self.invited: tuple[Address, ...] = ()
        """Replicas that a master names, masters that a replica names, and nobody else: they are to be asked, too."""
        self._unheard: dict[Address, int] = {}  # how often nodes were asked in vain since their last answer
        self._peers: dict[Address, Address] = {}  # where nodes were reached that are dialled by name
        self._runs: dict[Address, str] = {}  # the run id that was last met at an address

    def note(self, address: Address, statement: Statement | None) -> None:
        """A node has said what it is; None: it does not answer."""
        if statement is None:
            self.said.pop(address, None)
            self._unheard[address] = self._unheard.get(address, 0) + 1
            return
        self.said[address] = statement
        self._runs[address] = statement.run_id
        self._unheard.pop(address, None)
        if statement.peer is not None and statement.peer != address:
            self._peers[address] = statement.peer

    @property
    def names(self) -> dict[Address, set[Address]]:
        """Further addresses of nodes: where they were reached, and where the same process was met."""
        met: dict[str, set[Address]] = {}
        for address, run_id in self._runs.items():
            if run_id:
                met.setdefault(run_id, set()).add(address)
        return {
            address: {*met.get(run_id, ()), self._peers.get(address, address)} - {address}
            for address, run_id in self._runs.items()
        }

    def has_heard(self, addresses: Iterable[Address]) -> bool:
        """Whether each of these has answered, or should have."""
        return all(address in self.said or address in self._unheard for address in addresses)

    @property
    def expects_more(self) -> bool:
        """Whether some of the invited have not been asked yet."""
        return not self.has_heard(self.invited)

    def voters(self, members: Collection[Address], current: Address | None) -> dict[Address, Statement]:
        """Those who have a say in who is the master, each once: whoever belongs.

        A master that does not belong has one where nothing is known yet and members name it, or if the master before
        says itself that it follows it now: a replica that was taken elsewhere takes nobody with it.
        """
        heard = {address: self.said[address] for address in members if address in self.said}
        if not any(said.role.role == "master" for said in heard.values()):
            leaders = heard if current is None else {current} & heard.keys()
            followed = {heard[address].role.master for address in leaders}
            more = [one for one in self.invited if one in followed and one in self.said]
            heard |= {address: self.said[address] for address in more if self.said[address].role.role == "master"}
        voters: dict[Address, Statement] = {}
        ids: set[str] = set()
        for address in sorted(heard, key=lambda one: one != current):  # who is known by two addresses counts once
            run_id = heard[address].run_id
            if run_id not in ids:
                voters[address] = heard[address]
                ids |= {run_id} - {""}
        return voters

    def gone(self, seeds: Collection[Address]) -> frozenset[Address]:
        """Those that have not answered for a while, that no master names, and that nobody has listed."""
        masters = [said.role for said in self.said.values() if said.role.role == "master"]
        if not masters:
            return frozenset()
        named = {one for role in masters for one in role.replicas}
        asked_in_vain = {address for address, count in self._unheard.items() if count >= ENOUGH}
        return frozenset(asked_in_vain - named - set(seeds))

    def invite(self, members: Collection[Address]) -> None:
        """Whom these name as their master or their replicas is asked, too; not so who is known by another address.

        So is whom a replica that we have asked names as its master: it may be ours, by another address.
        """
        names = self.names
        have = {name for address in members for name in _called(address, names)}
        words = [self.said[address].role for address in members if address in self.said]
        listed = [one for role in words for one in (*role.replicas, role.master)]
        listed += [self.said[address].role.master for address in self.invited if address in self.said]
        named = dict.fromkeys(one for one in listed if one is not None)
        kept = {*named, *members}
        self._unheard = {address: count for address, count in self._unheard.items() if address in kept}
        self._peers = {address: peer for address, peer in self._peers.items() if address in kept}
        self._runs = {address: run_id for address, run_id in self._runs.items() if address in kept}
        self.invited = tuple(one for one in named if one not in have)
        for address in self.said.keys() - set(members) - set(self.invited):
            del self.said[address]

    def joined(self, members: Collection[Address], masters: Collection[Address]) -> tuple[Node, ...]:
        """Those of the invited that are replicas of these masters by their own word, and tell who they are.

        Where a master lists an address that means another server here (NAT), that one follows somebody else.
        """
        ids = {self.said[address].run_id for address in members if address in self.said} - {""}
        names = self.names
        called = {name for address in masters for name in _called(address, names)}
        fresh = []
        for address in self.invited:
            said = self.said.get(address)
            if said is None or said.role.role != "replica" or said.role.master not in called:
                continue
            if said.run_id and said.run_id not in ids:
                ids.add(said.run_id)
                fresh.append(Node(address, said.run_id))
        return tuple(fresh)
