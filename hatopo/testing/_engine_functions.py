"""Libraries of functions: decides what FUNCTION loads, lists, dumps and takes back."""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hatopo.testing._engine_context import native
from hatopo.testing._engine_help import help_of
from hatopo.testing._engine_lua import lua
from hatopo.testing._engine_lua_source import without_tail_calls
from hatopo.testing._glob import matches
from hatopo.testing._reply import OK, ErrorReply, Members, Reply, Status

if TYPE_CHECKING:
    from hatopo.testing._engine import EngineSession
    from hatopo.testing._engine_scripts import Scripts

__all__ = ["Function", "Functions"]

_NAME = re.compile(rb"[A-Za-z0-9_]+")
_FLAGS = ("no-writes", "allow-oom", "allow-stale", "no-cluster", "allow-cross-slot-keys")
_BAD_NAME = (
    "ERR Library names can only contain letters, numbers, or underscores(_) and must be at least one character long"
)
_MARK = b"\x7fhatopo-functions\x01"


@dataclass(frozen=True, slots=True)
class Function:
    """One function."""

    name: str
    code: Any
    description: bytes | None
    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class Library:
    """What one FUNCTION LOAD has brought."""

    name: bytes
    code: bytes
    functions: dict[bytes, Function]


class Functions:
    """The libraries of one keyspace."""

    def __init__(self, scripts: Scripts) -> None:
        self._scripts = scripts
        self.libraries: dict[bytes, Library] = {}

    def get(self, name: bytes) -> Function | None:
        """A function by name."""
        for library in self.libraries.values():
            if name in library.functions:
                return library.functions[name]
        return None

    def load(self, code: bytes, replace: bool = False) -> bytes:
        """Load a library; its name."""
        name, body = _metadata(code)
        if name in self.libraries and not replace:
            raise ErrorReply(f"ERR Library '{name.decode()}' already exists")
        functions: dict[bytes, Function] = {}
        self._scripts.registering = _Registration(functions)
        try:
            outcome, problem = self._scripts.lua.load_library(without_tail_calls(body))
        finally:
            self._scripts.registering = None
        if outcome == "compiling":
            raise ErrorReply(f"ERR Error compiling function: {problem}")
        if outcome != "ok":
            raise ErrorReply(f"ERR Error registering functions: {problem}")
        if not functions:
            raise ErrorReply("ERR No functions registered")
        for other in self.libraries.values():
            for taken in functions.keys() & other.functions.keys():
                if other.name != name:
                    raise ErrorReply(f"ERR Function {taken.decode()} already exists")
        self.libraries[name] = Library(name, code, functions)
        return name

    def codes(self) -> list[bytes]:
        """The code of all libraries."""
        return [library.code for library in self.libraries.values()]

    def restore(self, codes: list[bytes], policy: bytes) -> None:
        """Load libraries, all of them or none."""
        before = dict(self.libraries)
        try:
            if policy == b"flush":
                self.libraries.clear()
            for code in codes:
                name = _metadata(code)[0]
                if policy == b"append" and name in self.libraries:
                    raise ErrorReply(f"ERR Library {name.decode()} already exists")
                self.load(code, replace=True)
        except ErrorReply:
            self.libraries = before
            raise

    def listed(self, pattern: bytes | None, with_code: bool) -> Reply:
        """What FUNCTION LIST shows."""
        shown: list[Reply] = []
        for library in self.libraries.values():
            if pattern is not None and not matches(pattern.lower(), library.name.lower()):
                continue
            entry: dict[Reply, Reply] = {
                b"library_name": library.name,
                b"engine": b"LUA",
                b"functions": [
                    {
                        b"name": name,
                        b"description": function.description,
                        b"flags": Members([Status(flag) for flag in _FLAGS if flag in function.flags]),
                    }
                    for name, function in library.functions.items()
                ],
            }
            if with_code:
                entry[b"library_code"] = library.code
            shown.append(entry)
        return shown


class _Registration:
    """redis.register_function, while a library is being loaded."""

    def __init__(self, functions: dict[bytes, Function]) -> None:
        self._functions = functions

    def __call__(self, count: int, *values: Any) -> None:
        if count == 1:
            if lua.lua_type(values[0]) != "table":
                raise ErrorReply(
                    "ERR calling redis.register_function with a single argument is only applicable to Lua table "
                    "(representing named arguments)."
                )
            self._named(dict(values[0].items()))
        elif count == 2:
            if not isinstance(values[0], bytes):
                raise ErrorReply("ERR first argument to redis.register_function must be a string")
            if lua.lua_type(values[1]) != "function":
                raise ErrorReply("ERR second argument to redis.register_function must be a function")
            self._add(values[0], values[1], None, frozenset())
        else:
            raise ErrorReply("ERR wrong number of arguments to redis.register_function")

    def _named(self, options: dict[Any, Any]) -> None:
        for key in options:
            if key not in (b"function_name", b"description", b"callback", b"flags"):
                raise ErrorReply("ERR unknown argument given to redis.register_function")
        name, code = options.get(b"function_name"), options.get(b"callback")
        if b"function_name" in options and not isinstance(name, bytes):
            raise ErrorReply("ERR function_name argument given to redis.register_function must be a string")
        if b"description" in options and not isinstance(options[b"description"], bytes):
            raise ErrorReply("ERR description argument given to redis.register_function must be a string")
        if b"callback" in options and lua.lua_type(code) != "function":
            raise ErrorReply("ERR callback argument given to redis.register_function must be a function")
        flags = options.get(b"flags")
        if b"flags" in options and lua.lua_type(flags) != "table":
            raise ErrorReply(
                "ERR flags argument to redis.register_function must be a table representing function flags"
            )
        if name is None:
            raise ErrorReply("ERR redis.register_function must get a function name argument")
        if code is None:
            raise ErrorReply("ERR redis.register_function must get a callback argument")
        given = [] if flags is None else [str(flag, "utf-8", "replace") for flag in flags.values()]
        if any(flag not in _FLAGS for flag in given):
            raise ErrorReply("ERR unknown flag given")
        self._add(name, code, options.get(b"description"), frozenset(given))

    def _add(self, name: bytes, code: Any, description: bytes | None, flags: frozenset[str]) -> None:
        if not _NAME.fullmatch(name):
            raise ErrorReply(_BAD_NAME)
        if name in self._functions:
            raise ErrorReply("ERR Function already exists in the library")
        self._functions[name] = Function(name.decode(), code, description, flags)


def _metadata(code: bytes) -> tuple[bytes, bytes]:
    """The name of a library, and its code with the first line emptied."""
    line, newline, rest = code.partition(b"\n")
    if not code.startswith(b"#!"):
        raise ErrorReply("ERR Missing library metadata")
    if not newline:
        raise ErrorReply("ERR Invalid library metadata")
    words = line[2:].split()
    name = None
    for word in words[1:]:
        if not word.lower().startswith(b"name="):
            raise ErrorReply(f"ERR Invalid metadata value given: {word.decode('utf-8', 'replace')}")
        if name is not None:
            raise ErrorReply("ERR Invalid metadata value, name argument was given multiple times")
        name = word[5:]
    if name is None:
        raise ErrorReply("ERR Library name was not given")
    if not _NAME.fullmatch(name):
        raise ErrorReply(_BAD_NAME)
    engine = words[0] if words else b""
    if engine.lower() != b"lua":
        raise ErrorReply(f"ERR Engine '{engine.decode('utf-8', 'replace')}' not found")
    return name, b"\n" + rest


def _payload(codes: list[bytes]) -> bytes:
    body = _MARK + json.dumps([code.decode("latin-1") for code in codes]).encode()
    return body + hashlib.sha256(body).digest()[:8]


def _codes(payload: bytes) -> list[bytes]:
    body = payload[:-8]
    if not body.startswith(_MARK) or hashlib.sha256(body).digest()[:8] != payload[-8:]:
        raise ErrorReply("ERR DUMP payload version or checksum are wrong")
    return [str(code).encode("latin-1") for code in json.loads(body[len(_MARK) :])]


@native("function")
def function(session: EngineSession, args: list[bytes]) -> Reply:
    functions, rest = session.keyspace.functions, args[2:]
    match args[1].lower():
        case b"load":
            for option in rest[:-1]:
                if option.lower() != b"replace":
                    raise ErrorReply(f"ERR Unknown option given: {option.decode('utf-8', 'replace')}")
            return functions.load(rest[-1], len(rest) > 1)
        case b"delete":
            if functions.libraries.pop(rest[0], None) is None:
                raise ErrorReply("ERR Library not found")
            return OK
        case b"flush":
            if len(rest) > 1 or (rest and rest[0].lower() not in (b"sync", b"async")):
                raise ErrorReply("ERR FUNCTION FLUSH only supports SYNC|ASYNC option")
            functions.libraries.clear()
            return OK
        case b"list":
            return _list(functions, rest)
        case b"dump":
            return _payload(functions.codes())
        case b"restore":
            policy = rest[1].lower() if len(rest) > 1 else b"append"
            if policy not in (b"append", b"replace", b"flush"):
                raise ErrorReply("ERR Wrong restore policy given, value should be either FLUSH, APPEND or REPLACE.")
            functions.restore(_codes(rest[0]), policy)
            return OK
    return _other(functions, args[1])


def _list(functions: Functions, rest: list[bytes]) -> Reply:
    pattern, with_code, index = None, False, 0
    while index < len(rest):
        option = rest[index].lower()
        if option == b"withcode" and not with_code:
            with_code = True
        elif option == b"libraryname" and pattern is None:
            if index + 1 == len(rest):
                raise ErrorReply("ERR library name argument was not given")
            index += 1
            pattern = rest[index]
        else:
            raise ErrorReply(f"ERR Unknown argument {rest[index].decode('utf-8', 'replace')}")
        index += 1
    return functions.listed(pattern, with_code)


def _other(functions: Functions, subcommand: bytes) -> Reply:
    match subcommand.lower():
        case b"stats":
            counts: dict[Reply, Reply] = {
                b"libraries_count": len(functions.libraries),
                b"functions_count": sum(len(one.functions) for one in functions.libraries.values()),
            }
            return {b"running_script": None, b"engines": {b"LUA": counts}}
        case b"kill":
            raise ErrorReply("NOTBUSY No scripts in execution right now.")
        case b"help":
            return help_of("function")
    raise ErrorReply(f"ERR unknown subcommand '{subcommand.decode('utf-8', 'replace')}'. Try FUNCTION HELP.")
