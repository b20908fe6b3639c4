"""Measures redis-py, hatopo and the floor: `python -m tests.benchmarks [--rounds 7] [--n 3000]`.

Every round runs each workload on all three, one after another and in turn, so that a drift of the machine hits
all alike; the figures are medians over the rounds. CPU is that of this process, all threads: the figure that
survives a noisy machine. The overhead share is how much of what redis-py spends above the floor hatopo spends.
"""

from __future__ import annotations

import argparse
import contextlib
import statistics
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import redis

import hatopo
from tests.benchmarks.workloads import KEYS, VALUE, WORKLOADS, Floor
from tests.servers import Server

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

REFERENCE, FLOOR = "redis-py", "floor"


@dataclass
class Series:
    """What one client did in one workload, a figure for each round."""

    per_second: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)  # microseconds for each operation

    def measure(self, work: Callable[[Any, int], int], client: Any, n: int) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        done = work(client, n)
        self.cpu.append((time.process_time() - cpu) / done * 1e6)
        self.per_second.append(done / (time.perf_counter() - wall))


def measure(clients: dict[str, Any], rounds: int, n: int) -> dict[str, dict[str, Series]]:
    """By workload and client; a first round, which opens connections, is thrown away."""
    names = list(clients)
    results = {workload: {name: Series() for name in names} for workload in WORKLOADS}
    for number in range(rounds + 1):
        turn = names[number % len(names) :] + names[: number % len(names)]
        for workload, work in WORKLOADS.items():
            for name in turn:
                series = results[workload][name] if number else Series()
                series.measure(work, clients[name], n)
    return results


def show(results: dict[str, dict[str, Series]]) -> None:
    """The table."""
    print(f"{'workload':<25}{'client':<10}{'ops/s':>9}{'CPU us':>9}{'x redis-py':>12}{'overhead share':>16}")
    for workload, by_client in results.items():
        cpu = {name: statistics.median(series.cpu) for name, series in by_client.items()}
        speed = {name: statistics.median(series.per_second) for name, series in by_client.items()}
        for name in by_client:
            row = f"{workload:<25}{name:<10}{speed[name]:>9.0f}{cpu[name]:>9.1f}"
            row += f"{speed[name] / speed[REFERENCE]:>12.2f}"
            above = cpu[REFERENCE] - cpu[FLOOR]
            if name not in (REFERENCE, FLOOR) and above > 0:
                row += f"{(cpu[name] - cpu[FLOOR]) / above:>16.2f}"
            print(row)


def main(arguments: Sequence[str] | None = None) -> None:
    """Starts a server, measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--n", type=int, default=3000, help="operations of a workload in a round, about")
    chosen = parser.parse_args(arguments)
    with Server() as server, contextlib.ExitStack() as stack:
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
