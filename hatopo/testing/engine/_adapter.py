"""The commands that fakeredis answers: decides how they are called, and what their results are as replies.

Where its errors have other words than those of Redis 7.0.15, they are put right here, by tables.
"""

from __future__ import annotations

import itertools
import re
from typing import Any

import redis
from fakeredis import FakeServer
from fakeredis import _msgs as messages
from fakeredis._commands import SUPPORTED_COMMANDS
from fakeredis._helpers import SimpleError, SimpleString
from fakeredis._socket import FakeSocket

from hatopo.testing._reply import OK, ErrorReply, Members, Reply, Status
from hatopo.testing.engine._context import NOT_INTEGER, SYNTAX, number
from hatopo.testing.engine._data import Data

__all__ = ["SUPPORTED_COMMANDS", "VERSION", "Server", "Socket", "as_reply"]

VERSION = (7, 0, 15)
_PLAIN_KINDS = (bytes, int, type(None))
_WRONG_NUMBER = "ERR wrong number of arguments for '{name}' command"
_MOST_WORDS = {
    **dict.fromkeys(("spop", "srandmember", "zpopmin", "zpopmax"), (2, SYNTAX)),
    **dict.fromkeys(("lpop", "rpop", "zrank", "zrevrank"), (2, _WRONG_NUMBER)),
}
"""How many arguments a command takes at most, where fakeredis would take more, and what is said of the rest."""
_WORDING = {
    messages.WRONG_ARGS_MSG7: _WRONG_NUMBER,
    messages.INVALID_MIN_MAX_STR_MSG: "ERR min or max not valid string range item",
    messages.BITOP_NOT_ONE_KEY_ONLY: messages.BITOP_NOT_ONE_KEY_ONLY + ".",
    messages.NUMKEYS_GREATER_THAN_ZERO_MSG: "ERR " + messages.NUMKEYS_GREATER_THAN_ZERO_MSG,
    messages.LPOS_RANK_CAN_NOT_BE_ZERO: "ERR " + messages.LPOS_RANK_CAN_NOT_BE_ZERO,
    messages.WRONG_ARGS_MSG6.format("bitop"): SYNTAX,
    messages.XGROUP_BUSYGROUP: messages.XGROUP_BUSYGROUP.removeprefix("ERR "),
}
"""Errors of fakeredis, and their right words."""
_NO_NUMBER = dict.fromkeys(("spop", "zpopmin", "zpopmax"), messages.INDEX_NEGATIVE_ERROR_MSG)
"""What is said of an argument that is no number."""
_NAMED = re.compile(r"(ERR (?:invalid expire time in|at least 1 input key is needed for)) \w+")
_SETS = {"smembers", "sinter", "sunion", "sdiff", "spop"}
"""Commands that answer a set."""
_WITHOUT_CHANGE = {"sadd", "lpop", "rpop"}
"""Commands that have changed nothing if they answer 0 or nothing, though fakeredis tells a change."""


class Server(FakeServer):
    """What fakeredis thinks of as the server: only the databases and the cursors of scans matter."""

    def __init__(self, databases: list[Data]) -> None:
        super().__init__(version=VERSION)
        self.dbs = dict(enumerate(databases))


class Socket(FakeSocket):
    """One session of fakeredis, driven command by command, without its parser, its locks and its queue."""

    def __init__(self, server: Server) -> None:
        super().__init__(server, 0, client_class=redis.Redis)
        server.sockets.remove(self)

    def select(self, data: Data) -> None:
        """Work on this database."""
        self._db, self._db_num = data, data.number

    def speak(self, protocol: int, scripting: bool) -> None:
        """Shape results for this protocol, of the client or of a script."""
        self._client_info["resp"] = protocol
        self._script_resp = protocol if scripting else None

    def run(self, name: str, arguments: list[bytes]) -> Reply:
        """One command, "xgroup create" with its subcommand; raises ErrorReply."""
        signature = SUPPORTED_COMMANDS[name]
        if name in _MOST_WORDS and len(arguments) > _MOST_WORDS[name][0]:
            raise ErrorReply(_MOST_WORDS[name][1].format(name=name))
        items: list[Any] = []
        try:
            applied = signature.apply(arguments, self._db, VERSION)
            if len(applied) == 1:
                result = applied[0]
            else:
                items = applied[1]
                result = getattr(self, signature.func_name)(*applied[0])
                if not result and name in _WITHOUT_CHANGE:
                    items = []
        except SimpleError as error:
            raise ErrorReply(worded(error.value, name)) from None
        finally:
            for item in items:
                if item._modified:
                    item.writeback(remove_empty_val=messages.FLAG_LEAVE_EMPTY_VAL not in signature.flags)
        kind = type(result)
        if kind is bytes or kind is int or result is None:
            return result  # type: ignore[no-any-return]
        if kind is list and name in _SETS:
            return Members(result if name == "spop" else sorted(result))
        return as_reply(result, self._client_info["resp"])

    def close(self) -> None:
        """Nothing is registered anywhere."""


def worded(text: str, name: str) -> str:
    """An error of fakeredis as Redis 7.0.15 words it."""
    if text == NOT_INTEGER:
        return _NO_NUMBER.get(name, text)
    found = _NAMED.fullmatch(text)
    if found is not None:
        return f"{found[1]} '{name}' command"
    return _WORDING.get(text, text).format(name=name)


def as_reply(result: Any, protocol: int) -> Reply:
    """What a command of fakeredis returned, as a reply."""
    kind = type(result)
    if kind in _PLAIN_KINDS:
        return result  # type: ignore[no-any-return]
    if kind is float:
        return result if protocol == 3 else number(result)
    if kind is list or kind is tuple:
        return [one if type(one) in _PLAIN_KINDS else as_reply(one, protocol) for one in result]
    if kind is dict:
        if protocol == 3:
            return {as_reply(key, 3): as_reply(value, 3) for key, value in result.items()}
        return [as_reply(one, protocol) for one in itertools.chain.from_iterable(result.items())]
    if isinstance(result, SimpleString):
        return OK if result.value == b"OK" else Status(result.value.decode("utf-8", "surrogateescape"))
    if isinstance(result, str):
        return result.encode()
    return result  # type: ignore[no-any-return]
