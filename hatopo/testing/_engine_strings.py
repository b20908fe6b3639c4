"""Commands on strings, as Redis 7.0.15 answers them."""

from __future__ import annotations

import re
from fractions import Fraction
from typing import NamedTuple

from hatopo.testing._engine_context import (
    LONGEST,
    NOT_FLOAT,
    NOT_INTEGER,
    SYNTAX,
    WRONG_TYPE,
    Context,
    floating,
    integer,
    native,
)
from hatopo.testing._engine_data import expires_of
from hatopo.testing._reply import OK, ErrorReply, Reply

TOO_LONG = "ERR string exceeds maximum allowed size (proto-max-bulk-len)"
_UNITS = {b"ex": (1000, True), b"px": (1, True), b"exat": (1000, False), b"pxat": (1, False)}
"""Options that say when a key expires: milliseconds of a unit, and whether from now on."""


def deadline(now: int, unit: bytes, value: bytes, command: str) -> int:
    """When a key expires, in milliseconds since 1970."""
    scale, relative = _UNITS[unit]
    amount = integer(value)
    if amount <= 0 or amount * scale >= 2**63 or amount * scale + (now if relative else 0) >= 2**63:
        raise ErrorReply(f"ERR invalid expire time in '{command}' command")
    return amount * scale + (now if relative else 0)


class _Options(NamedTuple):
    """The options of SET and GETEX."""

    words: frozenset[bytes]
    unit: bytes | None
    value: bytes


def _options(args: list[bytes], start: int, allowed: frozenset[bytes]) -> _Options:
    words: set[bytes] = set()
    unit, value, index = None, b"", start
    while index < len(args):
        option = args[index].lower()
        if option in _UNITS and index + 1 < len(args) and unit is None and not words & {b"keepttl", b"persist"}:
            unit, value = option, args[index + 1]
            index += 1
        elif option in allowed:
            words.add(option)
        else:
            raise ErrorReply(SYNTAX)
        index += 1
    if {b"nx", b"xx"} <= words or (unit is not None and words & {b"keepttl", b"persist"}):
        raise ErrorReply(SYNTAX)
    return _Options(frozenset(words), unit, value)


@native("get")
def get(context: Context, args: list[bytes]) -> Reply:
    item = context.data.item(args[1])
    if item is None:
        return None
    value = item.value
    if type(value) is not bytes:
        raise ErrorReply(WRONG_TYPE)
    return value


_SET = frozenset({b"nx", b"xx", b"keepttl", b"get"})


@native("set")
def set_(context: Context, args: list[bytes]) -> Reply:
    if len(args) == 3:
        context.data.write(args[1], args[2])
        return OK
    options = _options(args, 3, _SET)
    key, data = args[1], context.data
    expires = None if options.unit is None else deadline(context.now(), options.unit, options.value, "set")
    item = data.item(key)
    old = context.get(key, bytes) if b"get" in options.words else None
    answer: Reply = old if b"get" in options.words else OK
    if (b"nx" in options.words and item is not None) or (b"xx" in options.words and item is None):
        return old if b"get" in options.words else None
    if b"keepttl" in options.words and item is not None and item.expireat is not None:
        expires = round(item.expireat * 1000)
    data.write(key, args[2], expires)
    return answer


@native("setex", "psetex")
def setex(context: Context, args: list[bytes]) -> Reply:
    command = args[0].decode("latin-1").lower()
    expires = deadline(context.now(), b"ex" if command == "setex" else b"px", args[2], command)
    context.data.write(args[1], args[3], expires)
    return OK


@native("setnx")
def setnx(context: Context, args: list[bytes]) -> Reply:
    if context.item(args[1]) is not None:
        return 0
    context.data.write(args[1], args[2])
    return 1


@native("getset")
def getset(context: Context, args: list[bytes]) -> Reply:
    old: bytes | None = context.get(args[1], bytes)
    context.data.write(args[1], args[2])
    return old


@native("getdel")
def getdel(context: Context, args: list[bytes]) -> Reply:
    old: bytes | None = context.get(args[1], bytes)
    if old is not None:
        context.data.remove(args[1])
    return old


@native("getex")
def getex(context: Context, args: list[bytes]) -> Reply:
    options = _options(args, 2, frozenset({b"persist"}))
    value: bytes | None = context.get(args[1], bytes)
    item = context.item(args[1])
    if item is None:
        return None
    if options.unit is not None:
        expires = deadline(context.now(), options.unit, options.value, "getex")
        if expires <= context.now():
            context.data.remove(args[1])
        else:
            context.data.expire(args[1], item, expires)
    elif options.words and item.expireat is not None:
        context.data.expire(args[1], item, None)
    return value


@native("mget")
def mget(context: Context, args: list[bytes]) -> Reply:
    found: list[Reply] = []
    for key in args[1:]:
        item = context.item(key)
        found.append(item.value if item is not None and type(item.value) is bytes else None)
    return found


@native("mset", "msetnx")
def mset(context: Context, args: list[bytes]) -> Reply:
    command = args[0].decode("latin-1").lower()
    if len(args) % 2 == 0:
        raise ErrorReply(f"ERR wrong number of arguments for '{command}' command")
    if command == "msetnx" and any(context.item(key) is not None for key in args[1::2]):
        return 0
    for key, value in zip(args[1::2], args[2::2], strict=True):
        context.data.write(key, value)
    return 1 if command == "msetnx" else OK


def replace(context: Context, key: bytes, value: bytes, raw: bool = False) -> None:
    """Change a string, which keeps its time to live."""
    item = context.item(key)
    expires = None if item is None else expires_of(item)
    context.data.write(key, value, expires, raw)


@native("append")
def append(context: Context, args: list[bytes]) -> Reply:
    old = context.get(args[1], bytes)
    value = (old or b"") + args[2]
    if len(value) > LONGEST:
        raise ErrorReply(TOO_LONG)
    replace(context, args[1], value, raw=old is not None)
    return len(value)


@native("strlen")
def strlen(context: Context, args: list[bytes]) -> Reply:
    return len(context.get(args[1], bytes) or b"")


@native("setrange")
def setrange(context: Context, args: list[bytes]) -> Reply:
    offset = integer(args[2])
    if offset < 0:
        raise ErrorReply("ERR offset is out of range")
    old: bytes = context.get(args[1], bytes) or b""
    if not args[3]:
        return len(old)
    if offset + len(args[3]) > LONGEST:
        raise ErrorReply(TOO_LONG)
    value = old[:offset].ljust(offset, b"\0") + args[3] + old[offset + len(args[3]) :]
    replace(context, args[1], value, raw=True)
    return len(value)


@native("getrange", "substr")
def getrange(context: Context, args: list[bytes]) -> Reply:
    start, end = integer(args[2]), integer(args[3])
    value: bytes = context.get(args[1], bytes) or b""
    size = len(value)
    if start < 0 and end < 0 and start > end:
        return b""
    start = max(start + size, 0) if start < 0 else start
    end = max(end + size, 0) if end < 0 else end
    return value[start : end + 1]


def _increase(context: Context, key: bytes, amount: int) -> int:
    old = context.get(key, bytes)
    value = integer(b"0" if old is None else old) + amount
    if not -(2**63) <= value < 2**63:
        raise ErrorReply("ERR increment or decrement would overflow")
    replace(context, key, b"%d" % value)
    return value


@native("incr", "decr")
def incr(context: Context, args: list[bytes]) -> Reply:
    return _increase(context, args[1], -1 if args[0][:1] in b"dD" else 1)


@native("incrby", "decrby")
def incrby(context: Context, args: list[bytes]) -> Reply:
    amount = integer(args[2])
    if args[0][:1] in b"dD":
        if amount == -(2**63):
            raise ErrorReply("ERR decrement would overflow")
        amount = -amount
    return _increase(context, args[1], amount)


_EXPONENT = re.compile(rb"[eE]([+-]?[0-9]+)$")
_LONG = re.compile(rb"[+-]?[0-9]+\.?[0-9]*([eE][+-]?[0-9]+)?")


def long_double(value: bytes, message: str = NOT_FLOAT) -> Fraction:
    """A number as the 80 bits of a long double keep it."""
    exponent = _EXPONENT.search(value)
    if exponent is not None and abs(int(exponent[1])) > 5000:
        raise ErrorReply(message)
    try:
        floating(value, message)
        exact = Fraction(float.fromhex(value.decode())) if b"x" in value.lower() else Fraction(value.decode())
    except ErrorReply:
        if not _LONG.fullmatch(value):
            raise
        exact = Fraction(value.decode())
    except ValueError:
        raise ErrorReply(message) from None
    if abs(exact) >= 2**16384:
        raise ErrorReply(message)
    return rounded(exact)


def rounded(value: Fraction) -> Fraction:
    """The nearest number with 64 significant bits."""
    if not value:
        return value
    size = abs(value)
    exponent = size.numerator.bit_length() - size.denominator.bit_length()
    if Fraction(2) ** exponent > size:
        exponent -= 1
    unit = Fraction(2) ** (exponent - 63)
    return round(value / unit) * unit


def human(value: Fraction) -> bytes:
    """A long double as Redis stores it: 17 digits after the point, without the zeros at the end."""
    scaled = round(value * 10**17)
    digits = f"{abs(scaled):018d}"
    text = f"{'-' if scaled < 0 else ''}{digits[:-17]}.{digits[-17:]}".rstrip("0").rstrip(".")
    return (text if text not in ("-0", "") else "0").encode()


@native("incrbyfloat")
def incrbyfloat(context: Context, args: list[bytes]) -> Reply:
    old = context.get(args[1], bytes)
    values = [b"0" if old is None else old, args[2]]
    infinite = [value.lower().lstrip(b"+-") in (b"inf", b"infinity") for value in values]
    numbers = [Fraction(0) if endless else long_double(one) for one, endless in zip(values, infinite, strict=True)]
    if any(infinite):
        raise ErrorReply("ERR increment would produce NaN or Infinity")
    value = human(rounded(numbers[0] + numbers[1]))
    replace(context, args[1], value)
    return value


@native("lcs")
def lcs(context: Context, args: list[bytes]) -> Reply:
    values = []
    for key in args[1:3]:
        item = context.item(key)
        if item is not None and type(item.value) is not bytes:
            raise ErrorReply("ERR The specified keys must contain string values")
        values.append(b"" if item is None else item.value)
    words, least, index = set(), 0, 3
    while index < len(args):
        option = args[index].lower()
        if option in (b"idx", b"len", b"withmatchlen"):
            words.add(option)
        elif option == b"minmatchlen" and index + 1 < len(args):
            least = max(integer(args[index + 1], NOT_INTEGER), 0)
            index += 1
        else:
            raise ErrorReply(SYNTAX)
        index += 1
    if {b"idx", b"len"} <= words:
        raise ErrorReply("ERR If you want both the length and indexes, please just use IDX.")
    common, matches = _common(values[0], values[1])
    if b"len" in words:
        return len(common)
    if b"idx" not in words:
        return common
    shown: list[Reply] = []
    for (a, b), (c, d) in matches:
        if b - a + 1 >= least:
            shown.append([[a, b], [c, d], b - a + 1] if b"withmatchlen" in words else [[a, b], [c, d]])
    return {b"matches": shown, b"len": len(common)}


Match = tuple[tuple[int, int], tuple[int, int]]


def _common(a: bytes, b: bytes) -> tuple[bytes, list[Match]]:
    """The longest common subsequence, and the ranges in which it stands, from the end."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        above, row = table[i - 1], table[i]
        for j, y in enumerate(b, 1):
            row[j] = above[j - 1] + 1 if x == y else max(above[j], row[j - 1])
    common = bytearray()
    matches: list[Match] = []
    run: Match | None = None
    i, j = len(a), len(b)
    while i and j:
        if a[i - 1] == b[j - 1]:
            common.append(a[i - 1])
            i, j = i - 1, j - 1
            run = ((i, run[0][1]), (j, run[1][1])) if run is not None else ((i, i), (j, j))
            continue
        if run is not None:
            matches.append(run)
            run = None
        if table[i - 1][j] > table[i][j - 1]:
            i -= 1
        else:
            j -= 1
    if run is not None:
        matches.append(run)
    return bytes(reversed(common)), matches
