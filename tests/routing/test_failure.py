"""What errors mean, from the words that real servers use."""

from __future__ import annotations

from typing import Any

import pytest
import redis.exceptions as rx
from redis.connection import DefaultParser

from hatopo import errors
from hatopo.routing import Cause, Outcome, failure_of, slot_of

REPLIES = [
    ("READONLY You can't write against a read only replica.", Cause.READONLY, Outcome.NOT_EXECUTED),
    ("ERR READONLY You can't write against a read only replica.", Cause.READONLY, Outcome.NOT_EXECUTED),
    ("NOREPLICAS Not enough good replicas to write.", Cause.NO_REPLICAS, Outcome.NOT_EXECUTED),
    ("LOADING Redis is loading the dataset in memory", Cause.LOADING, Outcome.NOT_EXECUTED),
    (
        "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
        Cause.MASTER_DOWN,
        Outcome.NOT_EXECUTED,
    ),
    ("CLUSTERDOWN The cluster is down", Cause.CLUSTER_DOWN, Outcome.NOT_EXECUTED),
    ("TRYAGAIN Multiple keys request during rehashing of slot", Cause.TRY_AGAIN, Outcome.NOT_EXECUTED),
    ("ERR max number of clients reached", Cause.MAX_CLIENTS, Outcome.NOT_EXECUTED),
    (
        "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)",
        Cause.UNBLOCKED,
        Outcome.NOT_EXECUTED,
    ),
    (
        "EXECABORT Transaction discarded because of: READONLY You can't write against a read only replica.",
        Cause.READONLY,
        Outcome.NOT_EXECUTED,
    ),
    ("NOSCRIPT No matching script. Please use EVAL.", Cause.NO_SCRIPT, Outcome.NOT_EXECUTED),
    ("EXECABORT Transaction discarded because of previous errors.", Cause.ERROR_REPLY, Outcome.EXECUTED),
    ("WRONGPASS invalid username-password pair or user is disabled.", Cause.REFUSED, Outcome.EXECUTED),
    ("NOAUTH Authentication required.", Cause.REFUSED, Outcome.EXECUTED),
    ("NOPERM this user has no permissions to run the 'get' command", Cause.ERROR_REPLY, Outcome.EXECUTED),
    ("OOM command not allowed when used memory > 'maxmemory'.", Cause.ERROR_REPLY, Outcome.EXECUTED),
    (
        "MISCONF Redis is configured to save RDB snapshots, but it's currently unable to persist to disk.",
        Cause.ERROR_REPLY,
        Outcome.EXECUTED,
    ),
    ("BUSY Redis is busy running a script.", Cause.ERROR_REPLY, Outcome.EXECUTED),
    (
        "WRONGTYPE Operation against a key holding the wrong kind of value",
        Cause.ERROR_REPLY,
        Outcome.EXECUTED,
    ),
    ("MOVED 3999 127.0.0.1:6381", Cause.MOVED, Outcome.EXECUTED),
]


@pytest.mark.parametrize(("reply", "cause", "outcome"), REPLIES, ids=[reply[:40] for reply, _, _ in REPLIES])
def test_replies_of_servers(reply: str, cause: Cause, outcome: Outcome) -> None:
    """Through redis-py's own parser, so that a change of its error types shows here."""
    parser: Any = DefaultParser
    failure = failure_of(parser.parse_error(reply))
    assert (failure.cause, failure.outcome) == (cause, outcome)


@pytest.mark.parametrize(
    ("error", "outcome"),
    [
        (errors.DialError("refused"), Outcome.NOT_EXECUTED),
        (errors.NotSentError("reset"), Outcome.NOT_EXECUTED),
        (errors.WrongRoleError("replica"), Outcome.NOT_EXECUTED),
        (errors.MasterNotFoundError("none"), Outcome.NOT_EXECUTED),
        (errors.ReplyLostError("reset"), Outcome.AMBIGUOUS),
        (errors.ReplyTimeoutError("late"), Outcome.AMBIGUOUS),
        (errors.ProtocolError("garbage"), Outcome.AMBIGUOUS),
        (rx.ConnectionError("anything else"), Outcome.AMBIGUOUS),
        (rx.TimeoutError("anything else"), Outcome.AMBIGUOUS),
        (errors.HandshakeError("TLS"), Outcome.EXECUTED),
        (errors.ServiceUnknownError("misspelt"), Outcome.EXECUTED),
        (errors.PoolExhaustedError("all in use"), Outcome.EXECUTED),
        (rx.DataError("bool"), Outcome.EXECUTED),
    ],
)
def test_errors_of_connections(error: Exception, outcome: Outcome) -> None:
    assert failure_of(error).outcome is outcome


@pytest.mark.parametrize(
    ("key", "slot"),
    [(b"123456789", 12739), (b"{user1000}.following", 3443), (b"{user1000}.followers", 3443), (b"", 0)],
)
def test_slots_of_the_specification(key: bytes, slot: int) -> None:
    assert slot_of(key) == slot


def test_hash_tags_of_the_specification() -> None:
    assert slot_of(b"foo{}{bar}") != slot_of(b"bar")
    assert slot_of(b"foo{{bar}}zap") == slot_of(b"{bar")
    assert slot_of(b"foo{bar}{zap}") == slot_of(b"bar")
