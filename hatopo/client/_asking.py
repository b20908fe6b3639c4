"""Asking sentinels about a service: one of them on a connection, or all of them in one round.

A thread per question, so that a frozen sentinel costs nothing; where threads cannot be started the sentinels are asked
one after another. What the answers amount to is decided by `topology.discover_master`.
"""

from __future__ import annotations

import queue
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from time import monotonic
from typing import Protocol, TypeAlias, TypeVar

from hatopo import errors
from hatopo.address import Address
from hatopo.client._threads import start_thread
from hatopo.connection import Patience, Wire
from hatopo.topology import (
    Answer,
    Joined,
    NotFound,
    Refused,
    ReplicaReport,
    SentinelReport,
    Topology,
    discover_master,
    parse_master,
    parse_names,
    parse_replicas,
    parse_sentinels,
)

QUERY_TIMEOUT = 0.5
"""Seconds that one sentinel may take, its connection included."""
QUESTIONS = 5


R = TypeVar("R", ReplicaReport, SentinelReport)
Admit: TypeAlias = "Callable[[Address, Address], Address | Refused]"
"""From an announced address, and the sentinel that announced it, to the one that is to be dialled."""


def pack_questions(wire: Wire, service: str) -> bytes:
    """What a sentinel is asked about a service; `QUESTIONS` replies come."""
    questions = (
        ("SENTINEL MASTER", service),
        ("SENTINEL GET-MASTER-ADDR-BY-NAME", service),
        ("SENTINEL REPLICAS", service),
        ("SENTINEL SENTINELS", service),
        ("SENTINEL MYID",),
    )
    return b"".join(wire.pack(question) for question in questions)


def ask(wire: Wire, service: str, admit: Admit) -> Answer:
    """Asks one sentinel on a connection to it.

    Raises:
        NodeError: the connection is closed.
    """
    patience = Patience(QUERY_TIMEOUT, monotonic() + QUERY_TIMEOUT)
    wire.send(pack_questions(wire, service), patience)
    replies: list[object] = []
    wire.read_into(replies, QUESTIONS, patience)
    if isinstance(replies[0], Exception) and "no such master" in str(replies[0]).lower():
        wire.send(wire.pack(("SENTINEL MASTERS",)), patience)
        listed = wire.read(patience)
        names = None if isinstance(listed, Exception) else parse_names(listed)
        return Answer(wire.wire.address, names=names)
    return answer_of(wire.wire.address, replies, admit)


def answer_of(sentinel: Address, replies: Sequence[object], admit: Admit) -> Answer:
    """What the replies to the questions say, in addresses that may be dialled."""
    state, endpoint, replicas, sentinels, identity = replies
    report = parse_master(_or_none(state), _or_none(endpoint))
    me = identity if isinstance(identity, (bytes, str)) else b""
    if report is None:
        why = next((errors.clip(reply) for reply in (endpoint, state) if isinstance(reply, Exception)), "")
        return Answer(sentinel, error=why or "the reply makes no sense")
    master = admit(report.address, sentinel)
    if isinstance(master, Refused):
        return Answer(sentinel, error=f"names {report.address} as the master, which is refused: {master.why}")
    return Answer(
        sentinel,
        id=me.decode("ascii", "replace") if isinstance(me, bytes) else me,
        report=replace(report, address=master),
        replicas=_admitted(parse_replicas(_or_none(replicas)), sentinel, admit),
        sentinels=_admitted(parse_sentinels(_or_none(sentinels)), sentinel, admit),
    )


def _admitted(reports: Iterable[R], sentinel: Address, admit: Admit) -> tuple[R, ...]:
    """Those at addresses that may be dialled, with these."""
    places = ((one, admit(one.address, sentinel)) for one in reports)
    return tuple(replace(one, address=place) for one, place in places if isinstance(place, Address))


def _or_none(reply: object) -> object:
    return None if isinstance(reply, Exception) else reply


class Sentinels(Protocol):
    """Whom a round asks."""

    seeds: tuple[Address, ...]

    def addresses(self) -> tuple[Address, ...]:
        """All that are known."""

    def expand(self, seed: Address, addresses: Sequence[Address]) -> tuple[Address, ...]:
        """A seed's name stands for these addresses; those of them that were not known."""

    def collapse(self, address: Address) -> None:
        """One of them could not be asked."""

    def ask(self, sentinel: Address, service: str) -> Answer:
        """Asks one of them on a connection of its own; may raise."""


class Round:
    """The same questions to every sentinel at once, and the answers as they come.

    Args:
        sentinels: whom to ask.
        service: about what.
        under_way: those who have not answered an earlier round yet: they are not asked again.
    """

    def __init__(self, sentinels: Sentinels, service: str, under_way: set[Address]) -> None:
        self._sentinels = sentinels
        self._service = service
        self._under_way = under_way
        self._answers: queue.SimpleQueue[Answer | Joined] = queue.SimpleQueue()
        self._late: list[Address] = []  # for whom no thread could be started

    def run(self, until: float, heard: Callable[[Answer], None]) -> Topology | NotFound:
        """Returns within twice `QUERY_TIMEOUT`, at `until` at the latest. `heard` is told of each answer."""
        asked = self._sentinels.addresses()
        discovery = discover_master(len(asked))
        end = min(until, monotonic() + 2 * QUERY_TIMEOUT)
        self._ask_all(asked)
        try:
            listen = next(discovery)
            while True:
                if self._late and monotonic() < end:
                    self._answers.put(self._ask(self._late.pop(0)))
                left = end - monotonic()
                patience = left if listen.seconds is None else min(left, listen.seconds)
                try:
                    answer: Answer | Joined | None = self._answers.get(timeout=max(patience, 0.001))
                except queue.Empty:
                    answer = None
                if isinstance(answer, Answer):
                    heard(answer)
                listen = discovery.send(answer)
        except StopIteration as done:
            found: Topology | NotFound = done.value
            return found

    def _ask_all(self, sentinels: Sequence[Address]) -> None:
        for sentinel in sentinels:
            if sentinel in self._under_way:
                self._answers.put(Answer(sentinel, error="has not answered the last questions yet"))
                continue

            def question(whom: Address = sentinel) -> None:
                try:
                    self._answers.put(self._ask(whom))
                finally:
                    self._under_way.discard(whom)

            self._under_way.add(sentinel)
            if not start_thread("hatopo-ask", question):
                self._under_way.discard(sentinel)
                self._late.append(sentinel)

    def _ask(self, sentinel: Address) -> Answer:
        try:
            addresses = addresses_behind(sentinel) if sentinel in self._sentinels.seeds else ()
            if len(addresses) > 1:  # a name that stands for several sentinels: each is asked
                others = [one for one in self._sentinels.expand(sentinel, addresses) if one != addresses[0]]
                self._answers.put(Joined(len(others)))
                self._ask_all(others)
                sentinel = addresses[0]
            return self._sentinels.ask(sentinel, self._service)
        except Exception as error:  # whatever it is, this sentinel has no answer
            self._sentinels.collapse(sentinel)
            return Answer(sentinel, error=errors.clip(error))


def addresses_behind(sentinel: Address) -> tuple[Address, ...]:
    """The addresses that a name stands for, if several hosts share it; () if not, or if it is no name."""
    found = addresses_of(sentinel) or ()  # without an answer the dial will say so
    return found if len(found) > 1 else ()


def addresses_of(place: Address) -> tuple[Address, ...] | None:
    """The addresses that a name stands for; () if it is no name, None if that cannot be found out now.

    One host with an address of each family is one host.
    """
    if place.is_ip:
        return ()
    try:
        found = socket.getaddrinfo(place.host, place.port, type=socket.SOCK_STREAM)
    except (OSError, UnicodeError):  # IDNA refuses a name that is too long
        return None
    families = (socket.AF_INET, socket.AF_INET6)
    hosts = [sorted({str(entry[4][0]) for entry in found if entry[0] == family}) for family in families]
    return tuple(Address(host, place.port) for host in max(hosts, key=len))
