"""What can happen to a server as a whole, and to the network: each does what it says, and ends when it is ended."""

from __future__ import annotations

import socket

import pytest
import redis

from hatopo.testing import CLIENTS, ManualClock, Node, Replication
from tests.control import eventually
from tests.testing.conftest import Dial, MakeClient
from tests.testing.wire import CLOSED, SILENCE, Connection, request

SHORT = 0.05
"""Seconds for which a test looks for what must not come."""


def is_silent(connection: Connection) -> bool:
    """Whether nothing has come, and the connection is still there; it is not to be read again."""
    return connection.read(SHORT) is SILENCE


# The life of a server


def test_a_killed_server_breaks_connections_and_refuses_new_ones(node: Node, make_client: MakeClient) -> None:
    client = make_client(node)
    assert client.set("k", "v")
    node.kill()
    assert not node.running
    with pytest.raises(redis.ConnectionError):
        client.get("k")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(node.address)
    with pytest.raises(ConnectionRefusedError, match=str(node.port)):
        node.execute("PING")


@pytest.mark.parametrize(("empty", "found"), [(False, b"v"), (True, None)])
def test_a_restarted_server_has_the_same_port_and_its_data_or_none(
    node: Node, make_client: MakeClient, empty: bool, found: bytes | None
) -> None:
    client, address = make_client(node), node.address
    client.set("k", "v")
    run = client.info("server")["run_id"]
    node.restart(empty=empty)
    assert (node.address, node.running) == (address, True)
    assert client.get("k") == found
    assert client.info("server")["run_id"] != run


def test_a_restarted_server_has_forgotten_sessions_pauses_and_scripts(node: Node, dial: Dial) -> None:
    subscriber, blocked = dial(node), dial(node)
    subscriber.ask(b"SUBSCRIBE", b"c")
    blocked.send(request([b"BLPOP", b"l", b"0"]))
    digest = node.execute("SCRIPT", "LOAD", "return 1")
    node.execute("CLIENT", "PAUSE", 60_000)
    node.restart()
    assert (subscriber.read(), blocked.read()) == (CLOSED, CLOSED)
    again = dial(node)
    assert str(again.ask(b"RPUSH", b"l", b"x")) == ":1"
    assert str(again.ask(b"LLEN", b"l")) == ":1"
    assert str(again.ask(b"PUBLISH", b"c", b"x")) == ":0"
    assert again.ask(b"EVALSHA", digest.encode(), b"0").body == b"NOSCRIPT No matching script. Please use EVAL."


def test_start_after_kill_and_stop(node: Node) -> None:
    for end in (node.kill, node.stop):
        end()
        assert not node.running
        node.start()
        assert node.execute("PING") == "PONG"
        run = node.execute("CLIENT", "ID")
        node.start()  # it runs already
        assert node.execute("CLIENT", "ID") > run


def test_a_killed_replica_comes_back_and_follows(pair: Replication) -> None:
    replica = pair.replicas()[0]
    replica.kill()
    pair.master().execute("SET", "k", "v")
    replica.restart()
    pair.wait_stable()
    assert replica.execute("GET", "k") == "v"


def test_a_paused_server_accepts_and_answers_later(node: Node, dial: Dial) -> None:
    there = dial(node)
    node.pause()
    assert node.paused
    new = dial(node)
    there.send(request([b"INCR", b"n"]))
    new.send(request([b"INCR", b"n"]))
    with pytest.raises(TimeoutError, match="node-1"):
        node.execute("PING", timeout=SHORT)
    node.resume()
    assert sorted([str(there.read()), str(new.read())]) == [":1", ":2"]
    assert node.execute("GET", "n") == "2"


def test_a_pause_holds_up_timeouts_and_faults_that_are_due(manual: Node, clock: ManualClock, dial: Dial) -> None:
    waiting, delayed = dial(manual), dial(manual)
    waiting.send(request([b"BLPOP", b"l", b"5"]))
    eventually(lambda: "cmd=blpop" in manual.execute("CLIENT", "LIST"))
    manual.delay("incr", 5)
    delayed.send(request([b"INCR", b"n"]))
    eventually(lambda: not manual._server.faults.rules)
    manual.pause()
    clock.advance(10)
    pausing = dial(manual)
    pausing.send(request([b"PING"]))
    assert is_silent(pausing)
    assert (waiting.rest(), delayed.rest()) == ((), ())
    manual.resume()
    assert str(waiting.read()) == "*nil"
    assert str(delayed.read()) == ":1"


def test_killing_a_paused_server_ends_the_pause(node: Node, dial: Dial) -> None:
    connection = dial(node)
    node.pause()
    connection.send(request([b"SET", b"k", b"v"]))
    node.kill()
    assert connection.read() == CLOSED
    node.restart()
    assert (node.paused, node.execute("GET", "k")) == (False, None)


def test_a_refusing_server_keeps_the_connections_that_it_has(node: Node, dial: Dial) -> None:
    there = dial(node)
    node.refuse()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(node.address)
    assert str(there.ask(b"PING")) == "+PONG"
    node.restart()
    with pytest.raises(ConnectionRefusedError):  # it still refuses
        socket.create_connection(node.address)
    node.refuse(False)
    assert str(dial(node).ask(b"PING")) == "+PONG"


def test_loading(node: Node, make_client: MakeClient) -> None:
    client = make_client(node)
    node.set_loading()
    with pytest.raises(redis.BusyLoadingError):
        client.get("k")
    assert client.info("persistence")["loading"] == 1
    node.set_loading(False)
    assert client.get("k") is None


# Connections


@pytest.mark.parametrize("kind", ["normal", "pubsub", "all"])
def test_disconnecting_clients_of_one_kind(node: Node, dial: Dial, kind: str) -> None:
    normal, subscriber = dial(node), dial(node)
    normal.ask(b"PING")
    subscriber.ask(b"SUBSCRIBE", b"c")
    assert node.disconnect(kind) == (2 if kind == "all" else 1)
    for connection, spared_by in ((normal, "pubsub"), (subscriber, "normal")):
        assert is_silent(connection) if kind == spared_by else connection.read() is CLOSED


def test_disconnecting_nobody_and_a_kind_that_there_is_not(node: Node) -> None:
    assert node.disconnect("pubsub") == 0
    with pytest.raises(ValueError, match="nonsense"):
        node.disconnect("nonsense")


@pytest.mark.parametrize(("at", "kind"), [("master", "replica"), ("replica", "master")])
def test_disconnecting_the_two_sides_of_replication(pair: Replication, at: str, kind: str) -> None:
    master, replica = pair.master(), pair.replicas()[0]
    before = master.execute("INFO", "stats")
    assert (master if at == "master" else replica).disconnect(kind) == 1
    pair.wait_stable()
    after = master.execute("INFO", "stats")
    assert synced(after) == synced(before) + 1
    master.execute("SET", "k", "v")
    eventually(lambda: replica.execute("GET", "k") == "v")


def synced(info: str) -> int:
    """How often a replica has begun to follow, wholly or from where it was."""
    fields = dict(line.split(":", 1) for line in info.splitlines() if ":" in line)
    return int(fields["sync_full"]) + int(fields["sync_partial_ok"])


# Replication


def test_a_replica_lags_by_seconds(clock: ManualClock) -> None:
    with Replication(1, clock=clock) as pair:
        master, replica = pair.master(), pair.replicas()[0]
        replica.set_lag(seconds=30)
        master.execute("SET", "k", "1")
        clock.advance(20)
        master.execute("SET", "k", "2")
        assert replica.execute("GET", "k") is None
        clock.advance(10)
        assert replica.execute("GET", "k") == "1"
        clock.advance(20)
        assert replica.execute("GET", "k") == "2"
        master.execute("SET", "k", "3")
        replica.set_lag()
        pair.wait_stable()
        assert replica.execute("GET", "k") == "3"


def test_a_replica_lags_by_writes(pair: Replication) -> None:
    master, replica = pair.master(), pair.replicas()[0]
    replica.set_lag(ops=2)
    for number in range(1, 6):
        master.execute("SET", "k", number)
    eventually(lambda: replica.execute("GET", "k") == "3")
    replica.set_lag()
    eventually(lambda: replica.execute("GET", "k") == "5")


def test_a_lagging_replica_delays_wait(clock: ManualClock, dial: Dial) -> None:
    with Replication(1, clock=clock) as pair:
        replica, client = pair.replicas()[0], dial(pair.master())
        replica.set_lag(seconds=5)
        client.ask(b"SET", b"k", b"v")
        client.send(request([b"WAIT", b"1", b"0"]))
        eventually(lambda: "cmd=wait" in pair.master().execute("CLIENT", "LIST"))
        clock.advance(4)
        assert client.rest() == ()
        pair.wait_until(client.rest, seconds=10)


def test_an_announced_address_is_what_others_know(pair: Replication) -> None:
    master, replica = pair.master(), pair.replicas()[0]
    replica.announce("10.1.2.3", 7777)
    eventually(lambda: [entry[:2] for entry in master.execute("ROLE")[2]] == [["10.1.2.3", "7777"]])
    assert "ip=10.1.2.3,port=7777" in master.execute("INFO", "replication")
    replica.restart()
    eventually(lambda: [entry[:2] for entry in master.execute("ROLE")[2]] == [["10.1.2.3", "7777"]])


# Partitions


def test_a_partition_between_nodes_closes_nothing_and_heals(pair: Replication) -> None:
    master, replica = pair.master(), pair.replicas()[0]
    full = master.execute("INFO", "stats").count("sync_full:1")
    pair.partition(master, replica)
    master.execute("SET", "k", "v")
    assert replica.execute("GET", "k") is None
    assert replica.execute("ROLE")[3] == "connected"
    pair.heal()
    eventually(lambda: replica.execute("GET", "k") == "v")
    assert master.execute("INFO", "stats").count("sync_full:1") == full == 1


def test_a_replica_cannot_connect_through_a_partition(clock: ManualClock) -> None:
    with Replication(1, clock=clock) as pair:
        master, replica = pair.master(), pair.replicas()[0]
        pair.partition(master, replica)
        replica.restart()
        clock.advance(30)
        assert replica.execute("ROLE")[3] in ("connect", "connecting")
        pair.heal()
        pair.wait_stable()


def test_a_partition_from_clients_holds_everything_back(pair: Replication, dial: Dial) -> None:
    master = pair.master()
    there, subscriber = dial(master), dial(master)
    subscriber.ask(b"SUBSCRIBE", b"c")
    pair.partition(master, CLIENTS)
    there.send(request([b"INCR", b"n"]) * 2)
    master.execute("PUBLISH", "c", "hello")
    new = dial(master)
    new.send(request([b"ECHO", b"new"]))
    assert (there.rest(), subscriber.rest(), new.rest()) == ((), (), ())
    assert master.execute("GET", "n") is None
    pair.heal()
    assert [str(there.read()) for _ in range(2)] == [":1", ":2"]
    assert str(subscriber.read()) == '*[$"message" $"c" $"hello"]'
    assert str(new.read()) == '$"new"'
    assert str(there.ask(b"PING")) == "+PONG"


def test_a_client_that_is_cut_off_does_not_see_its_connection_being_closed(pair: Replication, dial: Dial) -> None:
    master = pair.master()
    clients = [dial(master) for _ in range(3)]
    for client in clients:
        client.ask(b"PING")
    pair.partition(master, CLIENTS)
    assert master.disconnect("normal") == 3
    assert [client.rest() for client in clients] == [(), (), ()]
    pair.heal()
    assert [client.read() for client in clients] == [CLOSED] * 3


def test_what_was_answered_before_the_cut_connection_was_closed_arrives_with_the_end(
    pair: Replication, dial: Dial
) -> None:
    master = pair.master()
    blocked = dial(master)
    blocked.send(request([b"BLPOP", b"l", b"0"]))
    eventually(lambda: "cmd=blpop" in master.execute("CLIENT", "LIST"))
    pair.partition(master, CLIENTS)
    master.execute("RPUSH", "l", "x")
    master.disconnect("normal")
    pair.heal()
    assert [str(blocked.read()) for _ in range(2)] == ['*[$"l" $"x"]', "!closed"]


def test_a_partition_from_clients_leaves_nodes_alone(pair: Replication) -> None:
    master, replica = pair.nodes
    pair.partition([master, replica], CLIENTS)
    master.execute("SET", "k", "v")
    eventually(lambda: replica.execute("GET", "k") == "v")


def test_only_the_cut_side_of_the_clients_is_cut(pair: Replication, dial: Dial) -> None:
    master, replica = pair.nodes
    pair.partition(CLIENTS, master)
    assert str(dial(replica).ask(b"PING")) == "+PONG"
    cut = dial(master)
    cut.send(request([b"PING"]))
    assert is_silent(cut)


def test_a_deployment_can_end_in_a_partition(dial: Dial) -> None:
    with Replication(1) as pair:
        client = dial(pair.master())
        pair.partition(pair.nodes, CLIENTS)
        client.send(request([b"PING"]))
    assert client.read() == CLOSED
