"""What scenarios of reading have in common: what befalls a replica, and whether it is read from."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hatopo import events
from tests.control import ServerError, eventually
from tests.drivers import Load
from tests.scenarios.support import threads_of_hatopo, told

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hatopo.testing import NodeHandle, Replication, SentinelDeployment
    from tests.control import Address
    from tests.drivers import WatchingDriver, Worker

POLICIES = ("replica_preferred", "any", "nearest")
"""Those under which a replica is read from, and the rest goes on without it."""
MAX_LAG = 100_000
NOBODY = ("127.0.0.1", 1)
"""Where no master is."""
ROUNDS = 5
"""Calls of every thread after which a node that is left alone is believed to be."""


@dataclass(frozen=True)
class Fault:
    """What befalls a replica, and how that ends; both take the client, the replica and its master."""

    begin: Callable[[WatchingDriver, NodeHandle, NodeHandle], object]
    end: Callable[[WatchingDriver, NodeHandle, NodeHandle], object]
    why: str
    """What the client says of a replica that suffers it."""


def _lag(driver: WatchingDriver, node: NodeHandle, master: NodeHandle) -> None:
    node.set_lag(ops=1_000_000)
    driver.call("set", "large", "x" * 2 * MAX_LAG)


FAULTS = {
    "kill": Fault(lambda _, node, __: node.kill(), lambda _, node, __: node.start(), ""),
    "freeze": Fault(lambda _, node, __: node.pause(), lambda _, node, __: node.resume(), ""),
    "lag": Fault(_lag, lambda _, node, __: node.set_lag(), "bytes behind its master"),
    "loading": Fault(lambda _, node, __: node.set_loading(), lambda _, node, __: node.set_loading(False), "loading"),
    "link": Fault(
        lambda _, node, __: node.replicate(NOBODY),
        lambda _, node, master: node.replicate(master.address),
        "its link to its master is down",
    ),
}


def executed(command: str, node: NodeHandle) -> int:
    """How often this node has executed a command since it was started."""
    about = node.execute("INFO", "commandstats").splitlines()
    lines = [line for line in about if line.startswith(f"cmdstat_{command}:")]
    return int(lines[0].partition("calls=")[2].partition(",")[0]) if lines else 0


def gets(node: NodeHandle) -> int:
    """How many GETs this node has executed since it was started."""
    return executed("get", node)


def why_refused(driver: WatchingDriver, node: NodeHandle) -> str:
    """Why a node gets no reads, as the client says; "" if it does, or is not known."""
    status = driver.nodes().get(node.address)
    return "" if status is None else status.refused


def is_fit(driver: WatchingDriver, node: NodeHandle) -> bool:
    """Whether the client knows a node, and nothing speaks against it."""
    status = driver.nodes().get(node.address)
    return status is not None and not status.refused and not status.doubtful


def wait_read_from(load: Load, *nodes: NodeHandle, seconds: float = 20) -> None:
    """Returns when every thread that reads by a policy was answered by each of these, in calls that begin now."""
    readers = [worker for worker in load.workers if worker.kind not in ("incr", "get", "set")]
    assert readers
    for node in nodes:
        moment = max((call.began for worker in load.workers for call in worker.finished[-1:]), default=0.0)
        eventually(_all_answered_by(readers, node, moment), seconds, f"reads from {node.name}")


def _all_answered_by(readers: Iterable[Worker], node: NodeHandle, moment: float) -> Callable[[], bool]:
    return lambda: all(reader.was_answered_by(node.address, moment) for reader in readers)


def assert_spared(driver: WatchingDriver, load: Load, node: NodeHandle) -> None:
    """No call that begins from now on is sent to this node: it executes none, and none waits for it."""
    load.progress()  # what began before has ended
    eventually(lambda: not threads_of_hatopo("probe"), what="nobody looks whether it answers")
    retries = sum(driver.stats().retries.values())
    executed, in_use = _reads_at(driver, node)
    for _ in range(ROUNDS):
        load.progress()
        before, (again, in_use) = in_use, _reads_at(driver, node)
        assert again == executed, "it executes reads"
        assert in_use <= before, "connections to it are taken"  # one that is being dialled may be given up
    assert sum(driver.stats().retries.values()) == retries, "calls have tried it in vain"


def _reads_at(driver: WatchingDriver, node: NodeHandle) -> tuple[int, int]:
    """GETs that a node has executed, if it can be asked, and connections to it that are in use."""
    status = driver.nodes().get(node.address)
    return gets(node) if node.awake else 0, 0 if status is None else status.in_flight


def assert_told(driver: WatchingDriver, node: NodeHandle) -> None:
    """That this replica was left, and is used again, is told in this order."""

    def is_told() -> bool:
        heard = [heard.event for heard in driver.events]
        ours = [event for event in heard if isinstance(event, (events.ReplicaRefused, events.ReplicaAccepted))]
        kinds = [type(event) for event in ours if (event.address.host, event.address.port) == node.address]
        assert events.ReplicaRefused in kinds, told(driver, events.Event)
        return events.ReplicaAccepted in kinds[kinds.index(events.ReplicaRefused) :]

    eventually(is_told, what="that it was left, and that it is used again")


def hands_off(deployment: SentinelDeployment) -> None:
    """The sentinels do not put right what an operator does to a replica: they wait for so long first.

    Four of these periods where it is a master, the other time where it follows somebody else.
    """
    deployment.set(failover_timeout=3_600_000)
    with contextlib.suppress(ServerError):  # before 7.0 the period is two seconds
        deployment.tune(publish_period=3_600_000)


def take_over(new: NodeHandle, old: NodeHandle, others: Iterable[NodeHandle], key: str) -> set[str]:
    """By hand: one becomes the master and the former one follows it; what of a hash the former threw away.

    That is what it had acknowledged when it became a replica, and what the new one has not got: Redis loses it, whoever
    wrote it. The former master is looked at in the very moment in which it is demoted.
    """
    new.replicate(None)
    with old.control() as control:
        control("MULTI")
        control("HGETALL", key)
        control("REPLICAOF", *new.address)
        flat, _ = control("EXEC")
    for other in others:
        other.replicate(new.address)
    kept = {*new.execute("HKEYS", key)}
    return {*flat[::2]} - kept


def wait_replicated(replicas: Iterable[NodeHandle]) -> None:
    """Returns when replicas get the writes of a load: for a second after a full synchronization they need not."""
    eventually(lambda: all(one.execute("EXISTS", Load.KEY) for one in replicas), 20, "writes arrive at replicas")


def promote_in_peace(deployment: Replication, new: NodeHandle) -> None:
    """Promotes a replica of a master that is dead, once it has all that it was sent: Redis throws the rest away."""
    eventually(lambda: new.execute("ROLE")[3] != "connected", 20, "it misses its master")
    deployment.promote(new)


def addresses(deployment: Replication) -> list[Address]:
    """Where its nodes listen."""
    return [node.address for node in deployment.nodes]
