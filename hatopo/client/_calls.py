"""What is asked of a connection: one command, a pipeline, a transaction.

A call knows how to perform itself on a connection that it is given, what may be sent again, and what is left to
do after part of it was answered. It does not know which node it goes to, nor when it is tried again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any, Protocol, TypeAlias

import redis.exceptions as rx

from hatopo.client._outcome import ambiguous
from hatopo.connection import COMPLETE, Patience, Wire, chunks, split_name
from hatopo.errors import NotSentError
from hatopo.routing import (
    Cause,
    CommandClass,
    Facts,
    Outcome,
    Policies,
    RetryPolicy,
    blocking_seconds,
    classify,
    facts_of,
    failure_of,
    with_timeout,
)

NEVER_DECODE = "NEVER_DECODE"  # redis-py's option for replies that are binary, and just its presence counts
BLOCKING_GRACE = 1.0
"""Seconds that a blocking command's reply may come after the server's own timeout."""
CHUNK = 65536
SAFE = (CommandClass.READ, CommandClass.REPEATABLE)
Command: TypeAlias = "tuple[tuple[Any, ...], dict[str, Any]]"
Scripts: TypeAlias = "Mapping[str, Script]"


@dataclass(frozen=True, slots=True)
class Script:
    """What is known of a script: its source, to load it where it is missing, and the class its author gave it."""

    source: bytes | str
    kind: CommandClass


class Call(Protocol):
    """What the driver needs of a call."""

    name: str

    @property
    def delicate(self) -> bool:
        """Whether a lost reply may be an error, so that its connection is to be checked before use."""

    def kind(self) -> CommandClass:
        """The class of what is still to be done."""

    def policy(self, policies: Policies) -> RetryPolicy:
        """The retry policy of it."""

    def first_key(self) -> bytes | None:
        """The key that decides where it goes."""

    def perform(self, connection: Wire, deadline: float) -> Any:
        """Sends what is still to be done and returns the result; an error reply is returned, not raised."""

    def salvage(self, error: Exception, policies: Policies) -> Any | None:
        """The connection failed underway: the result, if everything has one all the same, else None."""

    def missing_script(self, scripts: Scripts) -> Script | None:
        """The script to load before it is tried again, after NOSCRIPT."""


def key_of(args: Sequence[Any], facts: Facts) -> bytes | None:
    """The first key of a command, where its position is fixed."""
    words = len(split_name(args[0])) - 1
    position = facts.first_key - words
    if facts.first_key < 1 or position >= len(args):
        return None
    key = args[position]
    return bytes(key) if isinstance(key, (bytes, bytearray, memoryview)) else str(key).encode()


def kind_of(args: Sequence[Any], facts: Facts, scripts: Scripts) -> CommandClass:
    """The class of a command; scripts count as what they were declared to be."""
    if facts.name in ("EVALSHA", "EVAL") and len(args) > 1:
        sha = args[1].decode("ascii", "replace") if isinstance(args[1], bytes) else str(args[1])
        script = scripts.get(sha)
        if script is not None:
            return script.kind
    return classify(args, facts)


class SingleCall:
    """One command."""

    def __init__(
        self,
        args: tuple[Any, ...],
        facts: Facts,
        scripts: Scripts,
        *,
        decode: bool = True,
        kind: CommandClass | None = None,
    ) -> None:
        self.name = facts.name
        self._kind = kind
        self._args = args
        self._facts = facts
        self._scripts = scripts
        self._decode = decode
        seconds = blocking_seconds(args, facts)
        self._blocks_until = None if seconds is None else monotonic() + (seconds or float("inf"))
        self._tries = 0

    @property
    def delicate(self) -> bool:
        return self._facts.kind not in SAFE

    def kind(self) -> CommandClass:
        return self._kind or kind_of(self._args, self._facts, self._scripts)

    def policy(self, policies: Policies) -> RetryPolicy:
        return policies.of_command(self.name)

    def first_key(self) -> bytes | None:
        return key_of(self._args, self._facts)

    def perform(self, connection: Wire, deadline: float) -> Any:
        args, patience = self._args, Patience(connection.patience.silence, deadline)
        if self._blocks_until is not None:
            left = self._blocks_until - monotonic()
            if self._tries and self._blocks_until != float("inf"):
                args = with_timeout(args, self._facts, max(left, 0.001))
            patience = Patience(max(left, 0.0) + BLOCKING_GRACE, deadline)
        self._tries += 1
        connection.send(connection.pack(args), patience)
        return connection.read(patience, decode=self._decode)

    def salvage(self, error: Exception, policies: Policies) -> Any | None:
        return None

    def missing_script(self, scripts: Scripts) -> Script | None:
        return _script_of(self._args, self._facts, scripts)


def _script_of(args: Sequence[Any], facts: Facts, scripts: Scripts) -> Script | None:
    if facts.name not in ("EVALSHA", "EVALSHA_RO") or len(args) < 2:
        return None
    sha = args[1].decode("ascii", "replace") if isinstance(args[1], bytes) else str(args[1])
    return scripts.get(sha)


class BatchCall:
    """A pipeline without a transaction: each command has an outcome of its own.

    When the connection fails underway, what was answered keeps its reply, what was never sent goes to the next
    connection, and what was sent without an answer is judged by its class: reads are sent again; writes are,
    too, if every unanswered write may be; else each unanswered write gets an AmbiguousResultError, because
    sending one of them again behind the others could undo them. What a node refused is tried again together with
    the reads behind it, so that the order stays; if a write behind it was executed, the refusal stands.
    """

    name = "PIPELINE"
    delicate = True

    def __init__(self, commands: Sequence[Command], scripts: Scripts) -> None:
        self._commands = commands
        self._scripts = scripts
        self._facts: dict[int, Facts] = {}
        self._pending: list[int] = list(range(len(commands)))  # indices of commands without a final result
        self._results: list[Any] = [None] * len(commands)
        self._sent = 0  # how many of the pending ones were sent whole in the last attempt
        self._sending = 0  # how many are in the piece that was being sent
        self._replies: list[Any] = []  # and what came back

    def _facts_of(self, index: int) -> Facts:
        facts = self._facts.get(index)
        if facts is None:
            facts = self._facts[index] = facts_of(self._commands[index][0])
        return facts

    def _kind(self, index: int) -> CommandClass:
        return kind_of(self._commands[index][0], self._facts_of(index), self._scripts)

    def kind(self) -> CommandClass:
        kinds = [self._kind(index) for index in self._pending]
        return max(kinds, key=_RISK.index, default=CommandClass.READ)

    def policy(self, policies: Policies) -> RetryPolicy:
        return policies.default

    def first_key(self) -> bytes | None:
        for index in self._pending:
            key = key_of(self._commands[index][0], self._facts_of(index))
            if key is not None:
                return key
        return None

    def perform(self, connection: Wire, deadline: float) -> Any:
        self._sent, self._replies = 0, []
        patience = Patience(connection.patience.silence, deadline)
        commands = self._commands
        pieces = chunks([commands[index][0] for index in self._pending], connection.pack, CHUNK)
        for count, data in list(pieces):
            self._sending = count
            connection.send(data, patience)
            self._sent += count
        if [None for index in self._pending if NEVER_DECODE in commands[index][1]]:
            for index in self._pending:
                decode = NEVER_DECODE not in commands[index][1]
                connection.read_into(self._replies, 1, patience, decode=decode)
        else:
            connection.read_into(self._replies, len(self._pending), patience)
        return self._sort_out()

    def _sort_out(self) -> Any:
        """Keeps final replies; returns the results, or an error if some commands must be tried again."""
        if len(self._replies) == len(self._commands) and COMPLETE.issuperset(map(type, self._replies)):
            self._pending, self._results = [], self._replies  # the usual case: all answered, no error among them
            return self._results
        answered = self._pending[: len(self._replies)]
        for index, reply in zip(answered, self._replies, strict=True):
            self._results[index] = reply
        again: list[int] = []  # refused, or a read behind a refused one: they are tried again in order
        behind: list[int] = []  # reads, seen from the end
        for index in reversed(answered):
            if self._refused(index):
                again = [index, *reversed(behind), *again]
                behind = []
            elif self._kind(index) is CommandClass.READ:
                behind.append(index)
            else:
                break  # a write was executed: what stands before it cannot be executed in order any more
        self._pending = again + self._pending[len(answered) :]
        refusals = (self._results[index] for index in again if self._refused(index))
        return next(refusals, self._results)

    def _refused(self, index: int) -> bool:
        """Whether a command got the answer that it was not executed, and may get a better one."""
        result = self._results[index]
        if not isinstance(result, Exception):
            return False
        failure = failure_of(result)
        healable = failure.cause is not Cause.NO_SCRIPT or self._script(index) is not None
        return failure.outcome is Outcome.NOT_EXECUTED and healable

    def salvage(self, error: Exception, policies: Policies) -> Any | None:
        sent = len(self._pending)
        if isinstance(error, NotSentError):
            sent = self._sent + (max(0, self._sending - 1) if error.partly else 0)
        unsent = self._pending[sent:]
        self._pending = self._pending[:sent]
        self._sort_out()
        again = self._pending
        writes = [index for index in again if self._kind(index) is not CommandClass.READ]
        if not all(self._may_repeat(index, policies) for index in writes):
            for index in writes:
                self._results[index] = ambiguous(self._facts_of(index).name, error)
            again = [index for index in again if index not in set(writes)]
        for index in [index for index in again if not self._may_repeat(index, policies)]:
            self._results[index] = error  # a read, and nothing is repeated (retry_policy "never")
            again.remove(index)
        self._pending = [*again, *unsent]
        return None if self._pending else self._results

    def settle(self, error: Exception) -> list[Any]:
        """The results when the rest cannot be had because of `error`: what was answered keeps its reply.

        Raises:
            error: nothing has a result.
        """
        if len(self._pending) == len(self._commands):
            raise error
        for index in self._pending:
            self._results[index] = error
        return self._results

    def _may_repeat(self, index: int, policies: Policies) -> bool:
        return policies.of_command(self._facts_of(index).name).repeats(self._kind(index))

    def _script(self, index: int) -> Script | None:
        return _script_of(self._commands[index][0], self._facts_of(index), self._scripts)

    def missing_script(self, scripts: Scripts) -> Script | None:
        for index in self._pending:
            result = self._results[index]
            if isinstance(result, rx.NoScriptError):
                return self._script(index)
        return None


_RISK = (CommandClass.READ, CommandClass.REPEATABLE, CommandClass.STATE_STABLE, CommandClass.NON_IDEMPOTENT)


class TransactionCall:
    """MULTI, the commands and EXEC in one write. EXEC is never sent twice.

    The server executes nothing before it has the whole EXEC, so a connection that ended during the write has
    executed nothing; once all was sent, only EXEC's reply tells.
    """

    name = "EXEC"
    delicate = True

    def __init__(self, commands: Sequence[tuple[Any, ...]]) -> None:
        self._commands = commands

    def kind(self) -> CommandClass:
        return CommandClass.NON_IDEMPOTENT

    def policy(self, policies: Policies) -> RetryPolicy:
        policy = policies.of_command(self.name)
        return RetryPolicy.SAFE if policy is RetryPolicy.ALWAYS else policy

    def first_key(self) -> bytes | None:
        for args in self._commands:
            key = key_of(args, facts_of(args))
            if key is not None:
                return key
        return None

    def perform(self, connection: Wire, deadline: float) -> Any:
        """Returns (replies to the commands' queueing, the reply to EXEC), or the error that refused it whole."""
        patience = Patience(connection.patience.silence, deadline)
        pack = connection.pack
        data = b"".join([pack(("MULTI",)), *(pack(args) for args in self._commands), pack(("EXEC",))])
        connection.send(data, patience)
        replies: list[Any] = []
        connection.read_into(replies, len(self._commands) + 2, patience)
        queued, outcome = replies[:-1], replies[-1]
        if isinstance(outcome, Exception):
            for reply in (*queued, outcome):
                if isinstance(reply, Exception) and failure_of(reply).outcome is Outcome.NOT_EXECUTED:
                    return reply
        return queued, outcome

    def salvage(self, error: Exception, policies: Policies) -> Any | None:
        return None

    def missing_script(self, scripts: Scripts) -> Script | None:
        return None
