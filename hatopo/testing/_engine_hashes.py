"""Commands on hashes; HSCAN is in _engine_scan."""

from __future__ import annotations

import math

from hatopo.testing._engine_context import Context, floating, integer, native
from hatopo.testing._engine_data import Hash
from hatopo.testing._engine_strings import human, long_double, rounded
from hatopo.testing._engine_zsets import random_count
from hatopo.testing._reply import OK, ErrorReply, Reply


def _fields(context: Context, key: bytes) -> dict[bytes, bytes]:
    """The fields of a hash; none if there is no hash."""
    value = context.get(key, Hash)
    return {} if value is None else value._values


def _write(context: Context, key: bytes, fields: dict[bytes, bytes]) -> int:
    """Set fields; how many are new."""
    value = context.get(key, Hash)
    if value is None:
        new = Hash()
        new._values = fields
        context.data.write(key, new)
        return len(fields)
    before = len(value._values)
    value._values.update(fields)
    context.changed(key)
    return len(value._values) - before


@native("hset", "hmset")
def hset(context: Context, args: list[bytes]) -> Reply:
    name = args[0].lower()
    if len(args) % 2:
        raise ErrorReply(f"ERR wrong number of arguments for '{name.decode('latin-1')}' command")
    added = _write(context, args[1], dict(zip(args[2::2], args[3::2], strict=True)))
    return OK if name == b"hmset" else added


@native("hsetnx")
def hsetnx(context: Context, args: list[bytes]) -> Reply:
    if args[2] in _fields(context, args[1]):
        return 0
    return _write(context, args[1], {args[2]: args[3]})


@native("hget")
def hget(context: Context, args: list[bytes]) -> Reply:
    return _fields(context, args[1]).get(args[2])


@native("hmget")
def hmget(context: Context, args: list[bytes]) -> Reply:
    fields = _fields(context, args[1])
    return [fields.get(field) for field in args[2:]]


@native("hgetall")
def hgetall(context: Context, args: list[bytes]) -> Reply:
    return {field: value for field, value in _fields(context, args[1]).items()}  # noqa: C416 - dict() is typed too narrowly


@native("hkeys")
def hkeys(context: Context, args: list[bytes]) -> Reply:
    return list(_fields(context, args[1]))


@native("hvals")
def hvals(context: Context, args: list[bytes]) -> Reply:
    return list(_fields(context, args[1]).values())


@native("hlen")
def hlen(context: Context, args: list[bytes]) -> Reply:
    return len(_fields(context, args[1]))


@native("hexists")
def hexists(context: Context, args: list[bytes]) -> Reply:
    return int(args[2] in _fields(context, args[1]))


@native("hstrlen")
def hstrlen(context: Context, args: list[bytes]) -> Reply:
    return len(_fields(context, args[1]).get(args[2], b""))


@native("hdel")
def hdel(context: Context, args: list[bytes]) -> Reply:
    fields = _fields(context, args[1])
    gone = sum(fields.pop(field, None) is not None for field in args[2:])
    if gone:
        context.changed(args[1])
    return gone


@native("hincrby")
def hincrby(context: Context, args: list[bytes]) -> Reply:
    amount = integer(args[3])
    value = integer(_fields(context, args[1]).get(args[2], b"0"), "ERR hash value is not an integer") + amount
    if not -(2**63) <= value < 2**63:
        raise ErrorReply("ERR increment or decrement would overflow")
    _write(context, args[1], {args[2]: b"%d" % value})
    return value


@native("hincrbyfloat")
def hincrbyfloat(context: Context, args: list[bytes]) -> Reply:
    if math.isinf(floating(args[3])):
        raise ErrorReply("ERR value is NaN or Infinity")
    old = long_double(_fields(context, args[1]).get(args[2], b"0"), "ERR hash value is not a float")
    value = human(rounded(old + long_double(args[3])))
    _write(context, args[1], {args[2]: value})
    return value


@native("hrandfield")
def hrandfield(context: Context, args: list[bytes]) -> Reply:
    count, values = random_count(args, b"withvalues")
    fields = list(_fields(context, args[1]).items())
    if count is None:
        return context.rng.choice(fields)[0] if fields else None
    if not fields:
        return []
    if count < 0:
        chosen = context.rng.choices(fields, k=-count)
    else:
        chosen = fields if count >= len(fields) else context.rng.sample(fields, count)
    if not values:
        return [field for field, _ in chosen]
    if context.protocol == 3:
        return [list(pair) for pair in chosen]
    return [one for pair in chosen for one in pair]
