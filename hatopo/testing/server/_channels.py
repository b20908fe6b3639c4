"""Channels: who listens to what on one server, and who gets a message. It knows sessions, and no command."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatopo.testing._glob import matches

if TYPE_CHECKING:
    from hatopo.testing.server._session import Session


class Channels(dict[str, dict[bytes, "dict[Session, None]"]]):
    """By the command that listens (subscribe, psubscribe, ssubscribe): channels or patterns, and their hearers."""

    def __init__(self) -> None:
        super().__init__(subscribe={}, psubscribe={}, ssubscribe={})

    def subscribe(self, session: Session, command: str, channel: bytes) -> None:
        """Let a session hear a channel, or a pattern."""
        session.channels[command].add(channel)
        self[command].setdefault(channel, {})[session] = None

    def unsubscribe(self, session: Session, command: str, channel: bytes, *, keep_own: bool = False) -> None:
        """The end of `subscribe`; `keep_own`: the session, which ends, still knows of it."""
        if not keep_own:
            session.channels[command].discard(channel)
        heard = self[command].get(channel, {})
        heard.pop(session, None)
        if not heard:
            self[command].pop(channel, None)

    def publish(self, channel: bytes, message: bytes, kind: str) -> int:
        """Send a message ("message", or "smessage" of a shard) to all who listen; returns how many there were."""
        listening = "ssubscribe" if kind == "smessage" else "subscribe"
        hearers = [*self[listening].get(channel, ())]
        for session in hearers:
            session.push(kind.encode(), channel, message)
        count = len(hearers)
        for pattern, sessions in [*self["psubscribe"].items()] if kind == "message" else ():
            if matches(pattern, channel):
                for session in [*sessions]:
                    session.push(b"pmessage", pattern, channel, message)
                    count += 1
        return count
