"""Finding out what the topology is, from what sentinels say.

Decides whose word counts and when enough have spoken. Does no I/O: the driver of a round puts the same questions to
every sentinel at once, feeds the answers in the order in which they come, and stops when the generator does.
"""

from __future__ import annotations

from collections.abc import Collection, Generator, Iterable, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hatopo.address import Address
from hatopo.topology._model import Node, Shard, Topology
from hatopo.topology._parse import MasterReport, ReplicaReport, SentinelReport

GRACE = 0.050
"""Seconds for the others to speak after the first usable answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one sentinel said of a service. Addresses are as they are to be dialled.

    Attributes:
        sentinel: who.
        id: its run id, or "" where it does not tell.
        report: the master it names, or None.
        replicas, sentinels: the replicas and the other sentinels that it knows.
        names: when it does not know the service: those that it does know; None where it does not tell.
        error: when it could not be asked: why.
    """

    sentinel: Address
    id: str = ""
    report: MasterReport | None = None
    replicas: tuple[ReplicaReport, ...] = ()
    sentinels: tuple[SentinelReport, ...] = ()
    names: tuple[str, ...] | None = None
    error: str = ""

    @property
    def who(self) -> str:
        """What tells it apart from the others: its id, or its address."""
        return self.id or str(self.sentinel)


@dataclass(frozen=True, slots=True)
class Listen:
    """Feed me the next answer, or None if none comes within `seconds` (None: as long as any may come)."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class Joined:
    """Fed in the place of an answer: a name has turned out to be `count` sentinels more, which are asked, too."""

    count: int


@dataclass(frozen=True, slots=True)
class NotFound:
    """No usable answer: what each one said."""

    answers: tuple[Answer, ...]


Discovery: TypeAlias = "Generator[Listen, Answer | Joined | None, Topology | NotFound]"


def discover_master(asked: int) -> Discovery:
    """One round: finds the master of a service from what `asked` sentinels say.

    It ends when a majority of them agrees on the newest that anybody says, shortly (`GRACE`) after the first usable
    answer, or when all have spoken.
    """
    answers: dict[str, Answer] = {}
    spoken = 0
    listen = Listen(None)
    while spoken < asked:
        answer = yield listen
        if answer is None:
            break
        if isinstance(answer, Joined):
            asked += answer.count
            continue
        spoken += 1
        if answer.who in answers:
            asked, spoken = asked - 1, spoken - 1  # one sentinel at two addresses
        answers[answer.who] = answer
        if answer.report is None and not answer.error:
            asked, spoken = asked - 1, spoken - 1  # it does not watch the service
        found = weigh(answers.values(), asked)
        if isinstance(found, Topology) and found.agreed:
            return found
        if answer.report is not None:
            listen = Listen(GRACE)
    return weigh(answers.values(), asked)


def weigh(answers: Collection[Answer], asked: int) -> Topology | NotFound:
    """What the words of several sentinels amount to; `asked` is how many there are in all.

    The highest config epoch wins; at the same epoch a sentinel in the middle of a failover (which already
    names the promoted replica) wins over those that have not heard of it, then the larger number. The node's
    own role, confirmed in its handshake, has the last word.
    """
    best = _best(answers)
    if best is None:
        return NotFound(tuple(answers))
    backers = backers_of(best.address, answers)
    reports: dict[Address, list[ReplicaReport]] = {}
    for replica in (one for answer in backers for one in answer.replicas if one.address != best.address):
        reports.setdefault(replica.address, []).append(replica)
    replicas = {address: _replica(said, len(backers)) for address, said in reports.items()}
    run_id = best.run_id or _run_id(answers, best.address)
    shard = Shard(Node(best.address, run_id), tuple(replicas[address] for address in sorted(replicas)))
    return Topology((shard,), epoch=best.epoch, agreed=len(backers) * 2 > asked, roles_matter=True)


def _replica(reports: Sequence[ReplicaReport], asked: int) -> Node:
    """A replica, flagged if more than half of those who were asked about the service hold it to be down."""
    down = [report for report in reports if not _DOWN.isdisjoint(report.flags)]
    last = reports[-1]
    return Node(last.address, last.run_id, "the sentinels hold it to be down" if len(down) * 2 > asked else "")


_DOWN = frozenset({"s_down", "o_down"})


def vouched(address: Address, answers: Iterable[Answer], *, besides: Collection[str]) -> bool:
    """Whether a sentinel other than `besides` (see `Answer.who`) has this node among those of the service."""
    return any(
        answer.who not in besides
        and (
            (answer.report is not None and answer.report.address == address)
            or any(replica.address == address for replica in answer.replicas)
        )
        for answer in answers
    )


def backers_of(address: Address, answers: Iterable[Answer]) -> tuple[Answer, ...]:
    """Those who name the node at this address as the master."""
    return tuple(a for a in answers if a.report is not None and a.report.address == address)


def _best(answers: Iterable[Answer]) -> MasterReport | None:
    reports = [answer.report for answer in answers if answer.report is not None]
    if not reports:
        return None
    votes = {report.address: sum(1 for r in reports if r.address == report.address) for report in reports}
    return max(reports, key=lambda r: (r.epoch, r.promoting, votes[r.address], bool(r.run_id)))


def _run_id(answers: Iterable[Answer], address: Address) -> str:
    """The run id by which the node was known while it was a replica."""
    ids = (replica.run_id for a in answers for replica in a.replicas if replica.address == address and replica.run_id)
    return next(ids, "")


def explain(service: str, sentinels: Sequence[Address], answers: Iterable[Answer]) -> tuple[str, bool]:
    """Why no master was found: what each sentinel said, and whether the service is unknown to all of them."""
    said = {answer.sentinel: answer for answer in answers}
    parts = []
    for sentinel in dict.fromkeys((*sentinels, *said)):
        answer = said.get(sentinel)
        if answer is None:
            parts.append(f"{sentinel} did not answer in time")
        elif answer.error:
            parts.append(answer.error if str(sentinel) in answer.error else f"{sentinel}: {answer.error}")
        elif answer.names is None:
            parts.append(f"{sentinel} does not watch it")
        else:
            known = ", ".join(map(repr, answer.names)) or "no service at all"
            parts.append(f"{sentinel} watches {known}")
    unknown = bool(said) and all(not answer.error and answer.report is None for answer in said.values())
    unknown = unknown and len(said) >= len(sentinels)
    if unknown:
        return f"no sentinel watches a service {service!r}: {'; '.join(parts)}", True
    return f"no sentinel names a master of {service!r}: {'; '.join(parts)}", False
