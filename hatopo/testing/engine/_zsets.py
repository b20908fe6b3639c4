"""Sorted sets: what fakeredis does not get right of them."""

from __future__ import annotations

from typing import Any

from hatopo.testing._reply import ErrorReply, Reply
from hatopo.testing.engine._context import SYNTAX, Context, integer, native, text
from hatopo.testing.engine._data import ZSet


def store(context: Context, key: bytes, zset: ZSet) -> int:
    """Make a key hold a sorted set, or nothing."""
    if zset:
        context.data.write(key, zset)
    else:
        context.data.remove(key)
    return len(zset)


@native("zrange", "zrevrange")
def zrange(context: Context, args: list[bytes]) -> Reply:
    """Corrected: fakeredis reads ranks as scores at first, and takes options that do not go together."""
    name, options = text(args[0]).lower(), {word.lower() for word in args[4:]}
    if {b"withscores", b"bylex"} <= options:
        raise ErrorReply("ERR syntax error, WITHSCORES not supported in combination with BYLEX")
    if name == "zrevrange" and options - {b"withscores"}:
        raise ErrorReply(SYNTAX)
    if not options & {b"byscore", b"bylex"}:
        for value in args[2:4]:
            integer(value)
    return context.adapted(name, args)


@native("zrangestore")
def zrangestore(context: Context, args: list[bytes]) -> Reply:
    """ZRANGE, stored: fakeredis refuses to replace a key of another kind."""
    if any(word.lower() == b"withscores" for word in args[5:]):
        raise ErrorReply(SYNTAX)
    members: Any = zrange(context, [b"zrange", *args[2:]])
    scores, result = context.get(args[2], ZSet), ZSet()
    for member in members:
        result.add(member, scores[member])
    return store(context, args[1], result)


@native("zdiff", "zdiffstore")
def zdiff(context: Context, args: list[bytes]) -> Reply:
    """Corrected: fakeredis takes options here that only unions and intersections have."""
    name = text(args[0]).lower()
    start = 2 if name == "zdiffstore" else 1
    rest = [word.lower() for word in args[start + 1 + max(integer(args[start]), 0) :]]
    if rest and (start == 2 or rest != [b"withscores"]):
        raise ErrorReply(SYNTAX)
    return context.adapted(name, args)
