"""The error that a caller gets when a call has ended without its reply: what, where, how long, what to do."""

from __future__ import annotations

from typing import Any

import redis.exceptions as rx

from hatopo import errors
from hatopo.routing import Attempt, CommandClass, Verdict

_ADVICE = {
    Verdict.TIME_UP: "raise failover_timeout (or the deadline) if the application can wait longer",
    Verdict.ATTEMPTS_UP: "retry= or retry_policy= allows no more attempts",
    Verdict.BUDGET_UP: "the retry budget is used up: the node answers too few of the commands that reach it",
}


def ambiguous(
    command: str, error: Exception, *, attempts: int = 1, seconds: float = 0.0, tried: str = ""
) -> errors.AmbiguousResultError:
    """The error for a command that may have been executed, after `error` ended its connection.

    `tried`: how it was sent again, where it may be.
    """
    late = isinstance(error, rx.TimeoutError)
    kind = errors.AmbiguousTimeoutError if late else errors.AmbiguousConnectionError
    why = f"It was not sent again, because a second {command} could apply twice"
    advice = "retry_policy= says what may be repeated"
    if tried:
        why, advice = "It was tried again, and has got no reply", tried
    message = f"{command} may have been executed: {error}. {why}. Read the data to find out; {advice}."
    found = kind(message, command=command, node=node_of(error), attempts=attempts, seconds=seconds)
    found.__cause__ = error
    return found


def final_error(
    command: str, error: Exception, kind: CommandClass, verdict: Verdict, attempt: Attempt, now: float
) -> Exception:
    """What to raise for a call that ends with `verdict` after `error`."""
    if verdict is Verdict.FINAL:
        return error
    seconds = now - attempt.started
    times = "once" if attempt.failures == 1 else f"{attempt.failures} times"
    tried = f"tried {times} in {seconds:.2f} s; {_ADVICE.get(verdict, 'retry_policy= allows no second attempt')}"
    if attempt.maybe_executed or (verdict is Verdict.AMBIGUOUS and kind is not CommandClass.READ):
        repeated = verdict is not Verdict.AMBIGUOUS and attempt.failures > 1
        return ambiguous(command, error, attempts=attempt.failures, seconds=seconds, tried=tried if repeated else "")
    if not isinstance(error, errors.HatopoError) or isinstance(error, errors.MasterNotFoundError):
        return error  # what the server replied last, or what the sentinels said
    late = isinstance(error, rx.TimeoutError) or (verdict is Verdict.TIME_UP and attempt.hurried)
    shape = errors.NodeTimeoutError if late else errors.NodeUnavailableError
    message = f"{command} got no reply: {error} ({tried})"
    found = shape(message, command=command, node=node_of(error), attempts=attempt.failures, seconds=seconds)
    found.__cause__ = error
    return found


def node_of(error: BaseException) -> str | None:
    """The node that an error is about, where it says."""
    node = getattr(error, "node", None)
    return None if node is None else str(node)


def state_error(command: str) -> errors.ConnectionStateError:
    """The refusal of a command that would change a shared connection under its next user."""
    return errors.ConnectionStateError(
        f"{command} changes the state of its connection, and this client shares its connections: "
        "use client.client() for a connection of its own (for pub/sub, pubsub(); for a database, db=)"
    )


def callback_options(options: dict[str, Any]) -> dict[str, Any]:
    """What of a command's options its response callback takes."""
    if not options:
        return options
    return {name: value for name, value in options.items() if name not in _NOT_FOR_CALLBACKS}


_NOT_FOR_CALLBACKS = frozenset({"keys", "NEVER_DECODE", "EMPTY_RESPONSE"})
