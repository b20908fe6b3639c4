"""The nodes of a deployment in use: its topology, a pool for each node, and who is told when they change.

Carries out what a new view of the topology means: pools for nodes that came, the end for the connections of nodes that
left or changed their role. Decides nothing about the topology itself, nor about calls.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from random import Random
from time import monotonic, sleep

from hatopo import errors
from hatopo.address import Address
from hatopo.client._bulletin import Bulletin
from hatopo.client._options import Options
from hatopo.client._stats import Tally
from hatopo.client._threads import start_thread
from hatopo.connection import NodePool, Room, Waiters, Wire, WireOptions, survive_fork
from hatopo.events import Cause, DatasetReplaced, Event, MasterChanged, NodeDown, NodeUp, TopologyChanged
from hatopo.routing import pick
from hatopo.topology import Topology, server_name_for

log = logging.getLogger("hatopo.topology")

IN_PEACE = 0.05
"""Seconds that calls have to end on a connection to a node that is used no more."""
SECOND_LOOK = 0.1
"""Seconds after which a node with an unexpected run id is looked at again."""
_FOREIGN = frozenset({"retry", "retry_on_error", "retry_on_timeout", "event_dispatcher"})
"""Keywords that stay visible in `connection_kwargs` but must not make connections retry on their own."""


@dataclass(frozen=True, slots=True)
class News:
    """A view of the topology that is in force from now on.

    Attributes:
        version: the later of two has the higher one.
        topology: the view.
        cause: why it is another one.
        since: the moment of the first sign of a failover, if there was one.
    """

    version: int
    topology: Topology
    cause: Cause
    since: float | None = None


class Nodes:
    """See the module.

    Args:
        options: of the client that made it.
        name: of the deployment, for messages and events.
        seed: the first address that the user gave, if that is not a node's.
        follows: the topology may change, so that nodes must confirm who they are.
    """

    def __init__(self, options: Options, name: str, seed: Address | None, *, follows: bool) -> None:
        self.options = options
        self._seed = seed
        self.name = name
        self.sole: NodePool | None = None  # the pool of the one master of a one-shard topology; under _lock
        self.rng = Random()
        self.bulletin = Bulletin()
        self.topology: Topology | None = None  # the view in force, or None before the first; under _lock
        self._follows = follows
        self._make_locks()
        self.version = 0  # of the view in force; under _lock
        self._published = float("-inf")
        self._pools: dict[Address, NodePool] = {}  # replaced whole under _lock
        self._masters: frozenset[Address] = frozenset()
        self._ids: dict[Address, str] = {}  # the run ids of nodes that were met; under _lock
        self._strangers: dict[
            Address, tuple[str, float]
        ] = {}  # who is elsewhere than expected, since when; under _lock
        self._ids_told = True  # nodes let us ask for their run ids
        self._changes = 0  # counts what waiting calls wait for: new views, nodes that answer again; under _lock
        self._tally = Tally()  # under _lock
        survive_fork(self)

    def _make_locks(self) -> None:
        self._lock = threading.RLock()
        self._sleepers = Waiters()  # calls that wait for a change

    def after_fork(self) -> None:
        """In a forked child nobody else waits."""
        self._make_locks()

    # ------------------------------------------------------------------ the topology

    def publish(self, news: News) -> None:
        """Puts a view in force: pools for new nodes, the end for those that left or have another role."""
        found = news.topology
        with self._lock:
            if news.version <= self.version:
                return
            old, self.version, self.topology = self.topology, news.version, found
            if _visible(found) == _visible(old):
                self._adopt(found)
                self._end_dead(old, found)
                return
            self._published = monotonic()
            masters = frozenset(found.masters)
            pools = {}
            for node in found.nodes:
                pool = self._pools.get(node.address)
                if pool is None or (node.address in masters) != (node.address in self._masters):
                    pool = self._make_pool(node.address, node.address in masters)
                pools[node.address] = pool
            retired = [pool for pool in self._pools.values() if pools.get(pool.address) is not pool]
            self._ids = {address: self._ids[address] for address in self._ids if address in masters & self._masters}
            self._strangers = {}
            self._pools, self._masters = pools, masters
            self._adopt(found)
            master = pick(found, lambda: None) if len(found.shards) == 1 else None
            self.sole = pools[master.address] if master is not None else None
            self._note_change()
        for pool in retired:
            self.phase_out(pool)
        self._end_dead(old, found)
        self._announce(old, news)

    def _adopt(self, topology: Topology | None) -> None:
        """Another view is in force; under the lock."""

    def _end_dead(self, old: Topology | None, found: Topology) -> None:
        """Ends what is under way on replicas that those who watch them have just given up."""
        before = {node.address for node in (old.nodes if old is not None else ()) if not node.flagged}
        for node in found.nodes:
            pool = self._pools.get(node.address)
            if node.flagged and node.address in before and pool is not None:
                self.phase_out(pool)

    def _announce(self, old: Topology | None, news: News) -> None:
        found, now = news.topology, monotonic()
        self.emit(TopologyChanged(self.name, found, news.cause))
        for before, after in zip(old.shards if old is not None else (), found.shards, strict=False):
            if after.master is None or (before.master and before.master.address == after.master.address):
                continue
            with self._lock:
                self._tally.failovers += 1
                signs = [sign for sign in (news.since, self._tally.began(now)) if sign is not None]
            seconds = now - min(signs, default=now)
            former = before.master.address if before.master else None
            log.warning(
                "%s: the master is %s instead of %s (%s, %.2f s after the first sign)",
                *(self.name, after.master.address, former or "nobody", news.cause.value, seconds),
            )
            self.emit(MasterChanged(self.name, former, after.master.address, seconds, found.provisional, news.cause))

    def phase_out(self, pool: NodePool) -> None:
        """Nothing that is connected now is used again; calls that are under way have a moment to end in peace.

        They would be ambiguous if they were cut off, and a node that is alive answers, if only with READONLY.
        """
        generation = pool.renew()
        if not pool.connections():
            return

        def cut() -> None:
            sleep(IN_PEACE)
            pool.cut_off(generation)

        if not start_thread("hatopo-retire", cut):
            cut()

    def forget(self) -> None:
        """What is known grows old unseen: it is found out anew before it is used."""
        with self._lock:
            self.version, self.topology, self.sole = 0, None, None
            self._pools, self._masters, self._strangers = {}, frozenset(), {}
            self._adopt(None)

    def emit(self, event: Event) -> None:
        """Has an event delivered to those who subscribed."""
        self.bulletin.emit(event)

    def _note_change(self) -> None:
        with self._lock:
            self._changes += 1
        self._sleepers.wake_all()

    def _wait(self, seen: int, until: float) -> None:
        """Sleeps until `until`, or until something has changed since `seen`."""
        left = until - monotonic()
        while left > 0 and self._changes == seen:
            self._sleepers.sleep(left, lambda: self._changes != seen)
            left = until - monotonic()

    # ------------------------------------------------------------------ pools

    def _make_pool(self, address: Address, master: bool) -> NodePool:
        room = Room(self.options.max_connections, self.options.failover_timeout)
        make = _Maker(weakref.ref(self), "master" if self._follows and master else "")
        return NodePool(address, make, room, self.options.care, self.rng, _Observing(weakref.ref(self)))

    def make_wire(
        self,
        address: Address,
        expect_role: str = "",
        *,
        pooled: bool = False,
        identify: Callable[[str], None] | None = None,
    ) -> Wire:
        """An unconnected connection to a node, as this client's options want it."""
        options, me = self.options, weakref.ref(self)
        node = None if self.topology is None else self.topology.node_at(address)
        wire = WireOptions(
            address=address,
            expect_role=expect_role,
            insist_protocol=str(options.connection_kwargs.get("protocol")) == "3",
            max_reply_bytes=options.max_reply_bytes,
            on_silence=_looking(me, address) if self._follows and pooled else None,
            server_name=server_name_for(options.tls_server_name, address, self._seed) or (node and node.name) or None,
            identify=_identifying(me, address) if self._follows and pooled and self._ids_told else identify,
        )
        kwargs = {name: value for name, value in options.connection_kwargs.items() if name not in _FOREIGN}
        if not address.is_unix:
            kwargs.update(host=address.host, port=address.port)
        return options.connection_class(wire=wire, **kwargs)

    def look_around(self, address: Address, calm: bool, until: float) -> None:
        """A node is silent; `calm`: that was asked for."""

    def met(self, address: Address, run_id: str) -> None:
        """A node has said who it is, in a handshake.

        One that is new to us and has another run id than the sentinels know is looked at twice: they are asked again
        in between, and notice a restart within ten seconds; if they still name its address, it is used.

        Raises:
            WrongNodeError: an address that is new to us belongs to another node than it should.
        """
        if not run_id:
            if self._ids_told:
                self._ids_told = False
                log.info("%s: nodes do not tell their run ids (INFO is not permitted): they go unchecked", self.name)
            return
        with self._lock:
            known = self._ids.get(address, "")
            node = None if self.topology is None else self.topology.node_at(address)
            expected = "" if known or node is None else node.id
            stranger = bool(expected) and expected != run_id
            said, since = self._strangers.get(address, ("", 0.0))
            looked_twice = said == run_id and monotonic() - since > SECOND_LOOK
            if said != run_id:
                self._strangers[address] = run_id, monotonic()
            if not stranger or looked_twice:
                self._ids[address] = run_id
        if stranger and not looked_twice:
            raise errors.WrongNodeError(
                f"{address} is another node than {self.name} has there (run id {run_id[:8]}... instead of "
                f"{expected[:8]}...): the address was reused, or the node has just been restarted",
                address,
            )
        former = known or expected
        if former and former != run_id and address in self._masters:
            log.warning("%s: the master at %s is another process than before", self.name, address)
            self.emit(DatasetReplaced(self.name, address, former, run_id))

    def uses(self, topology: Topology, pools: Mapping[Address, NodePool]) -> bool:
        """Whether these are in force."""
        return self.topology is topology and self._pools is pools

    @property
    def pools(self) -> list[NodePool]:
        """The pools of all nodes."""
        return list(self._pools.values())

    def disconnect(self, *, lent: bool = True) -> None:
        """Closes the connections; the next call opens new ones."""
        for pool in self.pools:
            pool.disconnect(lent=lent)

    def renew(self, address: Address) -> None:
        """Connections to a node are replaced before their next use."""
        pool = self._pools.get(address)
        if pool is not None:
            pool.renew()

    def give_back(self, connection: Wire, *, check: bool = False) -> None:
        """Takes back a connection that was lent."""
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

    # ------------------------------------------------------------------ what pools tell

    def _dialled(self) -> None:
        with self._lock:
            self._tally.dials += 1

    def _reached(self, address: Address) -> None:
        self.emit(NodeUp(self.name, address))
        self._note_change()

    def _unreachable(self, address: Address, error: Exception) -> None:
        self.emit(NodeDown(self.name, address, errors.clip(error)))


class _Maker:
    """Makes the connections of a pool, which does not keep its deployment alive."""

    def __init__(self, nodes: weakref.ref[Nodes], role: str) -> None:
        self._nodes = nodes
        self._role = role

    def __call__(self, address: Address) -> Wire:
        nodes = self._nodes()
        if nodes is None:
            raise errors.RetiredError("the client of this connection is gone", address)
        return nodes.make_wire(address, self._role, pooled=True)


class _Observing:
    """Tells a deployment of its pools."""

    def __init__(self, nodes: weakref.ref[Nodes]) -> None:
        self._nodes = nodes

    def dialled(self) -> None:
        nodes = self._nodes()
        if nodes is not None:
            nodes._dialled()

    def reached(self, address: Address) -> None:
        nodes = self._nodes()
        if nodes is not None:
            nodes._reached(address)

    def unreachable(self, address: Address, error: Exception) -> None:
        nodes = self._nodes()
        if nodes is not None:
            nodes._unreachable(address, error)


def _looking(me: weakref.ref[Nodes], address: Address) -> Callable[[bool, float], None]:
    def look(calm: bool, until: float) -> None:
        nodes = me()
        if nodes is not None:
            nodes.look_around(address, calm, until)

    return look


def _identifying(me: weakref.ref[Nodes], address: Address) -> Callable[[str], None]:
    def identify(run_id: str) -> None:
        nodes = me()
        if nodes is not None:
            nodes.met(address, run_id)

    return identify


def _visible(topology: Topology | None) -> object:
    """What clients can see of a topology: who is the master of what, at which address, and for how sure."""
    if topology is None:
        return None
    return topology.provisional, [
        (shard.master.address if shard.master else None, tuple(replica.address for replica in shard.replicas))
        for shard in topology.shards
    ]
