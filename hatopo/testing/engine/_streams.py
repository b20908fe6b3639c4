"""Streams: what fakeredis does not get right of them; groups are in _engine_groups."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from fakeredis._helpers import SimpleError
from fakeredis.model._stream import MAX_ID_PART, StreamEntryKey

from hatopo.testing._reply import NULL_ARRAY, OK, ErrorReply, Reply
from hatopo.testing.engine._blocking import fits, tried
from hatopo.testing.engine._context import NO_KEY, SYNTAX, Context, integer, native, text
from hatopo.testing.engine._data import XStream

FIRST = StreamEntryKey(0, 0)


def identifier(value: bytes) -> StreamEntryKey:
    """The id of an entry."""
    try:
        return StreamEntryKey.parse_str(value)
    except SimpleError as error:
        raise ErrorReply(error.value) from None


def is_identifier(value: bytes) -> bool:
    """Whether a word could be the id of an entry."""
    try:
        identifier(value)
    except ErrorReply:
        return False
    return True


def entries(stream: XStream, ids: list[StreamEntryKey]) -> list[Reply]:
    """Entries as they are sent."""
    return [[key.encode(), list(stream._values_dict[key])] for key in ids]


@native("xrange", "xrevrange")
def xrange(context: Context, args: list[bytes]) -> Reply:
    """Corrected: COUNT 0 yields no array, and nothing is beyond the greatest and the smallest id."""
    name = text(args[0]).lower()
    low, high = (args[3], args[2]) if name == "xrevrange" else (args[2], args[3])
    for value, what, limit in ((low, "start", MAX_ID_PART), (high, "end", 0)):
        if value.startswith(b"(") and identifier(value[1:]) == (limit, limit):
            raise ErrorReply(f"ERR invalid {what} ID for the interval")
    reply = context.adapted(name, args)
    counts = [integer(args[index + 1]) for index in range(4, len(args), 2)]
    return NULL_ARRAY if counts and counts[-1] <= 0 and context.item(args[1]) is not None else reply


@native("xdel")
def xdel(context: Context, args: list[bytes]) -> Reply:
    """Corrected: fakeredis does not tell the change, and deletes before it has read all ids."""
    if context.get(args[1], XStream) is None:
        return 0
    for value in args[2:]:
        identifier(value)
    gone = context.adapted("xdel", args)
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


@dataclass(frozen=True, slots=True)
class Reading:
    """The options of XREAD and XREADGROUP."""

    block: int | None
    options: list[bytes]
    """Those that fakeredis is to know."""
    keys: list[bytes]
    ids: list[bytes]


def reading(context: Context, args: list[bytes], start: int) -> Reading:
    """What is to be read; `start` is the place of the first option."""
    name, index, block = text(args[0]).upper(), start, None
    options: list[bytes] = []
    while index < len(args) and args[index].lower() != b"streams":
        option, more = args[index].lower(), index + 1 < len(args)
        if option == b"block" and more:
            if context.scripting:
                raise ErrorReply(f"ERR {name.lower()} command is not allowed with BLOCK option from scripts")
            block = integer(args[index + 1], "ERR timeout is not an integer or out of range")
            if block < 0:
                raise ErrorReply("ERR timeout is negative")
        elif option == b"count" and more:
            options += [b"count", args[index + 1]] if integer(args[index + 1]) > 0 else []
        elif option in (b"group", b"noack") and name == "XREAD":
            what = option.decode().upper()
            raise ErrorReply(f"ERR The {what} option is only supported by XREADGROUP. You called XREAD instead.")
        elif option == b"noack":
            options.append(option)
        else:
            raise ErrorReply(SYNTAX)
        index += 1 if option == b"noack" else 2
    streams = args[index + 1 :]
    if not streams:
        raise ErrorReply(SYNTAX)
    if len(streams) % 2:
        sign = "$" if name == "XREAD" else ">"
        raise ErrorReply(
            f"ERR Unbalanced {name} list of streams: for each stream key an ID or '{sign}' must be specified."
        )
    half = len(streams) // 2
    return Reading(block, options, streams[:half], streams[half:])


def found(context: Context, streams: dict[bytes, Any]) -> Reply | None:
    """What has been read, by key: a map, or in RESP2 pairs."""
    if not streams:
        return None
    if context.protocol == 3:
        return {key: values for key, values in streams.items()}  # noqa: C416 - the types of dict() are too narrow
    return [[key, values] for key, values in streams.items()]


@native("xread")
def xread(context: Context, args: list[bytes]) -> Reply:
    asked = reading(context, args, 1)
    starts: list[bytes] = []
    for key, value in zip(asked.keys, asked.ids, strict=True):
        stream = context.get(key, XStream)
        if value == b">":
            raise ErrorReply(
                "ERR The > ID can be specified only when calling XREADGROUP using the GROUP <group> <consumer> option."
            )
        known = FIRST if stream is None else stream.last_id
        starts.append((known if value == b"$" else identifier(value)).encode())

    def attempt(changed: bytes | None) -> Reply | None:
        streams: dict[bytes, Any] = {}
        for key, start in zip(asked.keys, starts, strict=True):
            if fits(context, key, XStream, changed):
                reply: Any = context.adapted("xread", [b"", *asked.options, b"streams", key, start])
                streams.update(reply.items() if isinstance(reply, dict) else reply)
        return found(context, streams)

    if asked.block is None:
        reply = attempt(None)
        return NULL_ARRAY if reply is None else reply
    return tried(tuple(asked.keys), asked.block / 1000, attempt)
