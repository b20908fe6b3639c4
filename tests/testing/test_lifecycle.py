"""The life of deployments: they leave nothing behind, in whatever way they end, and say so when they are over."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import anyio
import pytest

from hatopo.testing import ManualClock, Node, RealClock, Replication, ScaledClock, SentinelDeployment
from hatopo.testing.world._loop import LOOP
from tests.control import Control, eventually
from tests.testing.conftest import Dial
from tests.testing.wire import CLOSED, request

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
KINDS: list[Callable[..., Any]] = [Node, Replication, SentinelDeployment]
each_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def threads() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "hatopo-testing"]


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def started(kind: Callable[..., Any], **options: Any) -> Any:
    deployment = kind(**options)
    deployment.start()
    return deployment


def nodes_of(deployment: Any) -> list[Any]:
    return [deployment] if isinstance(deployment, Node) else deployment.nodes


@pytest.fixture
def nothing_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The test leaves no thread, no open file, no new file where it runs."""
    if not Path("/proc/self/fd").is_dir():
        pytest.skip("the system does not tell which files are open")
    monkeypatch.chdir(tmp_path)
    with Node():  # what is opened once and stays
        pass
    before = descriptors()
    yield
    assert threads() == []
    eventually(lambda: descriptors() <= before)
    assert list(tmp_path.iterdir()) == []


@each_kind
def test_fifty_leave_nothing(nothing_left: None, kind: Callable[..., Any]) -> None:
    for number in range(50):
        with kind(seed=number) as deployment:
            address = nodes_of(deployment)[0].address
            assert len(threads()) == 1
        with pytest.raises(ConnectionRefusedError):  # at once: soon somebody else may have the port
            socket.create_connection(address)


def test_what_clients_left_open_is_closed(nothing_left: None) -> None:
    with SentinelDeployment(1, 3) as deployment:
        controls = [node.control() for node in deployment.nodes for _ in range(5)]
        controls += [sentinel.control() for sentinel in deployment.sentinel_nodes for _ in range(5)]
        for control in controls:
            control("PING")
    for control in controls:
        with pytest.raises(OSError):  # noqa: PT011 - reset or closed, as the system likes
            control("PING")
        control.close()


def test_a_deployment_in_trouble_leaves_nothing(nothing_left: None) -> None:
    with SentinelDeployment(2, 3) as deployment:
        deployment.partition(deployment.nodes[0], deployment.nodes[1:])
        deployment.nodes[0].pause()
        deployment.nodes[1].kill()
        deployment.nodes[2].refuse()
        deployment.sentinel_nodes[0].pause()
        deployment.sentinel_nodes[1].kill()


@each_kind
def test_closing_twice(nothing_left: None, kind: Callable[..., Any]) -> None:
    deployment = started(kind)
    deployment.close()
    deployment.close()
    kind().close()  # it was never started


@each_kind
def test_after_the_end_everything_says_so(kind: Callable[..., Any]) -> None:
    with kind() as deployment:
        node = nodes_of(deployment)[0]
    assert not node.running
    for use in (lambda: node.execute("PING"), node.kill, node.restart, node.pause):
        with pytest.raises(RuntimeError, match="no deployment runs"):
            use()
    with pytest.raises(RuntimeError, match=f"a {kind.__name__} lives once"):
        deployment.start()
    with Node():  # the thread is there again, but not for the one that has ended
        with pytest.raises(ConnectionRefusedError, match=str(node.port)):
            node.execute("PING")
        with pytest.raises(RuntimeError, match="has ended"):
            node.restart()
        assert not node.running
        with pytest.raises(RuntimeError, match="lives once"):
            deployment.start()


@each_kind
def test_an_error_at_the_start_cleans_up(
    nothing_left: None, kind: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Any) -> None:
        started_before(self)
        raise LookupError("at the start")

    started_before = kind._start  # type: ignore[attr-defined]
    monkeypatch.setattr(kind, "_start", fail)
    deployment = kind()
    with pytest.raises(LookupError, match="at the start"):
        deployment.start()
    assert not any(node.running for node in nodes_of(deployment))


def test_a_port_that_is_taken_is_named_and_nothing_stays(nothing_left: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(OSError, match=f"port {port} of 127.0.0.1 cannot be had: Address already in use"):
            started(Node, port=port)
        with pytest.raises(OSError, match=f"port {port} "):
            started(Replication, replicas=1, ports=[0, port])
        with pytest.raises(OSError, match=f"port {port} "):
            started(SentinelDeployment, replicas=0, sentinels=1, quorum=1, ports=[0, port])
    with Node(port=port) as node:
        assert node.port == port
        with pytest.raises(OSError, match=f"port {port} "):
            started(Node, port=port)
        assert node.execute("PING") == "PONG"


def test_ports_that_are_given_are_had() -> None:
    for _ in range(20):  # one of them may have become somebody else's
        with contextlib.ExitStack() as stack:
            sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
            ports = [one.getsockname()[1] for one in sockets]
        try:
            deployment = started(SentinelDeployment, replicas=1, sentinels=1, quorum=1, ports=ports)
        except OSError as error:
            if "Address already in use" not in str(error):
                raise
            continue
        with contextlib.closing(deployment):
            assert [*(node.port for node in deployment.nodes), deployment.sentinels[0][1]] == ports
        return
    pytest.fail("they were never had")


def test_the_port_of_a_killed_server_is_kept_for_it() -> None:
    with Node() as node:
        port = node.port
        for _ in range(20):
            node.kill()
            with Node() as other:
                assert other.port != port
            node.restart()
            assert node.port == port
            node.refuse()
            node.refuse(False)
        with Control(node.address) as control:
            assert control("PING") == "PONG"


@pytest.mark.parametrize("end", ["kill", "refuse"])
def test_a_connection_that_has_just_begun_is_no_lost_one(dial: Dial, end: str) -> None:
    with Node() as node:
        for _ in range(50):
            client = dial(node)
            getattr(node, end)()
            client.send(request([b"PING"]))
            assert str(client.read()) in ("+PONG", "!closed")
            node.restart()
            node.refuse(False)


def test_two_deployments_at_once_know_nothing_of_each_other(dial: Dial) -> None:
    with SentinelDeployment(1, 3, seed=1) as one:
        with SentinelDeployment(1, 3, seed=1) as other:
            one.nodes[0].execute("SET", "k", "one")
            assert other.nodes[0].execute("GET", "k") is None
            one.wait_switched(one.kill_master())
            assert other.master() is other.nodes[0]
            assert {event.sentinel for event in one.events}.isdisjoint({event.sentinel for event in other.events})
            assert len(threads()) == 1
        assert one.master().execute("PING") == "PONG"
    assert threads() == []


EACH_BY_EACH = [(kind, clock) for kind in KINDS for clock in (RealClock, ScaledClock, ManualClock)]
EACH_BY_EACH.remove((SentinelDeployment, RealClock))  # sentinels of the wall's clock need seconds to know each other


@pytest.mark.parametrize(("kind", "clock"), EACH_BY_EACH, ids=lambda value: value.__name__)
def test_each_kind_lives_by_each_clock(kind: Callable[..., Any], clock: Callable[[], Any]) -> None:
    with kind(clock=clock()) as deployment:
        assert nodes_of(deployment)[0].role() == "master"


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@each_kind
def test_async_with(nothing_left: None, kind: Callable[..., Any], backend: str) -> None:
    async def use() -> Any:
        async with kind() as deployment:
            node = nodes_of(deployment)[0]
            stream = await anyio.connect_tcp(*node.address)
            async with stream:
                await stream.send(b"PING\r\n")
                assert await stream.receive() == b"+PONG\r\n"
            assert node.execute("PING") == "PONG"  # handles may be used from tasks
        return deployment

    deployment = anyio.run(use, backend=backend)
    assert not nodes_of(deployment)[0].running


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@each_kind
def test_a_block_that_is_cancelled_leaves_nothing(nothing_left: None, kind: Callable[..., Any], backend: str) -> None:
    async def use() -> None:
        deployment = kind()
        with anyio.CancelScope() as scope:
            async with deployment:
                scope.cancel()
                await anyio.sleep(60)
        assert scope.cancelled_caught
        assert not any(node.running for node in nodes_of(deployment))

    anyio.run(use, backend=backend)
    assert threads() == []


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
@each_kind
def test_a_start_that_is_cancelled_leaves_nothing(
    nothing_left: None, kind: Callable[..., Any], backend: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is cancelled in the middle, and the block is never entered."""
    before = kind._start  # type: ignore[attr-defined]
    begun = threading.Event()

    def start(self: Any) -> None:
        begun.set()
        before(self)

    monkeypatch.setattr(kind, "_start", start)

    async def use() -> None:
        deployment, entered = kind(), []
        with anyio.CancelScope() as scope:
            async with anyio.create_task_group() as tasks:

                async def enter() -> None:
                    async with deployment:
                        entered.append(True)

                tasks.start_soon(enter)
                while not begun.is_set():
                    await anyio.sleep(0.001)
                scope.cancel()
        assert not any(node.running for node in nodes_of(deployment))
        assert entered in ([], [True])  # it may have been quicker

    anyio.run(use, backend=backend)
    assert threads() == []


def test_async_with_whose_body_fails(nothing_left: None) -> None:
    async def use() -> None:
        async with Replication(1):
            raise LookupError("in the body")

    with pytest.raises(LookupError, match="in the body"):
        asyncio.run(use())


@pytest.mark.parametrize("count", [-1])
def test_there_cannot_be_less_than_no_replicas(count: int) -> None:
    with pytest.raises(ValueError, match="-1"):
        Replication(count)


def test_members_that_come_and_go_leave_nothing(nothing_left: None) -> None:
    with SentinelDeployment(1, 3) as deployment:
        for _ in range(3):
            deployment.remove(deployment.add_replica())
        deployment.add_sentinel()
        assert (len(deployment.nodes), len(deployment.sentinels)) == (2, 4)


def test_callers_from_other_threads_end_with_the_deployment() -> None:
    ended: list[BaseException] = []
    node = started(Node)

    def ask() -> None:
        try:
            while True:
                node.execute("PING")
        except (RuntimeError, ConnectionError) as error:
            ended.append(error)

    askers = [threading.Thread(target=ask, daemon=True) for _ in range(4)]
    for asker in askers:
        asker.start()
    node.close()
    for asker in askers:
        asker.join(10)
    assert len(ended) == 4


# Fork


def in_child(function: Callable[[], object]) -> int:
    """Fork, call it in the child, and return the child's status: 0, if it came to its end."""
    child = os.fork()
    if child == 0:
        status = 1
        try:
            signal.alarm(20)
            function()
            status = 0
        finally:
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_can_have_servers_of_its_own() -> None:
    def child() -> None:
        with contextlib.suppress(RuntimeError):
            parents.execute("PING")
            os._exit(3)  # the parent's servers do not live here
        parents.close()
        with Node() as node:
            assert node.execute("PING") == "PONG"
            with Control(node.address) as control, Control(parents.address) as outside:
                assert (control("PING"), outside("PING")) == ("PONG", "PONG")

    with Node() as parents:
        assert in_child(child) == 0
        assert parents.execute("PING") == "PONG"
        with Control(parents.address) as control:
            assert control("PING") == "PONG"


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_keeps_neither_ports_nor_connections(dial: Dial) -> None:
    with Node() as node, Node() as killed:
        killed.kill()
        client = dial(node)
        client.ask(b"PING")
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.close(write)
            select.select([read], [], [], 60)  # it lives until the parent is done
            os._exit(0)
        try:
            node.kill()
            assert client.read() == CLOSED
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(node.address)
            node.restart()
            killed.restart()
            for one in (node, killed):
                assert str(dial(one).ask(b"PING")) == "+PONG"
        finally:
            os.close(write)
            os.close(read)
            os.waitpid(child, 0)


@needs_fork
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_the_end_of_a_forked_child_is_not_that_of_the_parents_servers() -> None:
    with SentinelDeployment(1, 1, quorum=1) as deployment:
        assert in_child(deployment.close) == 0
        assert deployment.master().execute("PING") == "PONG"
        with Control(deployment.nodes[1].address) as control:
            assert control("PING") == "PONG"


def test_the_thread_is_a_daemon_and_runs_while_somebody_needs_it() -> None:
    LOOP.acquire()
    try:
        thread = next(thread for thread in threading.enumerate() if thread.name == "hatopo-testing")
        assert thread.daemon
        with Node():
            assert threads() == ["hatopo-testing"]
        assert thread.is_alive()
    finally:
        LOOP.release()
    assert not thread.is_alive()
