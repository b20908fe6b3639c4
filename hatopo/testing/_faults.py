"""Faults on commands: decide what goes wrong with a command that passed all checks, and how often.

A rule waits for its command; the first rule that fits is met, and used up after so many times. What can happen to
a server as a whole (kill, pause, cut) is the server's and the world's.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hatopo.testing._reply import NO_REPLY, ErrorReply

if TYPE_CHECKING:
    from hatopo.testing._commands import Command
    from hatopo.testing._server import Server
    from hatopo.testing._session import Session


@dataclass
class Fault:
    """One thing that goes wrong with a command; `met` says how often it has."""

    command: str
    """Its name, "client|list" for a subcommand; "*" is any command."""
    times: int | None
    """How often, of the commands that fit; None: for ever."""
    after: int
    """How many that fit are spared first."""
    error: str = ""
    """Answered instead of running the command."""
    delay: float = 0.0
    """Seconds for which the command waits before it runs."""
    close: bool = False
    """The connection is closed instead of a reply."""
    execute: bool = True
    """Whether the command runs, where the connection is closed."""
    cut: int = 0
    """Bytes of the reply that are sent before the connection is closed."""
    met: int = 0
    """How often it has happened: a fault that nobody meets tests nothing."""

    def __post_init__(self) -> None:
        if self.times is not None and self.times < 1:
            raise ValueError(f"times must be positive, or None for ever, not {self.times}")
        for name in ("after", "delay", "cut"):
            if getattr(self, name) < 0:
                raise ValueError(f"{name} cannot be negative: {getattr(self, name)}")

    def fits(self, name: str) -> bool:
        """Whether this command meets the rule."""
        return self.command in ("*", name, name.partition("|")[0])


class Faults:
    """The rules of one server."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self.rules: list[Fault] = []

    def add(self, rule: Fault) -> Fault:
        """Let a rule apply from now on."""
        self.rules.append(rule)
        self._server.update_guard()
        return rule

    def clear(self) -> None:
        """Nothing goes wrong any more."""
        self.rules.clear()
        self._server.update_guard()

    def _next(self, name: str) -> Fault | None:
        for rule in self.rules:
            if rule.fits(name):
                if rule.after > 0:
                    rule.after -= 1
                    continue
                rule.met += 1
                if rule.times is not None and rule.met >= rule.times:
                    self.rules.remove(rule)
                    self._server.update_guard()
                return rule
        return None

    def meet(self, session: Session, command: Command, args: list[bytes]) -> bool:
        """Let the command meet what waits for it; False: nothing does, run it."""
        rule = self._next(command.name)
        if rule is None:
            return False
        if rule.delay:
            self._delay(rule, session, command, args)
            return True
        if rule.error:
            error = ErrorReply(rule.error)
            self._server.rejected(session, args, error)  # with EXEC, a transaction ends
            self._server.count_error(error)
            session.answer(error)
        elif not rule.execute:
            session.close("a fault drops the connection")
        else:
            self._execute_and_close(rule, session, command, args)
        return True

    def _delay(self, rule: Fault, session: Session, command: Command, args: list[bytes]) -> None:
        session.hold()

        def go_on() -> None:
            if not session.closed and self._server.running:
                reply = self._server.attempt(session, command, args)
                if reply is not NO_REPLY:
                    session.answer(reply)
                self._server.finish(session)
            session.release()

        self._server.world.data_after(rule.delay, self._server.when_awake, go_on)

    def _execute_and_close(self, rule: Fault, session: Session, command: Command, args: list[bytes]) -> None:
        reply = self._server.attempt(session, command, args)
        if rule.cut and reply is not NO_REPLY:
            session.answer(reply, rule.cut)
        self._server.finish(session)
        session.close("a fault drops the connection")
