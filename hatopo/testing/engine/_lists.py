"""Lists: what fakeredis does not get right of them."""

from __future__ import annotations

from hatopo.testing._reply import NULL_ARRAY, ErrorReply, Reply
from hatopo.testing.engine._context import SYNTAX, Context, integer, native, text
from hatopo.testing.engine._data import ZSet


@native("lpop", "rpop")
def pop(context: Context, args: list[bytes]) -> Reply:
    reply = context.adapted(text(args[0]).lower(), args)
    return NULL_ARRAY if reply is None and len(args) == 3 else reply


@native("lmove")
def lmove(context: Context, args: list[bytes]) -> Reply:
    """Corrected: fakeredis reads the ends only if there is something to move."""
    if not {args[3].lower(), args[4].lower()} <= {b"left", b"right"}:
        raise ErrorReply(SYNTAX)
    return context.adapted("lmove", args)


@native("lmpop", "zmpop")
def mpop(context: Context, args: list[bytes]) -> Reply:
    """Corrected: fakeredis does not tell that LMPOP has changed a list, and leaves an empty one."""
    end = 2 + integer(args[1], "ERR numkeys should be greater than 0", 1)
    rest = args[end + 1 :]
    if rest and (len(rest) != 2 or rest[0].lower() != b"count"):
        raise ErrorReply(SYNTAX)
    if rest:
        integer(rest[1], "ERR count should be greater than 0", 1)
    kind: type = ZSet if args[0][:1] in b"zZ" else list
    any(context.get(key, kind) is not None for key in args[2:end])  # the first that is there must be of that kind
    reply = context.adapted(text(args[0]).lower(), args)
    if not isinstance(reply, list):
        return NULL_ARRAY
    context.changed(reply[0])
    return reply
