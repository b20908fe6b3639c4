"""Scripts: decides what EVAL and SCRIPT do, and what a command in a script may."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from hatopo.testing._reply import OK, ErrorReply, Reply
from hatopo.testing.commands import lookup
from hatopo.testing.engine._context import Blocked, integer, native
from hatopo.testing.engine._lua import Failure, Lua
from hatopo.testing.engine._lua_libs import Libraries
from hatopo.testing.engine._lua_source import without_tail_calls

if TYPE_CHECKING:
    from hatopo.testing.engine._engine import EngineSession

__all__ = ["Caller", "Scripts"]

_LOG = logging.getLogger("hatopo.testing.scripts")
_LEVELS = {0: logging.DEBUG, 1: logging.DEBUG, 2: logging.INFO, 3: logging.WARNING}
_FLAGS = {"no-writes", "allow-stale", "allow-oom", "no-cluster", "allow-cross-slot-keys"}
RUN_FROM_READ_ONLY = "ERR Write commands are not allowed from read-only scripts."


@dataclass(slots=True)
class Caller:
    """Who runs a script, and what the script may do."""

    session: EngineSession
    read_only: bool


@dataclass(frozen=True, slots=True)
class Script:
    """A script that has been compiled."""

    function: Any
    flags: frozenset[str] | None
    """What its first line declares; None if that declares nothing."""


class Scripts:
    """The scripts of one keyspace, and the Lua that they run in."""

    def __init__(self) -> None:
        self.caller: Caller | None = None
        self._scripts: dict[bytes, Script] = {}
        self._lua: Lua | None = None
        self._libraries: Libraries | None = None

    @property
    def lua(self) -> Lua:
        """The runtime; it is made for the first script."""
        if self._lua is None:
            self._lua = Lua(self._call, self._lib)
            self._libraries = Libraries(self._lua.table, self._lua.null)
        return self._lua

    # --- what the script calls

    def _call(self, words: Sequence[bytes]) -> Reply:
        caller = self.caller
        if caller is None:
            raise ErrorReply("ERR redis.call/pcall can only be called inside a script invocation")
        session = caller.session
        try:
            command = lookup(words)
        except ErrorReply as error:
            arity = error.text.startswith("ERR wrong number of arguments")
            raise ErrorReply(
                "ERR Wrong number of args calling Redis command from script"
                if arity
                else "ERR Unknown Redis command called from script"
            ) from None
        if "noscript" in command.flags:
            raise ErrorReply("ERR This Redis command is not allowed from script")
        if caller.read_only and "write" in command.flags:
            raise ErrorReply(RUN_FROM_READ_ONLY)
        session.host.check(command.name, words)
        self._lua_of(session)
        container, _, subcommand = command.name.partition("|")
        if session.keyspace.handles(container) and subcommand != "help":
            try:
                return session.perform(list(words))
            except Blocked as blocked:
                return blocked.at_once
            finally:
                session.keyspace.tell(session.db, words)
        return session.host.call(words)

    def _lua_of(self, session: EngineSession) -> None:
        """Commands of a script answer in the protocol that the script has chosen."""
        if session.protocol != self.lua.resp:
            session.protocol = self.lua.resp

    def _lib(self, name: str, *values: Any) -> tuple[Any, ...]:
        match name:
            case "log":
                _log(values)
                return ()
            case "setresp":
                if len(values) != 1:
                    raise ErrorReply("ERR redis.setresp() requires one argument.")
                if values[0] not in (2, 3):
                    raise ErrorReply("ERR RESP version must be 2 or 3.")
                self.lua.resp = int(values[0])
                return ()
            case "sha1hex":
                if len(values) != 1:
                    raise ErrorReply("ERR wrong number of arguments")
                return (hashlib.sha1(_word(values[0])).hexdigest().encode(),)
            case "set_repl":
                _check_set_repl(values)
                return ()
            case "acl_check_cmd":
                return (self._may(values),)
        assert self._libraries is not None
        return self._libraries(name, *values)

    def _may(self, values: tuple[Any, ...]) -> bool:
        if not values:
            raise ErrorReply("ERR Please specify at least one argument for this redis.acl_check_cmd() call")
        words = [_word(value) for value in values]
        try:
            command = lookup(words)
        except ErrorReply:
            raise ErrorReply("ERR Invalid command passed to redis.acl_check_cmd()") from None
        try:
            if self.caller is not None:
                self.caller.session.host.check(command.name, words)
        except ErrorReply as error:
            return not error.text.startswith("NOPERM")
        return True

    # --- running

    @contextmanager
    def _running(self, session: EngineSession, read_only: bool) -> Iterator[None]:
        """Everything that holds while a script runs: time stands still, the session is the script's."""
        if self.caller is not None:
            raise ErrorReply("ERR This Redis command is not allowed from script")
        protocol, db = session.protocol, session.db
        self.caller = Caller(session, read_only)
        session.keyspace.freeze(True)
        session.scripting = True
        session.protocol = 2
        try:
            yield
        finally:
            self.caller = None
            session.scripting = False
            session.keyspace.freeze(False)
            session.protocol = protocol
            if session.db != db:
                session.db = db

    def evaluate(self, session: EngineSession, sha: bytes, args: list[bytes], read_only: bool) -> Reply:
        """Run a script that is known by its digest; `args` from the number of keys on."""
        script = self._scripts.get(sha.lower())
        if script is None:
            raise ErrorReply("NOSCRIPT No matching script. Please use EVAL.")
        keys, values = keys_and_values(args)
        session.host.begin(script.flags, read_only)
        with self._running(session, read_only or "no-writes" in (script.flags or ())):
            result = self.lua.run(script.function, keys, values)
        return described(result, sha.lower().decode())

    def declared(self, word: bytes, *, by_digest: bool) -> frozenset[str] | None:
        """The flags that a script declares, by its code or its digest; None if it declares none or makes no sense."""
        if by_digest:
            script = self._scripts.get(word.lower())
            return None if script is None else script.flags
        try:
            return _shebang(word)[0]
        except ErrorReply:
            return None

    def load(self, code: bytes) -> bytes:
        """Compile a script unless it is known; its digest."""
        sha = hashlib.sha1(code).hexdigest().encode()
        if sha not in self._scripts:
            flags, body = _shebang(code)
            function, problem = self.lua.compile(without_tail_calls(body), b"@user_script")
            if function is None:
                raise ErrorReply(f"ERR Error compiling script (new function): {problem}")
            self._scripts[sha] = Script(function, flags)
        return sha

    def known(self, sha: bytes) -> bool:
        """Whether a script has been loaded."""
        return sha.lower() in self._scripts

    def flush(self) -> None:
        """Forget all scripts."""
        self._scripts.clear()


def described(result: Reply | Failure, name: str) -> Reply:
    """A result, or the error of a script that has failed."""
    if isinstance(result, Failure):
        where = f", on {result.source}:{result.line}." if result.source is not None else ""
        return ErrorReply(f"{result.text} script: {name}{where}")
    return result


def keys_and_values(args: list[bytes]) -> tuple[list[bytes], list[bytes]]:
    """KEYS and ARGV of a request, from the number of keys on."""
    count = integer(args[0])
    if count > len(args) - 1:
        raise ErrorReply("ERR Number of keys can't be greater than number of args")
    if count < 0:
        raise ErrorReply("ERR Number of keys can't be negative")
    return args[1 : count + 1], args[count + 1 :]


def _shebang(code: bytes) -> tuple[frozenset[str] | None, bytes]:
    """The flags in the first line, and the script with that line emptied; None: the line is no such line."""
    if not code.startswith(b"#!"):
        return None, code
    line, newline, rest = code.partition(b"\n")
    if not newline:
        raise ErrorReply("ERR Invalid script shebang")
    words = line.decode("utf-8", "surrogateescape").split()
    if words[0] != "#!lua":
        raise ErrorReply(f"ERR Unexpected engine in script shebang: {words[0]}")
    flags: set[str] = set()
    for word in words[1:]:
        if not word.startswith("flags="):
            raise ErrorReply(f"ERR Unknown lua shebang option: {word}")
        for flag in filter(None, word[6:].split(",")):
            if flag not in _FLAGS:
                raise ErrorReply(f"ERR Unexpected flag in script shebang: {flag}")
            flags.add(flag)
    return frozenset(flags), b"\n" + rest


def _word(value: Any) -> bytes:
    return value if isinstance(value, bytes) else b"%.17g" % value if isinstance(value, float) else str(value).encode()


def _check_set_repl(values: tuple[Any, ...]) -> None:
    """Everything is replicated, but what is asked for has to make sense."""
    if len(values) != 1:
        raise ErrorReply("ERR redis.set_repl() requires two arguments.")
    if values[0] not in (0, 1, 2, 3):
        raise ErrorReply("ERR Invalid replication flags. Use REPL_AOF, REPL_REPLICA, REPL_ALL or REPL_NONE.")


def _log(values: tuple[Any, ...]) -> None:
    if len(values) < 2:
        raise ErrorReply("ERR redis.log() requires two arguments or more.")
    if isinstance(values[0], bool) or not isinstance(values[0], (int, float)):
        raise ErrorReply("ERR First argument must be a number (log level).")
    if values[0] not in _LEVELS:
        raise ErrorReply("ERR Invalid debug level.")
    text = " ".join(_word(value).decode("utf-8", "replace") for value in values[1:])
    _LOG.log(_LEVELS[int(values[0])], "%s", text)


# --- the commands


@native("eval", "eval_ro", "evalsha", "evalsha_ro")
def eval_(session: EngineSession, args: list[bytes]) -> Reply:
    name, scripts = args[0].lower(), session.keyspace.scripts
    sha = args[1]
    if not name.startswith(b"evalsha"):
        keys_and_values(args[2:])
        sha = scripts.load(args[1])
    return scripts.evaluate(session, sha, args[2:], name.endswith(b"_ro"))


@native("script")
def script(session: EngineSession, args: list[bytes]) -> Reply:
    scripts = session.keyspace.scripts
    match args[1].lower():
        case b"load":
            return scripts.load(args[2])
        case b"exists":
            return [int(scripts.known(sha)) for sha in args[2:]]
        case b"flush":
            if len(args) > 3 or (len(args) == 3 and args[2].lower() not in (b"sync", b"async")):
                raise ErrorReply("ERR SCRIPT FLUSH only support SYNC|ASYNC option")
            scripts.flush()
            return OK
        case b"kill":
            raise ErrorReply("NOTBUSY No scripts in execution right now.")
        case b"debug":
            if args[2].lower() not in (b"yes", b"sync", b"no"):
                raise ErrorReply("ERR Use SCRIPT DEBUG YES/SYNC/NO")
            if args[2].lower() == b"no":
                return OK
            raise ErrorReply("ERR the embedded server has no debugger of scripts")
    raise ErrorReply(f"ERR unknown subcommand '{args[1].decode('utf-8', 'replace')}'. Try SCRIPT HELP.")
