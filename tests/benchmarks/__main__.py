"""Measures redis-py, hatopo and the floor: `python -m tests.benchmarks [--rounds 7] [--n 3000]`.

Every round runs each workload on all three in short turns, so that a drift of the machine hits all alike. The
figures are medians over the rounds, ratios medians of what one round gave. CPU is that of this process, all
threads: the figure that survives a noisy machine. The overhead share is how much of what redis-py spends above
the floor hatopo spends.
"""

from __future__ import annotations

import argparse
import contextlib
import time
from dataclasses import dataclass
from statistics import median
from typing import TYPE_CHECKING, Any

import redis

import hatopo
from hatopo.testing.real import RealNode
from tests.benchmarks.workloads import KEYS, VALUE, WORKLOADS, Floor
from tests.servers import PLAIN

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REFERENCE, FLOOR = "redis-py", "floor"
SLICES = 3  # turns of each client in a round


@dataclass
class Sample:
    """What one client did in one workload in one round."""

    done: int = 0
    wall: float = 0.0
    cpu: float = 0.0

    def add(self, work: Callable[[Any, int], int], client: Any, n: int) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self.done += work(client, n)
        self.cpu += time.process_time() - cpu
        self.wall += time.perf_counter() - wall

    @property
    def microseconds(self) -> float:
        """CPU for each operation."""
        return self.cpu / self.done * 1e6

    @property
    def per_second(self) -> float:
        return self.done / self.wall


Round = dict[str, Sample]  # by client


def measure(clients: dict[str, Any], rounds: int, n: int) -> dict[str, list[Round]]:
    """The rounds of each workload; a first one, which opens connections, is thrown away."""
    names = list(clients)
    results: dict[str, list[Round]] = {workload: [] for workload in WORKLOADS}
    for _ in range(rounds + 1):
        for workload, work in WORKLOADS.items():
            round_ = {name: Sample() for name in names}
            for turn in range(SLICES):
                for name in names[turn:] + names[:turn]:
                    round_[name].add(work, clients[name], max(1, n // SLICES))
            results[workload].append(round_)
    return {workload: done[1:] for workload, done in results.items()}


def show(results: dict[str, list[Round]]) -> None:
    """The table."""
    print(f"{'workload':<25}{'client':<10}{'ops/s':>9}{'CPU us':>9}{'x redis-py':>12}{'overhead share':>16}")
    for workload, rounds in results.items():
        for name in rounds[0]:
            speed = median(round_[name].per_second for round_ in rounds)
            cpu = median(round_[name].microseconds for round_ in rounds)
            ratio = median(round_[name].per_second / round_[REFERENCE].per_second for round_ in rounds)
            row = f"{workload:<25}{name:<10}{speed:>9.0f}{cpu:>9.1f}{ratio:>12.2f}"
            if name not in (REFERENCE, FLOOR):
                row += f"{median(overhead_share(round_, name) for round_ in rounds):>16.2f}"
            print(row)


def overhead_share(round_: Round, name: str) -> float:
    """(client - floor) / (redis-py - floor), in CPU."""
    floor = round_[FLOOR].microseconds
    above = round_[REFERENCE].microseconds - floor
    return (round_[name].microseconds - floor) / above if above > 0 else float("nan")


def main(arguments: Sequence[str] | None = None) -> None:
    """Starts a server, measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--n", type=int, default=3000, help="operations of a workload in a round, about")
    chosen = parser.parse_args(arguments)
    with RealNode(config=PLAIN) as server, contextlib.ExitStack() as stack:
        host, port = server.address
        clients: dict[str, Any] = {
            REFERENCE: redis.Redis(host, port),
            "hatopo": hatopo.standalone(host, port),
            FLOOR: Floor(host, port),
        }
        for client in clients.values():
            stack.callback(client.close)
        for key in KEYS:
            clients[REFERENCE].set(key, VALUE)
        print(f"redis-py {redis.__version__}, hatopo {hatopo.__version__}, {chosen.rounds} rounds of {chosen.n}")
        show(measure(clients, chosen.rounds, chosen.n))


if __name__ == "__main__":
    main()
