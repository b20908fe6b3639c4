"""The libraries cmsgpack and struct of scripts: decides which bytes a value of Lua becomes, and back."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import Any

import lupa.lua51 as lua

__all__ = ["PACKING"]

Table = Callable[[Any], Any]
DEEPEST = 16
"""Beyond this many levels MessagePack writes nil."""


def _head(size: int, fixed: tuple[int, int], codes: tuple[tuple[int, int], ...]) -> bytes:
    """The head of a string, an array or a map: short ones have their size in the first byte."""
    if size < fixed[1]:
        return bytes((fixed[0] | size,))
    for code, width in codes:
        if size < 1 << (8 * width):
            return bytes((code,)) + size.to_bytes(width, "big")
    raise ValueError("too large")


def _packed(value: Any, depth: int = 0) -> bytes:
    if isinstance(value, bool):
        return b"\xc3" if value else b"\xc2"
    if isinstance(value, bytes):
        return _head(len(value), (0xA0, 32), ((0xD9, 1), (0xDA, 2), (0xDB, 4))) + value
    if isinstance(value, float):
        single = struct.pack(">f", value) if abs(value) < 3e38 else b""
        if single and struct.unpack(">f", single)[0] == value:
            return b"\xca" + single
        return b"\xcb" + struct.pack(">d", value)
    if isinstance(value, int):
        return _packed_integer(value)
    if value is None or lua.lua_type(value) != "table" or depth >= DEEPEST:
        return b"\xc0"
    items = dict(value.items())
    if items and set(items) == set(range(1, len(items) + 1)):
        parts = b"".join(_packed(items[n], depth + 1) for n in range(1, len(items) + 1))
        return _head(len(items), (0x90, 16), ((0xDC, 2), (0xDD, 4))) + parts
    parts = b"".join(_packed(key, depth + 1) + _packed(one, depth + 1) for key, one in items.items())
    return _head(len(items), (0x80, 16), ((0xDE, 2), (0xDF, 4))) + parts


def _packed_integer(value: int) -> bytes:
    if 0 <= value < 128:
        return bytes((value,))
    if -32 <= value < 0:
        return bytes((value & 0xFF,))
    codes = ((0xCC, 1), (0xCD, 2), (0xCE, 4), (0xCF, 8)) if value > 0 else ((0xD0, 1), (0xD1, 2), (0xD2, 4), (0xD3, 8))
    for code, width in codes:
        bits = 8 * width
        if value >> bits == 0 if value > 0 else value >= -(1 << (bits - 1)):
            return bytes((code,)) + value.to_bytes(width, "big", signed=value < 0)
    raise ValueError("too large")


class _Reader:
    """Takes values from bytes."""

    def __init__(self, data: bytes, table: Table) -> None:
        self.data, self.table, self.place = data, table, 0

    def take(self, size: int) -> bytes:
        part = self.data[self.place : self.place + size]
        if len(part) < size:
            raise ValueError("Missing bytes in input.")
        self.place += size
        return part

    def number(self, width: int, signed: bool = False) -> int:
        return int.from_bytes(self.take(width), "big", signed=signed)

    def value(self) -> Any:
        code = self.number(1)
        if code < 0x80:
            return code
        if code >= 0xE0:
            return code - 256
        if code < 0x90:
            return self.map(code & 15)
        if code < 0xA0:
            return self.array(code & 15)
        if code < 0xC0:
            return self.take(code & 31)
        return self.long(code)

    def long(self, code: int) -> Any:
        match code:
            case 0xC0:
                return None
            case 0xC2 | 0xC3:
                return code == 0xC3
            case 0xCA:
                return struct.unpack(">f", self.take(4))[0]
            case 0xCB:
                return struct.unpack(">d", self.take(8))[0]
            case 0xCC | 0xCD | 0xCE | 0xCF:
                return self.number(1 << (code - 0xCC))
            case 0xD0 | 0xD1 | 0xD2 | 0xD3:
                return self.number(1 << (code - 0xD0), signed=True)
            case 0xD9 | 0xDA | 0xDB:
                return self.take(self.number(1 << (code - 0xD9)))
            case 0xC4 | 0xC5 | 0xC6:
                return self.take(self.number(1 << (code - 0xC4)))
            case 0xDC | 0xDD:
                return self.array(self.number(2 << (code - 0xDC)))
            case 0xDE | 0xDF:
                return self.map(self.number(2 << (code - 0xDE)))
        raise ValueError("Bad data format in input.")

    def array(self, size: int) -> Any:
        return self.table([self.value() for _ in range(size)])

    def map(self, size: int) -> Any:
        return self.table({self.value(): self.value() for _ in range(size)})


def _pack(table: Table, *values: Any) -> tuple[bytes]:
    if not values:
        raise ValueError("bad argument #0 to 'pack' (MessagePack pack needs input.)")
    return (b"".join(_packed(value) for value in values),)


def _unpack(table: Table, data: bytes) -> Iterator[Any]:
    reader = _Reader(data, table)
    while reader.place < len(data):
        yield reader.value()


def _unpack_some(table: Table, data: bytes, limit: int = 1, offset: int = 0) -> list[Any]:
    reader = _Reader(data, table)
    reader.place = offset
    values: list[Any] = []
    while len(values) < limit and reader.place < len(data):
        values.append(reader.value())
    return [reader.place if reader.place < len(data) else -1, *values]


def _unpack_one(table: Table, data: bytes, offset: int = 0) -> list[Any]:
    return _unpack_some(table, data, 1, offset)


# --- struct

_PART = re.compile(rb"([<>=!]|[bBhHlLTfdxsc]|[iI]|\s)([0-9]*)")
_WIDTHS = {b"b": 1, b"h": 2, b"l": 8, b"t": 8, b"i": 4}


def _parts(layout: bytes) -> Iterator[tuple[bytes, int | None, str]]:
    order, place = "<", 0
    while place < len(layout):
        found = _PART.match(layout, place)
        if found is None:
            raise ValueError(f"invalid format option '{chr(layout[place])}'")
        place = found.end()
        code, size = found[1], int(found[2]) if found[2] else None
        if code in b"<>":
            order = code.decode()
        elif code not in b"=!" and not code.isspace():
            yield code, size, order


def _width(code: bytes, size: int | None) -> int:
    width = size if size is not None and code in b"iI" else _WIDTHS[code.lower()]
    if not 1 <= width <= 32:
        raise ValueError(f"integral size {width} is larger than limit of 32")
    return width


def _struct_pack(table: Table, layout: bytes, *values: Any) -> tuple[bytes]:
    rest = iter(values)
    out = b""
    for code, size, order in _parts(layout):
        if code == b"x":
            out += b"\0"
            continue
        value = next(rest, None)
        if value is None:
            raise ValueError("bad argument to 'pack' (no value)")
        if code in b"fd":
            out += struct.pack(order + code.decode(), value)
        elif code == b"s":
            out += value + b"\0"
        elif code == b"c":
            out += value if size == 0 else value[: size or 1]
        else:
            width = _width(code, size)
            out += (int(value) & ((1 << 8 * width) - 1)).to_bytes(width, "big" if order == ">" else "little")
    return (out,)


def _struct_unpack(table: Table, layout: bytes, data: bytes, start: int = 1) -> list[Any]:
    values: list[Any] = []
    place = int(start) - 1
    for code, size, order in _parts(layout):
        if code == b"s":
            end = data.index(b"\0", place)
            values.append(data[place:end])
            place = end + 1
            continue
        if code == b"c" and size == 0:
            size = values.pop()
        width = {b"x": 1, b"f": 4, b"d": 8}.get(code) or (size or 1 if code == b"c" else _width(code, size))
        part = data[place : place + width]
        if len(part) < width:
            raise ValueError("data string too short")
        place += width
        if code in b"fd":
            values.append(struct.unpack(order + code.decode(), part)[0])
        elif code == b"c":
            values.append(part)
        elif code != b"x":
            values.append(int.from_bytes(part, "big" if order == ">" else "little", signed=code.islower()))
    return [*values, place + 1]


def _struct_size(table: Table, layout: bytes) -> tuple[int]:
    sizes = {b"x": 1, b"f": 4, b"d": 8}
    return (sum(sizes.get(c) or (n or 1 if c == b"c" else _width(c, n)) for c, n, _ in _parts(layout)),)


PACKING: dict[str, Callable[..., Any]] = {
    "msgpack_pack": _pack,
    "msgpack_unpack": _unpack,
    "msgpack_unpack_one": _unpack_one,
    "msgpack_unpack_limit": _unpack_some,
    "struct_pack": _struct_pack,
    "struct_unpack": _struct_unpack,
    "struct_size": _struct_size,
}
"""The functions, each with the maker of tables as its first argument."""
