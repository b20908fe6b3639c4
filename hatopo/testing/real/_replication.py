"""A master and its replicas as processes: decides how they find each other, and when all is in place."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable
from typing import TYPE_CHECKING, TypeVar, Union

import anyio.to_thread

from hatopo.testing._access import NODE_USERS, REPLICA
from hatopo.testing._control import HOST, ServerError, Unsupported, wait_until
from hatopo.testing._world import CLIENTS
from hatopo.testing.real._nodes import RealNode, real_time
from hatopo.testing.real._process import Process
from hatopo.testing.real._proxy import Proxy

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from typing_extensions import Self

    from hatopo.testing._access import TlsFiles
    from hatopo.testing._clock import Clock
    from hatopo.testing._control import Address
    from hatopo.testing._world import Clients

T = TypeVar("T")
Group = Union[Process, "Clients", Iterable[object]]


class RealReplication:
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

    def __init__(
        self,
        replicas: int = 2,
        *,
        config: Mapping[str, str | int] | None = None,
        users: Sequence[str] = (),
        password: str | None = None,
        tls: TlsFiles | None = None,
        ports: Sequence[int] = (),
        clock: Clock | None = None,
        seed: int | None = None,
        partitionable: bool = False,
    ) -> None:
        if replicas < 0:
            raise ValueError(f"there cannot be {replicas} replicas")
        self.clock = real_time(clock, seed)
        self.nodes: list[RealNode] = []
        """All nodes, the first master first."""
        self._wanted_replicas = replicas
        self._config = {name: str(value) for name, value in (config or {}).items()}
        self._users, self._password, self._tls = [*users], password, tls
        if users:
            self._config |= {"masteruser": REPLICA[0], "masterauth": REPLICA[1]}
        elif password is not None:
            self._config |= {"masterauth": password}
        self._ports = iter(ports)
        self._numbers = itertools.count(1)
        self._partitionable = partitionable
        self._proxy: Proxy | None = None
        self._processes: list[Process] = []  # all that there have ever been

    # Its life

    def start(self) -> None:
        """Start all processes, and return when they are in place."""
        try:
            self._start()
        except BaseException:
            self.close()
            raise

    def _start(self) -> None:
        self._start_nodes()
        self.wait_stable()

    def _start_nodes(self) -> None:
        first = self._start_node()
        if self._partitionable:
            self._proxy = Proxy(first.address)
            first.announce(*self._proxy.address)
        for _ in range(self._wanted_replicas):
            self._start_node(first)

    def _start_node(self, master: RealNode | None = None) -> RealNode:
        node = RealNode(
            password=self._password,
            users=(*NODE_USERS, *self._users) if self._users else (),
            config=self._config,
            tls=self._tls,
            port=next(self._ports, 0),
            name=f"node-{next(self._numbers)}",
        )
        self._processes.append(node)
        if master is not None:
            node.replicate(master.known_at)
        node.start()
        self.nodes.append(node)
        return node

    def close(self) -> None:
        """Stop all; nothing of it is left."""
        for process in reversed(self._processes):
            process.close()
        if self._proxy is not None:
            self._proxy.close()

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await anyio.to_thread.run_sync(self.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await anyio.to_thread.run_sync(self.close)

    # Who is who

    def at(self, address: Address) -> Process:
        """The node at an address."""
        return self._node_at(address)

    def _node_at(self, address: Address) -> RealNode:
        for node in self.nodes:
            if node.address == address:
                return node
        for node in self.nodes:
            if node.announced == address:
                return node
        raise LookupError(f"there is no node at {address[0]}:{address[1]}")

    def master(self) -> RealNode:
        """The node that says that it is the master; if several do, the one that most of the others follow."""
        roles = {node: node.execute("ROLE") for node in self._awake_nodes()}
        followed = Counter((role[1], int(role[2])) for role in roles.values() if role[0] == "slave")
        masters = [node for node, role in roles.items() if role[0] == "master"]
        if not masters:
            raise ServerError("there is no master")
        return max(masters, key=lambda node: followed[node.known_at])

    def replicas(self) -> list[RealNode]:
        """The nodes that run and are not the master."""
        master = self.master()
        return [node for node in self.nodes if node is not master and node.running]

    def _awake_nodes(self) -> list[RealNode]:
        return [node for node in self.nodes if node.awake]

    # What happens to it

    def add_replica(self) -> RealNode:
        """Start one more replica; it is in place when this returns."""
        added = self._start_node(self.master())
        self.wait_stable()
        return added

    def remove(self, node: RealNode) -> None:
        """Stop a node for good."""
        node.stop()
        self.nodes.remove(node)

    def promote(self, node: RealNode) -> None:
        """Make a replica the master by hand, and the others its replicas."""
        node.replicate(None)
        for other in self._awake_nodes():
            if other is not node:
                other.replicate(node.known_at)

    def kill_master(self) -> RealNode:
        """Kill the master, which is returned."""
        victim = self.master()
        victim.kill()
        return victim

    def configure(self, **settings: str | int) -> None:
        """CONFIG SET on every node that runs."""
        for node in self.nodes:
            if node.running:
                node.configure({name.replace("_", "-"): value for name, value in settings.items()})

    # The network

    @property
    def proxy(self) -> Proxy:
        """What stands between the first master and the others, in a partitionable deployment."""
        if self._proxy is None:
            raise Unsupported("only a partitionable deployment has a proxy")
        return self._proxy

    @property
    def address_map(self) -> dict[str, str]:
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
        first = self.nodes[0]
        others = {member for member in self._members() if member.running and member is not first}
        if not any(near == {first} and first not in far and far >= others for near, far in (sides, reversed(sides))):
            raise Unsupported("of real processes, the first master alone can be cut off, from all others at once")
        self._proxy.cut()

    def heal(self) -> None:
        """The end of all partitions."""
        if self._proxy is not None:
            self._proxy.heal()

    def _members(self) -> list[Process]:
        return [*self.nodes]

    # Waiting

    def wait_until(self, check: Callable[[], T], seconds: float = 30.0, what: str = "") -> T:
        """Ask until `check` says something true, and return that.

        Args:
            check: a server that does not answer, or answers with an error, means "not yet".
            seconds: how long to ask.
            what: what is waited for, for the error.

        Raises:
            TimeoutError: it was not so in time.
        """
        return wait_until(check, seconds, what)

    def wait_stable(self, seconds: float = 30.0) -> None:
        """Return when there is one master, and all other nodes that run follow it and have what it has."""
        self.wait_until(self._replicas_follow, seconds, "replicas in place")

    def _replicas_follow(self) -> bool:
        running = self._awake_nodes()
        masters = {node: role for node in running if (role := node.execute("ROLE"))[0] == "master"}
        if len(masters) != 1:
            return False
        ((master, (_, offset, replicas)),) = masters.items()
        # Asked later than the master: under load they may be ahead of what it has said.
        roles = [node.execute("ROLE") for node in running if node is not master]
        in_place = [role for role in roles if role[0] == "slave" and role[3] == "connected" and role[4] >= offset]
        return len(in_place) == len(replicas) == len(running) - 1


def _members(group: object) -> list[Process]:
    if isinstance(group, Process):
        return [group]
    if group is CLIENTS or not isinstance(group, Iterable):
        raise Unsupported(f"real processes can be cut off from each other, not from {group!r}")
    return [member for each in group for member in _members(each)]
