"""Asking nodes how they are: a thread that puts PING and ROLE to each of them, less than a second apart.

Decides when a node is asked, and how long its silence is silence. What an answer means is decided in `routing`. Each
node has one connection that is kept; whoever cannot be reached is visited by a short thread, so that a node that hangs
holds up nobody. Holds its owner weakly: the thread ends with it, or when nobody wants to know any more.
"""

from __future__ import annotations

import logging
import queue
import threading
import weakref
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Protocol

import redis.exceptions as rx

from hatopo import errors
from hatopo.address import Address
from hatopo.client._threads import start_thread
from hatopo.connection import Patience, Wire, readable_wires
from hatopo.routing import Checkup, read_checkup

log = logging.getLogger("hatopo.topology")

GAP = 0.75
"""Seconds between two rounds: with the answer's way, what happens to a node is known within a second."""
HURRY = 0.05
"""Seconds between two rounds that somebody is in a hurry for."""
SHORT_SILENCE, LONG_SILENCE = 0.3, 1.0
"""Seconds without an answer after which a node comes last, and after which it is taken for dead."""
VISIT = 0.5
"""Seconds for a connection, the handshake and an answer."""
LOGIN_PAUSE = 5.0
"""Seconds for which a node that refuses the login is left alone, at the most: accounts are locked for less."""
NAME_LASTS = 5.0
"""Seconds after which a node that is known by name is dialled anew: the name may lead elsewhere by now."""


def _why(error: Exception) -> str:
    """What is told of a failure: nothing of what a user's function has said, which may be a secret."""
    return errors.clip(error) if isinstance(error, rx.RedisError) else f"{type(error).__name__} in a user's function"


class Owner(Protocol):
    """Who wants to know."""

    @property
    def version(self) -> int:
        """Counts the changes of what is known."""

    def wanted(self) -> bool:
        """Whether anybody still does; False ends the thread."""

    def targets(self) -> Iterable[Address]:
        """Whom to ask."""

    def make_line(self, address: Address) -> Wire:
        """An unconnected connection for questions; may raise."""

    def heard(self, address: Address, checkup: Checkup, *, fresh: bool = True) -> bool:
        """A node has answered, or should have; `fresh`: it was dialled for this. False: it is to be dialled anew."""

    def looked(self) -> None:
        """A round has ended."""


class Line:
    """The connection to one node, and the question that is under way on it."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.wire: Wire | None = None
        self.renew_at = float("inf")  # when the connection is replaced
        self.failures = 0  # visits in vain since the last answer
        self.visit_at = 0.0  # not before this moment is it visited again
        self.asked: float | None = None  # when the question under way was put; None: there is none
        self.number = 0  # of the round in which it was put
        self.visited = False  # a short thread is at it
        self.report = "ROLE"  # INFO where that is not permitted
        self.replies: list[object] = []

    def close(self) -> None:
        """Ends the connection."""
        wire, self.wire, self.asked, self.replies = self.wire, None, None, []
        if wire is not None:
            wire.disconnect()

    def question(self, wire: Wire) -> bytes:
        """What a node is asked; two replies come."""
        report = ("ROLE",) if self.report == "ROLE" else ("INFO", "replication")
        return wire.pack(("PING",)) + wire.pack(report)

    def read(self, number: int, wire: Wire, replies: list[object], latency: float) -> Checkup:
        """What the two replies say."""
        ping, report = replies[:2]
        if isinstance(report, rx.NoPermissionError) and self.report == "ROLE":
            self.report = "INFO"  # from the next question on
        found = read_checkup(number, ping, report, latency)
        return replace(found, zone=wire.zone, run_id=wire.run_id, peer=wire.peer)


class Monitor:
    """See the module."""

    def __init__(self, owner: weakref.ref[Owner]) -> None:
        self._owner = owner
        self._lines: dict[Address, Line] = {}
        self._visits: queue.SimpleQueue[tuple[Line, Wire | None, Checkup]] = queue.SimpleQueue()
        self._number = 0
        self._doubted: set[Address] = set()  # whose connections are to be replaced
        self._stopped = False
        self._bell = threading.Lock()  # released to end a pause
        self._bell.acquire()

    def start(self) -> bool:
        """Begins, on a thread of its own; False where there can be none."""
        return start_thread("hatopo-health", self._run)

    def stop(self) -> None:
        """Ends the thread, from any other."""
        self._stopped = True
        self.hurry()

    def hurry(self) -> None:
        """Has the next round begin at once."""
        with suppress(RuntimeError):
            self._bell.release()

    def doubt(self, address: Address) -> None:
        """Has a node dialled anew for the next question: its name may lead to another by now. In the thread only."""
        self._doubted.add(address)

    def disown(self) -> None:
        """In a forked child, where the thread does not exist: lets go of what is the parent's."""
        self._stopped = True
        for line in self._lines.values():
            if line.wire is not None:
                line.wire.disown()

    def _run(self) -> None:
        vain = 0  # rounds in a hurry that brought nothing new: the next one may wait longer
        try:
            while not self._stopped:
                owner = self._owner()
                if owner is None or not owner.wanted():
                    return
                began, version = monotonic(), owner.version
                try:
                    self._round(owner)
                except Exception:  # whatever it is, somebody must go on asking
                    log.exception("a round of questions has failed")
                vain = 0 if owner.version != version else min(vain + 1, 4)
                del owner
                if not self._pause_until(began + min(HURRY * 2**vain, GAP), self._next_round(began)):
                    vain = 0
        finally:
            for line in self._lines.values():
                line.close()

    def _next_round(self, began: float) -> float:
        """When the next round is due: after a gap, or when somebody has been silent for too long."""
        now = monotonic()
        ends = [line.asked + LONG_SILENCE for line in self._lines.values() if line.asked is not None]
        return min([began + GAP, *(end for end in ends if end > now)])

    def _pause_until(self, earliest: float, latest: float) -> bool:
        """Sleeps until `latest`; until `earliest` if somebody is in a hurry, before or meanwhile: whether he was."""
        hurried = self._bell.acquire(timeout=max(latest - monotonic(), 0.0))
        while hurried and not self._stopped and (left := earliest - monotonic()) > 0:
            self._bell.acquire(timeout=left)  # whoever else is in a hurry is served by the same round
        return hurried

    def look(self, owner: Owner) -> None:
        """One round without a thread: one node after the other."""
        self._number += 1
        for line in self._attend(owner):
            checkup = None if line.wire is None else self._exchange(line, line.wire)
            if checkup is None or checkup.error:
                _, line.wire, checkup = self._visit(owner, line)
            owner.heard(line.address, checkup)
        owner.looked()

    def _attend(self, owner: Owner) -> list[Line]:
        """The lines to those who are to be asked."""
        wanted = dict.fromkeys(owner.targets())
        for address in [address for address in self._lines if address not in wanted]:
            self._lines.pop(address).close()
        for address in wanted:
            self._lines.setdefault(address, Line(address))
        doubted, self._doubted = self._doubted, set()
        now = monotonic()
        for line in self._lines.values():
            if line.asked is None and (line.address in doubted or now >= line.renew_at):
                line.close()
        return list(self._lines.values())

    def _round(self, owner: Owner) -> None:
        self._number += 1
        lines = self._attend(owner)
        for line in lines:
            self._ask(owner, line)
        self._collect(owner, monotonic() + SHORT_SILENCE)
        now = monotonic()
        for line in lines:
            if line.asked is None or now - line.asked < SHORT_SILENCE:
                continue
            silence = now - line.asked
            why = f"{line.address} has not answered for {silence:.1f} s"
            owner.heard(line.address, Checkup(self._number, error=why, silent=silence < LONG_SILENCE))
            if silence >= LONG_SILENCE and not line.visited:
                line.close()
        owner.looked()

    # ------------------------------------------------------------------ on a connection that is there

    def _ask(self, owner: Owner, line: Line) -> None:
        if line.asked is not None:
            return  # it has not answered the last question yet
        wire = line.wire
        if wire is None:
            if monotonic() >= line.visit_at:
                self._send_visitor(owner, line)
            return
        try:
            line.replies = []
            wire.send(line.question(wire), Patience(SHORT_SILENCE))
            line.asked, line.number = monotonic(), self._number
        except errors.NodeError:
            self._send_visitor(owner, line)

    def _collect(self, owner: Owner, until: float) -> None:
        """Takes the answers as they come."""
        while True:
            while not self._visits.empty():
                line, wire, checkup = self._visits.get()
                line.visited, line.asked = False, None
                if self._lines.get(line.address) is not line or self._stopped:
                    if wire is not None:
                        wire.disconnect()
                    continue
                line.wire = wire
                self._rate(line, gone=wire is None, turned_away=checkup.turned_away)
                owner.heard(line.address, checkup)
            waiting = [line for line in self._lines.values() if line.asked is not None]
            left = max(until - monotonic(), 0.0)
            visits = any(line.visited for line in waiting)
            lines = {line.wire: line for line in waiting if line.wire is not None}
            for wire in readable_wires([*lines], min(left, 0.005) if visits else left) if lines else ():
                self._receive(owner, lines[wire], wire)
            if not waiting or not left:  # what has come is heard, even if it was this thread that was away
                return
            if not lines:
                self._pause(min(left, 0.005))

    def _rate(self, line: Line, *, gone: bool, turned_away: bool) -> None:
        """How soon a node may be visited again: one that does not answer is left alone a while, ever longer."""
        line.failures = min(line.failures + 1, 8) if gone else 0
        most = LOGIN_PAUSE if turned_away else GAP / 2
        line.visit_at = monotonic() + min(HURRY * 2**line.failures, most) if gone else 0.0

    def _pause(self, seconds: float) -> None:
        """Waits for a visitor."""
        with suppress(queue.Empty):
            self._visits.put(self._visits.get(timeout=seconds))

    def _receive(self, owner: Owner, line: Line, wire: Wire) -> None:
        try:
            line.replies += wire.drain()
        except errors.NodeError:
            self._send_visitor(owner, line)
            return
        if len(line.replies) >= 2 and line.asked is not None:
            latency, line.asked = monotonic() - line.asked, None
            replies, line.replies = line.replies, []
            if not owner.heard(line.address, line.read(line.number, wire, replies, latency), fresh=False):
                self._send_visitor(owner, line)

    # ------------------------------------------------------------------ visits

    def _send_visitor(self, owner: Owner, line: Line) -> None:
        """Has a node dialled anew; the connection that there is is of no use any more."""
        line.close()
        me = weakref.ref(owner)
        line.visited, line.asked = True, monotonic()

        def visit() -> None:
            host = me()
            if host is not None:
                self._visits.put(self._visit(host, line))

        if not start_thread("hatopo-visit", visit):
            visit()

    def _visit(self, owner: Owner, line: Line) -> tuple[Line, Wire | None, Checkup]:
        """Connects and asks; the connection is kept if the node has answered."""
        wire = None
        try:
            wire = owner.make_line(line.address)
            wire.dial_by = monotonic() + VISIT
            wire.connect()
        except Exception as error:  # credential providers and name functions are the user's
            if wire is not None:
                wire.disconnect()
            turned_away = isinstance(error, rx.AuthenticationError)
            return line, None, Checkup(self._number, error=_why(error), turned_away=turned_away)
        checkup = self._exchange(line, wire)
        line.renew_at = float("inf") if line.address.is_ip else monotonic() + NAME_LASTS
        return line, None if checkup.error else wire, checkup

    def _exchange(self, line: Line, wire: Wire) -> Checkup:
        """Asks and waits for the answer; without one the connection is closed."""
        number, began = self._number, monotonic()
        replies: list[object] = []
        try:
            patience = Patience(VISIT, began + VISIT)
            wire.send(line.question(wire), patience)
            wire.read_into(replies, 2, patience)
            asked = line.report
            found = line.read(number, wire, replies, monotonic() - began)
            if line.report != asked:  # that was not permitted: the other question then
                wire.send(line.question(wire), patience)
                wire.read_into(replies, 2, patience)
                found = line.read(number, wire, replies[2:], found.latency or 0.0)
            return found
        except Exception as error:  # whatever it is, there is no answer
            wire.disconnect()
            return Checkup(number, error=_why(error))
