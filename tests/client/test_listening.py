"""Listening to sentinels, and what a process does in the background: who is listened to, how long, and at what cost."""

from __future__ import annotations

import gc
import os
import socket
import threading
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any

import pytest
import redis

import hatopo
from hatopo import events
from hatopo.client import _hub, _listening, _service
from hatopo.connection import _lending
from hatopo.topology import CHANNELS
from tests.client.support import run_script
from tests.control import HOST, eventually
from tests.fakesentinels import NAME, FakeSentinel, Watch, World, master_of, push
from tests.faulty import FaultyServer
from tests.scenarios.support import threads_of_hatopo

HINT = ("+sdown", f"slave x 127.0.0.1 1 @ {NAME} 127.0.0.1 2")
"""An event that says only that something has changed."""


@pytest.fixture
def world() -> Iterator[World]:
    with World() as world:
        yield world


def listeners_of(world: World) -> list[str]:
    """The threads that listen to sentinels of this world."""
    ports = {str(sentinel.port) for sentinel in world.sentinels}
    return [name for name in threads_of_hatopo("sentinel") if name.rpartition(":")[2] in ports]


def sessions(world: World) -> list[int]:
    """How many times anybody has subscribed, to a channel of each sentinel."""
    return [sentinel.received["SUBSCRIBE"] for sentinel in world.sentinels]


# ------------------------------------------------------------------ sessions


@pytest.mark.usefixtures("patient")
def test_half_a_push_does_not_end_a_session(world: World) -> None:
    client = world.listening_client()
    heard: list[events.Event] = []
    client.subscribe_events(heard.append)
    _, b = world.nodes
    begun = sessions(world)
    b.follow(None)
    world.settle(b, 2)
    message = push("message", "+switch-master", f"{NAME} 127.0.0.1 1 127.0.0.1 {b.port}")
    for part in (message[:20], message[20:]):
        for sentinel in world.sentinels:
            sentinel.send_raw(part)
        time.sleep(0.05)
    eventually(lambda: master_of(client) == b.address)
    assert sessions(world) == begun
    assert not [event for event in heard if isinstance(event, events.SentinelLost)]


@pytest.mark.usefixtures("patient")
def test_a_user_without_ping_is_listened_to(world: World) -> None:
    for sentinel in world.sentinels:
        sentinel.on("PING").error("NOPERM this user has no permissions to run the 'ping' command")
    client = world.listening_client()
    _, b = world.nodes
    begun = sessions(world)
    b.follow(None)
    world.switch(b, 2)
    eventually(lambda: master_of(client) == b.address)
    assert sessions(world) == begun


def test_a_storm_of_events_is_not_answered_one_to_one(world: World) -> None:
    client = world.listening_client()
    _, b = world.nodes
    before, began = [sentinel.answered for sentinel in world.sentinels], time.monotonic()
    for _ in range(300):
        for sentinel in world.sentinels:
            sentinel.publish(*HINT)
        time.sleep(0.001)
    b.follow(None)
    world.switch(b, 2)
    eventually(lambda: master_of(client) == b.address)
    for sentinel, asked in zip(world.sentinels, before, strict=True):
        answered = sentinel.answered - asked
        assert 0 < answered <= (time.monotonic() - began) / _listening.ASK_GAP + 3


def test_a_sentinel_that_ends_every_session_is_not_dialled_at_full_speed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_listening, "PAUSE", 0.02)
    world.listening_client()
    flapping = world.sentinels[0]
    before = flapping.received["SUBSCRIBE"]
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        flapping.drop_listeners()
        time.sleep(0.005)
    sessions = (flapping.received["SUBSCRIBE"] - before) / len(CHANNELS)
    assert 1 <= sessions <= 10  # at full speed: more than 30


def test_listeners_start_later_where_threads_could_not_be_started_at_first(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(_hub, "start_thread", lambda *_: False)
        client = world.client()
        assert client.set("k", "v") is True
        assert listeners_of(world) == []

    def used_and_heard() -> bool:
        client.using(deadline=5.0).set("k", "v")
        return world.listened_to()

    eventually(used_and_heard)


# ------------------------------------------------------------------ beginning and end


@pytest.mark.parametrize("how", ["closed", "dropped"])
def test_a_client_that_is_gone_leaves_no_listener(how: str) -> None:
    """Not even until the garbage collector runs: it may not run for a long time."""
    with World() as world:
        client = hatopo.sentinel(NAME, [sentinel.address for sentinel in world.sentinels])
        assert client.set("k", "v") is True
        eventually(lambda: world.listened_to() and len(listeners_of(world)) == 3)
        gc.disable()
        try:
            if how == "closed":
                client.close()
            else:
                del client
            eventually(lambda: not listeners_of(world), 5)
            eventually(lambda: not any(sentinel.listeners for sentinel in world.sentinels))
        finally:
            gc.enable()


def test_a_closed_client_that_is_used_again_listens_again(world: World) -> None:
    client = world.listening_client()
    client.close()
    eventually(lambda: not listeners_of(world))
    assert client.set("k", "v") is True
    eventually(world.listened_to)


def test_the_last_client_to_leave_takes_no_listener_from_one_that_joins(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The other one joins when the hub has been found unused, and before listening ends."""
    leaving, staying = world.listening_client(), world.client()
    real = _hub.Hub.__dict__["services"].fget
    joining = threading.Thread(target=staying.set, args=("k", "v"))

    def services(hub: _hub.Hub) -> Any:
        found = real(hub)
        if not found and joining.ident is None:
            joining.start()
            joining.join(0.5)  # it may have to wait for our lock
        return found

    with monkeypatch.context() as patched:
        patched.setattr(_hub.Hub, "services", property(services))
        leaving.close()
    assert joining.ident is not None, "it was found unused"
    joining.join()
    assert staying.set("k", "v") is True
    eventually(lambda: len(listeners_of(world)) == 3 and world.listened_to())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system cannot fork")
def test_a_child_that_is_forked_during_a_provisional_view_is_rid_of_it() -> None:
    run_script("provisional")


def test_the_collector_may_run_while_a_connection_is_lent(monkeypatch: pytest.MonkeyPatch) -> None:
    """It closes a forgotten client, on the thread that holds the lock of the client's own pool."""

    class Application:
        def __init__(self, client: hatopo.Redis) -> None:
            self.client = client
            self.itself = self

    real, done = _lending.Dialler, threading.Event()

    def collected() -> Any:
        gc.collect()
        done.set()
        return real()

    with FaultyServer() as fake:
        application = Application(hatopo.standalone(HOST, fake.port))
        pool = application.client.pubsub().connection_pool
        gc.disable()
        try:
            del application
            monkeypatch.setattr(_lending, "Dialler", collected)
            thread = threading.Thread(target=pool.get_connection, daemon=True)
            thread.start()
            thread.join(10)
        finally:
            gc.enable()
        assert not thread.is_alive(), "it waits for its own lock"
        assert done.is_set()
        pool.disconnect()


# ------------------------------------------------------------------ which sentinels there are


def test_each_sentinel_behind_one_name_is_listened_to(monkeypatch: pytest.MonkeyPatch) -> None:
    real = socket.getaddrinfo
    with World(sentinels=0) as world:
        first = world.add(FakeSentinel("127.0.0.2"))
        world.sentinels = [first, *(world.add(FakeSentinel(f"127.0.0.{end}", first.port)) for end in (3, 4))]
        world.settle(world.nodes[0], 1)

        def resolve(host: str, *args: Any, **options: Any) -> Any:
            if host != "headless":
                return real(host, *args, **options)
            return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", each.address) for each in world.sentinels]

        monkeypatch.setattr(socket, "getaddrinfo", resolve)
        client = world.client(seeds=[("headless", first.port)])
        assert client.set("k", "v") is True
        eventually(world.listened_to)


def test_a_resolver_that_hangs_is_not_asked_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    real, released, asked = socket.getaddrinfo, threading.Event(), Counter[str]()

    def resolve(host: str, *args: Any, **options: Any) -> Any:
        if host.startswith("sentinel-"):
            asked[host] += 1
            released.wait(20)
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return real(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    with World(sentinels=1) as world:
        only = world.sentinels[0]
        client = world.client(seeds=[only.address, ("sentinel-1", 26379), ("sentinel-2", 26379)], failover_timeout=5.0)
        try:
            assert client.set("k", "v") is True
            world.nodes[0].kill()
            with pytest.raises(redis.ConnectionError):
                client.set("k", "v")
            assert only.answered >= 5
            assert asked["sentinel-1"] <= 3  # a listener's and a round's, that of the first view perhaps
        finally:
            released.set()


@pytest.mark.usefixtures("patient")
def test_two_services_with_different_sentinels_do_not_make_the_learned_ones_flap(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three sentinels watch both services, two more only the second; all are polled often."""
    monkeypatch.setattr(_listening, "POLL", 0.1)
    seeds = [sentinel.address for sentinel in world.sentinels]
    more = [world.add(FakeSentinel()) for _ in range(2)]
    everybody = [*world.sentinels, *more]
    for sentinel in everybody:
        others = tuple(other for other in everybody if other is not sentinel)
        sentinel.watches["n"] = Watch(world.nodes[0], others=others)
    one, two = world.client(), world.client("n", seeds=seeds)
    heard: list[events.Event] = []
    two.subscribe_events(heard.append)
    assert one.set("k", "v") is True
    assert two.set("k", "v") is True
    eventually(lambda: all(sentinel.listeners for sentinel in everybody))
    asked = [sentinel.answered for sentinel in world.sentinels]
    eventually(lambda: all(s.answered > before + 12 for s, before in zip(world.sentinels, asked, strict=True)))
    found = Counter(event.address for event in heard if isinstance(event, events.SentinelFound))
    assert max(found.values()) <= 2, "learned of, and heard"
    assert not [event for event in heard if isinstance(event, events.SentinelLost)]


def test_sentinels_that_are_gone_are_forgotten(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """One keeps its address; the others are replaced again and again, and list each other until they go."""
    ahead = 0.0
    monkeypatch.setattr(_service, "monotonic", lambda: time.monotonic() + ahead)
    stays, *gone = world.sentinels
    client = world.client(seeds=[stays.address])
    service: Any = client._deployment._source
    assert client.set("k", "v") is True
    eventually(lambda: world.listened_to() and len(service.answers()) == 3)
    for _ in range(3):
        for sentinel in gone:
            sentinel.kill()
        gone = [world.add(FakeSentinel()) for _ in range(2)]
        world.sentinels = [stays, *gone]
        world.settle(world.nodes[0], 1)
        ahead += 3600.0
        stays.publish(*HINT)
        eventually(lambda: world.listened_to() and len(service.answers()) == 3)
        stays.publish(*HINT)
        eventually(lambda: {one.port for one in service.hub.addresses()} == {each.port for each in world.sentinels})
        assert {one.sentinel.port for one in service.answers()} == {each.port for each in world.sentinels}
    eventually(lambda: client.topology is not None and client.topology.agreed)


# ------------------------------------------------------------------ events


def test_a_callback_that_exits_does_not_end_the_delivery_of_events(world: World) -> None:
    client = world.client()
    heard: list[events.Event] = []

    def callback(event: events.Event) -> None:
        heard.append(event)
        if len(heard) == 1:
            raise SystemExit(1)

    client.subscribe_events(callback)
    assert client.set("k", "v") is True
    eventually(lambda: heard)
    _, b = world.nodes
    b.follow(None)
    world.switch(b, 2)
    eventually(lambda: [event for event in heard if isinstance(event, events.MasterChanged)])
