"""The pipeline: redis-py's face over the deployment's calls.

Queues as redis-py does; on `execute` the whole batch becomes one call, which has an outcome per command and is
carried to its replies by the deployment. WATCH pins a connection until `execute` or `reset`.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from types import FunctionType
from typing import TYPE_CHECKING, Any

import redis.client
import redis.exceptions as rx

from hatopo import errors
from hatopo.client._calls import NEVER_DECODE, BatchCall, Command, SingleCall, TransactionCall
from hatopo.client._deployment import Deployment
from hatopo.client._exchange import exchange
from hatopo.client._outcome import ambiguous, callback_options, state_error
from hatopo.client._pool import ConnectionPool
from hatopo.client._scopes import SCOPE, end_of
from hatopo.client._terms import Terms
from hatopo.connection import COMPLETE, Wire
from hatopo.routing import CONTAINERS, FACTS, CommandClass, facts_of

EMPTY_RESPONSE = "EMPTY_RESPONSE"  # redis-py's option: what an error stands for, or a command that is not sent
_IN_TRANSACTIONS = frozenset({"DISCARD", "UNWATCH", "WATCH"})
_AT_ONCE = frozenset({"WATCH", "UNWATCH", "DISCARD"})
_HARMLESS = frozenset(name for name, facts in FACTS.items() if not facts.stateful) - CONTAINERS
"""Commands that need no second look, in their usual spelling."""


class PipelineCore:
    """What hatopo changes in a redis-py pipeline; module pipelines (json, ts, ft) get it, too."""

    connection_pool: ConnectionPool
    connection: Any
    command_stack: list[Command]
    response_callbacks: Any
    transaction: bool
    explicit_transaction: bool
    watching: bool
    scripts: set[Any]
    error_arguments = False
    _own_terms: Terms | None = None

    @property
    def _deployment(self) -> Deployment:
        return self.connection_pool.deployment

    @property
    def _terms(self) -> Terms:
        return self._own_terms or self.connection_pool.terms

    def execute_command(self, *args: Any, **options: Any) -> Any:
        """Queues a command; while WATCHing and before MULTI, executes it at once."""
        if (self.watching or args[0] == "WATCH") and not self.explicit_transaction:
            return self.immediate_execute_command(*args, **options)
        self.command_stack.append((args, options))
        return self

    def pipeline_execute_command(self, *args: Any, **options: Any) -> Any:
        """Queues a command."""
        self.command_stack.append((args, options))
        return self

    # ------------------------------------------------------------------ execute

    def execute(self, raise_on_error: bool = True) -> list[Any]:
        """Executes what was queued and returns the replies in order.

        Args:
            raise_on_error: raise the first error; otherwise errors stand among the replies.

        Raises:
            redis.WatchError: a watched key has changed, or its connection was lost before EXEC was sent.
            AmbiguousResultError: a command (a whole transaction) may have been executed.
        """
        seam = redis.client.Pipeline.execute
        if not _is_plain(seam):  # tracing has wrapped redis-py's method: let the wrapper see the call
            return _Detour.through(self, seam, raise_on_error)
        return self._execute_queue(raise_on_error)

    def _execute_queue(self, raise_on_error: bool) -> list[Any]:
        if not self.command_stack and not self.watching:
            return []
        try:
            if self.scripts:
                self.load_scripts()
            if self.transaction or self.explicit_transaction:
                return self._execute_atomically(self.command_stack, raise_on_error)
            return self._execute_batch(self.command_stack, raise_on_error)
        finally:
            self.reset()

    def _execute_batch(self, commands: Sequence[Command], raise_on_error: bool) -> list[Any]:
        _refuse_state(commands, allowed=frozenset())
        call = BatchCall(commands, self._deployment.scripts)
        try:
            results = self._run(call)
        except rx.RedisError as error:
            results = call.settle(error)
        callbacks, find = self.response_callbacks, dict.get
        replies: list[Any] = []
        first_error: Exception | None = None
        for (args, options), reply in zip(commands, results, strict=True):
            if reply.__class__ in COMPLETE:
                name = args[0]
                callback = find(callbacks, name)
                if callback is None and name not in FACTS:
                    callback = callbacks.get(name)
                if callback is not None:
                    reply = callback(reply, **callback_options(options))
            elif isinstance(reply, Exception):
                if EMPTY_RESPONSE in options and isinstance(reply, rx.ResponseError):
                    reply = options[EMPTY_RESPONSE]
                elif first_error is None:
                    first_error = reply
                    position = len(replies)
            replies.append(reply)
        if first_error is not None and raise_on_error:
            self.annotate_exception(first_error, position + 1, commands[position][0])
            raise first_error
        return replies

    def _execute_atomically(self, commands: Sequence[Command], raise_on_error: bool) -> list[Any]:
        _refuse_state(commands, allowed=_IN_TRANSACTIONS)
        sent = [args for args, options in commands if EMPTY_RESPONSE not in options]
        outcome = self._run(TransactionCall(sent))
        queued, replies = outcome
        self.watching = False  # EXEC has ended it, whatever it said
        refusals = iter(queued[1:])
        failed: list[tuple[int, Any]] = []
        for position, (args, options) in enumerate(commands):
            if EMPTY_RESPONSE in options:
                failed.append((position, options[EMPTY_RESPONSE]))
                continue
            refusal = next(refusals)
            if isinstance(refusal, Exception):
                self.annotate_exception(refusal, position + 1, args)
                failed.append((position, refusal))
        if isinstance(replies, Exception):
            refusal = next((error for _, error in failed if isinstance(error, Exception)), None)
            raise refusal if isinstance(replies, rx.ExecAbortError) and refusal is not None else replies
        if replies is None:
            raise rx.WatchError("Watched variable changed.")
        replies = list(replies)
        for position, stand_in in failed:
            replies.insert(position, stand_in)
        if len(replies) != len(commands):
            raise rx.ResponseError("Wrong number of response items from pipeline execution")
        if raise_on_error:
            self.raise_first_error(commands, replies)
        return [self._called_back(command, reply) for command, reply in zip(commands, replies, strict=True)]

    def _called_back(self, command: Command, reply: Any) -> Any:
        args, options = command
        if isinstance(reply, Exception) or args[0] not in self.response_callbacks:
            return reply
        return self.response_callbacks[args[0]](reply, **callback_options(options))

    def _run(self, call: BatchCall | TransactionCall) -> Any:
        """Carries a call out: on the pinned connection if there is one, else wherever it belongs."""
        end = end_of(self._terms.deadline)
        scope = SCOPE.get()
        if scope is not None and call.kind() is not CommandClass.READ:
            scope.note_write()
        connection = self.connection
        if connection is None:
            policy = self._terms.policy()
            if isinstance(call, BatchCall) and not policy.only_master and call.may_read_elsewhere():
                call.reader = self._deployment.reading.reader(policy)
            return self._deployment.run(call, self._terms, end)
        if not self.watching:  # pinned only to load scripts
            self.connection = None
            self._deployment.give_back(connection)
            return self._deployment.run(call, self._terms, end)
        try:
            result = exchange(connection, call, end)
        except rx.RedisError as error:
            self.watching = False
            raise _end_of_watch(call.name, error) from error
        if scope is not None:
            scope.note_answer(connection.wire.address)
        if isinstance(result, Exception):
            connection.disconnect()  # refused whole, by a node that is no longer what it was
            self.watching = False
            raise rx.WatchError(f"the watching connection's node refused the transaction: {result}") from result
        return result

    # ------------------------------------------------------------------ WATCH

    def immediate_execute_command(self, *args: Any, **options: Any) -> Any:
        """Executes a command at once, on a connection that stays pinned (WATCH, and what is read before MULTI)."""
        seam = redis.client.Pipeline.immediate_execute_command
        if not _is_plain(seam):
            return _Detour.immediately(self, seam, args, options)
        return self._execute_now(args, options)

    def _execute_now(self, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        facts = facts_of(args)
        if facts.stateful and facts.name not in _AT_ONCE:
            raise state_error(facts.name)
        # A WATCH without a reply went down with its connection: it may be sent again on another.
        kind = CommandClass.READ if facts.name == "WATCH" and not self.watching else None
        call = SingleCall(args, facts, self._deployment.scripts, decode=NEVER_DECODE not in options, kind=kind)
        scope = SCOPE.get()
        if scope is not None and call.kind() is not CommandClass.READ and facts.name not in _AT_ONCE:
            scope.note_write()
        try:
            if self.connection is not None and self.watching:
                reply = self._ask_pinned(call)
            else:
                reply = self._deployment.run(call, self._terms, end_of(self._terms.deadline), lender=_PinTo(self))
        except rx.ResponseError:
            if EMPTY_RESPONSE in options:
                return options[EMPTY_RESPONSE]
            raise
        if facts.name in ("UNWATCH", "DISCARD", "EXEC"):
            self.watching = False
        elif facts.name == "WATCH":
            self.watching = True
        return self._called_back((args, options), reply)

    def _ask_pinned(self, call: SingleCall) -> Any:
        try:
            reply = exchange(self.connection, call, end_of(self._terms.deadline))
        except rx.DataError:
            raise
        except rx.RedisError as error:
            self.reset()
            raise _end_of_watch("WATCH", error, sent=False) from error
        if isinstance(reply, Exception):
            raise reply
        return reply

    def reset(self) -> None:
        """Empties the queue, ends WATCH, gives the connection back."""
        connection, watching = self.connection, self.watching
        self.command_stack = []
        self.scripts = set()
        self.watching = self.explicit_transaction = False
        self.connection = None
        if connection is None or isinstance(connection, _Detour):
            return
        if watching:
            try:
                connection.call(connection.pack(("UNWATCH",)))
            except rx.RedisError:
                connection.disconnect()
        self._deployment.give_back(connection, check=True)

    def annotate_exception(self, exception: Exception, number: int, command: Sequence[Any]) -> None:
        """Says which command of the pipeline failed; its arguments only where `error_arguments` asks for them."""
        if self.error_arguments:
            shown = textwrap.shorten(" ".join(_shown(part) for part in command), 100, placeholder="...")
        else:
            shown = f"{_shown(command[0])} with {len(command) - 1} arguments"
        text = exception.args[0] if exception.args else ""
        exception.args = (
            f"Command # {number} ({shown}) of pipeline caused error: {text}",
            *exception.args[1:],
        )

    def raise_first_error(self, commands: Sequence[Command], response: Sequence[Any]) -> None:
        """Raises the first error among the replies, annotated."""
        for position, reply in enumerate(response):
            if isinstance(reply, rx.ResponseError):
                self.annotate_exception(reply, position + 1, commands[position][0])
                raise reply

    if TYPE_CHECKING:

        def load_scripts(self) -> None:
            """redis-py's: makes sure that the queued scripts exist on the server."""


class Pipeline(PipelineCore, redis.client.Pipeline):  # type: ignore[misc]  # redis-py annotates these otherwise
    """`redis.client.Pipeline` over a hatopo client."""


class _PinTo:
    """Lends from the deployment and pins the connection to the pipeline."""

    def __init__(self, pipeline: PipelineCore) -> None:
        self._pipeline = pipeline

    def lend(self, call: Any, until: float) -> Wire:
        if self._pipeline.connection is None:
            self._pipeline.connection = self._pipeline._deployment.lend(call, until)
        connection: Wire = self._pipeline.connection
        return connection

    def give_back(self, connection: Wire, *, check: bool = False) -> None:
        """Stays pinned."""

    def discard(self, connection: Wire) -> None:
        self._pipeline.connection = None
        self._pipeline._deployment.discard(connection)


class _Detour:
    """Stands in for the connection while redis-py's own method runs inside somebody's tracing wrapper.

    redis-py's `execute` and `immediate_execute_command` hand their work to `connection.retry`; this "retry"
    does hatopo's instead.
    """

    host, port, db = None, None, 0

    def __init__(self, work: Any) -> None:
        self.retry = self
        self._work = work

    def call_with_retry(self, do: Any, fail: Any, **kwargs: Any) -> Any:
        """Does hatopo's work instead of redis-py's."""
        del do, fail, kwargs
        return self._work()

    @staticmethod
    def through(pipeline: Any, seam: Any, raise_on_error: bool) -> list[Any]:
        """Calls the wrapped `execute`."""
        if not pipeline.command_stack and not pipeline.watching:
            return list(seam(pipeline, raise_on_error))
        pinned = pipeline.connection

        def work() -> list[Any]:
            pipeline.connection, pipeline.scripts = pinned, scripts
            return list(pipeline._execute_queue(raise_on_error))

        scripts, pipeline.scripts = pipeline.scripts, set()
        pipeline.connection = _Detour(work)
        return list(seam(pipeline, raise_on_error))

    @staticmethod
    def immediately(pipeline: Any, seam: Any, args: tuple[Any, ...], options: dict[str, Any]) -> Any:
        """Calls the wrapped `immediate_execute_command`."""
        pinned = pipeline.connection

        def work() -> Any:
            pipeline.connection = pinned
            return pipeline._execute_now(args, options)

        pipeline.connection = _Detour(work)
        try:
            return seam(pipeline, *args, **options)
        finally:
            if isinstance(pipeline.connection, _Detour):
                pipeline.connection = pinned


def _refuse_state(commands: Sequence[Command], allowed: frozenset[str]) -> None:
    """Refuses commands that would change the connection under its next user."""
    for args, _ in commands:
        if args[0] not in _HARMLESS:
            facts = facts_of(args)
            if facts.stateful and facts.name not in allowed:
                raise state_error(facts.name)


def _end_of_watch(command: str, error: Exception, *, sent: bool = True) -> Exception:
    """What the loss of a watching connection means: nothing was executed, unless EXEC was sent."""
    if isinstance(error, rx.DataError):
        return error
    if sent and isinstance(error, (errors.ReplyLostError, errors.ReplyTimeoutError, errors.ProtocolError)):
        return ambiguous(command, error)
    return rx.WatchError(f"A {type(error).__name__} occurred while watching one or more keys")


def _is_plain(method: Any) -> bool:
    """Whether a method is redis-py's own, not somebody's wrapper around it."""
    return type(method) is FunctionType and method.__globals__ is vars(redis.client)


def _shown(part: object) -> str:
    return part.decode("utf-8", "replace") if isinstance(part, bytes) else str(part)


def adopt_pipeline(pipeline: Any, terms: Terms, *, error_arguments: bool) -> Any:
    """Makes a pipeline that a redis-py module helper has built (json, ts, ft) one of ours."""
    kind = type(pipeline)
    pipeline.__class__ = type(kind.__name__, (PipelineCore, kind), {})
    pipeline._own_terms = terms
    pipeline.error_arguments = error_arguments
    return pipeline
