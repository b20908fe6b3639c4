"""Deployments without sentinels: one node, or a master with replicas; started and stopped as a `with` block.

Decides how the servers of a deployment are put together, and when all is in place. Everything else is asked of the
servers themselves, by the commands that an operator would use.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hatopo.testing import _checks
from hatopo.testing._access import ADMIN, DEFAULT_OFF, NODE_USERS, REPLICA, TlsFiles
from hatopo.testing._handles import NodeHandle, ServerHandle
from hatopo.testing._life import Life
from hatopo.testing._reply import ErrorReply
from hatopo.testing._shape import ReplicationShape
from hatopo.testing.node._node import DataNode
from hatopo.testing.world._loop import LOOP
from hatopo.testing.world._world import CLIENTS, Clients, Party, World

if TYPE_CHECKING:
    from hatopo.testing.server._server import Server
    from hatopo.testing.world._clock import Clock

Group = ServerHandle[Any] | Clients | Iterable[Any]


class _Settings:
    """How the data nodes of a deployment are configured, and who may log in."""

    def __init__(
        self, config: Mapping[str, str], users: Sequence[str], password: str | None, tls: TlsFiles | None
    ) -> None:
        # DEBUG as processes of a test have it, too.
        self.config = {"enable-debug-command": "yes", **config}
        if password is not None:
            self.config |= {"requirepass": password, "masterauth": password}
        self.users, self.password = [*users], password
        self.tls = tls.context() if tls is not None else None

    @property
    def login(self) -> tuple[str, ...]:
        """What `control` says."""
        password = self.config.get("requirepass")
        return ADMIN if self.users else (password,) if password else ()

    def make(self, world: World, port: int = 0) -> DataNode:
        """A node that is not started yet."""
        try:
            node = DataNode(world, port=port, tls=self.tls, config=self.config)
        except ErrorReply as error:
            raise ValueError(f"config: {error}") from error
        let_in(node, self.users)
        return node


def let_in(server: Server, users: Sequence[str]) -> None:
    """Give a server users, by lines of an ACL file; the default user is off then."""
    if users:
        try:
            server.accounts.load([*users, *DEFAULT_OFF], "users")
        except ErrorReply as error:
            raise ValueError(str(error)) from error


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
        Life.__init__(self)
        _checks.access(password, users, tls, TlsFiles)
        _checks.port(port)
        self._make_world(clock, seed)
        settings = _Settings(_checks.config(config), users, password, tls)
        NodeHandle.__init__(self, settings.make(self._world, port), "node-1", settings.login)

    def _start(self) -> None:
        self._add(self._server)

    def start(self) -> None:
        """Start it; after `kill` or `stop`: again."""
        if self._entered:
            NodeHandle.start(self)
        else:
            Life.start(self)


class Replication(ReplicationShape[NodeHandle], Life):
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

    address_map: Mapping[str, str] = {}
    """Whom a client must dial instead; only where processes are partitioned, by a proxy, is there anybody."""

    def _prepare(self, clock: Clock | None, seed: int | None, partitionable: bool) -> None:
        self._make_world(clock, seed)
        self._settings = _Settings(self._config, self._users, self._password, self._tls)
        if self._users:
            self._settings.users += NODE_USERS
            self._settings.config |= {"masteruser": REPLICA[0], "masterauth": REPLICA[1]}
        self._settings.make(World(self.clock))  # what no server would take is refused before any is started

    def _start_node(self, master: NodeHandle | None = None) -> NodeHandle:
        server = self._settings.make(self._world, next(self._ports, 0))
        if master is not None:
            server.replication.configure(self._way_to(master))
        self._add(server)
        handle = NodeHandle(server, f"node-{next(self._numbers)}", self._settings.login)
        self.nodes.append(handle)
        return handle

    def _retire(self, member: NodeHandle) -> None:
        self._drop(member._server)

    def partition(self, one: Group, other: Group) -> None:
        """Cut two groups off from each other: what they send is held back until `heal`, and nothing is closed.

        Args:
            one: a node, a sentinel, `CLIENTS` (everybody outside the deployment), or several of these.
            other: likewise.
        """
        sides = self._parties(one), self._parties(other)
        LOOP.call(lambda: self._world.cut(*sides))

    def heal(self) -> None:
        """The end of all partitions."""
        LOOP.call(self._world.heal)

    def _parties(self, group: Any) -> list[Party]:
        """The members of a group as the world knows them."""
        if group is CLIENTS:
            return [CLIENTS]
        if isinstance(group, ServerHandle):
            self._own(group, "member")
            return [group._server]
        if not isinstance(group, Iterable):
            raise TypeError(f"{group!r} is no member of a deployment, nor several of them, nor CLIENTS")
        return [party for one in group for party in self._parties(one)]
