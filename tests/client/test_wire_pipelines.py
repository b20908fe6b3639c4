"""Pipelines and transactions on a broken connection: each reply meets its command, and nothing happens twice.

A pipeline that breaks part way leaves commands that were answered, commands that may be sent again, and
commands of which nobody can say whether they were executed. `raise_on_error=False` shows one from the other.
"""

from __future__ import annotations

from typing import Any

import pytest
import redis

import hatopo
from tests.client.support import COUNT, batch, client_of, reply_size, value_of
from tests.faulty import FaultyServer
from tests.tinyredis import OK, QUEUED

PROTOCOLS = pytest.mark.parametrize("options", [{}, {"protocol": 2}], ids=["default", "2"])

# Each command with what the server says and what the caller sees.
BATCH: list[tuple[str, tuple[Any, ...], Any, Any]] = [
    ("set", ("a", "one"), OK, True),
    ("incr", ("n",), 1, 1),
    ("get", ("a",), b"one", b"one"),
    ("append", ("text", "x"), 1, 1),
    ("get", ("b",), value_of("b"), value_of("b")),
    ("incr", ("n",), 2, 2),
    ("get", ("missing",), None, None),
    ("set", ("c", "two"), OK, True),
    ("echo", ("last",), b"last", b"last"),
]
ONCE = {"incr": COUNT, "append": "APPEND"}
WRITES = {**ONCE, "set": "SET"}


def load(pipeline: Any) -> None:
    for method, args, _, _ in BATCH:
        getattr(pipeline, method)(*args)


def ends(**options: Any) -> list[int]:
    """Where in the stream of replies each one ends."""
    sizes = [reply_size(says, **options) for _, _, says, _ in BATCH]
    return [sum(sizes[: number + 1]) for number in range(len(sizes))]


@PROTOCOLS
def test_a_batch_cut_at_any_byte_is_answered_sent_again_or_ambiguous_by_command(
    options: dict[str, Any],
) -> None:
    limits = ends(**options)
    for size in range(limits[-1] + 1):
        with FaultyServer() as fake, client_of(fake, **options) as client:
            fake.data[b"b"] = value_of("b")
            fake.on("SET", nth=1).cut_reply(after_bytes=size)
            pipeline = batch(client)
            load(pipeline)
            got = pipeline.execute(raise_on_error=False)
            lost = [command[0] for command, end in zip(BATCH, limits, strict=True) if end > size]
            unsure = WRITES if set(lost) & set(ONCE) else {}  # one write may not be sent behind another again
            for (method, _, _, seen), end, reply in zip(BATCH, limits, got, strict=True):
                if method in unsure and end > size:
                    assert isinstance(reply, hatopo.AmbiguousResultError), (size, method, reply)
                    assert (reply.command, reply.maybe_executed) == (WRITES[method], True)
                else:
                    assert reply == seen, (size, method)
            assert (fake.executed[COUNT], fake.executed["APPEND"]) == (2, 1), size
            assert client.get("a") == b"one"


def test_a_cut_batch_raises_its_first_error() -> None:
    with FaultyServer() as fake, client_of(fake) as client:
        fake.on(COUNT, nth=1).cut_reply(after_bytes=0)
        pipeline = batch(client)
        load(pipeline)
        with pytest.raises(hatopo.AmbiguousResultError) as caught:
            pipeline.execute()
        assert isinstance(caught.value, redis.ConnectionError)
        assert caught.value.command == COUNT
        assert pipeline.command_stack == []
        assert batch(client).get("a").get("n").execute() == [b"one", b"2"]


@pytest.mark.parametrize("nth", range(1, 7))
def test_a_batch_whose_connection_drops_before_a_command(nth: int) -> None:
    with FaultyServer() as fake, client_of(fake) as client:
        fake.on(COUNT, nth=nth).drop_before()
        pipeline = batch(client)
        for number in range(6):
            pipeline.incr("n").get(f"key{number}")
            fake.data[f"key{number}".encode()] = value_of(f"key{number}")
        got = pipeline.execute(raise_on_error=False)
        assert got[1::2] == [value_of(f"key{number}") for number in range(6)]
        assert got[0 : 2 * nth - 2 : 2] == list(range(1, nth))
        assert all(isinstance(reply, hatopo.AmbiguousResultError) for reply in got[2 * nth - 2 :: 2])
        assert fake.executed[COUNT] == nth - 1


def test_a_batch_of_reads_is_sent_again_without_an_error() -> None:
    keys = [f"key{number}" for number in range(20)]
    size = sum(reply_size(value_of(key)) for key in keys)
    for cut in range(0, size, 13):
        with FaultyServer() as fake, client_of(fake) as client:
            fake.data = {key.encode(): value_of(key) for key in keys}
            fake.on("GET", nth=1).cut_reply(after_bytes=cut)
            pipeline = batch(client)
            for key in keys:
                pipeline.get(key)
            assert pipeline.execute() == [value_of(key) for key in keys], cut


def test_what_was_answered_is_kept_where_the_rest_cannot_be_had() -> None:
    with FaultyServer() as fake, client_of(fake, failover_timeout=0.2) as client:
        fake.on("GET").drop_before()
        first, second = batch(client).incr("n").get("a").execute(raise_on_error=False)
        assert first == 1
        assert isinstance(second, redis.ConnectionError)
        assert fake.executed[COUNT] == 1


@pytest.mark.parametrize("raising", [False, True])
def test_what_is_ambiguous_stays_so_where_the_rest_cannot_be_had(raising: bool) -> None:
    with FaultyServer() as fake, client_of(fake, failover_timeout=0.2) as client:
        fake.on(COUNT, nth=1).drop_after_execute()
        fake.on("GET").drop_before()
        pipeline = batch(client).incr("n").get("a")
        if raising:
            with pytest.raises(hatopo.AmbiguousResultError):
                pipeline.execute()
        else:
            first, second = pipeline.execute(raise_on_error=False)
            assert isinstance(first, hatopo.AmbiguousResultError)
            assert isinstance(second, redis.ConnectionError)
        assert fake.executed[COUNT] == 1


@PROTOCOLS
def test_a_transaction_cut_at_any_byte_is_executed_once(options: dict[str, Any]) -> None:
    says: list[Any] = [OK, QUEUED, QUEUED, QUEUED, [1, OK, value_of("b")]]
    size = sum(reply_size(one, **options) for one in says)
    for cut in range(size):
        with FaultyServer() as fake, client_of(fake, **options) as client:
            fake.data[b"b"] = value_of("b")
            fake.on("MULTI", nth=1).cut_reply(after_bytes=cut)
            pipeline = batch(client, transaction=True)
            pipeline.incr("n").set("a", "one").get("b")
            with pytest.raises(hatopo.AmbiguousResultError) as caught:
                pipeline.execute()
            assert caught.value.maybe_executed is True
            assert (fake.executed["EXEC"], fake.executed[COUNT]) == (1, 1), cut
            assert batch(client, transaction=True).incr("n").get("b").execute() == [2, value_of("b")]


def test_a_transaction_whose_reply_is_complete_is_answered() -> None:
    with FaultyServer() as fake, client_of(fake) as client:
        fake.on("EXEC", nth=1).cut_reply(after_bytes=reply_size([1, OK]))
        assert batch(client, transaction=True).incr("n").set("a", "one").execute() == [1, True]
        assert fake.executed["EXEC"] == 1


@pytest.mark.parametrize("name", ["MULTI", COUNT, "EXEC"])
def test_a_transaction_whose_connection_drops_before_a_command(name: str) -> None:
    with FaultyServer() as fake, client_of(fake) as client:
        fake.on(name, nth=1).drop_before()
        with pytest.raises(hatopo.AmbiguousResultError):
            batch(client, transaction=True).incr("n").execute()
        assert (fake.executed["EXEC"], fake.received["EXEC"]) == (0, int(name == "EXEC"))


def test_a_transaction_that_was_refused_as_a_whole_is_sent_again() -> None:
    with FaultyServer() as fake, client_of(fake) as client:
        fake.on(COUNT).error_once("LOADING Redis is loading the dataset in memory")
        assert batch(client, transaction=True).incr("n").set("a", "one").execute() == [1, True]
        assert (fake.received["EXEC"], fake.executed["EXEC"]) == (2, 1)


def test_a_watch_that_was_lost_is_never_ignored() -> None:
    with FaultyServer() as fake, client_of(fake) as client, batch(client, transaction=True) as pipeline:
        pipeline.watch("a")
        fake.idle_close()
        pipeline.multi()
        pipeline.incr("n")
        with pytest.raises(redis.RedisError) as caught:
            pipeline.execute()
        assert isinstance(caught.value, (redis.WatchError, redis.ConnectionError))
        assert fake.executed[COUNT] == 0


@pytest.mark.parametrize("transaction", [False, True])
def test_connections_closed_while_idle_cost_a_batch_no_error(transaction: bool) -> None:
    with FaultyServer() as fake, client_of(fake) as client:
        for number in range(1, 5):
            assert batch(client, transaction).incr("n").get("n").execute() == [number, b"%d" % number]
            fake.idle_close()
        assert fake.executed[COUNT] == 4


@pytest.mark.parametrize("push", [False, True])
@pytest.mark.parametrize("every", [0, 1, 3, 11])
@pytest.mark.parametrize("transaction", [False, True])
def test_split_replies_and_pushes_between_them(transaction: bool, every: int, push: bool) -> None:
    with FaultyServer() as fake, client_of(fake) as client:
        fake.data[b"b"] = value_of("b")
        if every:
            fake.on().split_reply(every=every)
        if push:
            fake.on().push_between()
        pipeline = batch(client, transaction)
        load(pipeline)
        assert pipeline.execute() == [seen for _, _, _, seen in BATCH]
        assert client.get("b") == value_of("b")
        assert fake.executed[COUNT] == 2
        assert push or fake.connections == 1


def test_an_error_inside_a_batch_stays_in_its_place() -> None:
    with FaultyServer() as fake, client_of(fake) as client:
        fake.on("APPEND", nth=1).error_once("WRONGTYPE this is the reason")
        pipeline = batch(client)
        load(pipeline)
        got = pipeline.execute(raise_on_error=False)
        assert [type(reply) for reply in got].count(redis.ResponseError) == 1
        assert isinstance(got[3], redis.ResponseError)
        assert [got[0], got[1], got[2], got[5]] == [True, 1, b"one", 2]


@pytest.mark.parametrize("fault", ["garbage", "huge_header"])
def test_what_is_no_reply_ends_the_batch_and_the_connection(fault: str) -> None:
    with FaultyServer() as fake, client_of(fake, retry_policy="never") as client:
        fake.data[b"k"] = value_of("k")
        getattr(fake.on("ECHO"), fault)()
        # Only the first header in what arrives is looked at: where it came with other replies, the silence tells.
        silent = fault == "huge_header"
        wanted = (redis.InvalidResponse, redis.ConnectionError, *((redis.TimeoutError,) if silent else ()))
        with pytest.raises(wanted):
            batch(client.using(deadline=1.0) if silent else client).get("k").incr("n").echo("a").get("k").execute()
        spoilt = fake.connections
        fake.heal()
        assert client.get("k") == value_of("k")
        assert fake.connections > spoilt
        assert fake.executed[COUNT] == 1
