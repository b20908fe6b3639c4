"""A data node: the data of the engine, transactions and blocked clients around it, and its place in replication.

Decides what a node refuses in which state (LOADING, READONLY, MASTERDOWN, NOREPLICAS) and what follows a write: first
the watched keys, then the replicas, then who is blocked. What a data command does is the engine's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hatopo.testing._reply import NO_REPLY, ErrorReply, Reply
from hatopo.testing.acl._accounts import Denied
from hatopo.testing.commands import Command
from hatopo.testing.engine._engine import Keyspace, Waiting
from hatopo.testing.node import _admin, _config, _info, _states, _transactions
from hatopo.testing.node._blocking import Blocked, Waiters
from hatopo.testing.node._config import Config
from hatopo.testing.node._notifications import Notifications
from hatopo.testing.node._script_side import ScriptSide
from hatopo.testing.node._states import LOADING, MASTERDOWN, OUT_OF_MEMORY, out_of_memory, traits
from hatopo.testing.node._transactions import Watches, discard_transaction
from hatopo.testing.replication import _replication
from hatopo.testing.replication._replication import Replication
from hatopo.testing.server import _client_commands, _greeting, _help, _monitors, _pubsub
from hatopo.testing.server._handlers import Handlers
from hatopo.testing.server._server import Server

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hatopo.testing.server._session import Session
    from hatopo.testing.world._world import World

EXPIRE_CYCLE = 0.1
"""Seconds between two looks for keys that have expired."""
READONLY = "READONLY You can't write against a read only replica."
NOREPLICAS = "NOREPLICAS Not enough good replicas to write."
SPARED_MEMORY = {"exec", "discard", "quit", "reset"}
"""What may be said within a transaction although memory is full."""
UNBLOCKED = "UNBLOCKED force unblock from blocking operation, instance state changed (master -> replica?)"


class DataNode(Server):
    """A Redis server."""

    handlers = Handlers(
        {
            **_greeting.commands,
            **_pubsub.commands,
            **_transactions.commands,
            **_client_commands.commands,
            **_config.commands,
            **_info.commands,
            **_admin.commands,
            **_monitors.commands,
            **_replication.commands,
            **_states.commands,
            **_help.commands,
        }
    )

    def __init__(self, world: World, *, config: Mapping[str, str] | None = None, **options: Any) -> None:
        super().__init__(world, **options)
        asked = (config or {}).get("databases", "16")
        databases = int(asked) if asked.isdigit() else 16  # what makes no sense is refused below
        self.keyspace = Keyspace(now=lambda: world.data_now, rng=world.rng, databases=databases)
        self.keyspace.on_change = self._changed
        self.keyspace.on_quiet_change = self._changed_quietly
        self.watches = Watches(self.keyspace)
        self.waiters = Waiters(self)
        self.notifications = Notifications(self.keyspace, self.publish)
        self.loading = False
        self._dirty: dict[tuple[int, bytes], bool] = {}
        """What has changed, and whether who watches it is to know."""
        self.config = Config(self)
        self.replication = Replication(self)
        for name, value in (config or {}).items():
            if name == "replicaof":
                host, _, port = value.partition(" ")
                self.replication.configure((host, int(port)))
            else:
                self.config.set(name, value)

    # State

    def update_guard(self) -> None:
        super().update_guard()
        self.observing |= 0 <= self.config.number("slowlog-log-slower-than") <= _admin.MICROSECONDS
        self.notifications.configure(self.config.get("notify-keyspace-events"))

    def checks_state(self) -> bool:
        config = self.config
        return self.loading or self.replication.is_replica or config.min_replicas_to_write > 0 or config.maxmemory > 0

    def set_loading(self, loading: bool) -> None:
        """Answer LOADING, or no longer."""
        self.loading = loading
        self.update_guard()

    def traits(self, session: Session, command: Command, args: Sequence[bytes]) -> frozenset[str]:
        return traits(self, session, command, args)

    def check_state(self, session: Session, command: Command, flags: frozenset[str]) -> None:
        queueing = session.queue is not None and command.name not in SPARED_MEMORY
        if ("denyoom" in flags or queueing) and out_of_memory(self):
            raise ErrorReply(OUT_OF_MEMORY)
        if "write" in flags:
            self.check_write()

    def check_write(self) -> None:
        """Raise what forbids a write in the present state."""
        if self.replication.is_replica:
            if self.config.replica_read_only:
                raise ErrorReply(READONLY)
        elif 0 < self.config.min_replicas_to_write > self.replication.good_replicas():
            raise ErrorReply(NOREPLICAS)

    def check_service(self, flags: frozenset[str]) -> None:
        if self.is_stale and "stale" not in flags:
            raise ErrorReply(MASTERDOWN)
        if self.loading and "loading" not in flags:
            raise ErrorReply(LOADING)

    @property
    def is_stale(self) -> bool:
        """Whether the data are old, and not to be shown."""
        replication = self.replication
        return replication.is_replica and not replication.link_up and not self.config.replica_serve_stale_data

    def lose_data(self) -> None:
        """Forget all data, as a node that does not persist and starts again."""
        self.keyspace.forget()
        self._dirty.clear()

    def disconnect(self, kind: str) -> int:
        count = super().disconnect(kind)
        return count + (kind in ("master", "all") and self.replication.break_link())

    def announce(self, host: str, port: int) -> None:
        """Be known to others by this address, from the next link to a master on, which is made at once."""
        self.config.set("replica-announce-ip", host)
        self.config.set("replica-announce-port", str(port))
        self.replication.break_link()

    def role_name(self) -> str:
        """The role in HELLO."""
        return "replica" if self.replication.is_replica else "master"

    def role_changed(self) -> None:
        """The node was promoted or demoted."""
        self.update_guard()
        if self.replication.is_replica:
            for session in [*self.waiters.sessions]:
                self.waiters.forget(session)
                session.fail(UNBLOCKED)
                session.close("the node became a replica")

    # Sessions

    def session_opened(self, session: Session) -> None:
        session.engine = self.keyspace.session(ScriptSide(self, session))
        self.config.admit(session)

    def session_ended(self, session: Session) -> None:
        self.waiters.forget(session)
        self.watches.clear(session)
        self.replication.session_ended(session)
        super().session_ended(session)
        session.engine.close()

    def reset_session(self, session: Session) -> None:
        discard_transaction(self, session)
        session.engine.db = 0
        super().reset_session(session)

    # Commands

    def observe(self, session: Session, command: Command, args: list[bytes], *, before: bool = False) -> None:
        super().observe(session, command, args, before=before)
        if not before:
            self.note_if_slow(session, command, args)

    def note_if_slow(self, session: Session, command: Command, args: list[bytes]) -> None:
        """A command has run: note it in the slow log, if everything is slow."""
        if "skip_slowlog" not in command.flags and session.blocked is None and not self.paused:
            _admin.note_slow(self, session, args)

    def perform(self, session: Session, command: Command, args: list[bytes]) -> Reply:
        in_transaction = session.replies_of_transaction is not None
        reply: Reply | Waiting = session.engine.execute(args, may_block=not in_transaction)
        if isinstance(reply, Waiting):
            keys = tuple((reply.db, key) for key in reply.keys)
            self.waiters.block(session, Blocked(keys, reply.retry, reply.expired), reply.timeout)
            return NO_REPLY
        return reply

    def run_queued(self, session: Session, command: Command, args: list[bytes], replies: list[Reply]) -> None:
        """Run a command of a transaction; its reply joins the others, unless it comes after the client's end."""
        ended = session.closing
        try:
            self.check_rights(session, command, args, "multi")
            reply = self.attempt(session, command, args)
        except Denied as denied:
            reply = ErrorReply(denied.at_exec)
        if type(reply) is ErrorReply:
            self.count_error(reply)
        if reply is not NO_REPLY and not ended:
            replies.append(reply)

    def rejected(self, session: Session, args: list[bytes], error: ErrorReply) -> ErrorReply:
        error = super().rejected(session, args, error)
        session.queue_failed = session.queue is not None
        if args[0].lower() != b"exec":
            return error
        discard_transaction(self, session)
        return ErrorReply(f"EXECABORT Transaction discarded because of: {error.text.removeprefix('ERR ')}")

    def follow_up(self, session: Session) -> None:
        if self._dirty:
            self.settle()
        session.last_write = self.replication.offset

    # What follows a write

    def _changed(self, db: int, key: bytes) -> None:
        self._dirty[db, key] = True

    def _changed_quietly(self, db: int, key: bytes) -> None:
        self._dirty.setdefault((db, key), False)

    def settle(self) -> None:
        """Let those know who are concerned by what has changed."""
        while self._dirty:
            dirty, self._dirty = self._dirty, {}
            for key, loud in dirty.items():
                if loud:
                    self.watches.touch(key)
            self.replication.propagate(dirty)
            for key in dirty:
                self.waiters.serve(key)

    def publish_from(self, session: Session, channel: bytes, message: bytes, kind: str) -> int:
        """PUBLISH by a client: replicas hear it, too."""
        count = self.publish(channel, message, kind)
        self.replication.publish(channel, message, kind)
        return count

    # Its life

    def before_restart(self) -> None:
        self.config.restarted()
        self.keyspace.scripts.flush()
        self.accounts.restarted(self.config.get("requirepass"))

    def on_start(self) -> None:
        self.replication.start()
        self._expiring = self.world.data_after(EXPIRE_CYCLE, self._expire_cycle)

    def _expire_cycle(self) -> None:
        """Delete what has expired, also where nobody asks for it."""
        self._expiring = self.world.data_after(EXPIRE_CYCLE, self._expire_cycle)
        if not self.paused and not self.replication.is_replica:
            self.keyspace.expire_due()
            if self._dirty:
                self.settle()

    def on_stop(self) -> None:
        self._expiring.cancel()
        self.replication.stop()
        self.loading = False

    def on_resume(self) -> None:
        self.replication.resume()
