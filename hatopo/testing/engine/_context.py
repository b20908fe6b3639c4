"""What a data command works with: its database, its clock, the arguments as numbers. Decides what is refused in them.

A command of our own is a function of a Context and the request; it returns a reply or raises ErrorReply, and is put
into NATIVE under its name by @native. Most of them ask fakeredis, by `adapted`, and put right what it answers. They
know nothing of sessions, scripts or replication.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any, TypeVar

from hatopo.testing._reply import ErrorReply, Reply
from hatopo.testing.engine._data import Data

__all__ = [
    "NATIVE",
    "NOT_FLOAT",
    "NOT_INTEGER",
    "NO_KEY",
    "SYNTAX",
    "WRONG_TYPE",
    "Attempt",
    "Blocked",
    "Context",
    "floating",
    "integer",
    "native",
    "number",
    "text",
]

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
SYNTAX = "ERR syntax error"
NOT_INTEGER = "ERR value is not an integer or out of range"
NOT_FLOAT = "ERR value is not a valid float"
NO_KEY = "ERR no such key"
_INTEGER = re.compile(rb"-?[1-9][0-9]{0,18}|0")
_FLOAT = re.compile(rb"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?|[+-]?[iI][nN][fF](?:inity)?")


def integer(value: bytes, message: str = NOT_INTEGER, least: int = -(2**63), most: int = 2**63 - 1) -> int:
    """A whole number as Redis reads one: no spaces, no plus, no leading zero."""
    if _INTEGER.fullmatch(value):
        found = int(value)
        if least <= found <= most:
            return found
    raise ErrorReply(message)


def floating(value: bytes, message: str = NOT_FLOAT) -> float:
    """A double as Redis reads one."""
    if _FLOAT.fullmatch(value):
        found = float(value)
        if not (math.isinf(found) and value.lstrip(b"+-")[:1].isdigit()):
            return found
    raise ErrorReply(message)


def number(value: float) -> bytes:
    """A double as RESP2 and everything that is stored spells it."""
    if math.isinf(value):
        return b"inf" if value > 0 else b"-inf"
    return b"%.17g" % value


def text(value: bytes) -> str:
    """A word as it stands in errors."""
    return value.decode("utf-8", "surrogateescape")


Attempt = Callable[["bytes | None"], "Reply | None"]
"""Does what a blocking command is about, or None if it cannot; told which key has changed, None the first time."""


class Blocked(Exception):  # noqa: N818
    """A command has found nothing and would wait; `at_once` is the answer where nobody may wait."""

    def __init__(
        self, keys: tuple[bytes, ...], timeout: float, attempt: Attempt, expired: Reply, at_once: Reply
    ) -> None:
        self.keys, self.timeout, self.attempt, self.expired, self.at_once = keys, timeout, attempt, expired, at_once


class Context:
    """The surroundings of a command."""

    data: Data
    """The database that is selected."""
    protocol: int
    """2 or 3, of the client or of the script."""
    databases: list[Data]
    scripting: bool = False
    """Whether a script asks."""

    def adapted(self, name: str, args: list[bytes]) -> Reply:
        """What fakeredis makes of a command; only what follows its name counts in `args`."""
        raise NotImplementedError

    def now(self) -> int:
        """The time in milliseconds since 1970."""
        return self.data.milliseconds()

    def get(self, key: bytes, kind: type[Any]) -> Any:
        """The value of a key, None if there is none; raises where it is of another kind."""
        item = self.data.item(key)
        if item is None:
            return None
        if type(item.value) is not kind:
            raise ErrorReply(WRONG_TYPE)
        return item.value

    def item(self, key: bytes) -> Any:
        """What is stored under a key."""
        return self.data.item(key)

    def changed(self, key: bytes, quietly: bool = False) -> None:
        """A value has been changed in place; deletes the key if nothing is left of it.

        A quiet change is replicated, but nobody who watches the key hears of it: those of consumer groups.
        """
        data = self.data
        item = data._dict.get(key)
        data.changes.append((data.number, key, True))
        if quietly:
            data.quiet.append((data.number, key))
        if item is not None and not item.value and type(item.value) is list:
            del data._dict[key]


Native = Callable[[Any, "list[bytes]"], Reply]
NATIVE: dict[str, Native] = {}
"""The commands that are ours, by name."""
_N = TypeVar("_N", bound=Native)


def native(*names: str) -> Callable[[_N], _N]:
    """Register a command under its names."""

    def register(function: _N) -> _N:
        for name in names:
            NATIVE[name] = function
        return function

    return register
