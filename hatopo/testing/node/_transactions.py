"""Transactions: MULTI, EXEC, DISCARD, WATCH. Over every command, because the queue is the server's own.

A watched key fails the transaction as soon as anybody writes it; who wrote, and why, does not matter here.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatopo.testing._reply import NULL_ARRAY, OK, ErrorReply, Replies, Reply
from hatopo.testing.server._handlers import Handlers

if TYPE_CHECKING:
    from hatopo.testing.engine._engine import Keyspace
    from hatopo.testing.node._node import DataNode
    from hatopo.testing.server._session import Session

commands = Handlers()

ABORTED = "EXECABORT Transaction discarded because of previous errors."


class Watches:
    """Who watches which keys of a node."""

    def __init__(self, keyspace: Keyspace) -> None:
        self._keyspace = keyspace
        self._by_key: dict[tuple[int, bytes], set[Session]] = {}

    def add(self, session: Session, key: tuple[int, bytes]) -> None:
        """Let a session watch a key of a database."""
        if key not in session.watched:
            session.watched[key] = self._keyspace.has_expired(*key)
            self._by_key.setdefault(key, set()).add(session)

    def touch(self, key: tuple[int, bytes]) -> None:
        """A key has been written, or was deleted as it had expired, which is news unless it already had at WATCH."""
        for session in self._by_key.get(key, ()):
            if session.watched[key] and not self._keyspace.holds(*key):
                session.watched[key] = False
            else:
                session.watch_failed = True

    def expired(self, session: Session) -> bool:
        """Whether a key has expired since the session began to watch it, and nobody has noticed yet."""
        return any(not had and self._keyspace.has_expired(*key) for key, had in session.watched.items())

    def touch_all(self) -> None:
        """All data has been replaced."""
        for key in self._by_key:
            self.touch(key)

    def clear(self, session: Session) -> None:
        """A session watches nothing any more."""
        for key in session.watched:
            sessions = self._by_key.get(key, set())
            sessions.discard(session)
            if not sessions:
                self._by_key.pop(key, None)
        session.watched.clear()
        session.watch_failed = False


def discard_transaction(node: DataNode, session: Session) -> None:
    """Forget what is queued and watched."""
    session.queue, session.queue_failed = None, False
    node.watches.clear(session)
    session.update_guard()


@commands("multi")
def multi(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    if session.queue is not None:
        raise ErrorReply("ERR MULTI calls can not be nested")
    session.queue = []
    session.update_guard()
    return OK


@commands("discard")
def discard(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    if session.queue is None:
        raise ErrorReply("ERR DISCARD without MULTI")
    discard_transaction(node, session)
    return OK


@commands("watch")
def watch(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    if session.queue is not None:
        raise ErrorReply("ERR WATCH inside MULTI is not allowed")
    for key in args[1:]:
        node.watches.add(session, (session.engine.db, key))
    return OK


@commands("unwatch")
def unwatch(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    node.watches.clear(session)
    return OK


@commands("exec")
def execute(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    queue = session.queue
    if queue is None:
        raise ErrorReply("ERR EXEC without MULTI")
    watch_failed = session.watch_failed or node.watches.expired(session)
    queue_failed = session.queue_failed
    discard_transaction(node, session)
    if queue_failed:
        raise ErrorReply(ABORTED)
    if watch_failed:
        return NULL_ARRAY
    replies = session.replies_of_transaction = Replies(len(queue))
    try:
        for command, words in queue:
            node.run_queued(session, command, words, replies)
    finally:
        session.replies_of_transaction = None
    return replies
