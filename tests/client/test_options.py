"""Bad input: a clear error before any I/O, which says what to change and holds no secret."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import redis
from redis.credentials import UsernamePasswordCredentialProvider

import hatopo

SECRET = "hunter2"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"port": 0}, "port 0"),
        ({"port": 65536}, "port 65536"),
        ({"port": "x"}, "'x'"),
        ({"host": ""}, "host"),
        ({"host": "('10.0.0.1', 6379)"}, "host"),
        ({"host": "a,b"}, "host"),
        ({"host": "user@db"}, "host"),
        ({"db": -1}, "db"),
        ({"db": "one"}, "db"),
        ({"protocol": 4}, "2 or 3"),
        ({"socket_timeout": "5"}, "socket_timeout"),
        ({"socket_timeout": -1}, "socket_timeout"),
        ({"failover_timeout": "long"}, "failover_timeout"),
        ({"profile": "desktop"}, "'web', 'worker', 'batch'"),
        ({"retry_policy": "maybe"}, "'safe'"),
        ({"retry_policy": {"INCR": "maybe"}}, "'safe'"),
        ({"max_connections": -1}, "max_connections"),
        ({"max_waiting": 0}, "max_waiting"),
        ({"retry": 3}, "redis.retry.Retry"),
        ({"retry_on_error": [redis.ResponseError]}, "ResponseError"),
        ({"cache_config": "any"}, "client-side caching"),
        ({"parser_class": object}, "hiredis"),
        ({"connection_class": redis.Connection}, "ssl="),
        ({"address_map": {"db:x": "nat"}}, "'db:x'"),
        ({"allowed_hosts": ["db:6379"]}, "'db:6379'"),
        ({"tls_server_name": "redis.internal"}, "ssl=True"),
    ],
    ids=lambda value: str(value)[:40],
)
def test_wrong_values(options: dict[str, Any], says: str) -> None:
    with pytest.raises(hatopo.OptionError) as caught:
        hatopo.standalone(password=SECRET, **options)
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("pasword", "password"),
        ("failover_timeot", "failover_timeout"),
        ("socket_timout", "socket_timeout"),
        ("adress_map", "address_map"),
    ],
)
def test_misspelt_names(name: str, meant: str) -> None:
    with pytest.raises(hatopo.UnknownOptionError, match=f"did you mean '{meant}'"):
        hatopo.standalone(**{name: SECRET})  # type: ignore[arg-type]
    with pytest.raises(hatopo.UnknownOptionError, match=f"did you mean '{meant}'"):
        hatopo.from_url(f"redis://localhost?{name}=1")
    with pytest.raises(TypeError):
        hatopo.Redis(**{name: 1})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("http://localhost", "'http'"),
        ("localhost:6379", "redis://"),
        ("redis://localhost:0", "port"),
        ("redis://localhost:99999", "port"),
        ("redis://localhost/one", "database"),
        ("redis://localhost?failover_timeout=soon", "failover_timeout"),
        ("redis://localhost?socket_timeout=soon", "socket_timeout"),
        ("redis://localhost?retry_policy=maybe", "'safe'"),
    ],
)
def test_wrong_urls(url: str, says: str) -> None:
    with pytest.raises(hatopo.OptionError) as caught:
        hatopo.from_url(url.replace("//", f"//:{SECRET}@", 1) if "://" in url else url)
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(
    ("url", "expected"),
    [
        ("redis://u:p@db:7000/3", {"host": "db", "port": 7000, "db": 3, "username": "u", "password": "p"}),
        ("valkey://db?db=4", {"host": "db", "db": 4}),
        ("redis://db?decode_responses=True&max_connections=3", {"decode_responses": "True"}),
        ("unix:///tmp/redis.sock?db=2", {"path": "/tmp/redis.sock", "db": 2}),
        ("redis://db?failover_timeout=2&socket_timeout=0.5", {"socket_timeout": 0.5}),
        ("rediss://db?tls_server_name=seed&address_map=seed-host&allowed_hosts=db,10.0.0.0/8", {"host": "db"}),
    ],
)
def test_urls(url: str, expected: dict[str, Any]) -> None:
    kwargs = hatopo.from_url(url).connection_pool.connection_kwargs
    assert {name: kwargs[name] for name in expected} == expected


def test_the_url_wins_over_keywords() -> None:
    assert hatopo.from_url("redis://db/3", db=1).connection_pool.connection_kwargs["db"] == 3


@pytest.mark.parametrize("scheme", ["rediss", "valkeys"])
def test_tls_urls(scheme: str) -> None:
    pool = hatopo.from_url(f"{scheme}://db?ssl_cert_reqs=none").connection_pool
    assert issubclass(pool.connection_class, redis.SSLConnection)


def test_every_keyword_of_redis_py_is_taken_or_refused_by_name() -> None:
    """With redis-py's own defaults all of them must be taken: that is what frameworks pass."""
    parameters = inspect.signature(redis.Redis.__init__).parameters
    defaults = {name: each.default for name, each in parameters.items() if name not in ("self", "kwargs", "args")}
    del defaults["retry"]  # redis-py's default is a policy, ours is no bound
    assert isinstance(hatopo.Redis(**defaults), redis.Redis)


def test_secrets_are_in_no_repr() -> None:
    client = hatopo.standalone(username="app", password=SECRET)
    for shown in (client, client.connection_pool, client.pipeline(), client.pubsub(), client.topology):
        assert SECRET not in repr(shown)


def test_a_provider_is_a_provider() -> None:
    with pytest.raises(hatopo.OptionError, match="CredentialProvider"):
        hatopo.standalone(credential_provider="me")  # type: ignore[arg-type]


def test_a_provider_excludes_a_password() -> None:
    with pytest.raises(redis.DataError):
        hatopo.standalone(password=SECRET, credential_provider=UsernamePasswordCredentialProvider("u", "p"))


@pytest.mark.parametrize("wrong", [[], "10.0.0.1:26379", ["10.0.0.1:x"], [("10.0.0.1",)], [None]])
def test_wrong_sentinels(wrong: Any) -> None:
    with pytest.raises(hatopo.OptionError):
        hatopo.sentinel("mymaster", wrong)


def test_wrong_service_and_stray_address() -> None:
    with pytest.raises(hatopo.OptionError, match="service"):
        hatopo.sentinel("", ["10.0.0.1"])
    with pytest.raises(hatopo.OptionError, match="host="):
        hatopo.sentinel("mymaster", ["10.0.0.1"], host="10.0.0.2")  # type: ignore[call-arg]


def test_a_foreign_pool_is_refused() -> None:
    with pytest.raises(hatopo.OptionError, match="connection_pool"):
        hatopo.Redis(connection_pool=redis.ConnectionPool())  # type: ignore[arg-type]
