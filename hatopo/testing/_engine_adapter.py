"""The commands that fakeredis answers: decides how they are called, and what their results are as replies."""

from __future__ import annotations

import itertools
from typing import Any

import redis
from fakeredis import FakeServer
from fakeredis import _msgs as messages
from fakeredis._commands import SUPPORTED_COMMANDS, Signature
from fakeredis._helpers import SimpleError, SimpleString
from fakeredis._socket import FakeSocket

from hatopo.testing._engine_context import number
from hatopo.testing._engine_data import Data
from hatopo.testing._reply import OK, ErrorReply, Reply, Status

__all__ = ["SUPPORTED_COMMANDS", "VERSION", "Server", "Socket", "as_reply"]

VERSION = (7, 0, 15)
_ADAPTED_KINDS = (bytes, int, type(None))


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

    def speak(self, protocol: int) -> None:
        """Shape results for this protocol."""
        self._client_info["protocol_version"] = protocol

    def run(self, function: Any, signature: Signature, arguments: list[bytes], protocol: int) -> Reply:
        """One command; raises ErrorReply."""
        items: list[Any] = []
        try:
            applied = signature.apply(arguments, self._db, VERSION)
            if len(applied) == 1:
                result = applied[0]
            else:
                items = applied[1]
                result = function(*applied[0])
        except SimpleError as error:
            raise ErrorReply(error.value) from None
        finally:
            for item in items:
                if item._modified:
                    item.writeback(remove_empty_val=messages.FLAG_LEAVE_EMPTY_VAL not in signature.flags)
        kind = type(result)
        return result if kind is bytes or kind is int or result is None else as_reply(result, protocol)

    def _blocking(self, timeout: float | None, func: Any, shape: Any = None) -> Any:
        """No command of fakeredis may wait: those that do are ours."""
        result = func(True)
        return result if shape is None else shape(result)

    def close(self) -> None:
        """Nothing is registered anywhere."""


def as_reply(result: Any, protocol: int) -> Reply:
    """What a command of fakeredis returned, as a reply."""
    kind = type(result)
    if kind in _ADAPTED_KINDS:
        return result  # type: ignore[no-any-return]
    if kind is float:
        return result if protocol == 3 else number(result)
    if kind is list or kind is tuple:
        return [one if type(one) in _ADAPTED_KINDS else as_reply(one, protocol) for one in result]
    if kind is dict:
        if protocol == 3:
            return {as_reply(key, 3): as_reply(value, 3) for key, value in result.items()}
        return [as_reply(one, protocol) for one in itertools.chain.from_iterable(result.items())]
    if isinstance(result, SimpleString):
        return OK if result.value == b"OK" else Status(result.value.decode("utf-8", "surrogateescape"))
    if isinstance(result, SimpleError):
        return ErrorReply(result.value)
    if isinstance(result, str):
        return result.encode()
    return result  # type: ignore[no-any-return]
