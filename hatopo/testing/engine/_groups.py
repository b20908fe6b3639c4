"""Consumer groups of streams: what fakeredis does not get right of them, and which of their changes are quiet.

fakeredis tells of none of these changes. Redis replicates them, but nobody who watches the key hears of them.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from fakeredis.model import StreamGroup
from fakeredis.model._stream import StreamEntryKey

from hatopo.testing._reply import NULL_ARRAY, ErrorReply, Reply
from hatopo.testing.engine._blocking import fits, tried
from hatopo.testing.engine._context import NO_KEY, SYNTAX, Context, integer, native, text
from hatopo.testing.engine._data import XStream
from hatopo.testing.engine._streams import FIRST, entries, found, identifier, is_identifier, reading


def group_of(context: Context, key: bytes, name: bytes, words: str = "") -> StreamGroup:
    """A group that has to be there."""
    stream = context.get(key, XStream)
    group: StreamGroup | None = None if stream is None else stream.group_get(name)
    if group is None:
        raise ErrorReply(f"NOGROUP No such key '{text(key)}' or consumer group '{text(name)}'{words}")
    return group


@native("xreadgroup")
def xreadgroup(context: Context, args: list[bytes]) -> Reply:
    if args[1].lower() != b"group":
        raise ErrorReply(SYNTAX)
    asked, name, consumer = reading(context, args, 4), args[2], args[3]
    for key, value in zip(asked.keys, asked.ids, strict=True):
        group_of(context, key, name, " in XREADGROUP with GROUP option")
        if value == b"$":
            raise ErrorReply(
                "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this "
                "consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return "
                "an empty result set."
            )
        if value != b">":
            identifier(value)

    def attempt(changed: bytes | None) -> Reply | None:
        streams: dict[bytes, Any] = {}
        for key, start in zip(asked.keys, asked.ids, strict=True):
            if changed not in (None, key):
                continue
            if not fits(context, key, XStream, changed):
                return ErrorReply("UNBLOCKED the stream key no longer exists")
            group = context.get(key, XStream).group_get(name)
            if group is None:
                return ErrorReply("NOGROUP the consumer group this client was blocked on no longer exists")
            ids = group.stream._ids
            if start != b">" or (ids and ids[-1] > group.last_delivered_key):
                request = [b"", b"group", name, consumer, *asked.options, b"streams", key, start]
                reply: Any = context.adapted("xreadgroup", request)
                entries = reply[key] if isinstance(reply, dict) else reply[0][1]
                streams[key] = [[id_, NULL_ARRAY if fields is None else fields] for id_, fields in entries]
                context.changed(key, quietly=True)
        return found(context, streams)

    if asked.block is None:
        reply = attempt(None)
        return NULL_ARRAY if reply is None else reply
    return tried(tuple(asked.keys), asked.block / 1000, attempt)


# --- what is pending


@native("xack")
def xack(context: Context, args: list[bytes]) -> Reply:
    stream = context.get(args[1], XStream)
    if stream is None or stream.group_get(args[2]) is None:
        return 0
    for value in args[3:]:
        identifier(value)
    gone = context.adapted("xack", args)
    if gone:
        context.changed(args[1], quietly=True)
    return gone


@native("xpending")
def xpending(context: Context, args: list[bytes]) -> Reply:
    """Corrected: fakeredis counts in numbers, takes negative counts, and wants more than the time that IDLE says."""
    if len(args) != 3 and not 6 <= len(args) <= 9:
        raise ErrorReply(SYNTAX)
    if len(args) == 3:
        group_of(context, args[1], args[2])
        summary: Any = context.adapted("xpending", args)
        owners = [[name, b"%d" % count] for name, count in sorted(summary[3])]
        return [*summary[:3], owners or NULL_ARRAY]
    head, start = args[:3], 3
    if args[3].lower() == b"idle":
        head, start = [*head, args[3], b"%d" % (integer(args[4]) - 1)], 5
        if len(args) < 8:
            raise ErrorReply(SYNTAX)
    count = max(integer(args[start + 2]), 0)
    for value in args[start : start + 2]:
        if value not in (b"-", b"+"):
            identifier(value.removeprefix(b"("))
    group_of(context, args[1], args[2])
    return context.adapted("xpending", [*head, *args[start : start + 2], b"%d" % count, *args[start + 3 :]])


class _Claim:
    """The options of XCLAIM."""

    def __init__(self, context: Context, args: list[bytes], start: int) -> None:
        self.words: list[bytes] = []
        """Those that fakeredis is to know."""
        self.last: StreamEntryKey | None = None
        self.delivered = now = context.now()
        index = start
        while index < len(args):
            option, more = args[index].lower(), index + 1 < len(args)
            if option in (b"force", b"justid"):
                self.words.append(option)
                index += 1
                continue
            if option not in (b"idle", b"time", b"retrycount", b"lastid") or not more:
                raise ErrorReply(f"ERR Unrecognized XCLAIM option '{text(args[index])}'")
            self._take(option, args[index + 1], now)
            index += 2
        if not 0 <= self.delivered <= now:
            self.delivered = now
        self.words += [b"time", b"%d" % self.delivered]

    def _take(self, option: bytes, value: bytes, now: int) -> None:
        if option == b"lastid":
            self.last = identifier(value)
            return
        wrong = f"ERR Invalid {option.decode().upper()} option argument for XCLAIM"
        number = integer(value, wrong, 0 if option == b"retrycount" else -(2**63))
        if option == b"retrycount":
            self.words += [option, value]
        else:
            self.delivered = now - number if option == b"idle" else number


@native("xclaim")
def xclaim(context: Context, args: list[bytes]) -> Reply:
    """Corrected: fakeredis takes every word that is no option for an id, and knows no LASTID."""
    group = group_of(context, args[1], args[2])
    idle = max(integer(args[4], "ERR Invalid min-idle-time argument for XCLAIM"), 0)
    end = 5
    while end < len(args) and is_identifier(args[end]):
        end += 1
    claim = _Claim(context, args, end)
    if claim.last is not None and claim.last > group.last_delivered_key:
        group.last_delivered_key = claim.last
    known = args[3] in group.consumers
    reply = context.adapted("xclaim", [*args[:4], b"%d" % idle, *args[5:end], *claim.words])
    _claimed(context, args, group, known or bool(reply))
    return reply


def _claimed(context: Context, args: list[bytes], group: StreamGroup, known: bool) -> None:
    """Note the change; a consumer that has got nothing does not come into being."""
    if not known:
        del group.consumers[args[3]]
    context.changed(args[1], quietly=True)


@native("xautoclaim")
def xautoclaim(context: Context, args: list[bytes]) -> Reply:
    idle = max(integer(args[4], "ERR Invalid min-idle-time argument for XAUTOCLAIM"), 0)
    start = FIRST if args[5] == b"-" else identifier(args[5])
    for option, value in pairwise(args[6:]):
        if option.lower() == b"count":
            integer(value, "ERR COUNT must be > 0", 1)
    group = group_of(context, args[1], args[2])
    known = args[3] in group.consumers
    reply: Any = context.adapted("xautoclaim", [*args[:4], b"%d" % idle, start.encode(), *args[6:]])
    _claimed(context, args, group, known or bool(reply[1]))
    return reply  # type: ignore[no-any-return]


# --- XGROUP


@native("xgroup")
def xgroup(context: Context, args: list[bytes]) -> Reply:
    sub = text(args[1]).lower()
    stream = context.get(args[2], XStream)
    if stream is not None and sub in ("setid", "createconsumer", "delconsumer") and stream.group_get(args[3]) is None:
        raise ErrorReply(f"NOGROUP No such consumer group '{text(args[3])}' for key name '{text(args[2])}'")
    try:
        reply = context.adapted(f"xgroup {sub}", args[1:])
    except ErrorReply as error:
        if error.text == SYNTAX:
            wrong = f"unknown subcommand or wrong number of arguments for '{text(args[1])}'. Try XGROUP HELP."
            raise ErrorReply(f"ERR {wrong}") from None
        raise
    if sub == "create" and stream is not None:
        context.data.quiet.append((context.data.number, args[2]))
    elif sub != "create" and (reply or sub == "delconsumer"):
        context.changed(args[2], quietly=True)
    return reply


# --- XINFO

Map = dict["Reply", "Reply"]


@native("xinfo")
def xinfo(context: Context, args: list[bytes]) -> Reply:
    sub = text(args[1]).lower()
    stream = context.get(args[2], XStream)
    if stream is None:
        raise ErrorReply(NO_KEY)
    if sub == "groups":
        return sorted(context.adapted("xinfo groups", args[1:]), key=_name)  # type: ignore[arg-type]
    if sub == "consumers":
        if stream.group_get(args[3]) is None:
            raise ErrorReply(f"NOGROUP No such consumer group '{text(args[3])}' for key name '{text(args[2])}'")
        found: Any = context.adapted("xinfo consumers", args[1:])
        for one in found:  # Redis 7.0 does not tell how long a consumer has been inactive
            one.pop(b"inactive") if isinstance(one, dict) else one.__delitem__(slice(6, None))
        return sorted(found, key=_name)
    if len(args) == 3:
        return {**_head(stream), b"groups": len(stream._groups), **_ends(stream)}
    if args[3].lower() != b"full" or len(args) not in (4, 6) or (len(args) == 6 and args[4].lower() != b"count"):
        wrong = f"unknown subcommand or wrong number of arguments for '{text(args[1])}'. Try XINFO HELP."
        raise ErrorReply(f"ERR {wrong}")
    count = max(integer(args[5]), 0) if len(args) == 6 else 10
    return _full(stream, count or None)


def _name(one: Any) -> bytes:
    """The name of a group or a consumer as it is shown."""
    return one[b"name"] if isinstance(one, dict) else one[1]  # type: ignore[no-any-return]


def _head(stream: XStream) -> Map:
    return {
        b"length": len(stream._ids),
        b"radix-tree-keys": len(stream._nodes),
        b"radix-tree-nodes": len(stream._nodes) + 1,
        b"last-generated-id": stream._last_id.encode(),
        b"max-deleted-entry-id": stream._max_deleted_id.encode(),
        b"entries-added": stream._entries_added,
        b"recorded-first-entry-id": stream.first_id.encode(),
    }


def _ends(stream: XStream) -> Map:
    ids = stream._ids
    return {
        b"first-entry": entries(stream, ids[:1])[0] if ids else None,
        b"last-entry": entries(stream, ids[-1:])[0] if ids else None,
    }


def _full(stream: XStream, count: int | None) -> Reply:
    groups: list[Reply] = [_full_group(stream._groups[name], count) for name in sorted(stream._groups)]
    return {**_head(stream), b"entries": entries(stream, stream._ids[:count]), b"groups": groups}


def _full_group(group: StreamGroup, count: int | None) -> Map:
    pending = sorted(group.pel.items())
    consumers: list[Reply] = []
    for name in sorted(group.consumers):
        owned = [(key, entry) for key, entry in pending if entry.consumer_name == name]
        consumers.append(
            {
                b"name": name,
                b"seen-time": group.consumers[name].last_attempt,
                b"pel-count": len(owned),
                b"pending": [[key.encode(), entry.time_read, entry.times_delivered] for key, entry in owned[:count]],
            }
        )
    return {
        b"name": group.name,
        b"last-delivered-id": group.last_delivered_key.encode(),
        b"entries-read": group.entries_read,
        b"lag": group.lag(False),
        b"pel-count": len(pending),
        b"pending": [
            [key.encode(), entry.consumer_name, entry.time_read, entry.times_delivered]
            for key, entry in pending[:count]
        ],
        b"consumers": consumers,
    }
