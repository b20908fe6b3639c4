"""The sentinels of a process: shared by all clients that were given the same ones, whatever services they use.

Knows the sentinels and listens to a few of them; hands what they say to the services. Decides nothing about topology.
Held by its users alone: the registry and the listening threads hold it weakly, and the last user to go ends them.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Callable, Sequence
from random import Random
from time import monotonic
from typing import TYPE_CHECKING

from hatopo.address import Address
from hatopo.client._asking import QUERY_TIMEOUT, ask
from hatopo.client._listening import Listener
from hatopo.client._threads import start_thread, threads_run
from hatopo.connection import Wire, WireOptions, survive_fork
from hatopo.events import SentinelFound, SentinelLost
from hatopo.topology import Answer, Refused, Roster, Word, admit, server_name_for

if TYPE_CHECKING:
    from hatopo.client._sentinel_options import Watching
    from hatopo.client._service import Service

log = logging.getLogger("hatopo.sentinel")

CLIENT_NAME = "hatopo"
"""What SENTINEL shows in CLIENT LIST for connections of ours, unless another name was given."""
RETRY = 1.0
"""Seconds after which listeners that could not be started are tried again."""
MAX_WATCHED = 5
"""How many sentinels are listened to; the others are asked only. Early promotion is announced by the leader alone."""


class Hub:
    """See the module.

    Args:
        seeds: the configured sentinels.
        watching: how to connect to them, and what to believe.
    """

    def __init__(self, seeds: Sequence[Address], watching: Watching) -> None:
        self.seeds = tuple(seeds)
        self.watching = watching
        self.rng = Random()
        self.running = False  # listeners were started, or are not wanted; under _lock
        self._retry = 0.0  # not before this moment is starting them tried again
        self._roster = Roster(seeds)  # under _lock
        self._listeners: dict[Address, Listener] = {}  # by sentinel; under _lock
        self._services: weakref.WeakValueDictionary[str, Service] = weakref.WeakValueDictionary()
        self._refused: set[Address] = set()
        self._make_locks()
        survive_fork(self)
        weakref.finalize(self, _stop_all, self._listeners).atexit = False

    def _make_locks(self) -> None:
        self._lock = threading.RLock()

    def after_fork(self) -> None:
        """In a forked child nobody listens yet."""
        self._make_locks()
        self.running, self._retry = False, 0.0
        for listener in self._listeners.values():
            listener.disown()
        self._listeners.clear()

    # ------------------------------------------------------------------ services

    def service(self, name: str, make: Callable[[Hub, str], Service]) -> Service:
        """The one service of this name."""
        with self._lock:
            found = self._services.get(name)
            if found is None:
                found = self._services[name] = make(self, name)
            return found

    @property
    def services(self) -> list[Service]:
        """Those in use."""
        with self._lock:
            known = list(self._services.values())
        return [service for service in known if service.followed]

    # ------------------------------------------------------------------ listening

    def start(self) -> None:
        """Has somebody listen, if that is wanted and possible."""
        with self._lock:
            if self.running or monotonic() < self._retry:
                return
            self._retry = monotonic() + RETRY
            self.running = not self.watching.watch or not threads_run() or self._listen()

    def _listen(self) -> bool:
        """Sees to it that a listener is there for each known sentinel, up to a number; False if there cannot be."""
        addresses = self._roster.addresses()
        for address in [address for address in self._listeners if address not in addresses]:
            self._listeners.pop(address).stop()
        for address in addresses:
            if len(self._listeners) >= MAX_WATCHED:
                break
            if address not in self._listeners:
                listener = Listener(weakref.ref(self), address)
                if not start_thread(f"hatopo-sentinel-{address.host}:{address.port}", listener.run):
                    return False
                self._listeners[address] = listener
        return True

    def stop(self) -> None:
        """Ends listening, until `start`."""
        with self._lock:
            self.running, self._retry = False, 0.0
            _stop_all(self._listeners)

    def stop_if_unused(self) -> None:
        """Ends listening, if nobody follows a service any more."""
        with self._lock:
            if not self.services:
                self.stop()

    @property
    def listening(self) -> bool:
        """Whether a sentinel's events are heard."""
        return any(listener.hears for listener in list(self._listeners.values()))

    def found(self, address: Address) -> None:
        """A sentinel is heard."""
        log.info("listening to the sentinel at %s", address)
        for service in self.services:
            service.emit(SentinelFound(service.name, address))

    def lost(self, listener: Listener, reason: str) -> None:
        """A sentinel that was heard is not any more."""
        where = "" if str(listener.address) in reason else f"{listener.address}: "
        log.warning("a sentinel is lost: %s%s", where, reason)
        for service in self.services:
            service.emit(SentinelLost(service.name, listener.address, reason))
            service.lost(listener.address)

    def another(self, listener: Listener) -> None:
        """A listener cannot reach its sentinel: it gets one to which nobody listens, if there is one."""
        with self._lock:
            if self._listeners.get(listener.address) is not listener:
                listener.stop()
                return
            spare = [address for address in self._roster.addresses() if address not in self._listeners]
            if spare:
                del self._listeners[listener.address]
                listener.address = self.rng.choice(spare)
                self._listeners[listener.address] = listener

    def word(self, word: Word, sentinel: Address) -> bool:
        """A sentinel has published something; whether it is about a service in use."""
        with self._lock:
            service = self._services.get(word.service)
        if service is None or not service.followed:
            return False
        service.word(word, sentinel)
        return True

    # ------------------------------------------------------------------ asking: what a round needs

    def addresses(self) -> tuple[Address, ...]:
        """All known sentinels."""
        with self._lock:
            return self._roster.addresses()

    def expand(self, seed: Address, addresses: Sequence[Address]) -> tuple[Address, ...]:
        """A seed's name stands for these addresses; those of them that were not known."""
        with self._lock:
            news = self._roster.expand(seed, addresses)
            if news and self._listeners:
                self.running = self._listen()
            return news

    def collapse(self, address: Address) -> None:
        """One of them could not be asked."""
        with self._lock:
            self._roster.collapse(address)

    def ask(self, sentinel: Address, service: str) -> Answer:
        """Asks one sentinel on a connection of its own.

        Raises:
            redis.RedisError: it could not be asked.
        """
        wire = self.make_wire(sentinel)
        try:
            wire.connect()
            return ask(wire, service, self.admit)
        finally:
            wire.disconnect()

    def note(self, answer: Answer) -> None:
        """Takes in the sentinels that a sentinel told of."""
        others = [word for service in self.services for word in service.answers()]
        with self._lock:
            news = self._roster.note(answer, others)
            if news and self._listeners:
                self.running = self._listen()
        for address in news:
            log.info("%s told of a sentinel at %s", answer.sentinel, address)
            for service in self.services:
                service.emit(SentinelFound(service.name, address))

    def make_wire(self, sentinel: Address, on_push: Callable[[list[object]], None] | None = None) -> Wire:
        """An unconnected connection to a sentinel."""
        options = self.watching.connection
        with self._lock:
            name = self._roster.name_of(sentinel)
        wire = WireOptions(
            address=sentinel,
            max_reply_bytes=options.max_reply_bytes,
            on_push=on_push,
            server_name=server_name_for(options.tls_server_name, sentinel, self.seeds[0]) or name,
        )
        kwargs = {
            **options.connection_kwargs,
            "client_name": options.connection_kwargs.get("client_name") or CLIENT_NAME,
            "protocol": 3,
            "socket_timeout": QUERY_TIMEOUT,
            "socket_connect_timeout": QUERY_TIMEOUT,
            "host": sentinel.host,
            "port": sentinel.port,
        }
        return options.connection_class(wire=wire, **kwargs)

    def admit(self, announced: Address, said_by: Address) -> Address | Refused:
        """The address that is to be dialled for an announced one."""
        found = admit(self.watching.address_map, self.watching.allowed_hosts, announced, said_by)
        if isinstance(found, Refused) and announced not in self._refused:
            self._refused.add(announced)
            log.warning("%s announced %s, which is not dialled: %s", said_by, announced, found.why)
        return found


def _stop_all(listeners: dict[Address, Listener]) -> None:
    for listener in list(listeners.values()):
        listener.stop()
    listeners.clear()


class _Registry:
    """The hubs of this process."""

    def __init__(self) -> None:
        self._hubs: weakref.WeakValueDictionary[object, Hub] = weakref.WeakValueDictionary()
        self.after_fork()
        survive_fork(self)

    def after_fork(self) -> None:
        self._lock = threading.Lock()

    def hub_of(self, seeds: Sequence[Address], watching: Watching) -> Hub:
        """The hub of these sentinels: one for all clients that would ask them in the same way."""
        key = (watching.identity(seeds), watching.early_promotion, watching.watch)
        with self._lock:
            hub = self._hubs.get(key)
            if hub is None:
                hub = self._hubs[key] = Hub(seeds, watching)
            return hub


hub_of = _Registry().hub_of
