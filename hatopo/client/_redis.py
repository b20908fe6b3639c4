"""The client: a true `redis.Redis` whose commands take hatopo's way.

`_execute_command` is the hot path: a plain function that takes an idle connection, calls, and gives it back. All
else (a first connection, a failure, a deadline, a blocking or multi-word command) goes through `_call`, to the
deployment's loop.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import replace
from time import monotonic
from typing import Any, TypeVar

import redis
import redis.exceptions as rx
from hiredis import pack_command

from hatopo.address import Address
from hatopo.client import _calls
from hatopo.client._bulletin import Callback
from hatopo.client._calls import NEVER_DECODE, SAFE, Borrow, Call, SingleCall
from hatopo.client._deployment import Deployment
from hatopo.client._iterating import iterate
from hatopo.client._options import read_options, read_url
from hatopo.client._outcome import callback_options, state_error
from hatopo.client._pipeline import EMPTY_RESPONSE, Pipeline, adopt_pipeline
from hatopo.client._plans import Reader
from hatopo.client._pool import ConnectionPool
from hatopo.client._pubsub import PubSub
from hatopo.client._scopes import SCOPE, Scope, end_of
from hatopo.client._scripts import Lock, Script
from hatopo.client._stats import Stats
from hatopo.connection import IDLE_CHECK, PLAIN, Wire
from hatopo.errors import NodeError, OptionError, StateLostError
from hatopo.routing import (
    CONTAINERS,
    FACTS,
    MAY_TAKE_A_CURSOR,
    CommandClass,
    Facts,
    NodeStatus,
    PolicyLike,
    ReadFrom,
    ReadFromLike,
    facts_of,
    may_read_elsewhere,
    runs_code,
)
from hatopo.topology import Topology, one_node

_R = TypeVar("_R", bound="Redis")
_POSITIONAL = tuple(inspect.signature(redis.Redis.__init__).parameters)[1:]
_ANYWHERE, _ASKS, _SAFE, _DELICATE = range(4)


def _temper(facts: Facts) -> int:
    if facts.kind is CommandClass.READ:
        return _ANYWHERE if may_read_elsewhere((facts.name,), facts) else _ASKS
    return _SAFE if facts.kind in SAFE else _DELICATE


HOT = {
    name: _temper(facts)
    for name, facts in FACTS.items()
    if " " not in name
    and name not in CONTAINERS
    and not facts.blocking
    and not facts.stateful
    and not runs_code(name)
    and not name.startswith("HIMPORT")
    and name not in MAY_TAKE_A_CURSOR
}
"""The commands that may take the hot path: reads that a replica may answer, other questions, safe writes, and those
whose connection is checked before each use: where a lost reply would be an error, its end must be found out before."""
_UNSET: Any = object()
_STATE_LOST = (
    "the connection was lost, and with it what commands like SELECT, MULTI or CLIENT SETNAME had set on it; "
    "the next command gets a new connection without that"
)
_LOCK_CLASS = tuple(inspect.signature(redis.Redis.lock).parameters).index("lock_class") - 2


class Redis(redis.Redis):
    """A `redis.Redis` on one server, or on whatever deployment it was made for.

    Takes redis-py's keywords and hatopo's (`hatopo.HatopoOptions`).

    Raises:
        OptionError: a keyword is unknown, refused or wrong; nothing was sent.
    """

    def __init__(
        self,
        *args: Any,
        connection_pool: ConnectionPool | None = None,
        single_connection_client: bool = False,
        error_arguments: bool = False,
        **options: Any,
    ) -> None:
        if len(args) > len(_POSITIONAL):
            raise TypeError(f"at most {len(_POSITIONAL)} positional arguments, not {len(args)}")
        options = {**dict(zip(_POSITIONAL, args, strict=False)), **options}
        connection_pool = options.pop("connection_pool", connection_pool)
        owner = connection_pool is None
        if connection_pool is None:
            connection_pool = ConnectionPool(_one_server(options))
        elif not isinstance(connection_pool, ConnectionPool):
            raise OptionError("connection_pool= must come from a hatopo client; pass the options to hatopo instead")
        self._deployment: Deployment = connection_pool.deployment
        self._terms = connection_pool.terms
        self._reader = self._deployment.reading.reader(self._terms.read_from)
        self._lent_from: Redis | None = None  # what shares its connections with us is kept alive by us
        self._is_clone = False  # owns nothing
        self.error_arguments = error_arguments
        kwargs = connection_pool.connection_kwargs
        plain = kwargs["encoding"].lower() in ("utf-8", "utf8") and kwargs["encoding_errors"] == "strict"
        overridden = type(self).parse_response is not redis.Redis.parse_response
        self._always_warm = not plain or overridden
        self._warm = self._always_warm or self._terms.deadline is not None
        super().__init__(
            connection_pool=connection_pool,
            single_connection_client=single_connection_client,
            credential_provider=kwargs.get("credential_provider"),
            event_dispatcher=kwargs.get("event_dispatcher"),
        )
        self.auto_close_connection_pool = owner

    @classmethod
    def from_url(cls, url: str, **options: Any) -> Redis:
        """A client for `redis://`, `rediss://`, `unix://`, `valkey://` or `valkeys://`; the URL's options win.

        Raises:
            OptionError: the URL or an option is wrong.
        """
        return cls(**read_url(url, options))

    @classmethod
    def from_pool(cls, connection_pool: Any) -> Redis:
        """A client that owns the pool of another hatopo client, and closes it."""
        client = cls(connection_pool=connection_pool)
        client.auto_close_connection_pool = True
        return client

    def __repr__(self) -> str:
        return f"<{type(self).__module__}.{type(self).__qualname__}({self.connection_pool!r})>"

    def __reduce__(self) -> Any:
        raise TypeError("a client holds sockets and locks and cannot be pickled: make one in each process")

    # ------------------------------------------------------------------ commands

    def _execute_command(self, *args: Any, **options: Any) -> Any:
        # redis-py's execute_command calls this, so that whatever patches execute_command (tracing) sees each call.
        guard, scope = HOT.get(args[0]), SCOPE.get()
        if guard is None or self._warm or self.connection is not None or (scope is not None and scope.end is not None):
            return self._call(args, options)
        if NEVER_DECODE in options:
            return self._call(args, options)
        now = monotonic()
        reader = self._reader if scope is None else self._reader_in(scope, guard)
        pool = self._deployment.sole if guard or reader is None else reader.pick(now)
        connection = None if pool is None else pool.take(now, check=guard == _DELICATE)
        if pool is None or connection is None:
            return self._call(args, options)
        failed = None
        try:
            reply = connection.call(pack_command(args) if PLAIN.issuperset(map(type, args)) else connection.pack(args))
        except rx.DataError:  # a type that Redis has no form for: nothing was sent
            pool.give_back(connection)
            raise
        except BaseException as error:
            pool.discard(connection)
            if not isinstance(error, NodeError):
                raise
            pool.suspect(error)
            failed = error
        if failed is not None:
            return self._call(args, options, failed=failed, started=now, at=pool.address)
        connection.check_at = now + IDLE_CHECK if now < connection.renew_at else 0.0
        pool.idle.append(connection)
        if pool.waiting:
            pool.waiting.wake_one()
        if scope is not None:
            scope.note_answer(pool.address)
        if options or isinstance(reply, Exception):
            return self._digest(args, options, reply, now, connection)
        callback = dict.get(self.response_callbacks, args[0])
        return reply if callback is None else callback(reply)

    def _reader_in(self, scope: Scope, guard: int) -> Reader | None:
        """Who reads in a scope; that something is written in it is noted."""
        if guard >= _SAFE:
            scope.note_write()
            return None
        return self._deployment.reading.reader(self._terms.policy_in(scope))

    def _digest(self, args: tuple[Any, ...], options: dict[str, Any], reply: Any, started: float, wire: Wire) -> Any:
        """The value of a reply on the hot path: options for the callback, errors."""
        if isinstance(reply, Exception):
            return self._call(args, options, failed=reply, started=started, at=wire.wire.address)
        callback = dict.get(self.response_callbacks, args[0])
        return reply if callback is None else callback(reply, **callback_options(options))

    def _call(
        self,
        args: tuple[Any, ...],
        options: dict[str, Any],
        *,
        failed: Exception | None = None,
        started: float | None = None,
        at: Address | None = None,
    ) -> Any:
        """The warm path: any command, any state, after any failure (of a first attempt at a node)."""
        facts = facts_of(args)
        if facts.stateful and self.connection is None:
            raise state_error(facts.name)
        scope = SCOPE.get()
        if facts.name.startswith("HIMPORT") or self._is_foreign():
            if scope is not None and facts.kind is not CommandClass.READ:
                scope.note_write()
            return super()._execute_command(*args, **options)  # type: ignore[no-untyped-call]
        call = SingleCall(args, facts, self._deployment.scripts, decode=NEVER_DECODE not in options)
        end = end_of(self._terms.deadline)
        call.pin = self._terms.pin
        if call.pin is None and call.may_read_elsewhere():
            call.reader = self._deployment.reading.reader(self._terms.policy())
            call.failed_at(at)
        elif scope is not None and call.kind() is not CommandClass.READ:
            scope.note_write()
        try:
            if self.connection is None:
                lender = None if call.pin is None else call.pin.lender
                reply = self._deployment.run(call, self._terms, end, lender=lender, failed=failed, started=started)
            else:
                reply = self._call_pinned(call, end, facts.stateful)
        except rx.ResponseError:
            if EMPTY_RESPONSE in options:
                return options[EMPTY_RESPONSE]
            raise
        if args[0] in self.response_callbacks:
            return self.response_callbacks[args[0]](reply, **callback_options(options))
        return reply

    def _call_pinned(self, call: SingleCall, end: float, stateful: bool) -> Any:
        pinned: Any = self.connection
        with self.single_connection_lock:
            try:
                reply = self._deployment.run(call, self._terms, end, lender=_Pinned(self))
            except rx.RedisError:
                if not pinned.is_connected:
                    pinned.stateful = False  # this error tells that the connection is lost, and its state with it
                raise
            pinned.stateful = pinned.stateful or stateful
        return reply

    def _is_foreign(self) -> bool:
        """Whether somebody has put a `parse_response` or a `connection` of their own in place: redis-py's way, then."""
        pinned: Any = self.connection
        if pinned is not None and not isinstance(pinned, Wire):
            return True
        return "parse_response" in vars(self) or type(self).parse_response is not redis.Redis.parse_response

    # ------------------------------------------------------------------ choices

    def using(
        self: _R,
        *,
        deadline: float | None = _UNSET,
        retry_policy: PolicyLike = _UNSET,
        failover_timeout: float = _UNSET,
        read_from: ReadFromLike = _UNSET,
    ) -> _R:
        """A light clone with other choices, over the same connections; it owns none and need not be closed.

        Args:
            deadline: how long each call may take, in seconds, or None.
            retry_policy: see `hatopo.HatopoOptions`.
            failover_timeout: how long a call rides on after its first failure, in seconds.
            read_from: which nodes answer reads, see `ReadFrom`; no `hatopo.read_from` scope changes it.

        Raises:
            OptionError: a value is wrong.
        """
        given = {
            "deadline": deadline,
            "retry_policy": retry_policy,
            "failover_timeout": failover_timeout,
            "read_from": read_from,
        }
        given = {name: value for name, value in given.items() if value is not _UNSET}
        checked = read_options(given)
        fields = ["policies" if name == "retry_policy" else name for name in given]
        clone = self.__class__.__new__(self.__class__)
        clone.__dict__.update(self.__dict__)
        clone.auto_close_connection_pool = False
        clone._lent_from = self
        clone._is_clone = True
        clone._terms = replace(self._terms, **{field: getattr(checked, field) for field in fields})
        if "read_from" in given:
            clone._terms = replace(clone._terms, insists=True)
            clone._reader = self._deployment.reading.reader(checked.read_from)
        clone._warm = clone._always_warm or clone._terms.deadline is not None
        return clone

    def set_retry(self, retry: Any) -> None:
        """Bounds the number of attempts; what is safe to repeat is `retry_policy`'s business."""
        count = int(retry.get_retries())
        self._terms = replace(self._terms, retries=None if count < 0 else count)
        self.connection_pool.set_retry(retry)

    @property
    def topology(self) -> Topology | None:
        """The nodes that are known now, or None before the first were found."""
        return self._deployment.topology

    def nodes(self) -> tuple[NodeStatus, ...]:
        """What is known of each node: its role, whether it gets reads and why not, its lag, latency and zone.

        Nodes are asked only while a policy reads from replicas, or where nobody else tells their roles.
        """
        return self._deployment.reading.statuses()

    def wait_ready(self, seconds: float = 15.0) -> None:
        """Returns as soon as the node for writes is known and connected.

        Args:
            seconds: how long that may take.

        Raises:
            MasterNotFoundError: nobody names a master; ServiceUnknownError (at once) names what they do know.
            redis.ConnectionError, redis.TimeoutError, redis.AuthenticationError: the master cannot be used.
        """
        terms = replace(self._terms, failover_timeout=seconds, deadline=None)
        self._deployment.run(Borrow(), terms, monotonic() + seconds)

    def subscribe_events(self, callback: Callback) -> Callable[[], None]:
        """Calls `callback` with each `hatopo.events.Event` of this deployment, on a thread of its own.

        Args:
            callback: takes the event; what it raises is logged.

        Returns:
            What ends the subscription.
        """
        return self._deployment.bulletin.subscribe(callback)

    def stats(self) -> Stats:
        """What this client and its clones have been through: failovers, outages, retries."""
        return self._deployment.stats()

    # ------------------------------------------------------------------ redis-py's helpers, ours

    def pipeline(self, transaction: bool = True, shard_hint: Any = None) -> Pipeline:
        """A pipeline: commands are queued, `execute` sends them together."""
        pipeline = Pipeline(self.connection_pool, self.response_callbacks, transaction, shard_hint)
        pipeline._own_terms = self._terms
        pipeline.error_arguments = self.error_arguments
        return pipeline

    def pubsub(self, **kwargs: Any) -> PubSub:
        """A subscriber with a connection of its own."""
        return PubSub(self.connection_pool, event_dispatcher=self._event_dispatcher, **kwargs)

    def client(self: _R) -> _R:
        """A client pinned to one connection of its own, for commands that change a connection's state."""
        pool: Any = self.connection_pool
        pinned = self.__class__(
            connection_pool=pool, single_connection_client=True, error_arguments=self.error_arguments
        )
        pinned._terms, pinned._warm, pinned._reader = self._terms, self._warm, self._reader
        pinned._lent_from = self
        return pinned

    def lock(self, name: str, *args: Any, **kwargs: Any) -> Any:
        """redis-py's lock; a lost reply to its SET NX is resolved by reading the token back."""
        if len(args) <= _LOCK_CLASS and kwargs.get("lock_class") is None:
            kwargs["lock_class"] = Lock
        holder = self if self._deployment.is_alone else self.using(read_from=ReadFrom.MASTER)
        return redis.Redis.lock(holder, name, *args, **kwargs)

    def scan_iter(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """redis-py's; on one node from the beginning to the end, begun again on another one if that is lost.

        What was there all the time comes at least once, and perhaps twice.
        """
        return iterate(self, redis.Redis.scan_iter, args, kwargs)

    def sscan_iter(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """redis-py's; see `scan_iter`."""
        return iterate(self, redis.Redis.sscan_iter, args, kwargs)

    def hscan_iter(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """redis-py's; see `scan_iter`."""
        return iterate(self, redis.Redis.hscan_iter, args, kwargs)

    def zscan_iter(self, *args: Any, **kwargs: Any) -> Iterator[Any]:
        """redis-py's; see `scan_iter`."""
        return iterate(self, redis.Redis.zscan_iter, args, kwargs)

    def register_script(self, script: Any, *, idempotent: bool = False, read_only: bool = False) -> Script:
        """A script to be called like a function; it is loaded wherever it is missing.

        Args:
            script: the Lua source.
            idempotent: a second application changes neither the data nor the reply, so that it may be sent
                again after a lost reply.
            read_only: it writes nothing.
        """
        registered = Script(self, script)
        kind = (
            CommandClass.READ if read_only else CommandClass.REPEATABLE if idempotent else CommandClass.NON_IDEMPOTENT
        )
        self._deployment.remember(registered.sha, _calls.Script(script, kind))
        return registered

    def json(self, *args: Any, **kwargs: Any) -> Any:
        """RedisJSON's commands."""
        return self._with_our_pipeline(super().json(*args, **kwargs))

    def ts(self) -> Any:
        """RedisTimeSeries' commands."""
        return self._with_our_pipeline(super().ts())

    def ft(self, *args: Any, **kwargs: Any) -> Any:
        """RediSearch's commands."""
        return self._with_our_pipeline(super().ft(*args, **kwargs))

    def _with_our_pipeline(self, helper: Any) -> Any:
        make = helper.pipeline

        def pipeline(*args: Any, **kwargs: Any) -> Any:
            return adopt_pipeline(make(*args, **kwargs), self._terms, error_arguments=self.error_arguments)

        helper.pipeline = pipeline
        return helper

    def close(self) -> None:
        """Closes the connections. A clone (`using`) has none to close. A later call opens new ones."""
        self._let_go()
        if getattr(self, "auto_close_connection_pool", False) and not getattr(self, "_is_clone", False):
            self._deployment.rest()

    def __del__(self) -> None:
        # Runs wherever the garbage collector does, under whatever locks: who only forgets a client is left by all that
        # hold it weakly.
        with suppress(Exception):
            self._let_go()

    def _let_go(self) -> None:
        if getattr(self, "_is_clone", False):
            return
        pinned = getattr(self, "connection", None)
        if pinned is not None:
            pinned.disconnect()  # nobody knows what state its commands have left it in
        super().close()


class _Pinned:
    """Lends a client the one connection that it is pinned to, connected again if it has ended."""

    def __init__(self, client: Redis) -> None:
        self._client = client

    def lend(self, call: Call, until: float) -> Wire:
        connection: Any = self._client.connection
        connection.take_back()
        if connection.is_connected and not connection.clean():
            connection.disconnect()
        if not connection.is_connected:
            if connection.stateful:
                connection.stateful = False
                connection.lend_to_foreign_code()
                raise StateLostError(f"{connection.wire.address}: {_STATE_LOST}", connection.wire.address)
            self._client._deployment.pool_for(call, until).redial(connection, until)
        lent: Wire = connection
        return lent

    def give_back(self, connection: Wire, *, check: bool = False) -> None:
        connection.lend_to_foreign_code()

    def discard(self, connection: Wire) -> None:
        connection.disconnect()
        connection.lend_to_foreign_code()  # `close` releases it


def _one_server(options: dict[str, Any]) -> Deployment:
    checked = read_options(options)
    path = options.get("unix_socket_path")
    if path is not None:
        address = Address.unix(path)
    else:
        address = Address.tcp(options.get("host", "localhost"), options.get("port", 6379))
    return Deployment(checked, str(address), first=one_node(address))
