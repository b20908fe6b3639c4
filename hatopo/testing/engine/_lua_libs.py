"""The libraries of scripts: cjson, bit, math.random. Decides what their functions return, and reaches nothing else.

A library is asked as `library(name, *arguments)` with values of Lua, and returns a tuple of them or raises ValueError
with the message of the error in Lua.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import lupa.lua51 as lua

__all__ = ["Libraries"]

_ESCAPES = {34: b'\\"', 92: b"\\\\", 47: b"\\/", 8: b"\\b", 12: b"\\f", 10: b"\\n", 13: b"\\r", 9: b"\\t"}
_ESCAPES |= {code: b"\\u%04x" % code for code in (*range(32), 127) if code not in _ESCAPES}
DEEPEST = 1000
"""How far values may be nested in JSON."""


class Libraries:
    """The libraries of one runtime."""

    def __init__(self, table: Callable[[Any], Any], null: Any) -> None:
        self._table, self._null = table, null
        self._seed = 0x1234ABCD330E

    def __call__(self, name: str, *arguments: Any) -> tuple[Any, ...]:
        """What a function of a library returns."""
        if name.startswith("bit_"):
            return (bit(name[4:], *arguments),)
        match name:
            case "json_encode":
                self._one(arguments, "encode")
                return (self.encode(arguments[0], 0),)
            case "json_decode":
                self._one(arguments, "decode")
                return (self.decode(arguments[0]),)
            case "random":
                return (self._random(*arguments),)
            case "randomseed":
                self.seed(int(arguments[0]) if arguments else 0)
        return ()

    @staticmethod
    def _one(arguments: tuple[Any, ...], name: str) -> None:
        if len(arguments) != 1:
            raise ValueError(f"bad argument #1 to '{name}' (expected 1 argument)")

    # --- chance, the same for every run of a script

    def seed(self, value: int = 0) -> None:
        """Begin again."""
        self._seed = ((value & 0xFFFFFFFF) << 16) + 0x330E

    def _random(self, *limits: Any) -> Any:
        self._seed = (self._seed * 0x5DEECE66D + 0xB) & (2**48 - 1)
        share = (self._seed >> 17) % 0x7FFFFFFF / 0x7FFFFFFF
        if not limits:
            return share
        low, high = (1, int(limits[0])) if len(limits) == 1 else (int(limits[0]), int(limits[1]))
        if low > high:
            raise ValueError(f"bad argument #{len(limits)} to 'random' (interval is empty)")
        return math.floor(share * (high - low + 1)) + low

    # --- JSON

    def encode(self, value: Any, depth: int) -> bytes:
        """A value of Lua as cjson spells it."""
        if value is None or lua.lua_type(value) == "userdata":
            return b"null"
        if isinstance(value, bool):
            return b"true" if value else b"false"
        if isinstance(value, bytes):
            return b'"' + b"".join(_ESCAPES.get(code) or bytes((code,)) for code in value) + b'"'
        if isinstance(value, (int, float)):
            if not math.isfinite(value):
                raise ValueError("Cannot serialise number: must not be NaN or Inf")
            return b"%.14g" % value
        if lua.lua_type(value) != "table":
            raise ValueError(f"Cannot serialise {lua.lua_type(value)}: type not supported")
        if depth >= DEEPEST:
            raise ValueError(f"Cannot serialise, excessive depth ({depth + 1})")
        return self._encode_table(dict(value.items()), depth + 1)

    def _encode_table(self, items: dict[Any, Any], depth: int) -> bytes:
        if items and all(type(key) is int and key > 0 for key in items):
            size = max(items)
            if size > 10 and size > 2 * len(items):
                raise ValueError("Cannot serialise table: excessively sparse array")
            return b"[" + b",".join(self.encode(items.get(n), depth) for n in range(1, size + 1)) + b"]"
        parts = []
        for key, value in items.items():
            if isinstance(key, bool) or not isinstance(key, (bytes, int, float)):
                raise ValueError("Cannot serialise table: table key must be a number or string")
            name = key if isinstance(key, bytes) else b"%.14g" % key
            parts.append(self.encode(name, depth) + b":" + self.encode(value, depth))
        return b"{" + b",".join(parts) + b"}"

    def decode(self, text: Any) -> Any:
        """A value of Lua from JSON."""
        if isinstance(text, (int, float)):
            text = b"%.14g" % text
        if not isinstance(text, bytes):
            raise ValueError("bad argument #1 to 'decode' (string expected)")
        try:
            return self._to_lua(json.loads(text.decode("utf-8", "surrogateescape")), 0)
        except RecursionError:
            raise ValueError(f"Found too many nested data structures ({DEEPEST + 1})") from None
        except json.JSONDecodeError as error:
            at_end = not text.strip() or error.pos >= len(text.decode("utf-8", "surrogateescape"))
            found = "T_END" if at_end else "invalid token"
            raise ValueError(f"Expected value but found {found} at character {error.pos + 1}") from None

    def _to_lua(self, value: Any, depth: int) -> Any:
        if depth > DEEPEST:
            raise ValueError(f"Found too many nested data structures ({depth})")
        if value is None:
            return self._null
        if isinstance(value, str):
            return value.encode("utf-8", "surrogateescape")
        if isinstance(value, list):
            return self._table([self._to_lua(one, depth + 1) for one in value])
        if isinstance(value, dict):
            return self._table({self._to_lua(key, 0): self._to_lua(one, depth + 1) for key, one in value.items()})
        return float(value) if isinstance(value, int) and not isinstance(value, bool) and abs(value) > 2**53 else value


def _signed(value: float) -> int:
    """A number as 32 bits with a sign."""
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        raise ValueError("bad argument #1 (number expected)")
    bits = int(value) & 0xFFFFFFFF
    return bits - 2**32 if bits >= 2**31 else bits


def bit(name: str, *values: Any) -> Any:
    """A function of the library bit."""
    numbers = [_signed(value) for value in values]
    if not numbers:
        raise ValueError(f"bad argument #1 to '{name}' (number expected, got no value)")
    first, bits = numbers[0], numbers[0] & 0xFFFFFFFF
    by = numbers[1] & 31 if len(numbers) > 1 else 0
    match name:
        case "tobit":
            return first
        case "bnot":
            return _signed(~first)
        case "band" | "bor" | "bxor":
            for other in numbers[1:]:
                first = first & other if name == "band" else first | other if name == "bor" else first ^ other
            return _signed(first)
        case "lshift":
            return _signed(bits << by)
        case "rshift":
            return _signed(bits >> by)
        case "arshift":
            return _signed(first >> by)
        case "rol":
            return _signed(bits << by | bits >> (32 - by))
        case "ror":
            return _signed(bits >> by | bits << (32 - by))
        case "bswap":
            return _signed(int.from_bytes(bits.to_bytes(4, "little"), "big"))
    digits = numbers[1] if len(numbers) > 1 else 8
    text = f"{bits:08x}"[-min(abs(digits), 8) :] if digits else ""
    return (text.upper() if digits < 0 else text).encode()
