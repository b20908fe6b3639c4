"""A failover drill: what a Sentinel failover looks like to an application, and what became of each of its calls.

Starts a master, two replicas and three sentinels of its own, has readers and writers use them through ONE client,
breaks something, and prints a time line and a ledger.

    python examples/failover_drill.py                       kill, planned and double
    python examples/failover_drill.py --all                 and blind and scale; or --only kill,scale
    python examples/failover_drill.py --client redis-py     the same through redis-py, for comparison

Writers count with HINCRBY of a field used once: the end says how often each call was applied (0: lost, 2: doubled).
After each they SET a key to the time; readers GET it and check that it does not go back. Exit status 0 means: nothing
doubled; nothing lost, but in a planned failover up to 50 ms of writes, which the former master acknowledges and Redis
throws away (so that readers may go back, by 100 ms); no error but AmbiguousResultError, once for each writer at most,
of a call that was under way at the fault.
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import logging
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import redis.backoff
import redis.retry
import redis.sentinel

import hatopo
from hatopo import events

HOST, SERVICE = "127.0.0.1", "mymaster"
PACE = 0.002  # seconds between two calls of a worker
MAY_LOSE, MAY_GO_BACK = 0.05, 0.1  # seconds of writes, and of what is read, in a planned failover
SERVER = ('save ""', "repl-diskless-sync-delay 0")
AMBIGUOUS = "AmbiguousResultError"


class Timeline:
    """Prints what happens: seconds since the start, who says so, and what it is, with names for addresses."""

    def __init__(self) -> None:
        self.started, self.quiet, self.names = time.monotonic(), False, dict[str, str]()
        self.told, self.lock = set[str](), threading.Lock()
        self.switches = set[str]()  # what the sentinels have published since the experiment began

    def say(self, who: str, what: str, once: str = "") -> None:
        """Print a line; `once`: unless there was one of this kind in this experiment."""
        for address, name in self.names.items():
            what = what.replace(address, name)
        with self.lock:
            if not self.quiet and once not in self.told:
                print(f"{time.monotonic() - self.started:7.2f} s  {who:6}  {what}", flush=True)
            self.told |= {once} - {""}

    def hush(self) -> None:
        """Say nothing: what comes now is not what the drill shows."""
        self.quiet = True


def wait_for(what: str, check: Callable[[], object]) -> None:
    deadline = time.monotonic() + 30
    while time.monotonic() < deadline:
        with contextlib.suppress(redis.RedisError):
            if check():
                return
        time.sleep(0.02)
    raise SystemExit(f"the drill failed: waited 30 s for {what}")


class Process:
    """A redis-server or redis-sentinel on a free port, and plain redis-py to ask it."""

    def __init__(self, name: str, directory: str, timeline: Timeline, *lines: str) -> None:
        with socket.create_server((HOST, 0)) as free:
            self.port = int(free.getsockname()[1])
        self.name, self.timeline, self.home = name, timeline, Path(directory, name)
        self.home.mkdir()
        (self.home / "conf").write_text("\n".join([f"port {self.port}", f"bind {HOST}", f"dir {self.home}", *lines]))
        once = redis.retry.Retry(redis.backoff.NoBackoff(), 0)
        self.admin = redis.Redis(HOST, self.port, protocol=2, decode_responses=True, socket_timeout=1, retry=once)
        self.process: subprocess.Popen[bytes] | None = None
        timeline.names[f"{HOST}:{self.port}"] = name

    def start(self, program: str, *options: str) -> None:
        quiet, command = subprocess.DEVNULL, [program, str(self.home / "conf"), *options]
        self.process = subprocess.Popen(command, stdout=quiet, stderr=quiet, start_new_session=True)
        wait_for(f"{program} on port {self.port}", self.admin.ping)

    def replicate(self, master: Process) -> None:
        self.start("redis-server", "--replicaof", f"{HOST} {master.port}")

    def watch(self) -> None:
        """Run as a sentinel, whose +switch-master goes to the time line."""
        self.start("redis-sentinel")
        listener = self.admin.pubsub(ignore_subscribe_messages=True)
        listener.subscribe(**{"+switch-master": self.switched})
        listener.run_in_thread(0.1, daemon=True, exception_handler=lambda error, listener, thread: thread.stop())

    def switched(self, message: dict[str, str]) -> None:
        _, _, old, _, new = message["data"].split()
        self.timeline.switches.add(f"{old} -> {new}")
        self.timeline.say(self.name, f"+switch-master: {HOST}:{old} -> {HOST}:{new}")

    def kill(self) -> None:
        if self.process is not None:
            self.process.kill()
            self.process.wait()
            self.process = None

    def ask(self, *words: str | int) -> Any:
        return self.admin.execute_command(*words)

    def about(self, what: str) -> list[dict[str, str]]:
        """What a sentinel knows of its MASTERS (there is one), their REPLICAS or the other SENTINELS."""
        found = self.ask("SENTINEL", what) if what == "MASTERS" else self.ask("SENTINEL", what, SERVICE)
        return [dict(zip(one[::2], one[1::2], strict=True)) for one in found]


class Deployment:
    """One master, two replicas and three sentinels, all ended with the stack."""

    def __init__(self, stack: contextlib.ExitStack, timeline: Timeline) -> None:
        self.stack, self.timeline = stack, timeline
        self.directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="drill-"))
        self.nodes = [self.add(name, *SERVER) for name in "ABC"]
        self.nodes[0].start("redis-server")
        watch = (f"monitor {SERVICE} {HOST} {self.nodes[0].port} 2", f"down-after-milliseconds {SERVICE} 1000")
        lines = [f"sentinel {line}" for line in (*watch, f"failover-timeout {SERVICE} 3000")]
        self.sentinels = [self.add(name, *lines) for name in ("S1", "S2", "S3")]
        self.repair()

    def add(self, name: str, *lines: str) -> Process:
        added = Process(name, self.directory, self.timeline, *lines)
        self.stack.callback(added.kill)
        return added

    def named(self) -> set[int]:
        """The ports of the masters that the running sentinels watch: two while they switch."""
        return {int(one.about("MASTERS")[0]["port"]) for one in self.sentinels if one.process}

    def calm(self) -> bool:
        """Whether all running sentinels watch the same master, and think nothing bad of it."""
        seen = [one.about("MASTERS")[0] for one in self.sentinels if one.process]
        return len({one["port"] for one in seen}) == 1 and {one["flags"] for one in seen} == {"master"}

    def master(self) -> Process:
        """The master, as soon as all running sentinels watch the same."""
        wait_for("sentinels that agree", self.calm)
        return next(node for node in self.nodes if {node.port} == self.named())

    def repair(self) -> None:
        """Start what does not run, and return when all is in place (DEBUG: in a second or two instead of ten)."""
        for sentinel in self.sentinels:
            if not sentinel.process:
                sentinel.watch()
            sentinel.ask("SENTINEL", "DEBUG", "publish-period", 100, "info-period", 100)
        for node in self.nodes:
            if not node.process:
                node.replicate(self.master())
        wait_for("a healthy deployment", lambda: all(map(self.healthy, self.sentinels)))
        for sentinel in self.sentinels:
            sentinel.ask("SENTINEL", "DEBUG", "publish-period", 2000, "info-period", 10_000)

    def healthy(self, sentinel: Process) -> bool:
        """Whether this sentinel sees everybody up and in place."""
        masters, others, replicas = (sentinel.about(what) for what in ("MASTERS", "SENTINELS", "REPLICAS"))
        flags = [one["flags"] for one in masters + others + replicas]
        linked = all(one["master-link-status"] == "ok" for one in replicas)
        return linked and flags == ["master", "sentinel", "sentinel"] + ["slave"] * (len(self.nodes) - 1)


class Call(NamedTuple):
    """A call of the application: the field that it counts in, if it is an HINCRBY, and the type of its error."""

    field: str
    began: float
    ended: float
    error: str


class Worker(threading.Thread):
    """A thread of the application: calls in a loop, whatever happens, and keeps a record."""

    kind = ""

    def __init__(self, drill: Drill, number: int) -> None:
        super().__init__(daemon=True)
        self.drill, self.number, self.calls = drill, number, list[Call]()

    def run(self) -> None:
        while not self.drill.ending:
            self.work()

    def work(self) -> None:
        """A call or two."""

    def call(self, command: Callable[..., Any], *words: Any, field: str = "") -> Any:
        """Call; the time line gets the first error of each type, and the first success after the fault."""
        result, error, began, say = None, "", time.monotonic(), self.drill.timeline.say
        try:
            result = command(*words)
        except Exception as raised:  # whatever it is, the application sees it
            error = AMBIGUOUS if isinstance(raised, hatopo.AmbiguousResultError) else type(raised).__name__
        ended = time.monotonic()
        self.calls.append(Call(field, began, ended, error))
        if error:
            say("app", f"a {self.kind} fails with {error} after {ended - began:.2f} s", once=self.kind + error)
        elif began > self.drill.since:
            seconds = ended - self.drill.since
            say("app", f"first {self.kind} that succeeds, {seconds:.2f} s after the fault", once=self.kind)
        time.sleep(PACE)
        return result

    def goes_on(self) -> bool:
        """Whether there was a success since the fault."""
        return any(call.began > self.drill.since and not call.error for call in self.calls[-10:])

    def outage(self) -> float:
        """The longest time without a success."""
        successes = [call.ended for call in self.calls if not call.error]
        return max((later - earlier for earlier, later in pairwise(successes)), default=0.0)


class Writer(Worker):
    """Counts, and SETs a key of its own to the time."""

    kind = "write"

    def work(self) -> None:
        field = f"{self.number}.{len(self.calls)}"
        self.call(self.drill.client.hincrby, self.drill.key, field, 1, field=field)
        self.call(self.drill.client.set, f"{self.drill.key}:{self.number}", time.monotonic())


class Reader(Worker):
    """Reads the time that a writer has SET, and notes by how much it has gone back."""

    kind, latest, back = "read", 0.0, 0.0

    def work(self) -> None:
        key = f"{self.drill.key}:{self.number % len(self.drill.writers)}"
        found = float(self.call(self.drill.client.get, key) or 0)
        if found:
            self.latest, self.back = max(self.latest, found), max(self.back, self.latest - found)


class Drill:
    """Readers and writers through one client, and what is done to the deployment meanwhile: the experiments."""

    def __init__(self, title: str, deployment: Deployment, client: redis.Redis, readers: int, writers: int) -> None:
        self.title, self.deployment, self.client = title, deployment, client
        self.key = f"drill:{title}:{time.monotonic():.0f}"
        self.timeline, self.master = deployment.timeline, deployment.master()
        self.since, self.ending = float("inf"), False  # the moment of the fault
        self.readers = [Reader(self, number) for number in range(readers)]
        self.writers = [Writer(self, number) for number in range(writers)]

    def run(self) -> Mapping[Any, Any]:
        """One experiment under load; what the master has counted in the end."""
        workers = [*self.readers, *self.writers]
        for worker in workers:
            worker.start()
        time.sleep(0.5)
        EXPERIMENTS[self.title](self)
        wait_for("a success of every reader and writer", lambda: all(worker.goes_on() for worker in workers))
        time.sleep(1)
        self.ending = True
        for worker in workers:
            worker.join(30)
        self.timeline.hush()
        return self.deployment.master().admin.hgetall(self.key)

    def say(self, what: str) -> None:
        self.timeline.say("drill", what)

    def fault(self, what: str, *causes: Callable[[], object]) -> None:
        """Say what is broken, break it, and count time from then on."""
        self.timeline.say("FAULT", what)
        for cause in causes:
            cause()
        self.since = time.monotonic()

    def await_switch(self) -> None:
        """Return when all sentinels have switched to another master."""
        wait_for("another master", lambda: self.master.port not in self.deployment.named())
        self.deployment.master()

    def kill(self) -> None:
        """The master is killed."""
        self.fault(f"the master, {self.master.name}, is killed (SIGKILL)", self.master.kill)
        self.await_switch()

    def planned(self) -> None:
        """An operator asks for a failover."""
        sentinel, others = self.deployment.sentinels[0], [one for one in self.deployment.nodes if one != self.master]
        wait_for("a sentinel that is ready", lambda: sentinel.ask("SENTINEL", "FAILOVER", SERVICE))
        self.say(f"{sentinel.name} has accepted SENTINEL FAILOVER")
        wait_for("a promotion", lambda: any(node.ask("ROLE")[0] == "master" for node in others))
        self.fault(f"a replica is promoted; {self.master.name} still takes writes, which Redis will throw away")
        self.await_switch()

    def blind(self) -> None:
        """All sentinels are killed, then the connections to the master are cut, then the sentinels return."""
        for sentinel in self.deployment.sentinels:
            sentinel.kill()
        self.say("all sentinels are killed")
        time.sleep(1)
        cut = partial(self.master.ask, "CLIENT", "KILL", "TYPE", "normal")
        self.fault(f"the connections to the master, {self.master.name}, are cut (CLIENT KILL)", cut)
        time.sleep(1)
        self.deployment.repair()
        self.say("all sentinels are back")

    def double(self) -> None:
        """A sentinel and the master are killed."""
        sentinel, master = self.deployment.sentinels[0], self.master
        self.fault(f"{sentinel.name} and the master, {master.name}, are killed", sentinel.kill, master.kill)
        self.await_switch()

    def scale(self) -> None:
        """A replica is added, another one removed, and a failover makes the new one the master."""
        nodes = self.deployment.nodes
        gone = next(node for node in nodes if node != self.master)
        nodes.append(self.deployment.add(f"{gone.name}2", *SERVER))
        self.deployment.repair()
        self.say(f"the replica {nodes[-1].name} is added")
        for node in nodes[:-1]:
            node.ask("CONFIG", "SET", "replica-priority", 0)  # never to be promoted
        gone.kill()
        nodes.remove(gone)
        for sentinel in self.deployment.sentinels:
            sentinel.ask("SENTINEL", "RESET", SERVICE)  # or they would wait for its return
        self.deployment.repair()
        self.say(f"the replica {gone.name} is removed")
        self.planned()
        for node in nodes:
            node.ask("CONFIG", "SET", "replica-priority", 100)


EXPERIMENTS = {one.__name__: one for one in (Drill.kill, Drill.planned, Drill.blind, Drill.double, Drill.scale)}


def column(workers: Sequence[Worker]) -> dict[str, str]:
    """What the ledger says of readers and writers alike."""
    calls = [call for worker in workers for call in worker.calls]
    errors = Counter(call.error for call in calls)
    acknowledged, ambiguous = errors.pop("", 0), errors.pop(AMBIGUOUS, 0)
    rows = {"calls": len(calls), "acknowledged": acknowledged, AMBIGUOUS: ambiguous, "other errors": errors.total()}
    longest = max((call.ended - call.began for call in calls), default=0.0)
    outage = max((worker.outage() for worker in workers), default=0.0)
    shown = {row: f"{count}" for row, count in {**rows, **errors}.items()}
    return {**shown, "longest call": f"{longest:.2f} s", "outage": f"{outage:.2f} s"}


def settle(drill: Drill, applied: Mapping[Any, Any]) -> list[str]:
    """Print the ledger: what became of each call; return what must not be."""
    counts = [call for writer in drill.writers for call in writer.calls if call.field]
    lost = [call.ended for call in counts if not call.error and call.field not in applied]
    lost_for = max(lost) - min(*lost, drill.since) if lost else 0.0
    doubled = sum(int(applied.get(call.field, 0)) > 1 for call in counts)
    back = max((reader.back for reader in drill.readers), default=0.0)
    more = {"lost": f"{len(lost)}", "lost within": f"{lost_for * 1000:.0f} ms", "doubled": f"{doubled}"}
    reads = {**column(drill.readers), "went back by": f"{back * 1000:.0f} ms"}
    writes = {**column(drill.writers), **more}
    print(f"\n  {'ledger of ' + drill.title:24}{'reads':>10}{'writes':>10}")
    for row in {**writes, **reads}:
        print(f"  {row:24}{reads.get(row, '-'):>10}{writes.get(row, '-'):>10}")
    planned = drill.title in ("planned", "scale")
    workers: list[Worker] = [*drill.readers, *drill.writers]
    met = [Counter(call.error for call in worker.calls if call.error) for worker in workers]
    late = [call for one in workers for call in one.calls if call.error == AMBIGUOUS and call.began > drill.since]
    complaints = {
        "writes were doubled": doubled > 0,
        "writes were lost": lost_for > MAY_LOSE if planned else len(lost) > 0,
        "reads went back": back > (MAY_GO_BACK if planned else 0),
        f"errors other than {AMBIGUOUS}": any(set(errors) - {AMBIGUOUS} for errors in met),
        f"a reader met {AMBIGUOUS}": any(errors[AMBIGUOUS] for errors in met[: len(drill.readers)]),
        f"a writer met {AMBIGUOUS} more than once": any(errors[AMBIGUOUS] > 1 for errors in met),
        f"{AMBIGUOUS} of a call that began after the fault": bool(late) and not planned,
    }
    return [what for what, so in complaints.items() if so]


def in_words(event: events.Event) -> str:
    """What hatopo reports."""
    match event:
        case events.FailoverStarted(sign=sign):
            return f"a failover has started: {sign}"
        case events.MasterChanged(old=old, new=new, seconds=seconds, provisional=provisional):
            sure = "; provisional: no sentinel has confirmed it yet" if provisional else ""
            return f"commands go to {new} instead of {old or 'nobody'}, {seconds:.2f} s after the first sign{sure}"
        case events.TopologyChanged(topology=view, cause=cause):
            master, *replicas = (str(node.address) for node in view.nodes)
            sure = "provisional" if view.provisional else "agreed" if view.agreed else "no majority yet"
            known = f"master {master}, replicas {', '.join(replicas) or 'none'}"
            return f"the topology is: {known} ({cause.value}, {sure})"
        case events.DiscoveryDegraded():
            return "no sentinel can be asked: the last known master is kept"
        case events.SentinelLost(address=address):
            return f"the sentinel {address} is lost"
        case events.SentinelFound(address=address):
            return f"the sentinel {address} is found, or heard again"
        case events.NodeDown(reason=reason):
            return reason
        case events.NodeUp(address=address):
            return f"{address} can be reached again"
    return str(event)


def show_stats(client: hatopo.Redis) -> None:
    """What the client itself has counted."""
    print("\nclient.stats()")
    for name, value in dataclasses.asdict(client.stats()).items():
        shown = f"{value:.2f} s" if isinstance(value, float) else value
        if isinstance(value, dict):
            shown = ", ".join(f"{count} {what}" for what, count in sorted(value.items())) or "none"
        print(f"  {name.replace('_', ' '):24}{shown}")


def run(title: str, deployment: Deployment, client: redis.Redis, readers: int, writers: int, tries: int = 3) -> bool:
    """One experiment and its ledger; whether all is as it must be."""
    timeline = deployment.timeline
    timeline.hush()
    deployment.repair()
    timeline.quiet, timeline.told, timeline.switches = False, set(), set()
    print(f"\n{title}: {EXPERIMENTS[title].__doc__}\n")
    drill = Drill(title, deployment, client, readers, writers)
    complaints = settle(drill, drill.run())
    if complaints and len(timeline.switches) > 1 and tries > 1:
        # A stall of the machine looks like a dead master to sentinels that wait for no more than a second.
        print(f"  the sentinels have switched twice ({', '.join(sorted(timeline.switches))}): once more", flush=True)
        return run(title, deployment, client, readers, writers, tries - 1)
    print(f"  {'FAILED: ' + '; '.join(complaints) if complaints else 'passed'}", flush=True)
    return not complaints


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--all", action="store_true", help=f"run all experiments: {', '.join(EXPERIMENTS)}")
    parser.add_argument("--only", metavar="NAME,...", help="run these")
    parser.add_argument("--client", choices=["hatopo", "redis-py"], default="hatopo")
    parser.add_argument("--readers", type=int, default=3)
    parser.add_argument("--writers", type=int, default=3)
    parser.add_argument("--logs", action="store_true", help="also print what hatopo logs")
    chosen = parser.parse_args()
    if min(chosen.readers, chosen.writers) < 1:
        parser.error("there must be a reader and a writer")
    chosen.titles = chosen.only.split(",") if chosen.only else list(EXPERIMENTS)
    if not chosen.only and not chosen.all:
        chosen.titles = ["kill", "planned", "double"]
    if not set(chosen.titles) <= set(EXPERIMENTS):
        parser.error(f"the experiments are {', '.join(EXPERIMENTS)}")
    if missing := [name for name in ("redis-server", "redis-sentinel") if shutil.which(name) is None]:
        parser.exit(2, f"This drill needs {' and '.join(missing)} on the PATH.\n")
    return chosen


def main() -> int:
    chosen, timeline = parse(), Timeline()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    logging.basicConfig(format=f"{'':11}log     %(message)s", stream=sys.stdout)
    logging.getLogger("hatopo").setLevel(logging.INFO if chosen.logs else logging.CRITICAL)
    with contextlib.ExitStack() as stack:
        timeline.say("drill", "starting a master A, its replicas B and C, and the sentinels S1, S2 and S3")
        timeline.hush()
        deployment = Deployment(stack, timeline)
        sentinels = [(HOST, one.port) for one in deployment.sentinels]
        client = redis.sentinel.Sentinel(sentinels).master_for(SERVICE)
        if chosen.client == "hatopo":
            client = hatopo.sentinel(SERVICE, sentinels)
            client.subscribe_events(lambda event: timeline.say("hatopo", in_words(event)))
        stack.callback(client.close)
        stack.callback(timeline.hush)
        client.ping()
        passed = [run(title, deployment, client, chosen.readers, chosen.writers) for title in chosen.titles]
        if isinstance(client, hatopo.Redis):
            show_stats(client)
        return 0 if all(passed) else 1


if __name__ == "__main__":
    try:
        raise SystemExit(main())
    except KeyboardInterrupt:
        raise SystemExit(130) from None
