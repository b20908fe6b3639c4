"""Consumer groups of streams: decides who gets an entry, who still has it, and who may take it over."""

from __future__ import annotations

from fakeredis.model import StreamGroup
from fakeredis.model._stream import PelEntry, StreamConsumerInfo, StreamEntryKey

from hatopo.testing._engine_context import SYNTAX, Context, integer, native
from hatopo.testing._engine_data import XStream
from hatopo.testing._engine_help import help_of
from hatopo.testing._engine_streams import LAST, Reading, after, between, bound, entries, identifier, spelled
from hatopo.testing._reply import NULL_ARRAY, OK, ErrorReply, Reply

_NO_KEY = (
    "ERR The XGROUP subcommand requires the key to exist. Note that for CREATE you may want to use the MKSTREAM option "
    "to create an empty stream automatically."
)


def _text(value: bytes) -> str:
    return value.decode("utf-8", "surrogateescape")


def group_of(context: Context, key: bytes, name: bytes) -> tuple[XStream, StreamGroup]:
    """A group that has to be there."""
    stream = context.get(key, XStream)
    group = None if stream is None else stream.group_get(name)
    if stream is None or group is None:
        raise ErrorReply(f"NOGROUP No such key '{_text(key)}' or consumer group '{_text(name)}'")
    return stream, group


def consumer_of(context: Context, group: StreamGroup, name: bytes) -> StreamConsumerInfo:
    """A consumer, seen now; it comes into being if it is not there."""
    consumer = group.consumers.get(name)
    if consumer is None:
        consumer = group.consumers[name] = StreamConsumerInfo(name)
    consumer.last_attempt = context.now()
    return consumer


# --- XREADGROUP


@native("xreadgroup")
def xreadgroup(context: Context, args: list[bytes]) -> Reply:
    reading = Reading(context, args)
    assert reading.group is not None
    name, consumer = reading.group
    starts: list[tuple[bytes, StreamEntryKey | None]] = []
    for key, value in zip(reading.keys, reading.ids, strict=True):
        stream = context.get(key, XStream)
        if stream is None or stream.group_get(name) is None:
            raise ErrorReply(
                f"NOGROUP No such key '{_text(key)}' or consumer group '{_text(name)}' in XREADGROUP with GROUP option"
            )
        if value == b"$":
            raise ErrorReply(
                "ERR The $ ID is meaningless in the context of XREADGROUP: you want to read the history of this "
                "consumer by specifying a proper ID, or use the > ID to get new messages. The $ ID would just return "
                "an empty result set."
            )
        starts.append((key, None if value == b">" else identifier(value)))

    def attempt(changed: bytes | None) -> Reply | None:
        found: list[tuple[bytes, list[Reply]]] = []
        for key, start in starts:
            if changed not in (None, key):
                continue
            item = context.item(key)
            if item is None or type(item.value) is not XStream:
                return ErrorReply("UNBLOCKED the stream key no longer exists")
            group = item.value.group_get(name)
            if group is None:
                return ErrorReply("NOGROUP the consumer group this client was blocked on no longer exists")
            values = _read(context, key, group, consumer, start, reading)
            if values is not None:
                found.append((key, values))
        return spelled(context, found) if found else None

    if reading.block is None:
        reply = attempt(None)
        return NULL_ARRAY if reply is None else reply
    return context.block(tuple(reading.keys), reading.block / 1000, attempt, NULL_ARRAY)


def _read(
    context: Context, key: bytes, group: StreamGroup, name: bytes, start: StreamEntryKey | None, reading: Reading
) -> list[Reply] | None:
    """The entries of one stream, None if there are no new ones; `start` None means new ones."""
    stream = group.stream
    if start is None and not (stream._ids and stream._ids[-1] > group.last_delivered_key):
        return None
    is_new = name not in group.consumers
    consumer = consumer_of(context, group, name)
    if start is not None:
        if is_new:
            context.changed(key, quietly=True)
        return _history(context, key, group, name, start, reading.count)
    keys = between(stream, after(group.last_delivered_key), LAST)[: reading.count]
    for one in keys:
        if not reading.noack:
            group.pel[one] = PelEntry(name, context.now(), 1)
        group._mark_delivered(one)
    consumer.last_success = context.now()
    context.changed(key, quietly=True)
    return entries(stream, keys)


def _history(
    context: Context, key: bytes, group: StreamGroup, name: bytes, start: StreamEntryKey, count: int | None
) -> list[Reply]:
    """What a consumer has got and not acknowledged, after an id."""
    owned = sorted(one for one, entry in group.pel.items() if entry.consumer_name == name and one > start)[:count]
    shown: list[Reply] = []
    for one in owned:
        if one in group.stream:
            entry = group.pel[one]
            group.pel[one] = PelEntry(name, context.now(), entry.times_delivered + 1)
            shown += entries(group.stream, [one])
        else:
            shown.append([one.encode(), NULL_ARRAY])
    if owned:
        context.changed(key, quietly=True)
    return shown


# --- what is pending


@native("xack")
def xack(context: Context, args: list[bytes]) -> Reply:
    stream = context.get(args[1], XStream)
    group = None if stream is None else stream.group_get(args[2])
    if group is None:
        return 0
    keys = [identifier(value) for value in args[3:]]
    gone = sum(group.pel.pop(key, None) is not None for key in keys)
    if gone:
        context.changed(args[1], quietly=True)
    return gone


@native("xpending")
def xpending(context: Context, args: list[bytes]) -> Reply:
    if len(args) != 3 and not 6 <= len(args) <= 9:
        raise ErrorReply(SYNTAX)
    idle, start = 0, 3
    if len(args) > 3 and args[3].lower() == b"idle":
        idle, start = integer(args[4]), 5
        if len(args) < 8:
            raise ErrorReply(SYNTAX)
    if len(args) == 3:
        return _pending_summary(group_of(context, args[1], args[2])[1])
    count = max(integer(args[start + 2]), 0)
    first, last = bound(args[start], end=False), bound(args[start + 1], end=True)
    group = group_of(context, args[1], args[2])[1]
    owners = args[start + 3 : start + 4]
    shown: list[Reply] = []
    for key, entry in sorted(group.pel.items()):
        waited = context.now() - entry.time_read
        is_wanted = not owners or entry.consumer_name in owners
        if first <= key <= last and waited >= idle and is_wanted and len(shown) < count:
            shown.append([key.encode(), entry.consumer_name, max(waited, 0), entry.times_delivered])
    return shown


def _pending_summary(group: StreamGroup) -> Reply:
    if not group.pel:
        return [0, None, None, NULL_ARRAY]
    counts: dict[bytes, int] = {}
    for entry in group.pel.values():
        counts[entry.consumer_name] = counts.get(entry.consumer_name, 0) + 1
    owners: list[Reply] = [[name, b"%d" % counts[name]] for name in sorted(counts)]
    return [len(group.pel), min(group.pel).encode(), max(group.pel).encode(), owners]


class _Claim:
    """The options of XCLAIM behind the ids."""

    def __init__(self, context: Context, args: list[bytes], start: int) -> None:
        self.force = self.justid = False
        self.delivered = -1
        self.retries = -1
        self.last: StreamEntryKey | None = None
        index = start
        while index < len(args):
            option, more = args[index].lower(), index + 1 < len(args)
            if option in (b"force", b"justid"):
                self.force, self.justid = self.force or option == b"force", self.justid or option == b"justid"
                index += 1
                continue
            if option not in (b"idle", b"time", b"retrycount", b"lastid") or not more:
                raise ErrorReply(f"ERR Unrecognized XCLAIM option '{_text(args[index])}'")
            self._value(context, option, args[index + 1])
            index += 2
        now = context.now()
        if not 0 <= self.delivered <= now:
            self.delivered = now

    def _value(self, context: Context, option: bytes, value: bytes) -> None:
        if option == b"lastid":
            self.last = identifier(value)
            return
        number = integer(value, f"ERR Invalid {option.decode().upper()} option argument for XCLAIM")
        if option == b"idle":
            self.delivered = context.now() - number
        elif option == b"time":
            self.delivered = number
        else:
            if number < 0:
                raise ErrorReply("ERR Invalid RETRYCOUNT option argument for XCLAIM")
            self.retries = number


@native("xclaim")
def xclaim(context: Context, args: list[bytes]) -> Reply:
    stream, group = group_of(context, args[1], args[2])
    idle = max(integer(args[4], "ERR Invalid min-idle-time argument for XCLAIM"), 0)
    keys: list[StreamEntryKey] = []
    for value in args[5:]:
        try:
            keys.append(identifier(value))
        except ErrorReply:
            break
    claim = _Claim(context, args, 5 + len(keys))
    if claim.last is not None and claim.last > group.last_delivered_key:
        group.last_delivered_key = claim.last
    taken: list[StreamEntryKey] = []
    for key in keys:
        entry = group.pel.get(key)
        if key not in stream:
            group.pel.pop(key, None)
            continue
        if entry is None:
            if not claim.force:
                continue
            entry = PelEntry(b"", 0, 1)
        elif entry.consumer_name and idle and context.now() - entry.time_read < idle:
            continue
        count = claim.retries if claim.retries >= 0 else entry.times_delivered + (not claim.justid)
        consumer_of(context, group, args[3])
        group.pel[key] = PelEntry(args[3], claim.delivered, count)
        taken.append(key)
    context.changed(args[1], quietly=True)
    return [key.encode() for key in taken] if claim.justid else entries(stream, taken)


@native("xautoclaim")
def xautoclaim(context: Context, args: list[bytes]) -> Reply:
    idle = max(integer(args[4], "ERR Invalid min-idle-time argument for XAUTOCLAIM"), 0)
    start, count, justid, index = bound(args[5], end=False), 100, False, 6
    while index < len(args):
        option = args[index].lower()
        if option == b"count" and index + 1 < len(args):
            count = integer(args[index + 1], "ERR COUNT must be > 0", 1)
            index += 1
        elif option == b"justid":
            justid = True
        else:
            raise ErrorReply(SYNTAX)
        index += 1
    stream, group = group_of(context, args[1], args[2])
    consumer_of(context, group, args[3])
    rest = sorted(key for key in group.pel if key >= start)
    taken: list[StreamEntryKey] = []
    gone: list[Reply] = []
    place, tries = 0, count * 10
    while place < len(rest) and tries and len(taken) + len(gone) < count:
        key, tries = rest[place], tries - 1
        place += 1
        entry = group.pel[key]
        if key not in stream:
            del group.pel[key]
            gone.append(key.encode())
        elif not idle or context.now() - entry.time_read >= idle:
            group.pel[key] = PelEntry(args[3], context.now(), entry.times_delivered + (not justid))
            taken.append(key)
    context.changed(args[1], quietly=True)
    following = rest[place].encode() if place < len(rest) else b"0-0"
    return [following, [key.encode() for key in taken] if justid else entries(stream, taken), gone]


# --- XGROUP


def _read_count(value: bytes) -> int | None:
    count = integer(value)
    if count < -1:
        raise ErrorReply("ERR value for ENTRIESREAD must be positive or -1")
    return None if count == -1 else count


@native("xgroup")
def xgroup(context: Context, args: list[bytes]) -> Reply:
    sub = args[1].lower()
    if sub == b"help":
        return help_of("xgroup")
    creates, entries_read = False, None
    index = 5
    while sub in (b"create", b"setid") and index < len(args):
        option = args[index].lower()
        if option == b"mkstream" and sub == b"create":
            creates = True
        elif option == b"entriesread" and index + 1 < len(args):
            entries_read = _read_count(args[index + 1])
            index += 1
        else:
            raise ErrorReply(
                f"ERR unknown subcommand or wrong number of arguments for '{_text(args[1])}'. Try XGROUP HELP."
            )
        index += 1
    stream = context.get(args[2], XStream)
    if stream is None and not creates:
        raise ErrorReply(_NO_KEY)
    if sub == b"create":
        return _create(context, args, stream, entries_read)
    assert stream is not None
    group = stream.group_get(args[3])
    if sub == b"destroy":
        if stream._groups.pop(args[3], None) is None:
            return 0
        context.changed(args[2], quietly=True)
        return 1
    if group is None:
        raise ErrorReply(f"NOGROUP No such consumer group '{_text(args[3])}' for key name '{_text(args[2])}'")
    if sub == b"setid":
        group.set_id(stream.last_id if args[4] == b"$" else bound(args[4], end=False), entries_read)
        context.changed(args[2], quietly=True)
        return OK
    return _consumer(context, args, sub, group)


def _create(context: Context, args: list[bytes], stream: XStream | None, entries_read: int | None) -> Reply:
    new = XStream() if stream is None else stream
    start = new.last_id if args[4] == b"$" else identifier(args[4])
    if new.group_get(args[3]) is not None:
        raise ErrorReply("BUSYGROUP Consumer Group name already exists")
    new.group_add(args[3], start, entries_read)
    if stream is None:
        context.data.write(args[2], new)
    else:
        context.changed(args[2], quietly=True)
    return OK


def _consumer(context: Context, args: list[bytes], sub: bytes, group: StreamGroup) -> Reply:
    if sub == b"createconsumer":
        if args[4] in group.consumers:
            return 0
        consumer_of(context, group, args[4])
        context.changed(args[2], quietly=True)
        return 1
    if group.consumers.pop(args[4], None) is None:
        return 0
    owned = [key for key, entry in group.pel.items() if entry.consumer_name == args[4]]
    for key in owned:
        del group.pel[key]
    context.changed(args[2], quietly=True)
    return len(owned)
