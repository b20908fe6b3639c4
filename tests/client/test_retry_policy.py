"""What is sent again after a lost reply, as `retry_policy` says: per client, per call and per command."""

from __future__ import annotations

from typing import Any

import pytest
import redis

import hatopo
from tests.client.support import COUNT, batch, client_of, execute, value_of
from tests.faulty import FaultyServer

GET, SET, DEL, INCR = ("GET", "k"), ("SET", "k", "v"), ("DEL", "k"), ("INCR", "n")


def lose_a_reply(fake: FaultyServer, name: str) -> None:
    fake.data[b"k"] = value_of("k")
    fake.on(name, nth=1).drop_after_execute()


REPEATED = [
    ("safe", GET, value_of("k")),
    ("safe", SET, True),
    ("state", GET, value_of("k")),
    ("state", SET, True),
    ("state", DEL, 0),  # the state is right and the reply is that of the second time
    ("always", GET, value_of("k")),
    ("always", SET, True),
    ("always", DEL, 0),
    ("always", INCR, 2),  # redis-py's habit: counted twice
]
RAISED = [
    ("safe", DEL),
    ("safe", INCR),
    ("state", INCR),
    ("never", SET),
    ("never", DEL),
    ("never", INCR),
]


@pytest.mark.parametrize(("policy", "words", "seen"), REPEATED)
def test_what_a_policy_repeats(policy: str, words: tuple[str, ...], seen: Any) -> None:
    with FaultyServer() as fake, client_of(fake, retry_policy=policy) as client:
        lose_a_reply(fake, words[0])
        assert execute(client, *words) == seen
        assert fake.executed[words[0]] == 2


@pytest.mark.parametrize(("policy", "words"), RAISED)
def test_what_a_policy_does_not_repeat(policy: str, words: tuple[str, ...]) -> None:
    with FaultyServer() as fake, client_of(fake, retry_policy=policy) as client:
        lose_a_reply(fake, words[0])
        with pytest.raises(hatopo.AmbiguousResultError) as caught:
            execute(client, *words)
        assert isinstance(caught.value, redis.ConnectionError)
        assert caught.value.command == words[0]
        assert fake.executed[words[0]] == 1


def test_never_does_not_read_again_either() -> None:
    with FaultyServer() as fake, client_of(fake, retry_policy="never") as client:
        lose_a_reply(fake, "GET")
        with pytest.raises(redis.ConnectionError):
            client.get("k")
        assert fake.executed["GET"] == 1
        assert client.get("k") == value_of("k")


@pytest.mark.parametrize(("policy", "counted"), [("safe", 1), ("state", 1), ("always", 2), ("never", 1)])
def test_a_policy_holds_for_batches_too(policy: str, counted: int) -> None:
    with FaultyServer() as fake, client_of(fake, retry_policy=policy) as client:
        lose_a_reply(fake, "INCR")
        pipeline = batch(client)
        pipeline.execute_command("INCR", "n")
        if counted == 2:
            assert pipeline.execute() == [2]
        else:
            with pytest.raises(hatopo.AmbiguousResultError):
                pipeline.execute()
        assert fake.executed["INCR"] == counted


@pytest.mark.parametrize("policy", ["safe", "state", "never"])
def test_a_transaction_is_never_repeated(policy: str) -> None:
    with FaultyServer() as fake, client_of(fake, retry_policy=policy) as client:
        lose_a_reply(fake, "EXEC")
        with pytest.raises(hatopo.AmbiguousResultError):
            batch(client, transaction=True).incr("n").execute()
        assert (fake.executed["EXEC"], fake.executed[COUNT]) == (1, 1)


@pytest.mark.parametrize("policy", ["safe", "state", "always", "never"])
def test_what_was_not_executed_is_sent_again_under_every_policy(policy: str) -> None:
    with FaultyServer() as fake, client_of(fake, retry_policy=policy) as client:
        assert client.incr("n") == 1
        fake.idle_close()
        assert client.incr("n") == 2
        assert fake.executed[COUNT] == 2


def test_a_policy_of_one_call() -> None:
    with FaultyServer() as fake, client_of(fake) as client:
        lose_a_reply(fake, "INCR")
        assert execute(client.using(retry_policy="always"), "INCR", "n") == 2
        fake.on("INCR", nth=1).drop_after_execute()
        with pytest.raises(hatopo.AmbiguousResultError):
            execute(client, "INCR", "n")


@pytest.mark.parametrize("policy", ["sometimes", "", 3])
def test_a_policy_that_does_not_exist_is_refused(policy: Any) -> None:
    with pytest.raises(ValueError, match="retry_policy"):
        hatopo.standalone("127.0.0.1", 6379, retry_policy=policy)
