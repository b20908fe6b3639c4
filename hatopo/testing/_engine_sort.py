"""SORT: decides the order, and what stands for each element."""

from __future__ import annotations

import functools
from dataclasses import dataclass, field

from hatopo.testing._engine_context import SYNTAX, WRONG_TYPE, Context, floating, integer, native
from hatopo.testing._engine_data import Hash, MemberSet, ZSet
from hatopo.testing._reply import ErrorReply, Reply


@dataclass(slots=True)
class _Asked:
    """The options."""

    by: bytes | None = None
    get: list[bytes] = field(default_factory=list)
    descending: bool = False
    alpha: bool = False
    start: int = 0
    count: int = -1
    target: bytes | None = None


def _asked(args: list[bytes]) -> _Asked:
    asked, index = _Asked(), 2
    while index < len(args):
        option, rest = args[index].lower(), len(args) - index - 1
        if option in (b"asc", b"desc"):
            asked.descending = option == b"desc"
        elif option == b"alpha":
            asked.alpha = True
        elif option == b"limit" and rest >= 2:
            asked.start, asked.count = integer(args[index + 1]), integer(args[index + 2])
            index += 2
        elif option == b"store" and rest and args[0].lower() == b"sort":
            asked.target = args[index + 1]
            index += 1
        elif option == b"by" and rest:
            asked.by = args[index + 1]
            index += 1
        elif option == b"get" and rest:
            asked.get.append(args[index + 1])
            index += 1
        else:
            raise ErrorReply(SYNTAX)
        index += 1
    return asked


def _looked_up(context: Context, pattern: bytes, element: bytes) -> bytes | None:
    """What a pattern such as weight_*->field means for an element."""
    if pattern == b"#":
        return element
    before, star, behind = pattern.partition(b"*")
    if not star:
        return None
    suffix, arrow, name = behind.partition(b"->")
    if not (arrow and name):
        suffix, name = behind, b""
    item = context.item(before + element + suffix)
    if item is None:
        return None
    if name:
        return item.value._values.get(name) if type(item.value) is Hash else None
    return item.value if type(item.value) is bytes else None


def _weight(value: bytes | None) -> float:
    if value is None or value == b"":
        return 0.0
    return floating(value.lstrip(), "ERR One or more scores can't be converted into double")


def _ordered(context: Context, elements: list[bytes], asked: _Asked) -> list[bytes]:
    by = asked.by or b"#"
    if asked.alpha:
        keys = {one: _looked_up(context, by, one) for one in elements}
        return sorted(elements, key=lambda one: (keys[one] is not None, keys[one] or b""), reverse=asked.descending)
    weights = {one: _weight(_looked_up(context, by, one)) for one in elements}

    def compare(a: bytes, b: bytes) -> int:
        if weights[a] != weights[b]:
            return 1 if weights[a] > weights[b] else -1
        return (a > b) - (a < b)

    return sorted(elements, key=functools.cmp_to_key(compare), reverse=asked.descending)


@native("sort", "sort_ro")
def sort(context: Context, args: list[bytes]) -> Reply:
    asked = _asked(args)
    item = context.item(args[1])
    value = [] if item is None else item.value
    if type(value) not in (list, MemberSet, ZSet):
        raise ErrorReply(WRONG_TYPE)
    elements: list[bytes] = list(value._values) if isinstance(value, MemberSet) else list(value)
    as_they_are = asked.by is not None and b"*" not in asked.by
    if as_they_are and type(value) is MemberSet and (asked.target is not None or context.scripting):
        as_they_are, asked.alpha, asked.by = False, True, None
    if not as_they_are:
        elements = _ordered(context, elements, asked)
    elif asked.descending and type(value) is not MemberSet:
        elements.reverse()
    start = max(asked.start, 0)
    elements = elements[start : None if asked.count < 0 else start + asked.count]
    found: list[bytes | None] = []
    for one in elements:
        found += [_looked_up(context, pattern, one) for pattern in asked.get] if asked.get else [one]
    if asked.target is None:
        return list(found)
    if found:
        context.data.write(asked.target, [one or b"" for one in found])
    else:
        context.data.remove(asked.target)
    return len(found)
