"""How a connection introduces itself: one pipelined round trip, a second only where the first was refused.

A generator: it yields the commands to send and is fed their replies (errors as values), so that the same words
are spoken from threads and from event loops. Knows nothing of sockets or pools.

Optional commands (CLIENT SETINFO, CLIENT SETNAME, ROLE, INFO) may be forbidden by an ACL or unknown to a proxy; that
never fails a connection. HELLO may be, too, unless RESP3 was asked for by name: then RESP2 is spoken.
"""

from __future__ import annotations

import re
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import redis.exceptions as rx

from hatopo.errors import HandshakeError

Command: TypeAlias = "tuple[str | int, ...]"
Handshake: TypeAlias = "Generator[Sequence[Command], Sequence[object], Welcome]"


@dataclass(frozen=True, slots=True)
class Greeting:
    """What a connection says about itself.

    Attributes:
        protocol: 2 or 3.
        insist: RESP3 was asked for by name: no falling back.
        credentials: (), (password,) or (user name, password).
        client_name, library, version, database: sent if set.
        ask_role: whether the node's role is wanted even if HELLO does not tell it.
        ask_id: whether its run id is wanted.
    """

    protocol: int
    insist: bool = False
    credentials: tuple[str, ...] = field(default=(), repr=False)
    client_name: str | None = None
    library: str | None = None
    version: str | None = None
    database: int = 0
    ask_role: bool = False
    ask_id: bool = False


@dataclass(frozen=True, slots=True)
class Welcome:
    """What the server answered.

    Attributes:
        protocol: the one that is spoken from now on.
        metadata: HELLO's reply, or None.
        role: "master", "slave", "replica" or "" where nobody told.
        run_id: the node's, "" where it may not tell, None where it could not now (a script is running).
        zone: its availability zone, where it tells (Valkey, in HELLO and INFO).
    """

    protocol: int
    metadata: Mapping[object, object] | None = None
    role: str = ""
    run_id: str | None = ""
    zone: str = ""


def shake_hands(greeting: Greeting) -> Handshake:
    """Speaks the handshake.

    Raises:
        redis.AuthenticationError: the credentials are wrong or missing.
        redis.ResponseError: the database cannot be selected, or the client name is not allowed.
    """
    if greeting.protocol < 3:
        return (yield from _speak_resp2(greeting))
    hello: Command = ("HELLO", 3)
    if greeting.credentials:
        user = greeting.credentials if len(greeting.credentials) == 2 else ("default", *greeting.credentials)
        hello = (*hello, "AUTH", *user)
    extras = _extras(greeting)
    replies = yield [hello, *extras]
    metadata = replies[0]
    if isinstance(metadata, Exception):
        if greeting.insist or isinstance(metadata, rx.AuthenticationError) or not _unavailable(metadata):
            raise metadata
        return (yield from _speak_resp2(greeting))
    if not isinstance(metadata, Mapping):
        raise HandshakeError("the node answered HELLO 3 with no map: is it a Redis server?")
    _check(extras, replies[1:])
    role = metadata.get(b"role", metadata.get("role", ""))
    zone = _text(metadata.get(b"availability_zone", metadata.get("availability_zone", "")))
    run_id, said = _identity(replies[-1]) if greeting.ask_id else ("", "")
    return Welcome(3, metadata, _text(role), run_id, zone or said)


def _speak_resp2(greeting: Greeting) -> Handshake:
    extras = _extras(greeting)
    if greeting.ask_role:
        extras = [("ROLE",), *extras]
    auth: list[Command] = [("AUTH", *greeting.credentials)] if greeting.credentials else []
    replies = yield [*auth, *extras]
    if auth and isinstance(replies[0], rx.AuthenticationWrongNumberOfArgsError):  # before Redis 6: no user names
        replies = yield [("AUTH", greeting.credentials[-1]), *extras]
    if auth and isinstance(replies[0], Exception):
        raise replies[0]
    rest = replies[len(auth) :]
    _check(extras, rest)
    role = ""
    if greeting.ask_role and isinstance(rest[0], (list, tuple)) and rest[0]:
        role = _text(rest[0][0])
    run_id, zone = _identity(rest[-1]) if greeting.ask_id else ("", "")
    return Welcome(2, None, role, run_id, zone)


def _extras(greeting: Greeting) -> list[Command]:
    commands: list[Command] = []
    if greeting.client_name:
        commands.append(("CLIENT", "SETNAME", greeting.client_name))
    if greeting.library:
        commands.append(("CLIENT", "SETINFO", "LIB-NAME", greeting.library))
    if greeting.version:
        commands.append(("CLIENT", "SETINFO", "LIB-VER", greeting.version))
    if greeting.database:
        commands.append(("SELECT", greeting.database))
    if greeting.ask_id:
        commands.append(("INFO", "server"))
    return commands


_OPTIONAL = ("CLIENT", "ROLE")


def _check(commands: Sequence[Command], replies: Sequence[object]) -> None:
    for command, reply in zip(commands, replies, strict=True):
        if not isinstance(reply, Exception):
            continue
        optional = command[:2] in (("CLIENT", "SETINFO"), ("INFO", "server"))
        optional = optional or (command[0] in _OPTIONAL and _unavailable(reply))
        if not optional:
            raise reply


def _unavailable(error: Exception) -> bool:
    """Whether the server does not know the command, or does not allow it to this user."""
    text = str(error).lower()
    return isinstance(error, rx.NoPermissionError) or any(
        sign in text
        for sign in (
            "unknown",
            "noproto",
            "unsupported protocol",
            "syntax error",
            "not supported",
            "not allowed",
        )
    )


def _identity(info: object) -> tuple[str | None, str]:
    """The run id and the zone that a node tells."""
    if isinstance(info, Exception) and not _unavailable(info):
        return None, ""
    text = _text(info) if isinstance(info, (bytes, str)) else ""
    run_id = re.search(r"^run_id:(\w+)", text, re.MULTILINE)
    zone = re.search(r"^availability_zone:([^\r\n]+)", text, re.MULTILINE)
    return run_id[1] if run_id else "", zone[1].strip() if zone else ""


def _text(value: object) -> str:
    return value.decode("ascii", "replace") if isinstance(value, bytes) else str(value)
