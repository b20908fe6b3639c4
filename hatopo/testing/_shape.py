"""A master with its replicas, whatever they are made of: who is who, what happens to them, when all is in place.

Embedded servers and processes are asked the same by the commands that an operator would use. How a node is started,
and what a network can suffer, is decided by those who have them (`_deployments`, `real._replication`).
"""

from __future__ import annotations

import contextlib
import itertools
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hatopo.testing import _checks
from hatopo.testing._access import TlsFiles
from hatopo.testing._control import Address, ServerError
from hatopo.testing._lifetime import Lifetime
from hatopo.testing._member import DataMember, Member

if TYPE_CHECKING:
    from hatopo.testing.world._clock import Clock


N = TypeVar("N", bound=DataMember)
M = TypeVar("M", bound=Member)


class ReplicationShape(Lifetime, Generic[N]):
    """What `Replication` and `RealReplication` have in common; they say what the arguments mean."""

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
        super().__init__()
        _checks.count("replicas", replicas, 0)
        _checks.access(password, users, tls, TlsFiles)
        _checks.ports(ports)
        self.nodes: list[N] = []
        """All nodes, the first master first."""
        self._wanted_replicas = replicas
        self._config = _checks.config(config)
        self._users, self._password, self._tls = [*users], password, tls
        self._ports = iter(ports)
        self._numbers = itertools.count(1)
        self._prepare(clock, seed, partitionable)

    def _prepare(self, clock: Clock | None, seed: int | None, partitionable: bool) -> None:
        """Check and take what the two kinds take differently."""
        raise NotImplementedError

    def _start_node(self, master: N | None = None) -> N:
        """Start a node, as a replica if there is a master, and add it to `nodes`."""
        raise NotImplementedError

    def _retire(self, member: N) -> None:
        """See to it that a node never runs again."""
        raise NotImplementedError

    def _start(self) -> None:
        self._start_nodes()
        self.wait_stable()

    def _start_nodes(self) -> None:
        first = self._start_node()
        for _ in range(self._wanted_replicas):
            self._start_node(first)

    # Who is who

    def at(self, address: Address) -> Any:
        """The node or the sentinel that listens at an address, or is announced there.

        Raises:
            LookupError: there is none.
        """
        return _found(self._members(), address)

    def _members(self) -> list[Any]:
        return [*self.nodes]

    def _node_at(self, address: Address) -> N:
        return _found(self.nodes, address)

    def _own(self, member: object, kind: str = "node") -> None:
        """Refuse a handle that is none of this deployment's."""
        if not any(member is one for one in (self.nodes if kind == "node" else self._members())):
            raise ValueError(f"{member!r} is no {kind} of this deployment")

    def _way_to(self, node: N) -> Address:
        """Where its replicas and sentinels dial a node."""
        return node.address

    def _awake_nodes(self) -> list[N]:
        return [node for node in self.nodes if node.awake]

    def master(self) -> N:
        """The node that says that it is the master; if several do, the one that most of the others follow."""
        roles = {node: node.execute("ROLE") for node in self._awake_nodes()}
        followed = Counter((role[1], int(role[2])) for role in roles.values() if role[0] == "slave")
        masters = [node for node, role in roles.items() if role[0] == "master"]
        if not masters:
            raise ServerError("there is no master")
        return max(masters, key=lambda node: sum(followed[one] for one in {node.address, node.announced} if one))

    def replicas(self) -> list[N]:
        """The nodes that run and are not the master."""
        master = self.master()
        return [node for node in self.nodes if node is not master and node.running]

    # What happens to it

    def add_replica(self) -> N:
        """Start one more replica; it is in place when this returns."""
        added = self._start_node(self.master())
        self.wait_stable()
        return added

    def remove(self, node: N) -> None:
        """Stop a replica for good: it cannot be started again.

        Raises:
            ValueError: it is no node of this deployment, or it is the master.
        """
        self._own(node)
        with contextlib.suppress(ServerError):  # there is no master
            if self.master() is node:
                raise ValueError(f"{node.name} is the master: let another one be it first")
        if node.running:
            node.stop()
        self._retire(node)
        self.nodes.remove(node)

    def promote(self, node: N) -> None:
        """Make a replica the master by hand, and the others its replicas."""
        self._own(node)
        node.replicate(None)
        for other in self._awake_nodes():
            if other is not node:
                other.replicate(self._way_to(node))

    def kill_master(self) -> N:
        """Kill the master, which is returned."""
        victim = self.master()
        victim.kill()
        return victim

    def configure(self, **settings: str | int) -> None:
        """CONFIG SET on every node that runs; a restart keeps it."""
        for node in self.nodes:
            if node.running:
                node.configure(**settings)

    # Waiting

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


def _found(members: Iterable[M], address: Address) -> M:
    everybody = [*members]
    for member in everybody:
        if member.address == address:
            return member
    for member in everybody:
        if member.announced == address:
            return member
    raise LookupError(f"nobody of this deployment is at {address!r}")
