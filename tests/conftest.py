"""Fixtures over real Redis processes; a test that asks for one of them bears the mark `real`.

Without redis-server on the PATH such tests are skipped, unless HATOPO_REQUIRE_REAL=1 says that they must run.
"""

from __future__ import annotations

import contextlib
import os
import sys
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from hatopo.testing.real import RealNode, RealSentinelDeployment, available, server_version
from tests.control import ServerError, eventually
from tests.servers import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["eventually"]

pytest.register_assert_rewrite("tests.drivers", "tests.scenarios.reading", "tests.scenarios.support")
settings.register_profile("hatopo", deadline=None)  # how long an example takes is the machine's business
settings.load_profile("hatopo")
sys.setswitchinterval(0.0005)  # client, embedded servers and test share one interpreter: none waits long for its turn

NEEDS_SERVERS = {"redis_installed", "shared_server", "server", "own_server", "sentinel_set", "make_set"}


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        callspec = getattr(item, "callspec", None)
        if callspec is not None and callspec.params.get("backend") == "embedded":
            continue
        if NEEDS_SERVERS.intersection(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.real)


SILENCES = (
    "client._asking.QUERY_TIMEOUT",
    "client._hub.QUERY_TIMEOUT",
    "client._deployment.FIRST_LOOK",
    "client._listening.QUERY_TIMEOUT",
    "client._listening.PATIENCE",
    "client._monitor.SHORT_SILENCE",
    "client._monitor.LONG_SILENCE",
    "client._monitor.VISIT",
    "client._nodes.IN_PEACE",
    "client._reading.FIRST_LOOK",
    "client._roles.PATIENCE",
    "client._roles.DIAL_PATIENCE",
    "connection._wire.SLICE",
    "topology._discover.GRACE",
)
"""How long clients bear silence, or wait for others."""
LONG = 8.0
"""Seconds: longer than a busy machine keeps anybody waiting, shorter than tests wait."""


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that never takes a busy machine for a frozen server, where no server is frozen or cut off.

    How long silence is borne is not what such tests are about, and a thread or a process may have to wait for its turn
    for longer than that.
    """
    for name in SILENCES:
        monkeypatch.setattr(f"hatopo.{name}", LONG)


@pytest.fixture(scope="session")
def redis_installed() -> tuple[int, ...]:
    """The version of redis-server; without one the test is skipped, or fails where servers are required."""
    if available():
        return server_version()
    reason = "redis-server is not on the PATH"
    if os.environ.get("HATOPO_REQUIRE_REAL") == "1":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="session")
def shared_server(redis_installed: tuple[int, ...]) -> Iterator[RealNode]:
    """One server for the session, in whatever state the tests before left it; tests want `server`."""
    with RealNode(config=PLAIN) as server:
        yield server


@pytest.fixture
def server(shared_server: RealNode) -> RealNode:
    """The shared server, emptied. A test that kills or configures takes `own_server`."""
    shared_server.execute("FLUSHALL")
    shared_server.execute("SCRIPT", "FLUSH")
    with contextlib.suppress(ServerError):  # before 7.0 there are no functions
        shared_server.execute("FUNCTION", "FLUSH")
    return shared_server


@pytest.fixture
def own_server(redis_installed: tuple[int, ...]) -> Iterator[RealNode]:
    """A server of the test's own, to kill and pause; what it acknowledged is there after a restart."""
    with RealNode() as server:
        yield server


@pytest.fixture
def sentinel_set(redis_installed: tuple[int, ...]) -> Iterator[RealSentinelDeployment]:
    """One master, two replicas and three sentinels of the test's own."""
    with RealSentinelDeployment() as deployment:
        yield deployment


@pytest.fixture
def make_set(redis_installed: tuple[int, ...]) -> Iterator[Callable[..., RealSentinelDeployment]]:
    """Makes Sentinel sets of the test's own, each of its own kind."""
    with contextlib.ExitStack() as stack:
        yield lambda **options: stack.enter_context(RealSentinelDeployment(**options))
