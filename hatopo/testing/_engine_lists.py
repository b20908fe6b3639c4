"""Commands that take from lists or move between them, waiting or not; the others are those of fakeredis."""

from __future__ import annotations

from collections.abc import Sequence

from hatopo.testing._engine_context import SYNTAX, Blocked, Context, integer, native, timeout_of
from hatopo.testing._reply import NULL_ARRAY, OK, ErrorReply, Reply

OUT_OF_RANGE = "ERR value is out of range, must be positive"


def _end(value: bytes) -> bool:
    """Whether LEFT or RIGHT means the left end."""
    side = value.lower()
    if side not in (b"left", b"right"):
        raise ErrorReply(SYNTAX)
    return side == b"left"


def _take(context: Context, key: bytes, left: bool, count: int) -> list[Reply]:
    """Take elements from a list that is there."""
    values = context.get(key, list)
    if left:
        taken = values[:count]
        del values[:count]
    else:
        taken = values[: -count - 1 : -1]
        if taken:
            del values[-len(taken) :]
    if taken:
        context.changed(key)
    return taken  # type: ignore[no-any-return]


def add(context: Context, key: bytes, left: bool, values: Sequence[bytes]) -> int:
    """Add elements to a list one by one, creating it where there is none."""
    found = context.get(key, list)
    if found is None:
        context.data.write(key, list(reversed(values)) if left else list(values))
        return len(values)
    if left:
        found[:0] = reversed(values)
    else:
        found.extend(values)
    context.changed(key)
    return len(found)


@native("lpush", "rpush")
def push(context: Context, args: list[bytes]) -> Reply:
    return add(context, args[1], args[0][:1] in b"lL", args[2:])


@native("lpushx", "rpushx")
def pushx(context: Context, args: list[bytes]) -> Reply:
    if context.get(args[1], list) is None:
        return 0
    return add(context, args[1], args[0][:1] in b"lL", args[2:])


@native("lpop", "rpop")
def pop(context: Context, args: list[bytes]) -> Reply:
    if len(args) > 3:
        raise ErrorReply(f"ERR wrong number of arguments for '{args[0].decode('latin-1').lower()}' command")
    count = integer(args[2], OUT_OF_RANGE, 0) if len(args) == 3 else None
    if context.get(args[1], list) is None:
        return None if count is None else NULL_ARRAY
    taken = _take(context, args[1], args[0][:1] in b"lL", 1 if count is None else count)
    return taken[0] if count is None else taken


def _move(context: Context, source: bytes, target: bytes, left: bool, to_left: bool) -> Reply:
    """Move one element; None where there is none."""
    if context.get(source, list) is None:
        return None
    context.get(target, list)
    value = _take(context, source, left, 1)[0]
    add(context, target, to_left, [value])  # type: ignore[list-item]
    return value


@native("lmove")
def lmove(context: Context, args: list[bytes]) -> Reply:
    return _move(context, args[1], args[2], _end(args[3]), _end(args[4]))


@native("rpoplpush")
def rpoplpush(context: Context, args: list[bytes]) -> Reply:
    return _move(context, args[1], args[2], False, True)


@native("blmove")
def blmove(context: Context, args: list[bytes]) -> Reply:
    left, to_left = _end(args[3]), _end(args[4])
    return _wait_and_move(context, args[1], args[2], left, to_left, timeout_of(args[5]))


@native("brpoplpush")
def brpoplpush(context: Context, args: list[bytes]) -> Reply:
    return _wait_and_move(context, args[1], args[2], False, True, timeout_of(args[3]))


def _wait_and_move(context: Context, source: bytes, target: bytes, left: bool, to_left: bool, timeout: float) -> Reply:
    def attempt(changed: bytes | None) -> Reply | None:
        if changed is not None and not _is_list(context, source):
            return None
        return _move(context, source, target, left, to_left)

    try:
        return context.block((source,), timeout, attempt, NULL_ARRAY)
    except Blocked as blocked:
        blocked.at_once = None
        raise


def _is_list(context: Context, key: bytes) -> bool:
    item = context.item(key)
    return item is not None and type(item.value) is list


@native("blpop", "brpop")
def bpop(context: Context, args: list[bytes]) -> Reply:
    keys, left, timeout = tuple(args[1:-1]), args[0][1:2] in b"lL", timeout_of(args[-1])

    def attempt(changed: bytes | None) -> Reply | None:
        for key in keys if changed is None else (changed,):
            if context.get(key, list) is not None if changed is None else _is_list(context, key):
                return [key, _take(context, key, left, 1)[0]]
        return None

    return context.block(keys, timeout, attempt, NULL_ARRAY)


def popped(args: list[bytes], start: int, sides: tuple[bytes, bytes]) -> tuple[tuple[bytes, ...], bool, int]:
    """The keys, whether the first of two sides is meant, and how many, of LMPOP and its like."""
    keys_number = integer(args[start], "ERR numkeys should be greater than 0", 1)
    where = start + 1 + keys_number
    if where >= len(args):
        raise ErrorReply(SYNTAX)
    side = args[where].lower()
    if side not in sides:
        raise ErrorReply(SYNTAX)
    count, index = None, where + 1
    while index < len(args):
        if count is not None or args[index].lower() != b"count" or index + 1 >= len(args):
            raise ErrorReply(SYNTAX)
        count = integer(args[index + 1], "ERR count should be greater than 0", 1)
        index += 2
    return tuple(args[start + 1 : where]), side == sides[0], 1 if count is None else count


@native("lmpop", "blmpop")
def lmpop(context: Context, args: list[bytes]) -> Reply:
    waits = args[0][:1] in b"bB"
    timeout = timeout_of(args[1]) if waits else 0
    keys, left, count = popped(args, 2 if waits else 1, (b"left", b"right"))

    def attempt(changed: bytes | None) -> Reply | None:
        for key in keys if changed is None else (changed,):
            if context.get(key, list) is not None if changed is None else _is_list(context, key):
                return [key, _take(context, key, left, count)]
        return None

    if waits:
        return context.block(keys, timeout, attempt, NULL_ARRAY)
    reply = attempt(None)
    return NULL_ARRAY if reply is None else reply


def bounds(start: int, stop: int, size: int) -> tuple[int, int]:
    """A range that may count from the end, as a slice."""
    start = max(start + size, 0) if start < 0 else start
    stop = stop + size if stop < 0 else min(stop, size - 1)
    return (0, 0) if start > stop or start >= size else (start, stop + 1)


@native("lrange")
def lrange(context: Context, args: list[bytes]) -> Reply:
    start, stop = integer(args[2]), integer(args[3])
    values = context.get(args[1], list)
    if values is None:
        return []
    first, last = bounds(start, stop, len(values))
    return values[first:last]  # type: ignore[no-any-return]


@native("ltrim")
def ltrim(context: Context, args: list[bytes]) -> Reply:

    start, stop = integer(args[2]), integer(args[3])
    values = context.get(args[1], list)
    if values is not None:
        first, last = bounds(start, stop, len(values))
        values[:] = values[first:last]
        context.changed(args[1])
    return OK


@native("linsert")
def linsert(context: Context, args: list[bytes]) -> Reply:
    where = args[2].lower()
    if where not in (b"before", b"after"):
        raise ErrorReply(SYNTAX)
    values = context.get(args[1], list)
    if values is None:
        return 0
    if args[3] not in values:
        return -1
    values.insert(values.index(args[3]) + (where == b"after"), args[4])
    context.changed(args[1])
    return len(values)


@native("lindex")
def lindex(context: Context, args: list[bytes]) -> Reply:
    values = context.get(args[1], list)
    if values is None:
        return None
    index = integer(args[2])
    return values[index] if -len(values) <= index < len(values) else None


@native("lset")
def lset(context: Context, args: list[bytes]) -> Reply:

    values = context.get(args[1], list)
    if values is None:
        raise ErrorReply("ERR no such key")
    index = integer(args[2])
    if not -len(values) <= index < len(values):
        raise ErrorReply("ERR index out of range")
    values[index] = args[3]
    context.changed(args[1])
    return OK


@native("lpos")
def lpos(context: Context, args: list[bytes]) -> Reply:
    rank, count, longest = 1, None, 0
    for index in range(3, len(args), 2):
        option = args[index].lower()
        if index + 1 == len(args) or option not in (b"rank", b"count", b"maxlen"):
            raise ErrorReply(SYNTAX)
        if option == b"rank":
            rank = integer(args[index + 1])
            rank = -1 if rank == -(2**63) else rank  # which a real server cannot negate
            if rank == 0:
                raise ErrorReply(
                    "ERR RANK can't be zero: use 1 to start from the first match, 2 from the second ... "
                    "or use negative to start from the end of the list"
                )
        elif option == b"count":
            count = integer(args[index + 1], "ERR COUNT can't be negative", 0)
        else:
            longest = integer(args[index + 1], "ERR MAXLEN can't be negative", 0)
    values = context.get(args[1], list)
    if values is None:
        return None if count is None else []
    places = range(len(values)) if rank > 0 else range(len(values) - 1, -1, -1)
    found = [place for place in places[: longest or None] if values[place] == args[2]][abs(rank) - 1 :]
    if count is None:
        return found[0] if found else None
    return found[: count or None]
