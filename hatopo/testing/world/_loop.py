"""The one thread of the embedded servers: a daemon with an asyncio loop, there while a deployment is.

All nodes of the process live on it, and every command runs to its end there, so nothing else in this room needs a
lock. It knows neither servers nor clocks.
"""

from __future__ import annotations

import asyncio
import concurrent.futures
import os
import threading
import weakref
from typing import TYPE_CHECKING, Any, Final, Protocol, TypeVar

if TYPE_CHECKING:
    import contextvars
    from collections.abc import Callable, Coroutine

T = TypeVar("T")


class HasSocket(Protocol):
    """What holds a socket of the thread."""

    @property
    def descriptor(self) -> int:
        """The number of the socket's file; -1: it has none any more."""


class LoopThread:
    """Starts with the first `acquire`, ends with the last `release`."""

    def __init__(self) -> None:
        self.sockets: weakref.WeakSet[HasSocket] = weakref.WeakSet()
        """What listens and what is connected: a forked child must let go of it."""
        self._lock = threading.Lock()
        self._users = 0
        self._thread: threading.Thread | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    def acquire(self) -> None:
        """Make sure that the thread runs until `release`."""
        with self._lock:
            self._users += 1
            if self._loop is None:
                self._loop = asyncio.new_event_loop()
                self._thread = threading.Thread(
                    target=self._run, args=(self._loop,), name="hatopo-testing", daemon=True
                )
                self._thread.start()

    def release(self) -> None:
        """The end of one `acquire`; returns when the thread has ended, if this was the last."""
        with self._lock:
            self._users -= 1
            if self._users or self._loop is None or self._thread is None:
                return
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join()
            self._loop = self._thread = None

    @staticmethod
    def _run(loop: asyncio.AbstractEventLoop) -> None:
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
            left = asyncio.all_tasks(loop)
            for task in left:
                task.cancel()
            if left:
                loop.run_until_complete(asyncio.wait(left))
            loop.run_until_complete(loop.shutdown_asyncgens())
        finally:
            asyncio.set_event_loop(None)
            loop.close()

    @property
    def loop(self) -> asyncio.AbstractEventLoop:
        """The loop; there is one between `acquire` and `release`."""
        if self._loop is None:
            raise RuntimeError("no deployment runs in this process: use it within its `with` block")
        return self._loop

    @property
    def running(self) -> bool:
        """Whether there is a loop."""
        return self._loop is not None

    def call(self, function: Callable[[], T]) -> T:
        """Run a function on the thread, and return what it returns."""
        if threading.current_thread() is self._thread:
            return function()
        done: concurrent.futures.Future[T] = concurrent.futures.Future()

        def run() -> None:
            try:
                done.set_result(function())
            except BaseException as error:
                done.set_exception(error)

        with self._lock:  # so that it comes before the loop's end, or finds none
            self.loop.call_soon_threadsafe(run)
        return done.result()

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine on the thread, and return what it returns; not to be called on the thread itself."""
        with self._lock:
            if self._loop is None:
                work.close()
            done = asyncio.run_coroutine_threadsafe(work, self.loop)
        try:
            return done.result()
        except concurrent.futures.CancelledError:
            raise RuntimeError("the deployment has ended meanwhile") from None

    @staticmethod
    async def settle() -> None:
        """Let transports that were closed close their sockets: they do so in the loop's next turns."""
        for _ in range(5):
            await asyncio.sleep(0)

    def call_later(
        self, seconds: float, callback: Callable[..., object], *args: Any, context: contextvars.Context | None = None
    ) -> asyncio.Handle:
        """`loop.call_later`, from the thread itself."""
        if seconds <= 0:
            return self.loop.call_soon(callback, *args, context=context)
        return self.loop.call_later(seconds, callback, *args, context=context)

    def forget(self) -> None:
        """Begin anew in a forked child, which has no such thread.

        The sockets become other files there: as long as a child had them, too, no connection of theirs would ever
        be closed, and a killed server would still accept some.
        """
        nowhere = os.open(os.devnull, os.O_RDWR)
        for one in [*self.sockets]:
            if one.descriptor >= 0:
                os.dup2(nowhere, one.descriptor)
        os.close(nowhere)
        self.__init__()  # type: ignore[misc]


LOOP: Final = LoopThread()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=LOOP.forget)
