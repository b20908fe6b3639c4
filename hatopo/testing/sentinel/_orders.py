"""Orders: what a sentinel sends to change something, rather than to learn something."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hatopo.testing.sentinel._instances import Address, Instance, Master, Node
    from hatopo.testing.sentinel._server import SentinelServer


def spelled(one: Instance, command: str) -> str:
    """A command as the instance knows it: it may have been renamed there (SENTINEL SET rename-command)."""
    renamed = one.service.renamed
    return renamed.get(command.lower(), command) if renamed else command


def force_hello(sentinel: SentinelServer, master: Master) -> None:
    """Send everybody around a master a hello as soon as possible."""
    ago = sentinel.periods.publish_period + 1
    for one in (master, *master.replicas.values(), *master.sentinels.values()):
        one.last_pub -= ago


def send_slaveof(one: Node, address: Address | None) -> None:
    """Make a data node a master (None), or a replica of an address, and have its clients ask again who is master.

    The replies do not matter: what came of it is seen in INFO.
    """
    where = ("NO", "ONE") if address is None else (address[0], str(address[1]))
    call = one.line.call
    call(spelled(one, "MULTI"))
    call(spelled(one, "SLAVEOF"), *where)
    call(spelled(one, "CONFIG"), "REWRITE")
    call(spelled(one, "CLIENT"), "KILL", "TYPE", "normal")
    call(spelled(one, "CLIENT"), "KILL", "TYPE", "pubsub")
    call(spelled(one, "EXEC"))
