"""Handles: what a test holds in its hands, of a server that lives on the loop's thread.

Every call crosses over to that thread and returns when it is done, so handles may be used from any thread, and from
tasks: nothing here waits for time to pass, but `execute`, for as long as its `timeout` says. What the calls do is
decided by the servers.
"""

from __future__ import annotations

import concurrent.futures
import functools
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from hatopo.testing import _checks
from hatopo.testing._access import ADMIN
from hatopo.testing._control import ServerError
from hatopo.testing._member import DataMember, Member
from hatopo.testing._reply import NULL_ARRAY, ErrorReply, Reply, number_text
from hatopo.testing.server._faults import Fault, Kind
from hatopo.testing.server._server import Server
from hatopo.testing.world._loop import LOOP

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hatopo.testing.node._node import DataNode  # noqa: F401 - the types of what handles hold
    from hatopo.testing.sentinel import SentinelServer  # noqa: F401
    from hatopo.testing.server._session import Session
    from hatopo.testing.world._world import Address

S = TypeVar("S", bound=Server)
T = TypeVar("T")


class ServerHandle(Member, Generic[S]):
    """What data nodes and sentinels have in common: an address, a life, and somebody to ask."""

    def __init__(self, server: S, name: str, login: tuple[str, ...] = ()) -> None:
        self._server = server
        self.name = name
        self._login = login
        self.announced = None

    @property
    def address(self) -> Address:
        return self._server.address

    @property
    def running(self) -> bool:
        return self._server.running

    @property
    def paused(self) -> bool:
        return self._server.paused

    @property
    def _speaks_tls(self) -> bool:
        return self._server.tls is not None

    def execute(self, *words: str | int | float | bytes, timeout: float = 10.0) -> Any:
        packed = _checks.words(words)
        asked: concurrent.futures.Future[Any] = concurrent.futures.Future()
        session = LOOP.call(lambda: _ask(self._server, packed, asked))
        try:
            return asked.result(timeout)
        except concurrent.futures.TimeoutError:
            raise TimeoutError(f"{self.name} has not answered within {timeout} s") from None
        finally:
            LOOP.call(session.end)

    def _call(self, function: Callable[[], T]) -> T:
        """Run a function where the server lives, at the time that it is."""

        def run() -> T:
            self._server.world.clock.catch_up()
            return function()

        return LOOP.call(run)

    def _hang_up(self, function: Callable[[], T]) -> T:
        """Run a function that closes connections; their sockets are closed when this returns."""

        async def run() -> T:
            self._server.world.clock.catch_up()
            result = function()
            await LOOP.settle()
            return result

        return LOOP.wait(run())

    def kill(self) -> None:
        """End it at once, as by SIGKILL; its connections are closed when this returns."""
        self._hang_up(self._server.kill)

    def stop(self) -> None:
        """Shut it down, as by SIGTERM; its connections are closed when this returns."""
        self._hang_up(self._server.shut_down)

    def start(self) -> None:
        """Start it, if it does not run, as it was configured."""
        if not self.running:
            LOOP.wait(self._server.restart())

    def restart(self) -> None:
        """Kill it, if it runs, and start it again at the same port."""
        LOOP.wait(self._server.restart())

    def pause(self) -> None:
        """Make it stand still, as by SIGSTOP: connections stay open, nothing is answered."""

        def pause() -> None:
            if not self._server.running:
                raise RuntimeError(f"{self.name} does not run")
            self._server.pause()

        self._call(pause)

    def resume(self) -> None:
        """The end of `pause`, as by SIGCONT."""
        self._call(self._server.resume)

    def refuse(self, refusing: bool = True) -> None:
        """Refuse new connections; those that are there stay."""
        LOOP.wait(self._server.refuse(refusing))

    def disconnect(self, kind: str = "normal") -> int:
        """Close connections of clients: "normal", "pubsub", "replica", "master" or "all"; returns how many.

        Raises:
            ConnectionRefusedError: the server does not run.
            TimeoutError: it is paused.
        """

        def disconnect() -> int:
            if not self._server.running:
                raise ConnectionRefusedError(f"nobody listens at {self.host}:{self.port}")
            if self._server.paused:
                raise TimeoutError(f"{self.name} is paused")
            return self._server.disconnect(kind)

        return self._hang_up(disconnect)

    def announce(self, host: str, port: int) -> None:
        """Be known to the others by this address, which may be a wrong one; a restart keeps it."""
        _checks.address((host, port))
        self.announced = (host, port)
        self._call(lambda: self._tell(host, port))

    def _tell(self, host: str, port: int) -> None:
        """Let the server announce another address."""
        raise NotImplementedError

    # Faults on commands: of clients, not of servers among each other. What MULTI queues meets none; EXEC does.

    def _fault(self, fault: Fault) -> Fault:
        if fault.command != "*" and self._server.table.named(fault.command.encode()) is None:
            raise ValueError(f"there is no command {fault.command!r}")
        return self._call(lambda: self._server.faults.add(fault))

    def fail(self, command: str, error: str, times: int | None = 1, after: int = 0) -> Fault:
        """Answer a command with an error instead of running it.

        Args:
            command: its name, as "get" or "client|list"; "*" is any command.
            error: the error reply, code first: "OOM command not allowed ...".
            times: how often; None: for ever.
            after: how many commands of this name are spared first.

        Returns:
            The fault: its `met` counts how often it has happened.

        Raises:
            ValueError: there is no such command.
        """
        return self._fault(Fault(Kind.FAIL, command.lower(), times, after, error=error))

    def delay(self, command: str, seconds: float, times: int | None = 1, after: int = 0) -> Fault:
        """Run a command only after so many seconds of the wall's clock."""
        return self._fault(Fault(Kind.DELAY, command.lower(), times, after, delay=seconds))

    def cut_reply(self, command: str, after_bytes: int, times: int | None = 1, after: int = 0) -> Fault:
        """Run a command, send so many bytes of its reply, and close the connection."""
        return self._fault(Fault(Kind.CUT, command.lower(), times, after, cut=after_bytes))

    def drop_before(self, command: str, times: int | None = 1, after: int = 0) -> Fault:
        """Close the connection instead of running a command."""
        return self._fault(Fault(Kind.DROP, command.lower(), times, after))

    def drop_after_execute(self, command: str, times: int | None = 1, after: int = 0) -> Fault:
        """Run a command, and close the connection instead of answering: the client cannot know."""
        return self._fault(Fault(Kind.CUT, command.lower(), times, after))

    def clear_faults(self) -> None:
        """The end of all faults on commands."""
        self._call(self._server.faults.clear)


class NodeHandle(ServerHandle["DataNode"], DataMember):
    """A data node."""

    def _tell(self, host: str, port: int) -> None:
        self._server.announce(host, port)

    def configure(self, **settings: str | int) -> None:
        """CONFIG SET, if it runs; a restart keeps it."""
        for name, value in settings.items():
            parameter = name.replace("_", "-")
            if self.running:
                self.execute("CONFIG", "SET", parameter, value)
            self._call(functools.partial(self._keep, parameter, str(value)))
            if parameter == "requirepass" and self._login[:1] != ADMIN[:1]:
                self._login = (str(value),) if value else ()

    def _keep(self, parameter: str, value: str) -> None:
        try:
            self._server.config.set(parameter, value)
        except ErrorReply as error:
            raise ServerError(error.text) from error

    def restart(self, empty: bool = False) -> None:
        """Kill it, if it runs, and start it again at the same port.

        Args:
            empty: without its data, as a node that does not persist; otherwise it has all that it acknowledged.
        """
        self.kill()
        if empty:
            self._call(self._server.lose_data)
        super().restart()

    def set_lag(self, seconds: float = 0.0, ops: int = 0) -> None:
        """Let this replica apply what it receives so many seconds, or so many writes, later."""
        _checks.number("seconds", seconds, 0)
        _checks.count("ops", ops, 0)
        self._call(lambda: self._server.replication.set_lag(seconds, ops))

    def set_loading(self, loading: bool = True) -> None:
        """Answer LOADING, as a node that reads its data from disk."""
        self._call(lambda: self._server.set_loading(loading))


class SentinelHandle(ServerHandle["SentinelServer"]):
    """A sentinel."""

    def _tell(self, host: str, port: int) -> None:
        self._server.announce(host, port)

    def swallow(self, event: str, times: int | None = None) -> None:
        """Do not publish an event: "+switch-master"; so often, or for ever."""
        if not isinstance(event, str):
            raise TypeError(f"an event is named by text, as '+switch-master', not {event!r}")
        if times is not None:
            _checks.count("times", times, 1)
        self._call(lambda: self._server.swallow(event, times))

    def lie(self, master: Address, epoch: int | None = None) -> None:
        """Name another master than it believes in, whoever asks, under this configuration epoch."""
        _checks.address(master)
        if epoch is not None:
            _checks.count("epoch", epoch, 0)
        self._call(lambda: self._server.lie(master, epoch))

    def honest(self) -> None:
        """The end of `lie` and `swallow`."""
        self._call(self._server.honest)


class _Asker:
    """The peer of `execute`: nobody whom a partition could cut off."""

    party: Any = None

    def __init__(self, asked: concurrent.futures.Future[Any]) -> None:
        self._asked = asked

    def deliver(self, reply: Reply, protocol: int, limit: int | None = None) -> None:
        if self._asked.done():
            return
        if isinstance(reply, ErrorReply):
            self._asked.set_exception(ServerError(reply.text))
        else:
            self._asked.set_result(_as_resp2(reply))

    def push(self, message: Sequence[Reply], protocol: int) -> None:
        self.deliver([*message], protocol)

    def ended(self, reason: str, *, flush: bool = True) -> None:
        if not self._asked.done():
            self._asked.set_exception(ConnectionResetError(reason))


def _ask(server: Server, words: list[bytes], asked: concurrent.futures.Future[Any]) -> Session:
    if not server.running:
        raise ConnectionRefusedError(f"nobody listens at {server.address[0]}:{server.address[1]}")
    server.world.clock.catch_up()
    session = server.open_session(_Asker(asked), ("127.0.0.1", 0))
    try:
        session.exempt = True
        session.user = server.superuser
        session.update_guard()
        session.feed(words)
    except BaseException:
        session.end()
        raise
    return session


def _as_resp2(reply: Reply) -> Any:
    """A reply as a raw RESP2 connection shows it."""
    if reply is None or reply is NULL_ARRAY:
        return None
    if isinstance(reply, ErrorReply):
        return ServerError(reply.text)
    if isinstance(reply, bytes):
        return reply.decode("utf-8", "surrogateescape")
    if isinstance(reply, (bool, int)):
        return int(reply)
    if isinstance(reply, float):
        return number_text(reply)
    if isinstance(reply, dict):
        return [_as_resp2(part) for pair in reply.items() for part in pair]
    if isinstance(reply, (list, tuple)):
        return [_as_resp2(part) for part in reply]
    return str(reply)
