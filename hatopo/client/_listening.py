"""Listening to one sentinel: a thread that subscribes, asks again now and then, and hands on what it hears.

An event is a hint to ask: whatever the sentinel publishes about a service, it is asked about that service at once, on
the same connection (RESP3 lets replies and events share one; under RESP2 a second connection asks). So nothing depends
on the wording of events, nor on receiving all of them. Holds its hub weakly, so that the hub's users decide its end.
"""

from __future__ import annotations

import logging
import threading
import weakref
from contextlib import suppress
from time import monotonic
from typing import TYPE_CHECKING

from hatopo import errors
from hatopo.address import Address
from hatopo.client._asking import QUERY_TIMEOUT, ask
from hatopo.connection import Patience, Wire
from hatopo.topology import CHANNELS, Word, parse_word

if TYPE_CHECKING:
    from hatopo.client._hub import Hub

log = logging.getLogger("hatopo.sentinel")

POLL = 10.0
"""Seconds between two questions to a sentinel whose events are heard, +-20 %."""
FAST_POLL = 1.0
"""The same, where it does not let us subscribe."""
PAUSE, PAUSE_MAX = 0.2, 5.0
PATIENCE = 1.0
ENOUGH = 3
"""Failures after which another sentinel is listened to, if there is one."""
STEADY = 5.0
"""Seconds that a session must have lasted before its end counts as the first failure."""
ASK_GAP = 0.05
"""Seconds between two questions about a service that events ask for."""


class Listener:
    """See the module.

    Args:
        hub: whom to tell.
        address: the sentinel.
    """

    def __init__(self, hub: weakref.ref[Hub], address: Address) -> None:
        self.address = address
        self.hears = False  # events of this sentinel arrive
        self._hub = hub
        self._wire: Wire | None = None
        self._stopped = False
        self._bell = threading.Lock()  # released to end a pause
        self._bell.acquire()
        self._words: list[Word] = []  # heard and not handed on yet
        self._channels = 0  # subscriptions that were confirmed
        self._asked: dict[str, float] = {}  # by service: when the sentinel was asked last
        self._hints: dict[str, float] = {}  # by service: when it is to be asked because of what it has published

    def stop(self) -> None:
        """Ends the thread, from any other."""
        self._stopped = True
        wire = self._wire
        if wire is not None:
            wire.abort()
        with suppress(RuntimeError):
            self._bell.release()

    def disown(self) -> None:
        """In a forked child, where the thread does not exist: lets go of what is the parent's."""
        self._stopped = True
        if self._wire is not None:
            self._wire.disown()

    def run(self) -> None:
        """The thread."""
        failures = 0
        while not self._stopped:
            reason, began = "", monotonic()
            try:
                self._session()
            except Exception as error:  # credential providers are the user's: whatever it is, it may be over next time
                reason = f"{type(error).__name__}: {errors.clip(error)}"
            heard, self.hears = self.hears, False
            failures = 1 if heard and monotonic() - began > STEADY else failures + 1
            if not self._tell(reason, heard, failures):
                return
            pause = min(PAUSE_MAX, PAUSE * 2.0 ** min(failures - 1, 8))
            self._bell.acquire(timeout=pause)

    def _tell(self, reason: str, heard: bool, failures: int) -> bool:
        """Tells the hub that the session has ended; False if nobody listens to us any more."""
        hub = self._hub()
        if hub is None or self._stopped:
            return False
        hub.collapse(self.address)
        if heard:
            hub.lost(self, reason)
        elif failures >= ENOUGH:
            hub.another(self)
        return not self._stopped

    def _session(self) -> None:
        """Connects, subscribes, and hands on what is heard, until the connection ends."""
        hub = self._hub()
        if hub is None:
            self._stopped = True
            return
        self._words, self._channels = [], 0
        self._asked, self._hints = {}, {}
        wire = self._wire = hub.make_wire(self.address, self._pushed)
        rng = hub.rng
        del hub
        try:
            wire.connect()
            self._subscribe(wire)
            self._poll(wire, first=True)
            while not self._stopped:
                poll = monotonic() + (POLL if self._channels else FAST_POLL) * rng.uniform(0.8, 1.2)
                while not self._stopped and monotonic() < poll:
                    due = min([poll, *self._hints.values()])
                    if wire.readable(due - monotonic()):
                        self._receive(wire)
                    self._hand_on(wire)
                if not self._stopped:
                    self._poll(wire)
        except errors.NodeError:
            self._pass_on()  # a leader's last words may have come together with its end
            raise
        finally:
            self._wire = None
            wire.disconnect()

    def _subscribe(self, wire: Wire) -> None:
        """Subscribes to each channel by itself: an ACL may allow some only, or none."""
        patience = Patience(PATIENCE)
        wire.send(b"".join(wire.pack(("SUBSCRIBE", channel)) for channel in CHANNELS), patience)
        if wire.protocol == 3:  # confirmations are pushes, refusals are replies: the one to a PING tells where they end
            wire.send(wire.pack(("PING",)), patience)
            replies = 0
            while self._channels + replies <= len(CHANNELS):
                wire.read(patience)
                replies += 1
        else:
            for _ in CHANNELS:
                self._pushed(wire.read(patience, decode=False))

    def _pushed(self, message: object) -> None:
        """What a subscription brings; called while something else is read."""
        if not isinstance(message, (list, tuple)) or len(message) != 3:
            return
        kind, channel, payload = message
        if kind in (b"subscribe", "subscribe"):
            self._channels += 1
        elif kind in (b"message", "message"):
            word = parse_word(channel, payload)
            if word is not None:
                self._words.append(word)

    def _receive(self, wire: Wire) -> None:
        messages = wire.drain()
        if wire.protocol == 3 and messages:
            raise errors.ProtocolError(f"{self.address} sent a reply that nobody asked for", self.address)
        for message in messages:
            self._pushed(message)

    def _hand_on(self, wire: Wire) -> None:
        """Hands on what was heard, and asks about what it was about: at once, but not for each word."""
        while self._words or any(due <= monotonic() for due in self._hints.values()):
            self._pass_on()
            hub = self._hub()
            if hub is None:
                return
            now = monotonic()
            ripe = {service for service, due in self._hints.items() if due <= now}
            if ripe:
                self._ask(wire, hub, ripe)
            del hub

    def _pass_on(self) -> None:
        """Hands on what was heard, and notes whom to ask because of it."""
        words, self._words = self._words, []
        hub = self._hub()
        if hub is None:
            return
        for word in words:
            if hub.word(word, self.address):
                due = max(monotonic(), self._asked.get(word.service, 0.0) + ASK_GAP)
                self._hints.setdefault(word.service, due)

    def _poll(self, wire: Wire, *, first: bool = False) -> None:
        hub = self._hub()
        if hub is None:
            return
        self._ask(wire, hub, {service.name for service in hub.services})
        if first and not self._stopped:
            self.hears = bool(self._channels)
            if self.hears:
                hub.found(self.address)
            else:
                log.info("the sentinel at %s permits no subscription: it is asked every second", self.address)
        del hub
        self._hand_on(wire)

    def _ask(self, wire: Wire, hub: Hub, services: set[str]) -> None:
        for name in services:
            self._hints.pop(name, None)
            self._asked[name] = monotonic()
        wanted = [service for service in hub.services if service.name in services]
        if not wanted:
            hub.stop_if_unused()
            if wire.protocol == 3:  # nothing to ask, but is it there?
                wire.send(wire.pack(("PING",)), Patience(QUERY_TIMEOUT))
                wire.read(Patience(PATIENCE))
            return
        for service in wanted:
            if wire.protocol == 3:
                service.heard(ask(wire, service.name, hub.admit))
            else:
                service.heard(hub.ask(self.address, service.name))
