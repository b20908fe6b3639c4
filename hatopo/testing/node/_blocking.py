"""Blocked clients: who waits for which key of a node, and in which order they are served.

First come, first served, for each key. A client that is blocked runs no other command; one that has gone takes
nothing with it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatopo.testing._reply import ErrorReply, Reply

if TYPE_CHECKING:
    from collections.abc import Callable

    from hatopo.testing.node._node import DataNode
    from hatopo.testing.server._session import Session
    from hatopo.testing.world._clock import Timer

Key = tuple[int, bytes]


class Blocked:
    """What a session waits for: keys, or anything else that somebody else ends."""

    def __init__(
        self,
        keys: tuple[Key, ...],
        retry: Callable[[bytes], Reply | None],
        expired: Callable[[], Reply],
    ) -> None:
        self.keys, self.retry, self.expired = keys, retry, expired
        self.timer: Timer | None = None


class Waiters:
    """The blocked sessions of a node."""

    def __init__(self, node: DataNode) -> None:
        self._node = node
        self.sessions: dict[Session, None] = {}
        self._by_key: dict[Key, dict[Session, None]] = {}

    def block(self, session: Session, blocked: Blocked, timeout: float) -> None:
        """Hold a session until its keys can serve it, or for `timeout` seconds (0: for ever)."""
        session.blocked = blocked
        session.hold()
        self.sessions[session] = None
        for key in blocked.keys:
            self._by_key.setdefault(key, {})[session] = None
        if timeout:
            when_awake = self._node.when_awake
            blocked.timer = self._node.world.data_after(timeout, when_awake, lambda: self._expire(session, blocked))

    def serve(self, key: Key) -> None:
        """A key has changed: serve who waits for it, in order, as far as it goes."""
        for session in [*self._by_key.get(key, ())]:
            try:
                reply = session.blocked.retry(key[1])
            except ErrorReply as error:
                reply = error
            if reply is not None:
                self.unblock(session, reply)

    def _expire(self, session: Session, blocked: Blocked) -> None:
        if session.blocked is blocked:
            self.unblock(session, blocked.expired())

    def unblock(self, session: Session, reply: Reply) -> None:
        """End a session's wait with this reply."""
        self.forget(session)
        session.answer(reply)
        self._node.world.after(0, session.release)

    def forget(self, session: Session) -> None:
        """A session waits no longer."""
        blocked, session.blocked = session.blocked, None
        self.sessions.pop(session, None)
        if blocked is None:
            return
        if blocked.timer is not None:
            blocked.timer.cancel()
        for key in blocked.keys:
            waiting = self._by_key.get(key, {})
            waiting.pop(session, None)
            if not waiting:
                self._by_key.pop(key, None)
