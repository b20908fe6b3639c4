"""The face on a real server: it is a redis.Redis, and what redis-py users do with one works."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

import hatopo
from hatopo.testing.real import RealNode
from tests.control import eventually


@pytest.fixture(params=[None, 2, 3], ids=["default", "resp2", "resp3"])
def r(request: pytest.FixtureRequest, server: RealNode) -> Iterator[Any]:
    with hatopo.standalone(*server.address, protocol=request.param, decode_responses=True) as client:
        yield client


def test_it_is_a_redis(r: Any) -> None:
    assert isinstance(r, redis.Redis)
    assert isinstance(r.connection_pool, redis.ConnectionPool)
    assert isinstance(r.pipeline(), redis.client.Pipeline)
    assert isinstance(r.pubsub(), redis.client.PubSub)
    assert r in {r: 1}


def test_commands_of_every_shape(r: Any) -> None:
    assert r.set("k", "v") is True
    assert r.get("k") == "v"
    assert r.mget("k", "none") == ["v", None]
    assert r.hset("h", mapping={"a": 1, "b": 2}) == 2
    assert r.hgetall("h") == {"a": "1", "b": "2"}
    assert r.config_get("maxmemory-policy") == {"maxmemory-policy": "noeviction"}
    assert dict(r.info("server"))["redis_mode"] == "standalone"
    assert sorted(r.scan_iter(match="*")) == ["h", "k"]
    assert r.execute_command("get", "k") == "v"
    assert r.execute_command(b"GET", b"k") == "v"
    assert r.execute_command("CONFIG", "GET", "maxmemory-policy") is not None
    with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
        r.lpush("k", 1)


def test_binary_replies_are_not_decoded(r: Any) -> None:
    r.set("k", "v")
    dump: Any = r.dump("k")
    assert isinstance(dump, bytes)
    assert r.restore("copy", 0, dump) in (True, "OK")
    pipe: Any = r.pipeline(transaction=False)
    got, dumped = pipe.get("k").dump("k").execute()
    assert (got, dumped) == ("v", dump)


def test_pipelines(r: Any) -> None:
    pipe: Any = r.pipeline()
    assert pipe.set("n", 1).incr("n").get("n").execute() == [True, 2, "2"]
    pipe = r.pipeline(transaction=False)
    assert pipe.set("n", 1).lpush("n", 1).get("n").execute(raise_on_error=False)[::2] == [True, "1"]
    pipe.lpush("n", "a secret")
    with pytest.raises(redis.ResponseError, match=r"Command # 1 \(LPUSH with 2 arguments\)") as caught:
        pipe.execute()
    assert "secret" not in str(caught.value)


def test_watch_and_transaction(r: Any) -> None:
    r.set("n", 1)
    with r.pipeline() as pipe:
        pipe.watch("n")
        value = int(pipe.get("n"))
        r.set("n", 10)
        pipe.multi()
        pipe.set("n", value + 1)
        with pytest.raises(redis.WatchError):
            pipe.execute()

    def double(pipe: Any) -> None:
        value = int(pipe.get("n"))
        pipe.multi()
        pipe.set("n", value * 2)

    assert r.transaction(double, "n") == [True]
    assert r.get("n") == "20"


def test_pubsub_and_monitor(r: Any) -> None:
    with r.pubsub() as subscriber:
        subscriber.subscribe("news")
        assert subscriber.get_message(timeout=5)["type"] == "subscribe"
        r.publish("news", "hello")
        assert subscriber.get_message(timeout=5)["data"] == "hello"
    with r.monitor() as monitor:
        r.ping()
        assert eventually(lambda: monitor.next_command()["command"] == "PING")


def test_locks_and_scripts(r: Any) -> None:
    with r.lock("l", timeout=10) as lock:
        assert lock.owned()
        assert not r.lock("l", blocking=False).acquire()
    script = r.register_script("return redis.call('INCRBY', KEYS[1], ARGV[1])")
    assert script(keys=["n"], args=[2]) == 2
    r.script_flush()
    assert script(keys=["n"], args=[2]) == 4
    r.script_flush()
    sha = script.sha
    assert r.evalsha(sha, 1, "n", 2) == 6, "a script whose source is known is loaded where it is missing"
    r.script_flush()
    pipe: Any = r.pipeline(transaction=False)
    assert pipe.evalsha(sha, 1, "n", 1).get("n").execute() == [7, "7"], "reads behind it follow it"
    r.script_flush()
    with pytest.raises(redis.exceptions.NoScriptError):
        pipe.evalsha(sha, 1, "n", 1).set("m", 1).execute()  # the SET was executed: EVALSHA would come behind it
    assert r.mget("n", "m") == ["7", "1"]
    with pytest.raises(redis.exceptions.NoScriptError):
        r.evalsha("0" * 40, 0)


def test_blocking_commands_wait_as_long_as_the_server(server: RealNode) -> None:
    with hatopo.standalone(*server.address, socket_timeout=0.05) as r:
        assert r.blpop(["q"], timeout=0.2) is None
        waiter = threading.Timer(0.2, server.execute, ("RPUSH", "q", "x"))
        waiter.start()
        assert r.blpop(["q"], timeout=0) == (b"q", b"x")
        waiter.join()


def test_state_of_a_connection_needs_one_of_its_own(r: Any) -> None:
    for command in (["SELECT", 1], ["CLIENT", "SETNAME", "x"], ["CLIENT SETNAME", "x"], ["MULTI"], ["MONITOR"]):
        with pytest.raises(hatopo.ConnectionStateError, match=r"client\.client\(\)"):
            r.execute_command(*command)
    pipe: Any = r.pipeline(transaction=False)
    pipe.select(1)
    with pytest.raises(hatopo.ConnectionStateError):
        pipe.execute()
    with r.client() as own:
        own.client_setname("mine")
        own.select(1)
        own.set("k", "in 1")
        assert own.client_getname() == "mine"
        assert own.get("k") == "in 1"
    assert r.get("k") is None


def test_choices_for_a_call(r: Any) -> None:
    r.set("k", "v")
    clone = r.using(deadline=5, retry_policy="never", failover_timeout=1)
    assert isinstance(clone, hatopo.Redis)
    assert clone.get("k") == "v"
    clone.close()
    del clone
    assert r.get("k") == "v"
    with hatopo.deadline(5), hatopo.deadline(50):
        assert r.get("k") == "v"
    with pytest.raises(hatopo.OptionError):
        r.using(retry_policy="sometimes")


def test_a_clone_outlives_the_name_of_its_client(server: RealNode) -> None:
    clone = hatopo.standalone(*server.address).using(deadline=5)
    assert clone.ping()
    assert clone.ping()


def test_module_helpers_have_our_pipeline(r: Any) -> None:
    for helper in (r.json(), r.ts(), r.ft()):
        pipe = helper.pipeline()
        assert isinstance(pipe, redis.client.Pipeline)
        pipe.execute_command("ECHO", "x")
        assert pipe.execute() == ["x"]


def test_closed_means_no_connections_and_a_later_call_opens_new_ones(server: RealNode) -> None:
    r = hatopo.standalone(*server.address, client_name="closing")

    def connections() -> int:
        return str(server.execute("CLIENT", "LIST")).count("name=closing")

    r.ping()
    assert connections() == 1
    r.close()
    eventually(lambda: connections() == 0)
    assert r.ping()
    r.connection_pool.disconnect()
    eventually(lambda: connections() == 0)
    assert r.ping()
    r.close()


def test_the_pool_for_frameworks(r: Any) -> None:
    pool = r.connection_pool
    connection = pool.get_connection()
    connection.send_command("PING")
    assert connection.read_response() == "PONG"
    assert pool.owns_connection(connection)
    connection.send_command("PING")  # and its reply stays unread
    pool.release(connection)
    assert [r.echo(str(n)) for n in range(20)] == [str(n) for n in range(20)]
    pool.connection_kwargs["socket_timeout"] = 7
    pool.reset()
    assert pool.get_connection().socket_timeout == 7


def test_a_lent_connection_that_has_ended_is_not_lent_again(r: Any) -> None:
    pool = r.connection_pool
    connection = pool.get_connection()
    connection.disconnect()
    pool.release(connection)
    other = pool.get_connection()
    assert other.is_connected
    pool.release(other)


def test_a_custom_response_callback(r: Any) -> None:
    r.set("k", "v")
    r.set_response_callback("GET", lambda reply, **_: f"<{reply}>")
    assert r.get("k") == "<v>"
    pipe: Any = r.pipeline(transaction=False)
    assert pipe.get("k").execute() == ["<v>"]


def test_a_parse_response_of_their_own_is_used(server: RealNode) -> None:
    class Shouting(hatopo.Redis):
        def parse_response(self, connection: Any, command_name: Any, **options: Any) -> Any:
            reply: Any = super().parse_response(connection, command_name, **options)  # type: ignore[no-untyped-call]
            return reply.upper() if isinstance(reply, bytes) else reply

    with Shouting(*server.address) as r:
        r.set("k", "v")
        assert r.get("k") == b"V"


def test_subclasses_and_positional_arguments(server: RealNode) -> None:
    class Mine(hatopo.Redis):
        pass

    host, port = server.address
    with Mine(host, port, 1) as r:
        assert r.set("k", "v")
        assert isinstance(r.using(deadline=5), Mine)
        assert isinstance(r.client(), Mine)
    with Mine.from_url(f"redis://{host}:{port}/1") as r:
        assert r.get("k") == b"v"


def test_encodings(server: RealNode) -> None:
    with hatopo.standalone(*server.address, encoding="latin-1", decode_responses=True) as r:
        r.set("k", "ä")
        assert r.get("k") == "ä"
        assert r.strlen("k") == 1


def test_a_reply_that_cannot_be_decoded_spoils_nothing(r: Any) -> None:
    r.set("bad", b"\xff")
    r.set("k", "v")
    for _ in range(3):
        with pytest.raises(UnicodeDecodeError):
            r.get("bad")
        assert r.get("k") == "v"


def test_unix_socket(own_server: RealNode, tmp_path: Any) -> None:
    path = tmp_path / "redis.sock"
    with RealNode(config={"unixsocket": str(path)}), hatopo.from_url(f"unix://{path}?db=1") as r:
        assert r.set("k", "v")
        assert r.get("k") == b"v"
        assert str(path) in repr(r)


def test_retry_bounds_the_attempts() -> None:
    for client in (
        hatopo.standalone("127.0.0.1", 1, retry=Retry(NoBackoff(), 2)),
        hatopo.standalone("127.0.0.1", 1),
    ):
        client.set_retry(Retry(NoBackoff(), 2))
        with pytest.raises(hatopo.NodeUnavailableError) as caught:
            client.get("k")
        assert caught.value.attempts == 3
        assert caught.value.node == "127.0.0.1:1"
        assert not caught.value.maybe_executed


def test_it_does_not_pickle(r: Any) -> None:
    with pytest.raises(TypeError, match="each process"):
        pickle.dumps(r)
