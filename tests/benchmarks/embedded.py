"""Measures the embedded servers: `python -m tests.benchmarks.embedded [--rounds 10] [--n 50000]`.

How long a Sentinel deployment takes to start, and to name another master after the first was killed, on its usual
clock; and how many GETs a node answers in a second, asked by redis-benchmark, one at a time and pipelined. The
figures are medians over the rounds. The benchmark shares the machine with the servers that it measures.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import time
from statistics import median
from typing import TYPE_CHECKING

from hatopo.testing import Node, SentinelDeployment

if TYPE_CHECKING:
    from collections.abc import Sequence

CONNECTIONS, DEEP = 10, 16


def failover() -> tuple[float, float, float]:
    """Seconds of a deployment's start, of its failover, and of its end."""
    begun = time.perf_counter()
    with SentinelDeployment(replicas=2, sentinels=3) as deployment:
        started = time.perf_counter()
        old = deployment.kill_master()
        deployment.wait_switched(old)
        switched = time.perf_counter()
    return started - begun, switched - started, time.perf_counter() - switched


def gets(port: int, n: int, depth: int) -> float:
    """GETs in a second, pipelined by `depth`."""
    counts = ("-c", str(CONNECTIONS), "-n", str(n), "-P", str(depth))
    command = ["redis-benchmark", "-p", str(port), "-t", "get", "--csv", *counts]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    row = next(line for line in said.splitlines() if line.startswith('"GET"'))
    return float(row.split(",")[1].strip('"'))


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.embedded", description=__doc__)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--n", type=int, default=50_000, help="GETs in a round")
    chosen = parser.parse_args(arguments)
    failover()  # imports and first use are not counted
    spans = list(zip(*(failover() for _ in range(chosen.rounds)), strict=True))
    for name, span in zip(("start", "kill to new master", "end"), spans, strict=True):
        print(f"{'3 nodes, 3 sentinels: ' + name:<42}{median(span) * 1000:>9.1f} ms")
    if shutil.which("redis-benchmark") is None:
        print("redis-benchmark is not on the PATH")
        return
    with Node() as node:
        node.execute("SET", "key:__rand_int__", "xxx")
        for depth in (1, DEEP):
            speed = median(gets(node.port, chosen.n, depth) for _ in range(max(1, chosen.rounds // 3)))
            print(f"{f'GET, {CONNECTIONS} connections, pipelined by {depth}':<42}{speed:>9.0f} /s")


if __name__ == "__main__":
    main()
