"""A deployment in use: its topology, the pools of its nodes, and the loop that carries a call to its reply.

The loop asks `Attempt` after each failure and carries out the step. It does not ask what kind of deployment it
is: one whose topology can be discovered is given a source, one whose topology is fixed is not.

Shared by every client of the deployment and by their clones; closed by the client that made it.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from time import monotonic
from typing import Any, Protocol

import redis.exceptions as rx

from hatopo import errors
from hatopo.address import Address
from hatopo.client._calls import Call, Script, SingleCall
from hatopo.client._options import Options
from hatopo.client._outcome import ambiguous, final_error
from hatopo.connection import NodePool, Room, Waiters, Wire, WireOptions, survive_fork
from hatopo.routing import (
    Attempt,
    Cause,
    Failure,
    GiveUp,
    Limits,
    Outcome,
    Policies,
    Refresh,
    RetryBudget,
    Wait,
    facts_of,
    failure_of,
    pick,
)
from hatopo.topology import NotFound, Topology, TopologyView

log = logging.getLogger("hatopo.topology")

REFRESH_GAP = 0.1
"""Seconds between two rounds of discovery."""
CALM_GAP = 10.0
"""The same, where the silence was asked for: a blocking command."""
ROUND_PATIENCE = 5.0
MAX_SCRIPTS = 10_000
SILENCE_GAP = 1.0
"""Seconds between two rounds that were asked for because a node is silent."""
WARN_AFTER, WARN_GAP = 1.0, 10.0
_FOREIGN = frozenset({"retry", "retry_on_error", "retry_on_timeout", "event_dispatcher"})
"""Keywords that stay visible in `connection_kwargs` but must not make connections retry on their own."""


class Source(Protocol):
    """Where a deployment's topology comes from."""

    def find(self, until: float) -> Topology | NotFound:
        """Asks, and returns within a second, at `until` at the latest."""

    def explain(self, found: NotFound) -> errors.MasterNotFoundError:
        """Why nothing was found."""


@dataclass(frozen=True, slots=True)
class Terms:
    """What a client, a clone or a scope wants of its calls. Seconds; `deadline` is per call."""

    policies: Policies
    failover_timeout: float
    deadline: float | None = None
    retries: int | None = None


class Lender(Protocol):
    """Who has connections for calls: the deployment, or a pinned connection."""

    def lend(self, call: Call, until: float) -> Wire:
        """A connected connection for this call, the caller's until it is given back or discarded."""

    def give_back(self, connection: Wire, *, check: bool = False) -> None:
        """Takes it back with all its replies read; `check`: it is to be looked at before its next use."""

    def discard(self, connection: Wire) -> None:
        """Takes it back closed."""


class Deployment:
    """See the module.

    Args:
        options: of the client that made it.
        first: the topology, where it is known from the start.
        source: where it is found out, or None if `first` is all there is.
    """

    def __init__(self, options: Options, *, first: Topology | None = None, source: Source | None = None) -> None:
        self.options = options
        self.sole: NodePool | None = None  # the pool of the one master of a one-shard topology; under _lock
        self.scripts: dict[str, Script] = {}  # by SHA1
        self.rng = Random()
        self._source = source
        self._make_locks()
        self._view = TopologyView()  # offered to under _lock
        self._pools: dict[Address, NodePool] = {}  # replaced whole under _lock
        self._budget = RetryBudget(5.0 * options.max_connections, monotonic())
        self._changes = 0  # counts what waiting calls wait for: new views, nodes that answer again; under _lock
        self._waiting = 0  # calls that wait; under _lock
        self._refreshed = float("-inf")  # when the last round ended; under _lock
        self._refreshing = float("-inf")  # when the round under way began; under _lock
        self._rounds = 0  # that have ended; under _lock
        self._missing: NotFound | None = None  # what the last round brought instead of a topology
        self._warned = float("-inf")
        survive_fork(self)
        if first is not None:
            self.publish(first)

    def _make_locks(self) -> None:
        self._lock = threading.RLock()
        self._sleepers = Waiters()  # calls that wait for a change

    # ------------------------------------------------------------------ topology

    @property
    def topology(self) -> Topology | None:
        """The view in force, or None before the first was found."""
        return self._view.current

    def publish(self, found: Topology) -> bool:
        """Puts a new view in force, if the laws allow it: pools for new nodes, the end for those that left."""
        with self._lock:
            old = self._view.current
            if not self._view.offer(found):
                return False
            if _addresses(found) == _addresses(old):
                return True
            masters = {shard.master.address for shard in found.shards if shard.master is not None}
            pools = {
                node.address: self._pools.get(node.address) or self._make_pool(node.address, node.address in masters)
                for node in found.nodes
            }
            retired = [pool for address, pool in self._pools.items() if address not in pools]
            self._pools = pools
            master = pick(found, lambda: None) if len(found.shards) == 1 else None
            self.sole = pools[master.address] if master is not None else None
            self._note_change()
        for pool in retired:
            pool.retire()
        if old is not None:
            log.warning("the topology has changed: %s instead of %s", _summary(found), _summary(old))
        return True

    def _make_pool(self, address: Address, master: bool) -> NodePool:
        options, roles_matter, me = self.options, self._source is not None, weakref.ref(self)
        wire = WireOptions(
            address=address,
            expect_role="master" if roles_matter and master else "",
            insist_protocol=str(options.connection_kwargs.get("protocol")) == "3",
            max_reply_bytes=options.max_reply_bytes,
            on_silence=_looking(me) if roles_matter else None,
        )

        def make(target: Address) -> Wire:
            kwargs = {name: value for name, value in options.connection_kwargs.items() if name not in _FOREIGN}
            if not target.is_unix:
                kwargs.update(host=target.host, port=target.port)
            return options.connection_class(wire=wire, **kwargs)

        def recovered() -> None:
            deployment = me()
            if deployment is not None:
                deployment._note_change()

        room = Room(options.max_connections, options.failover_timeout)
        return NodePool(address, make, room, options.care, self.rng, recovered)

    def look_around(self, calm: bool, until: float) -> None:
        """A node is silent: finds out whether the topology has changed; rarely, where silence was asked for."""
        if self._source is not None and monotonic() - self._refreshed > (CALM_GAP if calm else SILENCE_GAP):
            self._refresh(until)

    def _refresh(self, until: float = float("inf")) -> None:
        """One round of discovery, at most until `until`, unless one is under way or has just ended."""
        with self._lock:
            now = monotonic()
            under_way = now - self._refreshing < ROUND_PATIENCE  # an interrupted round must not count for ever
            if self._source is None or under_way or now - self._refreshed < REFRESH_GAP:
                return
            self._refreshing = now
        try:
            found = self._source.find(until)
            if isinstance(found, Topology):
                self._missing = None
                self.publish(found)
            elif self._missing is None or len(found.answers) >= len(self._missing.answers):
                self._missing = found  # a round that was cut short does not hide what an earlier one has heard
        finally:
            with self._lock:
                self._refreshing = float("-inf")
                self._refreshed = monotonic()
                self._rounds += 1
            self._sleepers.wake_all()

    def _note_change(self) -> None:
        with self._lock:
            self._changes += 1
        self._sleepers.wake_all()

    def remember(self, sha: str, script: Script) -> None:
        """Keeps the source of a script, to load it where it is missing; the oldest are forgotten."""
        self.scripts[sha] = script
        while len(self.scripts) > MAX_SCRIPTS:
            self.scripts.pop(next(iter(self.scripts)), None)

    # ------------------------------------------------------------------ lending

    def pool_for(self, call: Call, until: float = float("inf")) -> NodePool:
        """The pool of the node that a call goes to.

        Raises:
            MasterNotFoundError: no such node is known.
        """
        if self._view.current is None:
            rounds = self._rounds
            self._refresh(until)
            if self._rounds == rounds:  # another call's round is under way, or has just ended: that is ours, too
                left = min(until - monotonic(), REFRESH_GAP if self._refreshing < 0 else ROUND_PATIENCE)
                self._sleepers.sleep(left, lambda: self._rounds != rounds)
        topology = self._view.current
        node = None if topology is None else pick(topology, call.first_key)
        pool = None if node is None else self._pools.get(node.address)
        if pool is None and self._missing is not None and self._source is not None:
            raise self._source.explain(self._missing)
        if pool is None:
            raise errors.MasterNotFoundError("no master is known yet: it is being looked for")
        return pool

    def lend(self, call: Call, until: float) -> Wire:
        """A connection to the node that a call goes to; checked, if losing the call would be an error."""
        return self.pool_for(call, until).lend(until, check=call.delicate)

    def give_back(self, connection: Wire, *, check: bool = False) -> None:
        """Takes back a connection that it has lent."""
        pool = connection.home()
        if pool is None:
            connection.disconnect()
        else:
            pool.give_back(connection, check=check)

    def discard(self, connection: Wire) -> None:
        """Takes back a connection that is no longer of use."""
        pool = connection.home()
        if pool is None:
            connection.disconnect()
        else:
            pool.discard(connection)

    @property
    def pools(self) -> list[NodePool]:
        """The pools of all nodes."""
        return list(self._pools.values())

    def disconnect(self, *, lent: bool = True) -> None:
        """Closes the connections; the next call opens new ones."""
        for pool in self.pools:
            pool.disconnect(lent=lent)

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
        error = failed
        while True:
            seen = self._changes
            until = end if attempt is None else attempt.end
            if error is None:
                try:
                    return self._try(call, lender, terms, end, until)
                except rx.RedisError as raised:
                    error = raised
            now = monotonic()
            failure = failure_of(error, scripted=call.scripted)
            if attempt is None:
                limits = Limits(terms.failover_timeout, end, terms.retries, fixed=self._source is None)
                attempt = Attempt(call.policy(terms.policies), limits, self._budget, self.rng, started=started, now=now)
            if failure.cause is Cause.READONLY:
                self._demoted(call, seen)
            if failure.cause is Cause.NO_SCRIPT:
                failure = self._load_script(call, lender, attempt.end, failure)
            self._ride_on(call, attempt, failure, seen, end)
            error = None

    def _try(self, call: Call, lender: Lender, terms: Terms, end: float, until: float) -> Any:
        """One attempt. What is raised has been classified by nobody yet."""
        connection = lender.lend(call, until)
        try:
            result = exchange(connection, call, end)
        except BaseException as error:
            if isinstance(error, (rx.DataError, UnicodeEncodeError)) and not call.sending:
                lender.give_back(connection)  # an argument that cannot be packed: nothing was sent
                raise
            lender.discard(connection)
            salvaged = call.salvage(error, terms.policies) if isinstance(error, rx.RedisError) else None
            if salvaged is None:
                raise
            return salvaged
        lender.give_back(connection)
        if isinstance(result, Exception):
            raise result
        return result

    def _demoted(self, call: Call, seen: int) -> None:
        """A node that was taken for a master refused a write: none of its connections is a master's."""
        if self._source is not None and self._changes == seen:
            self.pool_for(call).retire()

    def _ride_on(self, call: Call, attempt: Attempt, failure: Failure, seen: int, end: float) -> None:
        """Carries out the step after a failure, or raises the error that ends the call."""
        kind, now = call.kind(), monotonic()
        step = attempt.next(failure, kind, now)
        match step:
            case GiveUp(verdict):
                final = final_error(call.name, failure.error, kind, verdict, attempt, now)
                raise final from final.__cause__
            case Refresh(seconds):
                if now - attempt.started > WARN_AFTER:
                    self._warn(call, failure, now - attempt.started)
                with self._counted(call, attempt, failure):
                    if seconds:
                        self._refresh(end)
                    self._wait(seen, now + seconds)
            case Wait(seconds):
                with self._counted(call, attempt, failure):
                    self._wait(seen, now + seconds)

    def _wait(self, seen: int, until: float) -> None:
        """Sleeps until `until`, or until something has changed since `seen`."""
        left = until - monotonic()
        while left > 0 and self._changes == seen:
            self._sleepers.sleep(left, lambda: self._changes != seen)
            left = until - monotonic()

    @contextmanager
    def _counted(self, call: Call, attempt: Attempt, failure: Failure) -> Generator[None]:
        with self._lock:
            crowded = self._waiting >= self.options.max_waiting
            self._waiting += not crowded
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
        loading = SingleCall(("SCRIPT LOAD", script.source), facts_of(("SCRIPT LOAD",)), {})
        try:
            connection = lender.lend(call, until)
            try:
                reply = exchange(connection, loading, until)
            except BaseException:
                lender.discard(connection)
                raise
            lender.give_back(connection)
        except errors.NodeError as error:  # the call itself was not sent
            return Failure(Cause.NOT_SENT, Outcome.NOT_EXECUTED, error)
        return failure_of(reply) if isinstance(reply, Exception) else failure

    def after_fork(self) -> None:
        """In a forked child nobody else waits or refreshes."""
        self._make_locks()
        self._waiting, self._refreshing = 0, float("-inf")


def exchange(connection: Wire, call: Call, deadline: float) -> Any:
    """Sends what a call asks and reads what comes back, on one connection.

    Raises:
        NotSentError, ReplyLostError, ReplyTimeoutError, ProtocolError: the connection is closed.
    """
    now = monotonic()
    pieces = call.begin(connection.pack, now)
    patience = call.patience(connection.patience.silence, deadline, now)
    for count, data in pieces:
        call.sending = count
        connection.send(data, patience)
        call.sent += count
    decoding = call.decoding()
    if False in decoding:
        for decode in decoding:
            connection.read_into(call.replies, 1, patience, decode=decode)
    elif decoding:
        connection.read_into(call.replies, len(decoding), patience)
    return call.result()


def _looking(me: weakref.ref[Deployment]) -> Callable[[bool, float], None]:
    """A callback that does not keep the deployment alive."""

    def look(calm: bool, until: float) -> None:
        deployment = me()
        if deployment is not None:
            deployment.look_around(calm, until)

    return look


def _addresses(topology: Topology | None) -> list[tuple[Address | None, tuple[Address, ...]]] | None:
    """What clients can see of a topology: who is the master of what, at which address."""
    if topology is None:
        return None
    return [
        (shard.master.address if shard.master else None, tuple(replica.address for replica in shard.replicas))
        for shard in topology.shards
    ]


def _summary(topology: Topology) -> str:
    return ", ".join(f"master {shard.master.address if shard.master else 'unknown'}" for shard in topology.shards)
