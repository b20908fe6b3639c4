"""HELP of the commands that have subcommands: which these are, and no word about what they do.

It knows the tables of commands alone, and serves data nodes and sentinels.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from hatopo.testing._reply import Reply, Status
from hatopo.testing.commands import SENTINEL_TABLE, TABLE
from hatopo.testing.server._handlers import Handlers, text

if TYPE_CHECKING:
    from hatopo.testing.server._server import Server
    from hatopo.testing.server._session import Session

__all__ = ["commands", "subcommands_of"]

commands = Handlers()
_CONTAINERS = {name for table in (TABLE, SENTINEL_TABLE) for name in table if "help" in table[name].subcommands}
_CONTAINERS.discard("function")  # it is in the table, but the embedded server does not have it


def subcommands_of(container: str, names: Iterable[str]) -> Reply:
    """What HELP answers."""
    head = f"The embedded server knows these subcommands of {container.upper()}; the manual of Redis describes them:"
    return [Status(head), *(Status(name.upper()) for name in sorted(names))]


@commands(*(f"{name}|help" for name in _CONTAINERS))
def helps(server: Server, session: Session, args: list[bytes]) -> Reply:
    container = text(args[0]).lower()
    return subcommands_of(container, server.table[container].subcommands)
