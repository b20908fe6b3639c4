"""XINFO: what there is to know of a stream, its groups and their consumers."""

from __future__ import annotations

from fakeredis.model import StreamGroup

from hatopo.testing._engine_context import NO_KEY, Context, integer, native
from hatopo.testing._engine_data import XStream
from hatopo.testing._engine_help import help_of
from hatopo.testing._engine_streams import entries
from hatopo.testing._reply import ErrorReply, Reply

Map = dict["Reply", "Reply"]


@native("xinfo")
def xinfo(context: Context, args: list[bytes]) -> Reply:
    sub = args[1].lower()
    if sub == b"help":
        return help_of("xinfo")
    stream = context.get(args[2], XStream)
    if stream is None:
        raise ErrorReply(NO_KEY)
    if sub == b"groups":
        return [_group(stream._groups[name]) for name in sorted(stream._groups)]
    if sub == b"consumers":
        group = stream.group_get(args[3])
        if group is None:
            name, key = (value.decode("utf-8", "surrogateescape") for value in (args[3], args[2]))
            raise ErrorReply(f"NOGROUP No such consumer group '{name}' for key name '{key}'")
        return _consumers(context, group)
    if len(args) == 3:
        return {**_head(stream), b"groups": len(stream._groups), **_ends(stream)}
    if args[3].lower() != b"full" or len(args) not in (4, 6) or (len(args) == 6 and args[4].lower() != b"count"):
        sub_name = args[1].decode("utf-8", "surrogateescape")
        raise ErrorReply(f"ERR unknown subcommand or wrong number of arguments for '{sub_name}'. Try XINFO HELP.")
    count = max(integer(args[5]), 0) if len(args) == 6 else 10
    return _full(stream, count or None)


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


def _group(group: StreamGroup) -> Map:
    return {
        b"name": group.name,
        b"consumers": len(group.consumers),
        b"pending": len(group.pel),
        b"last-delivered-id": group.last_delivered_key.encode(),
        b"entries-read": group.entries_read,
        b"lag": group.lag(False),
    }


def _consumers(context: Context, group: StreamGroup) -> Reply:
    shown: list[Reply] = []
    for name in sorted(group.consumers):
        pending = sum(entry.consumer_name == name for entry in group.pel.values())
        idle = max(context.now() - group.consumers[name].last_attempt, 0)
        shown.append({b"name": name, b"pending": pending, b"idle": idle})
    return shown


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
