"""`python -m hatopo.testing sentinel|replication|node`: a deployment in the foreground, for any client to connect to.

Prints where everybody listens and how to connect, and runs until it is interrupted.
"""

from __future__ import annotations

import argparse
import signal
import sys
import time
from typing import Any

from hatopo.testing import Node, RealClock, Replication, ScaledClock, SentinelDeployment, ServerError


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m hatopo.testing", description=(__doc__ or "").partition("\n")[0])
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--port", type=int, default=0, help="the first port; the others follow it (default: any)")
    common.add_argument("--password", help="what clients of data nodes must AUTH with")
    common.add_argument("--seed", type=int, help="decides all that is left to chance")
    common.add_argument("--speed", type=float, default=1.0, help="how fast the servers' time runs (default: 1)")
    kinds = parser.add_subparsers(dest="kind", required=True)
    kinds.add_parser("node", parents=[common], help="one server")
    replicated = argparse.ArgumentParser(add_help=False, parents=[common])
    replicated.add_argument("--replicas", type=int, default=2)
    kinds.add_parser("replication", parents=[replicated], help="a master with replicas")
    one = kinds.add_parser("sentinel", parents=[replicated], help="a master with replicas, and sentinels")
    one.add_argument("--sentinels", type=int, default=3)
    one.add_argument("--quorum", type=int, help="how many must agree that the master is down (default: 2, or all)")
    one.add_argument("--name", default="mymaster", help="the service's name")
    one.add_argument("--down-after", type=float, default=1.0, help="seconds")
    return parser.parse_args()


def _make(chosen: argparse.Namespace) -> Any:
    """The deployment that was asked for."""
    clock = RealClock() if chosen.speed == 1.0 else ScaledClock(chosen.speed)
    options: dict[str, Any] = {"password": chosen.password, "seed": chosen.seed, "clock": clock}
    if chosen.kind == "node":
        return Node(port=chosen.port, **options)
    servers = 1 + chosen.replicas + getattr(chosen, "sentinels", 0)
    options["ports"] = range(chosen.port, chosen.port + servers) if chosen.port else ()
    if chosen.kind == "replication":
        return Replication(chosen.replicas, **options)
    quorum = min(2, chosen.sentinels) if chosen.quorum is None else chosen.quorum
    wanted = {"name": chosen.name, "quorum": quorum, "down_after": chosen.down_after}
    return SentinelDeployment(chosen.replicas, chosen.sentinels, **wanted, **options)


def _guide(deployment: Any, password: str | None) -> list[str]:
    """How to connect."""
    secret = f", password={password!r}" if password else ""
    cli = f" -a {password}" if password else ""
    if isinstance(deployment, Node):
        return [
            f"node      {deployment.host}:{deployment.port}",
            "",
            f"redis-cli -p {deployment.port}{cli}",
            f"hatopo.standalone({deployment.host!r}, {deployment.port}{secret})",
        ]
    master = deployment.nodes[0]
    lines = [f"{'master' if node is master else 'replica':9} {node.host}:{node.port}" for node in deployment.nodes]
    lines += [f"sentinel  {host}:{port}" for host, port in getattr(deployment, "sentinels", [])]
    lines += ["", f"redis-cli -p {master.port}{cli}"]
    if isinstance(deployment, SentinelDeployment):
        addresses = [f"{host}:{port}" for host, port in deployment.sentinels]
        lines += [
            f"redis-cli -p {deployment.sentinels[0][1]} SENTINEL FAILOVER {deployment.name}",
            f"hatopo.sentinel({deployment.name!r}, {addresses!r}{secret})",
        ]
    else:
        lines.append(f"hatopo.standalone({master.host!r}, {master.port}{secret})")
    return lines


def main() -> int:
    """Run it until it is interrupted."""
    chosen = _parse()
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it otherwise
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        deployment = _make(chosen)
    except ValueError as error:
        return _complain(error, 2)
    try:
        with deployment:
            sys.stdout.write("\n".join([*_guide(deployment, chosen.password), "", "Ctrl-C ends it.", ""]))
            sys.stdout.flush()
            while True:
                time.sleep(1)
    except KeyboardInterrupt:
        sys.stdout.write("\n")
    except (OSError, ServerError) as error:
        return _complain(error, 1)
    return 0


def _complain(error: Exception, status: int) -> int:
    sys.stderr.write(f"python -m hatopo.testing: {error}\n")
    return status


if __name__ == "__main__":
    raise SystemExit(main())
