"""One client in many threads, processes and greenlets; what it leaves behind, and what it refuses.

Whatever forks, patches the interpreter or exits runs as a program of tests/client/scripts.
"""

from __future__ import annotations

import gc
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor
from concurrent.futures import TimeoutError as NotYet
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import redis

import hatopo
from tests.client.support import batch, run_script
from tests.control import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hatopo.testing.real import RealNode

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")


@pytest.fixture
def client(server: RealNode) -> Iterator[hatopo.Redis]:
    client = hatopo.standalone(*server.address)
    yield client
    client.close()


def test_sixty_four_threads_never_see_each_others_replies(client: hatopo.Redis) -> None:
    start = threading.Barrier(64)

    def work(number: int) -> None:
        start.wait()
        for turn in range(60):
            key, value = f"thread{number}", f"{number}-{turn}".encode()
            assert client.set(key, value) is True
            assert client.get(key) == value
            assert client.echo(value) == value
            got = batch(client, turn % 2 == 0).get(key).incr(f"count{number}").execute()
            assert got == [value, turn + 1]

    with ThreadPoolExecutor(64) as pool:
        list(pool.map(work, range(64)))


def test_threads_count_together(client: hatopo.Redis) -> None:
    with ThreadPoolExecutor(16) as pool:
        replies = list(pool.map(lambda _: client.incr("n"), range(2_000)))
    assert sorted(replies) == list(range(1, 2_001))


@needs_fork
def test_a_fork_in_the_middle_of_calls(server: RealNode) -> None:
    run_script("forking", server.port)


def test_spawned_processes_have_connections_of_their_own(server: RealNode) -> None:
    run_script("spawning", port=server.port)


def test_greenlets_share_a_client(server: RealNode) -> None:
    pytest.importorskip("gevent")
    run_script("greenlets", server.port, launcher=("-m", "gevent.monkey"))


@pytest.mark.parametrize("launcher", [(), ("-X", "dev")], ids=["plain", "dev-mode"])
@pytest.mark.parametrize("how", ["idle", "pinned", "blocked"])
def test_the_interpreter_exits_in_silence(server: RealNode, how: str, launcher: tuple[str, ...]) -> None:
    run_script("leaving", server.port, how, launcher=launcher)


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="descriptors are counted in /proc")
def test_a_thousand_dropped_clients_leave_nothing(server: RealNode) -> None:
    def drop_one() -> None:
        client = hatopo.standalone(*server.address, client_name="dropped")
        client.set("key", "value")
        assert batch(client, transaction=True).get("key").execute() == [b"value"]

    def pools() -> int:
        gc.collect()
        return sum(type(thing) is hatopo.ConnectionPool for thing in gc.get_objects())

    drop_one()
    before, files, threads = pools(), descriptors(), threading.active_count()
    for _ in range(1_000):
        drop_one()
    assert pools() <= before
    eventually(lambda: threading.active_count() <= threads)
    eventually(lambda: descriptors() <= files)
    eventually(lambda: "name=dropped" not in server.execute("CLIENT", "LIST"))


def test_a_closed_client_and_its_clones_leave_nothing(server: RealNode) -> None:
    with hatopo.standalone(*server.address, client_name="closed") as client:
        client.get("key")
        client.using(deadline=5).get("key")
        with client.client() as pinned:
            pinned.get("key")
        client.pubsub().subscribe("channel")
    eventually(lambda: "name=closed" not in server.execute("CLIENT", "LIST"))


def test_a_client_is_not_pickled(client: hatopo.Redis) -> None:
    client.get("key")
    with pytest.raises(TypeError):
        pickle.dumps(client)
    with pytest.raises(TypeError):
        pickle.dumps(client.connection_pool)


def test_a_call_waits_until_a_connection_is_free(server: RealNode) -> None:
    with hatopo.standalone(*server.address, max_connections=2) as client, ThreadPoolExecutor(1) as pool:
        client.set("key", "value")
        lent = [client.connection_pool.get_connection() for _ in range(2)]
        waiting = pool.submit(client.get, "key")
        with pytest.raises(NotYet):
            waiting.result(timeout=0.05)
        client.connection_pool.release(lent[0])
        assert waiting.result(timeout=10) == b"value"
        client.connection_pool.release(lent[1])


def test_many_threads_share_few_connections(server: RealNode) -> None:
    with hatopo.standalone(*server.address, max_connections=3, client_name="few") as client:
        with ThreadPoolExecutor(32) as pool:
            replies = list(pool.map(lambda _: client.incr("n"), range(1_000)))
        assert sorted(replies) == list(range(1, 1_001))
        assert server.execute("CLIENT", "LIST").count("name=few") <= 3


def test_a_wait_for_a_connection_ends_with_the_deadline(server: RealNode) -> None:
    with hatopo.standalone(*server.address, max_connections=1, failover_timeout=30) as client:
        lent = client.connection_pool.get_connection()
        with hatopo.deadline(0.05), pytest.raises(redis.ConnectionError) as caught:
            client.get("key")
        assert isinstance(caught.value, redis.exceptions.MaxConnectionsError)
        client.connection_pool.release(lent)
        assert client.get("key") is None
