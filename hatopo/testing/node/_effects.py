"""What a command may do to data, or see of them: decides by its flags, and by what is queued where it is EXEC."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hatopo.testing.commands import Command
    from hatopo.testing.server._server import Server
    from hatopo.testing.server._session import Session

REPLICATED = {"eval", "evalsha", "fcall", "publish", "spublish", "pfcount"}
"""What may reach replicas without being a write."""


def may_write(server: Server, session: Session, command: Command, args: list[bytes]) -> bool:
    """Whether a command may change data, or reach replicas: what CLIENT PAUSE WRITE holds back."""
    if command.name == "exec":
        return any("write" in one.flags or one.name in REPLICATED for one, _ in session.queue or ())
    flags = server.traits(session, command, args)
    return "write" in flags or (flags is command.flags and command.name in REPLICATED)


def touches_keys(server: Server, session: Session, command: Command, args: list[bytes]) -> bool:
    """Whether a command reads data, or is one that `may_write`: what a client that monitors may not do."""
    if command.name == "exec" and any("readonly" in one.flags for one, _ in session.queue or ()):
        return True
    return "readonly" in command.flags or may_write(server, session, command, args)
