"""hatopo.testing over real processes: what its handles do that the scenarios do not use, and what they refuse."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from typing import TYPE_CHECKING, Any

import anyio
import pytest

from hatopo.testing._control import Control, Event, ServerError, Unsupported, wait_until
from hatopo.testing.real import (
    RealNode,
    RealReplication,
    RealSentinel,
    RealSentinelDeployment,
    tls_supported,
)
from hatopo.testing.real._unsupported import NoNodeFaults, NoSentinelFaults
from hatopo.testing.world._clock import ManualClock, RealClock
from hatopo.testing.world._world import CLIENTS
from tests.control import Certificates, eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

SECRET = "s3cret"


@pytest.fixture
def pair(redis_installed: tuple[int, ...]) -> Iterator[RealReplication]:
    """A master and two replicas."""
    with RealReplication() as deployment:
        yield deployment


# Control connections


def test_errors_are_raised_alone_and_are_values_inside_arrays(server: RealNode) -> None:
    with pytest.raises(ServerError, match="unknown command"):
        server.execute("NOSUCH")
    with server.control() as control:
        control("SET", "key", "text")
        control("MULTI")
        control("INCR", "key")
        control("GET", "key")
        error, text = control("EXEC")
        assert isinstance(error, ServerError)
        assert text == "text"
        assert control("PING") == "PONG", "nothing is left unread"


def test_bytes_that_are_no_text_come_back_as_surrogates(server: RealNode) -> None:
    server.execute("SET", "key", b"\xff\r\n\xc3")
    assert server.execute("GET", "key").encode(errors="surrogateescape") == b"\xff\r\n\xc3"
    assert server.execute("GET", "none") is None


def test_a_connection_may_be_closed_under_a_reader(server: RealNode) -> None:
    control = server.control()
    control.wait_for_ever()
    ended: list[BaseException] = []
    reading = threading.Event()

    def read() -> None:
        try:
            reading.set()
            control.read()
        except OSError as error:
            ended.append(error)

    reader = threading.Thread(target=read)
    reader.start()
    assert reading.wait(10)
    time.sleep(0.1)
    control.close()
    reader.join(10)
    assert [type(error) for error in ended] == [ConnectionResetError]


def test_waiting_says_what_was_missing() -> None:
    def check() -> bool:
        raise ServerError("LOADING not now")

    with pytest.raises(TimeoutError, match=r"not within 0 s: the data: LOADING not now"):
        wait_until(check, 0, "the data")


# A node


def test_a_restart_keeps_what_was_acknowledged_unless_it_is_to_be_empty(own_server: RealNode) -> None:
    own_server.execute("SET", "key", "value")
    own_server.kill()
    assert not own_server.running
    with pytest.raises(ConnectionRefusedError):
        own_server.execute("PING")
    address = own_server.address
    own_server.restart()
    assert own_server.address == address
    assert own_server.execute("GET", "key") == "value"
    own_server.stop()
    own_server.start()
    assert own_server.execute("GET", "key") == "value"
    own_server.restart(empty=True)
    assert own_server.execute("DBSIZE") == 0


def test_a_node_lives_longer_than_the_thread_that_started_it(redis_installed: object) -> None:
    """The kernel ends processes with their parent's thread, where it is asked to."""
    node = RealNode()
    try:
        thread = threading.Thread(target=node.start)
        thread.start()
        thread.join()
        first = node.execute("INFO", "server")
        thread = threading.Thread(target=node.restart)
        thread.start()
        thread.join()
        assert node.execute("INFO", "server") != first
        with pytest.raises(TimeoutError):
            wait_until(lambda: not node.running, 0.3)
    finally:
        node.close()
    assert not node.running
    assert not node.directory.exists()


def test_a_paused_node_answers_later(own_server: RealNode) -> None:
    with own_server.control(timeout=0.2) as control:
        own_server.pause()
        own_server.pause()
        assert (own_server.paused, own_server.running) == (True, True)
        with pytest.raises(TimeoutError):
            control("PING")
    own_server.resume()
    assert own_server.execute("PING") == "PONG"
    own_server.pause()
    own_server.restart()
    assert not own_server.paused
    assert own_server.execute("PING") == "PONG"


def test_connections_are_closed_by_their_kind(own_server: RealNode) -> None:
    with own_server.control() as normal, own_server.control() as listener:
        listener("SUBSCRIBE", "news")
        assert own_server.disconnect("pubsub") == 1
        assert normal("PING") == "PONG"
        with pytest.raises(ConnectionResetError):
            listener.read()
        assert own_server.disconnect() == 1
        with pytest.raises(OSError, match=r"closed|reset|pipe"):
            normal("PING")
    assert own_server.disconnect("all") == 0


def test_a_password_is_for_others(redis_installed: object) -> None:
    with RealNode(password=SECRET, config={"maxmemory": "5mb"}) as node:
        assert node.execute("CONFIG", "GET", "maxmemory") == ["maxmemory", str(5 * 2**20)]
        with Control(node.address) as control, pytest.raises(ServerError, match="NOAUTH"):
            control("PING")


@pytest.mark.parametrize("kind", [RealNode, RealReplication, RealSentinelDeployment])
def test_what_takes_virtual_time_is_refused(kind: Any) -> None:
    with pytest.raises(Unsupported, match=r"wall's clock, not by ManualClock"):
        kind(clock=ManualClock())
    with pytest.raises(Unsupported, match="seed"):
        kind(seed=1)
    clock = RealClock()
    made = kind(clock=clock)
    made.close()
    assert made.clock is clock


@pytest.mark.parametrize(("kind", "faults"), [(RealNode, NoNodeFaults), (RealSentinel, NoSentinelFaults)])
def test_every_fault_of_embedded_servers_is_refused(kind: Any, faults: type) -> None:
    names = [name for name, value in inspect.getmembers(faults, inspect.isfunction) if not name.startswith("_")]
    assert len(names) >= 9
    server = kind()
    try:
        for name in names:
            wanted = [
                one for one in inspect.signature(getattr(server, name)).parameters.values() if one.default is one.empty
            ]
            with pytest.raises(Unsupported, match=r"^a real process cannot .*: that takes an embedded server$"):
                getattr(server, name)(*["x" for _ in wanted])
    finally:
        server.close()


# Replication


def test_replicas_have_what_the_master_has(pair: RealReplication) -> None:
    first = pair.master()
    assert first is pair.nodes[0]
    assert pair.replicas() == pair.nodes[1:]
    assert [node.name for node in pair.nodes] == ["node-1", "node-2", "node-3"]
    assert pair.at(pair.nodes[2].address) is pair.nodes[2]
    with pytest.raises(LookupError):
        pair.at(("127.0.0.1", 1))
    first.execute("SET", "key", "value")
    added = pair.add_replica()
    assert [node.execute("GET", "key") for node in pair.nodes] == ["value"] * 4
    pair.remove(added)
    pair.wait_stable()
    assert added not in pair.nodes
    assert not added.running


def test_a_promotion_by_hand_outlives_kills(pair: RealReplication) -> None:
    old, new, other = pair.nodes
    pair.promote(new)
    pair.wait_stable()
    assert pair.master() is new
    assert {old, other} == {*pair.replicas()}
    new.execute("SET", "key", "value")
    for node in (new, old):
        node.restart()
    pair.wait_stable()
    assert pair.master() is new
    assert old.execute("GET", "key") == "value"
    assert pair.kill_master() is new
    with pytest.raises(ServerError, match="no master"):
        pair.master()


def test_a_role_that_was_changed_beside_the_deployment_outlives_a_kill(pair: RealReplication) -> None:
    _, node, _ = pair.nodes
    node.execute("REPLICAOF", "NO", "ONE")
    node.restart()
    assert node.role() == "master"
    with pytest.raises(TimeoutError, match="replicas in place"):
        pair.wait_stable(0.2)
    assert pair.master() is pair.nodes[0], "the one that the others follow"


def test_what_is_configured_outlives_a_kill(pair: RealReplication) -> None:
    pair.configure(maxmemory_policy="allkeys-lru")
    node = pair.nodes[1]
    node.announce("127.0.0.9", 7)
    for _ in range(2):
        assert node.execute("CONFIG", "GET", "maxmemory-policy")[1] == "allkeys-lru"
        eventually(lambda: ["127.0.0.9", "7"] in [each[:2] for each in pair.master().execute("ROLE")[2]])
        node.restart()
        pair.wait_stable()


@pytest.mark.parametrize("options", [{"password": SECRET}, {"users": ["user app on >pw ~* +@all"]}])
def test_replicas_log_in(redis_installed: object, options: dict[str, Any]) -> None:
    with RealReplication(1, **options) as deployment:
        deployment.promote(deployment.replicas()[0])
        deployment.wait_stable()
        with Control(deployment.master().address) as control, pytest.raises(ServerError, match="NOAUTH"):
            control("PING")


def test_both_colours(redis_installed: object) -> None:
    async def scenario() -> str:
        async with RealReplication(1) as deployment, RealNode() as node:
            node.execute("SET", "key", deployment.master().role())
            return str(node.execute("GET", "key"))

    assert asyncio.run(scenario()) == "master"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_a_cancelled_block_ends_its_processes(redis_installed: object, backend: str) -> None:
    async def scenario() -> list[RealNode]:
        deployment, alone = RealReplication(1), RealNode()
        with anyio.CancelScope() as scope:
            async with deployment, alone:
                scope.cancel()
                await anyio.sleep(60)
        assert scope.cancelled_caught
        return [alone, *deployment.nodes]

    for node in anyio.run(scenario, backend=backend):
        assert not node.running
        assert not node.directory.exists()


# Sentinels


def test_events_are_recorded_in_order_and_over_a_restart(make_set: Callable[..., RealSentinelDeployment]) -> None:
    sentinel_set = make_set(down_after=3.0)
    sentinel = sentinel_set.sentinel_nodes[0]
    sentinel.kill()
    sentinel.restart()
    assert sentinel.disconnect("pubsub") == 1, "the recorder's own, which it opens again"
    eventually(lambda: "testing-recorder" in sentinel.execute("CLIENT", "LIST"))
    killed, old = time.time(), sentinel_set.kill_master()
    new = sentinel_set.wait_switched(old)

    def heard() -> list[Event]:
        return [event for event in sentinel_set.events if event.time >= killed]

    def told() -> list[str]:
        return [event.channel for event in heard() if event.sentinel == sentinel.address]

    eventually(lambda: "+switch-master" in told(), what="its word")
    before = told()[: told().index("+switch-master")]
    assert {"+config-update-from", "+failover-end"}.intersection(before), "of another's failover, or of its own"
    switched = [event for event in heard() if event.channel == "+switch-master"]
    expected = f"mymaster {old.host} {old.port} {new.host} {new.port}"
    assert {event.payload for event in switched} == {expected}
    assert [event.time for event in switched] == sorted(event.time for event in switched)
    assert len(sentinel_set.leaders()) >= 1


def test_a_failover_for_nobody_is_an_error_at_once(sentinel_set: RealSentinelDeployment) -> None:
    sentinel_set.name = "mymistress"
    with pytest.raises(ServerError, match="No such master"):
        sentinel_set.failover()


def test_a_sentinel_is_known_by_what_it_announces(sentinel_set: RealSentinelDeployment) -> None:
    one, other, _ = sentinel_set.sentinel_nodes
    one.announce("127.0.0.9", 7)
    sentinel_set.tune(publish_period=100)

    def known() -> set[tuple[str, str]]:
        listed = other.execute("SENTINEL", "SENTINELS", sentinel_set.name)
        return {(each[each.index("ip") + 1], each[each.index("port") + 1]) for each in listed}

    eventually(lambda: ("127.0.0.9", "7") in known(), what="the other address")
    assert sentinel_set.at(("127.0.0.9", 7)) is one


def test_only_a_partition_that_can_be_had_is_had(redis_installed: object) -> None:
    with RealReplication() as plain, pytest.raises(Unsupported, match="partitionable"):
        plain.partition(plain.nodes[0], plain.nodes[1:])
    with RealSentinelDeployment(1, 1, quorum=1, partitionable=True, down_after=3.0) as deployment:
        first, second = deployment.nodes
        (sentinel,) = deployment.sentinel_nodes
        refused: list[tuple[Any, Any]] = [
            (first, second),
            (second, [first, sentinel]),
            (first, [first, second, sentinel]),
            (first, CLIENTS),
            (first, [second, sentinel, CLIENTS]),
        ]
        for one, other in refused:
            with pytest.raises(Unsupported, match="cut off"):
                deployment.partition(one, other)
        assert second.execute("ROLE")[3] == "connected"
        deployment.partition([second, sentinel], first)
        assert deployment.wait_switched(first) is second
        assert first.role() == "master"
        deployment.heal()
        deployment.tune(publish_period=250, info_period=300)
        eventually(lambda: first.role() == "slave", 30)


@pytest.mark.skipif(not tls_supported(), reason="the server was built without TLS")
def test_everybody_speaks_tls(redis_installed: object, tmp_path: Path) -> None:
    with RealSentinelDeployment(1, 2, tls=Certificates(tmp_path).files) as deployment:
        for address in (deployment.master().address, deployment.sentinels[0]):
            with Control(address) as control, pytest.raises(OSError, match=r"closed|reset"):
                control("PING")
        old = deployment.kill_master()
        assert deployment.wait_switched(old).url.startswith("rediss://")
