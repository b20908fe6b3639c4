"""Many clients, few threads and connections: what watches the sentinels is shared, and ends with its last user."""

from __future__ import annotations

import gc
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

import hatopo
from tests.conftest import eventually
from tests.scenarios.support import SLOW, connections_from_outside, threads_of_hatopo

if TYPE_CHECKING:
    from collections.abc import Callable

    from hatopo.testing import Node, SentinelDeployment

SERVICES = ("orders", "carts")
CLIENTS = 20


@pytest.fixture
def three_services(make_set: Callable[..., SentinelDeployment], make_node: Callable[[], Node]) -> SentinelDeployment:
    """A set whose sentinels watch two more services, each a lonely master.

    They reach these over sockets, which are as fast as the machine: time must not run away from them.
    """
    eventually(lambda: not threads_of_hatopo(), what="the threads of earlier tests are gone")
    sentinel_set = make_set(speed=SLOW)
    for name in SERVICES:
        sentinel_set.monitor(name, make_node())
    return sentinel_set


def outside(deployment: SentinelDeployment) -> list[int]:
    """For each sentinel: the connections of clients."""
    return [len(connections_from_outside(sentinel)) for sentinel in deployment.sentinel_nodes]


def listening(deployment: SentinelDeployment) -> bool:
    """Every sentinel is listened to by a thread, and nothing else is under way."""
    return threads_of_hatopo() == threads_of_hatopo("sentinel") and len(threads_of_hatopo()) == len(
        deployment.sentinel_nodes
    )


@pytest.mark.parametrize("door", ["sentinel", "Sentinels"])
def test_threads_and_connections_do_not_grow_with_clients(three_services: SentinelDeployment, door: str) -> None:
    names = (three_services.name, *SERVICES)
    addresses = three_services.sentinels
    clients: list[hatopo.Redis] = []
    shared = hatopo.Sentinels(addresses)

    def make(name: str) -> hatopo.Redis:
        return shared.client(name) if door == "Sentinels" else hatopo.sentinel(name, addresses)

    with ExitStack() as stack:
        clients.append(stack.enter_context(make(names[0])))
        clients[0].set("service", names[0])
        eventually(lambda: listening(three_services), what="one listens to each sentinel")
        before = eventually(lambda: steady(three_services), what="steady connections")
        assert all(before)
        for name in names:
            for _ in range(CLIENTS):
                clients.append(stack.enter_context(make(name)))
                clients[-1].set("service", name)
        for client, name in zip(clients[1:], [name for name in names for _ in range(CLIENTS)], strict=True):
            assert client.get("service") == name.encode()
        eventually(lambda: listening(three_services), what="no more threads")
        eventually(lambda: steady(three_services) == before, what="no more connections")
    eventually(lambda: not threads_of_hatopo(), what="no thread stays")
    eventually(lambda: not any(outside(three_services)), what="no connection stays")


def steady(deployment: SentinelDeployment) -> list[int]:
    """The connections of clients, if none of them is there for one question only."""
    counts = [outside(deployment) for _ in range(5)]
    return counts[0] if all(count == counts[0] for count in counts) else []


def test_a_closed_client_leaves_the_others_watching(sentinel_set: SentinelDeployment) -> None:
    with hatopo.sentinel("mymaster", sentinel_set.sentinels) as stays:
        stays.set("key", "value")
        with hatopo.sentinel("mymaster", sentinel_set.sentinels) as leaves:
            assert leaves.get("key") == b"value"
        eventually(lambda: listening(sentinel_set), what="still one for each sentinel")
        old = sentinel_set.kill_master()
        new = sentinel_set.wait_switched(old)
        stays.set("key", "later")
        assert new.execute("GET", "key") == "later"


def test_a_closed_client_can_be_used_again(sentinel_set: SentinelDeployment) -> None:
    """As redis-py's: it opens what it needs."""
    client = hatopo.sentinel("mymaster", sentinel_set.sentinels)
    for _ in range(2):
        client.set("key", "value")
        eventually(lambda: listening(sentinel_set), what="it listens")
        client.close()
        eventually(lambda: not threads_of_hatopo(), what="no thread stays")


def test_dropped_clients_leave_nothing(sentinel_set: SentinelDeployment) -> None:
    """200 clients that nobody closes."""
    clients = [hatopo.sentinel("mymaster", sentinel_set.sentinels) for _ in range(200)]
    for number, client in enumerate(clients):
        client.set("key", number)
    eventually(lambda: listening(sentinel_set), what="one listens to each sentinel")
    assert all(outside(sentinel_set))
    del clients, client
    gc.collect()
    eventually(lambda: not threads_of_hatopo(), what="no thread stays")
    eventually(lambda: not any(outside(sentinel_set)), what="no connection stays")


def test_services_fail_over_by_themselves(three_services: SentinelDeployment) -> None:
    """The failover of one does not touch the clients of another."""
    shared = hatopo.Sentinels(three_services.sentinels)
    with shared.client("mymaster") as mine, shared.client("orders") as other:
        mine.set("key", "value")
        other.set("key", "value")
        eventually(lambda: all(node.id for node in other.topology.nodes), what="the sentinels know who it is")
        seen = other.topology
        old = three_services.kill_master()
        new = three_services.wait_switched(old)
        mine.set("key", "later")
        assert new.execute("GET", "key") == "later"
        assert other.get("key") == b"value"
        assert other.topology == seen
        assert (mine.stats().failovers, other.stats().failovers) == (1, 0)
