"""The life of embedded servers: a world on the loop's thread, which is there while a deployment is."""

from __future__ import annotations

import contextlib
import os
import time
from typing import TYPE_CHECKING

from hatopo.testing._lifetime import Lifetime
from hatopo.testing.world._clock import Clock, ManualClock, RealClock
from hatopo.testing.world._loop import LOOP
from hatopo.testing.world._world import World

if TYPE_CHECKING:
    from hatopo.testing.server._server import Server

SETTLING = 0.05
"""Seconds of a manual clock between two looks."""


class Life(Lifetime):
    """A world and its life."""

    def _make_world(self, clock: Clock | None, seed: int | None) -> None:
        if not (clock is None or isinstance(clock, Clock)):
            raise TypeError(f"clock must be a clock, as ScaledClock(), not {clock!r}")
        if not (seed is None or isinstance(seed, int)):
            raise TypeError(f"seed must be a whole number, not {seed!r}")
        self.clock = clock or self._usual_clock()
        self._world = World(self.clock, seed)
        self._servers: list[Server] = []
        self._entered = False
        self._process = 0
        """Which process has started it; 0: none has."""

    @staticmethod
    def _usual_clock() -> Clock:
        return RealClock()

    def start(self) -> None:
        """Start all servers, and return when they are in place; once only."""
        with self._lock:
            if self._process:
                raise RuntimeError(f"a {type(self).__name__} lives once: make a new one")
            LOOP.acquire()
            self._entered, self._process = True, os.getpid()
            try:
                LOOP.call(self.clock.catch_up)
                self._start()
            except BaseException:
                self.close()
                raise

    def _start(self) -> None:
        raise NotImplementedError

    def _add(self, server: Server) -> None:
        """Take a server in, and let it begin to listen."""
        LOOP.call(server.bind)
        self._servers.append(server)
        LOOP.wait(server.start())

    def _drop(self, server: Server) -> None:
        """Stop a server that will not come again, and free its port."""
        self._servers.remove(server)
        LOOP.call(server.close)

    def close(self) -> None:
        """Stop all; nothing of it is left."""
        with self._lock:
            if self._entered:
                self._entered = False
                if self._process == os.getpid():  # a forked child has nothing to stop
                    try:
                        LOOP.wait(self._close())
                    finally:
                        LOOP.release()

    async def _close(self) -> None:
        with contextlib.ExitStack() as stack:
            stack.callback(self._world.close)
            for server in self._servers:
                stack.callback(server.close)
        await LOOP.settle()

    def _let_pass(self) -> float:
        if isinstance(self.clock, ManualClock):
            self.clock.advance(SETTLING)
            return SETTLING
        time.sleep(0.001)
        return 0.0
