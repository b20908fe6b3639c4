"""Which node answers what: reads go where the policy says, and everything else to the master."""

from __future__ import annotations

from itertools import chain
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import hatopo
from hatopo import ReadFrom
from hatopo.client import Scope, pin_after_write
from hatopo.testing import Replication
from tests.client.support import wait_until_fit
from tests.control import eventually
from tests.scenarios.support import threads_of_hatopo

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from hatopo.testing import NodeHandle

NOBODY = frozenset({"ping", "role", "info", "hello", "client", "select", "auth", "replconf", "psync", "config", "wait"})
"""Commands that are no business of these tests: those of connections, of the monitor and of replication."""


@pytest.fixture(scope="module")
def deployment() -> Iterator[Replication]:
    with Replication(replicas=2) as started:
        yield started


@pytest.fixture
def client(deployment: Replication) -> Iterator[hatopo.Redis]:
    deployment.master().execute("FLUSHALL")
    made = hatopo.replicated([node.address for node in deployment.nodes], read_from="replica_preferred")
    made.set("k", "v")
    made.rpush("list", "b", "a")
    wait_until_fit(made, 3)
    arrived(deployment, made)
    yield made
    made.close()


def arrived(deployment: Replication, client: hatopo.Redis) -> None:
    """Returns when every replica has what the master has."""
    client.using(read_from="master").set("mark", id(client))
    mark = str(id(client))
    eventually(lambda: all(node.execute("GET", "mark") == mark for node in deployment.nodes))


def counted(node: NodeHandle) -> dict[str, int]:
    lines = node.execute("INFO", "commandstats").splitlines()
    found = [line.removeprefix("cmdstat_").split(":calls=") for line in lines if line.startswith("cmdstat_")]
    return {name: int(rest.partition(",")[0]) for name, rest in found if name.partition("|")[0] not in NOBODY}


def send(client: Any, *command: Any) -> Any:
    return client.execute_command(*command)


def queued(client: hatopo.Redis, *, transaction: bool = False) -> Any:
    return client.pipeline(transaction=transaction)


def wrote(scope: Scope) -> bool:
    return scope.wrote


def executed(deployment: Replication, work: Callable[[], Any]) -> dict[str, set[str]]:
    """Which commands "master" and "replica" have executed for clients meanwhile."""
    before = {node.address: counted(node) for node in deployment.nodes}
    work()
    found: dict[str, set[str]] = {"master": set(), "replica": set()}
    writes = set()
    for node in deployment.nodes:
        role = "master" if node is deployment.master() else "replica"
        news = {name for name, calls in counted(node).items() if calls > before[node.address].get(name, 0)}
        found[role] |= news
        writes |= news if role == "master" else set()
    found["replica"] -= writes  # what the master has replicated
    return found


def on_a_replica(deployment: Replication, work: Callable[[], Any]) -> bool:
    found = executed(deployment, work)
    assert bool(found["master"]) != bool(found["replica"]), found
    return bool(found["replica"])


@pytest.mark.parametrize(
    ("command", "reads"),
    [
        (("GET", "k"), True),
        (("get", "k"), True),
        ((b"GET", "k"), True),
        (("MGET", "k", "l"), True),
        (("EXISTS", "k"), True),
        (("TTL", "k"), True),
        (("LRANGE", "list", 0, -1), True),
        (("SORT_RO", "list", "ALPHA"), True),
        (("DBSIZE",), True),
        (("KEYS", "*"), True),
        (("XREAD", "STREAMS", "x", "0"), True),
        (("XREAD", "BLOCK", "1", "STREAMS", "x", "0"), True),
        (("MEMORY USAGE", "k"), True),
        (("OBJECT", "ENCODING", "k"), True),
        (("OBJECT", "IDLETIME", "k"), False),
        (("TOUCH", "k"), False),
        (("EVAL_RO", "return redis.call('GET', KEYS[1])", 1, "k"), True),
        (("EVAL", "return redis.call('GET', KEYS[1])", 1, "k"), False),
        (("SORT", "list", "ALPHA"), False),
        (("SORT", "list", "ALPHA", "STORE", "sorted"), False),
        (("GETEX", "k"), False),
        (("GETDEL", "gone"), False),
        (("BITFIELD", "k", "GET", "u8", 0), False),
        (("BITFIELD_RO", "k", "GET", "u8", 0), True),
        (("GEORADIUS", "geo", 0, 0, 1, "m"), False),
        (("SCAN", 0), False),
        (("HSCAN", "hash", 0), False),
        (("SSCAN", "set", 0), False),
        (("ZSCAN", "zset", 0), False),
        (("SET", "k", "v"), False),
        (("SET", "k", "v", "GET"), False),
        (("INCR", "n"), False),
        (("PUBLISH", "c", "m"), False),
        (("TIME",), False),
        (("LPOP", "none"), False),
    ],
)
def test_what_a_replica_may_answer(
    deployment: Replication, client: hatopo.Redis, command: tuple[Any, ...], reads: bool
) -> None:
    assert on_a_replica(deployment, lambda: send(client, *command)) is reads


@pytest.mark.parametrize("command", [("NOSUCHCOMMAND", "k"), ("MODULE.READ", "k")])
def test_what_nobody_knows_goes_to_the_master(
    deployment: Replication, client: hatopo.Redis, command: tuple[str, ...]
) -> None:
    client.get("k")
    before = [_errors(node) for node in deployment.nodes]
    with pytest.raises(redis.ResponseError, match="unknown command"):
        send(client, *command)
    after = [_errors(node) for node in deployment.nodes]
    changed = [node for node, old, new in zip(deployment.nodes, before, after, strict=True) if new > old]
    assert changed == [deployment.master()]


def _errors(node: NodeHandle) -> int:
    lines = node.execute("INFO", "stats").splitlines()
    return int(next(line.partition(":")[2] for line in lines if line.startswith("total_error_replies")))


def test_a_pipeline_that_only_reads_goes_to_a_replica_whole(deployment: Replication, client: hatopo.Redis) -> None:
    def reads() -> None:
        replies = queued(client).get("k").lrange("list", 0, -1).exists("k").execute()
        assert replies == [b"v", [b"b", b"a"], 1]

    assert on_a_replica(deployment, reads)


@pytest.mark.parametrize(
    "pipeline",
    [
        lambda client: queued(client).get("k").set("k", "v").get("k"),
        lambda client: queued(client).get("k").execute_command("NOSUCH"),
        lambda client: queued(client).get("k").scan(),
        lambda client: queued(client, transaction=True).get("k"),
        lambda client: queued(client).eval("return 1", 0),
    ],
)
def test_any_other_pipeline_goes_to_the_master(
    deployment: Replication, client: hatopo.Redis, pipeline: Callable[[hatopo.Redis], Any]
) -> None:
    assert not on_a_replica(deployment, lambda: pipeline(client).execute(raise_on_error=False))


def test_what_is_read_under_watch_comes_from_the_master(deployment: Replication, client: hatopo.Redis) -> None:
    def increment() -> None:
        pipeline: Any
        with client.pipeline() as pipeline:
            pipeline.watch("k")
            pipeline.get("k")
            pipeline.multi()
            pipeline.set("k", "w")
            pipeline.execute()

    assert executed(deployment, increment) == {"master": {"watch", "get", "multi", "set", "exec"}, "replica": set()}
    assert not on_a_replica(deployment, lambda: client.transaction(lambda pipeline: print(pipeline.get("k")), "k"))


def test_locks_live_on_the_master(deployment: Replication, client: hatopo.Redis) -> None:
    def guarded() -> None:
        with hatopo.read_from("replica"), client.lock("lock", timeout=5) as lock:
            assert lock.owned()
            assert lock.locked()
            lock.extend(5)

    assert executed(deployment, guarded)["replica"] == set()


def test_scripts_that_are_declared_to_read_may_go_to_a_replica(deployment: Replication, client: hatopo.Redis) -> None:
    reading = client.register_script("return redis.call('GET', KEYS[1])", read_only=True)
    writing = client.register_script("return redis.call('GET', KEYS[1]) -- it may write", idempotent=True)
    for _ in range(8):  # each node is taught it where it is missing
        assert reading(keys=["k"]) == b"v"
    assert on_a_replica(deployment, lambda: reading(keys=["k"]))
    assert not on_a_replica(deployment, lambda: writing(keys=["k"]))


def test_a_script_that_lied_about_reading_is_the_masters(deployment: Replication, client: hatopo.Redis) -> None:
    script = client.register_script("return redis.call('INCR', KEYS[1])", read_only=True)
    assert script(keys=["lied"]) == 1
    assert deployment.master().execute("GET", "lied") == "1"


def test_pinned_clients_and_subscribers_are_on_the_master(deployment: Replication, client: hatopo.Redis) -> None:
    with client.client() as pinned:
        assert not on_a_replica(deployment, lambda: pinned.get("k"))
    with client.pubsub() as pubsub:
        pubsub.subscribe("c")
        assert deployment.master().execute("PUBSUB", "NUMSUB", "c") == ["c", 1]


def test_the_nearest_choice_counts(deployment: Replication, client: hatopo.Redis) -> None:
    """A call's own goes before a scope's, that before the client's; the inner scope before the outer."""

    def read(one: hatopo.Redis = client) -> bool:
        return on_a_replica(deployment, lambda: one.get("k"))

    assert read()
    assert not read(client.using(read_from="master"))
    with hatopo.read_from(ReadFrom.MASTER):
        assert not read()
        assert read(client.using(read_from="replica"))
        assert not read(client.using(deadline=5))
        with hatopo.read_from("REPLICA"):
            assert read()
            with hatopo.deadline(5):
                assert read()
        assert not read()
    assert read()
    with hatopo.replicated([node.address for node in deployment.nodes]) as plain:
        assert not read(plain)
        wait_until_fit(plain, 3)
        with hatopo.read_from("replicaPreferred"):
            assert read(plain)
            assert read(plain.using(deadline=5))


def test_a_scope_knows_who_has_answered(deployment: Replication, client: hatopo.Redis) -> None:
    with hatopo.read_from("replica") as outer:
        for _ in range(50):
            client.get("k")
        assert {node.port for node in outer.nodes} == {node.port for node in deployment.replicas()}
        assert not wrote(outer)
        with hatopo.read_from("master") as inner:
            queued(client).get("k").get("k").execute()
            assert [node.port for node in inner.nodes] == [deployment.master().port]
        client.set("k", "v")
        assert wrote(outer)
    assert len(outer.nodes) == 3


@pytest.mark.parametrize(
    "write",
    [
        lambda client: client.set("k", "v"),
        lambda client: client.incr("n"),
        lambda client: client.eval("return 1", 0),
        lambda client: queued(client).get("k").set("k", "v").execute(),
        lambda client: queued(client, transaction=True).get("k").execute(),
        lambda client: client.using(deadline=5).set("k", "v"),
        lambda client: client.execute_command("CONFIG SET", "maxmemory-samples", "5"),
    ],
)
def test_after_the_first_write_a_request_reads_from_the_master(
    deployment: Replication, client: hatopo.Redis, write: Callable[[hatopo.Redis], Any]
) -> None:
    with pin_after_write() as request:
        assert on_a_replica(deployment, lambda: client.get("k"))
        client.ping()
        queued(client).get("k").execute()
        assert not wrote(request)
        write(client)
        assert wrote(request)
        assert not on_a_replica(deployment, lambda: client.get("k"))
        assert not on_a_replica(deployment, lambda: queued(client).get("k").execute())
        with hatopo.read_from("replica"):
            assert on_a_replica(deployment, lambda: client.get("k")), "whoever says so wants it"
    with pin_after_write(pinned=True):
        assert not on_a_replica(deployment, lambda: client.get("k"))
    assert on_a_replica(deployment, lambda: client.get("k"))


def test_what_is_written_is_read_again_though_replicas_lag(deployment: Replication, client: hatopo.Redis) -> None:
    for node in deployment.replicas():
        node.set_lag(ops=3)
    try:
        with pin_after_write():
            client.set("mine", "new")
            assert client.get("mine") == b"new"
        assert client.get("mine") is None, "the replicas do lag"
    finally:
        for node in deployment.replicas():
            node.set_lag()


@pytest.mark.parametrize("wrong", ["replicas", 1, "subnet:x", "zone"])
def test_bad_policies_are_refused_everywhere(client: hatopo.Redis, wrong: Any) -> None:
    with pytest.raises(hatopo.OptionError):
        hatopo.replicated(["h:1"], read_from=wrong)
    with pytest.raises(hatopo.OptionError):
        client.using(read_from=wrong)
    with pytest.raises(hatopo.OptionError), hatopo.read_from(wrong):
        pass


@pytest.mark.parametrize("wrong", [-1, 1.5, "1", True])
def test_max_lag_is_a_number_of_bytes(wrong: Any) -> None:
    with pytest.raises(hatopo.OptionError, match="max_lag"):
        hatopo.replicated(["h:1"], max_lag=wrong)


def test_a_zone_of_the_environment(
    deployment: Replication, client: hatopo.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HATOPO_ZONE", "b")
    zones = {f"127.0.0.1:{node.port}": zone for node, zone in zip(deployment.nodes, "acb", strict=True)}
    with hatopo.read_from(ReadFrom.zone(zones=zones)) as scope:
        for _ in range(20):
            client.get("k")
    assert [node.port for node in scope.nodes] == [deployment.nodes[2].port]


def test_a_function_of_the_users_decides(deployment: Replication, client: hatopo.Redis) -> None:
    wanted = deployment.replicas()[0].port
    seen: list[Any] = []

    def mine(nodes: Any) -> Any:
        seen.extend(nodes)
        return [node for node in nodes if node.port == wanted]

    with hatopo.read_from(mine) as scope:
        for _ in range(20):
            client.get("k")
    assert [node.port for node in scope.nodes] == [wanted]
    assert {node.role for node in seen} == {"master", "replica"}
    assert all(node.latency is not None and not node.refused for node in seen)
    with pytest.raises(ZeroDivisionError), hatopo.read_from(lambda nodes: [nodes[0 // 0]]):
        client.get("k")
    with pytest.raises(hatopo.NoSuitableNodeError) as raised, hatopo.read_from(lambda nodes: []):
        client.get("k")
    assert set(raised.value.refused) == {f"127.0.0.1:{node.port}" for node in deployment.nodes}
    assert raised.value.command == "GET"
    assert "GET" in str(raised.value)


@pytest.mark.parametrize("policy", ["master", "replica", "any"])
def test_iterators_keep_to_one_node(deployment: Replication, client: hatopo.Redis, policy: str) -> None:
    wanted = {f"key-{number}".encode() for number in range(300)}
    client.mset(dict.fromkeys(wanted, "x"))
    client.hset("hash", mapping=dict.fromkeys(wanted, "x"))
    client.sadd("set", *wanted)
    client.zadd("zset", dict.fromkeys(wanted, 1))
    arrived(deployment, client)
    reader = client.using(read_from=policy)
    iterators: list[Callable[[], Any]] = [
        lambda: reader.scan_iter("key-*", count=10),
        lambda: (field for field, _ in reader.hscan_iter("hash", count=10)),
        lambda: reader.sscan_iter("set", count=10),
        lambda: (member for member, _ in reader.zscan_iter("zset", count=10)),
    ]
    for iterator in iterators:
        before = {node.address: counted(node) for node in deployment.nodes}
        assert sorted(iterator()) == sorted(wanted)
        used = [n for n in deployment.nodes if any("scan" in c for c in counted(n) if counted(n) != before[n.address])]
        changed = [n for n in used if _scans(counted(n)) > _scans(before[n.address])]
        assert len(changed) == 1
        assert policy != "master" or changed == [deployment.master()]
        assert policy != "replica" or changed[0] in deployment.replicas()


def _scans(counts: dict[str, int]) -> int:
    return sum(calls for name, calls in counts.items() if "scan" in name)


def begin_to_scan(own: Replication, reader: hatopo.Redis) -> tuple[set[bytes], Iterator[bytes], NodeHandle]:
    """The keys that are there, an iterator over them that has found the first ones, and the node that it keeps to."""
    keys = {f"key-{number}".encode() for number in range(200)}
    reader.mset(dict.fromkeys(keys, "x"))
    wait_until_fit(reader, len(own.nodes))
    arrived(own, reader)
    elements = reader.scan_iter("key-*", count=10)
    found = [next(elements)]
    return keys, chain(found, elements), next(node for node in own.nodes if _scans(counted(node)))


def test_an_iterator_begins_again_on_another_node(client: hatopo.Redis) -> None:
    with Replication(replicas=2) as own:
        with hatopo.replicated([node.address for node in own.nodes], read_from="replica") as reader:
            wanted, elements, first = begin_to_scan(own, reader)
            first.kill()
            assert set(elements) == wanted
            second = next(node for node in own.nodes if node.running and _scans(counted(node)))
            assert second in own.replicas()
            second.kill()
            with pytest.raises(hatopo.NoSuitableNodeError, match="SCAN"):
                list(reader.scan_iter())


def test_an_iterator_notices_another_process_at_the_same_address(client: hatopo.Redis) -> None:
    """Its cursors would mean something else."""
    with Replication(replicas=0) as own, hatopo.replicated([own.master().address]) as reader:
        wanted = {f"key-{number}".encode() for number in range(100)}
        reader.mset(dict.fromkeys(wanted, "x"))
        elements = reader.scan_iter("key-*", count=10)
        found = [next(elements)]
        own.master().restart()
        found += elements
        assert set(found) == wanted
        assert len(found) > len(wanted), "from the beginning"


def test_an_iterator_leaves_a_replica_that_is_taken_elsewhere() -> None:
    """It goes on answering, the cursor too, but with another master's data."""
    with Replication(replicas=3) as own:
        with hatopo.replicated([node.address for node in own.nodes], read_from="replica") as reader:
            wanted, elements, taken = begin_to_scan(own, reader)
            alien = next(node for node in own.replicas() if node is not taken)
            alien.execute("REPLICAOF", "NO", "ONE")
            alien.execute("FLUSHALL")
            taken.execute("REPLICAOF", *alien.address)
            eventually(lambda: taken.execute("DBSIZE") == 0)
            eventually(lambda: [one for one in reader.nodes() if one.port == taken.port and one.refused])
            assert set(elements) == wanted


@pytest.mark.parametrize("read_from", ["master", "replica_preferred"])
def test_an_iterator_leaves_a_node_whose_role_changes(read_from: str) -> None:
    """A former master that was cut off is alive, and does not know what is written, or deleted, at the new one."""
    with Replication(replicas=1) as own, hatopo.replicated([node.address for node in own.nodes]) as client:
        reader = client.using(read_from=read_from)
        kept = {f"key-{number}".encode() for number in range(100)}
        client.mset(dict.fromkeys([*kept, *(f"key-gone-{number}" for number in range(400))], "x"))
        arrived(own, client)
        eventually(lambda: [one.role for one in client.nodes()] == ["master", "replica"])
        elements = reader.scan_iter("key-*", count=10)
        before = [next(elements)]
        old = own.master()
        new = own.replicas()[0]
        own.promote(new)
        eventually(lambda: client.topology is not None and client.topology.masters[0].port == new.port)
        old.set_lag(1000)
        client.delete(*(f"key-gone-{number}" for number in range(400)))
        scanned = _scans(counted(old)) + _scans(counted(new))
        after = [*elements]
        assert _scans(counted(old)) + _scans(counted(new)) > scanned
        assert kept <= {*before, *after}
        if read_from == "master":
            assert len({*after} - kept) <= 10, "of a page that had come before"


def test_one_server_alone_is_asked_nothing() -> None:
    eventually(lambda: not threads_of_hatopo("health"), what="those of other tests have ended")
    with Replication(replicas=0) as own:
        with hatopo.standalone(*own.master().address, read_from="replica_preferred") as client:
            client.set("k", "v")
            assert client.get("k") == b"v"
            assert queued(client).get("k").execute() == [b"v"]
            assert client.nodes()[0].role == "master"
            assert threads_of_hatopo("health") == []
            with pytest.raises(hatopo.NoSuitableNodeError), hatopo.read_from("replica"):
                client.get("k")


def test_one_attempt_is_enough_to_fall_through(deployment: Replication) -> None:
    """Nodes that cannot be reached are passed over, even where nothing may be tried twice."""
    with Replication(replicas=2) as own:
        nodes = [node.address for node in own.nodes]
        once = Retry(NoBackoff(), 0)
        with hatopo.replicated(nodes, read_from="replica_preferred", retry=once) as client:
            client.set("k", "v")
            arrived(own, client)
            assert client.get("k") == b"v"
            for node in own.replicas():
                node.stop()
            client.connection_pool.disconnect()
            assert client.get("k") == b"v"
