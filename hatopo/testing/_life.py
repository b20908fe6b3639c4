"""The life of a deployment: a world that begins and ends with a `with` block, in either colour."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from typing import TYPE_CHECKING, TypeVar

import anyio.to_thread

from hatopo.testing._clock import Clock, ManualClock, RealClock
from hatopo.testing._control import ServerError
from hatopo.testing._loop import LOOP
from hatopo.testing._world import World

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

    from hatopo.testing._server import Server

T = TypeVar("T")
SETTLING = 0.05
"""Seconds of a manual clock between two looks."""


class Life:
    """A world and its life: it begins and ends with a `with` block, in either colour."""

    def __init__(self, clock: Clock | None, seed: int | None) -> None:
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

    def close(self) -> None:
        """Stop all; nothing of it is left."""
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
        for _ in range(5):  # transports close their sockets in the loop's next turns
            await asyncio.sleep(0)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        await anyio.to_thread.run_sync(self.start)
        return self

    async def __aexit__(self, *_: object) -> None:
        await anyio.to_thread.run_sync(self.close)

    def wait_until(self, check: Callable[[], T], seconds: float = 30.0, what: str = "") -> T:
        """Ask until `check` says something true, and return that; a manual clock is advanced meanwhile.

        Args:
            check: a server that does not answer, or answers with an error, means "not yet".
            seconds: how long to ask, by the wall's clock, or by the manual one.
            what: what is waited for, for the error.

        Raises:
            TimeoutError: it was not so in time.
        """
        now, last = time.monotonic, ""
        deadline, passed = now() + seconds, 0.0
        while True:
            try:
                if found := check():
                    return found
            except (OSError, ServerError) as error:
                last = f": {error}"
            if now() > deadline or passed > seconds:
                raise TimeoutError(f"not within {seconds:g} s: {what or check}{last}")
            if isinstance(self.clock, ManualClock):
                self.clock.advance(SETTLING)
                passed += SETTLING
            else:
                time.sleep(0.001)
