"""A Sentinel set: data nodes and the sentinels that watch them. Decides when the sentinels are in agreement."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from hatopo.testing._access import ADMIN, SENTINEL
from hatopo.testing._clock import Clock, ScaledClock
from hatopo.testing._control import ServerError
from hatopo.testing._deployments import Replication, let_in
from hatopo.testing._handles import NodeHandle, SentinelHandle, ServerHandle
from hatopo.testing._loop import LOOP
from hatopo.testing.sentinel import SentinelServer

if TYPE_CHECKING:
    from hatopo.testing._world import Address
    from hatopo.testing.sentinel import Event


class SentinelDeployment(Replication):
    """A master, its replicas, and the sentinels that watch them.

    Args:
        replicas: how many.
        sentinels: how many.
        name: the service's name.
        quorum: how many sentinels must agree that the master is down.
        down_after: seconds without an answer after which a sentinel holds a node to be down.
        failover_timeout: seconds, as of Sentinel's failover-timeout.
        parallel_syncs: how many replicas are reconfigured at a time.
        sentinel_users: lines of an ACL file for the sentinels; their default user is off then.
        clock: `ScaledClock()` unless another one is given: a failover takes some hundredths of a second. Real
            sentinels that take part need `RealClock()`.
        config, users, password, tls, ports, seed: as of `Replication`; the ports of sentinels follow the nodes'.
    """

    def __init__(
        self,
        replicas: int = 2,
        sentinels: int = 3,
        *,
        name: str = "mymaster",
        quorum: int = 2,
        down_after: float = 1.0,
        failover_timeout: float = 6.0,
        parallel_syncs: int = 2,
        sentinel_users: Sequence[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(replicas, **options)
        self.name = name
        self.sentinel_nodes: list[SentinelHandle] = []
        """The sentinels, in the order in which a client is given them."""
        self.events: list[Event] = []
        """What the sentinels have published so far, in order."""
        self._wanted_sentinels, self._quorum = sentinels, quorum
        self._sentinel_users = sentinel_users
        self._timing = {
            "down-after-milliseconds": round(down_after * 1000),
            "failover-timeout": round(failover_timeout * 1000),
            "parallel-syncs": parallel_syncs,
        }

    @staticmethod
    def _usual_clock() -> Clock:
        return ScaledClock()

    @property
    def sentinels(self) -> list[Address]:
        """The addresses of all sentinels: what a client is given."""
        return [sentinel.address for sentinel in self.sentinel_nodes]

    def _start(self) -> None:
        self._start_nodes()
        self.wait_until(self._replicas_follow, what="replicas in place")
        for _ in range(self._wanted_sentinels):
            self._start_sentinel(self.nodes[0])
        self.wait_stable()

    def _start_sentinel(self, master: NodeHandle) -> SentinelHandle:
        server = SentinelServer(self._world, port=next(self._ports, 0), tls=self._settings.tls)
        if self._sentinel_users:
            let_in(server, self._sentinel_users)
            LOOP.call(lambda: server.set_sentinel_login(*ADMIN))
        login = ADMIN if self._sentinel_users else ()
        self._add(server)
        number = len(self.sentinel_nodes) + 1
        handle = SentinelHandle(server, f"sentinel-{number}", login)
        LOOP.call(lambda: server.on_event(self.events.append))
        self.sentinel_nodes.append(handle)
        self._watch(handle, self.name, master)
        return handle

    def _watch(self, sentinel: SentinelHandle, name: str, master: NodeHandle) -> None:
        sentinel.execute("SENTINEL", "MONITOR", name, master.host, master.port, self._quorum)
        for setting, value in self._timing.items():
            sentinel.execute("SENTINEL", "SET", name, setting, value)
        if self._settings.users:
            sentinel.execute("SENTINEL", "SET", name, "auth-user", SENTINEL[0], "auth-pass", SENTINEL[1])
        elif self._settings.password is not None:
            sentinel.execute("SENTINEL", "SET", name, "auth-pass", self._settings.password)

    def at(self, address: Address) -> ServerHandle[Any]:
        """The node or the sentinel at an address."""
        everybody: list[ServerHandle[Any]] = [*self.nodes, *self.sentinel_nodes]
        return next(one for one in everybody if one.address == address)

    def _awake(self) -> list[SentinelHandle]:
        return [one for one in self.sentinel_nodes if one.running and not one.paused]

    def _named_by(self, sentinel: SentinelHandle) -> NodeHandle:
        host, port = sentinel.execute("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        return next(node for node in self.nodes if node.address == (host, int(port)))

    def master(self) -> NodeHandle:
        """The node that most of the running sentinels name; without a sentinel, as of `Replication`."""
        named = Counter(self._named_by(sentinel) for sentinel in self._awake())
        return named.most_common(1)[0][0] if named else super().master()

    def add_sentinel(self) -> SentinelHandle:
        """Start one more sentinel; the others know it when this returns."""
        added = self._start_sentinel(self.master())
        self.wait_stable()
        return added

    def remove(self, node: NodeHandle) -> None:
        """Stop a replica for good, and make the sentinels forget it (SENTINEL RESET)."""
        super().remove(node)
        for sentinel in self._awake():
            sentinel.execute("SENTINEL", "RESET", self.name)
        self.wait_stable()

    def monitor(self, name: str, master: NodeHandle) -> None:
        """Let the same sentinels watch one more service."""
        for sentinel in self._awake():
            self._watch(sentinel, name, master)

    def set(self, **settings: str | int) -> None:
        """SENTINEL SET on every sentinel that runs."""
        for sentinel in self._awake():
            for name, value in settings.items():
                sentinel.execute("SENTINEL", "SET", self.name, name.replace("_", "-"), value)

    def tune(self, **periods: int) -> None:
        """SENTINEL DEBUG on every sentinel that runs, in milliseconds."""
        for sentinel in self._awake():
            for name, milliseconds in periods.items():
                sentinel.execute("SENTINEL", "DEBUG", name.replace("_", "-"), milliseconds)

    def failover(self) -> None:
        """Ask a sentinel for a planned failover; while it is not ready for one, it is asked again."""
        sentinel = self._awake()[0]

        def accepted() -> bool:
            try:
                return bool(sentinel.execute("SENTINEL", "FAILOVER", self.name))
            except ServerError as error:
                if not str(error).startswith(("INPROG", "NOGOODSLAVE")):
                    raise RuntimeError(f"{sentinel.name} refuses a failover: {error}") from error
                return False

        self.wait_until(accepted, what="a sentinel that is ready for a failover")

    def wait_switched(self, old: NodeHandle, seconds: float = 30.0) -> NodeHandle:
        """The new master, once every running sentinel names it instead of `old`, and it says so itself."""

        def switched() -> NodeHandle | None:
            named = {self._named_by(sentinel) for sentinel in self._awake()}
            new = named.pop()
            return new if not named and new is not old and new.role() == "master" else None

        new = self.wait_until(switched, seconds, "a new master that all sentinels name")
        assert new is not None
        return new

    def crash_leader_after_promotion(self) -> None:
        """Whichever sentinel leads the next failover ends at once when it has seen its replica be a master."""
        for sentinel in self._awake():
            sentinel.execute("SENTINEL", "SIMULATE-FAILURE", "crash-after-promotion")

    def let_leaders_live(self) -> None:
        """The end of `crash_leader_after_promotion` for those that are left."""
        for sentinel in self._awake():
            sentinel.execute("SENTINEL", "SIMULATE-FAILURE", "help")  # any call clears what was set before

    def leaders(self) -> list[SentinelHandle]:
        """The sentinels that have led a failover, running or not."""
        led = {event.sentinel for event in self.events if event.channel == "+elected-leader"}
        return [sentinel for sentinel in self.sentinel_nodes if sentinel.address in led]

    def wait_stable(self, seconds: float = 30.0) -> None:
        """Return when all sentinels that run name the same master, and see all nodes and each other in place."""
        self.wait_until(lambda: self._replicas_follow() and self._agreed(), seconds, "nodes and sentinels in place")

    def _agreed(self) -> bool:
        awake = self._awake()
        running = sum(node.running and not node.paused for node in self.nodes)
        names = set()
        for sentinel in awake:
            master = _pairs(sentinel.execute("SENTINEL", "MASTER", self.name))
            replicas = [_pairs(one) for one in sentinel.execute("SENTINEL", "REPLICAS", self.name)]
            others = [_pairs(one) for one in sentinel.execute("SENTINEL", "SENTINELS", self.name)]
            names.add((master["ip"], master["port"]))
            in_place = [one for one in replicas if one["flags"] == "slave" and one["master-link-status"] == "ok"]
            met = [one for one in others if one["flags"] == "sentinel" and one["runid"]]
            if master["flags"] != "master" or len(in_place) != running - 1 or len(met) != len(awake) - 1:
                return False
        return len(names) <= 1


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
