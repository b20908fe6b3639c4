"""The drivers and the backends on which every scenario runs.

What a scenario knows of servers is the embedded ones' surface, and so are its types: real ones have the same.
"""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import pytest

from hatopo.testing import (
    Node,
    RealNode,
    RealReplication,
    RealSentinelDeployment,
    Replication,
    ScaledClock,
    SentinelDeployment,
)
from hatopo.testing.real import server_version
from tests.control import ServerError
from tests.drivers import SyncDriver

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from tests.drivers import WatchingDriver


@pytest.fixture
def servers() -> Iterator[contextlib.ExitStack]:
    """What stops the servers of a test, after its client was closed."""
    with contextlib.ExitStack() as stack:
        yield stack


@pytest.fixture(params=[SyncDriver])
def driver(request: pytest.FixtureRequest, servers: contextlib.ExitStack) -> Iterator[WatchingDriver]:
    del servers  # they end later: whoever dials a server in its last moment leaves a half-made TLS socket behind
    chosen: WatchingDriver = request.param()
    yield chosen
    chosen.close()


@pytest.fixture(params=["embedded", pytest.param("real", marks=pytest.mark.real)])
def backend(request: pytest.FixtureRequest) -> str:
    """Where a scenario runs."""
    if request.param == "real":
        request.getfixturevalue("redis_installed")
    return str(request.param)


@pytest.fixture
def version(backend: str) -> tuple[int, ...]:
    """Of the servers."""
    if backend == "real":
        return server_version()
    return (7, 0, 15)


@pytest.fixture
def make_set(backend: str, servers: contextlib.ExitStack) -> Callable[..., SentinelDeployment]:
    """Makes Sentinel sets of the test's own, each of its own kind.

    `speed` slows sentinels down that would be done before a load has done anything; those of real processes run as
    fast as the wall's clock. A master is down after a second and a half: sentinels dial it once a second, so after one
    second some of them would give a new master up before they have dialled it, and a second failover would follow.
    """

    def make(speed: float | None = None, **options: Any) -> Any:
        options = {"down_after": 1.5, **options}
        if backend == "real":  # who split their votes try again after twice this time: within what calls wait for
            options = {"failover_timeout": 3.0, **options}
            return ended_between_writes(servers.enter_context(RealSentinelDeployment(**options)))
        clock = None if speed is None else ScaledClock(speed)
        return servers.enter_context(SentinelDeployment(clock=clock, **options))

    return make


@pytest.fixture
def sentinel_set(make_set: Callable[..., SentinelDeployment]) -> SentinelDeployment:
    """One master, two replicas and three sentinels of the test's own."""
    return make_set()


@pytest.fixture
def make_replication(backend: str, servers: contextlib.ExitStack) -> Callable[..., Replication]:
    """Makes masters with their replicas, which nobody watches."""
    kind: Any = {"embedded": Replication, "real": RealReplication}[backend]

    def make(**options: Any) -> Any:
        deployment = servers.enter_context(kind(**options))
        return deployment if backend == "embedded" else ended_between_writes(deployment)

    return make


def ended_between_writes(deployment: Any) -> Any:
    """Has real nodes killed or frozen when what they have acknowledged is on its way to their replicas.

    Redis acknowledges first, and loses what it has not sent yet: on a busy machine that happens, and is no client's
    fault. Embedded nodes end between two commands anyway.
    """
    for node in deployment.nodes:
        _spare(node)
    return deployment


def _spare(node: RealNode) -> None:
    kill, pause, resume = node.kill, node.pause, node.resume

    def hold_writes() -> None:
        if node.awake:
            with contextlib.suppress(ServerError):  # it is older than 6.2
                node.execute("CLIENT", "PAUSE", 60_000, "WRITE")
                node.execute("PING")  # by its next turn it has sent all of the last one

    def kill_between_writes() -> None:
        hold_writes()
        kill()

    def pause_between_writes() -> None:
        hold_writes()
        pause()

    def resume_with_writes() -> None:
        resume()
        with contextlib.suppress(OSError, ServerError):
            node.execute("CLIENT", "UNPAUSE")

    vars(node).update(kill=kill_between_writes, pause=pause_between_writes, resume=resume_with_writes)


@pytest.fixture
def make_node(backend: str, servers: contextlib.ExitStack) -> Callable[[], Node]:
    """Makes servers that are in no deployment; what they acknowledged is there after a restart."""
    kind: Any = {"embedded": Node, "real": RealNode}[backend]
    return lambda: servers.enter_context(kind())


@pytest.fixture
def own_server(make_node: Callable[[], Node]) -> Node:
    """A server of the test's own, to kill and pause."""
    return make_node()
