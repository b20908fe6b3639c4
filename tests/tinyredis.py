"""A dict that answers a few Redis commands, and counts what it executed.

`TinyRedis` is what `tests.faulty.FaultyServer` puts behind its sockets: no I/O, no clock, and no code shared
with hatopo. A command that it does not know is refused, or answered from `answers`.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from dataclasses import dataclass
from typing import Any, ClassVar, TypeAlias

Command: TypeAlias = "list[bytes]"


class Status(str):
    """A simple string reply (`+OK`)."""

    __slots__ = ()


class Refusal(str):
    """An error reply (`-ERR ...`)."""

    __slots__ = ()


OK, QUEUED = Status("OK"), Status("QUEUED")


def encode(value: Any, protocol: int = 2) -> bytes:
    """The bytes of a reply."""
    if isinstance(value, Refusal):
        return b"-%s\r\n" % value.encode()
    if isinstance(value, Status):
        return b"+%s\r\n" % value.encode()
    if isinstance(value, int):
        return b":%d\r\n" % value
    if value is None:
        return b"_\r\n" if protocol == 3 else b"$-1\r\n"
    if isinstance(value, dict):
        flat = [item for pair in value.items() for item in pair]
        head = b"%%%d\r\n" % len(value) if protocol == 3 else b"*%d\r\n" % len(flat)
        return head + b"".join(encode(item, protocol) for item in flat)
    if isinstance(value, (list, tuple)):
        return b"*%d\r\n" % len(value) + b"".join(encode(item, protocol) for item in value)
    data = value.encode() if isinstance(value, str) else value
    return b"$%d\r\n%s\r\n" % (len(data), data)


def full_name(command: Command) -> str:
    """`"GET"`, `"CLIENT SETINFO"`."""
    name = command[0].decode().upper()
    if name in ("CLIENT", "SCRIPT") and len(command) > 1:
        name += " " + command[1].decode().upper()
    return name


@dataclass
class Session:
    """What the server remembers of one connection."""

    number: int
    authenticated: bool
    protocol: int = 2
    db: int = 0
    queued: list[Command] | None = None  # inside MULTI
    aborted: bool = False  # a command was refused inside MULTI


class TinyRedis:
    """See the module. `reply()` is its face; the counts and `data` are for the test to read."""

    def __init__(self, password: str | None = None) -> None:
        self.password = password
        self.data: dict[bytes, bytes] = {}
        self.answers: dict[str, Any] = {}
        self.executed: Counter[str] = Counter()
        self.auths = 0
        self._scripts: set[bytes] = set()

    def reply(self, session: Session, name: str, command: Command) -> Any:
        """Executes a command, or queues it inside MULTI."""
        if name in ("HELLO", "AUTH"):
            return self._hello(session, command) if name == "HELLO" else self._login(session, command[1:])
        if not session.authenticated:
            return Refusal("NOAUTH Authentication required.")
        if name == "EXEC":
            return self._exec(session)
        if session.queued is not None and name != "DISCARD":
            session.queued.append(command)
            return QUEUED
        return self._execute(session, name, command)

    def _login(self, session: Session, words: Command) -> Any:
        self.auths += 1
        user, secret = words if len(words) == 2 else [b"default", *words]
        if user != b"default" or secret.decode() != self.password:
            return Refusal("WRONGPASS invalid username-password pair or user is disabled.")
        session.authenticated = True
        return OK

    def _hello(self, session: Session, command: Command) -> Any:
        words = [word.upper() for word in command]
        if b"AUTH" in words:
            at = words.index(b"AUTH")
            if (outcome := self._login(session, command[at + 1 : at + 3])) is not OK:
                return outcome
        if not session.authenticated:
            return Refusal("NOAUTH HELLO must be called with the client already authenticated")
        self.executed["HELLO"] += 1
        session.protocol = int(command[1]) if len(command) > 1 else session.protocol
        facts = {"server": "redis", "version": "7.2.0", "proto": session.protocol, "id": session.number}
        return {**facts, "mode": "standalone", "role": "master", "modules": []}

    def _exec(self, session: Session) -> Any:
        queued, session.queued = session.queued, None
        if queued is None:
            return Refusal("ERR EXEC without MULTI")
        if session.aborted:
            session.aborted = False
            return Refusal("EXECABORT Transaction discarded because of previous errors.")
        self.executed["EXEC"] += 1
        return [self._execute(session, full_name(command), command) for command in queued]

    def _execute(self, session: Session, name: str, command: Command) -> Any:
        words = command[2 if " " in name else 1 :]
        method = getattr(self, "_do_" + name.lower().replace(" ", "_"), None)
        if name in self.answers:
            reply = self.answers[name]
        elif name in self._STATEFUL:
            reply = self._STATEFUL[name](session, words)
        elif method is not None:
            reply = method(*words)
        else:
            return Refusal(f"ERR unknown command '{name}'")
        self.executed[name] += 1
        return reply

    @staticmethod
    def _multi(session: Session, _: Command) -> Any:
        session.queued = []
        return OK

    @staticmethod
    def _discard(session: Session, _: Command) -> Any:
        session.queued = None
        session.aborted = False
        return OK

    @staticmethod
    def _select(session: Session, words: Command) -> Any:
        session.db = int(words[0])
        return OK

    @staticmethod
    def _client_id(session: Session, _: Command) -> Any:
        return session.number

    _STATEFUL: ClassVar = {"MULTI": _multi, "DISCARD": _discard, "SELECT": _select, "CLIENT ID": _client_id}

    def _do_get(self, key: bytes) -> Any:
        return self.data.get(key)

    def _do_set(self, key: bytes, value: bytes, *_: bytes) -> Any:
        self.data[key] = value
        return OK

    def _do_del(self, *keys: bytes) -> Any:
        return sum(self.data.pop(key, None) is not None for key in keys)

    def _do_incr(self, key: bytes, more: bytes = b"1") -> Any:
        old = self.data.get(key, b"0")
        if not old.isdigit():
            return Refusal("ERR value is not an integer or out of range")
        value = int(old) + int(more)
        self.data[key] = b"%d" % value
        return value

    _do_incrby = _do_incr

    def _do_append(self, key: bytes, more: bytes) -> Any:
        self.data[key] = self.data.get(key, b"") + more
        return len(self.data[key])

    def _do_echo(self, text: bytes) -> Any:
        return text

    def _do_ping(self, text: bytes | None = None) -> Any:
        return Status("PONG") if text is None else text

    def _do_role(self) -> Any:
        return ["master", 0, []]

    def _do_script_load(self, source: bytes) -> Any:
        digest = hashlib.sha1(source).hexdigest()
        self._scripts.add(digest.encode())
        return digest

    def _do_evalsha(self, digest: bytes, _: bytes, key: bytes) -> Any:
        """Any script is an INCR of its key."""
        return self._do_incr(key) if digest in self._scripts else Refusal("NOSCRIPT No matching script.")

    def _ok(self, *_: bytes) -> Any:
        return OK

    _do_client_setinfo = _do_client_setname = _do_watch = _do_unwatch = _ok
