"""The pytest plugin: deployments as fixtures, embedded or, with --hatopo-backend=real, of real processes.

    def test_failover(hatopo_sentinel):
        client = hatopo.sentinel(hatopo_sentinel.name, hatopo_sentinel.sentinels)

    @pytest.mark.hatopo(replicas=1, sentinels=5)        # arguments of the deployment
    def test_small(hatopo_sentinel): ...

pytest loads it by itself where hatopo is installed. What a backend cannot do skips the test, with the reason. Decides
nothing about servers, and imports them only for the tests that ask for one.
"""

from __future__ import annotations

import inspect
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

    kinds = {each: getattr(hatopo.testing, each) for each in ("Node", "Replication", "SentinelDeployment")}
    accepted = {each: _arguments(kind) for each, kind in kinds.items()}
    options = _options(request.node)
    unknown = sorted(options.keys() - set().union(*accepted.values()))
    if unknown:
        raise pytest.UsageError(f"@pytest.mark.hatopo: no deployment has the argument {unknown[0]!r}")
    # A marker of a module is for fixtures of several kinds: each takes what it has.
    options = {key: value for key, value in options.items() if key in accepted[name]}
    kind = kinds[name]
    if backend == "real":
        import hatopo.testing.real  # noqa: PLC0415

        if not hatopo.testing.real.available():
            pytest.skip("redis-server is not on the PATH, nor does HATOPO_REDIS_SERVER name one")
        options = {key: value for key, value in options.items() if key not in EMBEDDED_ONLY}
        kind = getattr(hatopo.testing, f"Real{name}")
    with kind(**options) as started:
        yield started


def _options(item: pytest.Item) -> dict[str, Any]:
    """The arguments of all markers: those of a function win over those of its class, these over its module's."""
    options: dict[str, Any] = {}
    for mark in reversed([*item.iter_markers("hatopo")]):
        if mark.args:
            raise pytest.UsageError(f"@pytest.mark.hatopo takes arguments by name only, not {mark.args[0]!r}")
        options |= mark.kwargs
    return options


def _arguments(kind: type) -> set[str]:
    """The names of what a deployment is made with."""
    found: set[str] = set()
    for each in kind.__mro__:
        if "__init__" in vars(each):
            own = inspect.signature(vars(each)["__init__"]).parameters.keys()
            found |= own
            if "options" not in own:  # which stands for those of the class behind it
                break
    return found - {"self", "options"}


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
