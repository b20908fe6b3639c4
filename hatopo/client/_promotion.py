"""Following a promotion before the sentinels confirm it: the thread that attends to a provisional view.

It asks the candidate for its role until it says master, has the service put the provisional view in force, and then
guards it: the view falls if the failover is given up, if the node says that it is no master, or if the time in which
the sentinels should have confirmed it is over; that is short once the sentinel that leads the failover is lost. It is
also over once a confirmed view is in force.
"""

from __future__ import annotations

import threading
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

import redis.exceptions as rx

from hatopo import errors
from hatopo.address import Address
from hatopo.client._roles import role_on
from hatopo.client._threads import start_thread
from hatopo.connection import Wire
from hatopo.events import Cause
from hatopo.topology import RoleReport

if TYPE_CHECKING:
    from hatopo.client._service import Service

PROBE_GAP, PROBE_GAP_MAX = 0.005, 0.05
PROBE_LIMIT = 20.0
"""Seconds in which a candidate must have become the master."""
GUARD_GAP = 0.5
CONFIRM_GRACE = 5.0
"""Seconds beyond down-after in which the sentinels must have confirmed a provisional view."""
LEADER_GRACE = 1.5
"""The same, once the sentinel that leads the failover is lost: the others hear of a promotion within a second."""


class Promotion:
    """One candidate, from its selection to the end of its provisional view.

    Args:
        service: whose master it is to be.
        address: the candidate.
        cause: why it is one.
        sentinel: who announced it, if somebody did.
    """

    def __init__(self, service: Service, address: Address, cause: Cause, sentinel: Address | None = None) -> None:
        self.address = address
        self.cause = cause
        self.sentinel = sentinel
        self.over = False
        self._end = float("inf")  # when the provisional view falls if nobody has confirmed it
        self._service = service
        self._bell = threading.Lock()  # released to end a pause
        self._bell.acquire()
        self._wire: Wire | None = None

    def start(self) -> bool:
        """Begins, on a thread of its own; False where there can be none."""
        return start_thread("hatopo-promotion", lambda: self._run(followed=False))

    def guard(self) -> bool:
        """Attends to a provisional view that is in force already; False where there can be no thread for it."""
        return start_thread("hatopo-promotion", lambda: self._run(followed=True))

    def hurry(self) -> None:
        """The sentinel that leads the failover is lost: if the others have heard of it, they say so soon."""
        self._end = min(self._end, monotonic() + LEADER_GRACE)

    def end(self) -> None:
        """Another candidate, the end of the failover, or a confirmed view has made it pointless."""
        self.over = True
        with suppress(RuntimeError):
            self._bell.release()

    def _run(self, *, followed: bool) -> None:
        try:
            if followed or (self._await_master() and self._service.follow(self)):
                self._guard()
        finally:
            self._leave()

    def _leave(self) -> None:
        """Whatever ended it: nobody guards the view any more."""
        self.over = True
        if self._wire is not None:
            self._wire.disconnect()
        if self._service.attends(self):
            self._service.withdraw("nobody attends to it any more")

    def _await_master(self) -> bool:
        gap, limit = PROBE_GAP, monotonic() + PROBE_LIMIT
        while not self.over and monotonic() < limit:
            role = self._role()
            if role is not None and role.role == "master":
                return not self.over
            self._bell.acquire(timeout=gap)
            gap = min(gap * 1.02, PROBE_GAP_MAX)
        return False

    def _guard(self) -> None:
        self._end = min(self._end, monotonic() + self._service.down_after + CONFIRM_GRACE)
        while self._service.is_provisional(self.address):
            if self._bell.acquire(timeout=GUARD_GAP):  # `end` has rung it
                return
            role = self._role()
            if role is not None and role.role == "replica":
                self._service.withdraw(f"{self.address} says that it is a replica")
                return
            if monotonic() > self._end:
                if not self._service.master_agrees(self.address):
                    self._service.withdraw("the sentinels have not confirmed it in time")
                    return
                self._end = monotonic() + CONFIRM_GRACE

    def _role(self) -> RoleReport | None:
        try:
            if self._wire is None:
                self._wire = self._service.dial(self.address)
            return None if self._wire is None else role_on(self._wire)
        except (rx.AuthenticationError, errors.HandshakeError):  # it will not have us, and is not asked again
            self._wire = None
            self.over = True
            return None
        except Exception:  # credential providers and name functions are the user's: whatever it is, nobody told
            if self._wire is not None:
                self._wire.disconnect()
            self._wire = None
            return None
