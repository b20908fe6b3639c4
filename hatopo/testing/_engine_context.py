"""What a data command works with: its database, its clock, the arguments as numbers. Decides what is refused in them.

A command of our own is a function of a Context and the request; it returns a reply or raises ErrorReply, and is put
into NATIVE under its name by @native. It knows nothing of sessions, scripts or replication.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

from hatopo.testing._engine_data import Data, Item
from hatopo.testing._reply import ErrorReply, Reply

if TYPE_CHECKING:
    import random

    from hatopo.testing._engine_scan import Walks

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
    "timeout_of",
    "word",
]

WRONG_TYPE = "WRONGTYPE Operation against a key holding the wrong kind of value"
SYNTAX = "ERR syntax error"
NOT_INTEGER = "ERR value is not an integer or out of range"
NOT_FLOAT = "ERR value is not a valid float"
NO_KEY = "ERR no such key"
_INTEGER = re.compile(rb"-?[1-9][0-9]{0,18}|0")
_FLOAT = re.compile(
    rb"[+-]?(?:[0-9]+\.?[0-9]*(?:[eE][+-]?[0-9]+)?|\.[0-9]+(?:[eE][+-]?[0-9]+)?|[iI][nN][fF](?:inity)?)"
)
_HEXADECIMAL = re.compile(rb"[+-]?0[xX][0-9a-fA-F]*\.?[0-9a-fA-F]*(?:[pP][+-]?[0-9]+)?")
LONGEST = 512 * 1024 * 1024
"""The most bytes a string may have."""


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
    elif _HEXADECIMAL.fullmatch(value):
        return float.fromhex(value.decode())
    raise ErrorReply(message)


def number(value: float) -> bytes:
    """A double as RESP2 and everything that is stored spells it."""
    if math.isinf(value):
        return b"inf" if value > 0 else b"-inf"
    return b"%.17g" % value


def word(value: bytes) -> bytes:
    """An option, in lower case."""
    return value.lower()


def timeout_of(value: bytes) -> float:
    """The timeout of a blocking command, in seconds."""
    seconds = floating(value, "ERR timeout is not a float or out of range")
    if seconds < 0 or seconds * 1000 >= 2**63:  # where a real server overflows
        raise ErrorReply("ERR timeout is negative")
    return seconds


Attempt = Callable[["bytes | None"], "Reply | None"]
"""Does what a blocking command is about, or None if it cannot; told which key has changed, None the first time."""


class Blocked(Exception):  # noqa: N818
    """A command has found nothing and would wait."""

    def __init__(self, keys: tuple[bytes, ...], timeout: float, attempt: Attempt, expired: Reply) -> None:
        self.keys, self.timeout, self.attempt, self.expired = keys, timeout, attempt, expired
        self.at_once = expired
        """The answer where nobody may wait."""


class Context:
    """The surroundings of a command."""

    data: Data
    """The database that is selected."""
    protocol: int
    """2 or 3, of the client or of the script."""
    databases: list[Data]
    rng: random.Random
    walks: Walks
    """The scans that are under way."""
    scripting: bool = False
    """Whether a script asks."""

    def adapted(self, name: str, args: list[bytes]) -> Reply:
        """What fakeredis makes of a command."""
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

    def item(self, key: bytes) -> Item | None:
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
        if item is not None and not item.value and type(item.value) is not bytes:
            del data._dict[key]

    def block(self, keys: tuple[bytes, ...], timeout: float, attempt: Attempt, expired: Reply) -> Reply:
        """Try, and wait for the keys if that is in vain."""
        reply = attempt(None)
        if reply is None:
            raise Blocked(keys, timeout, attempt, expired)
        return reply

    def score(self, value: float) -> Reply:
        """A double, as a reply."""
        return value if self.protocol == 3 else number(value)


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
