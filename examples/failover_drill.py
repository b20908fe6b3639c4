"""A failover drill: kill the master of a real Sentinel set under load, and count what became of every call.

It starts a master, two replicas and three sentinels of its own, and counts through ONE client: HINCRBY of a
field used once, so the end says how often a call was applied (0 is lost, 2 is doubled). Exit status 0 means
that none was doubled, none lost at the kill, and that AmbiguousResultError was the only error.

    python examples/failover_drill.py                       kill -9
    python examples/failover_drill.py --planned             and then a planned SENTINEL FAILOVER
    python examples/failover_drill.py --client redis-py     the same through redis-py, for comparison
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import redis.sentinel

import hatopo

if TYPE_CHECKING:
    from collections.abc import Callable

HOST, SERVICE, KEY, STARTED = "127.0.0.1", "mymaster", "drill", time.monotonic()
KILL, PLANNED = "kill -9", "planned failover"


def say(what: str) -> None:
    print(f"{time.monotonic() - STARTED:7.2f} s  {what}", flush=True)


def wait_for(what: str, check: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError):
            if check():
                return
        time.sleep(0.01)
    raise SystemExit(f"the drill failed: waited 30 s for {what}")


class Node:
    """One redis-server or redis-sentinel process, and plain redis-py to ask it."""

    def __init__(self, stack: contextlib.ExitStack, directory: str, program: str, *lines: str) -> None:
        with socket.create_server((HOST, 0)) as free:
            self.port = int(free.getsockname()[1])
        config = Path(directory, f"{self.port}.conf")
        config.write_text("\n".join([f"port {self.port}", f"bind {HOST}", f"dir {directory}", *lines, ""]))
        self.process = subprocess.Popen([program, str(config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        stack.callback(self.kill)
        self.admin = redis.Redis(HOST, self.port, protocol=2, decode_responses=True, socket_timeout=1)
        stack.callback(self.admin.close)
        wait_for(f"{program} on port {self.port}", self.admin.ping)

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()


class Deployment:
    """One master, two replicas and three sentinels, all ended with the stack."""

    def __init__(self, stack: contextlib.ExitStack) -> None:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="drill-"))
        server = [directory, "redis-server", 'save ""', "repl-diskless-sync-delay 0"]
        first = Node(stack, *server)
        self.nodes = [first, *(Node(stack, *server, f"replicaof {HOST} {first.port}") for _ in range(2))]
        wait_for("the replicas", lambda: first.admin.info("replication")["connected_slaves"] == 2)
        watch = [f"monitor {SERVICE} {HOST} {first.port} 2", f"down-after-milliseconds {SERVICE} 1000"]
        lines = [f"sentinel {line}" for line in (*watch, f"failover-timeout {SERVICE} 6000")]
        self.sentinels = [Node(stack, directory, "redis-sentinel", *lines) for _ in range(3)]
        wait_for("the sentinels", lambda: all(len(found) == 2 for found in self.ask("SENTINELS")))

    def ask(self, question: str, sentinels: int = 3) -> list[Any]:
        return [one.admin.execute_command("SENTINEL", question, SERVICE) for one in self.sentinels[:sentinels]]

    def named(self) -> set[int]:
        """The ports of the masters that the sentinels name: two while they switch."""
        return {int(port) for _, port in self.ask("GET-MASTER-ADDR-BY-NAME")}

    def master(self) -> Node:
        return next(node for node in self.nodes if {node.port} == self.named())

    def switched(self, old: Node) -> Node:
        """Tell when the first sentinel has switched; return the new master when all have."""
        wait_for("+switch-master", lambda: self.named() != {old.port})
        say(f"+switch-master: a sentinel names port {(self.named() - {old.port}).pop()}")
        wait_for("the other sentinels", lambda: len(self.named()) == 1)
        return self.master()


class Call(NamedTuple):
    name: str
    began: float
    ended: float
    error: str


class Counting(threading.Thread):
    """One client, counting until the end; `fault` is the moment of a fault whose end is awaited."""

    def __init__(self, client: redis.Redis) -> None:
        super().__init__(daemon=True)
        self.client, self.calls, self.fault, self.ending = client, list[Call](), 0.0, False

    def run(self) -> None:
        while not self.ending:
            name, began, error = str(len(self.calls)), time.monotonic(), ""
            try:
                self.client.hincrby(KEY, name, 1)
            except redis.RedisError as failed:
                ambiguous = isinstance(failed, hatopo.AmbiguousResultError)
                error = "AmbiguousResultError" if ambiguous else type(failed).__name__
            call = Call(name, began, time.monotonic(), error)
            if error and error not in [earlier.error for earlier in self.calls[-1000:]]:
                say(f"the application sees {error}, after a call of {call.ended - began:.2f} s")
            elif self.fault and began > self.fault and not error:
                say(f"first success, {call.ended - self.fault:.2f} s after the fault")
                self.fault = 0.0
            self.calls.append(call)
            time.sleep(0.001)

    def end(self) -> None:
        self.ending = True
        self.join(30)


def settle(title: str, calls: list[Call], applied: dict[Any, Any]) -> bool:
    """Print the ledger of a phase, and return whether it is as it must be."""
    acknowledged = [call for call in calls if not call.error]
    errors = Counter(call.error for call in calls if call.error)
    ambiguous = errors.pop("AmbiguousResultError", 0)
    outage = max(later.ended - one.ended for one, later in pairwise(acknowledged))
    lost = sum(call.name not in applied for call in acknowledged)
    doubled = sum(int(applied.get(call.name, 0)) > 1 for call in calls)
    print(f"\nLedger of the {title}\n  calls {len(calls)}\n  acknowledged {len(acknowledged)}")
    print(f"  AmbiguousResultError {ambiguous}\n  other errors {dict(errors) or 0}")
    print(f"  longest call {max(call.ended - call.began for call in calls):.2f} s\n  outage {outage:.2f} s")
    print(f"  lost {lost}\n  doubled {doubled}\n", flush=True)
    return not (doubled or errors or (lost and title == KILL))


def drill(title: str, deployment: Deployment, counting: Counting) -> bool:
    """One fault under load, and its ledger."""
    first, old = len(counting.calls), deployment.master()
    time.sleep(0.5)
    say(f"{title}: the master is port {old.port}, pid {old.process.pid}")
    if title == KILL:
        old.kill()
        counting.fault = time.monotonic()
        new = deployment.switched(old)
    else:
        wait_for("a sentinel that is ready", lambda: deployment.ask("FAILOVER", sentinels=1))
        new = deployment.switched(old)
        wait_for("its demotion", lambda: old.admin.info("replication")["role"] == "slave")
        say("the old master is demoted; Redis throws away what it acknowledged since the switch: lost, below")
        counting.fault = time.monotonic()
    wait_for("a successful call", lambda: not counting.fault)
    time.sleep(0.5)
    return settle(title, counting.calls[first:], new.admin.hgetall(KEY))


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--planned", action="store_true", help="then also a planned SENTINEL FAILOVER")
    parser.add_argument("--client", choices=["hatopo", "redis-py"], default="hatopo")
    chosen = parser.parse_args()
    if missing := [name for name in ("redis-server", "redis-sentinel") if shutil.which(name) is None]:
        parser.exit(2, f"This drill needs {' and '.join(missing)} on the PATH.\n")
    logging.basicConfig(format=f"{'':11} hatopo logs: %(message)s", stream=sys.stdout)
    with contextlib.ExitStack() as stack:
        say("starting 1 master, 2 replicas and 3 sentinels (down-after 1000 ms)")
        deployment = Deployment(stack)
        sentinels = [(HOST, one.port) for one in deployment.sentinels]
        plain = redis.sentinel.Sentinel(sentinels)
        client = hatopo.sentinel(SERVICE, sentinels) if chosen.client == "hatopo" else plain.master_for(SERVICE)
        stack.callback(client.close)
        counting = Counting(client)
        counting.start()
        stack.callback(counting.end)
        say(f"counting through one {chosen.client} client")
        passed = [drill(title, deployment, counting) for title in (KILL, PLANNED)[: 1 + chosen.planned]]
        return 0 if all(passed) else 1


if __name__ == "__main__":
    raise SystemExit(main())
