"""The data of a node, and the commands on it: decides what a data command answers and which keys it changes.

It knows no clients, no transactions and no replication: those are the node's. Time and chance are given to it.
Only this module and its parts, `_engine_*`, know fakeredis.
"""

from __future__ import annotations

import logging
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from hatopo.testing._reply import ErrorReply, Reply
from hatopo.testing.engine._adapter import Server, Socket
from hatopo.testing.engine._context import NATIVE, Attempt, Blocked, Context
from hatopo.testing.engine._data import Change, Data, Value, copied, expires_of
from hatopo.testing.engine._natives import is_ours
from hatopo.testing.engine._patches import RUNNING, install
from hatopo.testing.engine._scripts import Scripts

__all__ = ["EngineSession", "Keyspace", "ScriptHost", "Snapshot", "Value", "Waiting"]

_LOG = logging.getLogger("hatopo.testing")
Handler = Callable[["list[bytes]"], Reply]


class ScriptHost(Protocol):
    """What a script and its commands ask before the engine, and instead of it."""

    def begin(self, flags: frozenset[str] | None, read_only: bool) -> None:
        """Raises where a script may not run; `flags` are those it declares, None if it says nothing of it."""

    def check(self, name: str, args: Sequence[bytes]) -> None:
        """Raises where a command of a script may not run."""

    def call(self, args: Sequence[bytes]) -> Reply:
        """A command in a script that is not the engine's."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All that a keyspace held at one moment."""

    databases: dict[int, dict[bytes, Value]]


class Keyspace:
    """The data of one node."""

    def __init__(self, *, now: Callable[[], float], rng: random.Random, databases: int = 16) -> None:
        install()
        self.now = now
        self.rng = rng
        self.on_change: Callable[[int, bytes], None] = _nothing
        """Called with (database, key) for every key that a command has changed, before `execute` returns."""
        self.on_quiet_change: Callable[[int, bytes], None] | None = None
        """Called instead of `on_change`, if there is one, for changes that break no WATCH: those of consumer groups."""
        self.on_command: Callable[[int, Sequence[bytes], Sequence[Change]], None] | None = None
        """Called after each command, also of a script, with its database, its words and what it has changed; with no
        words where keys have expired by themselves."""
        self._changes: list[Change] = []
        self._told = 0
        """How many of the changes `on_command` knows."""
        self._frozen: int | None = None
        self._quiet: list[tuple[int, bytes]] = []
        self._data = [Data(number, self.milliseconds, self._changes, self._quiet) for number in range(databases)]
        self._server = Server(self._data)
        self.scripts = Scripts()

    def milliseconds(self) -> int:
        """The time in milliseconds since 1970; it stands still while a script runs."""
        return int(self.now() * 1000 + 0.001) if self._frozen is None else self._frozen

    def freeze(self, still: bool) -> None:
        """Let time stand still, or go on."""
        self._frozen = None
        self._frozen = self.milliseconds() if still else None

    def handles(self, name: str) -> bool:
        """Whether this command, in lower case and without subcommand, is the engine's."""
        return is_ours(name)

    def declared(self, name: str, word: bytes) -> frozenset[str] | None:
        """The flags that a script declares; None where there are none, or no such script.

        Args:
            name: the command that runs it: eval, evalsha, or one of these with _ro.
            word: what follows that: code, or a digest.
        """
        return self.scripts.declared(word, by_digest=name.startswith("evalsha"))

    def session(self, host: ScriptHost) -> EngineSession:
        """A client of the data."""
        return EngineSession(self, host)

    @property
    def replica(self) -> bool:
        """Whether expired keys wait for the master to delete them: nobody sees them, but nothing is changed."""
        return self._data[0].keeps_expired

    @replica.setter
    def replica(self, value: bool) -> None:
        for data in self._data:
            data.keeps_expired = value

    def expire_due(self) -> None:
        """Delete all keys that have expired, as the server does from time to time, and report them."""
        for data in self._data:
            data._remove_expired()
        self.tell(0, ())
        self.report()

    def copy(self, db: int, key: bytes) -> Value | None:
        """What a key holds, independent of it; None if it is not there.

        A key that has expired is deleted now, and reported, as any command would that looks at it.
        """
        item = self._data[db].item(key)
        if item is None:
            if self._changes:
                self.report()
            return None
        return Value(copied(item.value), expires_of(item))

    def holds(self, db: int, key: bytes) -> bool:
        """Whether there is something under a key, be it expired."""
        return key in self._data[db]._dict

    def has_expired(self, db: int, key: bytes) -> bool:
        """Whether a key is still there and should not be."""
        item = self._data[db]._dict.get(key)
        return item is not None and self._data[db].expired(item)

    def put(self, db: int, key: bytes, value: Value | None) -> None:
        """Make a key hold a value, or nothing, without reporting it."""
        if value is None:
            self._data[db]._dict.pop(key, None)
        else:
            self._data[db].place(key, copied(value.content), value.expires)

    def dump(self) -> Snapshot:
        """Everything, independent of the keyspace."""
        kept = {
            data.number: {key: Value(copied(item.value), expires_of(item)) for key, item in data.live().items()}
            for data in self._data
        }
        return Snapshot({number: keys for number, keys in kept.items() if keys})

    def load(self, snapshot: Snapshot) -> None:
        """Hold what a snapshot holds, and nothing else; reports nothing."""
        self.clear()
        for number, keys in snapshot.databases.items():
            for key, value in keys.items():
                self.put(number, key, value)

    def clear(self, db: int | None = None) -> None:
        """Delete all keys of one database, or of all; reports nothing."""
        for data in self._data if db is None else [self._data[db]]:
            data.wipe()

    def forget(self) -> None:
        """Hold nothing any more: no keys, no scripts."""
        self.clear()
        self.scripts.flush()

    def swap(self, a: int, b: int) -> None:
        """Exchange the contents of two databases."""
        if a != b:
            self._data[a].swap(self._data[b])

    def sizes(self) -> dict[int, tuple[int, int]]:
        """By database that has any: how many keys, and how many of them expire."""
        found = {}
        for data in self._data:
            if data._dict:
                live = data.live().values()
                found[data.number] = (len(live), sum(item.expireat is not None for item in live))
        return {number: sizes for number, sizes in found.items() if sizes[0]}

    def tell(self, db: int, args: Sequence[bytes]) -> None:
        """Tell `on_command` that a command has run."""
        if self.on_command is not None:
            fresh = self._changes[self._told :]
            self._told = len(self._changes)
            self.on_command(db, args, fresh)

    def report(self) -> None:
        """Tell `on_change` what has changed."""
        changes = self._changes
        keys: dict[tuple[int, bytes], bool] = {}
        for number, key, existed in changes:
            keys.setdefault((number, key), existed is not False)
        quiet = self._quiet_keys() if self._quiet else ()
        changes.clear()
        self._told = 0
        for (number, key), existed in keys.items():
            if existed or key in self._data[number]._dict:
                if (number, key) in quiet and self.on_quiet_change is not None:
                    self.on_quiet_change(number, key)
                else:
                    self.on_change(number, key)

    def _quiet_keys(self) -> set[tuple[int, bytes]]:
        """The keys of which all changes were quiet."""
        count = Counter((number, key) for number, key, _ in self._changes)
        count.subtract(self._quiet)
        self._quiet.clear()
        return {key for key, loud in count.items() if not loud}


def _nothing(db: int, key: bytes) -> None:
    """Nobody wants to know."""


class EngineSession(Context):
    """One client of a keyspace."""

    def __init__(self, keyspace: Keyspace, host: ScriptHost) -> None:
        self.keyspace = keyspace
        self.host = host
        self.databases = keyspace._data
        self.data = keyspace._data[0]
        self._protocol = 2
        self._socket = Socket(keyspace._server)
        self._socket.select(self.data)
        self._handlers: dict[bytes, Handler] = {}

    @property
    def db(self) -> int:
        """The database that is selected."""
        return self.data.number

    @db.setter
    def db(self, number: int) -> None:
        self.data = self.databases[number]
        self._socket.select(self.data)

    @property
    def protocol(self) -> int:
        """The protocol of the client, 2 or 3."""
        return self._protocol

    @protocol.setter
    def protocol(self, value: int) -> None:
        self._protocol = value
        self._socket.speak(value, self.scripting)

    def execute(self, args: list[bytes], may_block: bool = True) -> Reply | Waiting:
        """Run a command; an error is returned."""
        keyspace = self.keyspace
        RUNNING.keyspace = keyspace
        reply: Reply | Waiting
        try:
            handler = self._handlers.get(args[0]) or self._find(args[0])
            reply = handler(args)
        except ErrorReply as error:
            reply = error
        except Blocked as blocked:
            reply = Waiting(self, blocked, args) if may_block else blocked.at_once
        except Exception as error:
            reply = _unexpected(args, error)
        finally:
            RUNNING.keyspace = None
        if keyspace.on_command is not None:
            keyspace.tell(self.db, args)
        if keyspace._changes:
            keyspace.report()
        return reply

    def perform(self, args: list[bytes]) -> Reply:
        """A command within a command, a script: raises ErrorReply and Blocked, and reports nothing."""
        return (self._handlers.get(args[0]) or self._find(args[0]))(args)

    def adapted(self, name: str, args: list[bytes]) -> Reply:
        """What fakeredis makes of a command."""
        return self._socket.run(name, args[1:])

    def _find(self, name: bytes) -> Handler:
        """The handler of a command."""
        text = name.decode("latin-1").lower()
        if not is_ours(text):
            raise ErrorReply(f"ERR the embedded server does not have '{name.decode('utf-8', 'replace')}'")
        function = NATIVE.get(text)
        handler = partial(self.adapted, text) if function is None else partial(function, self)
        if len(self._handlers) < 1000:
            self._handlers[name] = handler
        return handler

    def again(self, args: Sequence[bytes], attempt: Attempt, key: bytes) -> Reply | None:
        """One more attempt of a command that waits, with the key that has changed."""
        keyspace = self.keyspace
        RUNNING.keyspace = keyspace
        try:
            reply = attempt(key)
        except ErrorReply as error:
            reply = error
        except Exception as error:
            reply = _unexpected(args, error)
        finally:
            RUNNING.keyspace = None
        if keyspace._changes:
            keyspace.tell(self.db, args)
            keyspace.report()
        return reply

    def close(self) -> None:
        """Nothing is left of the client."""
        self._handlers.clear()


class Waiting:
    """A command that found nothing and waits for its keys; forgotten, it leaves no trace."""

    __slots__ = ("_args", "_attempt", "_expired", "_session", "db", "keys", "timeout")

    def __init__(self, session: EngineSession, blocked: Blocked, args: Sequence[bytes]) -> None:
        self._session, self._args = session, args
        self._attempt, self._expired = blocked.attempt, blocked.expired
        self.db, self.keys, self.timeout = session.db, blocked.keys, blocked.timeout

    def retry(self, key: bytes) -> Reply | None:
        """Try again, now that this key has changed; None if there is still nothing."""
        return self._session.again(self._args, self._attempt, key)

    def expired(self) -> Reply:
        """The answer when time is up."""
        return self._expired


def _unexpected(args: Sequence[bytes], error: Exception) -> ErrorReply:
    """A command has failed in a way that no server fails."""
    name = args[0].decode("utf-8", "replace") if args else ""
    _LOG.error("command %s failed in the embedded server", name, exc_info=error)
    return ErrorReply(f"ERR internal error of the embedded server: {type(error).__name__}: {error}")
