"""What a failure means: its cause, and whether the command may have been executed.

Decides the outcome of one attempt from the exception that ended it, or from the error that the server
replied. Knows nothing of retries, time or connections.

The three outcomes: *not executed* (nothing complete was sent, or the server refused it), *ambiguous* (it was
sent, no complete reply came), *executed* (a complete reply came, even if that is an error).
"""

from __future__ import annotations

import enum
from dataclasses import dataclass

import redis.exceptions as rx

from hatopo import errors


class Outcome(enum.Enum):
    """What the server may have done."""

    NOT_EXECUTED = "not executed"
    AMBIGUOUS = "ambiguous"
    EXECUTED = "executed"


class Cause(enum.Enum):
    """Why an attempt failed."""

    NO_MASTER = "no master is known"
    UNREACHABLE = "node unreachable"
    EXHAUSTED = "all connections in use"
    NOT_SENT = "connection ended before the command was sent"
    REPLY_LOST = "connection ended before the reply"
    SILENCE = "no reply in time"
    GARBAGE = "reply was no RESP"
    WRONG_ROLE = "node is not the master"
    READONLY = "node is a read-only replica"
    NO_REPLICAS = "master has too few replicas"
    LOADING = "node is loading"
    MASTER_DOWN = "replica lost its master"
    CLUSTER_DOWN = "cluster is down"
    TRY_AGAIN = "slot is migrating"
    MOVED = "slot has moved"
    ASK = "slot is moving"
    MAX_CLIENTS = "node takes no more clients"
    UNBLOCKED = "blocking command was interrupted by a role change"
    NO_SCRIPT = "script is not loaded"
    REFUSED = "server refused us"
    ERROR_REPLY = "server replied with an error"


@dataclass(frozen=True, slots=True)
class Failure:
    """How one attempt ended."""

    cause: Cause
    outcome: Outcome
    error: Exception


_BY_TYPE: tuple[tuple[type[Exception], Cause, Outcome], ...] = (
    # Our own, from connections and pools.
    (errors.ServiceUnknownError, Cause.REFUSED, Outcome.EXECUTED),
    (errors.MasterNotFoundError, Cause.NO_MASTER, Outcome.NOT_EXECUTED),
    (errors.NoSuitableNodeError, Cause.REFUSED, Outcome.EXECUTED),
    (errors.PoolExhaustedError, Cause.EXHAUSTED, Outcome.EXECUTED),
    (errors.WrongRoleError, Cause.WRONG_ROLE, Outcome.NOT_EXECUTED),
    (errors.HandshakeError, Cause.REFUSED, Outcome.EXECUTED),
    (errors.StateLostError, Cause.REFUSED, Outcome.EXECUTED),
    (errors.DialError, Cause.UNREACHABLE, Outcome.NOT_EXECUTED),
    (errors.NotSentError, Cause.NOT_SENT, Outcome.NOT_EXECUTED),
    (errors.RetiredError, Cause.NOT_SENT, Outcome.NOT_EXECUTED),
    (errors.ProtocolError, Cause.GARBAGE, Outcome.AMBIGUOUS),
    (errors.ReplyLostError, Cause.REPLY_LOST, Outcome.AMBIGUOUS),
    (errors.ReplyTimeoutError, Cause.SILENCE, Outcome.AMBIGUOUS),
    # A redirect is final for a deployment without slots: only a Cluster can follow it.
    # The server's, by the type that redis-py's parser gives them.
    (rx.ReadOnlyError, Cause.READONLY, Outcome.NOT_EXECUTED),
    (rx.BusyLoadingError, Cause.LOADING, Outcome.NOT_EXECUTED),
    (rx.MasterDownError, Cause.MASTER_DOWN, Outcome.NOT_EXECUTED),
    (rx.MovedError, Cause.MOVED, Outcome.EXECUTED),
    (rx.AskError, Cause.ASK, Outcome.EXECUTED),
    (rx.TryAgainError, Cause.TRY_AGAIN, Outcome.NOT_EXECUTED),
    (rx.ClusterDownError, Cause.CLUSTER_DOWN, Outcome.NOT_EXECUTED),
    (rx.NoScriptError, Cause.NO_SCRIPT, Outcome.NOT_EXECUTED),
    (rx.AuthenticationError, Cause.REFUSED, Outcome.EXECUTED),
)
_BY_TEXT: tuple[tuple[str, Cause], ...] = (
    # Errors that the parser gives no type of their own, or that hide behind an "ERR " prefix.
    ("NOREPLICAS ", Cause.NO_REPLICAS),
    ("READONLY ", Cause.READONLY),
    ("UNBLOCKED ", Cause.UNBLOCKED),
    ("LOADING ", Cause.LOADING),
    ("MASTERDOWN ", Cause.MASTER_DOWN),
    ("max number of clients reached", Cause.MAX_CLIENTS),
)
_ABORTED = "Transaction discarded because of: "


_REFUSALS = (
    "You can't write against a read only replica.",
    "Not enough good replicas to write.",
    "Redis is loading the dataset in memory",
    "Link with MASTER is down and replica-serve-stale-data is set to 'no'.",
    "The cluster is down",
    "Multiple keys request during rehashing of slot",
    "No matching script. Please use EVAL.",
    "max number of clients reached",
)
"""What the server itself says when it executes nothing. A script may say anything that begins with the same code."""


def runs_code(name: str) -> bool:
    """Whether a command runs code of the user's on the server, whose errors may look like the server's."""
    return name.startswith(("EVAL", "FCALL"))


def failure_of(error: Exception, *, scripted: bool = False) -> Failure:
    """The meaning of `error`, which a connection raised or a server replied.

    EXECUTED stands for every failure that is final: the server did answer, or will not have us.

    Args:
        error: what was raised or replied.
        scripted: the command runs code of the user's. Its errors count as refusals only in the server's own words:
            a script that a read-only replica stopped at its first write has changed nothing; one that failed for
            another reason may have.
    """
    failure = _meaning(error)
    if scripted and failure.outcome is Outcome.NOT_EXECUTED and not isinstance(error, errors.HatopoError):
        text = str(error)
        inside = "script:" in text and failure.cause is not Cause.READONLY
        if inside or not any(refusal in text for refusal in _REFUSALS):
            return Failure(Cause.ERROR_REPLY, Outcome.EXECUTED, error)
    return failure


def node_is_busy(error: Exception) -> bool:
    """Whether a node has executed nothing because a script keeps it: another node may answer a read."""
    return isinstance(error, rx.ResponseError) and str(error).startswith("BUSY ")


def _meaning(error: Exception) -> Failure:
    for kind, cause, outcome in _BY_TYPE:
        if isinstance(error, kind):
            return Failure(cause, outcome, error)
    text = str(error)
    if isinstance(error, rx.ExecAbortError):
        text = text.partition(_ABORTED)[2]  # Redis 7: the reason that refused EXEC stands behind it
    for prefix, cause in _BY_TEXT:
        if text.startswith(prefix):
            return Failure(cause, Outcome.NOT_EXECUTED, error)
    if isinstance(error, (rx.ConnectionError, rx.TimeoutError)):
        return Failure(Cause.REPLY_LOST, Outcome.AMBIGUOUS, error)
    return Failure(Cause.ERROR_REPLY, Outcome.EXECUTED, error)
