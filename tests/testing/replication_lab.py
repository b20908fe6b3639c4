"""A laboratory of embedded data nodes whose time stands still but for `Lab.pass_time`; clients use bare sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import pytest

from hatopo.testing.node._node import DataNode
from hatopo.testing.world._clock import ManualClock
from hatopo.testing.world._loop import LOOP
from hatopo.testing.world._world import World
from tests.control import Control, ServerError, eventually

if TYPE_CHECKING:
    from hatopo.testing.replication._replication import Replication

T = TypeVar("T")
START = 1_700_000_000.0


class Node:
    """A data node and a client of it."""

    def __init__(self, server: DataNode) -> None:
        self.server = server
        self._control: Control | None = None

    @property
    def port(self) -> int:
        return self.server.address[1]

    @property
    def replication(self) -> Replication:
        return self.server.replication

    def __call__(self, *words: str | int) -> Any:
        """What the node answers, an error included."""
        if self._control is None:
            self._control = Control(self.server.address)
        try:
            return self._control(*words)
        except ServerError as error:
            return f"-{error}"
        except OSError:
            self.close()
            raise

    def send(self, *words: str) -> Control:
        """A client of its own that has sent a command and not read the answer."""
        client = Control(self.server.address)
        client._socket.sendall(" ".join(words).encode() + b"\r\n")
        return client

    def info(self) -> dict[str, str]:
        return dict(line.split(":", 1) for line in self("INFO", "replication").splitlines()[1:])

    def stats(self) -> tuple[int, int, int]:
        """Full and partial synchronizations as a master, and partial ones that were refused."""
        counted = self.server.stats
        return counted["sync_full"], counted["sync_partial_ok"], counted["sync_partial_err"]

    def state(self) -> str:
        """The state of a replica's link."""
        return str(self("ROLE")[3])

    def close(self) -> None:
        if self._control is not None:
            self._control.close()
            self._control = None


class Lab:
    """A world of nodes whose time is the test's."""

    def __init__(self) -> None:
        LOOP.acquire()
        self.clock = ManualClock(START)
        self.world = World(self.clock, seed=7)
        self.nodes: list[Node] = []

    def run(self, function: Callable[[], T]) -> T:
        return LOOP.call(function)

    def pass_time(self, seconds: float = 0.2) -> None:
        """Let time pass; a full synchronization fits into the usual piece of it."""
        self.clock.advance(seconds)

    def node(self, master: Node | None = None, config: Mapping[str, str | int] | None = None) -> Node:
        settings = {name.replace("_", "-"): str(value) for name, value in (config or {}).items()}
        server = self.run(lambda: DataNode(self.world, config=settings))
        node = Node(server)
        self.nodes.append(node)
        self.run(server.bind)
        if master is not None:
            server.replication.configure(master.server.address)
        LOOP.wait(server.start())
        self.pass_time()
        return node

    def set_up(self, replicas: int, **config: str | int) -> list[Node]:
        """A master and replicas that are in place."""
        master = self.node(None, config)
        found = [master, *(self.node(master, config) for _ in range(replicas))]
        self.pass_time(1)
        assert [one.state() for one in found[1:]] == ["connected"] * replicas
        return found

    def kill(self, node: Node) -> None:
        node.close()
        self.run(node.server.kill)

    def restart(self, node: Node, *, empty: bool = False) -> None:
        self.kill(node)
        if empty:
            self.run(node.server.lose_data)
        LOOP.wait(node.server.restart())

    def cut(self, one: Node, other: Node) -> None:
        self.run(lambda: self.world.cut([one.server], [other.server]))

    def heal(self) -> None:
        self.run(self.world.heal)

    def blocked(self, node: Node, clients: int) -> None:
        """Return when so many clients are blocked there."""
        eventually(lambda: self.run(lambda: len(node.server.waiters.sessions)) == clients)

    async def _end(self) -> None:
        self.world.heal()
        for node in self.nodes:
            node.server.close()
        self.world.close()
        for _ in range(3):
            await asyncio.sleep(0)

    def close(self) -> None:
        for node in self.nodes:
            node.close()
        LOOP.wait(self._end())
        LOOP.release()


@pytest.fixture
def lab() -> Iterator[Lab]:
    """A laboratory of the test's own; modules of tests import this fixture."""
    found = Lab()
    try:
        yield found
    finally:
        found.close()
