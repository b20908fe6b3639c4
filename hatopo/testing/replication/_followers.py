"""The master's side of replication: who follows this node, and how far each of them is.

Decides who may follow, whether from where it was or from the beginning, and who counts as a good replica. What the
followers are sent is written by `_replication_log`; here it only waits until a full synchronization is through.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from hatopo.testing._reply import NO_REPLY, OK, ErrorReply, Reply, Status
from hatopo.testing.replication._log import FullSync, Step, StillThere
from hatopo.testing.server._handlers import Handlers, integer, text
from hatopo.testing.world._world import LocalPeer

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hatopo.testing.node._node import DataNode
    from hatopo.testing.server._session import Session
    from hatopo.testing.world._world import Address

commands = Handlers()

FAILING_OVER = "NOMASTERLINK Can't SYNC while failing over"
NO_LINK = "NOMASTERLINK Can't SYNC while not connected with my master"
STRANGER = "ERR the embedded server replicates only to servers of its own deployment"
Piece = FullSync | Step | StillThere
ONLINE = "online"
WAITING = "wait_bgsave"


class Follower:
    """A replica that has asked to follow this node."""

    def __init__(self, session: Session, state: str, now: float) -> None:
        self.session = session
        self.state = state
        self.acked = 0
        self.acked_at = now
        self.ready_at = now
        self.held: list[Piece] = []
        """What it is sent as soon as it is online."""

    @property
    def address(self) -> Address:
        """Where it says that it is."""
        said = self.session.extras
        return (said.get("replica-ip") or self.session.address[0], said.get("replica-port", 0))

    def lag(self, now: float) -> int:
        """Whole seconds since it was heard of, as the real server counts them."""
        return int(now) - int(self.acked_at) if self.state == ONLINE else 0

    def send(self, *pieces: Piece) -> None:
        """Send it pieces of the stream."""
        if not self.session.closed:
            self.session.peer.push(cast("list[Reply]", [b"replication", *pieces]), 2)


class Followers:
    """The followers of a node, in the order in which they came."""

    def __init__(self, node: DataNode) -> None:
        self._node = node
        self._by_session: dict[Session, Follower] = {}
        self._written: list[Step] = []
        """Steps that leave together, when the loop has run what came together."""
        self.full_sync_seconds = 0.05
        """How long a full synchronization takes."""
        self.alone_since = node.world.now

    def __iter__(self) -> Iterator[Follower]:
        return iter([*self._by_session.values()])

    def __len__(self) -> int:
        return len(self._by_session)

    def of(self, session: Session) -> Follower | None:
        """The follower of this session."""
        return self._by_session.get(session)

    def online(self) -> list[Follower]:
        """Those who have all data, or are about to."""
        return [one for one in self._by_session.values() if one.state == ONLINE]

    def at(self, host: str, port: int) -> Follower | None:
        """Who announces itself by this address."""
        for one in self:
            if one.address[0].lower() == host.lower() and one.address[1] == port:
                return one
        return None

    def acknowledged(self, offset: int) -> int:
        """How many have said that they have got so far."""
        return sum(one.acked >= offset for one in self.online())

    def good(self, max_lag: int) -> int:
        """How many have been heard of within so many seconds."""
        now = self._node.world.now
        return sum(one.lag(now) <= max_lag for one in self.online())

    def send(self, step: Step) -> None:
        """Send a step to all, soon."""
        if self._by_session:
            if not self._written:
                self._node.world.after(0, self._ship)
            self._written.append(step)

    def _ship(self) -> None:
        """Send what was written."""
        written, self._written = self._written, []
        for one in self if written else ():
            if one.state == ONLINE:
                one.send(*written)
            else:
                one.held += written

    def ended(self, session: Session) -> None:
        """A session has gone, perhaps a follower's."""
        if self._by_session.pop(session, None) is not None and not self._by_session:
            self.alone_since = self._node.world.now

    def disconnect(self) -> None:
        """Make all of them come again, and say from where they go on."""
        self._ship()
        for one in self:
            one.session.close("the master's history has changed")

    def add_online(self, session: Session, rest: Step) -> None:
        """Take in a follower that goes on from where it was; `rest` is what it has missed."""
        follower = self._add(session, ONLINE)
        if rest.end > rest.start:
            follower.send(rest)

    def add_waiting(self, session: Session, data: FullSync) -> None:
        """Take in a follower that gets all data."""
        follower = self._add(session, WAITING)
        follower.held.append(data)
        follower.ready_at += self.full_sync_seconds
        self._node.world.after(self.full_sync_seconds, self._finish, follower)

    def _add(self, session: Session, state: str) -> Follower:
        self._ship()  # what was written before is nothing to who comes now
        session.kind = "replica"
        follower = Follower(session, state, self._node.world.now)
        self._by_session[session] = follower
        return follower

    def _finish(self, follower: Follower) -> None:
        """The end of a full synchronization; a node that is paused ends it later."""
        now = self._node.world.now
        if self._node.paused or follower.state == ONLINE or now < follower.ready_at:
            return
        self._ship()
        follower.state, follower.acked_at = ONLINE, now
        held, follower.held = follower.held, []
        follower.send(*held)

    def tick(self, timeout: int) -> None:
        """Once a second: a sign of life for those who wait, the end for those who give none."""
        for one in self:
            if one.state == WAITING:
                one.send(StillThere())
                self._finish(one)
            elif one.lag(self._node.world.now) > timeout:
                one.session.close("the replica timed out")


@commands("psync", "sync")
def psync(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    replication = node.replication
    if replication.followers.of(session) is not None:
        return NO_REPLY
    words = [text(arg) for arg in args]
    if len(words) > 3 and words[3].lower() == "failover":
        if not replication.is_replica:
            raise ErrorReply("ERR PSYNC FAILOVER can't be sent to a master.")
        if words[1].lower() != replication.history.id:
            raise ErrorReply("ERR PSYNC FAILOVER replid must match my replid.")
        replication.promote()
    if replication.failover.state:
        raise ErrorReply(FAILING_OVER)
    if replication.is_replica and not replication.link_up:
        raise ErrorReply(NO_LINK)
    wanted = integer(args[2]) if words[0].lower() == "psync" else -1
    peer: object = session.peer
    if not isinstance(peer, LocalPeer):
        raise ErrorReply(STRANGER)
    return _follow(node, session, words[1] if len(words) > 1 else "?", wanted)


def _follow(node: DataNode, session: Session, history_id: str, wanted: int) -> Reply:
    """Let a replica go on from where it was, or begin with all data."""
    replication, history = node.replication, node.replication.history
    if history.covers(history_id, wanted):
        node.stats["sync_partial_ok"] += 1
        replication.followers.add_online(session, history.since(wanted, node.keyspace.copy))
        return Status(f"CONTINUE {history.id}")
    if history_id != "?":
        node.stats["sync_partial_err"] += 1
    node.stats["sync_full"] += 1
    if not history.active:
        history.begin()
    history.select_again()
    data = FullSync(history.id, history.offset, node.keyspace.dump())
    replication.followers.add_waiting(session, data)
    return Status(f"FULLRESYNC {history.id} {history.offset}")


@commands("replconf")
def replconf(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    if len(args) % 2 == 0:
        raise ErrorReply("ERR syntax error")
    for option, value in zip(args[1::2], args[2::2], strict=True):
        name = option.lower()
        if name == b"listening-port":
            session.extras["replica-port"] = integer(value)
        elif name == b"ip-address":
            if len(value) > 255:
                raise ErrorReply(
                    f"ERR REPLCONF ip-address provided by replica instance is too long: {len(value)} bytes"
                )
            session.extras["replica-ip"] = text(value)
        elif name == b"ack":
            return _acknowledge(node, session, value)
        elif name == b"getack":
            node.replication.upstream.acknowledge()
            return NO_REPLY
        elif name == b"rdb-only":
            if integer(value) not in (0, 1):
                raise ErrorReply("ERR value is out of range, value must between 0 and 1")
        elif name not in (b"capa", b"rdb-filter-only"):
            raise ErrorReply(f"ERR Unrecognized REPLCONF option: {text(option)}")
    return OK


def _acknowledge(node: DataNode, session: Session, value: bytes) -> Reply:
    """A follower says how far it is."""
    follower = node.replication.followers.of(session)
    if follower is None:
        return NO_REPLY
    follower.acked = max(follower.acked, integer(value))
    follower.acked_at = node.world.now
    node.replication.acknowledged()
    return OK  # nobody reads it, but a link within the world counts on it
