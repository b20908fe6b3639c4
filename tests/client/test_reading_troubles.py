"""Reads in trouble: what must not follow from it. Each of these was found by somebody who looked for it."""

from __future__ import annotations

import contextvars
import socket
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.credentials import CredentialProvider

import hatopo
from hatopo import events
from hatopo.client import _reading, pin_after_write
from hatopo.testing import Node, Replication, SentinelDeployment
from tests.client.support import wait_until_fit
from tests.client.test_reading import arrived, send
from tests.control import eventually

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from hatopo import NodeStatus
    from hatopo.testing import NodeHandle


@pytest.fixture
def deployment() -> Iterator[Replication]:
    with Replication(replicas=2) as started:
        yield started


def opened(deployment: Replication, **options: Any) -> hatopo.Redis:
    client = hatopo.replicated([node.address for node in deployment.nodes], **options)
    client.set("k", "v")
    wait_until_fit(client, len(deployment.nodes))
    arrived(deployment, client)
    return client


def calls(node: NodeHandle, command: str) -> int:
    lines = node.execute("INFO", "commandstats").splitlines()
    found = [line for line in lines if line.startswith(f"cmdstat_{command}:calls=")]
    return int(found[0].partition("=")[2].partition(",")[0]) if found else 0


def refused(client: hatopo.Redis) -> dict[int, str]:
    return {one.port: one.refused for one in client.nodes() if one.refused}


def by_port(client: hatopo.Redis) -> dict[int, NodeStatus]:
    return {one.port: one for one in client.nodes()}


def test_a_deadline_ends_an_iterator(deployment: Replication) -> None:
    with opened(deployment, read_from="replica", failover_timeout=30) as client:
        client.get("k")
        for node in deployment.nodes:
            node.delay("scan", 0.2, times=None)
        with pytest.raises(redis.TimeoutError), hatopo.deadline(0.1):
            list(client.scan_iter())
        with pytest.raises(redis.TimeoutError):
            list(client.using(deadline=0.05).scan_iter())
        assert sum(calls(node, "scan") for node in deployment.nodes) < 6, "and does not begin it again and again"


def test_an_empty_server_is_no_master_while_the_master_is_silent(deployment: Replication) -> None:
    """It came back without its configuration; the others still follow the one that is down."""
    master, faithful, empty = deployment.nodes
    with opened(deployment, failover_timeout=0.5) as client:
        told: list[Any] = []
        client.subscribe_events(told.append)
        empty.execute("REPLICAOF", "NO", "ONE")
        empty.execute("FLUSHALL")
        eventually(lambda: [one for one in told if isinstance(one, events.SeveralMasters)])
        master.kill()
        eventually(lambda: refused(client).get(master.port))
        with pytest.raises(redis.ConnectionError):
            client.set("k", "lost")
        faithful.execute("REPLICAOF", "NO", "ONE")
        empty.execute("REPLICAOF", *faithful.address)
        assert client.using(failover_timeout=20).set("k", "w"), "this one is followed: by its data, and by the other"
        assert faithful.execute("GET", "k") == "w"


def test_all_that_are_listed_are_shown(deployment: Replication) -> None:
    """Also one that has never answered, and one that has a master's role beside the master's: they are looked for."""
    master, dead, rebel = deployment.nodes
    dead.kill()
    rebel.execute("REPLICAOF", "NO", "ONE")
    with hatopo.replicated([node.address for node in deployment.nodes], read_from="replica") as client:
        assert client.nodes() == ()
        client.set("k", "v")
        assert {one.port: one.role for one in client.nodes()} == {master.port: "master", dead.port: "", rebel.port: ""}
        assert "Connection refused" in refused(client)[dead.port]
        assert refused(client)[rebel.port] == "it says that it is a master"
        with pytest.raises(hatopo.NoSuitableNodeError) as raised:
            client.get("k")
        assert {*raised.value.refused} == {f"{node.host}:{node.port}" for node in deployment.nodes}
        dead.start()
        rebel.execute("REPLICAOF", *master.address)
        eventually(lambda: [one.role for one in client.nodes()] == ["master", "replica", "replica"])


def test_the_error_says_what_is_not_decided(deployment: Replication) -> None:
    """An operator has promoted a replica, and forgotten to tell the other one."""
    master, promoted, forgotten = deployment.nodes
    master.kill()
    promoted.replicate(None)
    with hatopo.replicated([node.address for node in deployment.nodes], failover_timeout=1) as client:
        with pytest.raises(hatopo.MasterNotFoundError, match="it is not decided") as raised:
            client.set("k", "v")
        follows = f"{forgotten.host}:{forgotten.port} says that it is a replica of {master.host}:{master.port}"
        assert follows in str(raised.value)
        forgotten.replicate(promoted.address)
        assert client.using(failover_timeout=20).set("k", "v")


def test_a_node_that_was_learned_becomes_the_master(deployment: Replication) -> None:
    master, learned, other = deployment.nodes
    with hatopo.replicated([master.address], failover_timeout=20) as client:
        client.set("k", "v")
        eventually(lambda: len(client.nodes()) == 3)
        learned.execute("REPLICAOF", "NO", "ONE")
        eventually(lambda: by_port(client)[learned.port].role == "", what="it has no place while nobody follows it")
        for node in (master, other):
            node.execute("REPLICAOF", *learned.address)
        assert client.set("k", "w")
        assert learned.execute("GET", "k") == "w"


def test_a_replica_as_the_only_seed_leads_to_its_master(deployment: Replication) -> None:
    with hatopo.replicated([deployment.replicas()[0].address]) as client:
        assert client.set("k", "v")
        assert deployment.master().execute("GET", "k") == "v"


def test_waiting_calls_are_no_storm(deployment: Replication) -> None:
    """However many call and fail, nodes are asked at the monitor's pace, and the more seldom the less changes."""
    master, replica, _ = deployment.nodes
    with opened(deployment, failover_timeout=1.5) as client:
        master.kill()
        eventually(lambda: refused(client).get(master.port))
        before = calls(replica, "role")
        with ThreadPoolExecutor(30) as threads:
            for _ in range(30):
                threads.submit(client.set, "k", "w")
        assert calls(replica, "role") - before < 20


@pytest.mark.usefixtures("patient")
def test_callers_in_a_hurry_say_nothing_of_a_node(deployment: Replication) -> None:
    with opened(deployment, read_from="replica") as client:
        client.get("k")
        for node in deployment.nodes:
            node.delay("lrange", 5, times=None)
        before = [calls(node, "ping") for node in deployment.nodes]
        for _ in range(20):
            with pytest.raises(redis.TimeoutError):
                client.using(deadline=0.01).lrange("list", 0, -1)
        assert not [one for one in client.nodes() if one.doubtful]
        assert all(calls(node, "ping") - old < 10 for node, old in zip(deployment.nodes, before, strict=True))


def test_a_caller_without_time_to_dial_meets_a_timeout(deployment: Replication) -> None:
    """Not an error that says that no node is fit: that was not found out."""
    with opened(deployment, read_from="replica") as client:
        client.get("k")
        for node in deployment.nodes:
            node.delay("hello", 5, times=None)
            node.disconnect("normal")
        with pytest.raises(hatopo.NodeTimeoutError):
            client.using(deadline=0.05).get("k")


def test_what_is_written_under_watch_or_by_others_is_noted(deployment: Replication) -> None:
    with opened(deployment, read_from="replica") as client:
        with pin_after_write() as request, client.pipeline() as pipeline:
            pipeline.watch("k")
            pipeline.get("k")
            pipeline.unwatch()
            assert not request.wrote
        with pin_after_write() as request, client.pipeline() as pipeline:
            pipeline.watch("k")
            pipeline.set("k", "w")
        assert request.wrote
        with pin_after_write() as request:
            pool = client.connection_pool
            pool.release(pool.get_connection())
        assert request.wrote, "nobody knows what was sent over it"


@dataclass
class Unhashable:
    """A policy that is an object of the user's."""

    place: int = 0

    def __call__(self, nodes: Sequence[NodeStatus]) -> Sequence[NodeStatus]:
        return nodes[self.place :]


@pytest.mark.parametrize("returned", [None, 1, [1], ["k"]])
def test_a_function_that_returns_no_nodes(deployment: Replication, returned: Any) -> None:
    with opened(deployment, read_from=Unhashable()) as client:
        assert client.get("k") == b"v"
        with pytest.raises(hatopo.OptionError, match="read_from function"), hatopo.read_from(lambda nodes: returned):
            client.get("k")


def test_a_scope_that_is_left_elsewhere_has_no_effect_there() -> None:
    scope = hatopo.read_from("replica")
    contextvars.copy_context().run(scope.__enter__)
    contextvars.copy_context().run(scope.__exit__, None, None, None)


def test_a_node_with_two_names_is_one(deployment: Replication) -> None:
    port = deployment.master().port
    with hatopo.replicated([("127.0.0.1", port), ("localhost", port)]) as client:
        told: list[Any] = []
        client.subscribe_events(told.append)
        client.set("k", "v")
        eventually(lambda: len(client.nodes()) == 3)
        rounds = calls(deployment.master(), "role")
        eventually(lambda: calls(deployment.master(), "role") > rounds + 4)
        assert not [one for one in told if isinstance(one, events.SeveralMasters)]


def test_the_first_replica_is_used_before_the_sentinels_name_it() -> None:
    with SentinelDeployment(replicas=0) as own:
        for sentinel in own.sentinel_nodes:
            sentinel.swallow("+slave", times=None)
        with hatopo.sentinel(own.name, own.sentinels, read_from="replica_preferred") as client:
            client.set("k", "v")
            assert client.get("k") == b"v"
            added = own.add_replica()

            def used() -> bool:
                with hatopo.read_from("replica_preferred") as scope:
                    client.get("k")
                return [node.port for node in scope.nodes] == [added.port]

            eventually(used, 8, "it is known long before the sentinels are asked again")


BUSY = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."


def test_a_node_that_is_busy_with_a_script_is_passed_over(deployment: Replication) -> None:
    with opened(deployment, read_from="replica") as client:
        for _ in range(3):
            deployment.replicas()[0].fail("get", BUSY, times=2)
            assert client.get("k") == b"v"
            assert client.pipeline(transaction=False).exists("k").execute() == [1]
            queue: Any = client.pipeline(transaction=False)
            assert queue.get("k").get("k").execute() == [b"v", b"v"]
        deployment.replicas()[0].fail("scan", BUSY)
        assert b"k" in list(client.scan_iter())


class Secretive(CredentialProvider):
    broken = False

    def get_credentials(self) -> Any:
        if self.broken:
            raise RuntimeError("token=SECRET was refused")
        return ()


def test_no_secret_of_a_users_function_is_told(deployment: Replication) -> None:
    provider = Secretive()
    with opened(deployment, read_from="replica", credential_provider=provider) as client:
        told: list[Any] = []
        client.subscribe_events(told.append)
        assert client.get("k") == b"v"
        provider.broken = True
        for node in deployment.nodes:
            node.disconnect()
        eventually(lambda: len(refused(client)) == 3)
        with pytest.raises(hatopo.NoSuitableNodeError, match="RuntimeError") as raised:
            client.get("k")
        eventually(lambda: [one for one in told if isinstance(one, events.ReplicaRefused)])
        assert "SECRET" not in f"{raised.value} {raised.value.refused} {client.nodes()} {told}"


@pytest.mark.usefixtures("patient")
def test_without_threads_one_caller_at_a_time_asks(deployment: Replication, monkeypatch: pytest.MonkeyPatch) -> None:
    """On the same connections two would take each other's answers."""
    monkeypatch.setattr(_reading, "threads_run", lambda: False)
    nodes = [node.address for node in deployment.nodes]
    with hatopo.replicated(nodes, read_from="replica_preferred") as client:
        client.set("k", "v")
        for node in deployment.nodes:
            node.delay("role", 0.02, times=40)
        source: Any = client._deployment._source

        def ask() -> None:
            for _ in range(20):
                source.refresh(float("inf"))
                client.get("k")

        threads = [threading.Thread(target=ask) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert refused(client) == {}
        assert client.topology is not None
        assert len(client.topology.nodes) == 3


def test_a_full_node_is_passed_over(deployment: Replication) -> None:
    wanted = deployment.replicas()[0]

    def first(nodes: Sequence[NodeStatus]) -> Sequence[NodeStatus]:
        return sorted(nodes, key=lambda node: node.port != wanted.port)

    with opened(deployment, read_from=first, max_connections=2) as client:
        # Whoever asks only when the element is there gets it as well.
        readers = [
            threading.Thread(target=lambda: send(client, "XREAD", "BLOCK", 20_000, "STREAMS", "x", "0"))
            for _ in range(2)
        ]
        for reader in readers:
            reader.start()
        eventually(lambda: by_port(client)[wanted.port].in_flight == 2)
        with hatopo.read_from(first) as scope:
            assert client.get("k") == b"v"
        assert wanted.port not in {node.port for node in scope.nodes}
        client.xadd("x", {"end": "1"})
        for reader in readers:
            reader.join()


@pytest.mark.usefixtures("patient")
def test_a_master_does_not_answer_for_replicas_that_are_busy(deployment: Replication) -> None:
    """It has the writes to do. Whoever reads waits, as he would for a master."""
    with opened(deployment, read_from="replica_preferred", max_connections=2, failover_timeout=30) as client:
        for node in deployment.replicas():
            node.delay("get", 0.02, times=None)
        with ThreadPoolExecutor(12) as threads:
            eventually(
                lambda: (
                    [*threads.map(lambda _: client.get("k"), range(12))]
                    and all(node.execute("CLIENT", "LIST").count("cmd=get") == 2 for node in deployment.replicas())
                ),
                what="all connections are there",
            )
            before = calls(deployment.master(), "get")
            assert [*threads.map(lambda _: client.get("k"), range(60))] == [b"v"] * 60
        assert calls(deployment.master(), "get") == before
        assert all(calls(node, "get") > 10 for node in deployment.replicas())


def test_replicas_that_stay_busy_are_an_error_in_time(deployment: Replication) -> None:
    with opened(deployment, read_from="replica_preferred", max_connections=1, failover_timeout=0.3) as client:
        readers = [
            threading.Thread(target=lambda: send(client, "XREAD", "BLOCK", 20_000, "STREAMS", "x", "0"))
            for _ in deployment.replicas()
        ]
        for reader in readers:
            reader.start()
        eventually(lambda: [by_port(client)[node.port].in_flight for node in deployment.replicas()] == [1, 1])
        with pytest.raises(hatopo.PoolExhaustedError, match="max_connections"):
            client.get("k")
        client.xadd("x", {"end": "1"})
        for reader in readers:
            reader.join()


def test_a_resolver_of_another_library(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its errors are those of names, though they do not come from Python's own module."""
    real, down = socket.getaddrinfo, threading.Event()

    def resolve(host: str, *args: Any, **options: Any) -> Any:
        if host == "db" and down.is_set():
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real("127.0.0.1" if host == "db" else host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with Node() as node, hatopo.replicated(primary=("db", node.port), failover_timeout=20) as client:
        assert client.set("k", "v")
        down.set()
        node.disconnect("normal")
        with ThreadPoolExecutor(1) as threads:
            waiting = threads.submit(client.set, "k", "w")
            eventually(lambda: client.stats().retries.get("unreachable"), what="it waits")
            down.clear()
            assert waiting.result(20)


def test_the_monitor_survives_whatever_happens_to_it(
    deployment: Replication, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    failures = iter([RuntimeError("a bug"), OSError("of somebody else's")])
    looked = _reading.Reading.looked

    def failing(self: _reading.Reading) -> None:
        for failure in failures:
            raise failure
        looked(self)

    with opened(deployment, failover_timeout=20) as client:
        monkeypatch.setattr(_reading.Reading, "looked", failing)
        eventually(lambda: len([one for one in caplog.records if "round of questions" in one.message]) == 2)
        promoted = deployment.replicas()[0]
        deployment.promote(promoted)
        assert client.set("k", "w")
        assert promoted.execute("GET", "k") == "w"


@pytest.mark.parametrize("rights", ["-role", "-role -info"])
def test_without_role_info_tells(rights: str) -> None:
    """And without both every replica that is listed and answers is taken for fit."""
    users = [f"user app on >secret ~* &* +@all {rights}"]
    with Replication(replicas=2, users=users) as own:
        seeds = [node.address for node in (own.nodes if "info" in rights else own.nodes[:1])]
        login: dict[str, Any] = {"username": "app", "password": "secret"}
        if "info" in rights:
            (primary, *readers) = seeds
            made = hatopo.replicated(primary=primary, readers=readers, read_from="replica", **login)
        else:
            made = hatopo.replicated(seeds, read_from="replica", **login)
        with made as client:
            client.set("k", "v")
            wait_until_fit(client, len(own.nodes))
            eventually(lambda: client.get("k") == b"v")
            with hatopo.read_from("replica") as scope:
                for _ in range(40):
                    client.get("k")
            assert {node.port for node in scope.nodes} == {node.port for node in own.replicas()}


def test_a_closed_client_begins_anew(deployment: Replication) -> None:
    client = opened(deployment, read_from="replica_preferred")
    client.close()
    assert client.nodes() == ()
    deployment.promote(deployment.replicas()[0])
    assert client.set("k", "w")
    assert deployment.master().execute("GET", "k") == "w"
    client.close()


def test_a_script_that_stays_missing_is_no_storm(deployment: Replication) -> None:
    with opened(deployment, read_from="replica", failover_timeout=1) as client:
        script = client.register_script("return redis.call('GET', KEYS[1])", read_only=True)
        client.get("k")
        for node in deployment.replicas():
            node.fail("evalsha", "NOSCRIPT No matching script. Please use EVAL.", times=None)
        with pytest.raises(redis.RedisError):
            script(keys=["k"])
        loaded = sum(calls(node, "script|load") for node in deployment.nodes)
        assert 0 < loaded < 60


def test_a_replica_that_is_named_before_it_can_be_reached(deployment: Replication) -> None:
    master, late, _ = deployment.nodes
    late.refuse()
    with hatopo.replicated([master.address], read_from="replica_preferred") as client:
        client.set("k", "v")
        eventually(lambda: len(client.nodes()) == 2)
        rounds = calls(master, "role")
        eventually(lambda: calls(master, "role") > rounds + 5, what="it was asked in vain more than once")
        late.refuse(False)
        eventually(lambda: len(client.nodes()) == 3, 20)
