"""What stands in the way of a command on a data node: decides which of its flags count, and what they forbid now.

A command has the flags of the table; EXEC those of what is queued, and a script those that it declares. The node says
in which state it is; nothing is changed here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hatopo.testing._reply import ErrorReply, Reply
from hatopo.testing.node._info import out_of_memory
from hatopo.testing.server._handlers import Handlers
from hatopo.testing.server._monitors import SCRIPTS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatopo.testing.commands import Command
    from hatopo.testing.node._node import DataNode
    from hatopo.testing.server._session import Session

__all__ = ["LOADING", "MASTERDOWN", "OUT_OF_MEMORY", "check_sort", "commands", "out_of_memory", "traits"]

commands = Handlers()

MASTERDOWN: Final = "MASTERDOWN Link with MASTER is down and replica-serve-stale-data is set to 'no'."
LOADING: Final = "LOADING Redis is loading the dataset in memory"
OUT_OF_MEMORY: Final = "OOM command not allowed when used memory > 'maxmemory'."


def traits(node: DataNode, session: Session, command: Command, args: Sequence[bytes]) -> frozenset[str]:
    """The flags of a command, as far as they depend on what it is asked to do."""
    if command.name == "exec":
        queued = [one.flags for one, _ in session.queue or ()]
        some = {flag for flag in ("write", "denyoom") if any(flag in flags for flags in queued)}
        all_ = {flag for flag in ("stale", "loading") if all(flag in flags for flags in queued)}
        return frozenset(some | all_)
    if command.name in SCRIPTS:
        declared = node.keyspace.declared(command.name, args[1])
        if declared is not None:
            flags = {*command.flags} - {"write", "denyoom", "stale"}
            flags |= {"stale"} if "allow-stale" in declared else set()
            if "no-writes" not in declared:
                flags |= {"write"} if "allow-oom" in declared else {"write", "denyoom"}
            return frozenset(flags)
    return command.flags


def check_sort(node: DataNode, session: Session, args: Sequence[bytes]) -> None:
    """Raise where SORT would look into keys that its user may not read."""
    user = session.user
    if user is None or user.all_powerful:
        return
    index = 2
    while index < len(args):
        option = args[index].lower()
        outside = option == b"get" or (option == b"by" and b"*" in b"".join(args[index + 1 : index + 2]))
        if outside and not node.accounts.may_read_all(user, node.table["sort"], args):
            name = option.decode().upper()
            raise ErrorReply(f"ERR {name} option of SORT denied due to insufficient ACL permissions.")
        index += {b"limit": 3, b"by": 2, b"get": 2, b"store": 2}.get(option, 1)


@commands("sort", "sort_ro")
def sort(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    check_sort(node, session, args)
    return node.perform(session, node.table[args[0].decode().lower()], args)
