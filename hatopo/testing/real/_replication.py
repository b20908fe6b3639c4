"""A master and its replicas as processes: decides how they are started, and what can be cut off from what."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Union

from hatopo.testing._access import NODE_USERS, REPLICA
from hatopo.testing._control import HOST, Unsupported
from hatopo.testing._shape import ReplicationShape
from hatopo.testing.real._nodes import RealNode, real_time
from hatopo.testing.real._process import Process
from hatopo.testing.real._proxy import Proxy
from hatopo.testing.world._world import CLIENTS

if TYPE_CHECKING:
    from hatopo.testing._control import Address
    from hatopo.testing.world._clock import Clock
    from hatopo.testing.world._world import Clients

Group = Union[Process, "Clients", Iterable[object]]


class RealReplication(ReplicationShape[RealNode]):
    """A master and its replicas; once entered, it is complete.

    Args:
        replicas: how many.
        config: parameters of all nodes, as of a configuration file.
        users: lines of an ACL file for all nodes; the default user is off then, and replicas log in with the rights
            that they need and no others.
        password: what clients and replicas must AUTH with.
        tls: the files of a certificate; all ports then speak TLS only.
        ports: where the nodes listen, in their order; where there is room, if not given.
        clock: the wall's clock, no other.
        seed: none, for real processes do nothing twice.
        partitionable: everybody reaches the first master through a proxy, by whose address it is known, so that
            `partition` can cut it off; clients that are to stay on its side dial the real one (`address_map`).
    """

    def _prepare(self, clock: Clock | None, seed: int | None, partitionable: bool) -> None:
        self.clock = real_time(clock, seed)
        if self._users:
            self._config |= {"masteruser": REPLICA[0], "masterauth": REPLICA[1]}
        self._partitionable = partitionable
        self._begun = False
        self._proxy: Proxy | None = None
        self._processes: list[Process] = []  # all that there have ever been

    # Its life

    def start(self) -> None:
        """Start all processes, and return when they are in place; once only."""
        with self._lock:
            if self._begun:
                raise RuntimeError(f"a {type(self).__name__} lives once: make a new one")
            self._begun = True
            try:
                self._start()
            except BaseException:
                self.close()
                raise

    def _start_node(self, master: RealNode | None = None) -> RealNode:
        node = RealNode(
            password=self._password,
            users=(*NODE_USERS, *self._users) if self._users else (),
            config=self._config,
            tls=self._tls,
            port=next(self._ports, 0),
        )
        node.name = f"node-{next(self._numbers)}"
        self._processes.append(node)
        if master is not None:
            node.begin_as_replica(self._way_to(master))
        node.start()
        self.nodes.append(node)
        if self._partitionable and self._proxy is None:
            self._proxy = Proxy(node.address)
            node.announce(*self._proxy.address)
        return node

    def _way_to(self, node: RealNode) -> Address:
        return self._proxy.address if self._proxy is not None and node is self.nodes[0] else node.address

    def _replicas_follow(self) -> bool:
        """Also that they are sent what is written: a master begins with it up to a second after it has set one up.

        A message to subscribers is sent to replicas as writes are, and is in nobody's data.
        """
        if not super()._replicas_follow():
            return False
        for node in self._awake_nodes():
            if node.role() == "master":
                node.execute("PUBLISH", "hatopo-testing", "")
        return super()._replicas_follow()

    def _retire(self, member: RealNode) -> None:
        member.close()

    def close(self) -> None:
        """Stop all; nothing of it is left."""
        with self._lock:
            for process in reversed(self._processes):
                process.close()
            if self._proxy is not None:
                self._proxy.close()

    # The network

    @property
    def address_map(self) -> Mapping[str, str]:
        """What brings a client past the proxy; empty without one."""
        if self._proxy is None:
            return {}
        return {f"{HOST}:{self._proxy.address[1]}": f"{HOST}:{self.nodes[0].port}"}

    def partition(self, one: Group, other: Group) -> None:
        """Cut two groups off from each other: what they send is held back until `heal`, and nothing is closed.

        Of real processes the first master can be cut off, from all other nodes and sentinels at once, in a
        deployment that is partitionable. Clients that use `address_map` stay on its side, the others do not.

        Args:
            one: a node, a sentinel, or several of these.
            other: likewise.
        """
        if self._proxy is None:
            raise Unsupported("real processes can be cut off from each other in a partitionable deployment only")
        sides = [{*_members(one)}, {*_members(other)}]
        for member in set[Process]().union(*sides):
            self._own(member, "member")
        first = self.nodes[0]
        others = {member for member in self._members() if member.running and member is not first}
        if not any(near == {first} and first not in far and far >= others for near, far in (sides, reversed(sides))):
            raise Unsupported("of real processes, the first master alone can be cut off, from all others at once")
        self._proxy.cut()

    def heal(self) -> None:
        """The end of all partitions."""
        if self._proxy is not None:
            self._proxy.heal()


def _members(group: object) -> list[Process]:
    if isinstance(group, Process):
        return [group]
    if group is CLIENTS:
        raise Unsupported(f"real processes can be cut off from each other, not from {group!r}")
    if not isinstance(group, Iterable):
        raise TypeError(f"{group!r} is no member of a deployment, nor several of them, nor CLIENTS")
    return [member for each in group for member in _members(each)]
