"""What can go wrong, and what the caller may conclude from it.

Every error is a `redis.RedisError` and a sibling of what redis-py raises in its place, so that existing
`except` clauses keep working. None carries a password or an argument of a command.

    HatopoError (redis.RedisError)
    +-- OptionError (ValueError)                    bad input, before any I/O
    |   +-- UnknownOptionError (TypeError)          a keyword nobody knows
    +-- CallError                                   a command failed; `command`, `node`, `attempts`, `seconds`
    |   +-- AmbiguousResultError                    it may have been executed: `maybe_executed`
    |   |   +-- AmbiguousConnectionError (redis.ConnectionError)
    |   |   +-- AmbiguousTimeoutError (redis.TimeoutError)
    |   +-- NodeUnavailableError (redis.ConnectionError)    it was not executed: no node took it in time
    |   +-- NodeTimeoutError (redis.TimeoutError)           it was not executed, or was a read: time was up
    |   +-- NoSuitableNodeError (redis.ConnectionError)     a read: no node that `read_from` permits is fit; `refused`
    |   +-- TooManyWaitingError (redis.ConnectionError)     it was not executed: too many wait already
    +-- MasterNotFoundError (redis.sentinel.MasterNotFoundError)    nobody knows a master
    |   +-- ServiceUnknownError                     the sentinels do not know the service
    +-- PoolExhaustedError (redis.MaxConnectionsError)      `max_connections` are all in use
    +-- ConnectionStateError (redis.ResponseError)  a command that needs a connection of its own
    +-- NodeError                                   what happened on one connection: `node`; often the
        |                                           `__cause__` of one of the above
        +-- DialError, HandshakeError, RetiredError (redis.ConnectionError)
        +-- WrongRoleError (redis.ConnectionError)
        |   +-- WrongNodeError
        +-- LoginError (redis.AuthenticationError)
        +-- StateLostError (redis.ConnectionError)  a pinned connection ended with the state it had
        +-- NotSentError, ReplyLostError (redis.ConnectionError), ReplyTimeoutError (redis.TimeoutError)
        +-- ProtocolError (redis.InvalidResponse, redis.ConnectionError)    a reply is garbage, or too large
"""

from __future__ import annotations

from collections.abc import Mapping

import redis.exceptions as rx
from redis.sentinel import MasterNotFoundError as _RedisMasterNotFoundError


class HatopoError(rx.RedisError):
    """Everything that hatopo itself raises."""


class OptionError(HatopoError, ValueError):
    """An option, an address or a URL is wrong; nothing was sent."""


class UnknownOptionError(OptionError, TypeError):
    """A keyword or URL parameter that neither hatopo nor redis-py knows."""


class CallError(HatopoError):
    """A command that did not get its reply.

    Attributes:
        command: its name, never its arguments.
        node: the last node that was tried, or None.
        attempts: how many times it was tried.
        seconds: how long the call took.
        maybe_executed: whether the server may have executed it.
    """

    maybe_executed = False

    def __init__(
        self,
        message: str,
        *,
        command: str = "",
        node: str | None = None,
        attempts: int = 1,
        seconds: float = 0.0,
    ) -> None:
        super().__init__(message)
        self.command = command
        self.node = node
        self.attempts = attempts
        self.seconds = seconds


class AmbiguousResultError(CallError):
    """The command was sent, its reply was lost, and sending it again could apply it twice.

    The server may have executed it or not: read the data to find out, or declare the command repeatable
    (`retry_policy`).
    """

    maybe_executed = True


class AmbiguousConnectionError(AmbiguousResultError, rx.ConnectionError):
    """`AmbiguousResultError` after a lost connection."""


class AmbiguousTimeoutError(AmbiguousResultError, rx.TimeoutError):
    """`AmbiguousResultError` after a silence longer than `socket_timeout` or the deadline."""


class NodeUnavailableError(CallError, rx.ConnectionError):
    """No node took the command in time. It was not executed."""


class NodeTimeoutError(CallError, rx.TimeoutError):
    """Time was up before a reply. The command was not executed, or is a read."""


class NoSuitableNodeError(CallError, rx.ConnectionError):
    """No node that `read_from` permits can answer a read. Nothing was sent.

    Attributes:
        refused: for each node of the deployment, as "host:port", why it was not taken.
    """

    def __init__(self, message: str, *, command: str = "", refused: Mapping[str, str] | None = None) -> None:
        super().__init__(message, command=command)
        self.refused = dict(refused or {})


class MasterNotFoundError(HatopoError, _RedisMasterNotFoundError):
    """No sentinel that answered knows a master of this name."""


class ServiceUnknownError(MasterNotFoundError):
    """Every sentinel answered, and none watches a service of this name: it is misspelt."""


class TooManyWaitingError(CallError, rx.ConnectionError):
    """So many calls wait for a failover already (`max_waiting`) that this one was not tried again."""


class PoolExhaustedError(HatopoError, rx.MaxConnectionsError):
    """All `max_connections` of a node stayed in use until the caller's time was up."""


class ConnectionStateError(HatopoError, rx.ResponseError):
    """The command changes the state of its connection and would surprise the next user of a shared one."""


class NodeError(HatopoError):
    """Something happened on one connection.

    Attributes:
        node: the address at its other end.
    """

    def __init__(self, message: str, node: object = None) -> None:
        super().__init__(message)
        self.node = None if node is None else str(node)


class RetiredError(NodeError, rx.ConnectionError):
    """The connection was retired: its node left, or changed its role."""


class WrongRoleError(NodeError, rx.ConnectionError):
    """A node that should be the master says that it is a replica."""


class WrongNodeError(WrongRoleError):
    """A node is not the one that should be at its address: its run id is another."""


class DialError(NodeError, rx.ConnectionError):
    """A node could not be reached: refused, unreachable, unknown name, no answer to the handshake in time."""


class HandshakeError(NodeError, rx.ConnectionError):
    """A node was reached and will not have us: a TLS mismatch, a database number. Trying again is no use."""


class StateLostError(NodeError, rx.ConnectionError):
    """A pinned connection ended, and with it the state that commands had given it."""


class LoginError(NodeError, rx.AuthenticationError):
    """A node refused the credentials, or wants some."""


class NotSentError(NodeError, rx.ConnectionError):
    """A connection ended before everything was sent: the last command was not executed.

    Attributes:
        partly: some bytes were sent, so that earlier commands in the same write may have been executed.
    """

    partly = False


class ReplyLostError(NodeError, rx.ConnectionError):
    """A connection ended after the command was sent and before its reply was complete.

    Attributes:
        begun: bytes of the reply had come.
    """

    begun = False


class ReplyTimeoutError(NodeError, rx.TimeoutError):
    """A command was sent and its reply did not come in time.

    Attributes:
        begun: bytes of the reply had come.
    """

    begun = False


class ProtocolError(NodeError, rx.InvalidResponse, rx.ConnectionError):
    """The bytes of a reply are no RESP, or are over the limit; the connection was closed."""


def clip(text: object, limit: int = 200) -> str:
    """Foreign text for a message: control characters escaped, at most `limit` characters."""
    shown = str(text).encode("unicode_escape").decode("ascii")
    return shown if len(shown) <= limit else shown[:limit] + "..."


def about(node: object, why: str) -> str:
    """What is told of a node, for a message, with its name once."""
    return clip(why if f" {node}" in f" {why}" else f"{node}: {why}")


PUBLIC = (
    HatopoError,
    OptionError,
    UnknownOptionError,
    CallError,
    AmbiguousResultError,
    AmbiguousConnectionError,
    AmbiguousTimeoutError,
    NodeUnavailableError,
    NodeTimeoutError,
    NoSuitableNodeError,
    MasterNotFoundError,
    ServiceUnknownError,
    TooManyWaitingError,
    PoolExhaustedError,
    ConnectionStateError,
)
for _error in PUBLIC:
    _error.__module__ = "hatopo"  # tracebacks name the path that callers import
