"""The table of docs/reference/read-from.md, as it comes out on running servers."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

import hatopo
from hatopo import ReadFrom
from hatopo.routing import _fitness
from hatopo.testing import Replication
from tests.control import eventually
from tests.test_docs import rows

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hatopo import NodeStatus
    from hatopo.testing import NodeHandle

PAGE = Path(__file__).parent.parent / "docs" / "reference" / "read-from.md"
READS = 60  # of three nodes one stays unseen once in 10^10 times


def last_replica_first(nodes: Sequence[NodeStatus]) -> Sequence[NodeStatus]:
    return sorted((node for node in nodes if not node.is_master), key=lambda node: -ZONES[node.address.port][1])


ZONES: dict[int, tuple[str, int]] = {}
"""By port: the zone of a node, and its place."""


def zone_of(host: str, port: int) -> str:
    return ZONES[port][0]


def policies() -> dict[str, ReadFrom]:
    plain = ("master", "master_preferred", "replica", "any_replica", "replica_preferred", "any", "lowest_latency")
    return {
        **{f"`{name}`": ReadFrom.of(name) for name in plain},
        "`zone:ours`": ReadFrom.zone("ours", zones=zone_of),
        "`zone:ours` master in zone": ReadFrom.zone("ours", zones=zone_of, master="in_zone"),
        "`zone:ours` any": ReadFrom.zone("ours", zones=zone_of, master="any"),
        "a function: replicas, last first": ReadFrom.of(last_replica_first),
    }


def outcome(client: hatopo.Redis, policy: ReadFrom, names: dict[int, str]) -> str:
    """Who answers under a policy."""
    with hatopo.read_from(policy) as scope:
        try:
            for _ in range(READS):
                client.get("k")
        except hatopo.NoSuitableNodeError as error:
            complete = {*error.refused} == {f"127.0.0.1:{port}" for port in names} and all(error.refused.values())
            return "error" if complete else "an error that does not name every node and its reason"
        except (hatopo.NodeUnavailableError, hatopo.NodeTimeoutError):
            return "waits"
    return " ".join(sorted(names[node.port] for node in scope.nodes))


@pytest.mark.usefixtures("patient")
def test_the_table_of_the_reference(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_fitness, "SLOWER", 0.0)  # a busy machine makes nobody seem further away
    with Replication(replicas=2) as deployment:
        nodes = deployment.nodes
        names = {node.port: name for node, name in zip(nodes, ("M", "R1", "R2"), strict=True)}
        zones = ("ours", "ours", "elsewhere")
        ZONES.update({node.port: (zone, place) for place, (node, zone) in enumerate(zip(nodes, zones, strict=True))})
        _, first, second = nodes
        second.delay("ping", 0.05, times=None)
        with hatopo.replicated([node.address for node in nodes], failover_timeout=0.3) as client:
            client.set("k", "v")
            states: dict[str, Callable[[], Any]] = {
                "all fit": lambda: None,
                "R1 refused": first.kill,
                "R1 and R2 refused": second.kill,
                "M down": lambda: only_the_master_is_down(deployment),
                "all down": lambda: [node.kill() for node in (first, second)],  # type: ignore[func-returns-value]
            }
            table = {name: [name] for name in policies()}
            for change in states.values():
                change()
                known_to(client, nodes)
                for name, policy in policies().items():
                    table[name].append(outcome(client, policy, names))
    with capsys.disabled():
        print()
        for line in [["policy", *states], *table.values()]:
            print("| " + " | ".join(line) + " |")
    documented = [row for row in rows(PAGE) if len(row) == len(states) + 1]
    assert documented == [["policy", *states], *table.values()]


def only_the_master_is_down(deployment: Replication) -> None:
    master, first, second = deployment.nodes
    first.start()
    second.start()
    second.delay("ping", 0.05, times=None)
    deployment.wait_stable()
    master.kill()


def known_to(client: hatopo.Redis, nodes: Sequence[NodeHandle]) -> None:
    """Returns when the client knows who runs, that two are equally near, and how far away the last one is."""

    def knows() -> bool:
        statuses = {one.port: one for one in client.nodes()}
        ready = all((not statuses[node.port].refused) is node.running for node in nodes)
        far = statuses[nodes[2].port].latency or 0.0
        near = [statuses[node.port].latency or 1.0 for node in nodes[:2] if node.running]
        equal = max(near, default=0.0) - min(near, default=0.0) < 0.005
        return ready and equal and (not nodes[2].running or all(far - one > 0.02 for one in near))

    eventually(knows, 20)
