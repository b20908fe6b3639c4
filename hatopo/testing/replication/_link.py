"""The replica's side of replication: the link to the master, and what comes over it.

Decides in which order a replica introduces itself, when it takes a link for lost, and when it applies what it has
received: at once, or as much later as a test wants. What was received and not applied is lost with the link, as the
real server drops what it has not executed; the next link asks for it again.
"""

from __future__ import annotations

import logging
from collections import deque
from typing import TYPE_CHECKING

from hatopo.testing._reply import ErrorReply, Reply
from hatopo.testing.replication._log import AskAck, Change, FullSync, Published, Step, Swap
from hatopo.testing.world._world import LocalLink

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatopo.testing.node._node import DataNode
    from hatopo.testing.world._clock import Timer
    from hatopo.testing.world._world import Address, Link

log = logging.getLogger("hatopo.testing")

NOT_FATAL = ("NOAUTH", "NOPERM", "ERR operation not permitted")
"""Errors to PING after which the introduction goes on."""


class Upstream:
    """A node's link to its master; `state` as ROLE calls it, "none" on a master."""

    def __init__(self, node: DataNode) -> None:
        self._node = node
        self.state = "none"
        self.address: Address | None = None
        self.known = False
        """Whether the node knows from where in the history to go on."""
        self.down_since: float | None = None
        self.last_io = 0.0
        self.lag_seconds = 0.0
        self.lag_ops = 0
        self.loading_seconds = 0.0
        """How long the data of a full synchronization take to load."""
        self._link: Link | None = None
        self.heard = 0.0
        """When the link was begun, or last heard of before it was up."""
        self._queue: deque[tuple[float, Step]] = deque()
        self._writes = 0
        """How many steps of the queue change data."""
        self._timer: Timer | None = None
        self._loading: Timer | None = None
        self._warned = False

    @property
    def received(self) -> int:
        """The offset up to which the stream has arrived, applied or not."""
        return self._queue[-1][1].end if self._queue else self._node.replication.history.offset

    # Whom it follows

    def follow(self, address: Address) -> None:
        """Leave the present master for another one."""
        self._lose()
        self.address, self._warned = address, False
        self._connect()

    def forget(self) -> None:
        """Follow nobody."""
        self._lose()
        self.state, self.address, self.known, self.down_since = "none", None, False, None

    def start(self, address: Address) -> None:
        """Follow a master from the start of the node: nothing is known of its history."""
        self.forget()
        self.address, self.state = address, "connect"

    def break_off(self) -> bool:
        """Lose the link, as by CLIENT KILL TYPE master; False: there was none that is up."""
        if self.state != "connected":
            return False
        self._lose()
        self._connect()
        return True

    def _lose(self) -> None:
        """End the link, if there is one."""
        link, self._link = self._link, None
        if link is not None:
            link.close()
        for timer in (self._timer, self._loading):
            if timer is not None:
                timer.cancel()
        if self._loading is not None:
            self._node.set_loading(False)
        self._timer = self._loading = None
        self._queue.clear()
        self._writes = 0
        if self.state == "connected":
            self.known, self.down_since = True, self._node.world.now
        self.state = "connect"

    def _connect(self) -> None:
        assert self.address is not None
        host, port = self.address
        self.state, self.heard = "connecting", self._node.world.now
        local = "127.0.0.1" if host.lower() == "localhost" else host
        self._link = self._node.world.link(self._node, (local, port), self)

    def tick(self, timeout: int) -> None:
        """Once a second: take a silent link for lost, try again, tell the master how far it is."""
        now = int(self._node.world.now)
        last = self.last_io if self.state == "connected" else self.heard
        if self.state not in ("none", "connect") and now - int(last) > timeout:
            self._lose()
            self._connect()
        elif self.state == "connect":
            self._connect()
        self.acknowledge()

    def acknowledge(self) -> None:
        """Tell the master how much has been applied."""
        if self.state == "connected" and self._link is not None:
            self._link.send("REPLCONF", "ACK", self._node.replication.history.offset)

    # The introduction

    def link_up(self, link: Link) -> None:
        if not isinstance(link, LocalLink):
            self._warn("that is not a server of its deployment")
            self._lose()
            return
        self.state = "handshake"
        link.send("PING", then=self._pinged)

    def _pinged(self, reply: Reply) -> None:
        link, config = self._link, self._node.config
        assert link is not None
        if isinstance(reply, ErrorReply) and not reply.text.startswith(NOT_FATAL):
            self._lose()
            return
        if config.masterauth:
            user = (config.masteruser,) if config.masteruser else ()
            link.send("AUTH", *user, config.masterauth, then=self._logged_in)
        link.send("REPLCONF", "listening-port", config.replica_announce_port or self._node.address[1])
        if config.replica_announce_ip:
            link.send("REPLCONF", "ip-address", config.replica_announce_ip)
        link.send("REPLCONF", "capa", "eof", "capa", "psync2", then=self._introduced)

    def _logged_in(self, reply: Reply) -> None:
        if isinstance(reply, ErrorReply):
            self._warn(reply.text)
            self._lose()

    def _warn(self, reason: str) -> None:
        """Say once why there is no link."""
        if not self._warned:
            log.warning("%s:%d cannot follow %s:%d: %s", *self._node.address, *(self.address or ()), reason)
        self._warned = True

    def _introduced(self, reply: Reply) -> None:
        link, replication = self._link, self._node.replication
        if link is None:
            return
        history, offset = ("?", -1)
        if self.known:
            history, offset = replication.history.id, replication.history.offset + 1
        promote = ("FAILOVER",) if replication.failover.state == "failover-in-progress" else ()
        link.send("PSYNC", history, offset, *promote, then=self._answered)

    def _answered(self, reply: Reply) -> None:
        """The master's answer to PSYNC."""
        kind, *words = str(reply).split()
        if isinstance(reply, ErrorReply) or kind not in ("CONTINUE", "FULLRESYNC"):
            if not self._node.replication.failover.refused():
                self._lose()
            return
        self.heard = self._node.world.now
        if kind == "FULLRESYNC":
            self.state = "sync"
        else:
            replication = self._node.replication
            if words and words[0] != replication.history.id:
                replication.history.branch(words[0])
                replication.followers.disconnect()
            self._up()
        self._node.replication.failover.accepted()

    def _up(self) -> None:
        """The link is up: what comes is applied."""
        self.state, self.known, self.down_since = "connected", True, None
        self.last_io = self._node.world.now
        self.drain()

    def link_down(self, link: Link, reason: str) -> None:
        again = self.state in ("connected", "sync")
        self._lose()
        if again:
            self._connect()

    # What comes over it

    def link_push(self, link: Link, message: Sequence[Reply]) -> None:
        pieces: Sequence[object] = message[1:]
        self.last_io = self.heard = self._node.world.now
        for piece in pieces:
            if isinstance(piece, Step):
                self._queue.append((self.last_io, piece))
                self._writes += piece.writes
            elif isinstance(piece, FullSync):
                self._load(piece)
        self.drain()

    def _load(self, message: FullSync) -> None:
        if self.loading_seconds > 0:
            self._node.set_loading(True)
            self._loading = self._node.world.after(self.loading_seconds, self._loaded, message)
        else:
            self._loaded(message)

    def _loaded(self, message: FullSync) -> None:
        """All data are replaced by the master's."""
        if self._loading is not None:
            self._loading = None
            self._node.set_loading(False)
        self._node.keyspace.load(message.snapshot)
        self._node.watches.touch_all()
        replication = self._node.replication
        replication.followers.disconnect()
        replication.history.adopt(message)
        self._up()
        self.acknowledge()

    def drain(self) -> None:
        """Apply what is due."""
        while self._queue and self.state == "connected" and not self._node.paused:
            arrived, step = self._queue[0]
            wait = arrived + self.lag_seconds - self._node.world.now
            if wait > 0:
                self._drain_in(wait)
                return
            if self.lag_ops and self._writes <= self.lag_ops:
                return
            self._queue.popleft()
            self._writes -= step.writes
            self._apply(step)

    def _drain_in(self, seconds: float) -> None:
        if self._timer is not None:
            self._timer.cancel()
        if seconds != float("inf"):
            self._timer = self._node.world.after(seconds, self.drain)

    def _apply(self, step: Step) -> None:
        """Do what the master did."""
        node, keys = self._node, []
        for action in step.actions:
            if isinstance(action, Change):
                node.keyspace.put(action.db, action.key, action.value)
                node.watches.touch((action.db, action.key))
                keys.append((action.db, action.key))
            elif isinstance(action, Swap):
                node.keyspace.swap(action.a, action.b)
                node.watches.touch_all()
            elif isinstance(action, Published):
                node.publish(action.channel, action.message, action.kind)
            elif isinstance(action, AskAck):
                self.acknowledge()  # as of before this step
        node.replication.passed_on(step)
        for key in keys:
            node.waiters.serve(key)
        node.settle()  # who was served may have taken something, where replicas can be written
