"""The pytest plugin: deployments as fixtures, embedded or, with --hatopo-backend=real, of real processes.

    def test_failover(hatopo_sentinel):
        client = hatopo.sentinel(hatopo_sentinel.name, hatopo_sentinel.sentinels)

    @pytest.mark.hatopo(replicas=1, sentinels=5)        # arguments of the deployment
    def test_small(hatopo_sentinel): ...

pytest loads it by itself where hatopo is installed. What a backend cannot do skips the test, with the reason. Decides
nothing about servers, and imports them only for the tests that ask for one.
"""

from __future__ import annotations

import shutil
from collections.abc import Generator, Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from hatopo.testing import (
        Node,
        RealNode,
        RealReplication,
        RealSentinelDeployment,
        Replication,
        SentinelDeployment,
    )

    AnyNode = Node | RealNode
    AnyReplication = Replication | RealReplication
    AnySentinelDeployment = SentinelDeployment | RealSentinelDeployment

EMBEDDED_ONLY = ("clock", "seed")
"""Arguments that mean nothing to real processes."""


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add --hatopo-backend."""
    parser.getgroup("hatopo").addoption(
        "--hatopo-backend",
        choices=["embedded", "real"],
        default="embedded",
        help="what the fixtures hatopo_node, hatopo_replication and hatopo_sentinel start: servers in this process, "
        "or redis-server and redis-sentinel",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the marker."""
    config.addinivalue_line("markers", "hatopo(**options): arguments for the deployment of a hatopo_... fixture")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_setup(item: pytest.Item) -> Generator[None, Any, Any]:
    """Skip a test whose fixtures want what the backend cannot do."""
    return (yield from _skipping())


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Skip a test that wants what the backend cannot do."""
    return (yield from _skipping())


def _skipping() -> Generator[None, Any, Any]:
    try:
        return (yield)
    except Exception as error:
        if type(error).__name__ == "Unsupported" and type(error).__module__.startswith("hatopo.testing"):
            pytest.skip(str(error))
        raise


@pytest.fixture
def hatopo_backend(request: pytest.FixtureRequest) -> str:
    """What the other fixtures start: "embedded" or "real"."""
    return str(request.config.getoption("--hatopo-backend"))


def _started(request: pytest.FixtureRequest, backend: str, name: str) -> Iterator[Any]:
    """A deployment of this kind, with the marker's arguments."""
    import hatopo.testing  # noqa: PLC0415 - only tests that ask for a server pay for it

    options = {key: value for mark in request.node.iter_markers("hatopo") for key, value in mark.kwargs.items()}
    if backend == "real":
        if shutil.which("redis-server") is None:
            pytest.skip("redis-server is not on the PATH")
        options = {key: value for key, value in options.items() if key not in EMBEDDED_ONLY}
        name = f"Real{name}"
    with getattr(hatopo.testing, name)(**options) as started:
        yield started


@pytest.fixture
def hatopo_node(request: pytest.FixtureRequest, hatopo_backend: str) -> Iterator[AnyNode]:
    """One Redis server."""
    yield from _started(request, hatopo_backend, "Node")


@pytest.fixture
def hatopo_replication(request: pytest.FixtureRequest, hatopo_backend: str) -> Iterator[AnyReplication]:
    """A master with two replicas."""
    yield from _started(request, hatopo_backend, "Replication")


@pytest.fixture
def hatopo_sentinel(request: pytest.FixtureRequest, hatopo_backend: str) -> Iterator[AnySentinelDeployment]:
    """A master with two replicas, and three sentinels that watch them."""
    yield from _started(request, hatopo_backend, "SentinelDeployment")
