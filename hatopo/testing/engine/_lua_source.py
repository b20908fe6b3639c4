"""The text of scripts: decides where a call would hide the line that it stands in.

In Redis `redis.call` is a function of C, ours is one of Lua: `return redis.call(...)` would leave no trace of the line
when the call fails. In brackets it is no tail call any more, and it has one result in any case.
"""

from __future__ import annotations

import re

__all__ = ["without_tail_calls"]

_TOKEN = re.compile(
    rb"--\[(=*)\[.*?\]\1\]|--[^\n]*|\[(=*)\[.*?\]\2\]"
    rb"""|"(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'"""
    rb"|\breturn\s+(?=(?:redis|cjson)\s*\.\s*\w+\s*\()|[()]",
    re.DOTALL,
)


def without_tail_calls(code: bytes) -> bytes:
    """The code with `return redis.f(...)` as `return (redis.f(...))`."""
    opened: list[int | None] = []
    pieces: list[tuple[int, bytes]] = []
    begun: int | None = None
    for found in _TOKEN.finditer(code):
        token = found[0]
        if token.startswith(b"return"):
            begun = found.end()
        elif token == b"(":
            opened.append(begun)
            begun = None
        elif token == b")" and opened:
            start = opened.pop()
            if start is not None:
                pieces += [(start, b"("), (found.end(), b")")]
    parts, last = [], 0
    for place, piece in sorted(pieces):
        parts += [code[last:place], piece]
        last = place
    return b"".join(parts) + code[last:]
