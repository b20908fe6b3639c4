"""Real sentinels watch embedded nodes: they find the replicas and each other, and fail over."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING

import hatopo
from hatopo.testing import RealClock, Replication
from hatopo.testing._control import ServerError, wait_until
from hatopo.testing.real import RealSentinel

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hatopo.testing import NodeHandle

QUORUM = 2


@contextlib.contextmanager
def watched(nodes: Replication) -> Iterator[list[RealSentinel]]:
    """Three redis-sentinel processes in agreement about an embedded master."""
    host, port = nodes.master().address
    lines = [f"sentinel monitor mymaster {host} {port} {QUORUM}"]
    lines += ["sentinel down-after-milliseconds mymaster 3000", "sentinel failover-timeout mymaster 6000"]
    with contextlib.ExitStack() as stack:
        sentinels = []
        for number in range(3):
            sentinel = RealSentinel(f"sentinel-{number}", lines=lines, users=(), tls=None, port=0)
            stack.callback(sentinel.close)
            sentinel.start()
            sentinel.execute("SENTINEL", "DEBUG", "publish-period", 100, "info-period", 100)
            sentinels.append(sentinel)

        def agreed() -> bool:
            for one in sentinels:
                flat = one.execute("SENTINEL", "MASTER", "mymaster")
                seen = dict(zip(flat[::2], flat[1::2], strict=True))
                if (seen["flags"], seen["num-slaves"], seen["num-other-sentinels"]) != ("master", "2", "2"):
                    return False
            return True

        wait_until(agreed, 30, "sentinels that know the replicas and each other")
        for one in sentinels:  # they promote a replica only if its INFO is not older than three periods
            one.execute("SENTINEL", "DEBUG", "publish-period", 1000, "info-period", 5000)
        yield sentinels


def master_named(sentinels: list[RealSentinel], old: NodeHandle) -> int | None:
    """The port of another master, once all sentinels name the same."""
    named = {one.execute("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")[1] for one in sentinels}
    port = int(named.pop())
    return port if not named and port != old.port else None


def test_three_real_sentinels_fail_over_embedded_nodes(redis_installed: tuple[int, ...]) -> None:
    with Replication(replicas=2, clock=RealClock()) as nodes, watched(nodes) as sentinels:
        client = hatopo.sentinel("mymaster", [one.address for one in sentinels])
        with contextlib.closing(client):
            client.set("written", "before")
            old = nodes.kill_master()
            port = wait_until(lambda: master_named(sentinels, old), 30, "a new master")
            new = next(node for node in nodes.nodes if node.port == port)
            assert new.role() == "master"
            assert client.get("written") == b"before"
            client.set("written", "after")
            assert new.execute("GET", "written") == "after"
            old.start()
            wait_until(lambda: old.role() == "slave", 60, "the former master is made a replica")
            nodes.wait_stable()
            assert old.execute("GET", "written") == "after"


def test_real_sentinels_obey_an_operator(redis_installed: tuple[int, ...]) -> None:
    with Replication(replicas=2, clock=RealClock()) as nodes, watched(nodes) as sentinels:
        old, accepted = nodes.master(), []

        def obeyed() -> int | None:
            """It gives up where no replica is good enough just then, or not promoted in time: it is asked again."""
            _, port = sentinels[0].execute("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster")
            if int(port) == old.port:
                with contextlib.suppress(ServerError):
                    accepted.append(sentinels[0].execute("SENTINEL", "FAILOVER", "mymaster"))
            return master_named(sentinels, old)

        wait_until(obeyed, 30, "a new master")
        assert accepted in (["OK"], ["OK", "OK"])
        wait_until(lambda: old.role() == "slave", 60, "the former master is made a replica")
        nodes.wait_stable()
