"""Measures reads from replicas: `python -m tests.benchmarks.reading [--backend real|embedded] [--runs 3]`.

What the application sees of a replica that fails, and when that replica gets reads again (its sentinels sleep: the
client finds out alone); how equal the shares of equals are; how long writes take to follow a REPLICAOF by hand; and
what REPLICA_PREFERRED costs beside MASTER, in CPU of this process. Targets stand beside the figures. Nothing is judged.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from statistics import median
from typing import TYPE_CHECKING, Any

import redis

import hatopo
from hatopo.connection import NodePool
from hatopo.testing import Node, RealNode, RealReplication, RealSentinelDeployment, Replication, SentinelDeployment
from tests.benchmarks.workloads import KEYS, VALUE, Floor, get
from tests.drivers import SyncDriver
from tests.scenarios.reading import FAULTS, MAX_LAG, POLICIES, addresses, gets, hands_off
from tests.scenarios.support import errors_replied

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from hatopo.testing import NodeHandle
    from tests.control import Address

REAL_FAULTS = ("kill", "freeze", "link")
READERS, WRITERS = 4, 4
SETTLE, JITTER = 0.75, 0.75
"""Seconds of load before anything happens, and at most so many more: nodes are asked how they are every 0.75 s."""
PATIENCE = 20.0
"""Seconds after which what has not happened is given up."""
UNUSED, USED_AGAIN, FOLLOWED, EXTRA = 1.0, 2.0, 1.5, 1.0
"""The targets: seconds, seconds, seconds, microseconds."""


# ---------------------------------------------------------------- who is given what


@dataclass
class Given:
    """To whom pools have lent connections for calls: the moment and the address, by the thread that asked."""

    lent: list[tuple[float, Address, str]] = field(default_factory=list)

    def to(self, node: NodeHandle, threads: str, since: float, until: float = float("inf")) -> list[float]:
        """The moments at which calls of these threads were given to a node."""
        return [
            moment
            for moment, address, thread in [*self.lent]
            if address == node.address and thread.startswith(threads) and since < moment < until
        ]


@contextlib.contextmanager
def watching_pools() -> Iterator[Given]:
    """Notes every connection that is lent for a call, by wrapping the two ways to one."""
    given, take, lend = Given(), NodePool.take, NodePool.lend

    def note(pool: NodePool, lent: Any) -> Any:
        if lent is not None:
            place = (pool.address.host, pool.address.port)
            given.lent.append((time.monotonic(), place, threading.current_thread().name))
        return lent

    methods: Any = NodePool
    methods.take = lambda pool, *args, **options: note(pool, take(pool, *args, **options))
    methods.lend = lambda pool, *args, **options: note(pool, lend(pool, *args, **options))
    try:
        yield given
    finally:
        methods.take, methods.lend = take, lend


@dataclass
class Callers:
    """Threads that call on and on while this is entered."""

    driver: SyncDriver
    readers: int = READERS
    writers: int = 0
    errors: list[Exception] = field(default_factory=list)
    longest: dict[str, float] = field(default_factory=dict)
    _stopping: threading.Event = field(default_factory=threading.Event)
    _threads: list[threading.Thread] = field(default_factory=list)

    def _run(self, kind: str, call: Callable[[], object]) -> None:
        while not self._stopping.wait(0.001):
            began = time.monotonic()
            try:
                call()
            except redis.RedisError as error:
                self.errors.append(error)
            self.longest[kind] = max(self.longest.get(kind, 0.0), time.monotonic() - began)

    def _start(self, kind: str, call: Callable[[], object]) -> None:
        self._threads.append(threading.Thread(target=self._run, args=(kind, call), name=f"{kind}-"))
        self._threads[-1].start()

    def __enter__(self) -> Callers:
        for _ in range(self.readers):
            self._start("read", lambda: self.driver.call("get", "key"))
        for _ in range(self.writers):
            self._start("write", lambda: self.driver.call("incr", "count"))
        time.sleep(SETTLE + random.uniform(0, JITTER))
        return self

    def __exit__(self, *_: object) -> None:
        self._stopping.set()
        for thread in self._threads:
            thread.join()


def wait_for(check: Callable[[], object]) -> None:
    """Until it is true, or patience is at its end: what is missing then shows in the figures."""
    end = time.monotonic() + PATIENCE
    while not check() and time.monotonic() < end:
        time.sleep(0.005)


# ---------------------------------------------------------------- a replica fails


@dataclass
class Outage:
    """What one replica's failure was to one client. Seconds; `again` is None if it got no reads any more."""

    errors: int
    last: float
    again: float | None
    longest: float


def suffer(backend: str, name: str, policy: str, hold: float) -> Outage:
    """One of two replicas fails for `hold` seconds under readers of one policy."""
    fault, kind = FAULTS[name], {"real": RealSentinelDeployment, "embedded": SentinelDeployment}[backend]
    made: Any = kind(replicas=2, down_after=100_000.0)
    driver = SyncDriver()
    with made as deployment, contextlib.closing(driver), watching_pools() as given:
        hands_off(deployment)
        master, bad, _ = deployment.nodes
        driver.open_sentinel(deployment.name, deployment.sentinels, read_from=policy, max_lag=MAX_LAG)
        driver.call("set", "key", "value")
        with Callers(driver) as callers:
            begun = time.monotonic()
            fault.begin(driver, bad, master)
            time.sleep(hold + random.uniform(0, JITTER))
            fault.end(driver, bad, master)
            healed = time.monotonic()
            wait_for(lambda: given.to(bad, "read", healed))
    before, after = given.to(bad, "read", begun, healed), given.to(bad, "read", healed)
    last = before[-1] - begun if before else 0.0
    return Outage(len(callers.errors), last, after[0] - healed if after else None, callers.longest["read"])


def show_faults(backend: str, faults: Sequence[str], policies: Sequence[str], runs: int, hold: float) -> None:
    """The table of faults and policies: the worst of all runs."""
    title = f"a replica fails for {hold:g} s ({backend}), worst of {runs}"
    print(f"{title:<50}{'errors':>8}{'last read':>11}{'again after':>13}{'longest call':>14}")
    for name in faults:
        for policy in policies:
            found = [suffer(backend, name, policy, hold) for _ in range(runs)]
            again = [one.again for one in found]
            shown = "never" if None in again else f"{max(one for one in again if one is not None):.2f} s"
            print(
                f"  {name:<10}{policy:<38}{sum(one.errors for one in found):>8}"
                f"{max(one.last for one in found):>9.2f} s{shown:>13}{max(one.longest for one in found):>12.2f} s"
            )
    print(f"  {'target':<48}{0:>8}{UNUSED:>9.2f} s{USED_AGAIN:>11.2f} s")


# ---------------------------------------------------------------- shares


def show_shares(backend: str, reads: int) -> None:
    """How many of the reads each of three equal replicas was given."""
    kind: Any = {"real": RealReplication, "embedded": Replication}[backend]
    with kind(replicas=3) as deployment:
        for threads in (1, 8):
            shares = _shares(deployment, threads, reads)
            spread = (max(shares) - min(shares)) / (sum(shares) / len(shares))
            shown = " / ".join(f"{share / sum(shares):.1%}" for share in shares)
            title = f"{reads} reads, 3 equal replicas, {threads} thread{'s' * (threads > 1)}"
            print(f"{title:<50}{shown:>26}   spread {spread:.1%}   (target: 10 %)")


def _shares(deployment: Replication, threads: int, reads: int) -> list[int]:
    _, *replicas = deployment.nodes
    client = hatopo.replicated(addresses(deployment), read_from="replica")
    with client, ThreadPoolExecutor(threads) as pool:
        client.get("key")
        wait_for(lambda: all(not node.refused for node in client.nodes()))
        before = [gets(one) for one in replicas]
        list(pool.map(lambda _: get(client, reads // threads), range(threads)))
        return [gets(one) - earlier for one, earlier in zip(replicas, before, strict=True)]


# ---------------------------------------------------------------- REPLICAOF by hand


@dataclass
class Follow:
    """How a client followed: seconds to the first write at the new master (None: never), and what went wrong."""

    seconds: float | None
    errors: int
    readonly: int
    refused: int
    longest: float


def follow(backend: str, demote: bool) -> Follow:
    """A replica is promoted by hand, the other one follows it, and the old master either does, too, or stays one."""
    kind: Any = {"real": RealReplication, "embedded": Replication}[backend]
    driver = SyncDriver()
    with kind(replicas=2) as deployment, contextlib.closing(driver), watching_pools() as given:
        old, new, other = deployment.nodes
        driver.open_replicated(addresses(deployment), read_from="replica_preferred")
        driver.call("set", "key", "value")
        with Callers(driver, writers=WRITERS) as callers:
            new.replicate(None)
            other.replicate(new.address)
            if demote:
                old.replicate(new.address)
            done = time.monotonic()
            wait_for(lambda: given.to(new, "write", done))
            time.sleep(0.2)
        found = given.to(new, "write", done)
        refused = errors_replied(old, "READONLY")
    readonly = sum(isinstance(error, redis.ReadOnlyError) for error in callers.errors)
    seconds = found[0] - done if found else None
    return Follow(seconds, len(callers.errors), readonly, refused, callers.longest["write"])


def show_follow(backend: str, runs: int) -> None:
    """The table of changes by hand."""
    title = f"REPLICAOF by hand ({backend}), {runs} runs"
    print(
        f"{title:<50}{'errors':>8}{'READONLY':>10}{'median':>10}{'worst':>10}{'longest write':>15}{'refused there':>15}"
    )
    for demote, what in ((True, "the old master is demoted"), (False, "the old one says that it is a master, too")):
        found = [follow(backend, demote) for _ in range(runs)]
        seconds = [PATIENCE if one.seconds is None else one.seconds for one in found]
        print(
            f"  {what:<48}{sum(one.errors for one in found):>8}{sum(one.readonly for one in found):>10}"
            f"{median(seconds):>8.2f} s{max(seconds):>8.2f} s{max(one.longest for one in found):>13.2f} s"
            f"{max(one.refused for one in found):>15}"
        )
    print(f"  {'target':<48}{0:>8}{0:>10}{'':>10}{FOLLOWED:>8.2f} s")


# ---------------------------------------------------------------- CPU


@contextlib.contextmanager
def _one_server(real: bool) -> Iterator[tuple[Address, list[Address]]]:
    """One server, as the master and as its replicas: what it costs to reach another process is not in the figures."""
    kind: Any = RealNode if real else Node
    with kind() as node:
        if real:
            node.configure(bind="127.0.0.1 127.0.0.2 127.0.0.3")
        yield node.address, [(host, node.port) for host in (("127.0.0.2", "127.0.0.3") if real else ("localhost",))]


def show_cpu(real: bool, rounds: int, n: int) -> None:
    """CPU of this process for a GET, paired: in each round every client has its turn, in another order."""
    with _one_server(real) as (place, readers), contextlib.ExitStack() as stack:
        clients: dict[str, Any] = {
            "floor": Floor(*place),
            "redis-py": redis.Redis(*place),
            "MASTER": hatopo.replicated(primary=place, readers=readers),
            "REPLICA_PREFERRED": hatopo.replicated(primary=place, readers=readers, read_from="replica_preferred"),
        }
        for client in clients.values():
            stack.callback(client.close)
        for key in KEYS:
            clients["redis-py"].set(key, VALUE)
        samples = _sample(clients, rounds, n)
        answered = _who_answers(clients["REPLICA_PREFERRED"])
        idle = _idle_cpu(min(2.0, rounds / 10))
    title = f"GET ({'a process' if real else 'a server in this process'}), {rounds} x {n}"
    print(f"{title:<50}{'CPU us, median':>16}{'least':>8}{'overhead share':>16}")
    least = {name: min(each) for name, each in samples.items()}
    above = least["redis-py"] - least["floor"]
    for name, each in samples.items():
        share = f"{(least[name] - least['floor']) / above:.3f}" if above > 0 else "?"
        print(f"  {name:<48}{median(each):>16.2f}{least[name]:>8.2f}{share:>16}")
    pairs = [one - other for one, other in zip(samples["REPLICA_PREFERRED"], samples["MASTER"], strict=True)]
    extra = least["REPLICA_PREFERRED"] - least["MASTER"]
    print(
        f"  {'REPLICA_PREFERRED more than MASTER':<48}{median(pairs):>16.2f}{extra:>8.2f}   (target: at most {EXTRA:g})"
    )
    print(f"  {f'idle: a client that asks {1 + len(readers)} nodes':<48}{idle * 1e6:>16.0f} us of CPU in a second")
    print(f"  {'the reads were answered by':<48}{answered}")


def _who_answers(client: hatopo.Redis) -> str:
    with hatopo.read_from("replica_preferred") as scope:
        get(client, 100)
    return ", ".join(sorted(map(str, scope.nodes)))


def _sample(clients: dict[str, Any], rounds: int, n: int) -> dict[str, list[float]]:
    """Microseconds for a GET, by client, in each round; a first one, which opens connections, is thrown away."""
    names = list(clients)
    samples: dict[str, list[float]] = {name: [] for name in names}
    for turn in range(rounds + 1):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            began = time.process_time()
            done = get(clients[name], n)
            samples[name].append((time.process_time() - began) / done * 1e6)
    return {name: each[1:] for name, each in samples.items()}


def _idle_cpu(seconds: float) -> float:
    """CPU in a second while nobody calls."""
    began, before = time.monotonic(), time.process_time()
    time.sleep(seconds)
    return (time.process_time() - before) / (time.monotonic() - began)


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.reading", description=__doc__)
    parser.add_argument("--backend", choices=("real", "embedded"), default="real")
    parser.add_argument("--runs", type=int, default=3, help="of each fault under each policy, and of each REPLICAOF")
    parser.add_argument("--hold", type=float, default=2.5, help="seconds for which a replica fails")
    parser.add_argument("--faults", nargs="*", choices=tuple(FAULTS), help="those, not all that the backend can suffer")
    parser.add_argument("--policies", nargs="*", default=POLICIES, help="those, not all")
    parser.add_argument("--reads", type=int, default=30_000, help="to be shared out")
    parser.add_argument("--rounds", type=int, default=200, help="of the measurement of CPU")
    parser.add_argument("--n", type=int, default=1000, help="GETs of a client in a round")
    chosen = parser.parse_args(arguments)
    faults = chosen.faults
    if faults is None:
        faults = REAL_FAULTS if chosen.backend == "real" else tuple(FAULTS)
    print(f"redis-py {redis.__version__}, hatopo {hatopo.__version__}")
    with _quiet():
        if faults:
            show_faults(chosen.backend, faults, chosen.policies, chosen.runs, chosen.hold)
        show_shares(chosen.backend, chosen.reads)
        show_follow(chosen.backend, chosen.runs)
        show_cpu(chosen.backend == "real", chosen.rounds, chosen.n)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Warnings of what is done on purpose do not stand between the figures."""
    log = logging.getLogger("hatopo")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(level)


if __name__ == "__main__":
    main()
