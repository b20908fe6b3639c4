"""A connection in the hands of foreign code (PubSub, Monitor, kombu): redis-py's own methods, with a count beside.

Counts the replies that are owed, so that a connection with one that nobody has read is not used again.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import redis.exceptions as rx

from hatopo.connection._edge import RedisPart

UNKNOWN = 1_000_000
"""More replies than anybody reads."""


class Abroad(RedisPart):
    """What redis-py's connections do for foreign code.

    Attributes:
        abroad: it is lent to foreign code.
        owed: replies that have not been read.
    """

    abroad: bool
    owed: int
    _packed: int  # commands in what was packed last
    _slice: float

    def lend_to_foreign_code(self) -> None:
        """From now on redis-py's own methods read from it, with the whole `socket_timeout` per system call."""
        self.abroad = True
        if self._sock is not None:
            self._sock.settimeout(self.socket_timeout)

    def take_back(self) -> bool:
        """Ends what `lend_to_foreign_code` began; False if it had not, or if somebody else was faster."""
        was_abroad: bool = self.__dict__.pop("abroad", False)
        if self._sock is not None and was_abroad:
            self._sock.settimeout(self._slice)
        return was_abroad

    def pack_command(self, *args: Any) -> Any:
        """redis-py's."""
        self._packed = 1
        return super().pack_command(*args)

    def pack_commands(self, commands: Iterable[Any]) -> Any:
        """redis-py's."""
        listed = list(commands)
        packed = super().pack_commands(listed)
        self._packed = len(listed)
        return packed

    def send_command(self, *args: Any, **kwargs: Any) -> None:
        """redis-py's."""
        self.send_packed_command(self.pack_command(*args), check_health=kwargs.get("check_health", True))

    def send_packed_command(self, command: Any, check_health: bool = True) -> None:
        """redis-py's."""
        count, self._packed = self._packed, UNKNOWN
        super().send_packed_command(command, check_health)
        self.owed += count

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """redis-py's."""
        try:
            reply = super().read_response(*args, **kwargs)
        except rx.ResponseError:
            self.owed -= 1
            raise
        self.owed -= 1
        return reply
