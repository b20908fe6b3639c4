"""The life of what a test starts: it begins and ends with a `with` block, in either colour, also a cancelled one.

Knows neither servers nor processes. What begins in one thread may end in another: one change of its life at a time.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, TypeVar

import anyio
import anyio.lowlevel
import anyio.to_thread

from hatopo.testing._control import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from typing_extensions import Self

T = TypeVar("T")


class Lifetime:
    """Started by `start` or by a `with` block, ended by `close` or by the end of the block."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        """Held while it starts and while it ends: an end waits for a start that was given up."""

    def start(self) -> None:
        """Start it, and return when it is in place; what has been started is stopped again if that fails."""
        raise NotImplementedError

    def close(self) -> None:
        """Stop all; nothing of it is left."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        try:
            await anyio.to_thread.run_sync(self.start)
            await anyio.lowlevel.checkpoint_if_cancelled()
        except BaseException:
            await self._aclose()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._aclose()

    async def _aclose(self) -> None:
        with anyio.CancelScope(shield=True):  # who is cancelled leaves nothing behind either
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
        return wait_until(check, seconds, what, self._let_pass)

    def _let_pass(self) -> float:
        """Between two looks; returns for how many seconds of a manual clock."""
        time.sleep(0.01)
        return 0.0
