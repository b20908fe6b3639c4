"""What the sentinels of one service said last, and what that amounts to.

Decides whose word counts and for how long, and whom to believe: the highest epoch wins, because it takes a majority to
make one; but the word of a single sentinel never sends us to a node that nobody else knows. Does no I/O and reads no
clock. Its owner locks it.

It is no defence against a sentinel that lies to the others, too: they would follow it themselves.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from hatopo.address import Address
from hatopo.topology._discover import Answer, NotFound, backers_of, vouched, weigh
from hatopo.topology._model import Topology

FRESH = 30.0
"""Seconds for which a word counts in a vote."""
REMEMBERED = 120.0
"""Seconds for which a word vouches for a node."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the words amount to.

    Attributes:
        found: the newest topology that may be believed.
        majority: what more than half of all sentinels agree on, if that is another master.
        refused: (master, who names it): single words that are not believed.
    """

    found: Topology | NotFound
    majority: Topology | None = None
    refused: tuple[tuple[Address, str], ...] = ()


class Council:
    """The last word of each sentinel."""

    def __init__(self) -> None:
        self._words: dict[str, tuple[Answer, float]] = {}
        self._outvoted: dict[str, tuple[Address, int]] = {}  # claims that a majority and the nodes have refuted

    def note(self, answer: Answer, now: float) -> None:
        """Takes in what a sentinel has said; an error is no word."""
        if answer.error:
            return
        for who in [who for who, (word, _) in self._words.items() if word.sentinel == answer.sentinel]:
            del self._words[who]  # another sentinel may be at its address by now
        self._words[answer.who] = (answer, now)
        if answer.who in self._outvoted and not self._is_outvoted(answer):
            del self._outvoted[answer.who]
        for who in [who for who, (_, at) in self._words.items() if now - at > REMEMBERED]:
            del self._words[who]

    def answers(self, now: float, age: float = REMEMBERED) -> list[Answer]:
        """What was said within the last `age` seconds, and still counts."""
        return [word for word, at in self._words.values() if now - at <= age and not self._is_outvoted(word)]

    def _is_outvoted(self, word: Answer) -> bool:
        """Whether a sentinel says again what has been refuted: the same master, at no higher epoch."""
        claim = self._outvoted.get(word.who)
        if claim is None or word.report is None:
            return False
        return word.report.address == claim[0] and word.report.epoch <= claim[1]

    def judge(self, asked: int, confirmed: Topology | None, now: float, *, permitted: bool = False) -> Verdict:
        """What the words amount to.

        Args:
            asked: how many sentinels there are.
            confirmed: the view that was confirmed last.
            now: the moment.
            permitted: the user permits every announced address that gets here.
        """
        fresh = self.answers(now, FRESH)
        asked -= sum(1 for answer in fresh if answer.report is None)  # they do not watch the service
        rest, refused = fresh, list[tuple[Address, str]]()
        while True:
            found = weigh(rest, asked)
            if isinstance(found, NotFound) or permitted or not self._doubtful(found, fresh, confirmed, now):
                break
            backers = backers_of(found.masters[0], rest)
            refused.append((found.masters[0], ", ".join(str(answer.sentinel) for answer in backers)))
            rest = [answer for answer in rest if answer not in backers]
        if isinstance(found, NotFound) and refused and confirmed is None:
            return Verdict(weigh(fresh, asked))  # one word against another, and nothing else is known
        return Verdict(found, self._majority(found, fresh, asked), tuple(refused))

    def _doubtful(self, found: Topology, fresh: Collection[Answer], confirmed: Topology | None, now: float) -> bool:
        """Whether a single sentinel says this, of a node that no other one knows."""
        master = found.masters[0]
        backers = {answer.who for answer in backers_of(master, fresh)}
        if found.agreed or len(backers) > 1 or (confirmed is not None and master in confirmed.masters):
            return False
        if confirmed is None and all(answer.report is None or answer.who in backers for answer in fresh):
            return False  # nobody has said anything else
        return not vouched(master, self.answers(now), besides=backers)

    def _majority(self, found: Topology | NotFound, fresh: Collection[Answer], asked: int) -> Topology | None:
        for address in {answer.report.address for answer in fresh if answer.report is not None}:
            backers = backers_of(address, fresh)
            if len(backers) * 2 <= asked or (isinstance(found, Topology) and address in found.masters):
                continue
            agreed = weigh(backers, asked)
            if isinstance(agreed, Topology) and not (isinstance(found, Topology) and agreed.epoch >= found.epoch):
                return agreed
        return None

    def vouches(self, address: Address, besides: Address, now: float) -> bool:
        """Whether another sentinel than the one at `besides` has this node among those of the service."""
        answers = self.answers(now)
        claims = {answer.who for answer in answers if answer.sentinel == besides}
        return vouched(address, answers, besides=claims)

    def dissent(self, found: Topology, now: float) -> frozenset[Address]:
        """Other masters that are named at a higher epoch than `found` has."""
        reports = (answer.report for answer in self.answers(now, FRESH) if answer.report is not None)
        return frozenset(r.address for r in reports if r.epoch > found.epoch and r.address not in found.masters)

    def outvote(self, found: Topology, now: float) -> None:
        """A majority has put `found` in force: claims of a higher epoch count no more, until they are others."""
        for answer in self.answers(now):
            if answer.report is not None and answer.report.epoch > found.epoch:
                self._outvoted[answer.who] = answer.report.address, answer.report.epoch
