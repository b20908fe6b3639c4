"""Faults on commands: decide what goes wrong with a command that passed all checks, and how often.

A rule waits for its command; the first rule that fits is met, and used up after so many times. What can happen to
a server as a whole (kill, pause, cut) is the server's and the world's.
"""

from __future__ import annotations

import enum
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hatopo.testing._reply import ErrorReply, Reply, encode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatopo.testing.commands import Command
    from hatopo.testing.server._server import Server
    from hatopo.testing.server._session import Session
    from hatopo.testing.world._world import Party

REASON = "a fault drops the connection"


class Kind(enum.Enum):
    """What goes wrong."""

    FAIL = "fail"
    """An error is answered, and the command does not run."""
    DELAY = "delay"
    """The command runs later."""
    DROP = "drop"
    """The connection is closed, and the command does not run."""
    CUT = "cut"
    """The command runs; so many bytes of its reply are sent, and the connection is closed."""


@dataclass
class Fault:
    """One thing that goes wrong with a command; `met` says how often it has."""

    kind: Kind
    command: str
    """Its name, "client|list" for a subcommand; "*" is any command."""
    times: int | None
    """How often, of the commands that fit; None: for ever."""
    after: int
    """How many that fit are spared first."""
    error: str = ""
    """FAIL: what is answered."""
    delay: float = 0.0
    """DELAY: the seconds for which the command waits before it runs."""
    cut: int = 0
    """CUT: how many bytes of the reply are sent."""
    met: int = 0
    """How often it has happened: a fault that nobody meets tests nothing."""

    def __post_init__(self) -> None:
        if self.times is not None and _whole("times", self.times) < 1:
            raise ValueError(f"times must be positive, or None for ever, not {self.times}")
        for name in ("after", "cut"):
            if _whole(name, getattr(self, name)) < 0:
                raise ValueError(f"{name} cannot be negative: {getattr(self, name)}")
        if not (math.isfinite(self.delay) and self.delay >= 0):
            raise ValueError(f"a delay must be a finite number of seconds, and not negative: {self.delay}")
        if self.kind is Kind.FAIL and (not self.error.strip() or "\r" in self.error or "\n" in self.error):
            raise ValueError(f"an error must be one line that says something, not {self.error!r}")

    def fits(self, name: str) -> bool:
        """Whether this command meets the rule."""
        return self.command in ("*", name, name.partition("|")[0])


def _whole(name: str, number: int) -> int:
    if not isinstance(number, int):
        raise ValueError(f"{name} must be a whole number, not {number!r}")
    return number


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
        if rule.kind is Kind.DELAY:
            self._delay(rule, session, command, args)
        elif rule.kind is Kind.FAIL:
            error = ErrorReply(rule.error)
            self._server.rejected(session, args, error)  # with EXEC, a transaction ends
            self._server.answer(session, error)
        elif rule.kind is Kind.DROP:
            session.close(REASON)
        else:
            self._run_and_cut(rule, session, command, args)
        return True

    def _delay(self, rule: Fault, session: Session, command: Command, args: list[bytes]) -> None:
        """Hold the command back; it is checked again when it runs, for much may have changed."""
        server = self._server
        session.hold()
        session.postpone(lambda: server.again(session, command, args, spared=True))
        server.world.data_after(rule.delay, session.release)

    def _run_and_cut(self, rule: Fault, session: Session, command: Command, args: list[bytes]) -> None:
        """Run the command, and close the connection when it has been answered, which takes a while if it blocks."""
        session.peer = _Cut(session, rule.cut)
        self._server.answer(session, self._server.attempt(session, command, args))
        self._server.finish(session)
        if session.blocked is None:
            session.close(REASON)
        else:
            session.postpone(lambda: session.close(REASON))


class _Cut:
    """The peer of a session of whose answer only so many bytes arrive; confirmations of subscriptions are one, too."""

    def __init__(self, session: Session, left: int) -> None:
        self._session, self._peer, self._left = session, session.peer, left

    @property
    def party(self) -> Party:
        return self._peer.party

    def deliver(self, reply: Reply, protocol: int, limit: int | None = None) -> None:
        self._peer.deliver(reply, protocol, self._left)
        self._left = max(0, self._left - len(encode(reply, protocol)))

    def push(self, message: Sequence[Reply], protocol: int) -> None:
        if self._session.blocked is None:
            self.deliver(message, protocol)
        else:
            self._peer.push(message, protocol)  # of a subscription, while the command waits

    def ended(self, reason: str, *, flush: bool = True) -> None:
        self._peer.ended(reason, flush=flush)
