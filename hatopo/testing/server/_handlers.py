"""Handlers: the functions that are commands, found by the command's name ("client|list").

A module of handlers makes a `Handlers` and decorates its functions with it; a server's table is the union of those
that it serves.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from hatopo.testing._reply import ErrorReply, Reply

if TYPE_CHECKING:
    from hatopo.testing.server._session import Session

Handler = Callable[[Any, "Session", list[bytes]], Reply]


class Handlers(dict[str, Handler]):
    """Commands by name."""

    def __call__(self, *names: str) -> Callable[[Handler], Handler]:
        """Decorate the function that is the command of these names."""

        def register(function: Handler) -> Handler:
            self.update(dict.fromkeys(names, function))
            return function

        return register


def integer(word: bytes, error: str = "ERR value is not an integer or out of range") -> int:
    """A number as the real server reads it."""
    if re.fullmatch(rb"0|-?[1-9][0-9]*", word) and -(2**63) <= int(word) < 2**63:
        return int(word)
    raise ErrorReply(error)


def text(word: bytes) -> str:
    """A word that is used as text; what is no UTF-8 survives."""
    return word.decode("utf-8", "surrogateescape")
