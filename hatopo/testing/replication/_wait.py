"""WAIT: decides when a client's last write has reached enough replicas."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatopo.testing._reply import NO_REPLY, ErrorReply, Reply
from hatopo.testing.node._blocking import Blocked
from hatopo.testing.server._handlers import Handlers, integer

if TYPE_CHECKING:
    from hatopo.testing.node._node import DataNode
    from hatopo.testing.server._session import Session

commands = Handlers()

ON_REPLICA = (
    "ERR WAIT cannot be used with replica instances. Please also note that since Redis 4.0 if a replica is configured "
    "to be writable (which is not the default) writes to replicas are just local and are not propagated."
)


class Waits:
    """The clients that wait for replicas."""

    def __init__(self, node: DataNode) -> None:
        self._node = node
        self._waiting: list[tuple[Session, Blocked, int, int]] = []
        self._asking = False

    def add(self, session: Session, offset: int, count: int, seconds: float) -> None:
        """Block a session until `count` replicas have said that they have got as far as `offset`."""
        followers = self._node.replication.followers
        blocked = Blocked((), lambda _: None, lambda: followers.acknowledged(offset))
        # The real server serves who came last first.
        self._waiting.insert(0, (session, blocked, offset, count))
        self._node.waiters.block(session, blocked, seconds)
        if not self._asking:
            self._asking = True
            self._node.world.after(0, self.ask)

    def ask(self) -> None:
        """Ask the replicas how far they are, unless clients are paused: then later."""
        node = self._node
        if self._asking and not node.paused and node.pause_until <= node.world.data_now:
            self._asking = False
            node.replication.ask_acks()

    def serve(self) -> None:
        """A replica has said how far it is."""
        waiting, self._waiting = self._waiting, []
        for one in waiting:
            session, blocked, offset, count = one
            if session.blocked is not blocked:
                continue
            found = self._node.replication.followers.acknowledged(offset)
            if found >= count:
                self._node.waiters.unblock(session, found)
            else:
                self._waiting.append(one)


@commands("wait")
def wait(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    replication, offset = node.replication, session.last_write
    if replication.is_replica:
        raise ErrorReply(ON_REPLICA)
    count = integer(args[1])
    milliseconds = integer(args[2], "ERR timeout is not an integer or out of range")
    if milliseconds < 0:
        raise ErrorReply("ERR timeout is negative")
    found = replication.followers.acknowledged(offset)
    if found >= count or session.replies_of_transaction is not None:
        return found
    replication.waits.add(session, offset, count, milliseconds / 1000)
    return NO_REPLY
