"""The loop that carries a call to its reply, over the nodes of a deployment.

The loop asks `Attempt` after each failure and carries out the step. It does not ask what kind of deployment it
is: one whose topology can be discovered is given a source, one whose topology is fixed is not.

Shared by every client of the deployment and by their clones; closed by the client that made it.
"""

from __future__ import annotations

import logging
from collections.abc import Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from time import monotonic
from typing import Any, Protocol

import redis.exceptions as rx

from hatopo import errors
from hatopo.address import Address
from hatopo.client._calls import Call, Script, SingleCall
from hatopo.client._exchange import exchange
from hatopo.client._nodes import News, Nodes
from hatopo.client._options import Options
from hatopo.client._outcome import ambiguous, final_error
from hatopo.client._plans import LONG_WAIT, SHORT_WAIT
from hatopo.client._reading import FIRST_LOOK, Reading
from hatopo.client._scopes import SCOPE
from hatopo.client._source import Source
from hatopo.client._stats import Stats
from hatopo.client._terms import Pin, Terms
from hatopo.connection import NodePool, Wire
from hatopo.events import Cause as ChangeCause
from hatopo.routing import (
    Attempt,
    Cause,
    Checkup,
    Failure,
    GiveUp,
    Limits,
    Outcome,
    Refresh,
    RetryBudget,
    Verdict,
    Wait,
    facts_of,
    failure_of,
    node_is_busy,
    pick,
)
from hatopo.topology import Topology, admit

log = logging.getLogger("hatopo.topology")

MAX_SCRIPTS = 10_000
MAX_VIEWS = 5
"""How many views a read looks at, if each of them gives way to another while nobody in it may answer."""
WARN_AFTER, WARN_GAP = 1.0, 10.0
_DEMOTED = frozenset({Cause.READONLY, Cause.WRONG_ROLE})
_OF_THE_NODE = frozenset(
    {
        *(Cause.UNREACHABLE, Cause.NOT_SENT, Cause.REPLY_LOST, Cause.SILENCE, Cause.GARBAGE),
        *(Cause.LOADING, Cause.MASTER_DOWN, Cause.MAX_CLIENTS),
    }
)
"""Failures that say something about the node, so that other reads go elsewhere first."""


class Lender(Protocol):
    """Who has connections for calls: the deployment, or a pinned connection."""

    def lend(self, call: Call, until: float) -> Wire:
        """A connected connection for this call, the caller's until it is given back or discarded."""

    def give_back(self, connection: Wire, *, check: bool = False) -> None:
        """Takes it back with all its replies read; `check`: it is to be looked at before its next use."""

    def discard(self, connection: Wire) -> None:
        """Takes it back closed."""


class Deployment(Nodes):
    """See the module.

    Args:
        options: of the client that made it.
        name: for messages and events.
        seed: the first address that the user gave, if that is not a node's.
        first: the topology, where it is known from the start.
        source: where it is found out, or None if `first` is all there is.
    """

    def __init__(
        self,
        options: Options,
        name: str = "",
        *,
        seed: Address | None = None,
        first: Topology | None = None,
        source: Source | None = None,
    ) -> None:
        super().__init__(options, name, seed, follows=source is not None)
        self.scripts: dict[str, Script] = {}  # by SHA1
        self._source = source
        self._budget = RetryBudget(5.0 * options.max_connections, monotonic())
        self._waiting = 0  # calls that wait; under _lock
        self._warned = float("-inf")
        self.reading = Reading(self, options.max_lag)
        if first is not None:
            self.publish(News(1, first, ChangeCause.FIRST))

    def after_fork(self) -> None:
        """In a forked child nobody else waits."""
        super().after_fork()
        self._waiting = 0

    def rest(self) -> None:
        """The client was closed: nobody need watch for it. The next call begins anew."""
        if self._source is not None:
            self._source.leave(self)
            self.forget()
        self.reading.stop()

    def _adopt(self, topology: Topology | None) -> None:
        self.reading.adopt(topology)

    def look_around(self, address: Address, calm: bool, until: float) -> None:
        """A node is silent: has somebody find out whether the topology has changed."""
        if not calm:
            self.reading.failed(address, "it is silent")
        if self._source is not None:
            self._source.silent(self, address, calm, until)

    @property
    def is_alone(self) -> bool:
        """Whether there is one server only, for ever."""
        return self._source is None

    def probe(self, address: Address, until: float) -> None:
        """Finds out whether a node answers on a new connection."""
        pool = self._pools.get(address)
        if pool is not None:
            pool.probe(until)

    def remember(self, sha: str, script: Script) -> None:
        """Keeps the source of a script, to load it where it is missing; the oldest are forgotten."""
        self.scripts[sha] = script
        while len(self.scripts) > MAX_SCRIPTS:
            self.scripts.pop(next(iter(self.scripts)), None)

    def stats(self) -> Stats:
        """What it has been through."""
        now = monotonic()
        heard = None if self._source is None else self._source.last_word()
        with self._lock:
            tally = self._tally
            return Stats(
                failovers=tally.failovers,
                outage_seconds=tally.seconds(now),
                ambiguous=dict(tally.ambiguous),
                retries=dict(tally.retries),
                waiters=self._waiting,
                dials=tally.dials,
                topology_age=None if self.topology is None else now - self._published,
                last_word=None if heard is None else now - heard,
            )

    # ------------------------------------------------------------------ what the monitor is told

    @property
    def keeps_watch(self) -> bool:
        """Whether nodes are asked how they are even while nobody reads from replicas."""
        return self._source is not None and self._source.keeps_watch

    @property
    def may_grow(self) -> bool:
        """Whether nodes may join of whom nobody knows yet."""
        return self._source is not None and self._source.may_grow

    def watched(self) -> Iterable[Address]:
        """The nodes that are asked how they are."""
        topology = self.topology
        known = () if topology is None else (node.address for node in topology.nodes)
        return (*known, *(() if self._source is None else self._source.watched()))

    def absent(self) -> Mapping[Address, str]:
        """The nodes that belong and have no place in the view in force, and why."""
        return {} if self._source is None else self._source.absent()

    def admitted(self, announced: Address, said_by: Address) -> Address | None:
        """Where a node is dialled that another one has announced; None if it is not."""
        found = admit(self.options.address_map, self.options.allowed_hosts, announced, said_by)
        return found if isinstance(found, Address) else None

    def checked(self, address: Address, checkup: Checkup) -> None:
        """A node was asked how it is."""
        if self._source is not None:
            self._source.checked(self, address, checkup)

    def looked(self) -> None:
        """All nodes were asked how they are."""
        if self._source is not None:
            self._source.looked(self)

    # ------------------------------------------------------------------ lending

    def found(self, until: float) -> Topology | None:
        """The view in force; it is found out, if there is none."""
        source = self._source
        if source is not None:
            source.join(self)
            if self.topology is None:
                source.refresh(until, join=True)
        return self.topology

    def pool_for(self, call: Call, until: float = float("inf")) -> NodePool:
        """The pool of the master that a call goes to.

        Raises:
            MasterNotFoundError: no such node is known.
        """
        self.found(until)
        with self._lock:
            node = None if self.topology is None else pick(self.topology, call.first_key)
            pool = None if node is None else self._pools.get(node.address)
        if pool is not None:
            return pool
        raise self.unknown()

    def unknown(self) -> errors.MasterNotFoundError | errors.LoginError:
        """Why no master is known."""
        return errors.MasterNotFoundError("no master is known") if self._source is None else self._source.why_unknown()

    def lend_pinned(self, pin: Pin, until: float) -> Wire:
        """A connection to the process that was met first at a node, as long as its data are what they were.

        Raises:
            RetiredError: it is another process, has another role, or takes over other data.
        """
        pool, topology = self._pools.get(pin.node), self.topology
        if pool is None or topology is None:
            raise errors.RetiredError(f"{pin.node} is no node of {self.name} any more", pin.node)
        if (pin.node in topology.masters) != pin.is_master:
            raise errors.RetiredError(f"{pin.node} has changed its role", pin.node)
        astray = "" if pin.is_master else self.reading.astray(pin.node, pin.role, until)
        if astray:
            raise errors.RetiredError(f"{pin.node} is left: {astray}", pin.node)
        connection = pool.lend(until)
        if connection.run_id != (pin.run_id or connection.run_id):
            pool.give_back(connection)
            raise errors.RetiredError(f"{pin.node} is another process than before", pin.node)
        pin.run_id = connection.run_id
        return connection

    def lend(self, call: Call, until: float) -> Wire:
        """A connection to the node that a call goes to; checked, if losing the call would be an error."""
        if call.pin is not None:
            return self.lend_pinned(call.pin, until)
        if call.reader is None:
            return self.pool_for(call, until).lend(until, check=call.delicate)
        views, seconds, end = 0, SHORT_WAIT, min(until, monotonic() + self.options.failover_timeout)
        while True:
            self.found(until)
            with self._lock:  # while a view is put in force, they are of two different ones
                topology, pools, seen = self.topology, self._pools, self._changes
            if topology is None:
                raise self.unknown()
            try:
                return self.reading.lend(call, topology, pools, until, seconds)
            except errors.PoolExhaustedError:
                if monotonic() >= end:
                    raise
                seconds = LONG_WAIT  # it is found out anew who is fit
            except errors.NoSuitableNodeError:
                if self._source is not None and self._source.expects_more():
                    self._wait(seen, min(until, monotonic() + FIRST_LOOK))
                views += 1
                with self._lock:
                    if self.uses(topology, pools) or views == MAX_VIEWS:
                        raise  # else another view has come in between

    # ------------------------------------------------------------------ calls

    def run(
        self,
        call: Call,
        terms: Terms,
        end: float,
        *,
        lender: Lender | None = None,
        failed: Exception | None = None,
        started: float | None = None,
    ) -> Any:
        """Carries a call to its result.

        Args:
            call: what is asked.
            terms: what may be done to get it.
            end: the moment at which the call must have ended.
            lender: who has the connection, if not the deployment.
            failed: how its first attempt ended, if that was made already,
            started: and when it began.

        Raises:
            CallError and what redis-py raises: see `hatopo.errors`.
        """
        lender = lender or self
        started = monotonic() if started is None else started
        attempt: Attempt | None = None
        error, reason = failed, failed
        while True:
            seen = self._changes
            until = end if attempt is None else attempt.end
            if error is None:
                try:
                    return self._try(call, lender, terms, end, until, again=attempt is not None)
                except rx.RedisError as raised:
                    error = raised
            now = monotonic()
            failure = failure_of(error, scripted=call.scripted)
            reads = call.reader is not None and call.at is not None
            if reads:
                failure = self._failed_to_read(call, failure, hurried=now >= end)
            if attempt is None:
                retries = terms.retries if call.pin is None else 0
                limits = Limits(terms.failover_timeout, end, retries, fixed=self._source is None)
                attempt = Attempt(call.policy(terms.policies), limits, self._budget, self.rng, started=started, now=now)
            if reason is None or not (now >= attempt.end and isinstance(error, errors.DialError)):
                reason = failure.error  # a dial that the caller's own time cut short tells nothing
            if failure.cause in _DEMOTED and not reads:
                self._demoted(call, failure, seen)
            if failure.cause is Cause.NO_SCRIPT:
                failure = self._load_script(call, lender, attempt.end, failure)
            self._ride_on(call, attempt, failure, reason, seen, end)
            error = None

    def _try(self, call: Call, lender: Lender, terms: Terms, end: float, until: float, *, again: bool) -> Any:
        """One attempt; `again`: not the first. What is raised has been classified by nobody yet."""
        connection = lender.lend(call, until)
        try:
            result = exchange(connection, call, end)
        except BaseException as error:
            if isinstance(error, (rx.DataError, UnicodeEncodeError)) and not call.sending:
                lender.give_back(connection)  # an argument that cannot be packed: nothing was sent
                raise
            lender.discard(connection)
            if isinstance(error, errors.NodeError):
                self._suspect(connection, error)
            salvaged = call.salvage(error, terms.policies) if isinstance(error, rx.RedisError) else None
            if salvaged is None:
                raise
            self._relieved(salvaged)
            return salvaged
        lender.give_back(connection)
        if isinstance(result, Exception):
            raise result
        scope = SCOPE.get()
        if scope is not None:
            scope.note_answer(connection.wire.address)
        if again or self._tally.outage is not None:
            self._relieved(result)
        return result

    def _failed_to_read(self, call: Call, failure: Failure, *, hurried: bool) -> Failure:
        """Notes what a read has met at one of several nodes; what that means where others can be asked.

        `hurried`: the caller's own time was up, which tells nothing of the node.
        """
        assert call.at is not None
        if failure.cause is Cause.READONLY:  # it takes for a write what we take for a read: then the master answers
            call.reader, call.others = None, True
            return failure
        if node_is_busy(failure.error) and call.others:
            failure = Failure(Cause.LOADING, Outcome.NOT_EXECUTED, failure.error)
        if failure.cause in _OF_THE_NODE and not hurried:
            barred = failure.cause in (Cause.LOADING, Cause.MASTER_DOWN)
            self.reading.failed(call.at, errors.clip(failure.error), barred=barred)
        return failure

    def _suspect(self, connection: Wire, error: errors.NodeError) -> None:
        pool = connection.home()
        if pool is not None:
            pool.suspect(error)

    def _demoted(self, call: Call, failure: Failure, seen: int) -> None:
        """A node that was taken for a master is none: none of its connections is a master's."""
        if self._source is None or self._changes != seen:
            return
        pool = self.pool_for(call)
        if failure.cause is Cause.READONLY:
            self.phase_out(pool)
            self._note_change()  # for all who have met the same
        self._source.demoted(pool.address)

    def _relieved(self, result: Any) -> None:
        """A call was carried out after something had failed."""
        with self._lock:
            seconds = self._tally.relief(monotonic())
            if isinstance(result, list):
                self._count_ambiguous(result)
        if seconds > WARN_AFTER:
            log.info("%s: calls are carried out again after %.2f s", self.name, seconds)

    def _count_ambiguous(self, results: Sequence[object]) -> None:
        found = [result.command for result in results if isinstance(result, errors.AmbiguousResultError)]
        self._tally.ambiguous.update(found)

    def _ride_on(
        self, call: Call, attempt: Attempt, failure: Failure, reason: Exception, seen: int, end: float
    ) -> None:
        """Carries out the step after a failure, or raises the error that ends the call because of `reason`."""
        kind, now = call.kind(), monotonic()
        waited = call.waited(failure.error, now)
        step = attempt.next(failure, kind, now, waited=waited, elsewhere=call.others)
        if not call.others:
            call.tried.clear()
        call.others = False
        match step:
            case GiveUp(verdict):
                error = reason if verdict is Verdict.TIME_UP else failure.error
                final = final_error(call.name, error, kind, verdict, attempt, now)
                with self._lock:
                    self._count_ambiguous([final])
                raise final from final.__cause__
            case Refresh(seconds):
                if now - attempt.started > WARN_AFTER:
                    self._warn(call, failure, now - attempt.started)
                with self._counted(call, attempt, failure):
                    if seconds:
                        self._look_for_another(end, now)
                    self._wait(seen, now + seconds)
            case Wait(seconds):
                with self._counted(call, attempt, failure):
                    self._wait(seen, now + seconds)

    def _look_for_another(self, until: float, now: float) -> None:
        with self._lock:
            self._tally.trouble(now)
        if self._source is not None:
            self._source.refresh(until)

    @contextmanager
    def _counted(self, call: Call, attempt: Attempt, failure: Failure) -> Generator[None]:
        with self._lock:
            crowded = self._waiting >= self.options.max_waiting
            self._waiting += not crowded
            self._tally.retries[failure.cause.name.lower()] += 1
        if crowded:
            if attempt.maybe_executed:
                raise ambiguous(call.name, failure.error, attempts=attempt.failures)
            message = (
                f"{call.name} was not tried again: {self._waiting} calls wait for a failover already (max_waiting)"
            )
            raise errors.TooManyWaitingError(message, command=call.name) from failure.error
        try:
            yield
        finally:
            with self._lock:
                self._waiting -= 1

    def _warn(self, call: Call, failure: Failure, seconds: float) -> None:
        now = monotonic()
        if now - self._warned > WARN_GAP:
            self._warned = now
            log.warning("%s has waited %.1f s: %s", call.name, seconds, errors.clip(failure.error, 400))

    def _load_script(self, call: Call, lender: Lender, until: float, failure: Failure) -> Failure:
        """Loads the script that a call misses, where its source is known; how the call stands after that."""
        script = call.missing_script()
        if script is None:
            raise failure.error
        call.others = False  # it is loaded where it is missing; others would not have it either
        loading = SingleCall(("SCRIPT LOAD", script.source), facts_of(("SCRIPT LOAD",)), {})
        try:
            call.next = call.at  # a script is missing where it was missed
            connection = lender.lend(call, until)
            try:
                reply = exchange(connection, loading, until)
            except BaseException:
                lender.discard(connection)
                raise
            lender.give_back(connection)
            call.next = call.at
        except errors.NodeError as error:  # the call itself was not sent
            return Failure(Cause.NOT_SENT, Outcome.NOT_EXECUTED, error)
        return failure_of(reply) if isinstance(reply, Exception) else failure
