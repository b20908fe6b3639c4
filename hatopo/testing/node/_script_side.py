"""The node's side of a script: decides what it may do, before it begins and with each of its commands.

A script says in its first line what it needs (`#!lua flags=no-writes`); one that does not is checked as it goes. What
a script does is the engine's business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hatopo.testing._reply import ErrorReply, Reply
from hatopo.testing.acl._accounts import Denied
from hatopo.testing.commands import lookup
from hatopo.testing.node._states import MASTERDOWN, OUT_OF_MEMORY, check_sort, out_of_memory
from hatopo.testing.server._monitors import feed_monitors

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatopo.testing.node._node import DataNode
    from hatopo.testing.server._session import Session

STALE: Final = (
    "MASTERDOWN Link with MASTER is down, replica-serve-stale-data is set to 'no' and 'allow-stale' flag is not set on "
    "the script."
)
READONLY: Final = "READONLY You can not run script with write flag on readonly replica."
READING_ONLY: Final = "ERR Can not execute a script with write flag using *_ro command."
NO_MEMORY: Final = "OOM allow-oom flag is not set on the script, can not run it when used memory > 'maxmemory'"


class ScriptSide:
    """What a script of a client may do beyond data commands, and what it may not."""

    def __init__(self, node: DataNode, session: Session) -> None:
        self._node, self._session = node, session
        self._memory_is_full = False
        self._has_written = False
        """A script that has written may go on: it cannot be stopped in the middle."""

    def begin(self, flags: frozenset[str] | None, read_only: bool) -> None:
        """Raise what forbids a script; `flags`: what it has declared; `read_only`: it is run by EVAL_RO or so."""
        node = self._node
        self._has_written = False
        self._memory_is_full = out_of_memory(node) and "allow-oom" not in (flags or ())
        if flags is None:
            if node.is_stale:
                raise ErrorReply(MASTERDOWN)
            return
        if node.is_stale and "allow-stale" not in flags:
            raise ErrorReply(STALE)
        if "no-writes" not in flags:
            if node.replication.is_replica and node.config.replica_read_only:
                raise ErrorReply(READONLY)
            if read_only:
                raise ErrorReply(READING_ONLY)
            node.check_write()
            if self._memory_is_full:
                raise ErrorReply(NO_MEMORY)

    def check(self, name: str, args: Sequence[bytes]) -> None:
        """Raise what forbids a command of a script; what is not forbidden counts as called."""
        words = [*args]
        command = lookup(words, self._node.table)
        if self._node.is_stale and "stale" not in command.flags:
            raise ErrorReply("ERR Can not execute the command on a stale replica")
        try:
            self._node.check_rights(self._session, command, words, "lua")
        except Denied as denied:
            raise ErrorReply(denied.in_script) from None
        if "write" in command.flags and not self._has_written:
            self._node.check_write()
            if self._memory_is_full and "denyoom" in command.flags:
                raise ErrorReply(OUT_OF_MEMORY)
            self._has_written = True
        if command.name in ("sort", "sort_ro"):
            check_sort(self._node, self._session, words)
        self._node.calls[command.name] += 1
        if self._node.observing:
            feed_monitors(self._node, self._session, words, script=True)
            self._node.note_if_slow(self._session, command, words)

    def call(self, args: Sequence[bytes]) -> Reply:
        """Run a command of a script that is no data command, and was checked."""
        words = [*args]
        command = lookup(words, self._node.table)
        if "noscript" in command.flags:
            raise ErrorReply("ERR This Redis command is not allowed from script")
        handler = self._node.handlers.get(command.name)
        if handler is None:
            return self._node.perform(self._session, command, words)
        return handler(self._node, self._session, words)
