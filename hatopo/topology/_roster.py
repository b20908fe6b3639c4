"""Which sentinels there are: those that were configured and those that they have told of.

Decides whom to ask. The configured ones (seeds) are asked for ever; learned ones as long as anybody still lists them.
Tells sentinels apart by their ids, because one may be known by a name and by an address. Its owner locks it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from hatopo.address import Address
from hatopo.topology._discover import Answer

MAX_SENTINELS = 50
"""More than anybody runs: a liar must not make us dial without end."""


class Roster:
    """See the module."""

    def __init__(self, seeds: Sequence[Address]) -> None:
        self.seeds = tuple(seeds)
        self._behind: dict[Address, tuple[Address, ...]] = {}  # what a seed's name stands for, if for several
        self._ids: dict[Address, str] = {}
        self._learned: dict[str, Address] = {}
        self._silent: set[Address] = set()  # could not be asked last time

    def addresses(self) -> tuple[Address, ...]:
        """Every sentinel once: the seeds in their order, then the learned; where it answers, if it has moved."""
        found: dict[str, Address] = {}
        seeds = [address for seed in self.seeds for address in self._behind.get(seed, (seed,))]
        for address in (*seeds, *self._learned.values()):
            who = self._ids.get(address, "") or str(address)
            if who not in found or (found[who] in self._silent and address not in self._silent):
                found[who] = address
        return tuple(dict.fromkeys(found.values()))

    def expand(self, seed: Address, addresses: Sequence[Address]) -> tuple[Address, ...]:
        """A seed's name stands for these addresses now; those of them that nobody was told of yet."""
        known = self.addresses()
        if len(addresses) > 1:
            self._behind[seed] = tuple(addresses)
        else:
            self._behind.pop(seed, None)
        return tuple(address for address in addresses if address not in known)

    def name_of(self, address: Address) -> str | None:
        """The host name behind which this address was found."""
        return next((seed.host for seed, behind in self._behind.items() if address in behind), None)

    def collapse(self, address: Address) -> None:
        """A sentinel could not be asked: it may have moved, and a name that stood for it is to be looked up again."""
        self._silent.add(address)
        for seed in [seed for seed, behind in self._behind.items() if address in behind]:
            del self._behind[seed]

    def note(self, answer: Answer, others: Iterable[Answer]) -> tuple[Address, ...]:
        """Takes in what a sentinel said of itself and of others; the sentinels that are news.

        Args:
            answer: what it said.
            others: the latest words of all sentinels: a learned one that nobody lists any more is forgotten.
        """
        self._silent.discard(answer.sentinel)
        if answer.id:
            self._ids[answer.sentinel] = answer.id
        known = {self._ids.get(address, "") for address in self.addresses() if address not in self._silent}
        addresses = set(self.addresses())
        news = []
        for report in answer.sentinels:
            if not report.id or report.id == answer.id or len(self._learned) >= MAX_SENTINELS:
                continue
            if report.id in self._learned:
                if self._learned[report.id] != report.address:  # it has moved
                    self._ids.pop(self._learned[report.id], None)
                    self._learned[report.id] = report.address
                    self._ids[report.address] = report.id
            elif report.id not in known and report.address not in addresses:
                self._learned[report.id] = report.address
                self._ids[report.address] = report.id
                news.append(report.address)
        if answer.report is not None:
            self._forget([answer, *others])
        return tuple(news)

    def _forget(self, answers: Iterable[Answer]) -> None:
        listed = {report.id for each in answers for report in each.sentinels}
        listed |= {each.id for each in answers if each.id}
        for identity in [one for one in self._learned if one not in listed]:
            self._ids.pop(self._learned.pop(identity), None)
