"""Sentinel sets of real processes: a master, its replicas, and the sentinels that watch them.

Also what happens to them besides a kill: users and their rights, partitions, nodes and sentinels that come and go.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from dataclasses import dataclass
from typing import TYPE_CHECKING

from tests.control import HOST, Address, ServerError, eventually
from tests.proxy import Proxy
from tests.servers import ADMIN, BINARY, DEFAULT_OFF, Process, Server

if TYPE_CHECKING:
    from collections.abc import Iterator


@dataclass(frozen=True)
class Rights:
    """The clients' users of a set that has users: lines of an ACL file for data nodes, and for sentinels."""

    nodes: tuple[str, ...]
    sentinels: tuple[str, ...]


_REPLICA_RIGHTS = "+psync +replconf +ping"
_SENTINEL_RIGHTS = (
    "allchannels +ping +info +role +publish +subscribe +client|setname +client|kill "
    "+multi +exec +slaveof +config|rewrite +script|kill"
)
"""What replicas and sentinels need on data nodes (redis.io: ACL rules for Sentinel and replicas)."""
_NODE_USERS = (
    f"user replica on >replica-secret {_REPLICA_RIGHTS}",
    f"user sentinel on >sentinel-secret {_SENTINEL_RIGHTS}",
)
_REPLICA_LOGIN = ("--masteruser", "replica", "--masterauth", "replica-secret")
_SENTINEL_LOGINS = (
    "sentinel sentinel-user admin",
    "sentinel sentinel-pass admin-secret",
    "sentinel auth-user {service} sentinel",
    "sentinel auth-pass {service} sentinel-secret",
)


class SentinelProcess(Process):
    """One sentinel that watches one service, with a configuration file that it rewrites itself."""

    def __init__(
        self, service: str, master: Address, settings: dict[str, int], quorum: int, users: tuple[str, ...] = ()
    ) -> None:
        super().__init__(credentials=ADMIN if users else ())
        lines = [f"sentinel monitor {service} {master[0]} {master[1]} {quorum}"]
        lines += [f"sentinel {name} {service} {value}" for name, value in settings.items()]
        if users:
            lines += [*DEFAULT_OFF, *users, *(line.format(service=service) for line in _SENTINEL_LOGINS)]
        self._lines = lines
        self._configured_port = 0

    def _command(self) -> list[str]:
        path = self.directory / "sentinel.conf"
        if self._configured_port != self.port:
            here = [f"port {self.port}", f"bind {HOST}", f"dir {self.directory}"]
            path.write_text("".join(f"{line}\n" for line in (*here, *self._lines)))
            self._configured_port = self.port
        return [BINARY, str(path), "--sentinel"]


class SentinelSet:
    """One master, its replicas and their sentinels; once entered, it is complete and in agreement.

    With `rights`, everybody logs in, and the default user is off everywhere. With `partitionable`, replicas and
    sentinels reach the first master through `proxy`, and announce it by the proxy's port; a client that is to be
    on the master's side of a partition dials the real one (`address_map`).
    """

    def __init__(
        self,
        replicas: int = 2,
        sentinels: int = 3,
        *,
        name: str = "mymaster",
        quorum: int = 2,
        down_after: int = 1000,
        failover_timeout: int = 6000,
        options: tuple[str, ...] = (),
        rights: Rights | None = None,
        partitionable: bool = False,
    ) -> None:
        self.name = name
        self._rights = rights
        self._options = (*options, *_REPLICA_LOGIN) if rights else options
        self.nodes = [self._make_node() for _ in range(1 + replicas)]
        self._wanted_sentinels = sentinels
        self._quorum = quorum
        self._timing = {
            "down-after-milliseconds": down_after,
            "failover-timeout": failover_timeout,
            "parallel-syncs": 2,
        }
        self.processes: list[SentinelProcess] = []
        self._partitionable = partitionable
        self._proxy: Proxy | None = None
        self._removed: list[Server] = []

    def _make_node(self) -> Server:
        users = (*_NODE_USERS, *self._rights.nodes) if self._rights else ()
        return Server(*self._options, users=users)

    @property
    def sentinels(self) -> list[Address]:
        """The addresses of all sentinels, in the order in which a client is to be given them."""
        return [sentinel.address for sentinel in self.processes]

    @property
    def proxy(self) -> Proxy:
        """What stands between the first master and the others, in a partitionable set."""
        assert self._proxy is not None
        return self._proxy

    @property
    def address_map(self) -> dict[str, str]:
        """What brings a client past the proxy."""
        return {f"{HOST}:{self.proxy.address[1]}": f"{HOST}:{self.nodes[0].port}"}

    def start(self) -> None:
        first, *others = self.nodes
        first.start()
        if self._partitionable:
            self._proxy = Proxy(first.address)
            first.announce(self._proxy.address[1])
        for other in others:
            self._start_replica(other, first)
        online = len(others)
        eventually(lambda: first.call("INFO", "replication").count("state=online") == online, 20, "replicas online")
        for _ in range(self._wanted_sentinels):
            self._start_sentinel(first)
        self.settle()

    def _start_replica(self, replica: Server, master: Server) -> None:
        replica._options += ["--replicaof", HOST, str(_announced(master))]  # servers before 7.0 want two words
        replica.start()

    def _start_sentinel(self, master: Server) -> SentinelProcess:
        users = self._rights.sentinels if self._rights else ()
        address = (HOST, _announced(master))
        sentinel = SentinelProcess(self.name, address, self._timing, self._quorum, users)
        self.processes.append(sentinel)
        sentinel.start()
        return sentinel

    def settle(self) -> None:
        """Return when all who run know of each other."""
        with contextlib.suppress(ServerError):  # before 7.0 there is no DEBUG, and agreement takes some seconds
            self.tune(publish_period=100, info_period=100)
        eventually(self._agreed, 30, "sentinels that know each other and the replicas")
        with contextlib.suppress(ServerError):
            self.tune(publish_period=2000, info_period=10_000)

    def _agreed(self) -> bool:
        running = [*self._running()]
        for sentinel in running:
            seen = _pairs(sentinel.call("SENTINEL", "MASTER", self.name))
            if seen["flags"] != "master" or int(seen["num-other-sentinels"]) < len(running) - 1:
                return False
            replicas = [_pairs(one) for one in sentinel.call("SENTINEL", "REPLICAS", self.name)]
            if [one["master-link-status"] for one in replicas] != ["ok"] * (len(self.nodes) - 1):
                return False
            others = [_pairs(one) for one in sentinel.call("SENTINEL", "SENTINELS", self.name)]
            if sum(one["flags"] == "sentinel" and bool(one["runid"]) for one in others) != len(running) - 1:
                return False
        return True

    def tune(self, **periods: int) -> None:
        """SENTINEL DEBUG on every sentinel; publish_period also sets how soon a former master is demoted."""
        for sentinel in self._running():
            for name, milliseconds in periods.items():
                sentinel.call("SENTINEL", "DEBUG", name.replace("_", "-"), milliseconds)

    def set(self, **settings: int) -> None:
        """SENTINEL SET on every sentinel."""
        for sentinel in self._running():
            for name, value in settings.items():
                sentinel.call("SENTINEL", "SET", self.name, name.replace("_", "-"), value)

    def configure(self, **settings: str | int) -> None:
        """CONFIG SET on every data node."""
        for node in self.nodes:
            for name, value in settings.items():
                node.call("CONFIG", "SET", name.replace("_", "-"), value)

    def add_replica(self) -> Server:
        """One more replica, known to all sentinels when this returns."""
        self.nodes.append(self._make_node())
        self._start_replica(self.nodes[-1], self.master())
        self.settle()
        return self.nodes[-1]

    def remove(self, node: Server) -> None:
        """Stop a replica and make the sentinels forget it (SENTINEL RESET)."""
        node.stop()
        self.nodes.remove(node)
        self._removed.append(node)
        for sentinel in self._running():
            sentinel.call("SENTINEL", "RESET", self.name)
        self.settle()

    def add_sentinel(self) -> SentinelProcess:
        """One more sentinel, known to the others when this returns."""
        added = self._start_sentinel(self.master())
        self.settle()
        return added

    def monitor(self, name: str, master: Server) -> None:
        """Make the same sentinels watch one more service."""
        for sentinel in self._running():
            sentinel.call("SENTINEL", "MONITOR", name, HOST, master.port, self._quorum)
            for setting, value in self._timing.items():
                sentinel.call("SENTINEL", "SET", name, setting, value)

    def crash_leader_after_promotion(self) -> None:
        """Whichever sentinel leads the next failover ends at once when it has seen its replica be a master."""
        for sentinel in self._running():
            sentinel.call("SENTINEL", "SIMULATE-FAILURE", "crash-after-promotion")

    def let_leaders_live(self) -> None:
        """The end of `crash_leader_after_promotion` for those that are left."""
        for sentinel in self._running():
            sentinel.call("SENTINEL", "SIMULATE-FAILURE", "help")  # any call clears what was set before

    def leaders(self) -> list[SentinelProcess]:
        """Those that have led a failover, running or not."""
        return [sentinel for sentinel in self.processes if "+elected-leader" in sentinel.log]

    def _running(self) -> Iterator[SentinelProcess]:
        return (sentinel for sentinel in self.processes if sentinel.alive and not sentinel.frozen)

    def _named_by(self, sentinel: SentinelProcess) -> Server:
        _, port = sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        return next(node for node in self.nodes if _announced(node) == int(port))

    def master(self) -> Server:
        """The master that most of the running sentinels name."""
        return Counter(self._named_by(sentinel) for sentinel in self._running()).most_common(1)[0][0]

    def kill_master(self) -> Server:
        """SIGKILL for the master, which is returned."""
        victim = self.master()
        victim.kill()
        return victim

    def failover(self) -> None:
        """Ask a running sentinel for a planned failover; one that is not ready for it is asked again."""
        sentinel = next(self._running())
        eventually(lambda: sentinel.call("SENTINEL", "FAILOVER", self.name), 20, "SENTINEL FAILOVER accepted")

    def wait_switched(self, old: Server, seconds: float = 30) -> Server:
        """The new master, once every running sentinel names it instead of `old` and it says so itself."""

        def switched() -> Server | None:
            named = {self._named_by(sentinel) for sentinel in self._running()}
            new = named.pop()
            return new if not named and new is not old and new.role() == "master" else None

        new = eventually(switched, seconds, "a new master")
        assert new is not None
        return new

    def close(self) -> None:
        for process in [*self.processes, *self.nodes, *self._removed]:
            process.close()
        if self._proxy is not None:
            self._proxy.close()

    def __enter__(self) -> SentinelSet:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _announced(node: Server) -> int:
    return node.announced_port or node.port


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
