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
from hatopo.client._calls import Call, Script
from hatopo.client._options import Options
from hatopo.client._outcome import final_error
from hatopo.connection import NodePool, Patience, Waiters, Wire, WireOptions, survive_fork
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
    RetryPolicy,
    Wait,
    failure_of,
    pick,
)
from hatopo.topology import NotFound, Topology, TopologyView

log = logging.getLogger("hatopo.topology")

REFRESH_GAP = 0.1
"""Seconds between two rounds of discovery."""
ROUND_PATIENCE = 5.0
SILENCE_GAP = 1.0
"""Seconds between two rounds that were asked for because a node is silent."""
WARN_AFTER, WARN_GAP = 1.0, 10.0
_FOREIGN = frozenset({"retry", "retry_on_error", "retry_on_timeout", "event_dispatcher"})
"""Keywords that stay visible in `connection_kwargs` but must not make connections retry on their own."""


class Source(Protocol):
    """Where a deployment's topology comes from."""

    def find(self) -> Topology | NotFound:
        """Asks, and returns within a second."""

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

    def give_back(self, connection: Wire) -> None:
        """Takes it back with all its replies read."""

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
        self.scripts: dict[str, Script] = {}  # by SHA1; only ever added to
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
            pools = {
                node.address: self._pools.get(node.address) or self._make_pool(node.address) for node in found.nodes
            }
            retired = [pool for address, pool in self._pools.items() if address not in pools]
            retired += [pools[new.address] for new in found.nodes for was in _nodes(old) if _replaced(was, new)]
            self._pools = pools
            master = pick(found, lambda: None) if len(found.shards) == 1 else None
            self.sole = pools[master.address] if master is not None else None
            self._note_change()
        for pool in retired:
            pool.retire()
        if old is not None:
            log.warning("the topology has changed: %s instead of %s", _summary(found), _summary(old))
        return True

    def _make_pool(self, address: Address) -> NodePool:
        options, roles_matter, me = self.options, self._source is not None, weakref.ref(self)
        wire = WireOptions(
            address=address,
            expect_role="master" if roles_matter else "",
            insist_protocol=str(options.connection_kwargs.get("protocol")) == "3",
            max_reply_bytes=options.max_reply_bytes,
            on_silence=_weakly(me, Deployment.look_around) if roles_matter else None,
        )

        def make(target: Address) -> Wire:
            kwargs = {name: value for name, value in options.connection_kwargs.items() if name not in _FOREIGN}
            if not target.is_unix:
                kwargs.update(host=target.host, port=target.port)
            return options.connection_class(wire=wire, **kwargs)

        recovered = _weakly(me, Deployment._note_change)
        return NodePool(address, make, options.max_connections, options.care, self.rng, recovered)

    def look_around(self) -> None:
        """A node is silent: finds out, at most once a second, whether the topology has changed."""
        if self._source is not None and monotonic() - self._refreshed > SILENCE_GAP:
            self._refresh()

    def _refresh(self) -> None:
        """One round of discovery, unless one is under way or has just ended."""
        with self._lock:
            now = monotonic()
            under_way = now - self._refreshing < ROUND_PATIENCE  # an interrupted round must not count for ever
            if self._source is None or under_way or now - self._refreshed < REFRESH_GAP:
                return
            self._refreshing = now
        try:
            found = self._source.find()
            if isinstance(found, Topology):
                self._missing = None
                self.publish(found)
            else:
                self._missing = found
        finally:
            with self._lock:
                self._refreshing = float("-inf")
                self._refreshed = monotonic()

    def _note_change(self) -> None:
        with self._lock:
            self._changes += 1
        self._sleepers.wake_all()

    # ------------------------------------------------------------------ lending

    def pool_for(self, call: Call) -> NodePool:
        """The pool of the node that a call goes to.

        Raises:
            MasterNotFoundError: no such node is known.
        """
        if self._view.current is None:
            self._refresh()
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
        return self.pool_for(call).lend(until, check=call.delicate)

    def give_back(self, connection: Wire) -> None:
        """Takes back a connection that it has lent."""
        pool = connection.home()
        if pool is None:
            connection.disconnect()
        else:
            pool.give_back(connection)

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
            if error is None:
                try:
                    return self._try(call, lender, terms, end, started)
                except rx.RedisError as raised:
                    error = raised
            now = monotonic()
            failure = failure_of(error)
            if attempt is None:
                policy = call.policy(terms.policies)
                limits = Limits(terms.failover_timeout, end, terms.retries, fixed=self._source is None)
                attempt = Attempt(policy, limits, self._budget, self.rng, started=started, now=now)
            if failure.cause is Cause.NO_SCRIPT and not self._load_script(call, lender, end):
                raise error
            self._ride_on(call, attempt, failure, now, seen)
            error = None

    def _try(self, call: Call, lender: Lender, terms: Terms, end: float, started: float) -> Any:
        """One attempt. What is raised or returned has been classified by nobody yet."""
        connection = lender.lend(call, min(end, started + terms.failover_timeout))
        try:
            result = call.perform(connection, end)
        except BaseException as error:
            if isinstance(error, rx.DataError):  # an argument that cannot be packed: nothing was sent
                lender.give_back(connection)
                raise
            lender.discard(connection)
            salvaged = call.salvage(error, terms.policies) if isinstance(error, rx.RedisError) else None
            if salvaged is None:
                raise
            return salvaged
        lender.give_back(connection)
        if isinstance(result, Exception):
            if failure_of(result).cause is Cause.READONLY:
                self._retire(connection)
            raise result
        return result

    def _retire(self, connection: Wire) -> None:
        """A node that was taken for a master refused a write: none of its connections is a master's."""
        pool = connection.home()
        if pool is not None and self._source is not None:
            pool.retire()

    def _ride_on(self, call: Call, attempt: Attempt, failure: Failure, now: float, seen: int) -> None:
        """Carries out the step after a failure, or raises the error that ends the call."""
        kind = call.kind()
        step = attempt.next(failure, kind, now)
        match step:
            case GiveUp(verdict):
                final = final_error(call.name, failure.error, kind, verdict, attempt, now)
                raise final from final.__cause__
            case Refresh(seconds):
                if now - attempt.started > WARN_AFTER:
                    self._warn(call, failure, now - attempt.started)
                with self._counted(call):
                    if seconds:
                        self._refresh()
                    self._wait(seen, now + seconds)
            case Wait(seconds):
                with self._counted(call):
                    self._wait(seen, now + seconds)

    def _wait(self, seen: int, until: float) -> None:
        """Sleeps until `until`, or until something has changed since `seen`."""
        left = until - monotonic()
        while left > 0 and self._changes == seen:
            self._sleepers.sleep(left, lambda: self._changes != seen)
            left = until - monotonic()

    @contextmanager
    def _counted(self, call: Call) -> Generator[None]:
        with self._lock:
            if self._waiting >= self.options.max_waiting:
                message = (
                    f"{call.name} was not tried again: {self._waiting} calls wait for a failover already (max_waiting)"
                )
                raise errors.TooManyWaitingError(message, command=call.name)
            self._waiting += 1
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

    def _load_script(self, call: Call, lender: Lender, end: float) -> bool:
        """Loads the script that a call misses, where its source is known."""
        script = call.missing_script(self.scripts)
        if script is None:
            return False
        connection = lender.lend(call, end)
        try:
            connection.send(connection.pack(("SCRIPT LOAD", script.source)), Patience(connection.patience.silence, end))
            connection.read(Patience(connection.patience.silence, end))
        except BaseException:
            lender.discard(connection)
            raise
        lender.give_back(connection)
        return True

    def after_fork(self) -> None:
        """In a forked child nobody else waits or refreshes."""
        self._make_locks()
        self._waiting, self._refreshing = 0, float("-inf")


def _weakly(me: weakref.ref[Deployment], method: Callable[[Deployment], None]) -> Callable[[], None]:
    """A callback that does not keep the deployment alive."""

    def callback() -> None:
        deployment = me()
        if deployment is not None:
            method(deployment)

    return callback


def _nodes(topology: Topology | None) -> tuple[Any, ...]:
    return () if topology is None else topology.nodes


def _replaced(was: Any, new: Any) -> bool:
    """Whether another process answers at the same address."""
    return bool(was.address == new.address and was.id and new.id and was.id != new.id)


def _summary(topology: Topology) -> str:
    return ", ".join(f"master {shard.master.address if shard.master else 'unknown'}" for shard in topology.shards)


__all__ = ["Deployment", "Outcome", "RetryPolicy", "Source", "Terms"]
