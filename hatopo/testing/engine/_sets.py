"""HyperLogLogs, for which fakeredis has sets; and what it does not get right of sets."""

from __future__ import annotations

from typing import Any

from hatopo.testing._reply import OK, ErrorReply, Reply
from hatopo.testing.engine._context import SYNTAX, WRONG_TYPE, Context, integer, native
from hatopo.testing.engine._data import HyperLog


@native("srandmember", "hrandfield", "zrandmember")
def random_members(context: Context, args: list[bytes]) -> Reply:
    """Corrected: fakeredis takes some counts for others, and answers a list of one where one is asked for."""
    name = args[0].decode("latin-1").lower()
    if len(args) > 4 or (len(args) == 4 and (name == "srandmember" or not args[3].lower().startswith(b"with"))):
        raise ErrorReply(SYNTAX)
    count = integer(args[2]) if len(args) > 2 else None
    if count is not None and count == -(2**63):
        limit = 2**63 - 1
        raise ErrorReply(f"ERR value is out of range, value must between -{limit} and {limit}")
    if count is not None and len(args) == 4 and not -(2**62) <= count < 2**62:
        raise ErrorReply("ERR value is out of range")
    if context.item(args[1]) is None:
        return None if count is None else []
    reply = context.adapted(name, args)
    return reply[0] if count is None and isinstance(reply, list) else reply


@native("sintercard")
def sintercard(context: Context, args: list[bytes]) -> Reply:
    """SINTER, counted: fakeredis takes a missing key for one of another kind."""
    end, limit = 2 + integer(args[1], "ERR numkeys should be greater than 0", 1), 0
    if end > len(args):
        raise ErrorReply("ERR Number of keys can't be greater than number of args")
    if args[end:]:
        if len(args) != end + 2 or args[end].lower() != b"limit":
            raise ErrorReply(SYNTAX)
        limit = integer(args[end + 1], "ERR LIMIT can't be negative", 0)
    found: Any = context.adapted("sinter", args[1:end])
    return min(len(found), limit or len(found))


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
    context.changed(args[1])
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
    if context.item(args[1]) is None:
        context.data.write(args[1], target)
    else:
        context.changed(args[1])
    return OK
