"""MONITOR: decides which commands are shown, and how; what is secret in a command is not, in the slow log neither."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hatopo.testing._reply import NO_REPLY, OK, ErrorReply, Reply, Status
from hatopo.testing.commands import lookup
from hatopo.testing.server._client_commands import address_of
from hatopo.testing.server._handlers import Handlers

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatopo.testing.server._server import Server
    from hatopo.testing.server._session import Session

commands = Handlers()

SCRIPTS: Final = {"eval", "eval_ro", "evalsha", "evalsha_ro", "fcall", "fcall_ro"}
"""What is shown before it runs, so that its commands come after it; all else is shown when it has run."""
REDACTED: Final = b"(redacted)"


@commands("monitor")
def monitor(server: Server, session: Session, args: list[bytes]) -> Reply:
    if session.replies_of_transaction is not None:
        raise ErrorReply("ERR MONITOR isn't allowed for DENY BLOCKING client")
    if session in server.monitors or session.kind == "replica":
        return NO_REPLY
    server.monitors.append(session)
    session.update_guard()
    server.update_guard()
    return OK


def quoted(word: bytes) -> str:
    """A word as MONITOR shows it."""
    marks = {ord(sign): "\\" + letter for sign, letter in zip('\\"\n\r\t\a\b', '\\"nrtab', strict=True)}
    return '"' + "".join(marks.get(c, chr(c) if 32 <= c < 127 else f"\\x{c:02x}") for c in word) + '"'


def redacted(args: Sequence[bytes]) -> list[bytes]:
    """A command without passwords."""
    name, shown = args[0].lower(), [*args]
    if name == b"auth":
        return [args[0], *[REDACTED] * (len(args) - 1)]
    if name == b"hello":
        for index, word in enumerate(args[2:], 2):
            if word.lower() == b"auth":
                shown[index + 1 : index + 3] = [REDACTED] * len(args[index + 1 : index + 3])
                break
    return shown


def feed_monitors(server: Server, session: Session, args: list[bytes], *, script: bool = False) -> None:
    """Show monitors a command; administration is not shown."""
    if not server.monitors:
        return
    command = lookup(args, server.table)
    if command.flags & {"admin", "skip_monitor"} and command.name not in SCRIPTS:
        return
    db = session.engine.db if session.engine is not None else 0
    source = "lua" if script else address_of(session)
    line = f"{server.world.data_now:.6f} [{db} {source}] {' '.join(map(quoted, redacted(args)))}"
    for one in [*server.monitors]:
        one.answer(Status(line))
