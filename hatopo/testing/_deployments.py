"""Deployments without sentinels: one node, or a master with replicas; started and stopped as a `with` block.

Decides how the servers of a deployment are put together, and when all is in place. Everything else is asked of the
servers themselves, by the commands that an operator would use.
"""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hatopo.testing._access import ADMIN, DEFAULT_OFF, NODE_USERS, REPLICA
from hatopo.testing._control import ServerError
from hatopo.testing._handles import NodeHandle, ServerHandle
from hatopo.testing._life import Life
from hatopo.testing._loop import LOOP
from hatopo.testing._node import DataNode
from hatopo.testing._world import CLIENTS, Clients, Party, World

if TYPE_CHECKING:
    from hatopo.testing._access import TlsFiles
    from hatopo.testing._clock import Clock
    from hatopo.testing._server import Server
    from hatopo.testing._world import Address

Group = ServerHandle[Any] | Clients | Iterable[Any]


class _Settings:
    """How the data nodes of a deployment are configured, and who may log in."""

    def __init__(
        self,
        config: Mapping[str, str | int],
        users: Sequence[str],
        password: str | None,
        tls: TlsFiles | None,
    ) -> None:
        self.config = {name: str(value) for name, value in config.items()}
        if password is not None:
            self.config |= {"requirepass": password, "masterauth": password}
        self.users, self.password = [*users], password
        self.tls = tls.context() if tls is not None else None

    @property
    def login(self) -> tuple[str, ...]:
        """What `control` says."""
        return ADMIN if self.users else (self.password,) if self.password is not None else ()

    def make(self, world: World, port: int = 0) -> DataNode:
        """A node that is not started yet."""
        node = DataNode(world, port=port, tls=self.tls, config=self.config)
        let_in(node, self.users)
        return node


def let_in(server: Server, users: Sequence[str]) -> None:
    """Give a server users, by lines of an ACL file; the default user is off then."""
    if users:
        server.accounts.load([*DEFAULT_OFF, *users])


class Node(NodeHandle, Life):
    """One Redis server on a port of the loopback interface.

    Args:
        password: what clients must AUTH with.
        users: lines of an ACL file ("user app on >secret ~* +@all"); the default user is off then.
        config: parameters as of CONFIG SET.
        tls: the files of a certificate; the port then speaks TLS only.
        port: where to listen; 0: where there is room.
        clock: the wall's clock, unless another one is given.
        seed: decides all that is left to chance.
    """

    def __init__(
        self,
        *,
        password: str | None = None,
        users: Sequence[str] = (),
        config: Mapping[str, str | int] | None = None,
        tls: TlsFiles | None = None,
        port: int = 0,
        clock: Clock | None = None,
        seed: int | None = None,
    ) -> None:
        Life.__init__(self, clock, seed)
        settings = _Settings(config or {}, users, password, tls)
        NodeHandle.__init__(self, settings.make(self._world, port), "node-1", settings.login)

    def _start(self) -> None:
        self._add(self._server)

    def start(self) -> None:
        """Start it; after `kill` or `stop`: again."""
        if self._entered:
            NodeHandle.start(self)
        else:
            Life.start(self)

    @property
    def url(self) -> str:
        """What redis-py's `from_url` takes, without a password."""
        return f"redis{'s' if self._server.tls else ''}://{self.host}:{self.port}"


class Replication(Life):
    """A master and its replicas.

    Args:
        replicas: how many.
        config: parameters of all nodes, as of CONFIG SET.
        users: lines of an ACL file for all nodes; the default user is off then.
        password: what clients and replicas must AUTH with.
        tls: the files of a certificate; all ports then speak TLS only.
        ports: where the nodes listen, in their order; where there is room, if not given.
        partitionable: nothing to be asked for: embedded servers can always be cut off from each other.
        clock: how fast time is; replicas follow at once, so the wall's clock serves most tests.
        seed: decides all that is left to chance.
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
        partitionable: bool = True,
    ) -> None:
        super().__init__(clock, seed)
        if replicas < 0:
            raise ValueError(f"there cannot be {replicas} replicas")
        self._wanted_replicas = replicas
        self._settings = _Settings(config or {}, users, password, tls)
        if users:
            self._settings.users += NODE_USERS
            self._settings.config |= {"masteruser": REPLICA[0], "masterauth": REPLICA[1]}
        self._numbers = itertools.count(1)
        self._ports = iter(ports)
        self.nodes: list[NodeHandle] = []
        """All nodes, the first master first."""
        self.address_map: dict[str, str] = {}
        """Whom a client must dial instead; only where processes are partitioned, by a proxy, is there anybody."""

    def _start(self) -> None:
        self._start_nodes()
        self.wait_stable()

    def _start_nodes(self) -> None:
        first = self._start_node()
        for _ in range(self._wanted_replicas):
            self._start_node(first)

    def _start_node(self, master: NodeHandle | None = None) -> NodeHandle:
        server = self._settings.make(self._world, next(self._ports, 0))
        if master is not None:
            server.replication.configure(master.address)
        self._add(server)
        handle = NodeHandle(server, f"node-{next(self._numbers)}", self._settings.login)
        self.nodes.append(handle)
        return handle

    def at(self, address: Address) -> ServerHandle[Any]:
        """The node at an address."""
        return next(node for node in self.nodes if node.address == address)

    def master(self) -> NodeHandle:
        """The node that says that it is the master; if several do, the one that most of the others follow."""
        roles = {node: node.execute("ROLE") for node in self.nodes if node.running and not node.paused}
        followed = Counter(f"{role[1]}:{role[2]}" for role in roles.values() if role[0] == "slave")
        masters = [node for node, role in roles.items() if role[0] == "master"]
        if not masters:
            raise ServerError("there is no master")
        return max(masters, key=lambda node: followed[f"{node.host}:{node.port}"])

    def replicas(self) -> list[NodeHandle]:
        """The nodes that run and are not the master."""
        master = self.master()
        return [node for node in self.nodes if node is not master and node.running]

    def add_replica(self) -> NodeHandle:
        """Start one more replica; it is in place when this returns."""
        added = self._start_node(self.master())
        self.wait_stable()
        return added

    def remove(self, node: NodeHandle) -> None:
        """Stop a node for good."""
        node.stop()
        self.nodes.remove(node)

    def promote(self, node: NodeHandle) -> None:
        """Make a replica the master by hand, and the others its replicas."""
        node.execute("REPLICAOF", "NO", "ONE")
        for other in self.nodes:
            if other is not node and other.running:
                other.execute("REPLICAOF", node.host, node.port)

    def kill_master(self) -> NodeHandle:
        """Kill the master, which is returned."""
        victim = self.master()
        victim.kill()
        return victim

    def configure(self, **settings: str | int) -> None:
        """CONFIG SET on every node that runs."""
        for node in self.nodes:
            if node.running:
                for name, value in settings.items():
                    node.execute("CONFIG", "SET", name.replace("_", "-"), value)

    def partition(self, one: Group, other: Group) -> None:
        """Cut two groups off from each other: what they send is held back until `heal`, and nothing is closed.

        Args:
            one: a node, a sentinel, `CLIENTS` (everybody outside the deployment), or several of these.
            other: likewise.
        """
        LOOP.call(lambda: self._world.cut(_parties(one), _parties(other)))

    def heal(self) -> None:
        """The end of all partitions."""
        LOOP.call(self._world.heal)

    def wait_stable(self, seconds: float = 30.0) -> None:
        """Return when there is one master, and all other nodes that run follow it and have what it has."""
        self.wait_until(self._replicas_follow, seconds, "replicas in place")

    def _replicas_follow(self) -> bool:
        running = [node for node in self.nodes if node.running and not node.paused]
        roles = [node.execute("ROLE") for node in running]
        offsets = {role[1] if role[0] == "master" else role[4] for role in roles}
        states = sorted(role[0] if role[0] == "master" else role[3] for role in roles)
        return len(offsets) == 1 and states == ["connected"] * (len(running) - 1) + ["master"]


def _parties(group: Any) -> list[Party]:
    """The members of a group as the world knows them."""
    if isinstance(group, ServerHandle):
        return [group._server]
    if group is CLIENTS:
        return [CLIENTS]
    return [party for one in group for party in _parties(one)]
