"""Replies as values, and their bytes: decides how a value is spelled in RESP2 and RESP3, and knows no command.

    None, bool, int, float      as Python has them (RESP2 has no doubles and booleans: they become strings and 0, 1)
    bytes, str                  a bulk string
    Status("OK")                a simple string
    ErrorReply("ERR no")        an error; raised inside the server, or part of an array
    list, tuple                 an array
    dict                        a map, in RESP2 a flat array
    Members([...])              a set, in RESP2 an array
    Text("...")                 a verbatim string, in RESP2 a bulk string
    Push([...])                 a message that answers nothing, in RESP2 an array
    Replies(commands)           what EXEC answers: its head says how many commands there were
    NULL_ARRAY                  what RESP2 spells *-1, and RESP3 like any other null

Errors are sent on one line: what a client wrote into it cannot end it early.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Union

__all__ = [
    "NO_REPLY",
    "NULL_ARRAY",
    "OK",
    "ErrorReply",
    "Members",
    "Push",
    "Replies",
    "Reply",
    "Status",
    "Text",
    "encode",
]


class Status(str):
    """A simple string."""

    __slots__ = ()


class Text(str):
    """A verbatim string, such as INFO has it in RESP3."""

    __slots__ = ()


class Members(list["Reply"]):
    """A set, in the order in which it is sent."""

    __slots__ = ()


class Push(list["Reply"]):
    """A message that no command has asked for."""

    __slots__ = ()


class Replies(list["Reply"]):
    """The replies of a transaction.

    A command in it may have yielded several pieces or none: a real server sends them all, behind a head that counts
    commands, and so what is too much is taken for something else by who reads it.
    """

    __slots__ = ("commands",)

    def __init__(self, commands: int) -> None:
        super().__init__()
        self.commands = commands


class ErrorReply(Exception):  # noqa: N818 - named like the other values here
    """An error as the server words it, code first: ErrorReply("ERR syntax error")."""

    @property
    def text(self) -> str:
        """The line, without the sign that makes it an error."""
        return str(self.args[0])


class _Constant:
    """A value that is only ever compared by identity."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __repr__(self) -> str:
        return self._name


NULL_ARRAY: Final = _Constant("NULL_ARRAY")
NO_REPLY: Final = _Constant("NO_REPLY")
"""What a command yields that answers later, or by messages: nothing is sent."""
OK: Final = Status("OK")

Reply = Union[None, bool, int, float, bytes, str, ErrorReply, _Constant, Sequence["Reply"], "dict[Reply, Reply]"]


def encode(value: Reply, protocol: int = 2) -> bytes:
    """The bytes of a reply under `protocol`, 2 or 3."""
    kind = type(value)
    if kind is bytes:
        return b"$%d\r\n%b\r\n" % (len(value), value)  # type: ignore[arg-type, str-format]
    if kind is int and -(2**63) <= value < 2**63:  # type: ignore[operator]
        return b":%d\r\n" % value  # type: ignore[str-format]
    if value is None:
        return b"_\r\n" if protocol == 3 else b"$-1\r\n"
    if kind is Status:
        return b"+%b\r\n" % value.encode()  # type: ignore[union-attr]
    parts: list[bytes] = []
    _encode(value, protocol, parts)
    return b"".join(parts)


def _encode(value: Reply, protocol: int, parts: list[bytes]) -> None:
    """Append the bytes of a value that may hold others."""
    if isinstance(value, str) and not isinstance(value, (Status, Text)):
        value = value.encode("utf-8", "surrogateescape")
    match value:
        case bytes() | None | Status():
            parts.append(encode(value, protocol))
        case bool():
            parts.append((b"#t\r\n" if value else b"#f\r\n") if protocol == 3 else b":%d\r\n" % value)
        case int():
            parts.append((b":%d\r\n" if -(2**63) <= value < 2**63 else b"(%d\r\n") % value)
        case float():
            number = number_text(value).encode()
            parts.append(b",%b\r\n" % number if protocol == 3 else b"$%d\r\n%b\r\n" % (len(number), number))
        case Text():
            data = value.encode("utf-8", "surrogateescape")
            head = b"=%d\r\ntxt:" % (len(data) + 4) if protocol == 3 else b"$%d\r\n" % len(data)
            parts.append(head + data + b"\r\n")
        case ErrorReply():
            line = value.text.replace("\r", " ").replace("\n", " ")
            parts.append(b"-%b\r\n" % line.encode("utf-8", "surrogateescape"))
        case dict() | list() | tuple():
            _encode_many(value, protocol, parts)
        case _ if value is NULL_ARRAY:
            parts.append(b"_\r\n" if protocol == 3 else b"*-1\r\n")
        case _:
            raise TypeError(f"not a reply: {value!r}")


def _encode_many(value: dict[Reply, Reply] | Sequence[Reply], protocol: int, parts: list[bytes]) -> None:
    """Append the bytes of an array, a set, a message or a map."""
    if isinstance(value, dict):
        parts.append(b"%%%d\r\n" % len(value) if protocol == 3 else b"*%d\r\n" % (2 * len(value)))
        for pair in value.items():
            for one in pair:
                _encode(one, protocol, parts)
        return
    sign = {Members: b"~", Push: b">"}.get(type(value), b"*") if protocol == 3 else b"*"
    parts.append(b"%b%d\r\n" % (sign, value.commands if isinstance(value, Replies) else len(value)))
    for one in value:
        _encode(one, protocol, parts)


def number_text(value: float) -> str:
    """A double as Redis 7.0 prints it: with up to 17 significant digits."""
    return f"{value:.17g}"
