"""A line: the two connections of a sentinel to an instance, for commands and for the hello channel, and its pings.

Decides when a connection is up and when it was last heard; reconnecting, and what is said, is the sentinel's
(`_monitor`). Sentinels that watch several services together have one line between them.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hatopo.testing._reply import Reply
    from hatopo.testing.sentinel._server import SentinelServer
    from hatopo.testing.world._world import Address, Link, Word

HELLO_CHANNEL = "__sentinel__:hello"
MAX_PENDING = 100


class Line:
    """The connections to one instance."""

    def __init__(self, sentinel: SentinelServer, now: int) -> None:
        self._sentinel = sentinel
        self.users = 1
        """For how many services it is used."""
        self.disconnected = True
        """One of the connections is missing."""
        self.pending = 0
        self.cmd: Link | None = None
        self.pubsub: Link | None = None
        self.cmd_since = self.pubsub_since = self.pubsub_heard = 0
        self.last_reconnect = self.last_ping = 0
        self.act_ping = self.last_avail = self.last_pong = now
        """When the oldest PING was sent that has no answer (0: all have); last good answer; last answer."""

    @property
    def crowded(self) -> bool:
        """So much waits for an answer that nothing more is asked."""
        return self.pending >= MAX_PENDING * self.users

    def dial_cmd(self, address: Address, now: int) -> None:
        """Connect for commands; what is sent meanwhile waits."""
        self.pending, self.cmd_since = 0, now
        self.cmd = self._sentinel.world.link(self._sentinel, address, self)

    def dial_pubsub(self, address: Address, now: int) -> None:
        """Connect for the hello channel."""
        self.pubsub_since = now
        self.pubsub = self._sentinel.world.link(self._sentinel, address, self)

    def call(self, *words: Word, then: Callable[[Reply], object] | None = None) -> None:
        """Send a command; `then` gets the reply, if the connection lives to see it."""
        if self.cmd is not None:
            self._send(self.cmd, words, then)

    def call_pubsub(self, *words: Word) -> None:
        """Send a command over the other connection, for its effect."""
        if self.pubsub is not None:
            self._send(self.pubsub, words, None)

    def subscribe(self, command: str) -> None:
        """Listen to the hello channel."""
        link = self.pubsub
        if link is not None:
            link.send(command, HELLO_CHANNEL, then=lambda reply: self._sentinel.enter(self._heard, link))

    def _send(self, link: Link, words: Sequence[Word], then: Callable[[Reply], object] | None) -> None:
        self.pending += 1
        link.send(*words, then=lambda reply: self._sentinel.enter(self._answered, link, then, reply))

    def _answered(self, link: Link, then: Callable[[Reply], object] | None, reply: Reply) -> None:
        if link is self.cmd or link is self.pubsub:
            self.pending -= 1
            if then is not None:
                then(reply)

    def _heard(self, link: Link) -> None:
        if link is self.pubsub:
            self.pubsub_heard = self._sentinel.moment

    # What the world tells

    def link_up(self, link: Link) -> None:
        """It is connected; the sentinel did not wait for that."""

    def link_down(self, link: Link, reason: str) -> None:
        """It has ended."""
        self._sentinel.enter(self._lost, link)

    def _lost(self, link: Link) -> None:
        if link is self.cmd:
            self.cmd = None
        elif link is self.pubsub:
            self.pubsub = None
        else:
            return
        self.disconnected = True
        self._sentinel.wake()

    def link_push(self, link: Link, message: Sequence[Reply]) -> None:
        """A message on the hello channel."""
        self._sentinel.enter(self._pushed, link, message)

    def _pushed(self, link: Link, message: Sequence[Reply]) -> None:
        self._heard(link)
        if len(message) == 3 and plain(message[0]) == "message":
            self._sentinel.heard_hello(plain(message[2]))

    # Its end

    def close_cmd(self) -> None:
        """Hang up the connection for commands."""
        link, self.cmd = self.cmd, None
        if link is not None:
            self.pending, self.disconnected = 0, True
            link.close()

    def close_pubsub(self) -> None:
        """Hang up the connection for the hello channel."""
        link, self.pubsub = self.pubsub, None
        if link is not None:
            self.disconnected = True
            link.close()

    def close(self) -> None:
        """Hang up."""
        self.close_cmd()
        self.close_pubsub()

    def release(self) -> None:
        """One of those that use it has gone."""
        self.users -= 1
        if self.users <= 0:
            self.close()


def plain(value: Reply) -> str:
    """A word of a reply as text."""
    return value.decode("utf-8", "surrogateescape") if isinstance(value, bytes) else str(value)
