"""FAILOVER: decides when a master hands over to one of its replicas, and when it gives that up.

Writes are held back meanwhile, so that some replica catches up; then the master becomes that one's replica, and its
PSYNC asks it to be the master. Who gets a client's writes is none of its business.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatopo.testing._reply import OK, ErrorReply, Reply
from hatopo.testing.server._handlers import Handlers, integer, text

if TYPE_CHECKING:
    from hatopo.testing.node._node import DataNode
    from hatopo.testing.replication._followers import Follower
    from hatopo.testing.server._session import Session
    from hatopo.testing.world._world import Address

commands = Handlers()

WAITING = "waiting-for-sync"
IN_PROGRESS = "failover-in-progress"


class Failover:
    """The failover of a master; `state` as INFO calls it, empty where there is none."""

    def __init__(self, node: DataNode) -> None:
        self._node = node
        self.state = ""
        self._target: Address | None = None
        self._ends_at: float | None = None
        self._force = False

    @property
    def holds_pings(self) -> bool:
        """Whether the stream must not grow, so that the replica can catch up with it."""
        return bool(self.state) and self._ends_at is not None

    def begin(self, target: Address | None, timeout: float, force: bool) -> None:
        """Hold back writes, and wait for `target`, or for any replica, to catch up."""
        self.state, self._target, self._force = WAITING, target, force
        self._ends_at = self._node.world.now + timeout if timeout else None
        self._node.pause_clients(float("inf"), everything=False)
        self._node.world.after(0, self.update)

    def update(self) -> None:
        """See whether the time has come, to hand over or to give up."""
        if self.state != WAITING or self._node.paused:
            return
        if self._ends_at is not None and self._ends_at <= self._node.world.now:
            if self._force and self._target is not None:
                self._hand_over(self._target)
            else:
                self.abort()
            return
        follower = self._caught_up()
        if follower is not None:
            self._hand_over(follower.address)

    def _caught_up(self) -> Follower | None:
        """The replica that has all there is, among those that are wanted."""
        replication, offset = self._node.replication, self._node.replication.history.offset
        if self._target is not None:
            wanted = replication.followers.at(*self._target)
            return wanted if wanted is not None and wanted.acked == offset else None
        return next((one for one in replication.followers.online() if one.acked == offset), None)

    def _hand_over(self, target: Address) -> None:
        self.state, self._target = IN_PROGRESS, target
        self._node.replication.demote(target)

    def accepted(self) -> None:
        """The former replica is the master."""
        if self.state == IN_PROGRESS:
            self._clear()

    def refused(self) -> bool:
        """The former replica does not want to be the master; True: it was asked to, and this node is it again."""
        if self.state != IN_PROGRESS:
            return False
        self.abort()
        return True

    def abort(self) -> None:
        """Remain the master, or become it again."""
        if self.state == IN_PROGRESS:
            self._node.replication.promote()
        self._clear()

    def reset(self) -> None:
        """The node has ended."""
        self.state, self._target, self._ends_at, self._force = "", None, None, False

    def _clear(self) -> None:
        self.reset()
        self._node.unpause_clients()


@commands("failover")
def failover(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    words = [text(arg) for arg in args[1:]]
    current = node.replication.failover
    if [word.lower() for word in words] == ["abort"]:
        if not current.state:
            raise ErrorReply("ERR No failover in progress.")
        current.abort()
        return OK
    target, milliseconds, force = _options(words)
    if current.state:
        raise ErrorReply("ERR FAILOVER already in progress.")
    if node.replication.is_replica:
        raise ErrorReply("ERR FAILOVER is not valid when server is a replica.")
    if not len(node.replication.followers):
        raise ErrorReply("ERR FAILOVER requires connected replicas.")
    if force and (not milliseconds or target is None):
        raise ErrorReply("ERR FAILOVER with force option requires both a timeout and target HOST and IP.")
    if target is not None:
        follower = node.replication.followers.at(*target)
        if follower is None:
            raise ErrorReply("ERR FAILOVER target HOST and PORT is not a replica.")
        if follower.state != "online":
            raise ErrorReply("ERR FAILOVER target replica is not online.")
    current.begin(target, milliseconds / 1000, force)
    return OK


def _options(words: list[str]) -> tuple[Address | None, int, bool]:
    """Target, timeout in milliseconds (0: none) and FORCE."""
    target: Address | None = None
    milliseconds, force, rest = 0, False, [*words]
    while rest:
        option = rest.pop(0).lower()
        if option == "timeout" and rest and not milliseconds:
            milliseconds = integer(rest.pop(0).encode("utf-8", "surrogateescape"))
            if milliseconds <= 0:
                raise ErrorReply("ERR FAILOVER timeout must be greater than 0")
        elif option == "to" and len(rest) >= 2 and target is None:
            host, port = rest.pop(0), rest.pop(0)
            target = (host, integer(port.encode("utf-8", "surrogateescape")))
        elif option == "force" and not force:
            force = True
        else:
            raise ErrorReply("ERR syntax error")
    return target, milliseconds, force
