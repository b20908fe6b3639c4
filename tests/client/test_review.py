"""Cases that a review found, each of which went wrong once."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import redis

import hatopo
from hatopo.client._calls import SingleCall
from hatopo.connection import _lending
from hatopo.errors import StateLostError
from hatopo.routing import facts_of
from hatopo.testing.real import RealNode
from tests.client.support import COUNT, client_of, value_of
from tests.faulty import FaultyServer


@pytest.fixture
def r(server: RealNode) -> Iterator[Any]:
    with hatopo.standalone(*server.address) as client:
        yield client


def test_a_second_release_lends_nothing_twice(r: Any) -> None:
    pool = r.connection_pool
    connection = pool.get_connection()
    pool.release(connection)
    pool.release(connection)
    one, other = pool.get_connection(), pool.get_connection()
    assert one is not other
    for each in (one, other, one):
        pool.release(each)
    for number in range(100):
        r.set(f"k{number}", f"v{number}")
    with ThreadPoolExecutor(8) as threads:
        keys = [f"k{number % 100}" for number in range(4000)]
        assert list(threads.map(r.get, keys)) == [key.replace("k", "v").encode() for key in keys]


@pytest.mark.parametrize("code", ["TRYAGAIN later", "LOADING x", "READONLY x", "NOREPLICAS x", "MASTERDOWN x"])
def test_a_script_that_failed_is_not_run_again(r: Any, code: str) -> None:
    source = f"redis.call('INCR', KEYS[1]); return redis.error_reply('{code}')"
    script: Any = r.register_script(source)
    calls: list[Any] = [
        lambda: r.eval(source, 1, "n"),
        lambda: r.pipeline(transaction=False).eval(source, 1, "n").execute(),
        lambda: script(keys=["n"]),
    ]
    for call in calls:
        r.delete("n")
        with pytest.raises(redis.RedisError):
            call()
        assert r.get("n") == b"1"


def test_no_pipeline_changes_a_shared_connection(r: Any) -> None:
    r.set("k", "in 0")
    for transaction in (True, False):
        for words in (["SELECT", 3], ["select", 3], [b"SELECT", 3], ["CLIENT", "REPLY", "OFF"], ["MULTI"], ["EXEC"]):
            pipe = r.pipeline(transaction=transaction)
            pipe.execute_command(*words)
            with pytest.raises(hatopo.ConnectionStateError):
                pipe.execute()
    with r.pipeline() as pipe:
        pipe.watch("k")
        with pytest.raises(hatopo.ConnectionStateError):
            pipe.select(7)
    assert r.get("k") == b"in 0"
    assert r.incr("n") == 1


def test_a_blocking_command_waits_its_time_from_when_it_is_sent() -> None:
    """Its clock started when it was made: a wait for a connection came off its patience."""
    args = ("BLPOP", "k", 5)
    call = SingleCall(args, facts_of(args), {})
    pack: Any = lambda words: repr(words).encode()  # noqa: E731
    assert call.begin(pack, now=100.0) == [(1, b"('BLPOP', 'k', 5)")]
    assert call.patience(1.0, 1000.0, now=100.0).silence == 6.0
    assert call.begin(pack, now=103.0) == [(1, b"('BLPOP', 'k', 2.0)")], "again, with the time that is left"
    assert call.patience(1.0, 1000.0, now=103.0).silence == 3.0
    assert call.patience(1.0, 101.0, now=103.0).until() <= 101.0


def test_idle_connections_are_not_asked_one_after_another() -> None:
    with FaultyServer() as fake, client_of(fake, ping_after=1) as client:
        pool = client.connection_pool
        lent = [pool.get_connection() for _ in range(10)]
        for each in lent:
            pool.release(each)
        for each in pool._get_free_connections():
            each.check_at = 1.0  # long ago
        fake.on("PING").drop_before()
        fake.data[b"k"] = value_of("k")
        assert client.get("k") == value_of("k")
        assert fake.received["PING"] == 1
        assert len(pool._get_free_connections()) == 1


@pytest.mark.parametrize("dying", [True, False])
def test_a_node_of_whom_a_connection_was_lost_answers_before_it_gets_an_increment(dying: bool) -> None:
    """A process that dies closes its connections one after the other: one that looks alive is not answered either."""
    with FaultyServer() as fake, client_of(fake) as client:
        pool = client.connection_pool
        for each in [pool.get_connection() for _ in range(3)]:
            pool.release(each)
        fake.on(COUNT, nth=1).drop_before()
        if dying:
            fake.on("PING", nth=1).drop_before()
        with pytest.raises(hatopo.AmbiguousResultError):
            client.incr("n")
        dialled = fake.connections
        assert [client.incr("n") for _ in range(3)] == [1, 2, 3]
        assert fake.received["PING"] == 1 + dying
        assert fake.connections == dialled


@pytest.mark.parametrize("hurried", [True, False])
def test_a_ping_takes_no_longer_than_its_call_may(hurried: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """A caller who is in a hurry ends without an increment, and costs a node that is slow no connection but one."""
    monkeypatch.setattr(_lending, "PING_PATIENCE", 600.0)
    answer = threading.Event()
    with FaultyServer() as fake, client_of(fake, socket_timeout=5.0 if hurried else 0.1) as client:
        pool = client.connection_pool
        for each in [pool.get_connection() for _ in range(4)]:
            pool.release(each)
        fake.on(COUNT, nth=1).drop_before()
        with pytest.raises(hatopo.AmbiguousResultError):
            client.incr("n")
        fake.on("PING").delay_reply_until(answer)
        if hurried:
            with pytest.raises((redis.ConnectionError, redis.TimeoutError)) as caught:
                client.using(deadline=0.1).incr("n")
            assert not isinstance(caught.value, hatopo.AmbiguousResultError)
            assert len(pool._get_free_connections()) == 2
            answer.set()
        assert client.incr("n") == 1
        answer.set()


def test_a_handlers_timeout_ends_a_dial(own_server: RealNode) -> None:
    def too_long(*_: object) -> None:
        raise TimeoutError("job took too long")

    address = own_server.address
    own_server.pause()
    before = signal.signal(signal.SIGALRM, too_long)
    try:
        with hatopo.standalone(*address, failover_timeout=60, socket_connect_timeout=30) as r:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(TimeoutError, match="job took too long"):
                r.get("k")
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        own_server.resume()


def test_a_clone_of_a_pinned_client_leaves_the_pin_alone(r: Any) -> None:
    with r.client() as own:
        own.select(3)
        own.set("k", "in 3")
        clone = own.using(deadline=5)
        assert clone.get("k") == b"in 3"
        clone.close()
        del clone
        assert own.get("k") == b"in 3"


def test_a_pinned_connection_does_not_lose_its_state_silently(r: Any, server: RealNode) -> None:
    with r.client() as own:
        own.select(3)
        server.execute("CLIENT", "KILL", "ID", str(own.client_id()))
        with pytest.raises(StateLostError, match="SELECT"):
            own.set("k", "meant for 3")
        assert r.get("k") is None
        assert own.set("k", "meant for 0"), "who was told may go on"


def test_an_argument_that_cannot_be_encoded_costs_no_connection(r: Any) -> None:
    with r.client() as own:
        own.select(3)
        for wrong in ("\ud800", None, [1]):
            with pytest.raises((UnicodeEncodeError, redis.DataError)):
                own.set("k", wrong)
        own.set("k", "in 3")
    assert r.get("k") is None


def test_a_refused_command_before_a_lost_one_was_not_executed() -> None:
    with FaultyServer() as fake, client_of(fake) as client:
        fake.on("INCRBY", nth=1).error_once("READONLY You can't write against a read only replica.")
        fake.on("INCRBY", nth=2).drop_before()
        pipe: Any = client.pipeline(transaction=False)
        first, second = pipe.incr("a").incr("b").execute(raise_on_error=False)
        assert isinstance(first, redis.exceptions.ReadOnlyError)
        assert isinstance(second, hatopo.AmbiguousResultError)


def test_values_that_look_like_headers(r: Any) -> None:
    keys = [f"key{number}" for number in range(40)]
    value = b"$999999999999\r\n" * 3000
    r.mset(dict.fromkeys(keys, value))
    careful = r.using(retry_policy="never")
    for _ in range(20):
        pipe = careful.pipeline(transaction=False)
        for key in keys:
            pipe.get(key)
        assert pipe.execute() == [value] * 40


def test_a_script_that_may_not_be_loaded_says_so(own_server: RealNode) -> None:
    own_server.execute("ACL", "SETUSER", "app", ">pw", "~*", "-@all", "+evalsha", "on")
    with hatopo.standalone(*own_server.address, username="app", password="pw") as r:
        script = r.register_script("return 1")
        with pytest.raises(redis.exceptions.NoPermissionError):
            script()


def test_policies_by_name_hold_in_pipelines() -> None:
    with FaultyServer() as fake, client_of(fake, retry_policy={"INCR": "always"}) as client:
        fake.on("INCRBY", nth=1).drop_before()
        fake.on("INCRBY", nth=2).drop_before()
        pipe: Any = client.pipeline(transaction=False)
        assert pipe.incr("a").execute() == [1]
    with pytest.raises(hatopo.OptionError, match="did you mean 'INCR"):
        hatopo.standalone(retry_policy={"INCRR": "always"})


def test_the_first_dial_has_its_own_time() -> None:
    with FaultyServer() as fake, client_of(fake, failover_timeout=0) as client:
        fake.data[b"k"] = value_of("k")
        assert client.get("k") == value_of("k")


def test_a_deadline_is_a_matter_of_time_even_where_nobody_answers() -> None:
    client = hatopo.standalone("127.0.0.1", 1)
    with hatopo.deadline(0.1), pytest.raises(redis.TimeoutError) as caught:
        client.incr("n")
    assert isinstance(caught.value, hatopo.NodeTimeoutError)
    assert not caught.value.maybe_executed
    with pytest.raises(redis.TimeoutError):
        client.using(deadline=0.1).get("k")
    with pytest.raises(redis.ConnectionError):
        client.using(failover_timeout=0.1).get("k")


def test_keywords_for_sentinels_are_checked_too() -> None:
    with pytest.raises(hatopo.OptionError, match="did you mean 'password'"):
        hatopo.sentinel("mymaster", ["127.0.0.1:1"], sentinel_kwargs={"pasword": "x"})
    client = hatopo.sentinel("mymaster", ["127.0.0.1:1"], sentinel_kwargs={"max_connections": 3}, failover_timeout=0.1)
    with pytest.raises(hatopo.MasterNotFoundError, match=r"127\.0\.0\.1:1 cannot be reached"):
        client.get("k")
    client.close()


def test_a_password_with_a_slash_is_not_shown() -> None:
    with pytest.raises(hatopo.OptionError) as caught:
        hatopo.from_url("redis://user:12/s3cret@host/0")
    assert "s3cret" not in str(caught.value)
