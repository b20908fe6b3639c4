"""Commands that add to sorted sets and take from them.

Ranges are in _engine_ranges, unions and their like in _engine_zsetops.
"""

from __future__ import annotations

import math

from hatopo.testing._engine_context import SYNTAX, Context, floating, integer, native, number, timeout_of
from hatopo.testing._engine_data import ZSet
from hatopo.testing._engine_lists import OUT_OF_RANGE, popped
from hatopo.testing._reply import NULL_ARRAY, ErrorReply, Reply

NOT_A_NUMBER = "ERR resulting score is not a number (NaN)"
_OPTIONS = frozenset({b"nx", b"xx", b"gt", b"lt", b"ch", b"incr"})
Scored = tuple[float, bytes]


def found(context: Context, key: bytes) -> ZSet | None:
    """The sorted set of a key."""
    value: ZSet | None = context.get(key, ZSet)
    return value


def spelled(context: Context, items: list[Scored], scores: bool) -> list[Reply]:
    """Members, with their scores if they are wanted: side by side, or as pairs."""
    if not scores:
        return [member for _, member in items]
    if context.protocol == 3:
        return [[member, score] for score, member in items]
    return [one for score, member in items for one in (member, number(score))]


@native("zadd", "zincrby")
def zadd(context: Context, args: list[bytes]) -> Reply:
    options: set[bytes] = {b"incr"} if args[0].lower() == b"zincrby" else set()
    start = 2
    while start < len(args) and args[start].lower() in _OPTIONS:
        options.add(args[start].lower())
        start += 1
    pairs = args[start:]
    if not pairs or len(pairs) % 2:
        raise ErrorReply(SYNTAX)
    if {b"nx", b"xx"} <= options:
        raise ErrorReply("ERR XX and NX options at the same time are not compatible")
    if len(options & {b"gt", b"lt", b"nx"}) > 1:
        raise ErrorReply("ERR GT, LT, and/or NX options at the same time are not compatible")
    if b"incr" in options and len(pairs) > 2:
        raise ErrorReply("ERR INCR option supports a single increment-element pair")
    wanted = [(0.0 + floating(pairs[i]), pairs[i + 1]) for i in range(0, len(pairs), 2)]
    return _added(context, args[1], wanted, options)


def _added(context: Context, key: bytes, wanted: list[Scored], options: set[bytes]) -> Reply:
    """Add members; the reply of ZADD."""
    scores = found(context, key)
    increments = b"incr" in options
    if scores is None and b"xx" in options:
        return None if increments else 0
    new = ZSet() if scores is None else scores
    added = changed = 0
    last: float | None = None
    for score, member in wanted:
        old = new.get(member)
        last = _chosen(old, score, options)
        if last is None:
            continue
        if math.isnan(last):
            raise ErrorReply(NOT_A_NUMBER)
        added += old is None
        changed += new.add(member, last)
    if changed:
        if scores is None:
            context.data.write(key, new)
        else:
            context.changed(key)
    if increments:
        return None if last is None else context.score(last)
    return changed if b"ch" in options else added


def _chosen(old: float | None, score: float, options: set[bytes]) -> float | None:
    """The score that a member gets; None if it is left as it is."""
    if (old is None and b"xx" in options) or (old is not None and b"nx" in options):
        return None
    if old is None:
        return score
    if b"incr" in options:
        score = old + score
    if (b"gt" in options and score <= old) or (b"lt" in options and score >= old):
        return None
    return score


@native("zrem")
def zrem(context: Context, args: list[bytes]) -> Reply:
    scores = found(context, args[1])
    if scores is None:
        return 0
    return removed(context, args[1], [member for member in dict.fromkeys(args[2:]) if member in scores])


def removed(context: Context, key: bytes, members: list[bytes]) -> int:
    """Remove members that are there."""
    scores = found(context, key)
    if scores is None or not members:
        return 0
    for member in members:
        scores.discard(member)
    context.changed(key)
    return len(members)


@native("zcard")
def zcard(context: Context, args: list[bytes]) -> Reply:
    return len(found(context, args[1]) or ())


@native("zscore")
def zscore(context: Context, args: list[bytes]) -> Reply:
    scores = found(context, args[1])
    score = None if scores is None else scores.get(args[2])
    return None if score is None else context.score(score)


@native("zmscore")
def zmscore(context: Context, args: list[bytes]) -> Reply:
    scores = found(context, args[1])
    values = [None if scores is None else scores.get(member) for member in args[2:]]
    return [None if value is None else context.score(value) for value in values]


@native("zrank", "zrevrank")
def zrank(context: Context, args: list[bytes]) -> Reply:
    if len(args) > 3:
        raise ErrorReply(f"ERR wrong number of arguments for '{args[0].decode('latin-1').lower()}' command")
    scores = found(context, args[1])
    if scores is None or args[2] not in scores:
        return None
    rank: int = scores.rank(args[2])[0]
    return len(scores) - 1 - rank if args[0].lower() == b"zrevrank" else rank


# --- taking


def _take(context: Context, key: bytes, greatest: bool, count: int) -> list[Scored]:
    """Take members from one end of a sorted set that is there."""
    scores = found(context, key)
    assert scores is not None
    ordered = scores._byscore
    size = min(count, len(ordered))
    taken: list[Scored] = list(reversed(ordered[len(ordered) - size :])) if greatest else list(ordered[:size])
    removed(context, key, [member for _, member in taken])
    return taken


@native("zpopmin", "zpopmax")
def zpop(context: Context, args: list[bytes]) -> Reply:
    if len(args) > 3:
        raise ErrorReply(SYNTAX)
    count = integer(args[2], OUT_OF_RANGE, 0) if len(args) == 3 else None
    if found(context, args[1]) is None:
        return []
    taken = _take(context, args[1], args[0].lower() == b"zpopmax", 1 if count is None else count)
    if count is None and context.protocol == 3:
        return [taken[0][1], taken[0][0]]
    return spelled(context, taken, True)


def _is_zset(context: Context, key: bytes) -> bool:
    item = context.item(key)
    return item is not None and type(item.value) is ZSet


@native("bzpopmin", "bzpopmax")
def bzpop(context: Context, args: list[bytes]) -> Reply:
    keys, greatest, timeout = tuple(args[1:-1]), args[0].lower() == b"bzpopmax", timeout_of(args[-1])

    def attempt(changed: bytes | None) -> Reply | None:
        for key in keys if changed is None else (changed,):
            if found(context, key) is not None if changed is None else _is_zset(context, key):
                score, member = _take(context, key, greatest, 1)[0]
                return [key, member, context.score(score)]
        return None

    return context.block(keys, timeout, attempt, NULL_ARRAY)


@native("zmpop", "bzmpop")
def zmpop(context: Context, args: list[bytes]) -> Reply:
    waits = args[0][:1] in b"bB"
    timeout = timeout_of(args[1]) if waits else 0
    keys, least, count = popped(args, 2 if waits else 1, (b"min", b"max"))

    def attempt(changed: bytes | None) -> Reply | None:
        for key in keys if changed is None else (changed,):
            if found(context, key) is not None if changed is None else _is_zset(context, key):
                taken = _take(context, key, not least, count)
                return [key, [[member, context.score(score)] for score, member in taken]]
        return None

    if waits:
        return context.block(keys, timeout, attempt, NULL_ARRAY)
    reply = attempt(None)
    return NULL_ARRAY if reply is None else reply


@native("zrandmember")
def zrandmember(context: Context, args: list[bytes]) -> Reply:
    count, scores = random_count(args, b"withscores")
    value = found(context, args[1])
    if value is None:
        return None if count is None else []
    items: list[Scored] = list(value._byscore)
    if count is None:
        return context.rng.choice(items)[1]
    return spelled(context, chosen(context, items, count), scores)


def random_count(args: list[bytes], word: bytes) -> tuple[int | None, bool]:
    """The count of HRANDFIELD and ZRANDMEMBER, and whether the values are wanted."""
    if len(args) == 2:
        return None, False
    count = integer(
        args[2],
        "ERR value is out of range, value must between -9223372036854775807 and 9223372036854775807"
        if args[2] == b"-9223372036854775808"
        else "ERR value is not an integer or out of range",
        -(2**63) + 1,
    )
    if len(args) > 4 or (len(args) == 4 and args[3].lower() != word):
        raise ErrorReply(SYNTAX)
    if len(args) == 4 and not -(2**62) <= count < 2**62:
        raise ErrorReply("ERR value is out of range")
    return count, len(args) == 4


def chosen(context: Context, items: list[Scored], count: int) -> list[Scored]:
    """Some items by chance: all different, or, if the count is negative, perhaps not."""
    if count < 0:
        return context.rng.choices(items, k=-count)
    return items if count >= len(items) else context.rng.sample(items, count)
