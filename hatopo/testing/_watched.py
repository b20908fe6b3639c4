"""A master with its replicas and sentinels, whatever they are made of: whom the sentinels name, and when they agree.

What happens to a master is decided by the sentinels. How one is started is decided by `_sentinel_set` and
`real._deployment`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

from hatopo.testing import _checks
from hatopo.testing._access import SENTINEL
from hatopo.testing._control import Address, Event, ServerError
from hatopo.testing._member import Member
from hatopo.testing._shape import N, ReplicationShape

S = TypeVar("S", bound=Member)


class WatchedShape(ReplicationShape[N], Generic[N, S]):
    """What `SentinelDeployment` and `RealSentinelDeployment` have in common."""

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
        _checks.service(name)
        _checks.count("sentinels", sentinels, 1)
        _checks.count("quorum", quorum, 1)
        if quorum > sentinels:
            raise ValueError(f"{sentinels} sentinels are never a quorum of {quorum}: give a lower quorum")
        _checks.seconds("down_after", down_after)
        _checks.seconds("failover_timeout", failover_timeout)
        _checks.count("parallel_syncs", parallel_syncs, 1)
        _checks.access(None, sentinel_users, None, object)
        self.name = name
        self.sentinel_nodes: list[S] = []
        """The sentinels, in the order in which a client is given them."""
        self.events: list[Event] = []
        """What the sentinels have published so far, in the order in which it arrived."""
        self._wanted_sentinels, self._quorum = sentinels, quorum
        self._sentinel_users = [*sentinel_users]
        self._timing: dict[str, str | int] = {
            "down-after-milliseconds": round(down_after * 1000),
            "failover-timeout": round(failover_timeout * 1000),
            "parallel-syncs": parallel_syncs,
        }
        super().__init__(replicas, **options)

    def _start_sentinel(self, master: N) -> S:
        """Start a sentinel that watches this master, and add it to `sentinel_nodes`."""
        raise NotImplementedError

    def _start(self) -> None:
        self._start_nodes()
        self.wait_until(self._replicas_follow, what="replicas in place")
        for _ in range(self._wanted_sentinels):
            self._start_sentinel(self.nodes[0])
        self.wait_stable()

    def _service_settings(self) -> dict[str, str | int]:
        """What a sentinel is told about a service."""
        if self._users:
            return {**self._timing, "auth-user": SENTINEL[0], "auth-pass": SENTINEL[1]}
        return {**self._timing, "auth-pass": self._password} if self._password is not None else {**self._timing}

    # Who is who

    @property
    def sentinels(self) -> list[Address]:
        """The addresses of all sentinels: what a client is given."""
        return [sentinel.address for sentinel in self.sentinel_nodes]

    def _members(self) -> list[Any]:
        return [*self.nodes, *self.sentinel_nodes]

    def _awake(self) -> list[S]:
        return [one for one in self.sentinel_nodes if one.awake]

    def _named_by(self, sentinel: S) -> N:
        address = sentinel.execute("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        if address is None:
            raise ServerError(f"{sentinel.name} knows nothing of {self.name}")
        try:
            return self._node_at((address[0], int(address[1])))
        except LookupError as error:
            raise ServerError(f"{sentinel.name} names a stranger: {error}") from error

    def master(self) -> N:
        """The node that most of the running sentinels name; without a sentinel, the one that says that it is it.

        Raises:
            ServerError: there is none, or no sentinel names a node of this deployment.
        """
        awake = self._awake()
        if not awake:
            return super().master()
        named: Counter[N] = Counter()
        problem = ServerError("no sentinel names a master")
        for sentinel in awake:
            try:
                named[self._named_by(sentinel)] += 1
            except ServerError as error:
                problem = error
        if not named:
            raise problem
        return named.most_common(1)[0][0]

    # What happens to it

    def add_sentinel(self) -> S:
        """Start one more sentinel; the others know it when this returns."""
        added = self._start_sentinel(self.master())
        self.wait_stable()
        return added

    def remove(self, node: N) -> None:
        """Stop a replica for good, and make the sentinels forget it (SENTINEL RESET).

        Raises:
            ValueError: it is no node of this deployment, or it is the master.
        """
        super().remove(node)
        for sentinel in self._awake():
            sentinel.execute("SENTINEL", "RESET", self.name)
        self.wait_stable()

    def monitor(self, name: str, master: N) -> None:
        """Let the same sentinels watch one more service; its master may be a node of any deployment."""
        _checks.service(name)
        for sentinel in self._awake():
            self._watch(sentinel, name, master)

    def _watch(self, sentinel: S, name: str, master: N) -> None:
        sentinel.execute("SENTINEL", "MONITOR", name, *self._way_to(master), self._quorum)
        for setting, value in self._service_settings().items():
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
        for sentinel in self._awake():
            for name, milliseconds in periods.items():
                sentinel.execute("SENTINEL", "DEBUG", name.replace("_", "-"), milliseconds)

    def failover(self) -> None:
        """Ask a sentinel for a planned failover; while it is not ready for one, it is asked again.

        Raises:
            ServerError: no sentinel runs, or it refuses for another reason.
        """
        awake = self._awake()
        if not awake:
            raise ServerError("there is no sentinel to ask")

        def asked() -> ServerError | bool:
            try:
                return bool(awake[0].execute("SENTINEL", "FAILOVER", self.name))
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

    def wait_switched(self, old: N, seconds: float = 30.0) -> N:
        """The new master, once every running sentinel names it instead of `old`, and it says so itself."""
        self._own(old)

        def switched() -> N | None:
            named = {self._named_by(sentinel) for sentinel in self._awake()}
            if not named:
                raise ServerError("no sentinel runs")
            new = named.pop()
            return new if not named and new is not old and new.role() == "master" else None

        new = self.wait_until(switched, seconds, "a new master that all sentinels name")
        assert new is not None
        return new

    def wait_stable(self, seconds: float = 30.0) -> None:
        """Return when all sentinels that run name the same master, and see all nodes and each other in place."""
        self.wait_until(lambda: self._replicas_follow() and self._agreed(), seconds, "agreement of the sentinels")

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
