"""What clients cost while nothing happens: `python -m tests.benchmarks.footprint [--seconds 30]`.

Threads of this process, connections, and the commands that sentinels execute for them, counted by the sentinels: what
they execute without any client (they talk among themselves) is measured first and taken off.
"""

from __future__ import annotations

import argparse
import contextlib
import threading
import time
from typing import TYPE_CHECKING

import hatopo
from hatopo.testing.real import RealSentinelDeployment

if TYPE_CHECKING:
    from collections.abc import Sequence

    import redis

SERVICES = ("s1", "s2", "s3", "s4")


def executed(deployment: RealSentinelDeployment) -> int:
    """Commands that the sentinels have executed so far, all together."""
    total = 0
    for sentinel in deployment.sentinel_nodes:
        about = dict(line.split(":", 1) for line in sentinel.execute("INFO", "stats").splitlines() if ":" in line)
        total += int(about["total_commands_processed"])
    return total


def rate(deployment: RealSentinelDeployment, seconds: float) -> float:
    before = executed(deployment)
    time.sleep(seconds)
    return (executed(deployment) - before) / seconds


def connections(deployment: RealSentinelDeployment) -> int:
    """Connections of ours at the sentinels."""
    lists = [sentinel.execute("CLIENT", "LIST").splitlines() for sentinel in deployment.sentinel_nodes]
    return sum("name=hatopo " in line for listed in lists for line in listed)


def report(
    title: str, clients: Sequence[redis.Redis], deployment: RealSentinelDeployment, seconds: float, alone: float
) -> None:
    with contextlib.ExitStack() as stack:
        for client in clients:
            stack.callback(client.close)
            client.ping()
        time.sleep(1)
        commands = rate(deployment, seconds) - alone
        threads = sum(thread.name.startswith("hatopo") for thread in threading.enumerate())
        print(
            f"{title:32}{threads:8}{connections(deployment):12}{commands:12.2f}"
            f"{sum(len(client.connection_pool._get_free_connections()) for client in clients):12}"
        )
    time.sleep(1)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--seconds", type=float, default=30)
    seconds = parser.parse_args().seconds
    with RealSentinelDeployment() as deployment:
        host, port = deployment.master().address
        for sentinel in deployment.sentinel_nodes:
            for service in SERVICES:
                sentinel.execute("SENTINEL", "MONITOR", service, host, port, 2)
        time.sleep(12)
        alone = rate(deployment, seconds)
        print(f"{'':32}{'threads':>8}{'sentinel':>12}{'sentinel':>12}{'data':>12}")
        print(f"{'':32}{'':>8}{'connections':>12}{'commands/s':>12}{'connections':>12}")
        one = [hatopo.sentinel("mymaster", deployment.sentinels)]
        report("1 client", one, deployment, seconds, alone)
        many = [hatopo.sentinel("mymaster", deployment.sentinels) for _ in range(100)]
        report("100 clients of one deployment", many, deployment, seconds, alone)
        sentinels = hatopo.Sentinels(deployment.sentinels)
        five = [sentinels.client(service) for service in ("mymaster", *SERVICES)]
        report("5 services", five, deployment, seconds, alone)
        asking = [hatopo.sentinel("mymaster", deployment.sentinels, watch=False)]
        report("1 client, watch=False", asking, deployment, seconds, alone)


if __name__ == "__main__":
    main()
