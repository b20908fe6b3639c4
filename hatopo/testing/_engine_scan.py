"""SCAN and its like: decides in which order things come, and what a cursor stands for."""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Sequence
from typing import Any

from hatopo.testing._engine_context import SYNTAX, Context, integer, native, number
from hatopo.testing._engine_data import Hash, MemberSet, ZSet, kind_of
from hatopo.testing._engine_keys import encoding_of
from hatopo.testing._glob import matches
from hatopo.testing._reply import ErrorReply, Reply

_MOST = 256
"""How many walks a database remembers; a cursor of an older one begins anew where it was."""


class Walks:
    """The walks through one keyspace that are under way: each has all its names from its beginning."""

    def __init__(self) -> None:
        self._walks: dict[int, tuple[Any, list[bytes]]] = {}
        self._last = 0

    def batch(
        self, of: Any, names: Callable[[], Collection[bytes]], cursor: int, count: int
    ) -> tuple[int, Sequence[bytes]]:
        """The names from a cursor on, and the cursor of the next ones."""
        number_, place = cursor & 0xFFFF, cursor >> 16
        walk = self._walks.get(number_) if cursor else None
        if walk is None or walk[0] != of:
            number_, walk = self._begin(of, sorted(names()))
        found = walk[1][place : place + count]
        place += count
        if place >= len(walk[1]):
            del self._walks[number_]
            return 0, found
        return place << 16 | number_, found

    def _begin(self, of: Any, names: list[bytes]) -> tuple[int, tuple[Any, list[bytes]]]:
        self._last = self._last % 0xFFFF + 1
        walk = self._walks[self._last] = of, names
        if len(self._walks) > _MOST:
            del self._walks[next(iter(self._walks))]
        return self._last, walk


class _Asked:
    """Cursor and options."""

    def __init__(self, args: list[bytes], start: int, typed: bool) -> None:
        if not re.fullmatch(rb"[-+]?[0-9]{1,19}", args[start]):
            raise ErrorReply("ERR invalid cursor")
        self.cursor = int(args[start]) % 2**64
        self.count = 10
        self.pattern: bytes | None = None
        self.kind: str | None = None
        index = start + 1
        while index < len(args):
            option, more = args[index].lower(), index + 1 < len(args)
            if option == b"count" and more:
                self.count = integer(args[index + 1])
                if self.count < 1:
                    raise ErrorReply(SYNTAX)
            elif option == b"match" and more:
                self.pattern = args[index + 1]
            elif option == b"type" and more and typed:
                self.kind = args[index + 1].decode("latin-1").lower()
            else:
                raise ErrorReply(SYNTAX)
            index += 2

    def fits(self, name: bytes) -> bool:
        """Whether the pattern lets a name through."""
        return self.pattern is None or self.pattern == b"*" or matches(self.pattern, name)


@native("scan")
def scan(context: Context, args: list[bytes]) -> Reply:
    asked = _Asked(args, 1, typed=True)
    data = context.data
    cursor, names = context.walks.batch(data.number, lambda: list(data), asked.cursor, asked.count)
    found: list[Reply] = []
    for name in names:
        item = data.item(name)
        if item is not None and asked.fits(name) and (asked.kind is None or kind_of(item.value) == asked.kind):
            found.append(name)
    return [b"%d" % cursor, found]


@native("keys")
def keys(context: Context, args: list[bytes]) -> Reply:
    return [key for key in context.data if args[1] == b"*" or matches(args[1], key)]


@native("sscan", "hscan", "zscan")
def scan_value(context: Context, args: list[bytes]) -> Reply:
    asked = _Asked(args, 2, typed=False)
    kind = {b"s": MemberSet, b"h": Hash, b"z": ZSet}[args[0][:1].lower()]
    value = context.get(args[1], kind)
    if value is None:
        return [b"0", []]
    content: dict[bytes, Any] = value._bylex if kind is ZSet else value._values
    cursor, names = 0, list(content) if kind is not ZSet else [member for _, member in value._byscore]
    if encoding_of(value) in ("hashtable", "skiplist"):
        of = (context.data.number, args[1])
        cursor, names = context.walks.batch(of, lambda: content, asked.cursor, asked.count)  # type: ignore[assignment]
    found: list[Reply] = []
    for name in names:
        if name in content and asked.fits(name):
            found.append(name)
            if kind is not MemberSet:
                found.append(number(content[name]) if kind is ZSet else content[name])
    return [b"%d" % cursor, found]
