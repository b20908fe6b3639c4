"""The cache-aside store of the examples: how often it asks its database, also when things go wrong."""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
from cache_aside import CacheAside, Document

import hatopo
from hatopo.testing import Node, Replication
from tests.client.support import wait_until_fit


class Database:
    """Knows a few documents, and counts how often it was asked for each."""

    def __init__(self) -> None:
        self.documents: dict[str, Document] = {str(number): {"n": number} for number in range(100)}
        self.queries: Counter[str] = Counter()
        self.lock = threading.Lock()

    def find(self, key: str) -> Document | None:
        with self.lock:
            self.queries[key] += 1
        return self.documents.get(key)


@pytest.fixture(scope="module")
def node() -> Iterator[Node]:
    with Node() as node:
        yield node


@pytest.fixture
def client(node: Node) -> Iterator[hatopo.Redis]:
    node.execute("FLUSHALL")
    with hatopo.standalone(node.host, node.port, decode_responses=True) as client:
        yield client


@pytest.fixture
def database() -> Database:
    return Database()


def test_a_document_is_asked_for_once(client: hatopo.Redis, database: Database) -> None:
    cache = CacheAside(client, database.find)
    assert [cache.get("7") for _ in range(3)] == [{"n": 7}] * 3
    assert database.queries == {"7": 1}


def test_what_is_not_there_is_asked_for_once_too(client: hatopo.Redis, database: Database) -> None:
    cache = CacheAside(client, database.find, missing_seconds=5)
    assert [cache.get("x") for _ in range(3)] == [None] * 3
    assert database.queries == {"x": 1}
    assert 0 < client.pttl("cache:x") <= 5000, "but for a short while only"


def test_many_at_once_ask_once(client: hatopo.Redis, database: Database) -> None:
    everybody = threading.Barrier(8)
    cache = CacheAside(client, database.find)

    def get(_: int) -> Document | None:
        everybody.wait(10)
        return cache.get("7")

    with ThreadPoolExecutor(8) as pool:
        assert list(pool.map(get, range(8))) == [{"n": 7}] * 8
    assert database.queries == {"7": 1}
    assert client.keys("*") == ["cache:7"], "the lock was given back"


def test_entries_do_not_expire_together(client: hatopo.Redis, database: Database) -> None:
    cache = CacheAside(client, database.find, seconds=100, jitter=0.5)
    for key in map(str, range(40)):
        cache.get(key)
    lives = [client.pttl(f"cache:{key}") for key in map(str, range(40))]
    assert all(40_000 < life <= 100_000 for life in lives)
    assert max(lives) - min(lives) > 10_000


def test_who_has_died_with_the_lock_is_waited_for_until_it_expires(client: hatopo.Redis, database: Database) -> None:
    client.set("cache:7:lock", "somebody who has died", px=50)
    assert CacheAside(client, database.find, patience=60).get("7") == {"n": 7}
    assert client.get("cache:7") == '{"n": 7}'


def test_who_keeps_the_lock_for_too_long_is_not_waited_for(client: hatopo.Redis, database: Database) -> None:
    client.set("cache:7:lock", "somebody who takes his time")
    assert CacheAside(client, database.find, patience=0.05).get("7") == {"n": 7}
    assert client.get("cache:7") is None
    assert client.get("cache:7:lock") == "somebody who takes his time"


def test_who_waits_takes_what_the_other_has_loaded(client: hatopo.Redis, database: Database) -> None:
    loading, waits = threading.Event(), threading.Event()

    def slow(key: str) -> Document | None:
        loading.set()
        assert waits.wait(10)
        return {"by": "the first"}

    first, second = CacheAside(client, slow), CacheAside(client, database.find, patience=60)
    with ThreadPoolExecutor(2) as pool:
        one = pool.submit(first.get, "7")
        assert loading.wait(10)
        other = pool.submit(second.get, "7")
        waits.set()
        assert one.result(10) == other.result(10) == {"by": "the first"}
    assert database.queries == {}


def test_an_error_of_the_database_gives_the_lock_back(client: hatopo.Redis) -> None:
    def broken(key: str) -> Document | None:
        raise LookupError("no database")

    with pytest.raises(LookupError):
        CacheAside(client, broken).get("7")
    assert client.keys("*") == []


def test_what_was_loaded_before_a_change_is_not_stored_after_it(client: hatopo.Redis, database: Database) -> None:
    def overtaken(key: str) -> Document | None:
        found = database.find(key)
        database.documents[key] = {"n": "new"}
        cache.forget(key)  # somebody else, meanwhile
        return found

    cache = CacheAside(client, overtaken)
    assert cache.get("7") == {"n": 7}, "it was so when it was asked for"
    assert client.keys("*") == []
    assert CacheAside(client, database.find).get("7") == {"n": "new"}


def test_what_was_missing_can_be_added(client: hatopo.Redis, database: Database) -> None:
    cache = CacheAside(client, database.find)
    assert cache.get("x") is None
    database.documents["x"] = {"n": "new"}
    cache.forget("x")
    assert cache.get("x") == {"n": "new"}


def test_without_redis_the_database_answers(database: Database) -> None:
    with Node() as node:
        address = node.address
    with hatopo.standalone(*address, failover_timeout=0, decode_responses=True) as client:
        assert CacheAside(client, database.find).get("7") == {"n": 7}


def test_a_replica_that_lags_behind_is_not_believed_to_have_nothing(database: Database) -> None:
    with Replication(replicas=1) as deployment:
        deployment.replicas()[0].set_lag(ops=1000)
        addresses = [node.address for node in deployment.nodes]
        with hatopo.replicated(addresses, read_from="replica", decode_responses=True) as client:
            wait_until_fit(client, 2)
            cache = CacheAside(client, database.find)
            assert [cache.get("7") for _ in range(3)] == [{"n": 7}] * 3
            assert client.get("cache:7") is None, "the replica has not got it yet"
    assert database.queries == {"7": 1}
