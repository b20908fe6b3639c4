"""`hatopo demo`: a Sentinel set, readers and writers through ONE client, and what is done to the set meanwhile.

Writes go to the master, reads to the replicas.

The set is the embedded one, at the pace of real processes; or, with --backend real, redis-server and redis-sentinel
themselves. Exit status 0: the ledgers say that nothing was doubled, and nothing lost that Redis keeps.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import redis
import redis.sentinel

import hatopo
from hatopo.cli._ledger import TIMED, settle
from hatopo.cli._load import Load
from hatopo.cli._screen import Screen, in_words
from hatopo.testing import RealSentinelDeployment, ScaledClock, SentinelDeployment

AnyDeployment = SentinelDeployment | RealSentinelDeployment
BETWEEN = 50.0
"""How fast the embedded set's time runs between experiments, while it is put in order."""


STALL, JERK = 0.1, 0.01
"""Seconds without a chance to run after which an experiment that fails says nothing; the second where it has failed by
times alone: a switch is made of several turns."""
TURN = 0.0005
"""Seconds after which threads take turns: application, client and servers share an interpreter here, and are to run
beside each other as processes do."""


class Set:
    """The deployment with names for its members, and the ways to break and to repair it."""

    def __init__(self, deployment: AnyDeployment, screen: Screen) -> None:
        self.deployment, self.screen = deployment, screen
        self.seen = 0
        self.switches: dict[str, None] = {}
        """What the sentinels have announced since the experiment began."""

    def name_all(self) -> None:
        """Let the screen say "A" and "S1" instead of addresses."""
        nodes = zip("ABCDEFGH", self.deployment.nodes, strict=False)
        sentinels = enumerate(self.deployment.sentinel_nodes, start=1)
        named: list[tuple[str, Any]] = [*nodes, *((f"S{number}", one) for number, one in sentinels)]
        self.screen.names |= {f"{one.host}:{one.port}": name for name, one in named}

    def name_of(self, member: Any) -> str:
        """The name of a node or a sentinel."""
        return self.screen.names[f"{member.host}:{member.port}"]

    def show_events(self) -> None:
        """Print the switches that the sentinels have published since the last time."""
        fresh = self.deployment.events[self.seen :]
        self.seen += len(fresh)
        for event in fresh:
            if event.channel == "+switch-master":
                _, host, port, new_host, new_port = event.payload.split()
                self.switches[f"{port} -> {new_port}"] = None
                sentinel = self.screen.names.get(f"{event.sentinel[0]}:{event.sentinel[1]}", "a sentinel")
                self.screen.say(sentinel, f"+switch-master: {host}:{port} -> {new_host}:{new_port}")

    @contextlib.contextmanager
    def in_a_hurry(self) -> Iterator[None]:
        """Let the time of an embedded set run faster; what happens in it is not shown."""
        clock = getattr(self.deployment, "clock", None)
        if not isinstance(clock, ScaledClock):
            yield
            return
        clock.speed = BETWEEN
        try:
            yield
        finally:
            clock.speed = 1.0

    def repair(self) -> None:
        """Start what does not run, and return when all is in place."""
        with self.in_a_hurry():
            for member in [*self.deployment.sentinel_nodes, *self.deployment.nodes]:
                if not member.running:
                    member.start()
            self.deployment.wait_stable(60)
        self.name_all()
        self.seen = len(self.deployment.events)
        self.switches.clear()


class Experiment:
    """One thing that is done to the set under load."""

    def __init__(self, title: str, members: Set, client: redis.Redis, readers: int, writers: int) -> None:
        self.title, self.members, self.deployment = title, members, members.deployment
        self.screen = members.screen
        self.master: Any = self.deployment.master()
        self.since = float("inf")  # the moment of the fault
        self.load = Load(client, f"demo:{title}:{time.monotonic():.0f}", readers, writers, self)

    def failed(self, kind: str, error: str, seconds: float) -> None:
        """The application has met an error."""
        self.screen.failed(kind, error, seconds)

    def succeeded(self, kind: str, began: float, ended: float) -> None:
        """The application has had a success: the first after the fault is shown."""
        if began > self.since:
            seconds = ended - self.since
            self.screen.say("app", f"first {kind} that succeeds, {seconds:.2f} s after the fault", once=kind)

    def run(self) -> Sequence[str]:
        """Do it; what is not as it must be."""
        self.load.start()
        time.sleep(0.4)
        EXPERIMENTS[self.title](self)
        self.wait("a success of every reader and writer", lambda: self.load.all_go_on_since(self.since))
        time.sleep(0.6)
        self.load.end()
        self.members.show_events()
        self.screen.hush()
        flat = self.deployment.master().execute("HGETALL", self.load.key)
        applied = {field: int(count) for field, count in zip(flat[::2], flat[1::2], strict=True)}
        ledger = settle(self.load, applied, self.since, planned=self.title in PLANNED)
        self.screen.ledger(self.title, ledger)
        return ledger.complaints

    def wait(self, what: str, check: Callable[[], object]) -> None:
        """Wait for something to happen, and show what the sentinels say meanwhile."""

        def look() -> object:
            self.members.show_events()
            return check()

        self.deployment.wait_until(look, 30, what)

    def say(self, what: str) -> None:
        """Say what is done."""
        self.screen.say("demo", what)

    def fault(self, what: str, *causes: Callable[[], object]) -> None:
        """Say what is broken, break it, and count time from then on."""
        self.screen.say("FAULT", what)
        for cause in causes:
            cause()
        self.since = time.monotonic()

    def wait_for_switch(self) -> None:
        """Return when all sentinels name another master."""
        awake = [one for one in self.deployment.sentinel_nodes if one.running]
        ask = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.deployment.name)

        def switched() -> bool:
            named = {tuple(one.execute(*ask)) for one in awake}
            return len(named) == 1 and (self.master.host, str(self.master.port)) not in named

        self.wait("another master", switched)

    def kill(self) -> None:
        """The master is killed."""
        name = self.members.name_of(self.master)
        self.fault(f"the master, {name}, is killed (SIGKILL)", self.master.kill)
        self.wait_for_switch()

    def planned(self) -> None:
        """An operator asks for a failover."""
        self.deployment.failover()
        self.say("a sentinel has accepted SENTINEL FAILOVER")
        others = [one for one in self.deployment.nodes if one is not self.master]
        self.wait("a promotion", lambda: any(node.role() == "master" for node in others))
        name = self.members.name_of(self.master)
        self.fault(f"a replica is promoted; {name} still takes writes, which Redis will throw away")
        self.wait_for_switch()

    def blind(self) -> None:
        """All sentinels are killed, then the connections to the master are cut, then the sentinels return."""
        for sentinel in self.deployment.sentinel_nodes:
            sentinel.kill()
        self.say("all sentinels are killed")
        time.sleep(0.8)
        name = self.members.name_of(self.master)
        cut = partial(self.master.disconnect, "normal")
        self.fault(f"the connections to the master, {name}, are cut (CLIENT KILL)", cut)
        time.sleep(0.8)
        self.members.repair()
        self.say("all sentinels are back")

    def double(self) -> None:
        """A sentinel and the master are killed."""
        sentinel = self.deployment.sentinel_nodes[0]
        names = f"{self.members.name_of(sentinel)} and the master, {self.members.name_of(self.master)},"
        self.fault(f"{names} are killed", sentinel.kill, self.master.kill)
        self.wait_for_switch()

    def scale(self) -> None:
        """A replica is added, another one removed, and a failover makes the new one the master."""
        gone: Any = next(node for node in self.deployment.nodes if node is not self.master)
        with self.members.in_a_hurry():
            added = self.deployment.add_replica()
        self.members.name_all()
        self.say(f"the replica {self.members.name_of(added)} is added")
        for node in self.deployment.nodes:
            node.execute("CONFIG", "SET", "replica-priority", 100 if node is added else 0)
        name = self.members.name_of(gone)
        with self.members.in_a_hurry():
            self.deployment.remove(gone)
        self.say(f"the replica {name} is removed")
        self.planned()
        for node in self.deployment.nodes:
            node.execute("CONFIG", "SET", "replica-priority", 100)


EXPERIMENTS = {
    one.__name__: one
    for one in (Experiment.kill, Experiment.planned, Experiment.blind, Experiment.double, Experiment.scale)
}
PLANNED = {"planned", "scale"}
USUAL = ["kill", "planned", "blind"]


def _connected(chosen: argparse.Namespace, deployment: AnyDeployment, screen: Screen) -> redis.Redis:
    """The one client of all readers and writers."""
    if chosen.client == "redis-py":
        plain: redis.Redis = redis.sentinel.Sentinel(deployment.sentinels).master_for(deployment.name)
        return plain
    client = hatopo.sentinel(deployment.name, deployment.sentinels, read_from="replica_preferred")
    client.subscribe_events(lambda event: screen.say("hatopo", in_words(event)))
    return client


def _run(title: str, members: Set, client: redis.Redis, readers: int, writers: int, tries: int = 3) -> bool:
    """One experiment and its ledger; whether all is as it must be."""
    members.screen.hush()
    members.repair()
    members.screen.title(title, EXPERIMENTS[title].__doc__ or "")
    experiment = Experiment(title, members, client, readers, writers)
    complaints = experiment.run()
    excuse = ""
    if experiment.load.pulse.stall > (JERK if TIMED.issuperset(complaints) else STALL):
        excuse = f"the machine stood still for {experiment.load.pulse.stall * 1000:.0f} ms"
    elif len(members.switches) > 1:  # a stall of the machine is a dead master to real sentinels
        excuse = f"the sentinels have switched twice ({', '.join(members.switches)})"
    if complaints and excuse and tries > 1:
        members.screen.console.print(f"  {excuse}: once more")
        return _run(title, members, client, readers, writers, tries - 1)
    return not complaints


def _parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="hatopo demo", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--all", action="store_true", help=f"run all experiments: {', '.join(EXPERIMENTS)}")
    parser.add_argument("--only", metavar="NAME,...", help="run these")
    parser.add_argument("--backend", choices=["embedded", "real"], default="embedded")
    parser.add_argument("--client", choices=["hatopo", "redis-py"], default="hatopo", help="whom the load calls")
    parser.add_argument("--readers", type=int, default=3)
    parser.add_argument("--writers", type=int, default=3)
    chosen = parser.parse_args(arguments)
    if min(chosen.readers, chosen.writers) < 1:
        parser.error("there must be a reader and a writer")
    missing = [name for name in ("redis-server", "redis-sentinel") if shutil.which(name) is None]
    if chosen.backend == "real" and missing:
        parser.error(f"--backend real needs {' and '.join(missing)} on the PATH")
    chosen.titles = chosen.only.split(",") if chosen.only else [*EXPERIMENTS] if chosen.all else USUAL
    if not set(chosen.titles) <= set(EXPERIMENTS):
        parser.error(f"the experiments are {', '.join(EXPERIMENTS)}")
    return chosen


def main(arguments: Sequence[str]) -> int:
    """Run the experiments; returns the exit status."""
    chosen, screen = _parse(arguments), Screen()
    logging.getLogger("hatopo").setLevel(logging.CRITICAL)  # the time line says it all
    sys.setswitchinterval(TURN)
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    screen.say("demo", "starting a master A, its replicas B and C, and the sentinels S1, S2 and S3")
    with contextlib.ExitStack() as stack:
        clock = ScaledClock(BETWEEN)
        embedded = chosen.backend == "embedded"
        deployment: AnyDeployment = SentinelDeployment(clock=clock) if embedded else RealSentinelDeployment()
        stack.enter_context(deployment)
        clock.speed = 1.0
        members = Set(deployment, screen)
        members.name_all()
        client = _connected(chosen, deployment, screen)
        stack.callback(client.close)
        stack.callback(screen.hush)
        client.ping()
        passed = [_run(title, members, client, chosen.readers, chosen.writers) for title in chosen.titles]
        if isinstance(client, hatopo.Redis):
            screen.stats(client)
        return 0 if all(passed) else 1
