"""Commands on sets, and HyperLogLogs."""

from __future__ import annotations

from hatopo.testing._engine_context import SYNTAX, WRONG_TYPE, Context, integer, native
from hatopo.testing._engine_data import HyperLog, MemberSet
from hatopo.testing._engine_keys import is_integer
from hatopo.testing._engine_lists import OUT_OF_RANGE
from hatopo.testing._reply import OK, ErrorReply, Members, Reply


def _members(context: Context, key: bytes) -> dict[bytes, int | None]:
    """The members of a set; none if there is no set."""
    value = context.get(key, MemberSet)
    return {} if value is None else value._values


@native("sadd")
def sadd(context: Context, args: list[bytes]) -> Reply:
    value = context.get(args[1], MemberSet)
    if value is None:
        new = MemberSet(dict.fromkeys(args[2:]))
        context.data.write(args[1], new)
        return len(new)
    before = len(value._values)
    value.update(args[2:])
    added = len(value._values) - before
    if added:
        context.changed(args[1])
    return added


@native("srem")
def srem(context: Context, args: list[bytes]) -> Reply:
    value = context.get(args[1], MemberSet)
    if value is None:
        return 0
    before = len(value._values)
    for member in args[2:]:
        value.discard(member)
    gone = before - len(value._values)
    if gone:
        context.changed(args[1])
    return gone


@native("scard")
def scard(context: Context, args: list[bytes]) -> Reply:
    return len(_members(context, args[1]))


def _number(member: Reply) -> int:
    return int(member) if isinstance(member, bytes) else 0


def _shown(members: dict[bytes, int | None]) -> Members:
    """Members as they are sent: those of a small set of numbers in order."""
    if len(members) <= 512 and all(map(is_integer, members)):
        return Members(sorted(members, key=_number))
    return Members(members)


@native("smembers")
def smembers(context: Context, args: list[bytes]) -> Reply:
    return _shown(_members(context, args[1]))


@native("sismember")
def sismember(context: Context, args: list[bytes]) -> Reply:
    return int(args[2] in _members(context, args[1]))


@native("smismember")
def smismember(context: Context, args: list[bytes]) -> Reply:
    members = _members(context, args[1])
    return [int(member in members) for member in args[2:]]


@native("smove")
def smove(context: Context, args: list[bytes]) -> Reply:
    source, target, member = args[1:4]
    value = context.get(source, MemberSet)
    if value is None:
        return 0
    into = context.get(target, MemberSet)
    if member not in value._values:
        return 0
    if source == target:
        return 1
    value.discard(member)
    context.changed(source)
    if into is None:
        context.data.write(target, MemberSet({member: None}))
    elif member not in into._values:
        into.add(member)
        context.changed(target)
    return 1


# --- by chance


@native("spop")
def spop(context: Context, args: list[bytes]) -> Reply:
    if len(args) > 3:
        raise ErrorReply(SYNTAX)
    count = integer(args[2], OUT_OF_RANGE, 0) if len(args) == 3 else None
    value = context.get(args[1], MemberSet)
    if value is None:
        return None if count is None else Members()
    taken = Members(value.pop_random() for _ in range(min(1 if count is None else count, len(value._values))))
    if taken:
        context.changed(args[1])
    return taken[0] if count is None else taken


@native("srandmember")
def srandmember(context: Context, args: list[bytes]) -> Reply:
    if len(args) > 3:
        raise ErrorReply(SYNTAX)
    count = None
    if len(args) == 3:
        if args[2] == b"-9223372036854775808":
            limits = "-9223372036854775807 and 9223372036854775807"
            raise ErrorReply(f"ERR value is out of range, value must between {limits}")
        count = integer(args[2])
    value = context.get(args[1], MemberSet)
    if value is None:
        return None if count is None else []
    members: list[Reply] = value.random_members(abs(1 if count is None else count), distinct=count is None or count > 0)
    return members[0] if count is None else members


# --- several sets


def _combined(context: Context, name: bytes, keys: list[bytes]) -> dict[bytes, int | None]:
    """The members of the union, intersection or difference of sets."""
    sets = [_members(context, key) for key in keys]
    if name.startswith(b"sunion"):
        return {member: None for one in sets for member in one}
    first, *others = sets
    if name.startswith(b"sdiff"):
        return {member: None for member in first if not any(member in one for one in others)}
    return {member: None for member in first if all(member in one for one in others)}


@native("sinter", "sunion", "sdiff")
def sinter(context: Context, args: list[bytes]) -> Reply:
    return _shown(_combined(context, args[0].lower(), args[1:]))


@native("sinterstore", "sunionstore", "sdiffstore")
def sinterstore(context: Context, args: list[bytes]) -> Reply:
    members = _combined(context, args[0].lower(), args[2:])
    if members:
        context.data.write(args[1], MemberSet(members))
    else:
        context.data.remove(args[1])
    return len(members)


@native("sintercard")
def sintercard(context: Context, args: list[bytes]) -> Reply:
    count = integer(args[1], "ERR numkeys should be greater than 0", 1)
    if count > len(args) - 2:
        raise ErrorReply("ERR Number of keys can't be greater than number of args")
    limit, rest = 0, args[2 + count :]
    if len(rest) % 2 or any(word.lower() != b"limit" for word in rest[::2]):
        raise ErrorReply(SYNTAX)
    for value in rest[1::2]:
        limit = integer(value, "ERR LIMIT can't be negative", 0)
    found = len(_combined(context, b"sinter", args[2 : 2 + count]))
    return min(found, limit) if limit else found


# --- HyperLogLogs


def _log(context: Context, key: bytes) -> HyperLog | None:
    """The HyperLogLog of a key."""
    item = context.item(key)
    if item is None:
        return None
    if type(item.value) is bytes:
        raise ErrorReply("WRONGTYPE Key is not a valid HyperLogLog string value.")
    if type(item.value) is not HyperLog:
        raise ErrorReply(WRONG_TYPE)
    return item.value


@native("pfadd")
def pfadd(context: Context, args: list[bytes]) -> Reply:
    value = _log(context, args[1])
    if value is None:
        context.data.write(args[1], HyperLog(dict.fromkeys(args[2:])))
        return 1
    before = len(value._values)
    value._values.update(dict.fromkeys(args[2:]))
    if len(value._values) == before:
        return 0
    context.data.notify_watch(args[1])
    return 1


@native("pfcount")
def pfcount(context: Context, args: list[bytes]) -> Reply:
    logs = [_log(context, key) for key in args[1:]]
    return len({member for log in logs if log is not None for member in log._values})


@native("pfmerge")
def pfmerge(context: Context, args: list[bytes]) -> Reply:
    logs = [_log(context, key) for key in args[1:]]
    target = logs[0] or HyperLog()
    for log in logs[1:]:
        target._values.update(log._values if log is not None else {})
    item = context.item(args[1])
    if item is None:
        context.data.write(args[1], target)
    else:
        context.data.notify_watch(args[1])
        item.value = target
    return OK
