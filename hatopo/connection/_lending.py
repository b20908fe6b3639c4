"""The connections to one node: lent, taken back, replaced, retired.

Decides which connection a caller gets, when one must be checked or replaced, how many there may be, and how
often a node that does not answer is dialled. Does not know why a node was chosen, nor what is sent to it.

What is idle waits in a deque (last in, first out); what is lent is known only as a member that is not idle.
Members are held weakly: a connection that an exception made everybody forget closes itself and frees its place.
"""

from __future__ import annotations

import enum
import os
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sized
from contextlib import suppress
from dataclasses import dataclass
from random import Random
from time import monotonic
from typing import Protocol

from redis import RedisError
from redis import TimeoutError as RedisTimeoutError

from hatopo.address import Address
from hatopo.connection._edge import Patience
from hatopo.connection._waiters import Waiters
from hatopo.connection._wire import Wire
from hatopo.errors import DialError, NodeError, PoolExhaustedError, ReplyTimeoutError

IDLE_CHECK = 0.5
"""Seconds of idleness after which a connection is checked for its end before use."""
PING_PATIENCE = 1.0
DIAL_BACKOFF, DIAL_BACKOFF_MAX = 0.1, 2.0
DIALS = 2
"""How many dials of one node may be under way."""
_WAIT_SLICE = 0.5


class Survivor(Protocol):
    """What is told when it finds itself in a forked child."""

    def after_fork(self) -> None:
        """Lets go of what is the parent's; locks may be held by threads that do not exist here."""


_survivors: weakref.WeakSet[Survivor] = weakref.WeakSet()


def survive_fork(survivor: Survivor) -> None:
    """Calls `survivor.after_fork()` in every child that this process forks, as long as it lives."""
    _survivors.add(survivor)


def _after_fork() -> None:
    for survivor in list(_survivors):
        survivor.after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)


@dataclass(frozen=True, slots=True)
class Care:
    """How connections are kept. Seconds, or None for never.

    Attributes:
        ping_after: idleness after which a PING must be answered before use (see also `NodePool.suspect`).
        max_idle: idleness after which a connection is replaced.
        max_age: age, +-20 %, after which it is replaced.
    """

    ping_after: float | None = 30.0
    max_idle: float | None = None
    max_age: float | None = None


class Dialler:
    """Holds a turn to dial."""


class Turn(enum.Enum):
    """What a caller who wants to dial is told."""

    DIAL = "dial now, and say how it went"
    LATER = "others dial: their outcome tells more"
    NO = "the node did not answer; it is not dialled again yet"


class DialGate:
    """How often a node is dialled.

    Two dials may be under way at once: who waits for a turn is often served by a connection that comes back. One, while
    the node is suspect: a connection was lost, and nobody has reached it since. One that did not answer is left alone
    for 100 ms, doubling to 2 s, +-20 %.

    A turn belongs to a `Dialler`, which is held weakly: one that an exception made everybody forget gives it back.
    """

    def __init__(self, rng: Random) -> None:
        self.error: Exception | None = None  # of the last dial; None: the node answers
        self.suspect = False
        self._rng = rng
        self._failures = 0
        self._next = 0.0
        self._diallers: weakref.WeakSet[Dialler] = weakref.WeakSet()

    def enter(self, dialler: Dialler, now: float) -> Turn:
        """Whether `dialler` may dial now; if so, it must `leave`, and say with `succeeded` or `failed` how it went."""
        if self.error is not None and now < self._next:
            return Turn.NO
        if not self.free():
            return Turn.NO if self.error is not None else Turn.LATER
        self._diallers.add(dialler)
        return Turn.DIAL

    def free(self) -> bool:
        """Whether there is a turn."""
        return len(self._diallers) < (DIALS if self.error is None and not self.suspect else 1)

    def leave(self, dialler: Dialler) -> None:
        """The dial has ended."""
        self._diallers.discard(dialler)

    def succeeded(self) -> bool:
        """The node answers; whether that is news."""
        news, self.error = self.error is not None, None
        self._failures, self.suspect = 0, False
        return news

    def failed(self, error: Exception, now: float) -> bool:
        """The node did not answer; whether that is news."""
        pause = min(DIAL_BACKOFF_MAX, DIAL_BACKOFF * 2.0 ** min(self._failures, 8))
        self._failures += 1
        self._next = now + pause * self._rng.uniform(0.8, 1.2)
        news, self.error = self.error is None, error
        return news


class Observer(Protocol):
    """What a pool tells of its node."""

    def dialled(self) -> None:
        """A dial begins."""

    def reached(self, address: Address) -> None:
        """The node answers after it had not."""

    def unreachable(self, address: Address, error: Exception) -> None:
        """The node does not answer, for the first time since it did."""


@dataclass(frozen=True, slots=True)
class Room:
    """How many connections there may be, and how many seconds a caller waits for one of them to come back."""

    connections: int
    patience: float


class NodePool:
    """The connections to one node.

    Args:
        address: the node.
        make: makes an unconnected connection to it.
        room: how many there may be.
        care: how they are kept.
        rng: for jitter.
        observer: what is told of dials and their outcome.
    """

    def __init__(
        self,
        address: Address,
        make: Callable[[Address], Wire],
        room: Room,
        care: Care,
        rng: Random,
        observer: Observer,
    ) -> None:
        self.address = address
        self.idle: deque[Wire] = deque()  # appended and popped by any thread, without the lock
        self.generation = 1  # written under the lock; connections of another generation are not used again
        self._room = room
        self._make = make
        self._care = care
        self._rng = rng
        self._observer = observer
        self._gate = DialGate(rng)  # used under the lock
        self._lost = 0  # connections that ended in a call; changed under the lock
        self._settled = 0  # how many of them had ended when the node last answered; changed under the lock
        self.members: weakref.WeakSet[Wire] = weakref.WeakSet()  # idle and lent; changed under the lock
        self.alive: Sized = vars(self.members)["data"]  # what is in it: its own length is Python code, for the hot path
        self._make_locks()
        survive_fork(self)

    def _make_locks(self) -> None:
        self._lock = threading.RLock()  # the garbage collector may close a client in the middle of what it guards
        self.waiting = Waiters()  # callers who wait for a connection

    # ------------------------------------------------------------------ lending

    def lend(self, until: float, *, check: bool = False, patience: float | None = None) -> Wire:
        """A connected connection. It belongs to the caller until `give_back` or `discard`.

        Args:
            until: the moment at which waiting ends.
            check: make sure that it has not ended, even if it was used just now: losing the call would be an error.
            patience: how many seconds to wait for a connection that comes back, or for a turn to dial, where that is
                nothing bad; None: as long as there is room for.

        Raises:
            DialError (and what `Wire.connect` raises): no connection could be made.
            PoolExhaustedError: all are in use, and none came back by `until`.
        """
        end: float | None = None  # until when to wait for a connection to come back, or for a turn to dial
        while True:
            connection = self._take_idle(until, check)
            if connection is not None:
                return connection
            admitted = self._admit()
            if admitted is not None:
                return self._dial(*admitted, until)
            now = monotonic()
            if end is None:
                end = min(until, now + (self._room.patience if patience is None else patience))
            if patience is not None and end <= now < until:
                raise self._exhausted() if self.is_full else PoolExhaustedError(f"{self.address} is being dialled")
            self._wait(end - now)

    def take(self, now: float, *, check: bool, until: float = float("inf")) -> Wire | None:
        """The idle connection that was used last, if it may be used; None: it may not, or there is none.

        The hot path: see `lend`.
        """
        try:
            connection = self.idle.pop()
        except IndexError:
            return None
        fresh = now < connection.check_at and connection.generation == self.generation
        if fresh and (not check or (self._lost == self._settled and connection.clean())):
            return connection
        return connection if self.fit(connection, now, until, check=check) else None

    @property
    def is_full(self) -> bool:
        """Whether there is no room for another connection."""
        return len(self.members) >= self._room.connections

    @property
    def in_flight(self) -> int:
        """How many connections are in use."""
        return len(self.alive) - len(self.idle)

    def probe(self, until: float) -> None:
        """Finds out on a new connection whether the node answers, unless that is known to be false, or being tried."""
        with suppress(RedisError):
            admitted = self._admit()
            if admitted is not None:
                self.give_back(self._dial(*admitted, until))

    def suspect(self, error: NodeError) -> None:
        """A connection failed a call: the others are looked at before they are used, and one caller dials first.

        Where it was its end, not silence, a PING must be answered before another one carries a call that must not be
        repeated: a process that dies closes them one after the other, and answers on none.
        """
        with self._lock:
            self._gate.suspect = True
            self._lost += not isinstance(error, ReplyTimeoutError)
        for connection in list(self.idle):
            connection.check_at = 0.0

    def fit(self, connection: Wire, now: float, until: float = float("inf"), *, check: bool = False) -> bool:
        """Whether a lent connection may be used, as of `lend`; if not, it has been discarded."""
        if connection.generation == self.generation and now < connection.renew_at:
            idle = now - (connection.check_at - IDLE_CHECK) if connection.check_at else 0.0
            if self._rested(connection, idle, until, check):
                return True
        self.discard(connection)
        return False

    def give_back(self, connection: Wire, *, check: bool = False) -> None:
        """Takes back a connection whose replies have all been read; `check`: look at it before its next use."""
        if connection.generation != self.generation or not connection.is_connected or connection.owed:
            self.discard(connection)
            return
        now = monotonic()
        connection.check_at = now + IDLE_CHECK if now < connection.renew_at and not check else 0.0
        self.idle.append(connection)
        if self.waiting:
            self.waiting.wake_one()

    def discard(self, connection: Wire) -> None:
        """Closes a lent connection and forgets it."""
        connection.disconnect()
        with self._lock:
            self.members.discard(connection)
        self.waiting.wake_one()

    def redial(self, connection: Wire, until: float) -> None:
        """Connects somebody's connection, which has ended, to this node.

        Raises:
            as `lend`.
        """
        with self._lock:
            dialler = Dialler()
            if self._gate.enter(dialler, monotonic()) is not Turn.DIAL:
                raise self._not_answering()
            fresh = self._make(self.address)
        old = connection.home()
        if old is not None and old is not self:
            old.forget(connection)
        with self._lock:
            connection.move_to(fresh)
            self._count_in(connection)
        self._dial(connection, dialler, until)

    def _not_answering(self) -> DialError:
        if self._gate.error is None:
            return DialError(f"{self.address} is being dialled by other callers", self.address)
        error = DialError(f"{self._gate.error} (it is not dialled again yet)", self.address)
        error.__cause__ = self._gate.error
        return error

    def forget(self, connection: Wire) -> None:
        """The connection has moved to another node's pool."""
        with self._lock:
            self.members.discard(connection)
        self.waiting.wake_one()

    def _count_in(self, connection: Wire) -> None:
        connection.generation = self.generation
        connection.home = weakref.ref(self)
        self.members.add(connection)

    def _take_idle(self, until: float, check: bool) -> Wire | None:
        while self.idle:
            connection = self.take(monotonic(), check=check, until=until)
            if connection is not None or monotonic() >= until:  # who has no time left asks no other one
                return connection
        return None

    def _rested(self, connection: Wire, idle: float, until: float, check: bool) -> bool:
        care = self._care
        if care.max_idle is not None and idle > care.max_idle:
            return False
        if not connection.clean():
            return False
        lost, idle_long = self._lost, care.ping_after is not None and idle >= care.ping_after
        if not idle_long and not (check and lost != self._settled):
            return True
        patience = Patience(min(PING_PATIENCE, connection.patience.silence), until)
        try:
            connection.send(connection.pack(("PING",)), patience)
            connection.read(patience)  # any answer will do: an ACL may forbid PING
        except NodeError:
            if idle_long:
                self._drop_idle()  # they have rested longer than this one, and need not be asked one after another
            return False
        with self._lock:
            self._settled = max(self._settled, lost)
        return True

    def _admit(self) -> tuple[Wire, Dialler] | None:
        """A new member to dial, if there is room for one and it is our turn."""
        with self._lock:
            if self.is_full:
                return None
            dialler = Dialler()
            turn = self._gate.enter(dialler, monotonic())
            if turn is Turn.NO:
                raise self._not_answering()
            if turn is Turn.LATER:
                return None
            connection = self._make(self.address)
            self._count_in(connection)
            return connection, dialler

    def _wait(self, left: float) -> None:
        if left <= 0:
            raise self._exhausted() if self.is_full else self._not_answering()
        self.waiting.sleep(min(left, _WAIT_SLICE), self._served)

    def _exhausted(self) -> PoolExhaustedError:
        return PoolExhaustedError(
            f"all {self._room.connections} connections to {self.address} are in use: raise max_connections, "
            "or look for callers that keep one (pub/sub, blocking commands, pipelines with WATCH)"
        )

    def _served(self) -> bool:
        """Whether a caller who waits need not wait any longer."""
        with self._lock:
            return bool(self.idle) or (not self.is_full and (self._gate.error is not None or self._gate.free()))

    def _dial(self, connection: Wire, dialler: Dialler, until: float) -> Wire:
        connection.dial_by = until
        limit = connection.socket_connect_timeout
        hurried = limit is not None and until - monotonic() < limit  # then its failure says little about the node
        self._observer.dialled()
        lost = self._lost
        try:
            connection.connect()
        except BaseException as error:
            self._dial_failed(connection, error, hurried, dialler)
            raise
        now = monotonic()
        connection.check_at = now + IDLE_CHECK
        if self._care.max_age is not None:
            connection.renew_at = now + self._care.max_age * self._rng.uniform(0.8, 1.2)
        with self._lock:
            self._gate.leave(dialler)
            news = self._gate.succeeded()
            self._settled = max(self._settled, lost)
        self.waiting.wake_one()  # a turn is free
        if news:
            self._observer.reached(self.address)
        if connection.generation != self.generation:
            connection.disconnect()
            raise DialError(f"{self.address} was retired while it was dialled", self.address)
        return connection

    def _dial_failed(self, connection: Wire, error: BaseException, hurried: bool, dialler: Dialler) -> None:
        news = False
        late = isinstance(error.__cause__, (TimeoutError, RedisTimeoutError))
        with self._lock:
            self.members.discard(connection)
            self._gate.leave(dialler)
            if isinstance(error, DialError) and not (hurried and late):
                news = self._gate.failed(error, monotonic())
            elif isinstance(error, RedisError) and not isinstance(error, DialError):
                self._gate.succeeded()  # it does answer, if only to turn us away
            gone = self._gate.error is not None
        if gone:
            self.waiting.wake_all()  # nobody need wait for a turn
        else:
            self.waiting.wake_one()
        if news and isinstance(error, DialError):
            self._observer.unreachable(self.address, error)

    # ------------------------------------------------------------------ all at once

    def connections(self) -> list[Wire]:
        """Every connection, idle and lent."""
        with self._lock:
            return list(self.members)

    def retire(self) -> None:
        """Nothing that is connected now is used again: idle connections close, blocked readers wake."""
        self.cut_off(self.renew())

    def renew(self) -> int:
        """What is connected now is replaced before its next use; calls that are under way end in peace.

        Returns:
            The generation of connections that are made from now on.
        """
        with self._lock:
            self.generation += 1
            generation = self.generation
        self._drop_idle()
        return generation

    def cut_off(self, generation: int) -> None:
        """Ends the calls that are under way on connections older than `generation`: blocked readers wake."""
        for connection in self.connections():
            if connection.generation < generation:
                connection.abort()

    def disconnect(self, *, lent: bool) -> None:
        """Closes the idle connections; with `lent`, ends those in use as well."""
        if lent:
            self.retire()
        else:
            self._drop_idle()

    def _drop_idle(self) -> None:
        while True:
            try:
                connection = self.idle.pop()
            except IndexError:
                return
            self.discard(connection)

    def after_fork(self) -> None:
        """In a forked child: the parent's connections are closed without a word, locks are new."""
        self._make_locks()
        self._gate = DialGate(self._rng)
        self.idle.clear()
        members, self.members = list(self.members), weakref.WeakSet()
        self.alive = vars(self.members)["data"]
        for connection in members:
            connection.disown()
