"""Decides which arguments of a request are keys and how the command uses them, as Redis 7.0.15 does.

Key specifications go first; where they cannot tell, the few commands that need it have a rule of their own. Those
rules are Redis's, down to how they read malformed requests: ACLs and routing depend on the same answer.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from hatopo.testing._reply import ErrorReply
from hatopo.testing.commands._table import Begin, Command, Find, KeySpec, c_string, has_arity

__all__ = ["Key", "find_keys", "has_keys", "keys_of"]


@dataclass(frozen=True, slots=True)
class Key:
    """One key of a request: the place of the argument, the argument, and the key flags of COMMAND."""

    index: int
    name: bytes
    flags: frozenset[str]


Found = list[tuple[int, frozenset[str]]]
Rule = Callable[[Sequence[bytes]], Found]
NO_FLAGS: Final[frozenset[str]] = frozenset()
READ: Final = frozenset({"RO", "access"})
OVERWRITE: Final = frozenset({"OW", "update"})
CHANGE: Final = frozenset({"RW", "access", "update"})
MOVE: Final = frozenset({"RW", "access", "delete"})


def has_keys(command: Command) -> bool:
    """Whether a command can have keys at all; channels of shards are none."""
    return _plan(command) is not None


def keys_of(command: Command, args: Sequence[bytes]) -> list[Key]:
    """What COMMAND GETKEYSANDFLAGS answers for a request; raises ErrorReply as it does, also where there is no key."""
    if not has_keys(command):
        raise ErrorReply("ERR The command has no key arguments")
    if not has_arity(command, len(args)):
        raise ErrorReply("ERR Invalid number of arguments specified for command")
    keys = find_keys(command, args)
    if not keys and "no_mandatory_keys" not in command.flags:
        raise ErrorReply("ERR Invalid arguments specified for command")
    return keys


def find_keys(command: Command, args: Sequence[bytes]) -> list[Key]:
    """The keys of a request that `lookup` accepted; none where there are none, or where it is malformed."""
    plan = _plan(command)
    if plan is None:
        return []
    specs, rule = plan
    found = _by_specs(specs, args) if specs else None
    if found is None:
        found = rule(args)
    return [Key(index, args[index], flags) for index, flags in found]


@functools.cache
def _plan(command: Command) -> tuple[tuple[KeySpec, ...], Rule] | None:
    """The specifications to ask (none, if flags depend on options), and the rule for when they do not tell."""
    specs = tuple(spec for spec in command.key_specs if "not_key" not in spec.flags)
    if not specs:
        return None
    varied = any("variable_flags" in spec.flags for spec in specs)
    return () if varied else specs, _RULES.get(command.name, _no_keys)


def _by_specs(specs: Sequence[KeySpec], args: Sequence[bytes]) -> Found | None:
    """The keys that the specifications tell; None if one of them cannot."""
    found: Found = []
    for spec in specs:
        first = _begin(spec.begin, args)
        if first == 0:
            continue
        places = None if first is None else _places(spec.find, first, args)
        if places is None or "incomplete" in spec.flags:
            return None
        found += [(index, spec.flags) for index in places]
    return found


def _begin(begin: Begin, args: Sequence[bytes]) -> int | None:
    """Where the search of a specification begins; 0: its keyword is not there, None: it does not tell."""
    if begin[0] == "index":
        return begin[1]
    if begin[0] == "unknown":
        return None
    _, keyword, start = begin
    # Forwards the last argument is never looked at, backwards the second never is.
    count = len(args)
    places = range(start, count - 1) if start > 0 else range(count + start, 1, -1)
    word = keyword.lower().encode()
    return next((place + 1 for place in places if _word(args[place]) == word), 0)


def _places(find: Find, first: int, args: Sequence[bytes]) -> range | None:
    """The places of a specification's keys; None if the request is too short or its count of keys is none."""
    if find[0] == "unknown":
        return None
    count = len(args)
    if find[0] == "range":
        _, last, step, limit = find
        if last >= 0:
            last += first
        elif limit:
            last += first + (count - first) // limit
        else:
            last += count
    else:
        _, number_at, offset, step = find
        number = _strict_number(args[first + number_at]) if first + number_at < count else None
        if number is None or number < 0:
            return None
        first += offset
        last = first + _int32(number) - 1
    return range(first, last + 1, step) if first <= last < count else None


def _no_keys(_: Sequence[bytes]) -> Found:
    return []


def _by_count(count_at: int, store_at: int = 0) -> Rule:
    """A rule: keys follow their count, which is read leniently; a destination comes last and has no flags either."""

    def rule(args: Sequence[bytes]) -> Found:
        number, first = _lenient_number(args[count_at]), count_at + 1
        if not 1 <= number <= len(args) - first:
            return []
        places = [*range(first, first + number), *([store_at] if store_at else [])]
        return [(place, NO_FLAGS) for place in places]

    return rule


def _of_sort(args: Sequence[bytes]) -> Found:
    """The key, and that of the last STORE; keys that BY and GET make up cannot be known."""
    skipped = {b"limit": 2, b"get": 1, b"by": 1}
    store, place = 0, 2
    while place < len(args):
        word = _word(args[place])
        if word == b"store" and place + 1 < len(args):
            store = place + 1
        place += 1 + skipped.get(word, 0)
    return [(1, READ), (store, OVERWRITE)] if store else [(1, READ)]


def _of_sort_ro(_: Sequence[bytes]) -> Found:
    return [(1, READ)]


def _of_migrate(args: Sequence[bytes]) -> Found:
    """The third argument, or if that is empty all behind KEYS."""
    skipped = {b"auth": 1, b"auth2": 2}
    place = 6
    while place < len(args):
        word = _word(args[place])
        if word == b"keys":
            return [] if args[3] else [(key, MOVE) for key in range(place + 1, len(args))]
        place += 1 + skipped.get(word, 0)
    return [(3, MOVE)]


def _of_xread(args: Sequence[bytes]) -> Found:
    """The first half of what follows STREAMS."""
    skipped = {b"block": 1, b"count": 1, b"group": 2, b"noack": 0}
    place = 1
    while place < len(args) and (word := _word(args[place])) in skipped:
        place += 1 + skipped[word]
    rest = len(args) - place - 1
    if rest <= 0 or rest % 2 or word != b"streams":
        return []
    return [(key, NO_FLAGS) for key in range(place + 1, place + 1 + rest // 2)]


def _of_set(args: Sequence[bytes]) -> Found:
    return [(1, CHANGE if any(_word(arg) == b"get" for arg in args[3:]) else OVERWRITE)]


def _of_bitfield(args: Sequence[bytes]) -> Found:
    """Only reads, if all operations are complete GETs."""
    lengths = {b"get": 3, b"overflow": 2}
    place = 2
    while place < len(args):
        length = lengths.get(_word(args[place]), 0)
        if length == 0 or place + length > len(args):
            return [(1, CHANGE)]
        place += length
    return [(1, READ)]


_RULES: Final[dict[str, Rule]] = {
    "set": _of_set,
    "bitfield": _of_bitfield,
    "sort": _of_sort,
    "sort_ro": _of_sort_ro,
    "migrate": _of_migrate,
    "xread": _of_xread,
    "xreadgroup": _of_xread,
    **dict.fromkeys(("eval", "evalsha", "eval_ro", "evalsha_ro", "fcall", "fcall_ro"), _by_count(2)),
    **dict.fromkeys(("blmpop", "bzmpop"), _by_count(2)),
    **dict.fromkeys(("sintercard", "zintercard", "lmpop", "zmpop", "zdiff", "zinter", "zunion"), _by_count(1)),
    **dict.fromkeys(("zdiffstore", "zinterstore", "zunionstore"), _by_count(2, store_at=1)),
}
"""GEORADIUS needs none: its specifications always tell."""


def _word(arg: bytes) -> bytes:
    """An argument as keywords are compared."""
    return c_string(arg).lower()


def _strict_number(arg: bytes) -> int | None:
    """A number as string2ll reads it: 64 bits, no sign but a minus, no blanks, no leading zeros."""
    if len(arg) > 20 or not re.fullmatch(rb"0|-?[1-9][0-9]*", arg):
        return None
    number = int(arg)
    return number if -(2**63) <= number < 2**63 else None


def _lenient_number(arg: bytes) -> int:
    """A number as atoi reads it: what it can, cut to 32 bits."""
    found = re.match(rb"[ \t\n\v\f\r]*([+-]?)0*([0-9]+)", arg)
    if found is None:
        return 0
    sign, digits = found.groups()
    size = int(digits[:20])  # more digits than that are beyond 64 bits, too
    return _int32(max(-size, -(2**63)) if sign == b"-" else min(size, 2**63 - 1))


def _int32(number: int) -> int:
    """What is left of a number that C puts into 32 bits."""
    return (number + 2**31) % 2**32 - 2**31
