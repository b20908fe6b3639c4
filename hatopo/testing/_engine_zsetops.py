"""Unions, intersections and differences of sorted sets."""

from __future__ import annotations

import math
from collections.abc import Callable

from hatopo.testing._engine_context import SYNTAX, WRONG_TYPE, Context, floating, integer, native
from hatopo.testing._engine_data import MemberSet, ZSet
from hatopo.testing._engine_ranges import stored
from hatopo.testing._engine_zsets import Scored, spelled
from hatopo.testing._reply import ErrorReply, Reply

Scores = dict[bytes, float]
_MERGE: dict[bytes, Callable[[float, float], float]] = {
    b"sum": lambda a, b: 0.0 if math.isnan(a + b) else a + b,
    b"min": min,
    b"max": max,
}


def _read(context: Context, key: bytes) -> Scores:
    """The members of a set or a sorted set with their scores."""
    item = context.item(key)
    if item is None:
        return {}
    if type(item.value) is ZSet:
        return item.value._bylex
    if type(item.value) is MemberSet:
        return dict.fromkeys(item.value._values, 1.0)
    raise ErrorReply(WRONG_TYPE)


class _Asked:
    """What a command asks for."""

    def __init__(self, context: Context, args: list[bytes], start: int) -> None:
        self.name = args[0].decode("latin-1").lower()
        count = integer(args[start])
        if count < 1:
            raise ErrorReply(f"ERR at least 1 input key is needed for '{self.name}' command")
        if count > len(args) - start - 1:
            raise ErrorReply(SYNTAX)
        self.sources = [_read(context, key) for key in args[start + 1 : start + 1 + count]]
        self.weights = [1.0] * count
        self.merge = _MERGE[b"sum"]
        self.scores = False
        self.limit = 0
        index = start + 1 + count
        while index < len(args):
            index += self._option(args, index, count)

    def _option(self, args: list[bytes], index: int, count: int) -> int:
        """Take one option; how many words it has."""
        option, rest = args[index].lower(), len(args) - index - 1
        weighted = self.name not in ("zdiff", "zdiffstore", "zintercard")
        if weighted and option == b"weights" and rest >= count:
            values = args[index + 1 : index + 1 + count]
            self.weights = [floating(value, "ERR weight value is not a float") for value in values]
            return count + 1
        if weighted and option == b"aggregate" and rest:
            if args[index + 1].lower() not in _MERGE:
                raise ErrorReply(SYNTAX)
            self.merge = _MERGE[args[index + 1].lower()]
            return 2
        if option == b"withscores" and not self.name.endswith("store") and self.name != "zintercard":
            self.scores = True
            return 1
        if option == b"limit" and rest and self.name == "zintercard":
            self.limit = integer(args[index + 1], "ERR LIMIT can't be negative", 0)
            return 2
        raise ErrorReply(SYNTAX)

    def result(self) -> list[Scored]:
        """The members in order."""
        if "diff" in self.name:
            first, *others = self.sources
            kept = {m: s for m, s in first.items() if not any(m in other for other in others)}
        else:
            kept = self._merged()
        return sorted((score, member) for member, score in kept.items())

    def _merged(self) -> Scores:
        members = set(self.sources[0])
        for source in self.sources[1:]:
            members = members | set(source) if "union" in self.name else members & set(source)
        merged: Scores = {}
        for source, weight in sorted(zip(self.sources, self.weights, strict=True), key=lambda one: len(one[0])):
            for member, score in source.items():
                if member in members:
                    value = 0.0 if math.isnan(score * weight) else score * weight
                    merged[member] = self.merge(merged[member], value) if member in merged else value
        return merged


@native("zunion", "zinter", "zdiff")
def zunion(context: Context, args: list[bytes]) -> Reply:
    asked = _Asked(context, args, 1)
    return spelled(context, asked.result(), asked.scores)


@native("zunionstore", "zinterstore", "zdiffstore")
def zunionstore(context: Context, args: list[bytes]) -> Reply:
    return stored(context, args[1], _Asked(context, args, 2).result())


@native("zintercard")
def zintercard(context: Context, args: list[bytes]) -> Reply:
    asked = _Asked(context, args, 1)
    count = len(asked.result())
    return min(count, asked.limit) if asked.limit else count
