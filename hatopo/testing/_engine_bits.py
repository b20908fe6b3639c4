"""Commands on bits; the counting of BITCOUNT and the searching of BITPOS are those of fakeredis."""

from __future__ import annotations

import operator
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import reduce

from hatopo.testing._engine_context import LONGEST, SYNTAX, Context, integer, native
from hatopo.testing._engine_strings import replace
from hatopo.testing._reply import ErrorReply, Reply

_OPERATIONS: dict[bytes, Callable[[int, int], int]] = {
    b"and": operator.and_,
    b"or": operator.or_,
    b"xor": operator.xor,
}


@native("bitop")
def bitop(context: Context, args: list[bytes]) -> Reply:
    name = args[1].lower()
    if name != b"not" and name not in _OPERATIONS:
        raise ErrorReply(SYNTAX)
    if name == b"not" and len(args) != 4:
        raise ErrorReply("ERR BITOP NOT must be called with a single source key.")
    values: list[bytes] = [context.get(key, bytes) or b"" for key in args[3:]]
    size = max(map(len, values))
    numbers = [int.from_bytes(value.ljust(size, b"\0"), "big") for value in values]
    if not size:
        context.data.remove(args[2])
        return 0
    result = numbers[0] ^ ((1 << 8 * size) - 1) if name == b"not" else reduce(_OPERATIONS[name], numbers)
    context.data.write(args[2], result.to_bytes(size, "big"), raw=True)
    return size


_BAD_OFFSET = "ERR bit offset is not an integer or out of range"


@native("getbit")
def getbit(context: Context, args: list[bytes]) -> Reply:
    offset = integer(args[2], _BAD_OFFSET, 0, 8 * LONGEST - 1)
    value: bytes = context.get(args[1], bytes) or b""
    return value[offset // 8] >> (7 - offset % 8) & 1 if offset // 8 < len(value) else 0


@native("setbit")
def setbit(context: Context, args: list[bytes]) -> Reply:
    offset = integer(args[2], _BAD_OFFSET, 0, 8 * LONGEST - 1)
    on = integer(args[3], "ERR bit is not an integer or out of range", 0, 1)
    old = context.get(args[1], bytes)
    value = bytearray((old or b"").ljust(offset // 8 + 1, b"\0"))
    mask = 1 << (7 - offset % 8)
    before = int(value[offset // 8] & mask != 0)
    value[offset // 8] = value[offset // 8] & ~mask | mask * on
    if before != on or old is None or len(value) > len(old):
        replace(context, args[1], bytes(value), raw=True)
    return before


@native("bitpos")
def bitpos(context: Context, args: list[bytes]) -> Reply:
    if not 0 <= integer(args[2]) <= 1:
        raise ErrorReply("ERR The bit argument must be 1 or 0.")
    return context.adapted("bitpos", args)


@native("bitcount")
def bitcount(context: Context, args: list[bytes]) -> Reply:
    return 0 if context.get(args[1], bytes) is None else context.adapted("bitcount", args)


# --- BITFIELD

_TYPE = re.compile(rb"([ui])([1-9][0-9]?)")


@dataclass(frozen=True, slots=True)
class _Field:
    """One operation on one field."""

    operation: bytes
    signed: bool
    size: int
    offset: int
    value: int
    overflow: bytes

    def read(self, content: int, bits: int) -> int:
        """The value of the field in a string of so many bits, as a number."""
        end = bits - self.offset - self.size
        found = (content >> end if end >= 0 else content << -end) & ((1 << self.size) - 1)
        return found - (1 << self.size) if self.signed and found >> (self.size - 1) else found

    def fitted(self, value: int) -> int | None:
        """A new value within the limits of the field; None if it is refused."""
        low, high = (-(1 << self.size - 1), (1 << self.size - 1) - 1) if self.signed else (0, (1 << self.size) - 1)
        if low <= value <= high:
            return value
        if self.overflow == b"fail":
            return None
        if self.overflow == b"sat":
            return high if value > high else low
        value &= (1 << self.size) - 1
        return value - (1 << self.size) if self.signed and value > high else value


def _fields(args: list[bytes]) -> list[_Field]:
    fields: list[_Field] = []
    overflow, index = b"wrap", 2
    while index < len(args):
        option, rest = args[index].lower(), len(args) - index - 1
        if option == b"overflow" and rest:
            overflow = args[index + 1].lower()
            if overflow not in (b"wrap", b"sat", b"fail"):
                raise ErrorReply("ERR Invalid OVERFLOW type specified")
            index += 2
            continue
        words = {b"get": 3, b"set": 4, b"incrby": 4}.get(option, 0)
        if not words or rest < words - 1:
            raise ErrorReply(SYNTAX)
        kind = _TYPE.fullmatch(args[index + 1])
        if kind is None or int(kind[2]) > (64 if kind[1] == b"i" else 63):
            raise ErrorReply(
                "ERR Invalid bitfield type. Use something like i16 u8. Note that u64 is not supported but i64 is."
            )
        size = int(kind[2])
        offset = _offset(args[index + 2], size)
        value = integer(args[index + 3]) if words == 4 else 0
        fields.append(_Field(option, kind[1] == b"i", size, offset, value, overflow))
        index += words
    return fields


def _offset(value: bytes, size: int) -> int:
    counted = value.startswith(b"#")
    offset = integer(value[counted:], _BAD_OFFSET) * (size if counted else 1)
    if offset < 0 or offset + size > 8 * LONGEST:
        raise ErrorReply(_BAD_OFFSET)
    return offset


@native("bitfield", "bitfield_ro")
def bitfield(context: Context, args: list[bytes]) -> Reply:
    fields = _fields(args)
    writes = [field for field in fields if field.operation != b"get"]
    if writes and args[0].lower() == b"bitfield_ro":
        raise ErrorReply("ERR BITFIELD_RO only supports the GET subcommand")
    old: bytes = context.get(args[1], bytes) or b""
    size = max([len(old), *((field.offset + field.size + 7) // 8 for field in writes)])
    content, bits = int.from_bytes(old.ljust(size, b"\0"), "big"), 8 * size
    replies: list[Reply] = []
    for field in fields:
        before = field.read(content, bits)
        if field.operation == b"get":
            replies.append(before)
            continue
        wanted = field.value if field.operation == b"set" else before + field.value
        if not field.signed and field.operation == b"set":
            wanted &= 2**64 - 1
        value = field.fitted(wanted)
        if value is None:
            replies.append(None)
            continue
        shift, mask = bits - field.offset - field.size, (1 << field.size) - 1
        content = content & ~(mask << shift) | (value & mask) << shift
        replies.append(before if field.operation == b"set" else value)
    if writes:
        replace(context, args[1], content.to_bytes(size, "big"), raw=True)
    return replies
