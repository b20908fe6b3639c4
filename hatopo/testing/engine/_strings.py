"""Strings: what fakeredis does not get right of them, and SET without options, which is ours for speed."""

from __future__ import annotations

import math
from decimal import Context as Precision
from decimal import Decimal
from typing import Any

from hatopo.testing._reply import OK, ErrorReply, Reply
from hatopo.testing.engine._context import SYNTAX, Context, floating, integer, native, text
from hatopo.testing.engine._data import Hash

_UNITS = {b"ex": (1000, True), b"px": (1, True), b"exat": (1000, False), b"pxat": (1, False)}
"""Options that say when a key expires: milliseconds of a unit, and whether from now on."""
_PRECISION = Precision(prec=1000)


@native("set")
def set_(context: Context, args: list[bytes]) -> Reply:
    """Without options ours, for speed; with them corrected, for of two times to live fakeredis takes the last."""
    if len(args) == 3:
        context.data.write(args[1], args[2])
        return OK
    if sum(word.lower() in _UNITS for word in args[3:]) > 1:
        raise ErrorReply(SYNTAX)
    return context.adapted("set", args)


@native("setex", "psetex")
def setex(context: Context, args: list[bytes]) -> Reply:
    """SET with EX or PX: fakeredis keeps only whole seconds of these."""
    name = text(args[0]).lower()
    try:
        return context.adapted("set", [b"", args[1], args[3], b"EX" if name == "setex" else b"PX", args[2]])
    except ErrorReply as error:
        raise ErrorReply(error.text.replace("'set'", f"'{name}'")) from None


@native("getex")
def getex(context: Context, args: list[bytes]) -> Reply:
    """Corrected: fakeredis keeps only whole seconds, and a key that expires in the past."""
    item = context.item(args[1])
    if len(args) == 3 and args[2].lower() == b"persist" and (item is None or item.expireat is None):
        return context.adapted("get", args[:2])
    value = context.adapted("getex", args)
    if len(args) == 4:
        scale, relative = _UNITS[args[2].lower()]
        context.data.expire_at(args[1], integer(args[3]) * scale + (context.now() if relative else 0))
    return value


def _sum(old: bytes, by: bytes) -> bytes:
    """The sum of two numbers as Redis stores it: 17 digits after the point, without the zeros at the end."""
    total = _PRECISION.add(Decimal(old.decode()), Decimal(by.decode()))
    digits = f"{total:.17f}".rstrip("0").rstrip(".")
    return b"0" if digits in ("-0", "") else digits.encode()


@native("incrbyfloat")
def incrbyfloat(context: Context, args: list[bytes]) -> Reply:
    """Corrected: fakeredis adds doubles, so that 10.5 and 0.1 are 10.59999999999999964."""
    value: bytes | None = context.get(args[1], bytes)
    old = b"0" if value is None else value
    if any(map(math.isinf, [floating(old), floating(args[2])])):
        raise ErrorReply("ERR increment would produce NaN or Infinity")
    context.adapted("incrbyfloat", args)
    item = context.item(args[1])
    item.value = _sum(old, args[2])
    return item.value  # type: ignore[no-any-return]


@native("hincrbyfloat")
def hincrbyfloat(context: Context, args: list[bytes]) -> Reply:
    if math.isinf(floating(args[3])):
        raise ErrorReply("ERR value is NaN or Infinity")
    fields = context.get(args[1], Hash)
    old: bytes = b"0" if fields is None else fields.get(args[2], b"0")
    floating(old, "ERR hash value is not a float")
    context.adapted("hincrbyfloat", args)
    value = _sum(old, args[3])
    context.get(args[1], Hash)[args[2]] = value
    return value


@native("lcs")
def lcs(context: Context, args: list[bytes]) -> Reply:
    """Corrected: bytes are bytes, and ranges have their beginning first."""
    for key in args[1:3]:
        item = context.item(key)
        if item is not None and type(item.value) is not bytes:
            raise ErrorReply("ERR The specified keys must contain string values")
    reply: Any = context.adapted("lcs", args)
    if isinstance(reply, bytes):
        return reply.decode().encode("latin-1")
    if not isinstance(reply, int):
        for match in reply[1] if isinstance(reply, list) else reply[b"matches"]:
            for index, ends in enumerate(match[:2]):
                known = [end for end in ends if end is not None]
                match[index] = [min(known), max(known)]
    return reply  # type: ignore[no-any-return]


@native("bitfield_ro")
def bitfield_ro(context: Context, args: list[bytes]) -> Reply:
    if any(word.lower() in (b"set", b"incrby") for word in args[2::3]):
        raise ErrorReply("ERR BITFIELD_RO only supports the GET subcommand")
    return context.adapted("bitfield", args)
