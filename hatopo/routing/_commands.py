"""What a command is: how it may be repeated, who may answer it, whether it blocks, where its keys stand.

Decides from the words of a command alone: `facts_of` by its name, `classify` by its name and arguments, which
differ where `_PLAIN_FORM` or `_SAFER_FORM` has a rule. What is not understood is NON_IDEMPOTENT. Must not
know servers, connections, time, or what anybody does with a class.

Arguments come as they are given to redis-py's `execute_command`: a name of two words joined or split, and any
type that can be encoded.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from hatopo.routing import _overlay
from hatopo.routing._table import TABLE


class CommandClass(enum.Enum):
    """What a second application does that follows the first one; the safest class comes first."""

    READ = "read"
    """Nothing: the command only asks."""
    REPEATABLE = "repeatable"
    """It changes neither the state nor the reply."""
    STATE_STABLE = "state-stable"
    """It does not change the state, but its reply may differ from the first one: "did I win?" is lost."""
    NON_IDEMPOTENT = "non-idempotent"
    """It changes the state once more, or nobody knows."""


@dataclass(frozen=True, slots=True)
class Facts:
    """What is known of a command by its name.

    Attributes:
        name: upper case, a container and its subcommand joined by one space: "GET", "CONFIG GET".
        kind: the class by name alone. READ holds whatever the arguments are; for any other kind `classify`
            may say otherwise.
        readonly: the server's flag: reads the keyspace only, so that a replica may answer it.
        blocking: may wait on the server; whether a call does, `blocking_seconds` says.
        stateful: belongs to the connection it runs on, by changing its state or by needing it; of a container
            alone, or with an unknown subcommand: whether any of its subcommands does.
        first_key: position of the first key when the name is split and its first word is 0; 0: none is fixed.
        last_key: position of the last key; counted from the end if negative.
        key_step: from one key to the next.
        movable_keys: there are keys that these positions do not show.
    """

    name: str
    kind: CommandClass
    readonly: bool
    blocking: bool
    stateful: bool
    first_key: int
    last_key: int
    key_step: int
    movable_keys: bool


def _unknown(name: str, stateful: bool = False) -> Facts:
    return Facts(name, CommandClass.NON_IDEMPOTENT, False, False, stateful, 0, 0, 0, False)


def _rows() -> Iterator[tuple[str, str, int, int, int]]:
    """All rows, those of the table last: where both speak, the server is believed."""
    for names, flags, first_key, last_key, key_step in _overlay.MORE_COMMANDS:
        for name in names:
            yield name, flags, first_key, last_key, key_step
    yield from TABLE


def _all_facts() -> dict[str, Facts]:
    kinds = {
        **dict.fromkeys(_overlay.READ, CommandClass.READ),
        **dict.fromkeys(_overlay.REPEATABLE, CommandClass.REPEATABLE),
        **dict.fromkeys(_overlay.STATE_STABLE, CommandClass.STATE_STABLE),
    }
    stateful = frozenset(_overlay.STATEFUL)
    stateful_containers = {name.split()[0] for name in stateful if " " in name}
    blocking = frozenset(_overlay.BLOCKING)
    facts: dict[str, Facts] = {}
    for name, flags, first_key, last_key, key_step in _rows():
        readonly = "r" in flags
        facts[name] = Facts(
            name=name,
            kind=kinds.get(name, CommandClass.READ if readonly else CommandClass.NON_IDEMPOTENT),
            readonly=readonly,
            blocking="b" in flags or name in blocking,
            stateful=name in stateful or name in stateful_containers,
            first_key=first_key,
            last_key=last_key,
            key_step=key_step,
            movable_keys="m" in flags,
        )
    for container in {name.split()[0] for name in facts if " " in name}:
        facts.setdefault(container, _unknown(container, container in stateful_containers))
    return facts


FACTS: dict[str, Facts] = _all_facts()
"""Every known command and subcommand by its canonical name."""

CONTAINERS = frozenset(name.split()[0] for name in FACTS if " " in name)
"""Names that want a second word: CONFIG, CLIENT ..."""
_NEEDS_NO_MORE_WORDS = {name: facts for name, facts in FACTS.items() if name not in CONTAINERS}


def facts_of(args: Sequence[object]) -> Facts:
    """What is known of the command in `args`, in any spelling; of an unknown one, the worst."""
    first = args[0] if args else ""
    if type(first) is str:
        facts = _NEEDS_NO_MORE_WORDS.get(first)
        if facts is not None:
            return facts
    words = _spread(args)
    name = _text(words[0]).upper() if words else ""
    if name in CONTAINERS and len(words) > 1:
        return FACTS.get(f"{name} {_text(words[1]).upper()}") or _unknown(name, FACTS[name].stateful)
    return FACTS.get(name) or _unknown(name)


def classify(args: Sequence[object], facts: Facts) -> CommandClass:
    """The class of this very call; `facts` are those of `args`."""
    if facts.kind is CommandClass.READ:
        return CommandClass.READ
    if plain := _PLAIN_FORM.get(facts.name):
        return facts.kind if plain(_after_name(args, facts)) else CommandClass.NON_IDEMPOTENT
    for kind, holds in _SAFER_FORM.get(facts.name, ()):
        if holds(_after_name(args, facts)):
            return kind
    return facts.kind


def may_read_elsewhere(args: Sequence[object], facts: Facts) -> bool:
    """Whether a replica may answer this very call: it only reads the keyspace, and means the same on every node.

    Not so: cursors (SCAN and its like, WITHCURSOR), which belong to the node that gave them, and what asks about the
    node itself (OBJECT FREQ) or is for its good (TOUCH).
    """
    if not facts.readonly or facts.name in _overlay.OF_ONE_NODE:
        return False
    return not facts.name.startswith("FT.") or "WITHCURSOR" not in _upper(_after_name(args, facts))


def blocking_seconds(args: Sequence[object], facts: Facts) -> float | None:
    """How long the server lets this call wait: None not at all, 0.0 for ever."""
    if not facts.blocking:
        return None
    tail = _after_name(args, facts)
    place = _timeout_place(tail, facts.name)
    if place is None:
        return None
    if facts.name in _IN_MILLISECONDS:
        milliseconds = _integer(tail[place])
        seconds = -1.0 if milliseconds is None else milliseconds / 1000
    else:
        seconds = float(tail[place]) if _DECIMAL.fullmatch(tail[place]) else -1.0
    if not -0.001 < seconds < _LONGEST:
        return None
    return max(seconds, 0.0)  # the server rounds up to milliseconds: -0.0005 is 0, for ever


def with_timeout(args: tuple[object, ...], facts: Facts, seconds: float) -> tuple[object, ...]:
    """The same blocking call with another limit on the server; a call that does not block is left alone.

    At least a millisecond: 0 would mean for ever.
    """
    if blocking_seconds(args, facts) is None:
        return args
    place = _timeout_place(_after_name(args, facts), facts.name)
    assert place is not None
    limit = max(1, int(seconds * 1000)) if facts.name in _IN_MILLISECONDS else max(0.001, round(seconds, 3))
    words = _spread(args)
    words[len(facts.name.split()) + place] = limit
    return tuple(words)


# The words of a command.


def _spread(args: Sequence[object]) -> list[object]:
    """The arguments as the server gets them: redis-py cuts a first argument that has spaces into words."""
    if not args:
        return []
    first = args[0]
    words = first.split() if isinstance(first, (str, bytes, bytearray)) else [first]
    return [*words, *args[1:]]


def _text(value: object) -> str:
    """What the server reads; empty for what cannot be encoded."""
    if isinstance(value, str):
        return value
    try:
        if isinstance(value, (bytes, bytearray, memoryview)):
            return bytes(value).decode("utf-8", "surrogateescape")
        if isinstance(value, (int, float)) and not isinstance(value, bool):
            return repr(value)
    except ValueError:  # a memoryview that was released, an integer of thousands of digits
        return ""
    return ""


def _after_name(args: Sequence[object], facts: Facts) -> list[str]:
    return [_text(word) for word in _spread(args)[len(facts.name.split()) :]]


_INTEGER = re.compile("0|[1-9][0-9]*")
_DECIMAL = re.compile(r"[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)(e[+-]?[0-9]+)?", re.IGNORECASE)
_INFINITY = re.compile("[+-]?inf(inity)?", re.IGNORECASE)
_LONGEST = 2**63 / 1000  # milliseconds fill 63 bits


def _integer(text: str) -> int | None:
    return int(text) if _INTEGER.fullmatch(text) and len(text) < 20 else None


# What arguments do to the class: tests of the words behind the name.

_Test = Callable[[list[str]], bool]
_EXPIRY = frozenset(("EX", "PX", "EXAT", "PXAT"))


def _upper(words: Sequence[str]) -> list[str]:
    return [word.upper() for word in words]


def _only_expiry(options: Sequence[str] | None) -> bool:
    """Nothing but times to live: no condition, no GET, and no KEEPTTL.

    KEEPTTL is refused: if the key expired before the repeat, that would make one which never expires.
    """
    return options is not None and _EXPIRY.issuperset(_upper(options[::2]))


def _outside_fields(tail: list[str], width: int) -> list[str] | None:
    """What surrounds the block "FIELDS <count> <fields>" of a hash command, a field being `width` words."""
    try:
        start = _upper(tail).index("FIELDS", 1)
    except ValueError:
        return None
    count = _integer(tail[start + 1]) if len(tail) > start + 1 else None
    return None if count is None else tail[1:start] + tail[start + 2 + count * width :]


def _without_conditions(tail: list[str]) -> bool:
    """HEXPIRE and its like: one time, no NX, XX, GT, LT."""
    options = _outside_fields(tail, 1)
    return options is not None and len(options) == 1


def _msetex_is_plain(tail: list[str]) -> bool:
    count = _integer(tail[0]) if tail else None
    return count is not None and _only_expiry(tail[1 + 2 * count :])


def _scores_follow(tail: list[str]) -> bool:
    """ZADD, GEOADD: behind the key stands a number, but for CH, which only changes what is counted."""
    values = tail[2:] if _upper(tail[1:2]) == ["CH"] else tail[1:]
    return bool(values) and bool(_DECIMAL.fullmatch(values[0]) or _INFINITY.fullmatch(values[0]))


def _paths_are_steady(paths: Sequence[str]) -> bool:
    """JSON: no path that may lead elsewhere the second time: "[0]" after a deletion, ".." after a change."""
    return not any("[" in path or ".." in path for path in paths)


def _stores_elsewhere(destination: int) -> _Test:
    """The destination is none of the sources; otherwise a repeat would start from the first one's result."""
    return lambda tail: tail[destination : destination + 1] != [] and tail.count(tail[destination]) == 1


def _has_explicit_id(tail: list[str]) -> bool:
    """XADD: the ID is given in full, so that the server refuses it the second time as not greater."""
    place = 1
    while place < len(tail):
        word = tail[place].upper()
        if word not in _XADD_OPTIONS:
            return re.fullmatch("[0-9]+(-[0-9]+)?", word) is not None
        place += _XADD_OPTIONS[word]
        if word in ("MAXLEN", "MINID") and tail[place - 1] in ("=", "~"):
            place += 1
    return False


_XADD_OPTIONS = {
    **dict.fromkeys(("NOMKSTREAM", "KEEPREF", "DELREF", "ACKED"), 1),
    **dict.fromkeys(("MAXLEN", "MINID", "LIMIT", "IDMPAUTO"), 2),
    "IDMP": 3,
}


def _bitfield_only(*allowed: str) -> _Test:
    """BITFIELD: no other operations than these."""
    lengths = {"GET": 3, "SET": 4, "OVERFLOW": 2}

    def holds(tail: list[str]) -> bool:
        place = 1
        while place < len(tail):
            word = tail[place].upper()
            if word not in allowed:
                return False
            place += lengths[word]
        return True

    return holds


def _lacks(*options: str) -> _Test:
    return lambda tail: not set(options).intersection(_upper(tail[1:]))


def _begins_with(word: str) -> _Test:
    return lambda tail: _upper(tail[:1]) == [word]


# Commands that are of their kind in this form only, and NON_IDEMPOTENT in any other.
_PLAIN_FORM: dict[str, _Test] = {
    "SET": lambda tail: _only_expiry(tail[2:]),
    "MSETEX": _msetex_is_plain,
    "HSETEX": lambda tail: _only_expiry(_outside_fields(tail, 2)),
    **dict.fromkeys(("EXPIRE", "PEXPIRE", "EXPIREAT", "PEXPIREAT"), lambda tail: len(tail) == 2),
    **dict.fromkeys(("HEXPIRE", "HPEXPIRE", "HEXPIREAT", "HPEXPIREAT"), _without_conditions),
    **dict.fromkeys(("ZADD", "GEOADD"), _scores_follow),
    "DELEX": lambda tail: len(tail) == 1,
    "JSON.SET": lambda tail: len(tail) == 3 and _paths_are_steady(tail[1:2]),
    "JSON.MSET": lambda tail: _paths_are_steady(tail[1::3]),
    **dict.fromkeys(("JSON.MERGE", "JSON.DEL", "JSON.FORGET", "JSON.CLEAR"), lambda tail: _paths_are_steady(tail[1:2])),
    **dict.fromkeys(("SDIFFSTORE", "SINTERSTORE", "SUNIONSTORE"), _stores_elsewhere(0)),
    **dict.fromkeys(("ZDIFFSTORE", "ZINTERSTORE", "ZUNIONSTORE"), _stores_elsewhere(0)),
    **dict.fromkeys(("ZRANGESTORE", "GEOSEARCHSTORE", "CMS.MERGE"), _stores_elsewhere(0)),
    "BITOP": _stores_elsewhere(1),
    "FT.SUGADD": _lacks("INCR"),
}

# Commands that are better than their kind in this form. GETEX and its like stay write commands where they
# only ask: a replica refuses them, but nothing happens if the master is asked twice.
_SAFER_FORM: dict[str, tuple[tuple[CommandClass, _Test], ...]] = {
    "GETEX": ((CommandClass.READ, lambda tail: len(tail) == 1),),
    "HGETEX": ((CommandClass.READ, lambda tail: _outside_fields(tail, 1) == []),),
    "SORT": ((CommandClass.READ, _lacks("STORE")),),
    "GEORADIUS": ((CommandClass.READ, _lacks("STORE", "STOREDIST")),),
    "GEORADIUSBYMEMBER": ((CommandClass.READ, _lacks("STORE", "STOREDIST")),),
    "BITFIELD": (
        (CommandClass.READ, _bitfield_only("GET", "OVERFLOW")),
        (CommandClass.STATE_STABLE, _bitfield_only("GET", "SET", "OVERFLOW")),
    ),
    "XADD": ((CommandClass.STATE_STABLE, _has_explicit_id),),
    "RESTORE": ((CommandClass.REPEATABLE, lambda tail: "REPLACE" in _upper(tail[3:])),),
    "FUNCTION LOAD": ((CommandClass.REPEATABLE, _begins_with("REPLACE")),),
    "ACL LOG": ((CommandClass.READ, lambda tail: _upper(tail[:1]) != ["RESET"]),),
    "SENTINEL CONFIG": ((CommandClass.READ, _begins_with("GET")),),
    "CLUSTER MIGRATION": ((CommandClass.READ, _begins_with("STATUS")),),
}


# Where the server-side timeout stands.

_IN_MILLISECONDS = frozenset(("WAIT", "WAITAOF", "XREAD", "XREADGROUP", "TS.READ"))
_TIMEOUT_PLACES = {
    **dict.fromkeys(("BLPOP", "BRPOP", "BLMOVE", "BRPOPLPUSH", "BZPOPMIN", "BZPOPMAX"), -1),
    **dict.fromkeys(("WAIT", "WAITAOF"), -1),
    **dict.fromkeys(("BLMPOP", "BZMPOP"), 0),
    "BLMOVEM": 4,
}
_BLOCK_MAY_STAND_FROM = {"XREAD": 0, "XREADGROUP": 0, "TS.READ": 2}
_VALUES_OF_OPTION = {"GROUP": 2, "COUNT": 1, "MAXCOUNT": 1, "MAXSIZE": 1, "CLAIM": 1, "MAX_COUNT": 1}


def _timeout_place(tail: list[str], name: str) -> int | None:
    """The place of the timeout among the words behind the name."""
    place: int | None
    if name in _BLOCK_MAY_STAND_FROM:
        place = _block_place(tail, _BLOCK_MAY_STAND_FROM[name])
    else:
        place = _TIMEOUT_PLACES.get(name)
        if place == -1:
            place = len(tail) - 1
    return place if place is not None and 0 <= place < len(tail) else None


def _block_place(tail: list[str], place: int) -> int | None:
    """Where the value of BLOCK stands; a group, consumer or stream may have the name of an option."""
    found = None
    while place < len(tail) and (word := tail[place].upper()) != "STREAMS":
        if word == "BLOCK":
            found = place = place + 1
        place += 1 + _VALUES_OF_OPTION.get(word, 0)
    return found
