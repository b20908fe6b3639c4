"""What is made of the words of sentinels and of nodes: scripted ones, that say what no real one would say on demand."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any

import pytest
import redis
from redis.credentials import CredentialProvider

import hatopo
from hatopo import events
from hatopo.client import _calls, _nodes, _promotion, _stats
from hatopo.client._deployment import Deployment
from hatopo.client._service import Service
from hatopo.topology import Topology, TopologyView
from tests.control import eventually
from tests.fakesentinels import NAME, FakeNode, FakeSentinel, Watch, World, master_of, push
from tests.faulty import SOUND, Fault, FaultyServer

NOREPLICAS = "NOREPLICAS Not enough good replicas to write."


@pytest.fixture
def world() -> Iterator[World]:
    with World(nodes=3) as world:
        yield world


def promote_early(world: World, client: hatopo.Redis, node: FakeNode) -> None:
    """The first sentinel selects a replica, which says that it is the master: the client follows."""
    node.follow(None)
    world.select(node, by=world.sentinels[0])
    eventually(lambda: client.topology is not None and client.topology.provisional)
    assert master_of(client) == node.address


def is_confirmed(client: hatopo.Redis) -> bool:
    return client.topology is not None and not client.topology.provisional


# ------------------------------------------------------------------ whom to believe


@pytest.mark.usefixtures("patient")
def test_a_majority_that_lags_behind_takes_no_confirmed_master_away(world: World) -> None:
    a, b, _ = world.nodes
    client = world.listening_client()
    leader, *lagging = world.sentinels
    leader.lag = 0.003  # the others are heard first
    b.follow(None)
    world.switch(b, 2, by=[leader])
    eventually(lambda: master_of(client) == b.address)
    rounds, written = [sentinel.answered + 2 for sentinel in lagging], a.executed["SET"]

    def refused(command: str) -> Fault:
        """A write, until the others have been asked twice: what the first round has brought is in force then."""
        asked = all(sentinel.answered >= due for sentinel, due in zip(lagging, rounds, strict=True))
        return Fault(error=NOREPLICAS) if command == "SET" and not asked else SOUND

    b.chaos = refused
    assert client.set("k", "w") is True
    assert (a.executed["SET"] - written, b.data.get(b"k")) == (0, b"w")
    assert master_of(client) == b.address


def test_a_deployment_that_is_set_up_anew_is_followed_to_a_lower_epoch(world: World) -> None:
    a, b, _ = world.nodes
    world.settle(a, 7)
    client = world.listening_client()
    heard: list[events.Event] = []
    client.subscribe_events(heard.append)
    b.follow(None)
    a.follow(b)
    world.settle(b, 0)
    for sentinel in world.sentinels:
        sentinel.publish("+monitor", f"master {NAME} {b.address[0]} {b.port} quorum 2")
    eventually(lambda: master_of(client) == b.address)
    assert client.set("k", "w") is True
    assert b.data[b"k"] == b"w"
    eventually(lambda: events.TopologyReset(NAME, 7, 0) in heard)


@pytest.fixture
def foreign(world: World) -> Iterator[tuple[FakeNode, FakeSentinel]]:
    """A node and a sentinel of another environment, which has a service of the same name at a higher epoch."""
    node, sentinel = world.add_node(), world.add(FakeSentinel())
    sentinel.watches[NAME] = Watch(node, 9)
    yield node, sentinel
    assert node.executed["SET"] == 0


def with_seed(world: World, sentinel: FakeSentinel, **options: Any) -> hatopo.Redis:
    """A client of two sentinels of the world and of this one."""
    world.sentinels.pop().kill()
    world.settle(world.nodes[0], 1)
    return world.client(seeds=[each.address for each in (*world.sentinels, sentinel)], **options)


@pytest.mark.usefixtures("patient")
def test_a_foreign_sentinel_does_not_decide_the_first_view(
    world: World, foreign: tuple[FakeNode, FakeSentinel]
) -> None:
    client = with_seed(world, foreign[1])
    spoken = threading.Event()
    for sentinel in world.sentinels:
        sentinel.on("SENTINEL").delay_reply_until(spoken)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.set, "k", "v")
        eventually(lambda: foreign[1].answered)
        time.sleep(0.05)  # it is heard
        spoken.set()
        assert call.result(20) is True
    assert world.nodes[0].data.get(b"k") == b"v"


@pytest.mark.usefixtures("patient")
def test_a_foreign_sentinel_does_not_block_a_failover(world: World, foreign: tuple[FakeNode, FakeSentinel]) -> None:
    a, b, _ = world.nodes
    client = with_seed(world, foreign[1])
    foreign[1].lag = 0.005  # the first view is found without it
    assert client.set("k", "v") is True
    eventually(lambda: world.listened_to() and foreign[1].listeners)
    foreign[1].lag = 0.0
    for sentinel in world.sentinels:
        sentinel.lag = 0.005  # from now on the foreign one is heard first
    a.kill()
    b.follow(None)
    world.switch(b, 2)
    assert client.set("k", "w") is True
    assert b.data[b"k"] == b"w"


def test_a_sentinel_that_claims_a_high_epoch_does_not_block_a_failover(world: World) -> None:
    """It alone names the master that has gone."""
    a, b, _ = world.nodes
    *others, liar = world.sentinels
    world.settle(a, 10**9, by=[liar])
    client = world.listening_client()
    for sentinel in others:
        sentinel.lag = 0.005  # it is heard first
    a.kill()
    b.follow(None)
    world.switch(b, 2, by=others)
    assert client.set("k", "w") is True
    assert b.data.get(b"k") == b"w"


def test_a_node_with_another_run_id_is_looked_at_twice_and_then_used() -> None:
    """It was restarted where it stands, and the sentinels have not noticed."""
    with World(run_id="0" * 40) as world:
        client = world.client(profile="web", failover_timeout=10.0)
        heard: list[events.Event] = []
        client.subscribe_events(heard.append)
        assert client.set("k", "v") is True
        node = world.nodes[0]
        assert node.executed["INFO"] >= 2
        replaced = eventually(lambda: [event for event in heard if isinstance(event, events.DatasetReplaced)])
        assert [(event.old_id, event.new_id) for event in replaced] == [("0" * 40, node.run_id)]


def test_a_sentinel_with_an_old_run_id_does_not_keep_us_from_the_master(world: World) -> None:
    near, *others = world.sentinels
    near.say(run_id="0" * 40)
    for sentinel in others:
        sentinel.lag = 0.004
    assert world.client(failover_timeout=10.0).set("k", "v") is True


def test_an_older_view_of_a_majority_does_not_overtake_a_newer_one(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sentinel tells of the newer one when the older has been examined and is not in force yet."""
    a, b, _ = world.nodes
    world.settle(a, 5)
    client = world.listening_client()
    source: Any = client._deployment._source
    real, done = Service._refuted, threading.Event()

    def overtaken(service: Service, found: Topology, until: float) -> Any:
        examined = real(service, found, until)
        if not done.is_set():
            done.set()
            world.switch(b, 6, by=world.sentinels[:1])
            eventually(lambda: master_of(client) == b.address)
        return examined

    b.follow(None)
    first = client.topology
    assert first is not None
    assert first.epoch == 5
    monkeypatch.setattr(Service, "_refuted", overtaken)
    source.offer(replace(first, agreed=True), events.Cause.SENTINELS)
    assert done.is_set()
    assert master_of(client) == b.address


# ------------------------------------------------------------------ calls


def test_a_planned_switch_leaves_a_call_under_way_its_reply(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_nodes, "IN_PEACE", 5.0)
    a, b, _ = world.nodes
    client = world.listening_client()
    answer = threading.Event()
    a.on("INCRBY").delay_reply_until(answer)

    def soon(event: events.Event) -> None:
        if isinstance(event, events.MasterChanged):
            time.sleep(0.02)
            answer.set()

    client.subscribe_events(soon)
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.incr, "n")
        eventually(lambda: a.executed["INCRBY"])
        b.follow(None)
        world.switch(b, 2)
        assert call.result(10) == 1
    assert b.executed["INCRBY"] == 0


def test_a_switch_moves_a_call_that_the_old_master_never_answers(world: World) -> None:
    a, b, _ = world.nodes
    client = world.listening_client(socket_timeout=60.0, failover_timeout=60.0)
    a.on("GET").delay_reply_until(threading.Event())
    b.data[b"k"] = b"of b"
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(client.get, "k")
        eventually(lambda: a.executed["GET"])
        b.follow(None)
        world.switch(b, 2)
        assert call.result(10) == b"of b"


@pytest.mark.usefixtures("patient")
def test_asking_nodes_for_their_roles_keeps_to_the_deadline_of_the_call(world: World) -> None:
    a, b, _ = world.nodes
    client = world.client(failover_timeout=30.0, watch=False)
    assert client.set("k", "v") is True
    a.follow(b)
    b.freeze()
    for _ in range(5):  # on a slow machine the first ones may end before a node is asked
        began = time.monotonic()
        with pytest.raises(redis.RedisError):
            client.using(deadline=0.3).set("k", "w")
        assert time.monotonic() - began < 5  # b would be waited for for longer
    assert a.executed["ROLE"] >= 1, "the master was asked of whom it is a replica"


def test_asking_sentinels_one_after_another_keeps_to_the_deadline_of_the_call(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hatopo.client._asking.start_thread", lambda *_: False)
    with World(sentinels=5) as world:
        for sentinel in world.sentinels:
            sentinel.freeze()
        lasted = []
        for _ in range(3):
            client, began = world.client(watch=False), time.monotonic()
            with pytest.raises(hatopo.MasterNotFoundError):
                client.using(deadline=0.3).set("k", "v")
            lasted.append(time.monotonic() - began)
        assert min(lasted) < 1.5
        assert sum(sentinel.connections for sentinel in world.sentinels) >= 1


@pytest.mark.parametrize(("owner", "method"), [(TopologyView, "offer"), (Deployment, "publish")])
def test_an_interrupted_caller_leaves_no_view_untold(
    world: World, monkeypatch: pytest.MonkeyPatch, owner: type, method: str
) -> None:
    """A signal handler raises when the view is in force and nobody has been told of it."""
    real, here, done = getattr(owner, method), threading.current_thread(), threading.Event()

    def interrupted(*args: Any) -> Any:
        if threading.current_thread() is not here or done.is_set():
            return real(*args)
        if method == "offer":
            real(*args)
        done.set()
        raise KeyboardInterrupt

    monkeypatch.setattr(owner, method, interrupted)
    client = world.client(watch=False, failover_timeout=10.0)
    with pytest.raises(KeyboardInterrupt):
        client.set("k", "v")
    assert client.set("k", "v") is True


def test_an_outage_is_over_when_calls_succeed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_stats, "RESTLESS", 0.1)
    client = world.client(failover_timeout=10.0)
    node = world.nodes[0]
    assert client.set("k", "v") is True
    node.on("SET").error(NOREPLICAS)
    with pytest.raises(redis.RedisError):
        client.using(failover_timeout=0.3).set("k", "v")
    assert client.stats().retries["no_replicas"] >= 1
    node.heal()
    time.sleep(0.11)
    seconds = client.stats().outage_seconds
    for _ in range(30):
        assert client.set("k", "v") is True
        time.sleep(0.01)
    assert client.stats().outage_seconds == seconds


def test_the_seconds_of_outages_never_become_fewer() -> None:
    tally = _stats.Tally()
    for moment in (0.0, 0.3):
        tally.trouble(moment)
    before = tally.seconds(10.0)
    tally.trouble(20.0)
    assert tally.seconds(20.0) >= before


# ------------------------------------------------------------------ provisional views


def test_the_last_words_of_a_leader_are_heard(world: World) -> None:
    """They come together with its end; what it has begun is followed all the same."""
    _, b, _ = world.nodes
    client = world.listening_client()
    b.follow(None)
    world.sentinels[0].breathe_its_last(push("message", "+selected-slave", world.selection(b)))
    eventually(lambda: master_of(client) == b.address)


def test_an_abort_ends_only_the_promotion_of_the_sentinel_that_announces_it(world: World) -> None:
    a, b, _ = world.nodes
    client = world.listening_client()
    leader, _, other = world.sentinels
    promote_early(world, client, b)
    text = f"master {NAME} {a.address[0]} {a.port}"
    asked = other.answered
    other.publish("-failover-abort-not-elected", text)
    eventually(lambda: other.answered > asked)  # the event was dealt with, then it was asked
    assert client.set("k", "w") is True
    assert (master_of(client), b.data.get(b"k")) == (b.address, b"w")
    leader.publish("-failover-abort-slave-timeout", text)
    eventually(lambda: master_of(client) == a.address)


def test_sentinels_that_do_not_tell_epochs_confirm_a_provisional_view(world: World) -> None:
    _, b, _ = world.nodes
    for sentinel in world.sentinels:
        sentinel.forbidden.add("MASTER")
    client = world.listening_client()
    promote_early(world, client, b)
    world.switch(b, 2)
    eventually(lambda: is_confirmed(client))
    assert master_of(client) == b.address


@pytest.mark.usefixtures("patient")
def test_two_hops_of_roles_stay_followed(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The master says replica of b, b says replica of c, c says master; the sentinels stay with the first."""
    monkeypatch.setattr(_promotion, "GUARD_GAP", 0.05)
    monkeypatch.setattr(_promotion, "CONFIRM_GRACE", 0.2)
    a, b, c = world.nodes
    world.settle(a, 1, down_after=100)
    client = world.listening_client()
    c.follow(None)
    b.follow(c)
    a.follow(b)
    asked = a.executed["ROLE"]
    assert client.set("k", "w") is True
    assert c.data[b"k"] == b"w"
    eventually(lambda: a.executed["ROLE"] >= asked + 4)  # the guard's time was over more than once
    assert client.set("k", "x") is True
    assert c.data[b"k"] == b"x"
    assert client.stats().failovers == 1


class Tokens(CredentialProvider):
    """A provider that can fail as libraries of clouds do: with an error that is no redis error and no OSError."""

    def __init__(self, *, fails: bool = False) -> None:
        self.fails = fails
        self.failures = 0

    def get_credentials(self) -> tuple[str, str]:
        if self.fails:
            self.failures += 1
            raise KeyError("the token service is down")
        return "user", "token"


def test_a_foreign_error_leaves_no_provisional_view_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_promotion, "GUARD_GAP", 0.05)
    monkeypatch.setattr(_promotion, "CONFIRM_GRACE", 3.0)
    tokens = Tokens()
    with World(down_after=100) as world:
        a, b = world.nodes
        client = world.listening_client(credential_provider=tokens)
        promote_early(world, client, b)
        tokens.fails = True
        b.idle_close()
        eventually(lambda: tokens.failures)
        eventually(lambda: is_confirmed(client))
        tokens.fails = False
        assert client.set("k", "w") is True
        assert a.data[b"k"] == b"w"


def test_a_foreign_error_does_not_end_listening(world: World) -> None:
    tokens = Tokens(fails=True)
    client = world.client(sentinel_credential_provider=tokens, failover_timeout=10.0)
    with pytest.raises(hatopo.MasterNotFoundError):
        client.using(failover_timeout=0.5).set("k", "v")
    tokens.fails = False
    assert client.set("k", "v") is True
    eventually(world.listened_to)


# ------------------------------------------------------------------ what was known before


def test_a_client_that_was_closed_asks_again_before_it_writes(world: World) -> None:
    a, b, _ = world.nodes
    client = world.listening_client()
    client.close()
    b.follow(None)
    world.settle(b, 2)
    written = a.executed["SET"]
    assert client.set("k", "w") is True
    assert (a.executed["SET"], b.data.get(b"k")) == (written, b"w")


def test_what_is_heard_after_the_last_client_has_left_is_not_kept(world: World) -> None:
    a, b, _ = world.nodes
    client = world.listening_client()
    pool: Any = client.connection_pool
    service = pool.deployment._source
    late = service.answers()
    assert len(late) == len(world.sentinels)
    client.close()
    for answer in late:
        service.heard(answer)
    b.follow(None)
    world.settle(b, 2)
    written = a.executed["SET"]
    assert world.client().set("k", "w") is True
    assert (a.executed["SET"], b.data.get(b"k")) == (written, b"w")


def test_a_node_that_cannot_tell_its_run_id_now_is_used_all_the_same(world: World) -> None:
    node = world.nodes[0]
    busy = "BUSY Redis is busy running a script. You can only call SCRIPT KILL or SHUTDOWN NOSAVE."
    node.on("INFO").error(busy)
    client = world.client()
    assert client.set("k", "v") is True
    node.heal()
    asked = node.received["INFO"]
    client.connection_pool.disconnect()
    assert client.set("k", "v") is True
    assert node.received["INFO"] > asked, "it is asked again: it was only busy"


# ------------------------------------------------------------------ blocking commands


class Queue(FaultyServer):
    """Has an element for every BLPOP."""

    def _do_blpop(self, key: bytes, _: bytes) -> Any:
        return [key, b"element"]


def test_a_pop_whose_reply_is_lost_at_once_may_have_taken_an_element(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_calls, "IN_VAIN", 5.0)
    with Queue() as server, hatopo.standalone(*server_address(server)) as client:
        client.ping()
        server.on("BLPOP", nth=1).drop_after_execute()
        with pytest.raises(hatopo.AmbiguousResultError):
            client.blpop(["q"], timeout=5)
        assert server.executed["BLPOP"] == 1


def test_a_pop_that_has_waited_in_vain_is_issued_again() -> None:
    with Queue() as server, hatopo.standalone(*server_address(server)) as client:
        client.ping()
        server.on("BLPOP", nth=1).delay_reply_until(threading.Event())
        with ThreadPoolExecutor(1) as pool:
            popped = pool.submit(client.blpop, ["q"], timeout=5)
            eventually(lambda: server.received["BLPOP"])
            time.sleep(0.3)
            server.idle_close()
            assert popped.result(10) == (b"q", b"element")
        assert server.executed["BLPOP"] == 2


def test_an_ambiguous_command_of_a_pipeline_is_counted_once() -> None:
    with FaultyServer() as server, hatopo.standalone(*server_address(server)) as client:
        server.on("INCRBY", nth=1).error("LOADING Redis is loading the dataset in memory")
        server.on("INCRBY", nth=2).drop_after_execute()
        pipeline: Any = client.pipeline(transaction=False)
        (result,) = pipeline.incr("n").execute(raise_on_error=False)
        assert isinstance(result, hatopo.AmbiguousResultError)
        assert client.stats().ambiguous == {"INCRBY": 1}


def server_address(server: FaultyServer) -> tuple[str, int]:
    return "127.0.0.1", server.port
