"""A Sentinel set of processes: a master, its replicas, and the sentinels that watch them.

Decides how they are put together and when they agree; what happens to a master is decided by the sentinels.
"""

from __future__ import annotations

import contextlib
from collections import Counter
from typing import TYPE_CHECKING, Any

from hatopo.testing._access import SENTINEL
from hatopo.testing._control import ServerError
from hatopo.testing.real._replication import RealReplication
from hatopo.testing.real._sentinels import RealSentinel

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatopo.testing._control import Address, Event
    from hatopo.testing.real._nodes import RealNode
    from hatopo.testing.real._process import Process


class RealSentinelDeployment(RealReplication):
    """A master, its replicas and their sentinels; once entered, it is complete and in agreement.

    Args:
        replicas: how many.
        sentinels: how many.
        name: the service's name.
        quorum: how many sentinels must agree that the master is down.
        down_after: seconds without an answer after which a sentinel holds a node to be down.
        failover_timeout: seconds, as of Sentinel's failover-timeout.
        parallel_syncs: how many replicas are reconfigured at a time.
        sentinel_users: lines of an ACL file for the sentinels; their default user is off then.
        config, users, password, tls, ports, clock, seed, partitionable: as of `RealReplication`; the ports of
            sentinels follow the nodes'.
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
        self.sentinel_nodes: list[RealSentinel] = []
        """The sentinels, in the order in which a client is given them."""
        self.events: list[Event] = []
        """What the sentinels have published so far, in the order in which it arrived."""
        self._wanted_sentinels, self._quorum = sentinels, quorum
        self._sentinel_users = sentinel_users
        self._timing = {
            "down-after-milliseconds": round(down_after * 1000),
            "failover-timeout": round(failover_timeout * 1000),
            "parallel-syncs": parallel_syncs,
        }
        self._periods = {"publish_period": 2000, "info_period": 10_000}

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

    def _start_sentinel(self, master: RealNode) -> RealSentinel:
        host, port = master.known_at
        lines = [f"sentinel monitor {self.name} {host} {port} {self._quorum}"]
        lines += [f"sentinel {setting} {self.name} {value}" for setting, value in self._settings().items()]
        sentinel = RealSentinel(
            f"sentinel-{len(self.sentinel_nodes) + 1}",
            lines=lines,
            users=self._sentinel_users,
            tls=self._tls,
            port=next(self._ports, 0),
            note=self.events.append,
        )
        self._processes.append(sentinel)
        sentinel.start()
        self.sentinel_nodes.append(sentinel)
        return sentinel

    def _settings(self) -> dict[str, str | int]:
        """What a sentinel is told about a service."""
        if self._users:
            return {**self._timing, "auth-user": SENTINEL[0], "auth-pass": SENTINEL[1]}
        return {**self._timing, "auth-pass": self._password} if self._password is not None else {**self._timing}

    # Who is who

    def at(self, address: Address) -> Process:
        """The node or the sentinel at an address."""
        found = [one for one in self.sentinel_nodes if address in (one.address, one.announced)]
        return found[0] if found else super().at(address)

    def _awake(self) -> list[RealSentinel]:
        return [one for one in self.sentinel_nodes if one.awake]

    def _members(self) -> list[Process]:
        return [*self.nodes, *self.sentinel_nodes]

    def _named_by(self, sentinel: RealSentinel) -> RealNode:
        address = sentinel.execute("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        if address is None:
            raise ServerError(f"{sentinel.name} knows nothing of {self.name}")
        return self._node_at((address[0], int(address[1])))

    def master(self) -> RealNode:
        """The node that most of the running sentinels name; without a sentinel, as of `RealReplication`."""
        named = Counter(self._named_by(sentinel) for sentinel in self._awake())
        return named.most_common(1)[0][0] if named else super().master()

    def leaders(self) -> list[RealSentinel]:
        """The sentinels that have led a failover, running or not."""
        return [sentinel for sentinel in self.sentinel_nodes if "+elected-leader" in sentinel.log]

    # What happens to it

    def add_sentinel(self) -> RealSentinel:
        """Start one more sentinel; the others know it when this returns."""
        added = self._start_sentinel(self.master())
        self.wait_stable()
        return added

    def remove(self, node: RealNode) -> None:
        """Stop a replica for good, and make the sentinels forget it (SENTINEL RESET)."""
        super().remove(node)
        for sentinel in self._awake():
            sentinel.execute("SENTINEL", "RESET", self.name)
        self.wait_stable()

    def monitor(self, name: str, master: RealNode) -> None:
        """Let the same sentinels watch one more service."""
        for sentinel in self._awake():
            sentinel.execute("SENTINEL", "MONITOR", name, *master.known_at, self._quorum)
            for setting, value in self._settings().items():
                sentinel.execute("SENTINEL", "SET", name, setting, value)

    def set(self, **settings: str | int) -> None:
        """SENTINEL SET on every sentinel that runs."""
        for sentinel in self._awake():
            for name, value in settings.items():
                sentinel.execute("SENTINEL", "SET", self.name, name.replace("_", "-"), value)

    def tune(self, **periods: int) -> None:
        """SENTINEL DEBUG on every sentinel that runs, in milliseconds.

        `publish_period` also sets how soon a former master is demoted: after four of them.
        """
        self._periods |= {name: periods[name] for name in self._periods if name in periods}
        self._debug(periods)

    def _debug(self, periods: dict[str, int]) -> None:
        for sentinel in self._awake():
            for name, milliseconds in periods.items():
                sentinel.execute("SENTINEL", "DEBUG", name.replace("_", "-"), milliseconds)

    def failover(self) -> None:
        """Ask a sentinel for a planned failover; while it is not ready for one, it is asked again."""
        sentinel = self._awake()[0]

        def asked() -> ServerError | bool:
            try:
                return bool(sentinel.execute("SENTINEL", "FAILOVER", self.name))
            except ServerError as error:
                return False if str(error).startswith(("INPROG", "NOGOODSLAVE")) else error

        answer = self.wait_until(asked, what="SENTINEL FAILOVER accepted")
        if isinstance(answer, ServerError):
            raise answer

    def crash_leader_after_promotion(self) -> None:
        """Whichever sentinel leads the next failover ends at once when it has seen its replica be a master."""
        for sentinel in self._awake():
            sentinel.execute("SENTINEL", "SIMULATE-FAILURE", "crash-after-promotion")

    def let_leaders_live(self) -> None:
        """The end of `crash_leader_after_promotion` for those that are left."""
        for sentinel in self._awake():
            sentinel.execute("SENTINEL", "SIMULATE-FAILURE", "help")  # any call clears what was set before

    # Waiting

    def wait_switched(self, old: RealNode, seconds: float = 30.0) -> RealNode:
        """The new master, once every running sentinel names it instead of `old`, and it says so itself."""

        def switched() -> RealNode | None:
            named = {self._named_by(sentinel) for sentinel in self._awake()}
            new = named.pop()
            return new if not named and new is not old and new.role() == "master" else None

        new = self.wait_until(switched, seconds, "a new master that all sentinels name")
        assert new is not None
        return new

    def wait_stable(self, seconds: float = 30.0) -> None:
        """Return when all sentinels that run name the same master, and see all nodes and each other in place."""
        with contextlib.suppress(ServerError):  # before 7.0 there is no DEBUG, and agreement takes some seconds
            self._debug({"publish_period": 100, "info_period": 100})
        try:
            self.wait_until(lambda: self._replicas_follow() and self._agreed(), seconds, "agreement of the sentinels")
        finally:
            with contextlib.suppress(OSError, ServerError):
                self._debug(self._periods)

    def _agreed(self) -> bool:
        awake = self._awake()
        running = len(self._awake_nodes())
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
