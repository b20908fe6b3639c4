"""A session: what a server knows of one of its clients, however that is connected.

Decides when a command may run at all (not while the session is held back), and nothing of what it does. The bytes,
or the link within the world, are the business of its `Peer`.
"""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any, Protocol

from hatopo.testing._reply import ErrorReply, Push, Reply

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hatopo.testing.acl._accounts import User
    from hatopo.testing.server._server import Server
    from hatopo.testing.world._world import Address, Party


IN_SUBSCRIPTION = {
    *("subscribe", "unsubscribe", "psubscribe", "punsubscribe", "ssubscribe", "sunsubscribe"),
    *("ping", "quit", "reset"),
}


class Peer(Protocol):
    """The other end of a session."""

    @property
    def party(self) -> Party:
        """Whose commands these are, where somebody may be cut off."""
        ...

    def deliver(self, reply: Reply, protocol: int, limit: int | None = None) -> None:
        """Send a reply; with `limit`, only so many of its bytes."""

    def push(self, message: Sequence[Reply], protocol: int) -> None:
        """Send a message that answers nothing."""

    def ended(self, reason: str, *, flush: bool = True) -> None:
        """The server ends the session; `flush`: what was answered before still arrives."""


class Session:
    """One client of one server."""

    def __init__(self, server: Server, peer: Peer, number: int, address: Address, user: User | None) -> None:
        self.server, self.peer = server, peer
        self.id = number
        self.address = address
        self.user = user
        """Who has logged in; None until somebody has."""
        self.name = b""
        self.protocol = 2
        self.engine: Any = None
        """The data node's side of it: database, scripts."""
        self.created = self.active = server.world.data_now
        self.last_command = "NULL"
        self.closed = False
        self.closing = False
        """To be closed as soon as the command that runs has been answered."""
        self.replies = True
        self.skipping = 0
        """CLIENT REPLY SKIP: 1 while the command runs that has no reply; 2 until it comes."""
        self.queue: list[tuple[Any, list[bytes]]] | None = None
        """The commands of a transaction, from MULTI to EXEC."""
        self.queue_failed = False
        self.replies_of_transaction: list[Reply] | None = None
        """The replies of EXEC, while it runs."""
        self.watched: dict[tuple[int, bytes], bool] = {}
        """The keys that it watches, and whether they had expired when it began to."""
        self.watch_failed = False
        self.channels: dict[str, set[bytes]] = {"subscribe": set(), "psubscribe": set(), "ssubscribe": set()}
        """What it has subscribed to, by the command that did it."""
        self.blocked: Any = None
        self.last_write = 0
        """The replication offset behind this client's last write, for WAIT."""
        self.kind = "normal"
        """For CLIENT KILL TYPE: "normal", "master" or "replica"; subscribers are told by their channels."""
        self.exempt = False
        """The test's own: no fault is meant for it."""
        self.extras: dict[str, Any] = {}
        """Small things that only CLIENT knows of: no-evict, library name ..."""
        self._held = 0
        self._pending: deque[list[bytes]] = deque()
        self._postponed: Callable[[], object] | None = None
        self.guarded = True
        self.update_guard()

    def update_guard(self) -> None:
        """Note whether its commands need more than to be run: call it when one of these has changed."""
        self.guarded = (
            self.user is None
            or not self.user.all_powerful
            or self.queue is not None
            or not self.replies
            or self.skipping > 0
            or (self.protocol == 2 and self.subscriptions > 0)
            or self in self.server.monitors
        )

    @property
    def subscriptions(self) -> int:
        """How many channels and patterns it listens to."""
        return sum(map(len, self.channels.values()))

    @property
    def type_name(self) -> str:
        """What CLIENT KILL TYPE calls it."""
        return "pubsub" if self.kind == "normal" and self.subscriptions else self.kind

    def feed(self, args: list[bytes]) -> None:
        """A command has arrived."""
        if self._held or self._pending:
            self._pending.append(args)
        elif not self.closed:
            self.server.receive(self, args)

    def hold(self) -> None:
        """Run no more commands until `release`, which must come as often."""
        self._held += 1

    def release(self) -> None:
        """The end of one `hold`; what has arrived meanwhile is run."""
        self._held -= 1
        if self._postponed is not None and not self._held and not self.closed:
            run, self._postponed = self._postponed, None
            run()
        while self._pending and not self._held and not self.closed:
            self.server.receive(self, self._pending.popleft())

    def postpone(self, run: Callable[[], object]) -> None:
        """Do this when the session is released, before the commands that have arrived."""
        self._postponed = run

    def answer(self, reply: Reply, limit: int | None = None) -> None:
        """Send the reply of a command, unless the client wants none (CLIENT REPLY)."""
        if not self.closed and self.replies and self.skipping != 1:
            self.peer.deliver(reply, self.protocol, limit)

    def push(self, *message: Reply) -> None:
        """Send a message that answers nothing, or a confirmation of a subscription."""
        if self.replies_of_transaction is not None:
            self.replies_of_transaction.append(Push(message))
        elif not self.closed:
            self.peer.push(Push(message), self.protocol)

    def check_subscribed(self, name: str) -> None:
        """Raise what a client that listens may not say, unless messages and replies can be told apart."""
        if self.subscriptions and self.protocol == 2 and name.partition("|")[0] not in IN_SUBSCRIPTION:
            raise ErrorReply(
                f"ERR Can't execute '{name}': only (P|S)SUBSCRIBE / (P|S)UNSUBSCRIBE / PING / QUIT / RESET are allowed "
                "in this context"
            )

    def rights_changed(self) -> None:
        """Those of its user have: it ends where it could not have begun with them."""
        user = self.user
        if user is None:
            return
        patterns = self.channels["psubscribe"]
        channels = self.channels["subscribe"] | self.channels["ssubscribe"]
        hears = all(map(user.may_hear, channels)) and all(user.may_hear(one, pattern=True) for one in patterns)
        if user.removed or not hears:
            self.closing = True
            if self is not self.server.current:
                self.close("the rights of its user have changed")
        self.update_guard()

    def fail(self, text: str) -> None:
        """Answer with an error."""
        self.answer(ErrorReply(text))

    def close(self, reason: str = "closed by the server", *, flush: bool = True) -> None:
        """End it from the server's side."""
        if not self.closed:
            self.end()
            self.peer.ended(reason, flush=flush)

    def end(self) -> None:
        """The client has gone."""
        if not self.closed:
            self.closed = True
            self._pending.clear()
            self._postponed = None
            self.server.session_ended(self)
