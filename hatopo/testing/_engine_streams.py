"""Reading and trimming streams; XADD and XTRIM are those of fakeredis, groups are in _engine_groups."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from fakeredis.model._stream import MAX_ID_PART, StreamEntryKey

from hatopo.testing._engine_context import NO_KEY, SYNTAX, Context, integer, native
from hatopo.testing._engine_data import XStream
from hatopo.testing._reply import NULL_ARRAY, OK, ErrorReply, Reply

BAD_ID = "ERR Invalid stream ID specified as stream command argument"
LAST = StreamEntryKey(MAX_ID_PART, MAX_ID_PART)
FIRST = StreamEntryKey(0, 0)
Entry = list["Reply"]


def identifier(value: bytes, missing: int = 0) -> StreamEntryKey:
    """The id of an entry; `missing` is the number within the millisecond if none is given."""
    parts = value.lstrip(b" +").split(b"-", 1)
    if not all(part.isdigit() and len(part) <= 20 for part in parts):
        raise ErrorReply(BAD_ID)
    key = StreamEntryKey(int(parts[0]), int(parts[1]) if len(parts) == 2 else missing)
    if max(key) > MAX_ID_PART:
        raise ErrorReply(BAD_ID)
    return key


def bound(value: bytes, end: bool) -> StreamEntryKey:
    """A bound of a range, which is within it; raises where nothing can be."""
    if value in (b"-", b"+"):
        return FIRST if value == b"-" else LAST
    if not value.startswith(b"("):
        return identifier(value, MAX_ID_PART if end else 0)
    key = identifier(value[1:], MAX_ID_PART if end else 0)
    if key == (FIRST if end else LAST):
        raise ErrorReply(f"ERR invalid {'end' if end else 'start'} ID for the interval")
    return before(key) if end else after(key)


def after(key: StreamEntryKey) -> StreamEntryKey:
    """The next id."""
    return StreamEntryKey(key.ts, key.seq + 1) if key.seq < MAX_ID_PART else StreamEntryKey(key.ts + 1, 0)


def before(key: StreamEntryKey) -> StreamEntryKey:
    """The id before."""
    return StreamEntryKey(key.ts, key.seq - 1) if key.seq else StreamEntryKey(key.ts - 1, MAX_ID_PART)


def entries(stream: XStream, keys: Iterable[StreamEntryKey]) -> list[Reply]:
    """Entries as they are sent."""
    return [[key.encode(), list(stream._values_dict[key])] for key in keys]


def between(stream: XStream, first: StreamEntryKey, last: StreamEntryKey) -> list[StreamEntryKey]:
    """The ids of a range."""
    start, stop = stream.find_index(first)[0], stream.find_index(last, from_left=False)[0]
    return stream._ids[start:stop]


@native("xrange", "xrevrange")
def xrange(context: Context, args: list[bytes]) -> Reply:
    reverse = args[0].lower() == b"xrevrange"
    low, high = (args[3], args[2]) if reverse else (args[2], args[3])
    first, last = bound(low, end=False), bound(high, end=True)
    count = -1
    for index in range(4, len(args), 2):
        if args[index].lower() != b"count" or index + 1 == len(args):
            raise ErrorReply(SYNTAX)
        count = max(integer(args[index + 1]), 0)
    stream = context.get(args[1], XStream)
    if stream is None:
        return []
    if count == 0:
        return NULL_ARRAY
    keys = between(stream, first, last)
    if reverse:
        keys = keys[::-1]
    return entries(stream, keys if count < 0 else keys[:count])


@native("xlen")
def xlen(context: Context, args: list[bytes]) -> Reply:
    stream = context.get(args[1], XStream)
    return 0 if stream is None else len(stream)


@native("xdel")
def xdel(context: Context, args: list[bytes]) -> Reply:
    stream = context.get(args[1], XStream)
    if stream is None:
        return 0
    for value in args[2:]:
        identifier(value)
    gone: int = stream.delete(args[2:])
    if gone:
        context.changed(args[1])
    return gone


@native("xsetid")
def xsetid(context: Context, args: list[bytes]) -> Reply:
    last = identifier(args[2])
    added, deleted = None, None
    for index in range(3, len(args), 2):
        option, more = args[index].lower(), index + 1 < len(args)
        if option == b"entriesadded" and more:
            added = integer(args[index + 1])
            if added < 0:
                raise ErrorReply("ERR entries_added must be positive")
        elif option == b"maxdeletedid" and more:
            deleted = identifier(args[index + 1])
            if last < deleted:
                raise ErrorReply("ERR The ID specified in XSETID is smaller than the provided max_deleted_entry_id")
        else:
            raise ErrorReply(SYNTAX)
    stream = context.get(args[1], XStream)
    if stream is None:
        raise ErrorReply(NO_KEY)
    if len(stream) and last < stream._ids[-1]:
        raise ErrorReply("ERR The ID specified in XSETID is smaller than the target stream top item")
    if added is not None and len(stream) > added:
        raise ErrorReply("ERR The entries_added specified in XSETID is smaller than the target stream length")
    stream._last_id = last
    stream._entries_added = stream._entries_added if added is None else added
    if deleted not in (None, FIRST):
        stream._max_deleted_id = deleted
    context.changed(args[1])
    return OK


# --- XREAD


class Reading:
    """The options of XREAD and XREADGROUP."""

    def __init__(self, context: Context, args: list[bytes]) -> None:
        self.name = args[0].decode("latin-1").upper()
        self.grouped = self.name == "XREADGROUP"
        self.block: int | None = None
        self.count: int | None = None
        self.group: tuple[bytes, bytes] | None = None
        self.noack = False
        self.keys: list[bytes] = []
        self.ids: list[bytes] = []
        index = 1
        while index < len(args) and not self.keys:
            index += self._option(context, args, index)
        if not self.keys:
            raise ErrorReply(SYNTAX)
        if self.grouped and self.group is None:
            raise ErrorReply("ERR Missing GROUP option for XREADGROUP")

    def _option(self, context: Context, args: list[bytes], index: int) -> int:
        """Take one option; how many words it has."""
        option, rest = args[index].lower(), len(args) - index - 1
        if option == b"block" and rest:
            if context.scripting:
                raise ErrorReply(f"ERR {self.name.lower()} command is not allowed with BLOCK option from scripts")
            self.block = integer(args[index + 1], "ERR timeout is not an integer or out of range")
            if self.block < 0:
                raise ErrorReply("ERR timeout is negative")
            return 2
        if option == b"count" and rest:
            self.count = max(integer(args[index + 1]), 0) or None
            return 2
        if option == b"streams" and rest:
            if rest % 2:
                raise ErrorReply(
                    f"ERR Unbalanced {self.name} list of streams: for each stream key an ID or "
                    f"'{'>' if self.grouped else '$'}' must be specified."
                )
            self.keys, self.ids = args[index + 1 : index + 1 + rest // 2], args[index + 1 + rest // 2 :]
            return rest + 1
        if option == b"group" and rest >= 2:
            if not self.grouped:
                raise ErrorReply("ERR The GROUP option is only supported by XREADGROUP. You called XREAD instead.")
            self.group = args[index + 1], args[index + 2]
            return 3
        if option == b"noack":
            if not self.grouped:
                raise ErrorReply("ERR The NOACK option is only supported by XREADGROUP. You called XREAD instead.")
            self.noack = True
            return 1
        raise ErrorReply(SYNTAX)


def spelled(context: Context, found: list[tuple[bytes, list[Reply]]]) -> Reply:
    """What XREAD has found: a map, or in RESP2 pairs."""
    if context.protocol == 3:
        return {key: values for key, values in found}  # noqa: C416 - the types of dict() are too narrow
    return [[key, values] for key, values in found]


@native("xread")
def xread(context: Context, args: list[bytes]) -> Reply:
    reading = Reading(context, args)
    starts: list[tuple[bytes, StreamEntryKey]] = []
    for key, value in zip(reading.keys, reading.ids, strict=True):
        stream = context.get(key, XStream)
        if value == b"$":
            starts.append((key, FIRST if stream is None else stream.last_id))
        elif value == b">":
            raise ErrorReply(
                "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option."
            )
        else:
            starts.append((key, identifier(value)))

    def attempt(changed: bytes | None) -> Reply | None:
        found: list[tuple[bytes, list[Reply]]] = []
        for key, start in starts:
            if changed not in (None, key):
                continue
            item = context.item(key)
            stream: Any = None if item is None else item.value
            if type(stream) is XStream and stream._ids and stream._ids[-1] > start:
                keys = between(stream, after(start), LAST)[: reading.count]
                found.append((key, entries(stream, keys)))
        return spelled(context, found) if found else None

    if reading.block is None:
        reply = attempt(None)
        return NULL_ARRAY if reply is None else reply
    return context.block(tuple(reading.keys), reading.block / 1000, attempt, NULL_ARRAY)
