"""A Lua that scripts may run in: decides what crosses between it and Python, and that nothing else does."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any, NamedTuple

import lupa.lua51 as lua

from hatopo.testing._reply import NULL_ARRAY, ErrorReply, Members, Reply, Status, Text
from hatopo.testing.engine._lua_prelude import PRELUDE

__all__ = ["Failure", "Lua", "lua"]

STEPS = 500
"""After so many million steps a script is stopped: nobody could stop it otherwise."""

SECONDS = 5.0
"""Or after so many seconds, at the end of the million steps that it is in."""

MEMORY = 1 << 19
"""The most kilobytes that scripts may hold."""


class Failure(NamedTuple):
    """How a script failed, and where."""

    text: str
    source: str | None
    line: int | None


def _deny(thing: object, name: object, setting: bool) -> Any:
    """Nothing of Python has attributes in Lua."""
    raise AttributeError("no access")


Answer = tuple[Any, ...]


class Lua:
    """One runtime, for all scripts of a keyspace."""

    def __init__(self, call: Callable[[Sequence[bytes]], Reply], lib: Callable[..., Answer]) -> None:
        self.resp = 2
        """The protocol that the running script has chosen."""
        self._call = call
        self._lib = lib
        self._steps, self._began = 0, 0.0
        self._runtime = lua.LuaRuntime(
            encoding=None,
            source_encoding="latin-1",
            unpack_returned_tuples=True,
            register_eval=False,
            register_builtins=False,
            attribute_filter=_deny,
        )
        prelude = self._runtime.compile(PRELUDE.encode())
        self._compile, self._run, self.null = prelude(self._ask, self._of_lib, self._watch, MEMORY)

    def table(self, values: Any) -> Any:
        """A table of a list or a dictionary."""
        return self._runtime.table_from(values)

    def compile(self, code: bytes, name: bytes) -> tuple[Any, str]:
        """The function that a script is, or None and what is wrong with it."""
        result = self._compile(code, name)
        if isinstance(result, tuple):
            return None, _text(result[1])
        return result, ""

    def run(self, function: Any, keys: Sequence[bytes], values: Sequence[bytes]) -> Reply | Failure:
        """Run a script with KEYS and ARGV."""
        self.resp, self._steps, self._began = 2, 0, monotonic()
        try:
            ok, *result = self._run(function, self.table(list(keys)), self.table(list(values)))
        except lua.LuaError as error:
            return Failure(f"ERR {error}", None, None)
        if not ok:
            text, source, line = (*result, None, None)[:3]
            return Failure(_text(text), None if source is None else _text(source), line)
        return self._reply(iter(list(result[0].values())))

    # --- from Lua to Python

    def _ask(self, *words: Any) -> Answer:
        try:
            reply = self._call([bytes(one) for one in words])
            if isinstance(reply, ErrorReply):
                return False, _bytes(reply.text)
            return True, self.value(reply)
        except ErrorReply as error:
            return False, _bytes(error.text)
        except Exception as error:
            return False, _bytes(f"ERR internal error of the embedded server: {error}")

    def _of_lib(self, name: bytes, *arguments: Any) -> Answer:
        try:
            return (True, *self._lib(name.decode(), *arguments))
        except ErrorReply as error:
            return False, _bytes(error.text)
        except Exception as error:
            return False, _bytes(str(error))

    def _watch(self, kilobytes: float) -> bytes | None:
        self._steps += 1
        if self._steps > STEPS or kilobytes > MEMORY or monotonic() - self._began > SECONDS:
            return b"ERR the embedded server stops scripts that take so long, or so much memory"
        return None

    def _reply(self, parts: Any) -> Reply:
        """The reply of a result that came flat."""
        kind = next(parts)
        match kind:
            case b"string" | b"big":
                return next(parts)  # type: ignore[no-any-return]
            case b"number":
                return _whole(next(parts))
            case b"boolean":
                truth = bool(next(parts))
                return truth if self.resp == 3 else 1 if truth else None
            case b"err":
                return ErrorReply(_text(next(parts)))
            case b"ok":
                return Status(_text(next(parts)))
            case b"double":
                return float(next(parts))
            case b"verbatim":
                return Text(_text(next(parts)))
            case b"list":
                return [self._reply(parts) for _ in range(next(parts))]
            case b"set":
                return Members([self._reply(parts) for _ in range(next(parts))])
            case b"map":
                return {self._reply(parts): self._reply(parts) for _ in range(next(parts))}
            case b"deep":
                return ErrorReply("ERR reached lua stack limit")
        return None

    # --- from Python to Lua

    def value(self, reply: Reply) -> Any:
        """A reply as a script gets it."""
        if isinstance(reply, bytes):
            return reply
        if isinstance(reply, bool):
            return reply if self.resp == 3 else int(reply)
        if isinstance(reply, int):
            return float(reply) if abs(reply) >= 2**53 else reply
        if reply is None or reply is NULL_ARRAY:
            return None if self.resp == 3 else False
        if isinstance(reply, Status):
            return self.table({b"ok": _bytes(reply)})
        if isinstance(reply, ErrorReply):
            return self.table({b"err": _bytes(reply.text)})
        if isinstance(reply, float):
            return self.table({b"double": reply}) if self.resp == 3 else b"%.17g" % reply
        if isinstance(reply, str):
            return _bytes(reply)
        return self._collection(reply)

    def _collection(self, reply: Any) -> Any:
        if isinstance(reply, dict):
            if self.resp == 3:
                return self.table({b"map": self.table({self.value(k): self.value(v) for k, v in reply.items()})})
            reply = [one for pair in reply.items() for one in pair]
        if isinstance(reply, Members) and self.resp == 3:
            return self.table({b"set": self.table({self.value(one): True for one in reply})})
        return self.table([self.value(one) for one in reply])


def _whole(value: float) -> int:
    """A number of Lua as an integer."""
    if value != value:
        return -(2**63)
    return max(-(2**63), min(2**63 - 1, int(value))) if abs(value) != float("inf") else -(2**63)


def _text(value: Any) -> str:
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)


def _bytes(value: str) -> bytes:
    return value.encode("utf-8", "surrogateescape")
