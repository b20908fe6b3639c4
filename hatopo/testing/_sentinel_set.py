"""A Sentinel set of embedded servers: decides how its sentinels are started, and how fast their time is."""

from __future__ import annotations

from hatopo.testing._access import ADMIN
from hatopo.testing._deployments import Replication, let_in
from hatopo.testing._handles import NodeHandle, SentinelHandle
from hatopo.testing._watched import WatchedShape
from hatopo.testing.sentinel import SentinelServer
from hatopo.testing.world._clock import Clock, ScaledClock
from hatopo.testing.world._loop import LOOP
from hatopo.testing.world._world import World


class SentinelDeployment(WatchedShape[NodeHandle, SentinelHandle], Replication):
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

    @staticmethod
    def _usual_clock() -> Clock:
        return ScaledClock()

    def _prepare(self, clock: Clock | None, seed: int | None, partitionable: bool) -> None:
        super()._prepare(clock, seed, partitionable)
        let_in(SentinelServer(World(self.clock)), self._sentinel_users)  # refused before any server is started

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

    def leaders(self) -> list[SentinelHandle]:
        """The sentinels that have led a failover, running or not."""
        led = {event.sentinel for event in self.events if event.channel == "+elected-leader"}
        return [sentinel for sentinel in self.sentinel_nodes if sentinel.address in led]
