"""Commands that wait: decides when they have found nothing, and what they try again.

None of them does anything by itself: each is another command that does not wait, asked again when a key has changed.
XREAD and XREADGROUP, which may wait or not, are in _engine_streams and _engine_groups.
"""

from __future__ import annotations

from hatopo.testing._reply import NULL_ARRAY, ErrorReply, Reply
from hatopo.testing.engine._context import Attempt, Blocked, Context, floating, integer, native, text
from hatopo.testing.engine._data import ZSet
from hatopo.testing.engine._lists import lmove, mpop

__all__ = ["fits", "tried"]


def timeout_of(value: bytes) -> float:
    """The timeout of a blocking command, in seconds."""
    seconds = floating(value, "ERR timeout is not a float or out of range")
    if seconds < 0 or seconds * 1000 >= 2**63:  # where a real server overflows
        raise ErrorReply("ERR timeout is negative")
    return seconds


def fits(context: Context, key: bytes, kind: type, changed: bytes | None) -> bool:
    """Whether to look at a key: there is something of this kind, which a later attempt may find to be of another."""
    if changed is None:
        return context.get(key, kind) is not None
    item = context.item(key)
    return key == changed and item is not None and type(item.value) is kind


def tried(keys: tuple[bytes, ...], timeout: float, attempt: Attempt, at_once: Reply = NULL_ARRAY) -> Reply:
    """What the first attempt yields; raises Blocked if that is nothing."""
    reply = attempt(None)
    if reply is None:
        raise Blocked(keys, timeout, attempt, NULL_ARRAY, at_once)
    return reply


@native("blpop", "brpop", "bzpopmin", "bzpopmax")
def bpop(context: Context, args: list[bytes]) -> Reply:
    keys, name, timeout = tuple(args[1:-1]), text(args[0]).lower()[1:], timeout_of(args[-1])
    kind: type = ZSet if name.startswith("z") else list

    def attempt(changed: bytes | None) -> Reply | None:
        for key in keys:
            if fits(context, key, kind, changed):
                found = context.adapted(name, [b"", key])
                return [key, *found] if isinstance(found, list) else [key, found]
        return None

    return tried(keys, timeout, attempt)


@native("blmove", "brpoplpush")
def bmove(context: Context, args: list[bytes]) -> Reply:
    ends = args[3:5] if len(args) == 6 else [b"right", b"left"]

    def attempt(changed: bytes | None) -> Reply | None:
        if changed is not None and not fits(context, args[1], list, changed):
            return None
        return lmove(context, [b"", args[1], args[2], *ends])

    timeout = timeout_of(args[-1])
    return tried((args[1],), timeout, attempt, at_once=None)


@native("blmpop", "bzmpop")
def bmpop(context: Context, args: list[bytes]) -> Reply:
    name, timeout = args[0][1:], timeout_of(args[1])
    end = 3 + integer(args[2], "ERR numkeys should be greater than 0", 1)
    kind: type = ZSet if name[:1] in b"zZ" else list

    def attempt(changed: bytes | None) -> Reply | None:
        if changed is not None and not fits(context, changed, kind, changed):
            return None
        keys = args[3:end] if changed is None else [changed]
        reply = mpop(context, [name, b"%d" % len(keys), *keys, *args[end:]])
        return None if reply is NULL_ARRAY else reply

    return tried(tuple(args[3:end]), timeout, attempt)
