"""Finding out what the topology is: a generator that is fed answers and ends with a verdict.

Decides whose word counts and when enough have spoken. Does no I/O: the driver puts the same question to every
sentinel at once, feeds the answers in the order in which they come, and stops when the generator does.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

from hatopo.address import Address
from hatopo.topology._model import Node, Shard, Topology
from hatopo.topology._parse import MasterReport

GRACE = 0.050
"""Seconds for the others to speak after the first usable answer."""


@dataclass(frozen=True, slots=True)
class Answer:
    """What one sentinel said.

    Attributes:
        sentinel: who.
        report: the master it names, or None.
        names: when it does not know the service: those that it does know.
        error: when it could not be asked: why.
    """

    sentinel: Address
    report: MasterReport | None = None
    names: tuple[str, ...] = ()
    error: str = ""


@dataclass(frozen=True, slots=True)
class Listen:
    """Feed me the next answer, or None if none comes within `seconds` (None: as long as any may come)."""

    seconds: float | None


@dataclass(frozen=True, slots=True)
class NotFound:
    """No usable answer: what each one said."""

    answers: tuple[Answer, ...]


Discovery: TypeAlias = "Generator[Listen, Answer | None, Topology | NotFound]"


def discover_master(sentinels: Sequence[Address]) -> Discovery:
    """Finds the master of a service from what its sentinels say.

    The highest config epoch wins; at the same epoch a sentinel in the middle of a failover (which already
    names the promoted replica) wins over those that have not heard of it, then the larger number. The node's
    own role, confirmed in its handshake, has the last word.
    """
    answers: list[Answer] = []
    listen = Listen(None)
    while len(answers) < len(sentinels):
        answer = yield listen
        if answer is None:
            break
        answers.append(answer)
        if _agreed(answers, len(sentinels)) is not None:
            break
        if answer.report is not None:
            listen = Listen(GRACE)
    return _verdict(answers, len(sentinels))


def _agreed(answers: Sequence[Answer], asked: int) -> MasterReport | None:
    """The report that a majority of all asked gives, if it is also the newest that anyone gives."""
    best = _best(answers)
    if best is None or _votes(answers, best) * 2 <= asked:
        return None
    return best


def _votes(answers: Sequence[Answer], report: MasterReport) -> int:
    return sum(1 for a in answers if a.report is not None and a.report.address == report.address)


def _best(answers: Sequence[Answer]) -> MasterReport | None:
    reports = [answer.report for answer in answers if answer.report is not None]
    if not reports:
        return None
    return max(reports, key=lambda r: (r.epoch, r.promoting, _votes(answers, r), bool(r.run_id)))


def _verdict(answers: Sequence[Answer], asked: int) -> Topology | NotFound:
    best = _best(answers)
    if best is None:
        return NotFound(tuple(answers))
    heard = sum(1 for answer in answers if answer.report is not None)
    agreed = _votes(answers, best) * 2 > heard and heard * 2 > asked
    shard = Shard(Node(best.address, best.run_id))
    return Topology((shard,), epoch=best.epoch, agreed=agreed, roles_matter=True)
