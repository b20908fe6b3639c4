"""One face over the clients that a scenario runs on, and the load that counts what became of every call.

A driver is opened on a deployment and then called from several threads; whatever colour the client underneath
has is the driver's business. `PlainDriver` is redis-py itself: it proves that the ledger sees what it should.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

import redis
import redis.sentinel

import hatopo
from tests.control import eventually

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hatopo.events import Event
    from tests.control import Address


class Driver(Protocol):
    """What a scenario knows of a client."""

    def open_sentinel(self, service: str, sentinels: Sequence[Address], **options: Any) -> None: ...

    def open_standalone(self, address: Address, **options: Any) -> None: ...

    def call(self, command: str, *args: Any, **keywords: Any) -> Any:
        """The client's method of that name; safe to call from any thread."""
        ...

    def read(self, command: str, *args: Any, read_from: str = "") -> Read:
        """The same under this policy for reads, or under the client's own; who has answered is told with the reply."""
        ...

    def close(self) -> None: ...


class WatchingDriver(Driver, Protocol):
    """What a scenario knows of hatopo's clients besides."""

    def open_replicated(self, nodes: Sequence[Address] | None = None, **options: Any) -> None:
        """A client of `hatopo.replicated`: of nodes, or of the names given by `primary=` and `readers=`."""
        ...

    def nodes(self) -> dict[Address, hatopo.NodeStatus]:
        """`client.nodes()`, by where they listen."""
        ...

    @property
    def events(self) -> list[Heard]:
        """All events of the deployment so far, each with the moment at which it was delivered."""
        ...

    def master(self) -> Address | None:
        """The master of the view in force."""
        ...

    def stats(self) -> Any:
        """`client.stats()`."""
        ...

    def wait_ready(self, seconds: float) -> None:
        """`client.wait_ready()`."""
        ...

    def pipeline(self, *commands: tuple[Any, ...], transaction: bool = False) -> list[Any]:
        """Commands that are sent together, each a method's name and its arguments; errors stand among the replies."""
        ...

    def subscriber(self, *channels: str) -> Subscriber:
        """A subscriber to these channels."""
        ...


class Subscriber(Protocol):
    """Receives messages in a thread or task of its own, until it is closed."""

    @property
    def messages(self) -> list[str]:
        """The payloads that have arrived."""
        ...

    @property
    def error(self) -> BaseException | None:
        """What ended it early."""
        ...

    def close(self) -> None: ...


class Holder(Protocol):
    """A node that holds what a load has written."""

    def execute(self, *words: str | int) -> Any:
        """A command of the test's own."""
        ...


@dataclass(frozen=True)
class Read:
    """The reply to a read, and the nodes that have answered it."""

    reply: Any
    nodes: tuple[Address, ...] = ()


@dataclass(frozen=True)
class Heard:
    """An event, and when it was delivered."""

    moment: float
    event: Event


class SyncDriver:
    """The synchronous client."""

    client: hatopo.Redis

    def __init__(self) -> None:
        self.events: list[Heard] = []
        self._closing: list[Callable[[], None]] = []
        self._read_from: Any = "master"

    def open_sentinel(self, service: str, sentinels: Sequence[Address], **options: Any) -> None:
        self._use(hatopo.sentinel(service, list(sentinels), **options), options)

    def open_standalone(self, address: Address, **options: Any) -> None:
        self._use(hatopo.standalone(*address, **options), options)

    def open_replicated(self, nodes: Sequence[Address] | None = None, **options: Any) -> None:
        self._use(hatopo.replicated(nodes, **options), options)

    def _use(self, client: hatopo.Redis, options: dict[str, Any]) -> None:
        self.client = client
        self._read_from = options.get("read_from", "master")
        self._closing += [client.close, client.subscribe_events(self._note)]

    def _note(self, event: Event) -> None:
        self.events.append(Heard(time.monotonic(), event))

    def call(self, command: str, *args: Any, **keywords: Any) -> Any:
        return getattr(self.client, command)(*args, **keywords)

    def read(self, command: str, *args: Any, read_from: str = "") -> Read:
        with hatopo.read_from(read_from or self._read_from) as scope:
            reply = self.call(command, *args)
            return Read(reply, tuple((node.host, node.port) for node in scope.nodes))

    def nodes(self) -> dict[Address, hatopo.NodeStatus]:
        return {(node.host, node.port): node for node in self.client.nodes()}

    def master(self) -> Address | None:
        topology = self.client.topology
        node = topology.shards[0].master if topology is not None else None
        return None if node is None else (node.address.host, node.address.port)

    def stats(self) -> Any:
        return self.client.stats()

    def wait_ready(self, seconds: float) -> None:
        self.client.wait_ready(seconds)

    def pipeline(self, *commands: tuple[Any, ...], transaction: bool = False) -> list[Any]:
        with self.client.pipeline(transaction=transaction) as pipe:
            for name, *args in commands:
                getattr(pipe, name)(*args)
            return pipe.execute(raise_on_error=False)

    def subscriber(self, *channels: str) -> SyncSubscriber:
        return SyncSubscriber(self.client, channels)

    def close(self) -> None:
        for close in reversed(self._closing):
            close()
        self._closing.clear()


class SyncSubscriber:
    """A thread around redis-py's PubSub, which is confirmed to be subscribed when this is there."""

    def __init__(self, client: redis.Redis, channels: Sequence[str]) -> None:
        self.messages: list[str] = []
        self.error: BaseException | None = None
        self._confirmed = 0
        self._stopping = threading.Event()
        self._pubsub = client.pubsub()
        self._thread = threading.Thread(target=self._run, args=(channels,))
        self._thread.start()
        eventually(lambda: self._confirmed >= len(channels) or self.error, what="subscribed")

    def _run(self, channels: Sequence[str]) -> None:
        try:
            self._pubsub.subscribe(*channels)
            while not self._stopping.is_set():
                message = self._pubsub.get_message(timeout=0.1)
                if message is not None and message["type"] == "subscribe":
                    self._confirmed += 1
                elif message is not None:
                    self.messages.append(message["data"].decode())
        except Exception as error:
            self.error = error

    def close(self) -> None:
        self._stopping.set()
        self._thread.join(30)
        self._pubsub.close()
        assert not self._thread.is_alive(), "a subscriber does not end"


class PlainDriver:
    """redis-py as it comes, for proving a scenario or the load itself."""

    client: redis.Redis
    _sentinels: Sequence[redis.Redis] = ()

    def open_sentinel(self, service: str, sentinels: Sequence[Address], **options: Any) -> None:
        watcher = redis.sentinel.Sentinel(list(sentinels), socket_timeout=1)
        self._sentinels = watcher.sentinels
        self.client = watcher.master_for(service, **options)

    def open_standalone(self, address: Address, **options: Any) -> None:
        self.client = redis.Redis(*address, **options)

    def call(self, command: str, *args: Any, **keywords: Any) -> Any:
        return getattr(self.client, command)(*args, **keywords)

    def read(self, command: str, *args: Any, read_from: str = "") -> Read:
        """By the master, and nobody tells who that is."""
        return Read(self.call(command, *args))

    def close(self) -> None:
        self.client.close()
        for sentinel in self._sentinels:
            sentinel.close()


@dataclass
class Call:
    """One call of the load: what was asked under which name, and how it ended."""

    kind: str
    name: str
    began: float
    ended: float = 0.0
    error: BaseException | None = None
    nodes: tuple[Address, ...] = ()  # that have answered, where that was asked


@dataclass
class Worker:
    """One calling thread; the test reads while it runs: what is `finished` grows, `calling` is under way."""

    kind: str
    number: int
    finished: list[Call] = field(default_factory=list)
    calling: Call | None = None

    def succeeded_since(self, moment: float) -> bool:
        return any(call.error is None and call.began > moment for call in reversed(self.finished[-50:]))

    def was_answered_by(self, node: Address, moment: float) -> bool:
        """Whether a read that began after this moment was answered there."""
        return any(node in call.nodes and call.began > moment for call in reversed(self.finished[-50:]))


class Load:
    """Threads that call on and on: "incr" under a name used once, "get" and "set" on a key.

    An increment is HINCRBY of a field of its own: the value at the end says how often it was applied. Every other kind
    is a policy, such as "replica_preferred": GET under that policy, with a note of who has answered.
    """

    KEY, READ = "load", "load-read"

    def __init__(self, driver: Driver, **threads: int) -> None:
        self._driver = driver
        self._stopping = threading.Event()
        self.workers = [Worker(kind, number) for kind, count in threads.items() for number in range(count)]
        self._threads = [threading.Thread(target=self._run, args=(worker,)) for worker in self.workers]

    def _run(self, worker: Worker) -> None:
        while not self._stopping.wait(0.002):
            name = f"{worker.kind}-{worker.number}-{len(worker.finished)}"
            call = worker.calling = Call(worker.kind, name, time.monotonic())
            try:
                call.nodes = self._call(worker, name)
            except Exception as error:
                call.error = error
            call.ended = time.monotonic()
            worker.finished.append(call)
            worker.calling = None

    def _call(self, worker: Worker, name: str) -> tuple[Address, ...]:
        if worker.kind == "incr":
            self._driver.call("hincrby", self.KEY, name, 1)
        elif worker.kind == "get":
            self._driver.call("get", self.READ)
        elif worker.kind == "set":
            self._driver.call("set", f"load-written-{worker.number}", name)
        else:
            return self._driver.read("get", self.READ, read_from=worker.kind).nodes
        return ()

    def progress(self, seconds: float = 30) -> None:
        """Return when every thread has succeeded with a call that it began after this one."""
        now = time.monotonic()
        eventually(
            lambda: all(worker.succeeded_since(now) for worker in self.workers),
            seconds,
            "every thread succeeds",
        )

    def stall(self) -> None:
        """Return when every thread waits in a call, and none has given up with an error for a while."""

        def quiet() -> bool:
            before = [worker.calling for worker in self.workers]
            time.sleep(0.2)
            return None not in before and before == [worker.calling for worker in self.workers]

        eventually(quiet, what="every thread waits for the server")

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join(60)
        assert not any(thread.is_alive() for thread in self._threads), "a call does not end"

    def ledger(self, server: Holder) -> Ledger:
        """Set what the threads were told against what the server holds."""
        flat = server.execute("HGETALL", self.KEY)
        applied = {name: int(count) for name, count in zip(flat[::2], flat[1::2], strict=True)}
        return Ledger(self.workers, applied)


class Ledger:
    """What became of all calls of a load that has ended."""

    def __init__(self, workers: list[Worker], applied: dict[str, int]) -> None:
        calls = [call for worker in workers for call in worker.finished]
        self.applied = applied
        self.calls = sorted(calls, key=lambda call: call.ended)
        self.incremented = [call for call in self.calls if call.kind == "incr" and call.error is None]
        self.acknowledged = len(self.incremented)
        self.doubled = sorted(name for name, count in applied.items() if count > 1)
        self.lost_calls = [call for call in self.incremented if call.name not in applied]
        self.lost = sorted(call.name for call in self.lost_calls)
        self.ambiguous = [call for call in calls if isinstance(call.error, hatopo.AmbiguousResultError)]
        self.ambiguous_per_thread = Counter(call.name.rpartition("-")[0] for call in self.ambiguous)
        self.other_errors = sorted(
            {
                f"{type(call.error).__name__}: {call.error}"
                for call in calls
                if call.error is not None and call not in self.ambiguous
            }
        )
