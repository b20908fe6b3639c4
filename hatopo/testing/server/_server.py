"""A server: listens, keeps the sessions of its clients, and decides in which order a command is checked.

The order is that of the real server's processCommand: existence and arity, login, what a transaction may not hold,
rights, state of the data set, subscriptions, pauses, then the transaction's queue or the command itself. What
commands do stands in the modules of handlers; data and replication are the data node's (`_node`), elections the
sentinel's. A server also has the ways in which a process can suffer: killed, started again, frozen, cut off.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import TYPE_CHECKING

from hatopo.testing import _checks
from hatopo.testing._reply import NO_REPLY, ErrorReply, Reply, Status
from hatopo.testing.acl._accounts import Accounts
from hatopo.testing.commands import TABLE, Command, Table, command_reply, lookup
from hatopo.testing.node._effects import may_write, touches_keys
from hatopo.testing.server._channels import Channels
from hatopo.testing.server._client_commands import describe
from hatopo.testing.server._faults import Faults
from hatopo.testing.server._handlers import Handler, Handlers
from hatopo.testing.server._monitors import SCRIPTS, feed_monitors
from hatopo.testing.server._port import HOST, Port
from hatopo.testing.server._session import Peer, Session
from hatopo.testing.server._wire import Connection
from hatopo.testing.world._world import CLIENTS, LocalPeer

if TYPE_CHECKING:
    import ssl
    from collections.abc import Callable, Mapping, Sequence

    from hatopo.testing.acl._accounts import User
    from hatopo.testing.world._world import Address, LocalLink, World

log = logging.getLogger("hatopo.testing")

QUEUED = Status("QUEUED")
NOT_QUEUED = {"exec", "discard", "multi", "watch", "quit", "reset"}


class Server:
    """What data nodes and sentinels have in common."""

    mode = "standalone"
    table: Table = TABLE
    handlers: Mapping[str, Handler] = Handlers()
    version = "7.0.15"

    def __init__(self, world: World, *, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.world = world
        self.tls = tls
        self.accounts = Accounts(self.table, world.rng, lambda: world.now)
        self.accounts.on_users_changed = self._users_changed
        self.superuser = Accounts(self.table, world.rng, lambda: world.now).default
        """Who may do everything, whatever users there are: the test itself."""
        self.faults = Faults(self)
        self.run_id = world.new_id()
        self.running = False
        self.paused = False
        self.refusing = False
        """Connections are refused, though it runs."""
        self.sessions: dict[int, Session] = {}
        self.current: Session | None = None
        """Whose command runs, or ran last."""
        self.connections: set[Connection] = set()
        self.channels = Channels()
        self.monitors: list[Session] = []
        self.stats: Counter[str] = Counter()
        self.errors: Counter[str] = Counter()
        self.calls: Counter[str] = Counter()
        self.rejected_calls: Counter[str] = Counter()
        self.failed_calls: Counter[str] = Counter()
        self.started_at = world.now
        self.observing = False
        """Whether `observe` wants to know of each command."""
        self.pause_until = 0.0
        self.pause_all = False
        """CLIENT PAUSE ALL; otherwise writes alone are paused."""
        self._paused_sessions: list[Session] = []
        self._after_pause: list[Callable[[], object]] = []
        """What became due while the process stood still."""
        self.guarded = False
        self._port = Port(port)
        self._last_id = 2  # the real server's first client is number 3

    # Where it is

    @property
    def address(self) -> Address:
        """Where it listens."""
        return (HOST, self._port.number)

    def bind(self) -> None:
        """Take a port, without listening yet: who connects is refused."""
        self._port.keep()
        self.world.servers[self.address] = self

    def _listen(self) -> None:
        self._port.listen(lambda: Connection(self), self.tls)

    async def start(self) -> None:
        """Listen, and begin to work."""
        if not self.refusing:
            self._listen()
        self.running, self.started_at = True, self.world.now
        self.on_start()
        self.update_guard()

    def kill(self) -> None:
        """End at once, as by SIGKILL: connections break, what was not answered never will be."""
        if self.running:
            self.running = self.paused = False
            for session in [*self.sessions.values()]:
                session.close("the server was killed", flush=False)
            self._after_pause.clear()
            self._paused_sessions.clear()
            self.unpause_clients()
            self.on_stop()
            self._hold_handshakes()
            self._port.hang_up()
            self._port.shut()

    def shut_down(self) -> None:
        """End in order, as by SIGTERM: what was answered arrives, then connections are closed."""
        for session in [*self.sessions.values()]:
            session.close("the server shuts down")
        self.kill()

    def disconnect(self, kind: str) -> int:
        """Close the connections of one kind, as of CLIENT KILL TYPE, or "all"; returns how many."""
        _checks.kind(kind)
        found = [one for one in self.sessions.values() if kind in ("all", one.type_name) and not one.exempt]
        for session in found:
            session.close("the connection was closed")
        return len(found)

    def close(self) -> None:
        """The end of it; the port is free."""
        self.kill()
        self._port.close()
        for connection in [*self.connections]:
            connection.abort()  # where it is cut off, its client does not know yet
        self.world.servers.pop(self.address, None)

    async def restart(self) -> None:
        """Kill it, if it runs, and start it again at the same port, as another run."""
        self.world.clock.catch_up()
        self.kill()
        self.run_id = self.world.new_id()
        for counter in (self.stats, self.errors, self.calls, self.rejected_calls, self.failed_calls):
            counter.clear()
        self.before_restart()
        await self.start()

    def when_awake(self, callback: Callable[[], object]) -> None:
        """Call back now, or after the pause."""
        if self.paused:
            self._after_pause.append(callback)
        else:
            callback()

    def pause(self) -> None:
        """Stand still, as after SIGSTOP: connections are accepted, and nothing is answered."""
        if self.running and not self.paused:
            self.paused = True
            for session in self.sessions.values():
                session.hold()
            for connection in self.connections:
                connection.freeze(True)
            self._hold_handshakes()

    def resume(self) -> None:
        """The end of `pause`: what has arrived is answered now."""
        if self.paused:
            self.paused = False
            late, self._after_pause = self._after_pause, []
            for callback in late:
                callback()
            for session in [*self.sessions.values()]:
                session.release()
            for connection in [*self.connections]:
                connection.freeze(False)
            self._hold_handshakes()
            self.on_resume()
            self.world.network_changed()

    async def refuse(self, refusing: bool) -> None:
        """Refuse new connections, or accept them again."""
        if refusing != self.refusing:
            self.refusing = refusing
            if self.running and refusing:
                self._port.shut()
            elif self.running:
                self._listen()

    def reach_changed(self) -> None:
        """Somebody has been cut off, or the cut is healed."""
        for connection in [*self.connections]:
            connection.set_reachable(not self.world.is_cut(self, CLIENTS))
        self._hold_handshakes()

    def _hold_handshakes(self) -> None:
        self._port.hold(self.paused or self.world.is_cut(self, CLIENTS))

    def on_start(self) -> None:
        """What else begins with the server."""

    def on_stop(self) -> None:
        """What else ends with the server."""

    def on_resume(self) -> None:
        """What else goes on after a pause."""

    def before_restart(self) -> None:
        """What a restart takes away."""

    # Who is connected

    def open_session(self, peer: Peer, address: Address) -> Session:
        """A client has connected."""
        self._last_id += 1
        self.stats["total_connections_received"] += 1
        session = Session(self, peer, self._last_id, address, self.accounts.newcomer)
        self.sessions[session.id] = session
        if self.paused:
            session.hold()
        self.session_opened(session)
        return session

    def open_local(self, link: LocalLink) -> Session | None:
        """A server of the same world connects; None: refused."""
        if not self.running or self.refusing:
            return None
        session = self.open_session(LocalPeer(link), (HOST, self._last_id))
        return None if session.closed else session

    def accepted(self, connection: Connection) -> None:
        """A client has connected by a socket."""
        self.connections.add(connection)
        if self.world.is_cut(self, CLIENTS):
            connection.set_reachable(False)
        if self.paused:
            connection.freeze(True)

    def reset_session(self, session: Session) -> None:
        """RESET: as if it had just connected."""
        for command, channels in session.channels.items():
            for channel in [*channels]:
                self.channels.unsubscribe(session, command, channel)
        if session in self.monitors:
            self.monitors.remove(session)
        session.user = self.accounts.newcomer
        session.protocol, session.name, session.replies = 2, b"", True
        session.extras.clear()
        session.update_guard()

    def describe(self, session: Session) -> str:
        """The session as a line of CLIENT LIST."""
        return describe(session)

    def describe_commands(self, args: list[bytes]) -> Reply:
        """The COMMAND command."""
        return command_reply(args, self.table)

    def role_name(self) -> str:
        """The role in HELLO."""
        return self.mode

    def session_opened(self, session: Session) -> None:
        """What else a new session needs."""

    def session_ended(self, session: Session) -> None:
        """The session has gone."""
        self.sessions.pop(session.id, None)
        for command, channels in session.channels.items():
            for channel in channels:
                self.channels.unsubscribe(session, command, channel, keep_own=True)
        if session in self.monitors:
            self.monitors.remove(session)

    # What it does

    def update_guard(self) -> None:
        """Note whether a command needs more than to be run: call it when one of these has changed."""
        paused = self.pause_until > self.world.data_now
        self.guarded = bool(self.faults.rules or paused or self.checks_state())
        self.observing = bool(self.monitors)

    def checks_state(self) -> bool:
        """Whether `check_state` or `check_service` may refuse anything now."""
        return False

    def receive(self, session: Session, args: list[bytes]) -> None:
        """Run a command that a client has sent, and answer it."""
        self.stats["total_commands_processed"] += 1
        self.current = session
        reply: Reply
        try:
            command = lookup(args, self.table)
        except ErrorReply as error:
            reply = self._not_understood(session, args, error)
        else:
            if self.guarded or session.guarded:
                reply = self._guard(session, command, args)
            else:
                reply = self.attempt(session, command, args)
        self.answer(session, reply)
        self.finish(session)

    def again(self, session: Session, command: Command, args: list[bytes], *, spared: bool = False) -> None:
        """Run a command that had to wait: it is checked once more; `spared`: it has met its fault."""
        self.current = session
        self.answer(session, self._admit(session, command, args, spared))
        self.finish(session)

    def answer(self, session: Session, reply: Reply) -> None:
        """Send the reply of a command, if it has one."""
        if reply is not NO_REPLY:
            if type(reply) is ErrorReply:
                self.count_error(reply)
            session.answer(reply)

    def count_error(self, error: ErrorReply) -> None:
        """Note an error that was answered, for INFO errorstats."""
        self.errors[error.text.partition(" ")[0]] += 1
        self.stats["total_error_replies"] += 1

    def finish(self, session: Session) -> None:
        """End a command: what it has changed takes effect on others; a mistake in that harms nobody."""
        try:
            self.follow_up(session)
        except Exception:
            log.exception("what follows a command failed in the embedded server")
        if session.closing:
            session.close()

    def follow_up(self, session: Session) -> None:
        """What follows a command."""

    def rejected(self, session: Session, args: list[bytes], error: ErrorReply) -> ErrorReply:
        """A command was refused before it ran; returns what is answered."""
        self.stats["total_commands_processed"] -= 1
        command = self.table.of_request(args)
        if command is not None:
            self.rejected_calls[command.name] += 1
        return ErrorReply(error.text)

    def _not_understood(self, session: Session, args: list[bytes], error: ErrorReply) -> ErrorReply:
        if args[0].lower() in (b"post", b"host:"):  # a browser was made to talk to the server
            session.close("that is HTTP", flush=False)
        self._skip(session)
        return self.rejected(session, args, error)

    def _skip(self, session: Session) -> None:
        """A command has come after CLIENT REPLY SKIP."""
        if session.skipping:
            session.skipping -= 1
            session.update_guard()

    def observe(self, session: Session, command: Command, args: list[bytes], *, before: bool = False) -> None:
        """A command has run, or is about to, while `observing`."""
        if before == (command.name in SCRIPTS):
            feed_monitors(self, session, args)

    def run(self, session: Session, command: Command, args: list[bytes]) -> Reply:
        """Run a command that has passed all checks; an error may be raised or returned."""
        handler = self.handlers.get(command.name)
        if session.replies_of_transaction is None:
            session.last_command = command.name
        self.calls[command.name] += 1
        session.active = self.world.data_now
        if handler is None:
            return self.perform(session, command, args)
        return handler(self, session, args)

    def perform(self, session: Session, command: Command, args: list[bytes]) -> Reply:
        """Run a command for which there is no handler."""
        raise ErrorReply(f"ERR the embedded server does not have '{command.name}'")

    def _guard(self, session: Session, command: Command, args: list[bytes]) -> Reply:
        """Check a command, and run it, or do with it what else is to be done now."""
        self._skip(session)
        return self._admit(session, command, args, session.peer.party is not CLIENTS)

    def _admit(self, session: Session, command: Command, args: list[bytes], spared: bool) -> Reply:
        try:
            self._check(session, command, args)
        except ErrorReply as error:
            return self.rejected(session, args, error)
        if self.pause_until > self.world.data_now and self._is_paused(session, command, args):
            session.postpone(lambda: self.again(session, command, args, spared=spared))
            session.hold()
            self._paused_sessions.append(session)
            return NO_REPLY
        if session.queue is not None and command.name not in NOT_QUEUED:
            session.queue.append((command, args))
            session.last_command = command.name
            return QUEUED
        if self.faults.rules and not spared and self.faults.meet(session, command, args):
            return NO_REPLY
        return self.attempt(session, command, args)

    def _check(self, session: Session, command: Command, args: list[bytes]) -> None:
        """The checks of a command, in their order; ErrorReply where one of them fails."""
        if session.user is None and "no_auth" not in command.flags:
            raise ErrorReply("NOAUTH Authentication required.")
        if session.queue is not None and "no_multi" in command.flags:
            raise ErrorReply("ERR Command not allowed inside a transaction")
        self.check_rights(session, command, args)
        flags = self.traits(session, command, args)
        self.check_state(session, command, flags)
        session.check_subscribed(command.name)
        self.check_service(flags)
        if session in self.monitors and touches_keys(self, session, command, args):
            raise ErrorReply("ERR Replica can't interact with the keyspace")

    def attempt(self, session: Session, command: Command, args: list[bytes]) -> Reply:
        """Run a command that has passed all checks; an error is returned, a mistake of this program, too."""
        if self.observing:
            self.observe(session, command, args, before=True)
        try:
            reply = self.run(session, command, args)
        except ErrorReply as error:
            reply = error
        except Exception as error:
            log.exception("%s failed in the embedded server", command.name)
            reply = ErrorReply(f"ERR internal error of the embedded server: {error!r}")
        if type(reply) is ErrorReply:
            self.failed_calls[command.name] += 1
        if self.observing:
            self.observe(session, command, args)
        return reply

    def check_rights(self, session: Session, command: Command, args: list[bytes], context: str = "toplevel") -> None:
        """Raise NOPERM where the user may not do this; `context`: or "multi", or "lua"."""
        if session.user is None or session.user.all_powerful:
            return
        denied = self.accounts.why_denied(session.user, command, args)
        if denied is not None:
            self.accounts.note_denied(session.user, denied, self.describe(session), context)
            raise denied

    def _users_changed(self, users: Sequence[User]) -> None:
        """Rights have changed: end the sessions that could not have begun with them."""
        for session in [*self.sessions.values()]:
            if session.user in users:
                session.rights_changed()

    def traits(self, session: Session, command: Command, args: list[bytes]) -> frozenset[str]:
        """The flags of a command, as far as they depend on its arguments; the same object, if they do not."""
        return command.flags

    def check_state(self, session: Session, command: Command, flags: frozenset[str]) -> None:
        """Raise what the state of the data set forbids to a command of these `traits`."""

    def check_service(self, flags: frozenset[str]) -> None:
        """Raise what stands in the way of any answer: LOADING, MASTERDOWN."""

    # CLIENT PAUSE

    def pause_clients(self, seconds: float, *, everything: bool) -> None:
        """Hold back writes, or all commands, of clients; a pause that is longer or wider than the present one wins."""
        self.pause_all = everything or (self.pause_all and self.pause_until > self.world.data_now)
        self.pause_until = max(self.pause_until, self.world.data_now + seconds)
        self.update_guard()
        self.world.data_after(seconds, self._end_pause)

    def _end_pause(self) -> None:
        if self.pause_until <= self.world.data_now:
            self.unpause_clients()

    def unpause_clients(self) -> None:
        """The end of `pause_clients`."""
        self.pause_until, self.pause_all = 0.0, False
        self.update_guard()
        sessions, self._paused_sessions = self._paused_sessions, []
        for session in sessions:
            session.release()

    def _is_paused(self, session: Session, command: Command, args: list[bytes]) -> bool:
        if session.kind == "replica" or (command.name in ("client|unpause", "client|pause") and not self.pause_all):
            return False
        return self.pause_all or may_write(self, session, command, args)

    # Publishing

    def publish_from(self, session: Session, channel: bytes, message: bytes, kind: str) -> int:
        """A client publishes."""
        return self.publish(channel, message, kind)

    def publish(self, channel: bytes, message: bytes, kind: str = "message") -> int:
        """Send a message to all who listen here; returns how many there were."""
        return self.channels.publish(channel, message, kind)
