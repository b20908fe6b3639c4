"""Delivers events to callbacks, off the thread on which they happened.

One callback after the other, in the order of the events; one that fails is logged and harms nobody. The thread is there
only while there is something to deliver.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import TypeAlias

from hatopo.client._threads import start_thread
from hatopo.connection import survive_fork
from hatopo.events import Event

log = logging.getLogger("hatopo.events")

Callback: TypeAlias = Callable[[Event], object]
MAX_WAITING = 10_000
LINGER = 1.0
"""Seconds for which the thread waits for more."""


class Bulletin:
    """The subscribers of a deployment's events."""

    def __init__(self) -> None:
        self._callbacks: tuple[Callback, ...] = ()  # replaced whole under _lock
        self.after_fork()
        survive_fork(self)

    def after_fork(self) -> None:
        """In a forked child there is no thread, and what the parent had to deliver is the parent's."""
        self._lock = threading.Lock()
        self._events: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._delivering = False  # a thread is there; under _lock
        self._full = False

    def subscribe(self, callback: Callback) -> Callable[[], None]:
        """Calls `callback` with every event from now on, until the returned function is called."""
        with self._lock:
            self._callbacks = (*self._callbacks, callback)

        def end() -> None:
            with self._lock:
                rest = list(self._callbacks)
                if callback in rest:
                    rest.remove(callback)
                self._callbacks = tuple(rest)

        return end

    def emit(self, event: Event) -> None:
        """Has an event delivered."""
        if not self._callbacks:
            return
        if self._events.qsize() >= MAX_WAITING:
            if not self._full:
                self._full = True
                log.warning("a callback is too slow: %d events wait, more are dropped", MAX_WAITING)
            return
        self._full = False
        self._events.put(event)
        with self._lock:
            start, self._delivering = not self._delivering, True
        if not start:
            return
        started = False
        try:
            started = start_thread("hatopo-events", self._deliver_all)
        finally:
            if not started:
                self._delivering = False
        if not started:
            self._deliver_now()

    def _deliver_all(self) -> None:
        while True:
            try:
                event = self._events.get(timeout=LINGER)
            except queue.Empty:
                with self._lock:
                    if self._events.empty():
                        self._delivering = False
                        return
                continue
            self._deliver(event)

    def _deliver_now(self) -> None:
        """Without threads: by whom it happened to."""
        while not self._events.empty():
            self._deliver(self._events.get())

    def _deliver(self, event: Event) -> None:
        for callback in self._callbacks:
            try:
                callback(event)
            except BaseException:  # not even SystemExit ends the delivery
                log.exception("a callback failed at %s", type(event).__name__)
