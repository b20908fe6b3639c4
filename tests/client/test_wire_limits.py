"""A server that is silent, refuses the password or knows no HELLO: calls end, a late reply is nobody's."""

from __future__ import annotations

import threading
from typing import Any

import pytest
import redis

import hatopo
from tests.client.support import COUNT, batch, client_of, value_of
from tests.control import eventually
from tests.faulty import FaultyServer

PROTOCOLS = pytest.mark.parametrize("options", [{}, {"protocol": 2}], ids=["default", "2"])
KEYS = [f"key{number}" for number in range(20)]
SHORT = 0.08


def fill(fake: FaultyServer) -> threading.Event:
    """Gives every key its value; the event is for the late replies."""
    fake.data = {key.encode(): value_of(key) for key in KEYS}
    return threading.Event()


def expect_own_values(client: hatopo.Redis) -> None:
    for key in KEYS:
        assert client.get(key) == value_of(key)
    assert batch(client).get("key3").get("key4").execute() == [
        value_of("key3"),
        value_of("key4"),
    ]


@PROTOCOLS
def test_a_read_whose_reply_is_late_is_asked_for_again(options: dict[str, Any]) -> None:
    with FaultyServer() as fake, client_of(fake, socket_timeout=SHORT, **options) as client:
        late = fill(fake)
        fake.on("GET", nth=1).delay_reply_until(late)
        assert client.get("key0") == value_of("key0")
        late.set()
        expect_own_values(client)


@PROTOCOLS
def test_a_counter_whose_reply_is_late_times_out_and_is_counted_once(options: dict[str, Any]) -> None:
    with FaultyServer() as fake, client_of(fake, socket_timeout=SHORT, **options) as client:
        late = fill(fake)
        fake.on(COUNT).delay_reply_until(late)
        with pytest.raises(hatopo.AmbiguousResultError) as caught:
            client.incr("n")
        assert isinstance(caught.value, redis.TimeoutError)
        assert (caught.value.command, caught.value.maybe_executed) == (COUNT, True)
        eventually(lambda: fake.executed[COUNT] == 1)
        late.set()
        expect_own_values(client)
        with client_of(fake, **options) as patient:
            assert patient.incr("n") == 2


def test_a_batch_whose_reply_is_late_times_out() -> None:
    with FaultyServer() as fake, client_of(fake, socket_timeout=SHORT) as client:
        late = fill(fake)
        fake.on(COUNT, nth=1).delay_reply_until(late)
        pipeline = batch(client).get("key0").incr("n").get("key1")
        first, second, third = pipeline.execute(raise_on_error=False)
        assert (first, third) == (value_of("key0"), value_of("key1"))
        assert isinstance(second, hatopo.AmbiguousResultError)
        assert isinstance(second, redis.TimeoutError)
        late.set()
        expect_own_values(client)
        assert fake.executed[COUNT] == 1


def test_a_transaction_whose_reply_is_late_times_out_and_is_executed_once() -> None:
    with FaultyServer() as fake, client_of(fake, socket_timeout=SHORT) as client:
        late = fill(fake)
        fake.on("EXEC").delay_reply_until(late)
        with pytest.raises(hatopo.AmbiguousResultError) as caught:
            batch(client, transaction=True).incr("n").get("key1").execute()
        assert isinstance(caught.value, redis.TimeoutError)
        late.set()
        expect_own_values(client)
        assert fake.executed["EXEC"] == 1


@pytest.mark.timeout(20)
def test_reads_of_a_silent_server_end_with_the_failover_timeout() -> None:
    with FaultyServer() as fake, client_of(fake, socket_timeout=SHORT) as client:
        late = fill(fake)
        rule = fake.on("GET")
        rule.delay_reply_until(late)
        # The last attempt may end while it still dials.
        with pytest.raises((redis.TimeoutError, redis.ConnectionError)):
            client.using(failover_timeout=1.0).get("key0")
        assert rule.seen >= 2
        late.set()
        expect_own_values(client)


# Without a deadline these calls would last ten minutes.
@pytest.mark.timeout(20)
@pytest.mark.parametrize("how", ["scope", "clone"])
@pytest.mark.parametrize("method", ["get", "incr"])
def test_a_deadline_ends_a_call(method: str, how: str) -> None:
    with FaultyServer() as fake, client_of(fake, socket_timeout=600, failover_timeout=600) as client:
        late = fill(fake)
        client.get("key0")  # so that it is connected
        fake.on("GET").delay_reply_until(late)
        fake.on(COUNT).delay_reply_until(late)
        if how == "clone":
            with pytest.raises(redis.TimeoutError) as caught:
                getattr(client.using(deadline=0.3), method)("n")
        else:
            with hatopo.deadline(0.3), pytest.raises(redis.TimeoutError) as caught:
                getattr(client, method)("n")
        assert isinstance(caught.value, hatopo.AmbiguousResultError) == (method == "incr")
        late.set()
        expect_own_values(client)


@pytest.mark.timeout(20)
def test_a_deadline_ends_a_batch_and_the_wait_for_a_server_that_loads() -> None:
    with FaultyServer() as fake, client_of(fake, socket_timeout=600, failover_timeout=600) as client:
        late = fill(fake)
        client.get("key0")  # so that it is connected
        fake.on("ECHO").delay_reply_until(late)
        fake.on("PING").error("LOADING Redis is loading the dataset in memory")
        with hatopo.deadline(SHORT), pytest.raises(redis.TimeoutError):
            batch(client).echo("a").get("key1").execute()
        with hatopo.deadline(SHORT), pytest.raises(redis.RedisError):
            client.ping()
        late.set()
        expect_own_values(client)


@pytest.mark.parametrize("protocol", [2, 3])
def test_a_wrong_password_is_tried_once(protocol: int) -> None:
    with (
        FaultyServer(password="secret") as fake,
        client_of(fake, password="tr1cky", protocol=protocol) as client,
    ):
        with pytest.raises(redis.AuthenticationError) as caught:
            client.get("k")
        assert fake.auths == 1
        assert "tr1cky" not in str(caught.value)


@pytest.mark.parametrize("credentials", [{"password": "secret"}, {"username": "default", "password": "secret"}])
@PROTOCOLS
def test_the_right_password_is_sent_once_a_connection(credentials: dict[str, str], options: dict[str, Any]) -> None:
    with FaultyServer(password="secret") as fake, client_of(fake, **credentials, **options) as client:
        fill(fake)
        expect_own_values(client)
        fake.idle_close()
        assert client.incr("n") == 1
        assert fake.auths == fake.connections == 2


@pytest.mark.parametrize("password", [None, "secret"])
def test_a_server_without_hello_is_spoken_to_in_resp2(password: str | None) -> None:
    with FaultyServer(password=password) as fake, client_of(fake, password=password) as client:
        fill(fake)
        fake.on("HELLO").refuse()
        fake.on().push_between()  # only sent where RESP3 was agreed upon
        expect_own_values(client)
        assert client.get("missing") is None
        assert fake.executed["HELLO"] == 0
        assert fake.auths == (0 if password is None else 1)


def test_a_server_without_hello_refuses_a_wrong_password_once() -> None:
    with FaultyServer(password="secret") as fake, client_of(fake, password="wrong") as client:
        fake.on("HELLO").refuse()
        with pytest.raises(redis.AuthenticationError):
            client.get("k")
        assert fake.auths == 1


@pytest.mark.parametrize("name", ["CLIENT SETINFO", "CLIENT SETNAME"])
def test_a_server_without_client_info_serves(name: str) -> None:
    with FaultyServer() as fake, client_of(fake, client_name="me") as client:
        fill(fake)
        fake.on(name).refuse()
        expect_own_values(client)


@pytest.mark.parametrize(
    ("name", "protocol"), [("HELLO", 3), ("AUTH", 2), ("SELECT", 2), ("SELECT", 3), ("CLIENT SETINFO", 3)]
)
def test_a_handshake_that_is_cut_is_made_again(name: str, protocol: int) -> None:
    for size in range(0, 100, 9) if name == "HELLO" else range(5):
        with (
            FaultyServer(password="secret") as fake,
            client_of(fake, password="secret", db=2, protocol=protocol) as client,
        ):
            fake.on(name, nth=1).cut_reply(after_bytes=size)
            assert client.incr("n") == 1, size
            assert (fake.executed[COUNT], fake.connections, fake.auths) == (1, 2, 2), size
