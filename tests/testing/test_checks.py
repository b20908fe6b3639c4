"""What makes no sense is refused in clear words, before anything is started."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from hatopo.testing import (
    ManualClock,
    Node,
    RealNode,
    RealReplication,
    RealSentinelDeployment,
    Replication,
    SentinelDeployment,
)
from hatopo.testing.world._loop import LOOP

ALL = [Node, Replication, SentinelDeployment, RealNode, RealReplication, RealSentinelDeployment]
FAMILIES: dict[str, list[Any]] = {"all": ALL, "nodes": ALL[:1] + ALL[3:4], "sets": ALL[1:3] + ALL[4:]}
FAMILIES["watched"] = [SentinelDeployment, RealSentinelDeployment]
FAMILIES["embedded"] = ALL[:3]
REFUSED: list[tuple[str, dict[str, Any], type[Exception], str]] = [
    ("all", {"password": 123}, TypeError, "password must be text"),
    ("all", {"password": ""}, ValueError, "password must not be empty"),
    ("all", {"users": "user app on >x ~* +@all"}, TypeError, "users must be a list of lines"),
    ("all", {"users": ["app on >x ~* +@all"]}, ValueError, "a line of users begins with 'user'"),
    ("embedded", {"users": ["user app on", "user b on +nosuch"]}, ValueError, "users:2: .*nosuch"),
    ("all", {"config": "maxmemory 1mb"}, TypeError, "config must be a mapping"),
    ("all", {"config": {"port": "7000"}}, ValueError, "port cannot be configured"),
    ("embedded", {"config": {"nope": 1}}, ValueError, "config: ERR Unknown option .* 'nope'"),
    ("embedded", {"config": {"maxmemory": "lots"}}, ValueError, "must be a memory value"),
    ("all", {"tls": "x"}, TypeError, "tls must be TlsFiles"),
    ("all", {"clock": ManualClock}, TypeError, "clock must be a clock"),
    ("embedded", {"seed": "x"}, TypeError, "seed must be a whole number"),
    ("nodes", {"port": 70000}, ValueError, "there is no port 70000"),
    ("nodes", {"port": "6400"}, TypeError, "a port must be a whole number"),
    ("sets", {"ports": 7000}, TypeError, "ports must be a list"),
    ("sets", {"ports": [7001, 0, 0, 7001]}, ValueError, "port 7001 is given twice"),
    ("sets", {"ports": [65536]}, ValueError, "there is no port 65536"),
    ("sets", {"replicas": -1}, ValueError, "replicas must be at least 0, not -1"),
    ("sets", {"replicas": 1.5}, TypeError, "replicas must be a whole number"),
    ("sets", {"replicas": "2"}, TypeError, "replicas must be a number"),
    ("watched", {"sentinels": 0}, ValueError, "sentinels must be at least 1"),
    ("watched", {"quorum": 0}, ValueError, "quorum must be at least 1"),
    ("watched", {"quorum": 9}, ValueError, "3 sentinels are never a quorum of 9"),
    ("watched", {"down_after": 0}, ValueError, "down_after must be at least"),
    ("watched", {"down_after": float("nan")}, ValueError, "down_after must be at least"),
    ("watched", {"failover_timeout": 0}, ValueError, "failover_timeout must be at least"),
    ("watched", {"parallel_syncs": 0}, ValueError, "parallel_syncs must be at least 1"),
    ("watched", {"name": ""}, ValueError, "name must be one word"),
    ("watched", {"name": "a b"}, ValueError, "name must be one word"),
    ("watched", {"sentinel_users": ["app"]}, ValueError, "a line of users"),
    ("all", {"nonsense": 1}, TypeError, "nonsense"),
]
CASES = [
    pytest.param(kind, options, error, message, id=f"{kind.__name__}-{number}-{'-'.join(options)}")
    for number, (family, options, error, message) in enumerate(REFUSED)
    for kind in FAMILIES[family]
]


@pytest.mark.parametrize(("kind", "options", "error", "message"), CASES)
def test_arguments(kind: Any, options: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        kind(**options)
    assert not LOOP.running


@pytest.fixture(scope="module")
def deployment() -> Iterator[SentinelDeployment]:
    with SentinelDeployment(1, 1, quorum=1) as started:
        yield started


Use = Callable[[SentinelDeployment], object]
MISUSES: list[tuple[Use, type[Exception], str]] = [
    (lambda d: d.nodes[0].execute(), ValueError, "no command"),
    (lambda d: d.nodes[0].execute("GET", None), TypeError, "a word of a command"),  # type: ignore[arg-type]
    (lambda d: d.nodes[1].set_lag(-1), ValueError, "seconds must be at least 0"),
    (lambda d: d.nodes[1].set_lag(ops=-1), ValueError, "ops must be at least 0"),
    (lambda d: d.nodes[1].set_lag(float("nan")), ValueError, "seconds must be at least 0"),
    (lambda d: d.nodes[1].announce("", 6379), ValueError, "is no host"),
    (lambda d: d.nodes[1].announce("127.0.0.1", 70000), ValueError, "no port 70000"),
    (lambda d: d.nodes[1].disconnect("nonsense"), ValueError, "nonsense"),
    (lambda d: d.sentinel_nodes[0].announce("a b", 1), ValueError, "is no host"),
    (lambda d: d.sentinel_nodes[0].swallow("+switch-master", 0), ValueError, "times must be at least 1"),
    (lambda d: d.sentinel_nodes[0].lie("127.0.0.1:9"), TypeError, "an address is a host"),  # type: ignore[arg-type]
    (lambda d: d.sentinel_nodes[0].lie(("127.0.0.1", 0)), ValueError, "nobody at port 0"),
    (lambda d: d.at(("127.0.0.1", 9)), LookupError, "nobody of this deployment"),
    (lambda d: d.remove(d.master()), ValueError, "is the master"),
    (lambda d: d.remove(d.sentinel_nodes[0]), ValueError, "no node of this deployment"),  # type: ignore[arg-type]
    (lambda d: d.partition(d.nodes[0], None), TypeError, "None is no member"),  # type: ignore[arg-type]
    (lambda d: d.monitor("a b", d.nodes[0]), ValueError, "one word"),
    (lambda d: d.set(bogus=1), Exception, "bogus"),
]


@pytest.mark.parametrize("number", range(len(MISUSES)))
def test_methods(deployment: SentinelDeployment, number: int) -> None:
    use, error, message = MISUSES[number]
    with pytest.raises(error, match=message):
        use(deployment)
    assert all(node.running for node in deployment.nodes)
    assert all(sentinel.running for sentinel in deployment.sentinel_nodes)
    deployment.wait_stable()


def test_a_command_without_words_leaves_no_session() -> None:
    with Node() as node:
        for _ in range(3):
            with pytest.raises(ValueError, match="no command"):
                node.execute()
        assert node.execute("CLIENT", "LIST").count("\n") == 1


def test_handles_of_another_deployment_are_refused(deployment: SentinelDeployment) -> None:
    with Replication(1) as other:
        stranger = other.replicas()[0]
        uses: list[Callable[[], object]] = [
            lambda: deployment.remove(stranger),
            lambda: deployment.promote(stranger),
            lambda: deployment.wait_switched(stranger),
            lambda: deployment.partition(deployment.nodes[0], stranger),
        ]
        for use in uses:
            with pytest.raises(ValueError, match="of this deployment"):
                use()
        assert stranger.role() == "slave"


def test_bytes_that_are_no_text_can_be_sent_as_they_came(deployment: SentinelDeployment) -> None:
    node = deployment.nodes[0]
    node.execute("SET", "raw", b"\xff\xc3")
    text = node.execute("GET", "raw")
    node.execute("SET", "again", text)
    with node.control() as control:
        assert control("GET", "again") == text
        assert control("ECHO", text) == text


def test_a_removed_node_stays_away() -> None:
    with SentinelDeployment(1, 1, quorum=1) as own:
        gone = own.replicas()[0]
        own.remove(gone)
        with pytest.raises(RuntimeError, match="has ended"):
            gone.start()
        assert not gone.running
        own.wait_stable()


def test_lies_and_dead_sentinels_are_told_as_such() -> None:
    with SentinelDeployment(1, 2) as own:
        for sentinel in own.sentinel_nodes:
            sentinel.lie(("127.0.0.1", 9))
        from_liars: list[Callable[[], object]] = [own.master, own.kill_master]
        for use in from_liars:
            with pytest.raises(Exception, match="names a stranger"):
                use()
        with pytest.raises(TimeoutError, match="names a stranger"):
            own.wait_switched(own.nodes[0], 0)
        own.sentinel_nodes[0].honest()
        assert own.master() is own.nodes[0], "one voice is enough"
        for sentinel in own.sentinel_nodes:
            sentinel.kill()
        with pytest.raises(Exception, match="no sentinel to ask"):
            own.failover()
        with pytest.raises(TimeoutError, match="no sentinel runs"):
            own.wait_switched(own.nodes[0], 0)


@pytest.mark.parametrize("kind", [Node, pytest.param(RealNode, marks=pytest.mark.real)])
def test_what_is_configured_is_kept_and_no_handle_is_locked_out(kind: Any, request: pytest.FixtureRequest) -> None:
    if kind is RealNode:
        request.getfixturevalue("redis_installed")
    with pytest.raises(RuntimeError, match="no port"):
        _ = kind().url
    with kind() as node:
        node.configure(requirepass="secret", maxmemory="5mb")
        for _ in range(2):
            assert node.execute("CONFIG", "GET", "maxmemory")[1] == str(5 * 2**20)
            with node.control() as control:
                assert control("PING") == "PONG"
            node.restart()
        node.kill()
        assert not node.awake
        with pytest.raises(RuntimeError, match="does not run"):
            node.pause()
        with pytest.raises(ConnectionRefusedError):
            node.disconnect()
