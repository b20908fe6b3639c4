"""Scripted sentinels and nodes on loopback: a deployment that says and does exactly what a test wants.

A `World` is some nodes, the sentinels that watch them, and clients of it; all end with it:

    with World() as world:
        a, b, *_ = world.nodes
        client = world.client()
        client.set("k", "v")
        world.promote(b, 2)
        ...

Each is a `FaultyServer`, so that rules, counts and faults are as in `tests.faulty`. A sentinel says what its `watches`
hold, and publishes only what it is told to; nothing follows from anything by itself.
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import hatopo
from hatopo.events import SentinelFound
from tests.control import HOST, eventually
from tests.faulty import CLOSE, FaultyServer, Peer
from tests.tinyredis import OK, Command, Refusal, Session, encode

if TYPE_CHECKING:
    from collections.abc import Iterable
    from types import TracebackType

    from hatopo.address import Address

Endpoint = tuple[str, int]
NAME = "m"
_letters = itertools.cycle("0123456789abcdef")


def master_of(client: hatopo.Redis) -> Endpoint | None:
    """Where a client sends its writes."""
    topology = client.topology
    master = None if topology is None else topology.shards[0].master
    return None if master is None else (master.address.host, master.address.port)


def push(*words: str | int) -> bytes:
    """The bytes of a RESP3 push."""
    return b">" + encode(words, 3)[1:]


class Fake(FaultyServer):
    """What scripted sentinels and nodes have in common: any login is right, and they can die or fall silent."""

    kind = "master"
    """What HELLO says."""

    def __init__(self, host: str = HOST, port: int = 0) -> None:
        super().__init__()
        if (host, port) != (HOST, 0):
            self._listener.close()
            self._listener = socket.create_server((host, port), backlog=256)
        self.address: Endpoint = self._listener.getsockname()[:2]
        self.port = self.address[1]
        self.lag = 0.0  # seconds before each reply

    def kill(self) -> None:
        """Ends all connections and refuses new ones."""
        if self._running:
            super().__exit__()

    def __exit__(self, *exc: object) -> None:
        self.kill()

    def freeze(self) -> None:
        """Takes in whatever comes and never replies again."""
        self.on().delay_reply_until(threading.Event())

    def _login(self, session: Session, words: Command) -> Any:
        session.authenticated = True
        return OK

    def _hello(self, session: Session, command: Command) -> Any:
        facts = super()._hello(session, command)
        return {**facts, "role": self.kind} if isinstance(facts, dict) else facts

    def _serve(self, peer: Peer, command: Command) -> None:
        if self.lag:
            peer.out.append(self.lag)
        super()._serve(peer, command)


class FakeNode(Fake):
    """A data node. `follow(None)` makes it a master, `follow(other)` a replica; nothing is replicated."""

    def __init__(self, port: int = 0, run_id: str = "") -> None:
        super().__init__(port=port)
        self.run_id = run_id or f"{self.port:040d}"
        self.master: FakeNode | None = None

    def follow(self, master: FakeNode | None) -> None:
        self.kind, self.master = ("master" if master is None else "replica"), master

    def _do_role(self) -> Any:
        return ["master", 0, []] if self.master is None else ["slave", *self.master.address, "connected", 0]

    def _do_info(self, *_: bytes) -> Any:
        return f"# Server\r\nrun_id:{self.run_id}\r\n"

    def _execute(self, session: Session, name: str, command: Command) -> Any:
        if self.master is not None and name in ("SET", "INCRBY"):
            return Refusal("READONLY You can't write against a read only replica.")
        return super()._execute(session, name, command)


@dataclass(frozen=True)
class Watch:
    """What a sentinel says of a service."""

    master: FakeNode
    epoch: int = 1
    replicas: tuple[FakeNode, ...] = ()
    others: tuple[FakeSentinel, ...] = ()
    run_id: str | None = None  # None: the master's
    down_after: int = 1000  # milliseconds


class FakeSentinel(Fake):
    """A sentinel that says of each service what `watches` holds."""

    kind = "sentinel"

    def __init__(self, host: str = HOST, port: int = 0) -> None:
        super().__init__(host, port)
        self.id = next(_letters) * 20 + f"{self.port:020d}"
        self.watches: dict[str, Watch] = {}
        self.forbidden: set[str] = set()  # subcommands of SENTINEL
        self.answered = 0  # rounds of questions
        self._subscribers: list[Peer] = []

    def say(self, name: str = NAME, **changes: Any) -> None:
        """Says something else of a service from now on."""
        self.watches[name] = replace(self.watches[name], **changes)

    @property
    def listeners(self) -> int:
        """How many connections listen to its events."""
        return sum(peer in self._peers for peer in dict.fromkeys(self._subscribers))

    def publish(self, channel: str, text: str) -> None:
        self.send_raw(push("message", channel, text))

    def send_raw(self, data: bytes) -> None:
        """Sends these bytes to all who listen."""

        def send() -> None:
            for peer in self._listening():
                peer.say(data)
                self._send(peer)

        self._ask(send)

    def breathe_its_last(self, data: bytes) -> None:
        """Sends these bytes to all who listen, and its end with them; nobody reaches it any more."""

        def send() -> None:
            for peer in self._listening():
                peer.say(data)
                peer.out.append(CLOSE)
                self._send(peer)

        self._ask(send)
        self.kill()

    def drop_listeners(self) -> None:
        """Ends the connections of all who listen."""

        def drop() -> None:
            for peer in self._listening():
                self._drop(peer)

        self._ask(drop)

    def _listening(self) -> list[Peer]:
        self._subscribers = [peer for peer in dict.fromkeys(self._subscribers) if peer in self._peers]
        return self._subscribers

    def _serve(self, peer: Peer, command: Command) -> None:
        if command[0].upper() != b"SUBSCRIBE":
            super()._serve(peer, command)
            return
        self.received["SUBSCRIBE"] += 1
        self._subscribers.append(peer)
        for channel in command[1:]:
            peer.say(push("subscribe", channel.decode(), 1))

    def _do_sentinel(self, question: bytes, *words: bytes) -> Any:
        asked = question.decode().upper()
        if asked in self.forbidden:
            return Refusal("NOPERM this user has no permissions to run the 'sentinel' command")
        if asked == "MYID":
            self.answered += 1
            return self.id
        if asked == "MASTERS":
            return [{"name": name} for name in self.watches]
        watch = self.watches.get(words[0].decode())
        if watch is None:
            return None if asked == "GET-MASTER-ADDR-BY-NAME" else Refusal("ERR No such master with that name")
        return self._of(watch, asked)

    @staticmethod
    def _of(watch: Watch, asked: str) -> Any:
        host, port = watch.master.address
        if asked == "GET-MASTER-ADDR-BY-NAME":
            return [host, str(port)]
        if asked == "MASTER":
            return {
                **_entry(watch.master.address, watch.master.run_id if watch.run_id is None else watch.run_id, "master"),
                "config-epoch": str(watch.epoch),
                "down-after-milliseconds": str(watch.down_after),
                "quorum": "2",
            }
        if asked == "REPLICAS":
            return [_entry(node.address, node.run_id, "slave") for node in watch.replicas]
        return [_entry(other.address, other.id, "sentinel") for other in watch.others]


def _entry(address: Endpoint, run_id: str, flags: str) -> dict[str, str]:
    return {"name": NAME, "ip": address[0], "port": str(address[1]), "runid": run_id, "flags": flags}


class World:
    """See the module. The first node is the master at epoch 1, the others its replicas."""

    def __init__(self, nodes: int = 2, sentinels: int = 3, **watch: Any) -> None:
        self._stack = contextlib.ExitStack()
        self.nodes = [self.add_node() for _ in range(nodes)]
        for node in self.nodes[1:]:
            node.follow(self.nodes[0])
        self.sentinels = [self.add(FakeSentinel()) for _ in range(sentinels)]
        self.settle(self.nodes[0], 1, **watch)

    def __enter__(self) -> World:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.__exit__(kind, error, trace)

    def add(self, sentinel: FakeSentinel) -> FakeSentinel:
        """Runs a sentinel until the world ends; nobody tells of it."""
        self._stack.enter_context(sentinel)
        return sentinel

    def add_node(self, port: int = 0, run_id: str = "") -> FakeNode:
        """Runs a node until the world ends; nobody tells of it."""
        node = FakeNode(port, run_id)
        self._stack.enter_context(node)
        return node

    def client(self, name: str = NAME, *, seeds: Iterable[Endpoint] | None = None, **options: Any) -> hatopo.Redis:
        """A client that is closed when the world ends; `seeds` (None): all sentinels."""
        addresses = [sentinel.address for sentinel in self.sentinels] if seeds is None else list(seeds)
        client = hatopo.sentinel(name, addresses, **{"failover_timeout": 5.0, **options})
        self._stack.callback(client.close)
        return client

    def listening_client(self, **options: Any) -> hatopo.Redis:
        """A client that has written, and has listeners at all sentinels that have heard what those say at first."""
        client = self.client(**options)
        heard: set[Address] = set()
        end = client.subscribe_events(
            lambda event: heard.add(event.address) if isinstance(event, SentinelFound) else None
        )
        assert client.set("k", "v") is True
        eventually(lambda: len(heard) == len(self.sentinels))
        end()
        return client

    def listened_to(self) -> bool:
        """Whether somebody listens to every sentinel."""
        return all(sentinel.listeners for sentinel in self.sentinels)

    def settle(self, master: FakeNode, epoch: int, by: Iterable[FakeSentinel] | None = None, **watch: Any) -> None:
        """Has sentinels (None: all) name this master from now on; nothing is published."""
        for sentinel in self.sentinels if by is None else by:
            others = tuple(other for other in self.sentinels if other is not sentinel)
            replicas = tuple(node for node in self.nodes if node is not master)
            sentinel.watches.setdefault(NAME, Watch(master))
            sentinel.say(master=master, epoch=epoch, replicas=replicas, others=others, **watch)

    def switch(self, master: FakeNode, epoch: int, by: Iterable[FakeSentinel] | None = None) -> None:
        """`settle`, and publishes it."""
        speaking = list(self.sentinels if by is None else by)
        self.settle(master, epoch, speaking)
        old = next(node for node in self.nodes if node is not master)
        for sentinel in speaking:
            sentinel.publish("+switch-master", f"{NAME} {_words(old)} {_words(master)}")

    def select(self, candidate: FakeNode, by: FakeSentinel) -> None:
        """A sentinel publishes that it has selected a replica for promotion."""
        by.publish("+selected-slave", self.selection(candidate))

    def selection(self, candidate: FakeNode) -> str:
        """What a sentinel publishes that has selected a replica for promotion."""
        return f"slave x {_words(candidate)} @ {NAME} {_words(self.nodes[0])}"


def _words(node: FakeNode) -> str:
    return f"{node.address[0]} {node.address[1]}"
