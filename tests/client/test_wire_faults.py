"""No broken connection makes a client return a wrong value, or execute twice what must happen once.

Single commands against the scripted server: replies that are cut, split, mixed with pushes or no RESP, at
every byte where that can happen. Pipelines are in test_wire_pipelines, time and log-in in test_wire_limits.
"""

from __future__ import annotations

import hashlib
from typing import Any

import pytest
import redis

import hatopo
from tests.client.support import COUNT, client_of, execute, reply_size, value_of
from tests.faulty import FaultyServer
from tests.tinyredis import OK, Refusal, encode

PROTOCOLS = pytest.mark.parametrize("options", [{}, {"protocol": 2}, {"protocol": 3}], ids=["default", "2", "3"])
NESTED = [[b"1-0", [b"field", b"one"]], [b"2-0", [b"field", b"two"]]]
NESTED_SEEN = [(b"1-0", {b"field": b"one"}), (b"2-0", {b"field": b"two"})]
SCRIPT = hashlib.sha1(b"").hexdigest()
WRONGTYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"

# A call, what the server says to it in RESP2 and RESP3, and what the caller must see.
REPEATED: dict[str, tuple[tuple[str, ...], Any, Any]] = {
    "bulk": (("get", "k"), value_of("k"), value_of("k")),
    "null": (("get", "missing"), None, None),
    "nested": (("xrange", "stream"), NESTED, NESTED_SEEN),
    "empty": (("xrange", "nothing"), [], []),
    "status": (("set", "k", "v"), OK, True),
}


def prepare(fake: FaultyServer, says: Any) -> None:
    fake.data[b"k"] = value_of("k")
    fake.answers["XRANGE"] = says


@PROTOCOLS
@pytest.mark.parametrize("case", REPEATED)
def test_a_reply_cut_at_any_byte_is_asked_for_again(case: str, options: dict[str, Any]) -> None:
    (method, *args), says, seen = REPEATED[case]
    name = method.upper()
    for size in range(reply_size(says, **options)):
        with FaultyServer() as fake, client_of(fake, **options) as client:
            prepare(fake, says)
            fake.on(name, nth=1).cut_reply(after_bytes=size)
            assert getattr(client, method)(*args) == seen, size
            assert fake.executed[name] == 2, size


@PROTOCOLS
@pytest.mark.parametrize("case", REPEATED)
def test_a_complete_reply_before_the_end_is_enough(case: str, options: dict[str, Any]) -> None:
    (method, *args), says, seen = REPEATED[case]
    name = method.upper()
    with FaultyServer() as fake, client_of(fake, **options) as client:
        prepare(fake, says)
        fake.on(name, nth=1).cut_reply(after_bytes=reply_size(says, **options))
        assert getattr(client, method)(*args) == seen
        assert fake.executed[name] == 1
        assert getattr(client, method)(*args) == seen


@PROTOCOLS
@pytest.mark.parametrize("words", [("INCR", "n"), ("INCRBY", "n", 1), ("EVALSHA", SCRIPT, 1, "n")])
def test_a_counter_whose_reply_is_cut_is_ambiguous_and_counted_once(
    words: tuple[str | int, ...], options: dict[str, Any]
) -> None:
    for size in range(reply_size(1000, **options)):
        with FaultyServer() as fake, client_of(fake, **options) as client:
            client.script_load("")
            fake.data[b"n"] = b"999"
            fake.on(str(words[0]), nth=1).cut_reply(after_bytes=size)
            with pytest.raises(hatopo.AmbiguousResultError) as caught:
                execute(client, *words)
            assert isinstance(caught.value, redis.ConnectionError)
            assert caught.value.maybe_executed is True
            assert caught.value.command == words[0]
            assert fake.data[b"n"] == b"1000", size
            assert execute(client, *words) == 1001


@pytest.mark.parametrize("name", ["GET", COUNT])
def test_an_error_reply_that_is_cut_is_no_error_reply(name: str) -> None:
    for size in range(len(encode(Refusal(WRONGTYPE)))):
        with FaultyServer() as fake, client_of(fake) as client:
            fake.on(name, nth=1).error_once(WRONGTYPE)
            fake.on(name, nth=1).cut_reply(after_bytes=size)
            if name == "GET":
                assert client.get("k") is None
                continue
            with pytest.raises(hatopo.AmbiguousResultError):
                client.incr("k")
            assert fake.received[COUNT] == 1


@pytest.mark.parametrize("drop", ["drop_before", "drop_after_execute"])
def test_a_connection_dropped_without_a_byte_of_a_reply(drop: str) -> None:
    with FaultyServer() as fake, client_of(fake) as client:
        fake.data[b"k"] = value_of("k")
        getattr(fake.on("GET", nth=1), drop)()
        getattr(fake.on(COUNT, nth=1), drop)()
        assert client.get("k") == value_of("k")
        with pytest.raises(hatopo.AmbiguousResultError):
            client.incr("n")
        done = int(drop == "drop_after_execute")
        assert fake.executed[COUNT] == done
        assert client.incr("n") == done + 1


@PROTOCOLS
def test_connections_closed_while_idle_cost_no_error(options: dict[str, Any]) -> None:
    with FaultyServer() as fake, client_of(fake, **options) as client:
        for round_ in range(1, 6):
            assert client.incr("n") == round_
            fake.idle_close()
        assert fake.executed[COUNT] == 5
        assert client.append("text", "x") == 1
        fake.idle_close()
        assert client.get("text") == b"x"
        with hatopo.deadline(5):
            assert client.incr("n") == 6
            fake.idle_close()
            assert client.incr("n") == 7


@PROTOCOLS
@pytest.mark.parametrize("every", [1, 2, 3, 7])
def test_replies_split_anywhere_are_put_together(every: int, options: dict[str, Any]) -> None:
    with FaultyServer() as fake, client_of(fake, **options) as client:
        fake.on().split_reply(every=every)
        prepare(fake, NESTED)
        assert client.get("k") == value_of("k")
        assert client.get("missing") is None
        assert client.incr("n") == 1
        assert client.xrange("stream") == NESTED_SEEN
        fake.on("ECHO", nth=1).error_once(WRONGTYPE)
        with pytest.raises(redis.ResponseError, match="WRONGTYPE"):
            client.echo("a")
        assert client.echo("b") == b"b"
        assert fake.connections == 1


@PROTOCOLS
@pytest.mark.parametrize("every", [0, 1, 5])
def test_pushes_around_every_reply_are_no_replies(every: int, options: dict[str, Any]) -> None:
    with FaultyServer() as fake, client_of(fake, **options) as client:
        fake.on().push_between()
        if every:
            fake.on().split_reply(every=every)
        prepare(fake, NESTED)
        for number in range(1, 6):
            assert client.set(f"key{number}", value_of(f"key{number}")) is True
            assert client.get(f"key{number}") == value_of(f"key{number}")
            assert client.incr("n") == number
            assert client.xrange("stream") == NESTED_SEEN
            assert client.echo(f"word{number}") == f"word{number}".encode()
        assert fake.executed[COUNT] == 5


@PROTOCOLS
@pytest.mark.parametrize("push", [False, True])
@pytest.mark.parametrize("fault", ["garbage", "huge_header"])
def test_what_is_no_reply_is_an_error_and_ends_the_connection(fault: str, push: bool, options: dict[str, Any]) -> None:
    with (
        FaultyServer() as fake,
        client_of(fake, retry_policy="never", **options) as client,
    ):
        if push:
            fake.on().push_between()
        fake.data[b"k"] = value_of("k")
        for name in ("GET", COUNT):
            getattr(fake.on(name), fault)()
            # Behind a push in the same bytes a header is not looked at: there, the silence behind it tells.
            silent = push and fault == "huge_header"
            wanted = (redis.InvalidResponse, redis.ConnectionError, *((redis.TimeoutError,) if silent else ()))
            with pytest.raises(wanted):
                execute(client.using(deadline=1.0) if silent else client, name, "k" if name == "GET" else "n")
            spoilt = fake.connections
            fake.heal()
            assert client.get("k") == value_of("k")
            assert fake.connections > spoilt
        assert fake.executed[COUNT] == 1


@pytest.mark.parametrize("text", ["LOADING the dataset", "READONLY You can't write against a read only replica."])
def test_a_refusal_that_passes_is_waited_for(text: str) -> None:
    with FaultyServer() as fake, client_of(fake) as client:
        fake.on(COUNT).error_once(text)
        assert client.incr("n") == 1
        assert client.get("n") == b"1"
        assert (fake.received[COUNT], fake.executed[COUNT]) == (2, 1)


@pytest.mark.parametrize("code", ["WRONGTYPE", "OOM", "MISCONF", "BUSY", "NOPERM", "ERR"])
def test_a_refusal_that_stays_is_raised_at_once(code: str) -> None:
    with FaultyServer() as fake, client_of(fake) as client:
        fake.on(COUNT, nth=1).error_once(f"{code} this is the reason")
        with pytest.raises(redis.ResponseError, match="this is the reason") as caught:
            client.incr("n")
        assert not isinstance(caught.value, hatopo.AmbiguousResultError)
        assert fake.received[COUNT] == 1
        assert client.incr("n") == 1
        assert fake.connections == 1
