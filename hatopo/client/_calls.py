"""What is asked of a connection: one command, a pipeline, a transaction. Values and decisions, no I/O.

A call gives the bytes to send and takes the replies; it knows what may be sent again, and what is left to do after
part of it was answered. It does not know which node it goes to, nor when it is tried again, nor whether a thread or
an event loop carries it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import redis.exceptions as rx

from hatopo.address import Address
from hatopo.client._outcome import ambiguous
from hatopo.connection import COMPLETE, Pack, Patience, chunks, split_name
from hatopo.errors import NotSentError, ReplyLostError, ReplyTimeoutError
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
    may_read_elsewhere,
    node_is_busy,
    runs_code,
    with_timeout,
)

if TYPE_CHECKING:
    from hatopo.client._plans import Reader
    from hatopo.client._terms import Pin

NEVER_DECODE = "NEVER_DECODE"  # redis-py's option for replies that are binary, and just its presence counts
BLOCKING_GRACE = 1.0
"""Seconds that a blocking command's reply may come after the server's own timeout."""
IN_VAIN = 0.1
"""Seconds without a reply after which a blocking command was waiting, and had found nothing to take."""
CHUNK = 65536
SAFE = (CommandClass.READ, CommandClass.REPEATABLE)
Command: TypeAlias = "tuple[tuple[Any, ...], dict[str, Any]]"
Scripts: TypeAlias = "Mapping[str, Script]"


@dataclass(frozen=True, slots=True)
class Script:
    """What is known of a script: its source, to load it where it is missing, and the class its author gave it."""

    source: bytes | str
    kind: CommandClass


class Call:
    """One attempt after the other: `begin`, then send each piece and count it, then read into `replies`.

    Attributes:
        name: for messages.
        delicate: whether a lost reply may be an error, so that its connection is to be checked before use.
        scripted: whether its errors may come from code of the user's that the server runs.
        sending: commands in the piece that is being sent; set by who sends.
        sent: commands in the pieces that were sent whole; likewise.
        replies: what came back in this attempt; filled by who reads.
        reader: by whose policy it is read, or None: the master answers it.
        at: the node that was tried last, if it is read.
        tried: the nodes that were, since it has last waited.
        others: nodes were left to try.
        next: the node to try next, where it matters.
        pin: the one node that it must go to.
    """

    name = ""
    delicate = True
    scripted = False
    reader: Reader | None = None
    at: Address | None = None
    others = False
    next: Address | None = None
    pin: Pin | None = None

    def __init__(self) -> None:
        self.sending = self.sent = 0
        self.replies: list[Any] = []
        self.tried: set[Address] = set()

    def begin(self, pack: Pack, now: float) -> list[tuple[int, bytes]]:
        """What to send: pieces, each with the number of commands in it."""
        del now
        self.sending = self.sent = 0
        self.replies = []
        return list(chunks(self.commands(), pack, CHUNK))

    def commands(self) -> Iterable[tuple[Any, ...]]:
        """The commands that are still to be done."""
        return ()

    def patience(self, silence: float, deadline: float, now: float) -> Patience:
        """How long to wait for the replies of a connection that may be silent for `silence` seconds."""
        del now
        return Patience(silence, deadline)

    def decoding(self) -> Sequence[bool]:
        """For each expected reply, whether it may be decoded."""
        return [True for _ in self.commands()]

    def result(self) -> Any:
        """What the replies amount to. A refusal after which it must be tried again is returned as that error."""
        return None

    def kind(self) -> CommandClass:
        """The class of what is still to be done."""
        return CommandClass.READ

    def waited(self, error: Exception, now: float) -> bool:
        """Whether it had waited for an element in vain when `error` ended its connection: no byte of a reply came."""
        del error, now
        return False

    def policy(self, policies: Policies) -> RetryPolicy:
        """The retry policy of it."""
        return policies.default

    def first_key(self) -> bytes | None:
        """The key that decides where it goes."""
        return None

    def failed_at(self, node: Address | None) -> None:
        """A first attempt was made at this node, and has failed."""
        if node is not None:
            self.at, self.others = node, self.reader is not None
            self.tried.add(node)

    def salvage(self, error: Exception, policies: Policies) -> Any | None:
        """The connection failed underway: the result, if everything has one all the same, else None."""
        return None

    def missing_script(self) -> Script | None:
        """The script to load before it is tried again, after NOSCRIPT."""
        return None


class Borrow(Call):
    """The call that only wants a connection."""

    name = "connecting"
    delicate = False


class SingleCall(Call):
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
        super().__init__()
        self.name = facts.name
        self.delicate = facts.kind not in SAFE
        self.scripted = runs_code(facts.name)
        self._args = args
        self._facts = facts
        self._scripts = scripts
        self._decode = decode
        self._kind = kind
        self._blocks = blocking_seconds(args, facts)
        self._blocks_until: float | None = None  # known once it was first sent
        self._begun = 0.0  # the attempt under way

    def begin(self, pack: Pack, now: float) -> list[tuple[int, bytes]]:
        self.sending = self.sent = 0
        self.replies = []
        args = self._args
        self._begun = now
        if self._blocks is not None and self._blocks_until is None:
            self._blocks_until = now + (self._blocks or float("inf"))
        elif self._blocks:  # again, with the time that is left
            args = with_timeout(args, self._facts, max(self._until() - now, 0.001))
        return [(1, pack(args))]

    def commands(self) -> Iterable[tuple[Any, ...]]:
        return (self._args,)

    def _until(self) -> float:
        return float("inf") if self._blocks_until is None else self._blocks_until

    def patience(self, silence: float, deadline: float, now: float) -> Patience:
        if self._blocks is None:
            return Patience(silence, deadline)
        return Patience(max(self._until() - now, 0.0) + BLOCKING_GRACE, deadline, calm=True)

    def decoding(self) -> Sequence[bool]:
        return (self._decode,)

    def result(self) -> Any:
        return self.replies[0]

    def kind(self) -> CommandClass:
        return self._kind or kind_of(self._args, self._facts, self._scripts)

    def waited(self, error: Exception, now: float) -> bool:
        if self._blocks is None or self.kind() is not CommandClass.NON_IDEMPOTENT or now - self._begun < IN_VAIN:
            return False  # where there is an element, the server takes it at once: then only the reply was lost
        return isinstance(error, (ReplyLostError, ReplyTimeoutError)) and not error.begun

    def policy(self, policies: Policies) -> RetryPolicy:
        return policies.of_command(self.name)

    def first_key(self) -> bytes | None:
        return key_of(self._args, self._facts)

    def missing_script(self) -> Script | None:
        return script_of(self._args, self._facts, self._scripts)

    def may_read_elsewhere(self) -> bool:
        """Whether a replica may answer it."""
        return reads_only(self._args, self._facts, self._scripts)


class BatchCall(Call):
    """A pipeline without a transaction: each command has an outcome of its own.

    When the connection fails underway, what was answered keeps its reply, what was never sent goes to the next
    connection, and what was sent without an answer is judged by its class: reads are sent again; writes are, too, if
    every unanswered write may be; else each unanswered write gets an AmbiguousResultError, because sending one of
    them again behind the others could undo them. What a node refused is tried again together with the reads behind
    it, so that the order stays; if a write behind it was executed, or may have been, the refusal stands.
    """

    name = "PIPELINE"

    def __init__(self, commands: Sequence[Command], scripts: Scripts) -> None:
        super().__init__()
        self._commands = commands
        self._scripts = scripts
        self._facts: dict[int, Facts] = {}
        self._pending: list[int] = list(range(len(commands)))  # indices of commands without a final result
        self._results: list[Any] = [None] * len(commands)

    def commands(self) -> Iterable[tuple[Any, ...]]:
        return [self._commands[index][0] for index in self._pending]

    def decoding(self) -> Sequence[bool]:
        return [NEVER_DECODE not in self._commands[index][1] for index in self._pending]

    def _facts_of(self, index: int) -> Facts:
        facts = self._facts.get(index)
        if facts is None:
            facts = self._facts[index] = facts_of(self._commands[index][0])
        return facts

    def _kind(self, index: int) -> CommandClass:
        return kind_of(self._commands[index][0], self._facts_of(index), self._scripts)

    def kind(self) -> CommandClass:
        return max((self._kind(index) for index in self._pending), key=_RISK.index, default=CommandClass.READ)

    def policy(self, policies: Policies) -> RetryPolicy:
        """The most generous of its commands': `salvage` has judged each by its own before."""
        own = [policies.of_command(self._facts_of(index).name) for index in range(len(self._commands))]
        return max(own, key=_GENEROSITY.index, default=policies.default)

    def may_read_elsewhere(self) -> bool:
        """Whether a replica may answer it: all of it, and there is something."""
        return bool(self._commands) and all(
            reads_only(args, self._facts_of(index), self._scripts) for index, (args, _) in enumerate(self._commands)
        )

    def first_key(self) -> bytes | None:
        keys = (key_of(self._commands[index][0], self._facts_of(index)) for index in self._pending)
        return next((key for key in keys if key is not None), None)

    def result(self) -> Any:
        if len(self.replies) == len(self._commands) and COMPLETE.issuperset(map(type, self.replies)):
            self._pending, self._results = [], self.replies  # the usual case: all answered, no error among them
            return self._results
        again = self._sort_out()
        self._pending = again
        refusals = (self._results[index] for index in again if self._refused(index))
        return next(refusals, self._results)

    def _sort_out(self) -> list[int]:
        """Notes the replies; which of the answered must be tried again: the refused, and the reads behind them."""
        answered = self._pending[: len(self.replies)]
        for index, reply in zip(answered, self.replies, strict=True):
            self._results[index] = reply
        again: list[int] = []
        behind: list[int] = []  # reads, seen from the end
        for index in reversed(answered):
            if self._refused(index):
                again = [index, *reversed(behind), *again]
                behind = []
            elif self._kind(index) is CommandClass.READ:
                behind.append(index)
            else:
                break  # a write was executed: what stands before it cannot be executed in order any more
        return again

    def _refused(self, index: int) -> bool:
        """Whether a command got the answer that it was not executed, and may get a better one."""
        result = self._results[index]
        if not isinstance(result, Exception):
            return False
        if self.reader is not None and node_is_busy(result):
            return True
        failure = failure_of(result, scripted=runs_code(self._facts_of(index).name))
        healable = failure.cause is not Cause.NO_SCRIPT or self._script(index) is not None
        return failure.outcome is Outcome.NOT_EXECUTED and healable

    def salvage(self, error: Exception, policies: Policies) -> Any | None:
        sent = len(self._pending)
        if isinstance(error, NotSentError):
            sent = self.sent + (max(0, self.sending - 1) if error.partly else 0)
        again = self._sort_out()
        unanswered, unsent = self._pending[len(self.replies) : sent], self._pending[sent:]
        writes = [index for index in unanswered if self._kind(index) is not CommandClass.READ]
        if not all(self._may_repeat(index, policies) for index in writes):
            for index in writes:
                self._results[index] = ambiguous(self._facts_of(index).name, error)
            unanswered = [index for index in unanswered if index not in writes]
            again = [index for index in again if self._kind(index) is CommandClass.READ]  # refusals of writes stand
        for index in [index for index in unanswered if not self._may_repeat(index, policies)]:
            self._results[index] = error  # a read, and nothing is repeated (retry_policy "never")
            unanswered.remove(index)
        self._pending = [*again, *unanswered, *unsent]
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
        return script_of(self._commands[index][0], self._facts_of(index), self._scripts)

    def missing_script(self) -> Script | None:
        missing = (index for index in self._pending if isinstance(self._results[index], rx.NoScriptError))
        return next((self._script(index) for index in missing), None)


_RISK = (CommandClass.READ, CommandClass.REPEATABLE, CommandClass.STATE_STABLE, CommandClass.NON_IDEMPOTENT)
_GENEROSITY = (RetryPolicy.NEVER, RetryPolicy.SAFE, RetryPolicy.STATE, RetryPolicy.ALWAYS)


class TransactionCall(Call):
    """MULTI, the commands and EXEC in one write. EXEC is never sent twice.

    The server executes nothing before it has the whole EXEC, so a connection that ended during the write has executed
    nothing; once all was sent, only EXEC's reply tells.
    """

    name = "EXEC"

    def __init__(self, commands: Sequence[tuple[Any, ...]]) -> None:
        super().__init__()
        self._commands = [("MULTI",), *commands, ("EXEC",)]

    def begin(self, pack: Pack, now: float) -> list[tuple[int, bytes]]:
        pieces = super().begin(pack, now)
        return [(len(self._commands), b"".join(data for _, data in pieces))]

    def commands(self) -> Iterable[tuple[Any, ...]]:
        return self._commands

    def kind(self) -> CommandClass:
        return CommandClass.NON_IDEMPOTENT

    def policy(self, policies: Policies) -> RetryPolicy:
        policy = policies.of_command(self.name)
        return RetryPolicy.SAFE if policy is RetryPolicy.ALWAYS else policy

    def first_key(self) -> bytes | None:
        keys = (key_of(args, facts_of(args)) for args in self._commands)
        return next((key for key in keys if key is not None), None)

    def result(self) -> Any:
        """(the replies to MULTI and to the queueing of the commands, the reply to EXEC), or what refused it whole."""
        queued, outcome = self.replies[:-1], self.replies[-1]
        if isinstance(outcome, Exception):
            for reply in (*queued, outcome):
                if isinstance(reply, Exception) and failure_of(reply).outcome is Outcome.NOT_EXECUTED:
                    return reply
        return queued, outcome


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
    script = script_of(args, facts, scripts)
    return classify(args, facts) if script is None else script.kind


def reads_only(args: Sequence[Any], facts: Facts, scripts: Scripts) -> bool:
    """Whether a replica may answer a command; a script, if its author declared that it writes nothing."""
    script = script_of(args, facts, scripts)
    return may_read_elsewhere(args, facts) if script is None else script.kind is CommandClass.READ


def script_of(args: Sequence[Any], facts: Facts, scripts: Scripts) -> Script | None:
    """The script that a command runs by its SHA1, if it is known."""
    if facts.name not in ("EVALSHA", "EVALSHA_RO") or len(args) < 2:
        return None
    sha = args[1].decode("ascii", "replace") if isinstance(args[1], bytes) else str(args[1])
    return scripts.get(sha)
