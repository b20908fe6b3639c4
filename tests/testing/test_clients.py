"""Clients that know nothing of embedded servers: redis-py in both colours, coredis, and redis-cli."""

from __future__ import annotations

import asyncio
import shutil
import subprocess
from collections.abc import Awaitable, Callable, Iterator
from typing import Any

import anyio
import coredis
import pytest
import redis
import redis.asyncio
import redis.asyncio.sentinel
import redis.sentinel
from coredis.connection import TCPLocation
from redis.backoff import NoBackoff
from redis.retry import Retry

from hatopo.testing import Node, SentinelDeployment
from tests.control import Certificates, eventually

ONCE: Any = Retry(NoBackoff(), 0)
protocols = pytest.mark.parametrize("protocol", [2, 3])


@pytest.fixture(scope="module")
def shared() -> Iterator[Node]:
    with Node() as node:
        yield node


@pytest.fixture
def node(shared: Node) -> Node:
    shared.execute("FLUSHALL")
    return shared


@pytest.fixture
def deployment() -> Iterator[SentinelDeployment]:
    with SentinelDeployment(2, 3) as started:
        yield started


# redis-py


@protocols
def test_redis_py(node: Node, protocol: int) -> None:
    with redis.Redis(node.host, node.port, protocol=protocol, decode_responses=True) as client:
        assert client.set("k", "v", ex=100)
        assert (client.get("k"), client.ttl("k")) == ("v", 100)
        client.hset("h", mapping={"a": "1", "b": "2"})
        assert client.hgetall("h") == {"a": "1", "b": "2"}
        client.zadd("z", {"a": 1.5, "b": 2})
        assert client.zscore("z", "a") == 1.5
        client.sadd("s", "x", "y")
        assert client.smembers("s") == {"x", "y"}
        assert client.pipeline().incr("n").incr("n").execute() == [1, 2]
        assert client.register_script("return ARGV[1]")(args=["argument"]) == "argument"
        assert client.info("server")["redis_version"] == "7.0.15"
        assert client.xadd("x", {"f": "v"}, id="1-1") == "1-1"
        assert client.command_count() > 200
        assert client.acl_whoami() == "default"
        assert client.config_get("maxmemory") == {"maxmemory": "0"}
        assert client.client_getname() in (None, "")
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            client.lpush("k", "x")
        with client.lock("lock", timeout=10) as lock:
            assert lock.owned()
        assert list(client.scan_iter("*", count=2)).count("k") == 1


@protocols
def test_redis_py_subscribers(node: Node, protocol: int) -> None:
    with redis.Redis(node.host, node.port, protocol=protocol) as client, client.pubsub() as heard:
        heard.subscribe("c")
        heard.psubscribe("p*")
        messages = [heard.get_message(timeout=5) for _ in range(2)]
        assert [message["type"] for message in messages if message] == ["subscribe", "psubscribe"]
        assert client.publish("c", "one") == 1
        assert client.publish("pc", "two") == 1
        assert [heard.get_message(timeout=5)["data"] for _ in range(2)] == [b"one", b"two"]
        heard.unsubscribe()
        heard.punsubscribe()


@protocols
def test_redis_py_of_asyncio(node: Node, protocol: int) -> None:
    async def use() -> None:
        async with redis.asyncio.Redis(host=node.host, port=node.port, protocol=protocol) as client:
            assert await client.set("k", "v")
            assert await asyncio.gather(*(client.incr("n") for _ in range(50)))
            assert await client.get("n") == b"50"
            taken, _ = await asyncio.gather(client.blpop(["l"], timeout=20), client.rpush("l", "x"))
            assert [*(taken or ())] == [b"l", b"x"]
            async with client.pipeline() as pipeline:
                pipeline.incr("m")
                pipeline.incr("m")
                assert await pipeline.execute() == [1, 2]
            async with client.pubsub() as heard:
                await heard.subscribe("c")
                messages = [await heard.get_message(timeout=5)]
                await client.publish("c", "one")
                messages.append(await heard.get_message(timeout=5))
                assert [message["data"] for message in messages if message] == [1, b"one"]

    asyncio.run(use())


@protocols
def test_redis_py_with_a_password_and_with_users(protocol: int) -> None:
    with Node(password="secret") as node:
        with redis.Redis(node.host, node.port, protocol=protocol, password="secret") as client:
            assert client.ping()
        for password in (None, "wrong"):
            with redis.Redis(node.host, node.port, protocol=protocol, password=password, retry=ONCE) as client:
                with pytest.raises(redis.AuthenticationError):
                    client.ping()
    with Node(users=["user app on >pw ~app:* +@all -@dangerous"]) as node:
        with redis.Redis(node.host, node.port, protocol=protocol, username="app", password="pw") as client:
            assert client.set("app:k", "v")
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.set("other", "v")
            with pytest.raises(redis.exceptions.NoPermissionError):
                client.flushall()


def test_redis_py_over_tls(tmp_path: Any) -> None:
    certificates = Certificates(tmp_path)
    with Node(tls=certificates.files) as node:
        with redis.Redis.from_url(node.url, ssl_ca_certs=str(certificates.ca_file)) as client:
            assert client.set("big", "x" * 1_000_000)
            assert client.strlen("big") == 1_000_000
        assert node.url.startswith("rediss://")
        with node.control() as control:
            assert control("PING") == "PONG"


@protocols
def test_redis_py_follows_sentinels(deployment: SentinelDeployment, protocol: int) -> None:
    finder = redis.sentinel.Sentinel(
        deployment.sentinels, sentinel_kwargs={"protocol": protocol}, protocol=protocol, socket_timeout=5
    )
    old = deployment.master()
    assert finder.discover_master(deployment.name) == old.address
    assert {*finder.discover_slaves(deployment.name)} == {node.address for node in deployment.replicas()}
    client, reader = finder.master_for(deployment.name), finder.slave_for(deployment.name)
    assert client.set("k", "v")
    deployment.wait_stable()
    assert reader.get("k") == b"v"
    deployment.kill_master()
    new = deployment.wait_switched(old)
    assert finder.discover_master(deployment.name) == new.address
    assert client.get("k") == b"v"
    assert client.set("k", "w")
    assert new.execute("GET", "k") == "w"
    for one in (client, reader, *finder.sentinels):
        one.close()


@protocols
def test_redis_py_of_asyncio_follows_sentinels(deployment: SentinelDeployment, protocol: int) -> None:
    async def use() -> None:
        finder = redis.asyncio.sentinel.Sentinel(
            deployment.sentinels, sentinel_kwargs={"protocol": protocol}, protocol=protocol, socket_timeout=5
        )
        old = deployment.master()
        client = finder.master_for(deployment.name)
        assert await client.set("k", "v")
        assert await finder.discover_master(deployment.name) == old.address
        await asyncio.to_thread(deployment.wait_stable)
        deployment.kill_master()
        new = await asyncio.to_thread(deployment.wait_switched, old)
        assert await client.get("k") == b"v"
        assert await finder.discover_master(deployment.name) == new.address
        for one in (client, *finder.sentinels):
            await one.aclose()

    asyncio.run(use())


# coredis


def in_each_loop(use: Callable[[], Awaitable[None]]) -> None:
    for backend in ("asyncio", "trio"):
        anyio.run(use, backend=backend)


def test_coredis(node: Node) -> None:
    async def use() -> None:
        node.execute("FLUSHALL")
        async with coredis.Redis(host=node.host, port=node.port, decode_responses=True) as client:
            assert await client.set("k", "v")
            assert await client.get("k") == "v"
            await client.hset("h", {"a": "1"})
            assert await client.hgetall("h") == {"a": "1"}
            await client.zadd("z", {"a": 1.5})
            assert await client.zscore("z", "a") == 1.5
            await client.sadd("s", ["x", "y"])
            assert await client.smembers("s") == {"x", "y"}
            assert (await client.info("server"))["redis_version"] == "7.0.15"
            with pytest.raises(coredis.exceptions.ResponseError):
                await client.lpush("k", ["x"])
            async with client.pipeline(transaction=True) as pipeline:
                counts = [pipeline.incr("n"), pipeline.incr("n")]
            assert [await count for count in counts] == [1, 2]

    in_each_loop(use)


def test_coredis_follows_sentinels() -> None:
    async def use() -> None:
        with SentinelDeployment(1, 3) as deployment:
            locations = [TCPLocation(*address) for address in deployment.sentinels]
            async with coredis.Sentinel(locations, decode_responses=True) as finder:
                old = deployment.master()
                assert await finder.discover_primary(deployment.name) == old.address
                assert await finder.discover_replicas(deployment.name) == [deployment.replicas()[0].address]
                async with finder.primary_for(deployment.name) as client:
                    assert await client.set("k", "v")
                await anyio.to_thread.run_sync(deployment.wait_stable)
                deployment.kill_master()
                new = await anyio.to_thread.run_sync(deployment.wait_switched, old)
                assert await finder.discover_primary(deployment.name) == new.address
                async with finder.primary_for(deployment.name) as client:
                    assert await client.get("k") == "v"

    in_each_loop(use)


# redis-cli


@pytest.fixture
def cli(node: Node) -> Callable[..., str]:
    found = shutil.which("redis-cli")
    if found is None:
        pytest.skip("redis-cli is not on the PATH")

    def run(*words: str, stdin: bytes = b"", port: int = node.port) -> str:
        ended = subprocess.run(
            [found, "-p", str(port), *words], input=stdin, capture_output=True, check=False, timeout=60
        )
        return (ended.stdout + ended.stderr).decode()

    return run


def test_redis_cli(cli: Callable[..., str]) -> None:
    assert cli("SET", "k", "v") == "OK\n"
    assert cli("GET", "k") == "v\n"
    assert cli("--no-raw", "LRANGE", "missing", "0", "-1") == "(empty array)\n"
    assert "redis_version:7.0.15" in cli("INFO")
    assert "role:master" in cli("INFO", "replication")
    assert "WRONGTYPE" in cli("LPUSH", "k", "x")
    assert cli("-3", "--no-raw", "HELLO").startswith('1# "server" => "redis"')
    assert cli("--no-raw", "CONFIG", "GET", "maxmemory") == '1) "maxmemory"\n2) "0"\n'
    assert cli("-3", "--no-raw", "CONFIG", "GET", "maxmemory") == '1# "maxmemory" => "0"\n'


@protocols
def test_redis_cli_reads_commands_from_its_input(cli: Callable[..., str], protocol: int) -> None:
    said = cli(f"-{protocol}", stdin=b"MULTI\nINCR n\nINCR n\nEXEC\nECHO 'a b'\n")
    assert said.splitlines() == ["OK", "QUEUED", "QUEUED", "1", "2", "a b"]


def test_redis_cli_pipe(node: Node, cli: Callable[..., str]) -> None:
    count = 30_000
    said = cli("--pipe", stdin=b"".join(b"SET key:%d %d\r\n" % (number, number) for number in range(count)))
    assert f"errors: 0, replies: {count}" in said
    assert node.execute("DBSIZE") == count
    assert node.execute("GET", f"key:{count - 1}") == str(count - 1)


def test_redis_cli_tools(node: Node, cli: Callable[..., str]) -> None:
    for number in range(200):
        node.execute("SET", f"key:{number}", "x" * number)
    node.execute("RPUSH", "list", *range(100))
    assert len(cli("--scan", "--pattern", "key:*").split()) == 200
    biggest = cli("--bigkeys")
    assert "key:199" in biggest
    assert "with 100 items" in biggest
    assert cli("--eval", "/dev/stdin", "a", ",", "b", stdin=b"return {KEYS[1], ARGV[1]}") == "a\nb\n"
    assert cli("-r", "3", "INCR", "n").split() == ["1", "2", "3"]
    assert cli("-x", "SET", "stdin", stdin=b"from stdin") == "OK\n"
    assert node.execute("GET", "stdin") == "from stdin"


def test_redis_cli_asks_sentinels(deployment: SentinelDeployment, cli: Callable[..., str]) -> None:
    port = deployment.sentinels[0][1]
    said = cli("SENTINEL", "GET-MASTER-ADDR-BY-NAME", deployment.name, port=port)
    assert said.split() == [deployment.master().host, str(deployment.master().port)]
    assert "redis_mode:sentinel" in cli("INFO", port=port)
    assert cli("-3", "SENTINEL", "CKQUORUM", deployment.name, port=port).startswith("OK 3 usable Sentinels")
    old = deployment.master()
    eventually(lambda: cli("SENTINEL", "FAILOVER", deployment.name, port=port) == "OK\n")
    assert deployment.wait_switched(old) is not old


def test_redis_cli_monitors(node: Node) -> None:
    found = shutil.which("redis-cli")
    if found is None:
        pytest.skip("redis-cli is not on the PATH")
    with subprocess.Popen([found, "-p", str(node.port), "MONITOR"], stdout=subprocess.PIPE, text=True) as monitor:
        assert monitor.stdout is not None
        assert monitor.stdout.readline() == "OK\n"
        node.execute("SET", "k", "a b")
        line = monitor.stdout.readline()
        monitor.terminate()
    assert line.endswith('"SET" "k" "a b"\n')
