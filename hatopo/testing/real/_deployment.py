"""A Sentinel set of processes: a master, its replicas, and the sentinels that watch them.

Decides how its sentinels are configured, and how they are made to agree soon.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

from hatopo.testing._control import ServerError
from hatopo.testing._watched import WatchedShape
from hatopo.testing.real._nodes import RealNode
from hatopo.testing.real._replication import RealReplication
from hatopo.testing.real._sentinels import RealSentinel

if TYPE_CHECKING:
    from hatopo.testing.world._clock import Clock


class RealSentinelDeployment(WatchedShape[RealNode, RealSentinel], RealReplication):
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

    def _prepare(self, clock: Clock | None, seed: int | None, partitionable: bool) -> None:
        super()._prepare(clock, seed, partitionable)
        self._periods = {"publish_period": 2000, "info_period": 10_000}

    def _start_sentinel(self, master: RealNode) -> RealSentinel:
        host, port = self._way_to(master)
        lines = [f"sentinel monitor {self.name} {host} {port} {self._quorum}"]
        lines += [f"sentinel {setting} {self.name} {value}" for setting, value in self._service_settings().items()]
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

    def leaders(self) -> list[RealSentinel]:
        """The sentinels that have led a failover, running or not."""
        return [sentinel for sentinel in self.sentinel_nodes if "+elected-leader" in sentinel.log]

    def tune(self, **periods: int) -> None:
        """SENTINEL DEBUG on every sentinel that runs, in milliseconds.

        `publish_period` also sets how soon a former master is demoted: after four of them.
        """
        self._periods |= {name: periods[name] for name in self._periods if name in periods}
        super().tune(**periods)

    def wait_stable(self, seconds: float = 30.0) -> None:
        """Return when all sentinels that run name the same master, and see all nodes and each other in place."""
        with contextlib.suppress(ServerError):  # before 7.0 there is no DEBUG, and agreement takes some seconds
            super().tune(publish_period=100, info_period=100)
        try:
            super().wait_stable(seconds)
        finally:
            with contextlib.suppress(OSError, ServerError):
                super().tune(**self._periods)
