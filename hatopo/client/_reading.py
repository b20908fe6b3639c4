"""Reads: which node of a deployment answers one, and what is known of the nodes for that.

Brings together policies and health (pure, in `routing`), the monitor that asks nodes how they are, and the pools. A
policy that is in use has a `Reader` with a plan for the hot path: the pools of its best candidates, in pairs of which
the one with fewer connections in use is taken. A plan is replaced whole; whatever changes the choice makes it stale,
and the next call, on the warm path, makes another. Nobody is asked anything while no policy reads from replicas.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterable, Mapping
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING

import redis.exceptions as rx

from hatopo import errors
from hatopo.address import Address
from hatopo.client._monitor import GAP, HURRY, Monitor
from hatopo.client._plans import STALE, Plan, Reader, attempts
from hatopo.client._threads import threads_run
from hatopo.connection import NodePool, Waiters, Wire, survive_fork
from hatopo.events import ReplicaAccepted, ReplicaRefused
from hatopo.routing import Checkup, Health, NodeStatus, ReadFrom, Tiers, as_dialled, choices, shard_of
from hatopo.topology import RoleReport, Shard, Topology

if TYPE_CHECKING:
    from hatopo.client._calls import Call
    from hatopo.client._deployment import Deployment

log = logging.getLogger("hatopo.topology")

PLAN_LASTS = 5.0
"""Seconds after which a plan must be renewed: so it is known which policies are in use."""
LINGER = 15.0
"""Seconds for which nodes are asked after the last plan was made."""
MAX_READERS = 100
FIRST_LOOK = 0.6
"""Seconds that a read waits for the first answer of a node that it would prefer."""


class Reading:
    """See the module.

    Args:
        deployment: whose nodes they are; held weakly, because it holds us.
        max_lag: how many bytes a replica may be behind its master, or None.
    """

    def __init__(self, deployment: Deployment, max_lag: int | None) -> None:
        self._deployment = weakref.ref(deployment)
        self._health = Health(max_lag)  # under _lock
        self._readers: dict[ReadFrom, Reader] = {}  # the latest; under _lock
        self._plans: weakref.WeakSet[Reader] = weakref.WeakSet()  # whoever has one; under _lock
        self._version = 0  # of what plans are made from; under _lock
        self._wanted = 0.0  # until when somebody wants to know how the nodes are
        self._monitor: Monitor | None = None  # under _lock
        self._inline: Monitor | None = None  # where there are no threads; under _lock
        self._looked = float("-inf")  # when it asked last
        self._doubted: set[Address] = set()  # names that lead to nodes that are refused
        self._told: dict[Address, str] = {}  # why replicas are refused, as far as events have said so
        self._make_locks()
        survive_fork(self)

    def _make_locks(self) -> None:
        self._here = threading.Lock()  # held by who asks without a thread
        self._lock = threading.RLock()
        self._sleepers = Waiters()  # calls that wait for a node's first answer

    def after_fork(self) -> None:
        """In a forked child nobody asks."""
        self._make_locks()
        for monitor in (self._monitor, self._inline):
            if monitor is not None:
                monitor.disown()
        self._monitor = self._inline = None
        self._health.forget()
        self._outdate()

    def reader(self, policy: ReadFrom) -> Reader | None:
        """Who reads by this policy; None for the master alone."""
        if policy.only_master:
            return None
        reader = self._readers.get(policy)
        if reader is None:
            with self._lock:
                reader = self._readers.setdefault(policy, Reader(policy))
                self._plans.add(reader)
                while len(self._readers) > MAX_READERS:  # functions that are made anew for each call
                    self._readers.pop(next(iter(self._readers)))
        return reader

    # ------------------------------------------------------------------ what is told

    def adopt(self, topology: Topology | None) -> None:
        """Another view is in force."""
        with self._lock:
            self._health.adopt(topology)
            self._outdate()
        self._hurry()

    def failed(self, address: Address, why: str, *, barred: bool = False) -> None:
        """A call has failed at a node; `barred`: any other would, too, until the node says otherwise."""
        with self._lock:
            if self._monitor is None and self._inline is None:
                return
            if not self._health.failed(address, why, barred=barred):
                return
            self._outdate()
            self._looked = float("-inf")
        self._hurry()

    def ask_now(self) -> None:
        """Has all nodes asked at once, if anybody asks them: by the thread, or here."""
        with self._lock:
            monitor, inline, now = self._monitor, self._inline, monotonic()
            if monitor is None and (inline is None or now - self._looked < HURRY):
                return
            self._looked = now
        if monitor is not None:
            monitor.hurry()
        elif inline is not None:
            self._look_here(inline)

    def _hurry(self) -> None:
        """Has the thread ask at once, if there is one."""
        monitor = self._monitor
        if monitor is not None:
            monitor.hurry()

    def stop(self) -> None:
        """Nobody reads any more."""
        with self._lock:
            monitor, self._monitor, self._inline = self._monitor, None, None
            self._health.forget()
            self._told = {}
            self._outdate()
        if monitor is not None:
            monitor.stop()

    def _outdate(self) -> None:
        self._version += 1
        for reader in self._plans:
            reader.plan = STALE

    # ------------------------------------------------------------------ reads

    def lend(
        self, call: Call, topology: Topology, pools: Mapping[Address, NodePool], until: float, seconds: float
    ) -> Wire:
        """A connection to one of the nodes that may answer a read, the best of those that can be reached.

        `seconds`: for how long to wait for one of several equals who are all busy.

        Raises:
            PoolExhaustedError: they still are.
            NoSuitableNodeError: there is none, and the policy does not permit the master.
            redis.RedisError: why none can be reached, and the policy permits the master.
        """
        planned = self._planned(call, topology, pools, until)
        if planned is not None:
            return planned
        found, first, masters = self._candidates(call, topology, pools, until)
        order = [pool for pool in found if pool.address not in call.tried] or found
        failure, exhausted, busy = None, None, list[NodePool]()
        for pool, patience in attempts(order, masters - first, busy, seconds):
            lent = self._lend_at(pool, call, patience, until, others=pool is not order[-1])
            if isinstance(lent, Wire):
                return lent
            failure = lent
            if isinstance(lent, errors.PoolExhaustedError):
                busy.append(pool)
                exhausted = lent
        assert call.reader is not None
        if exhausted is not None and any(pool.address not in call.tried for pool in busy) and monotonic() < until:
            raise exhausted  # somebody is fit, and may be free soon
        if failure is not None and (masters or monotonic() >= until):
            raise failure  # the master is permitted, and waited for; or there was no time
        raise self.none(call.name, call.reader.policy, topology)

    def _lend_at(self, pool: NodePool, call: Call, seconds: float, until: float, *, others: bool) -> Wire | Exception:
        """A connection to this node, or why there is none; `others`: some can be asked after it."""
        call.at, call.others = pool.address, others
        try:
            wire = pool.lend(until, patience=seconds)
        except errors.PoolExhaustedError as error:
            return error
        except (errors.NodeError, rx.AuthenticationError) as error:
            call.tried.add(pool.address)
            self._missed(pool, error, until)
            return error
        call.tried.add(pool.address)
        return wire

    def _planned(self, call: Call, topology: Topology, pools: Mapping[Address, NodePool], until: float) -> Wire | None:
        """A connection to the node that the call wants, or by the plan of the hot path, if there is such a node."""
        assert call.reader is not None
        wanted, call.next, pool = call.next, None, None
        if wanted is not None:
            pool = pools.get(wanted)
        elif len(topology.shards) == 1 and not call.tried:
            pool = call.reader.pick(monotonic())
        if pool is None:
            return None
        found = self._lend_at(pool, call, 0.0, until, others=pool.address not in call.tried)
        return found if isinstance(found, Wire) else None

    def _missed(self, pool: NodePool, error: Exception, until: float) -> None:
        """A node could not be reached; a dial that the caller's own time cut short tells nothing of it."""
        if monotonic() < until:
            self.failed(pool.address, errors.clip(error))

    def _candidates(
        self, call: Call, topology: Topology, pools: Mapping[Address, NodePool], until: float
    ) -> tuple[list[NodePool], frozenset[Address], frozenset[Address]]:
        """The pools to try, in order; which of their nodes are preferred to all others, and which are masters."""
        reader, shard = call.reader, shard_of(topology, call.first_key)
        if reader is None or shard is None:
            return [], frozenset(), frozenset()
        deployment = self._deployment()
        self._look(reader.policy, shard, until)
        version = self._version
        tiers = choices(reader.policy, self._known(shard, reader.policy))
        if not tiers and reader.policy.any_master and shard.master is None and deployment is not None:
            raise deployment.unknown()  # and that is waited for
        order: list[NodePool] = []
        for tier in tiers:
            order += self._balanced([pools[status.address] for status in tier if status.address in pools])
        if len(topology.shards) == 1 and deployment is not None and deployment.uses(topology, pools):
            self._plan(reader, tiers, pools, version)  # another view that comes now changes the version
        first = frozenset(status.address for tier in tiers[:1] for status in tier)
        return order, first, frozenset(status.address for tier in tiers for status in tier if status.is_master)

    def _balanced(self, pools: list[NodePool]) -> list[NodePool]:
        """Equals in the order in which they are tried: of two random ones the one with fewer connections in use."""
        deployment = self._deployment()
        if deployment is None or len(pools) < 2:
            return pools
        deployment.rng.shuffle(pools)
        if pools[1].in_flight < pools[0].in_flight:
            pools[0], pools[1] = pools[1], pools[0]
        return pools

    def _plan(self, reader: Reader, tiers: Tiers, pools: Mapping[Address, NodePool], version: int) -> None:
        best = tiers[0] if tiers else ()
        if not best or any(status.refused or status.doubtful for status in best):
            return  # until a node is fit, every read takes the warm path
        with self._lock:
            if version == self._version:
                lasts = PLAN_LASTS if self._monitor is not None else GAP
                equals = [pools[status.address] for status in best if status.address in pools]
                if equals:
                    reader.plan = Plan(equals, monotonic() + lasts)

    def none(self, command: str, policy: ReadFrom, topology: Topology) -> errors.NoSuitableNodeError:
        """The error that names every node, and why it was not taken."""
        with self._lock:
            statuses = self._health.statuses()
            whys = {one.address: self._health.why_doubtful(one.address) for one in statuses}
        failures = {
            address: f"it has just failed: {why}" if why else "no connection to it could be had"
            for address, why in whys.items()
        }
        known = {status.address for status in statuses}
        ideal = [replace(status, refused="", doubtful=False) for status in statuses]
        permitted = {status.address for tier in policy.tiers(ideal) for status in tier}
        refused = {
            str(status.address): status.refused or failures[status.address]
            if status.address in permitted
            else f"read_from={policy} does not permit it ({status.role})"
            for status in statuses
        }
        refused |= {str(node.address): "it is not known yet" for node in topology.nodes if node.address not in known}
        refused |= {str(address): why for address, why in self._absent().items()}
        shown = "; ".join(errors.about(node, why) for node, why in refused.items()) or "no node is known"
        message = (
            f"{command} was not sent: no node may answer it under read_from={policy}: {shown}. A policy that permits "
            "the master, such as replica_preferred, asks it then"
        )
        return errors.NoSuitableNodeError(message, command=command, refused=refused)

    def choose(self, policy: ReadFrom, topology: Topology, besides: Iterable[Address], until: float) -> Address | None:
        """One node that may answer reads by this policy, other than some that have failed; None if there is none."""
        master = topology.shards[0].master
        if policy.only_master:
            return None if master is None else master.address
        self._look(policy, topology.shards[0], until)
        tiers = choices(policy, self._known(topology.shards[0], policy))
        failed = set(besides)
        deployment = self._deployment()
        for tier in tiers:
            left = [status.address for status in tier if status.address not in failed]
            if left and deployment is not None:
                return deployment.rng.choice(left)
        return next((status.address for tier in tiers for status in tier), None)

    def role_of(self, address: Address) -> RoleReport | None:
        """What a node said last of its replication."""
        with self._lock:
            return self._health.role_of(address)

    def astray(self, address: Address, before: RoleReport | None, until: float) -> str:
        """Why the data of a replica are others than when it told this of its replication; "": nothing says so."""
        self._wanted = monotonic() + LINGER
        self.watch()
        end = min(until, monotonic() + FIRST_LOOK)

        def look() -> str | None:
            with self._lock:
                return self._health.astray(address, before)

        while (found := look()) is None and monotonic() < end:
            self._sleepers.sleep(end - monotonic(), lambda: look() is not None)
        return found or ""

    # ------------------------------------------------------------------ how the nodes are

    def statuses(self) -> tuple[NodeStatus, ...]:
        """What is known of the nodes."""
        deployment = self._deployment()
        pools = {} if deployment is None else {pool.address: pool for pool in deployment.pools}
        with self._lock:
            known = self._health.statuses()
        placed = (
            replace(one, in_flight=pools[one.address].in_flight) if one.address in pools else one for one in known
        )
        return (*placed, *(NodeStatus(address, "", why) for address, why in self._absent().items()))

    def _absent(self) -> Mapping[Address, str]:
        deployment = self._deployment()
        return {} if deployment is None else deployment.absent()

    def _look(self, policy: ReadFrom, shard: Shard, until: float) -> None:
        """Has the nodes of a shard asked, if they are not, and waits for the first answer of one that is preferred."""
        deployment = self._deployment()
        if not shard.replicas and (deployment is None or not deployment.may_grow):
            return  # a master alone is asked nothing, unless it may name replicas
        self._wanted = monotonic() + LINGER
        self.watch()
        known = [replace(one, refused="", doubtful=False) for one in self._known(shard, policy)]
        ideal = [known] if policy.opaque else policy.tiers(known)
        preferred = {status.address for status in ideal[0]} if ideal else set()

        def ready() -> bool:
            with self._lock:
                best = self._health.statuses(preferred)
                unseen = preferred.intersection(self._health.unseen())
            return not unseen or (not policy.opaque and any(not one.refused and not one.doubtful for one in best))

        end = min(until, monotonic() + FIRST_LOOK)
        while not ready() and monotonic() < end:
            self._sleepers.sleep(end - monotonic(), ready)

    def _known(self, shard: Shard, policy: ReadFrom) -> tuple[NodeStatus, ...]:
        """What is known of the nodes of a shard; how busy they are, if the policy may want to know."""
        nodes = ([] if shard.master is None else [shard.master]) + list(shard.replicas)
        if not shard.replicas:
            return tuple(NodeStatus(node.address, "master") for node in nodes)
        addresses = [node.address for node in nodes]
        if policy.lively:
            return tuple(status for status in self.statuses() if status.address in addresses)
        with self._lock:
            return self._health.statuses(addresses)

    def watch(self) -> None:
        """Sees to it that the nodes are asked how they are: by a thread, or here if there can be none."""
        if self._monitor is None:
            self._begin_to_watch()

    def _begin_to_watch(self) -> None:
        with self._lock:
            if self._monitor is not None:
                return
            monitor = Monitor(weakref.ref(self))
            if threads_run() and monitor.start():
                self._monitor = monitor
                return
            inline = self._inline = self._inline or monitor
            now = monotonic()
            if now - self._looked < GAP:
                return
            self._looked = now
        self._look_here(inline)

    def _look_here(self, inline: Monitor) -> None:
        """Asks all nodes, unless somebody is at it."""
        if self._here.acquire(blocking=False):
            try:
                inline.look(self)
            finally:
                self._here.release()

    # ------------------------------------------------------------------ for the monitor

    @property
    def version(self) -> int:
        """See `Owner`."""
        return self._version

    def wanted(self) -> bool:
        """See `Owner`."""
        deployment = self._deployment()
        with self._lock:
            if deployment is not None and (monotonic() < self._wanted or deployment.keeps_watch):
                return True
            self._monitor = None
            self._health.forget()
            self._outdate()
            return False

    def targets(self) -> Iterable[Address]:
        """See `Owner`."""
        deployment = self._deployment()
        return () if deployment is None else deployment.watched()

    def make_line(self, address: Address) -> Wire:
        """See `Owner`."""
        deployment = self._deployment()
        if deployment is None:
            raise errors.RetiredError("the client of this connection is gone", address)
        return deployment.make_wire(address, identify=_nobody_minds)

    def heard(self, address: Address, checkup: Checkup, *, fresh: bool = True) -> bool:
        """See `Owner`."""
        deployment = self._deployment()
        if deployment is None:
            return True
        if checkup.ominous and not fresh and not address.is_ip:
            deployment.renew(address)  # the name may lead to another node by now: for calls, too
            return False
        checkup = as_dialled(checkup, lambda announced: deployment.admitted(announced, address))
        with self._lock:
            if self._health.heard(address, checkup):
                self._outdate()
        self._sleepers.wake_all()
        deployment.checked(address, checkup)
        return True

    def looked(self) -> None:
        """See `Owner`."""
        deployment = self._deployment()
        if deployment is None:
            return
        with self._lock:
            for reader in self._plans:
                if reader.policy.lively:
                    reader.plan = STALE
            statuses, unseen = self._health.statuses(), self._health.unseen()
        self._looked = monotonic()
        self._doubt_names(deployment, statuses)
        deployment.looked()
        if monotonic() < self._wanted:
            self._tell(deployment, [one for one in statuses if one.address not in unseen])

    def _doubt_names(self, deployment: Deployment, statuses: Iterable[NodeStatus]) -> None:
        """Whoever is refused and known by name: that may lead to another node by now, for us and for calls."""
        doubted = {one.address for one in statuses if one.refused and not one.address.is_ip}
        monitor = self._monitor or self._inline
        for address in doubted:
            if monitor is not None:
                monitor.doubt(address)
            if address not in self._doubted:
                deployment.renew(address)
        self._doubted = doubted

    def _tell(self, deployment: Deployment, statuses: Iterable[NodeStatus]) -> None:
        """Tells of replicas that get no reads any more, or get them again."""
        now = {one.address: one.refused for one in statuses if not one.is_master}
        before, self._told = self._told, now
        for address, reason in now.items():
            if reason and not before.get(address):
                log.info("%s: no reads for the replica at %s: %s", deployment.name, address, reason)
                deployment.emit(ReplicaRefused(deployment.name, address, reason))
            elif before.get(address) and not reason:
                log.info("%s: reads for the replica at %s again", deployment.name, address)
                deployment.emit(ReplicaAccepted(deployment.name, address))


def _nobody_minds(run_id: str) -> None:
    """The monitor only wants to know the run id."""
