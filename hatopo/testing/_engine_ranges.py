"""Ranges of sorted sets, by rank, by score and by name: decides what is within, for reading, storing and removing."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from fakeredis.model import AfterAny, BeforeAny

from hatopo.testing._engine_context import SYNTAX, Context, floating, integer, native
from hatopo.testing._engine_data import ZSet
from hatopo.testing._engine_lists import bounds
from hatopo.testing._engine_zsets import Scored, found, removed, spelled
from hatopo.testing._reply import ErrorReply, Reply

_NO_FLOAT = "ERR min or max is not a float"
_NO_NAME = "ERR min or max not valid string range item"
_BEFORE, _AFTER = BeforeAny(), AfterAny()


@dataclass(frozen=True, slots=True)
class Range:
    """What a command asks for."""

    by: str
    """"rank", "score" or "lex"."""
    first: Any
    last: Any
    reverse: bool = False
    offset: int = 0
    count: int = -1


def _score(value: bytes) -> tuple[float, bool]:
    """A bound, and whether it is exclusive."""
    exclusive = value.startswith(b"(")
    text = value[1:] if exclusive else value
    return (floating(text.lstrip(), _NO_FLOAT) if text else 0.0), exclusive


def _name(value: bytes) -> tuple[Any, bool]:
    if value in (b"-", b"+"):
        return (_BEFORE if value == b"-" else _AFTER), True
    if value[:1] not in (b"[", b"("):
        raise ErrorReply(_NO_NAME)
    return value[1:], value.startswith(b"(")


def _parsed(by: str, first: bytes, last: bytes) -> tuple[Any, Any]:
    if by == "rank":
        return integer(first), integer(last)
    read = _score if by == "score" else _name
    return read(first), read(last)


def _score_slice(scores: ZSet, wanted: Range) -> tuple[int, int]:
    """The places of a range by score."""
    (low, above), (high, below) = wanted.first, wanted.last
    start = scores._byscore.bisect_left((low, _AFTER if above else _BEFORE))
    stop = scores._byscore.bisect_left((high, _BEFORE if below else _AFTER))
    return start, max(start, stop)


def _name_slice(scores: ZSet, wanted: Range) -> tuple[int, int]:
    """The places of a range by name; where the scores differ, as Redis finds them from the beginning."""
    (low, above), (high, below) = wanted.first, wanted.last
    ordered = scores._byscore
    start = 0
    while start < len(ordered) and not _beyond(ordered[start][1], low, above):
        start += 1
    stop = start
    while stop < len(ordered) and not _beyond(ordered[stop][1], high, not below):
        stop += 1
    return start, stop


def _beyond(member: bytes, limit: Any, exclusive: bool) -> bool:
    """Whether a member is at or behind a limit."""
    if limit is _BEFORE or limit is _AFTER:
        return limit is _BEFORE
    return bool(member > limit if exclusive else member >= limit)


def _same_score_slice(scores: ZSet, wanted: Range) -> tuple[int, int]:
    """The places of a range by name, where all scores are the same."""
    (low, above), (high, below) = wanted.first, wanted.last
    ordered = scores._byscore
    score = ordered[0][0]
    start = ordered.bisect_right((score, low)) if above else ordered.bisect_left((score, low))
    stop = ordered.bisect_left((score, high)) if below else ordered.bisect_right((score, high))
    return start, max(start, stop)


def within(scores: ZSet, wanted: Range) -> list[Scored]:
    """The members of a range in the order that is asked for."""
    ordered = scores._byscore
    size = len(ordered)
    if wanted.by == "rank":
        start, stop = bounds(wanted.first, wanted.last, size)
        if wanted.reverse:
            start, stop = size - stop, size - start
    elif wanted.by == "score":
        start, stop = _score_slice(scores, wanted)
    elif ordered[0][0] == ordered[-1][0]:
        start, stop = _same_score_slice(scores, wanted)
    else:
        start, stop = _name_slice(scores, wanted)
    items: Iterator[Scored] = ordered.islice(start, stop, wanted.reverse)
    found_items = list(items)
    if wanted.offset < 0:
        return []
    end = None if wanted.count < 0 else wanted.offset + wanted.count
    return found_items[wanted.offset : end]


_FIXED: dict[bytes, tuple[str, bool]] = {
    b"zrevrange": ("rank", True),
    b"zrangebyscore": ("score", False),
    b"zrevrangebyscore": ("score", True),
    b"zrangebylex": ("lex", False),
    b"zrevrangebylex": ("lex", True),
}


def _asked(args: list[bytes], start: int, name: bytes, stores: bool) -> tuple[Range, bool]:
    """The range that a command asks for, and whether scores are wanted; `start` is the place of the first bound."""
    by, reverse = _FIXED.get(name, (None, False))
    free, scores, limited, offset, count = name not in _FIXED, False, False, 0, -1
    index = start + 2
    while index < len(args):
        option = args[index].lower()
        if option == b"withscores" and not stores:
            scores = True
        elif option == b"limit" and index + 2 < len(args):
            offset, count, limited = integer(args[index + 1]), integer(args[index + 2]), True
            index += 2
        elif free and option == b"rev":
            reverse = True
        elif free and option in (b"bylex", b"byscore") and by is None:
            by = option[2:].decode()
        else:
            raise ErrorReply(SYNTAX)
        index += 1
    by = by or "rank"
    if limited and by == "rank":
        raise ErrorReply("ERR syntax error, LIMIT is only supported in combination with either BYSCORE or BYLEX")
    if scores and by == "lex":
        raise ErrorReply("ERR syntax error, WITHSCORES not supported in combination with BYLEX")
    first, last = args[start], args[start + 1]
    if reverse and by != "rank":
        first, last = last, first
    return Range(by, *_parsed(by, first, last), reverse, offset, count), scores


@native("zrange", "zrevrange", "zrangebyscore", "zrevrangebyscore", "zrangebylex", "zrevrangebylex")
def zrange(context: Context, args: list[bytes]) -> Reply:
    wanted, with_scores = _asked(args, 2, args[0].lower(), stores=False)
    scores = found(context, args[1])
    return [] if scores is None else spelled(context, within(scores, wanted), with_scores)


@native("zrangestore")
def zrangestore(context: Context, args: list[bytes]) -> Reply:
    wanted, _ = _asked(args, 3, b"zrangestore", stores=True)
    scores = found(context, args[2])
    return stored(context, args[1], [] if scores is None else within(scores, wanted))


def stored(context: Context, key: bytes, items: list[Scored]) -> int:
    """Make a key hold these members, or nothing."""
    if not items:
        context.data.remove(key)
        return 0
    scores = ZSet()
    for score, member in items:
        scores.add(member, score)
    context.data.write(key, scores)
    return len(items)


@native("zcount", "zlexcount")
def zcount(context: Context, args: list[bytes]) -> Reply:
    by = "score" if args[0].lower() == b"zcount" else "lex"
    wanted = Range(by, *_parsed(by, args[2], args[3]))
    scores = found(context, args[1])
    return 0 if scores is None else len(within(scores, wanted))


@native("zremrangebyscore", "zremrangebylex", "zremrangebyrank")
def zremrange(context: Context, args: list[bytes]) -> Reply:
    by = args[0].lower()[len(b"zremrangeby") :].decode()
    wanted = Range(by, *_parsed(by, args[2], args[3]))
    scores = found(context, args[1])
    return 0 if scores is None else removed(context, args[1], [member for _, member in within(scores, wanted)])
