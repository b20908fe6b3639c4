"""What scenarios have in common: what may go wrong for a caller, and what sentinels and servers say of it."""

from __future__ import annotations

import contextlib
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from hatopo import events
from hatopo.testing.real import RECORDER
from tests.control import ServerError, eventually

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hatopo.testing import NodeHandle, SentinelDeployment, SentinelHandle
    from tests.control import Address, Control
    from tests.drivers import Ledger, WatchingDriver

    AnyServer = NodeHandle | SentinelHandle

E = TypeVar("E", bound=events.Event)


HOURS = 10_000
"""Seconds: not within a test, not even on servers that live fifty times as fast."""
SLOW = 4.0
"""The speed of sentinels between whose steps a client is to do something."""
AS_REAL = 1.0
"""The speed of sentinels each of whose steps a client is to see: the shortest of them lasts for 0.7 s."""


def members(deployment: SentinelDeployment) -> list[AnyServer]:
    """All nodes and sentinels."""
    return [*deployment.nodes, *deployment.sentinel_nodes]


def change_master(deployment: SentinelDeployment, trouble: str) -> NodeHandle:
    """A planned failover, or trouble for the master ("kill", "pause"); returns the new one."""
    old = deployment.master()
    if trouble == "planned":
        deployment.failover()
    else:
        getattr(old, trouble)()
    return deployment.wait_switched(old)


def assert_rode_through(ledger: Ledger, outages: int = 1) -> None:
    """Nothing applied twice, nothing acknowledged gone, and no error beyond what is allowed."""
    assert ledger.acknowledged > 0
    assert ledger.doubled == []
    assert ledger.lost == [], ledger.lost
    assert_only_ambiguous(ledger, outages)


def assert_only_ambiguous(ledger: Ledger, outages: int) -> None:
    """No error but "maybe executed", for increments alone, and once a thread and outage at most."""
    assert ledger.other_errors == []
    assert {call.kind for call in ledger.ambiguous} <= {"incr"}
    met = [f"{call.name} in {call.ended - call.began:.2f} s: {call.error}" for call in ledger.ambiguous]
    assert max(ledger.ambiguous_per_thread.values(), default=0) <= outages, "\n".join(met)


def told(driver: WatchingDriver, kind: type[E]) -> list[E]:
    """The events of one kind, in their order."""
    return [heard.event for heard in driver.events if isinstance(heard.event, kind)]


def masters_told(driver: WatchingDriver) -> list[tuple[Address, bool]]:
    """The masters that took over from another, in their order, and whether that was provisional."""
    changes = [change for change in told(driver, events.MasterChanged) if change.old is not None]
    return [((change.new.host, change.new.port), change.provisional) for change in changes]


def hears_all(driver: WatchingDriver, deployment: SentinelDeployment) -> bool:
    """Whether the client listens to all sentinels that it was given: no failover is too fast for it then."""
    heard = {(found.address.host, found.address.port) for found in told(driver, events.SentinelFound)}
    return heard >= {*deployment.sentinels}


def confirmed(driver: WatchingDriver, epoch: int) -> bool:
    """Whether the client was told a view of this epoch that is not provisional."""
    views = [change.topology for change in told(driver, events.TopologyChanged)]
    return any(view.epoch == epoch and not view.provisional for view in views)


def all_name(driver: WatchingDriver, deployment: SentinelDeployment, master: NodeHandle) -> bool:
    """Whether the client and the sentinels name this master, and it says so, too."""
    return driver.master() == master.address and deployment.master() is master and master.role() == "master"


def write_arrives(driver: WatchingDriver, master: NodeHandle, value: str) -> bool:
    """Whether a write through the client is on this node then."""
    driver.call("set", "written", value)
    return bool(master.execute("GET", "written") == value)


@dataclass(frozen=True)
class Announcement:
    """What a sentinel published."""

    moment: float
    sentinel: Address
    channel: str
    text: str


class Recorder:
    """Everything that each sentinel publishes while this is entered, with the moment of its arrival."""

    def __init__(self, sentinels: Iterable[SentinelHandle]) -> None:
        self.heard: list[Announcement] = []
        self._controls = [(sentinel.address, sentinel.control(timeout=120)) for sentinel in sentinels]
        self._threads = [threading.Thread(target=self._listen, args=each) for each in self._controls]

    def of(self, *channels: str) -> list[Announcement]:
        return [each for each in self.heard if each.channel in channels]

    def _listen(self, address: Address, control: Control) -> None:
        with contextlib.suppress(OSError, ValueError):  # the sentinel died, or recording has ended
            while True:
                _, _, channel, text = control.read()
                self.heard.append(Announcement(time.monotonic(), address, channel, text))

    def __enter__(self) -> Recorder:
        for (_, control), thread in zip(self._controls, self._threads, strict=True):
            control("PSUBSCRIBE", "*")
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        for _, control in self._controls:
            control.close()
        for thread in self._threads:
            thread.join(10)


def threads_of_hatopo(prefix: str = "") -> list[str]:
    """The names of the library's threads in this process; that of the embedded servers is none of them."""
    names = [thread.name for thread in threading.enumerate() if thread.name != "hatopo-testing"]
    return sorted(name for name in names if name.startswith(f"hatopo-{prefix}"))


def connections_from_outside(sentinel: SentinelHandle) -> list[str]:
    """The lines of CLIENT LIST that are neither another sentinel's nor the test's own."""
    lines = sentinel.execute("CLIENT", "LIST").splitlines()
    inside = (" name=sentinel-", f" name={RECORDER} ", " cmd=client")
    return [line for line in lines if not any(mark in line for mark in inside)]


def commands_processed(server: AnyServer) -> int:
    """How many commands a server has executed for anybody."""
    return _number(server.execute("INFO", "stats"), "total_commands_processed:")


def errors_replied(server: NodeHandle, code: str) -> int:
    """How often a server has refused something with this error: "NOREPLICAS"."""
    return _number(server.execute("INFO", "errorstats"), f"errorstat_{code}:count=")


def connections_received(server: AnyServer) -> int:
    return _number(server.execute("INFO", "stats"), "total_connections_received:")


def _number(info: str, prefix: str) -> int:
    found = [line.removeprefix(prefix) for line in info.splitlines() if line.startswith(prefix)]
    return int(found[0].partition(",")[0]) if found else 0


def denials(server: AnyServer, user: str) -> list[str]:
    """What a user was not permitted, of the last that the server remembers."""
    entries: list[list[Any]] = server.execute("ACL", "LOG", 100)
    found = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in entries]
    return [f"{one['reason']} {one['object']}" for one in found if one["username"] == user]


def demoted(node: NodeHandle, deployment: SentinelDeployment) -> None:
    """Returns when the sentinels have made a former master a replica; they are made to hurry."""
    with contextlib.suppress(ServerError):
        deployment.tune(publish_period=250, info_period=300)
    eventually(lambda: node.role() == "slave", 30, "the old master is demoted")
