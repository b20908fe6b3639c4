"""Replication of a data node: whose replica it is, who its replicas are, and how the one becomes the other.

Decides what follows from a change of role, and what goes into the stream when. The two sides of a link are in
`_replication_followers` (a master's) and `_replication_link` (a replica's); what is sent, in `_replication_log`.
Both ends of a link are in this process: what goes over it are values, never bytes, so a server that is not embedded
can neither follow nor be followed.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatopo.testing._reply import OK, ErrorReply, Reply, Status
from hatopo.testing.replication import _failover
from hatopo.testing.replication import _followers as _replication_followers
from hatopo.testing.replication import _wait as _replication_wait
from hatopo.testing.replication._failover import Failover
from hatopo.testing.replication._followers import Followers
from hatopo.testing.replication._info import info, role
from hatopo.testing.replication._link import Upstream
from hatopo.testing.replication._log import Change, History, Published, Step, Swap
from hatopo.testing.replication._wait import Waits
from hatopo.testing.server._handlers import Handlers, integer, text

if TYPE_CHECKING:
    from collections.abc import Collection

    from hatopo.testing.node._node import DataNode
    from hatopo.testing.server._session import Session
    from hatopo.testing.world._clock import Timer
    from hatopo.testing.world._world import Address

commands = Handlers({**_replication_followers.commands, **_replication_wait.commands, **_failover.commands})

SECOND = 1.0
SECOND_OF_FAILOVER = 0.1
"""How often the node looks after its links, normally and during FAILOVER."""


class Replication:
    """The place of one node in replication."""

    def __init__(self, node: DataNode) -> None:
        self._node = node
        self._backlog_size = 0
        self.history = self._new_history()
        self.upstream = Upstream(node)
        self.followers = Followers(node)
        self.waits = Waits(node)
        self.failover = Failover(node)
        self.configured: Address | None = None
        """Whose replica it is when it starts: what its configuration file says."""
        self._ticks = 0
        self._timer: Timer | None = None

    def _new_history(self) -> History:
        return History(self._node.world.new_id, lambda: self._backlog_size)

    # What others ask

    @property
    def is_replica(self) -> bool:
        """Whether it has a master, reachable or not."""
        return self.upstream.address is not None

    @property
    def master(self) -> Address | None:
        """The address of its master, as REPLICAOF gave it."""
        return self.upstream.address

    @property
    def link_up(self) -> bool:
        """Whether it is connected with its master and has its data."""
        return self.upstream.state == "connected"

    @property
    def offset(self) -> int:
        """How far its history goes."""
        return self.history.offset

    def good_replicas(self) -> int:
        """How many replicas are online and were heard of lately; enough, where that does not matter."""
        config = self._node.config
        return (
            self.followers.good(config.min_replicas_max_lag)
            if config.min_replicas_max_lag
            else config.min_replicas_to_write
        )

    def info(self) -> list[str]:
        """The lines of INFO replication, without the headline."""
        return info(self._node)

    def role_reply(self) -> Reply:
        """What ROLE answers."""
        return role(self._node)

    # What tests want

    def set_lag(self, seconds: float = 0.0, ops: int = 0) -> None:
        """Apply what comes so many seconds later, and stay so many writes behind; both 0: at once."""
        self.upstream.lag_seconds, self.upstream.lag_ops = seconds, ops
        self.upstream.drain()

    def freeze(self) -> None:
        """Apply nothing any more, until `set_lag`: the link stays up, the data grow old."""
        self.set_lag(float("inf"))

    def configure(self, master: Address | None) -> None:
        """Say whose replica it is when it starts."""
        self.configured = master

    def remember(self) -> None:
        """CONFIG REWRITE: it starts again as what it is now."""
        self.configured = self.master

    def break_link(self) -> bool:
        """CLIENT KILL TYPE master: lose the link, and connect again; False: there was none."""
        return self.upstream.break_off()

    def change_id(self) -> None:
        """DEBUG CHANGE-REPL-ID: nobody can go on from where it is."""
        self.history.rename()

    # Its life

    def start(self) -> None:
        """The node has started: nothing is known of the past but the configuration, and the data that were kept."""
        self._ticks = 0
        self.history = self._new_history()
        self.followers.alone_since = self._node.world.now
        if self.configured is not None:
            self.upstream.start(self.configured)
        self._role_changed()
        self._timer = self._node.world.after(0, self._tick)

    def stop(self) -> None:
        """The node has ended."""
        if self._timer is not None:
            self._timer.cancel()
        self.upstream.forget()
        self.failover.reset()

    def resume(self) -> None:
        """The node stood still, and goes on: what has come meanwhile is read before it is missed."""
        self.upstream.drain()

    def session_ended(self, session: Session) -> None:
        """A client has gone, perhaps a replica."""
        self.followers.ended(session)

    def _tick(self) -> None:
        """Look after the links, once a second."""
        self._timer = self._node.world.after(SECOND_OF_FAILOVER if self.failover.state else SECOND, self._tick)
        if self._node.paused:
            return
        config = self._node.config
        self._backlog_size = config.number("repl-backlog-size")
        self.failover.update()
        if self.is_replica:
            self.upstream.tick(config.repl_timeout)
        elif (
            self._ticks % config.repl_ping_replica_period == 0 and len(self.followers) and not self.failover.holds_pings
        ):
            self.followers.send(self.history.add_ping())
        self.followers.tick(config.repl_timeout)
        self._forget_history()
        self.waits.ask()
        self._ticks += 1

    def _forget_history(self) -> None:
        """Let go of a backlog that no replica has wanted for long."""
        limit, idle = self._node.config.number("repl-backlog-ttl"), self._node.world.now - self.followers.alone_since
        if limit and self.history.active and not self.is_replica and not len(self.followers) and idle > limit:
            self.history.end()

    # Changes of role

    def promote(self) -> None:
        """Become a master, if it is none: its replicas come again, and go on from where they are."""
        if not self.is_replica:
            return
        self.upstream.forget()
        self.history.branch()
        self.followers.disconnect()
        self.followers.alone_since = self._node.world.now
        self._role_changed()

    def demote(self, master: Address) -> None:
        """Become the replica of a node, or of another one than before; the replicas of this one stay."""
        if not self.is_replica:
            self.upstream.known = True  # it may go on from its own history, if the new master has it, too
        self.upstream.follow(master)
        self._role_changed()

    def _role_changed(self) -> None:
        self._node.keyspace.replica = self.is_replica
        self._node.role_changed()

    # The stream

    def propagate(self, dirty: Collection[tuple[int, bytes]]) -> None:
        """Send the replicas what has changed, as one step."""
        if dirty and self.history.active and not self.is_replica:
            copy = self._node.keyspace.copy
            self.followers.send(self.history.add_changes(Change(db, key, copy(db, key)) for db, key in dirty))

    def swap(self, a: int, b: int) -> None:
        """Send the replicas a SWAPDB; what changed before must have been sent, for it belongs to the old places."""
        if self.history.active and not self.is_replica:
            self.followers.send(self.history.add_swap(Swap(a, b)))

    def publish(self, channel: bytes, message: bytes, kind: str) -> None:
        """Let the replicas' clients hear a message, too."""
        if self.history.active and not self.is_replica:
            self.followers.send(self.history.add_message(Published(channel, message, kind)))

    def passed_on(self, step: Step) -> None:
        """A step of the master was applied: the replicas of this replica get it as it is."""
        self.history.append(step)
        self.followers.send(step)

    def ask_acks(self) -> None:
        """Have the replicas say how far they are."""
        if self.history.active and not self.is_replica:
            self.followers.send(self.history.add_ask())

    def acknowledged(self) -> None:
        """A replica has said how far it is."""
        self.waits.serve()
        if self.failover.state:
            self._node.world.after(0, self.failover.update)


@commands("replicaof", "slaveof")
def replicaof(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    replication = node.replication
    if replication.failover.state:
        raise ErrorReply("ERR REPLICAOF not allowed while failing over.")
    host = text(args[1])
    if host.lower() == "no" and args[2].lower() == b"one":
        replication.promote()
        return OK
    if replication.followers.of(session) is not None:
        raise ErrorReply("ERR Command is not valid when client is a replica.")
    port = integer(args[2], "ERR Invalid master port")
    if not 0 <= port <= 65535:
        raise ErrorReply("ERR Invalid master port")
    master = replication.master
    if master is not None and (master[0].lower(), master[1]) == (host.lower(), port):
        return Status("OK Already connected to specified master")
    replication.demote((host, port))
    return OK


@commands("role")
def role_command(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    return node.replication.role_reply()
