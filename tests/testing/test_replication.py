"""Replication of the embedded data nodes: what replicas get, what they lose, and how links break and come back."""

from __future__ import annotations

import contextlib

import pytest

from hatopo.testing.world._world import CLIENTS
from tests.control import Control
from tests.testing.replication_lab import Lab, lab

__all__ = ["lab"]

SELECT, PING = 23, 14
"""Bytes of the commands that a master adds to the stream."""


# What a replica gets


def test_a_replica_gets_all_data_and_then_every_change(lab: Lab) -> None:
    master = lab.node()
    master("SET", "text", "here")
    master("RPUSH", "list", "a", "b")
    master("SELECT", 3)
    master("SET", "other", "database")
    replica = lab.node(master)
    assert replica.state() == "connected"
    assert replica("LRANGE", "list", 0, -1) == ["a", "b"]
    master("HSET", "hash", "field", "value")
    master("SELECT", 0)
    master("DEL", "text")
    master("RPUSH", "list", "c")
    lab.pass_time(0)
    assert replica("GET", "text") is None
    assert replica("LRANGE", "list", 0, -1) == ["a", "b", "c"]
    replica("SELECT", 3)
    assert replica("GET", "other") == "database"
    assert replica("HGETALL", "hash") == ["field", "value"]


def test_what_a_replica_has_is_its_own(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    master("RPUSH", "list", "a")
    lab.pass_time(0)
    lab.cut(master, replica)
    master("RPUSH", "list", "b")
    assert replica("LRANGE", "list", 0, -1) == ["a"]


def test_the_offset_counts_the_bytes_of_the_commands(lab: Lab) -> None:
    master = lab.node()
    master("SET", "k", "v")
    assert master("ROLE") == ["master", 0, []]
    replica = lab.node(master)
    assert master("ROLE")[1] == 0
    master("SET", "k", "v")
    set_length = len("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n$1\r\nv\r\n")
    assert master("ROLE")[1] == SELECT + set_length
    master("SET", "k", "v")
    assert master("ROLE")[1] == SELECT + 2 * set_length
    master("GET", "k")
    lab.pass_time(0)
    assert replica("ROLE") == ["slave", "127.0.0.1", master.port, "connected", SELECT + 2 * set_length]


def test_the_master_sends_pings_and_the_replica_acknowledges_each_second(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    before = master("ROLE")[1]
    lab.pass_time(10)
    assert master("ROLE")[1] == before + PING
    lab.pass_time(1)
    assert master("ROLE")[2] == [["127.0.0.1", str(replica.port), str(before + PING)]]
    assert master.info()["slave0"] == f"ip=127.0.0.1,port={replica.port},state=online,offset={before + PING},lag=0"


def test_a_transaction_arrives_as_a_whole(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    lab.run(lambda: replica.replication.set_lag(ops=1))
    for words in (["MULTI"], ["SET", "a", "1"], ["SET", "b", "1"], ["EXEC"]):
        master(*words)
    lab.pass_time(0)
    assert replica("MGET", "a", "b") == [None, None]
    master("SET", "c", "1")
    lab.pass_time(0)
    assert replica("MGET", "a", "b", "c") == ["1", "1", None]


def test_keys_expire_on_the_replica_at_the_same_moment(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    master("SET", "k", "v", "PX", 5000)
    lab.pass_time(4.9)
    assert replica("GET", "k") == "v"
    assert replica("PTTL", "k") == master("PTTL", "k") > 0
    lab.pass_time(0.2)
    assert replica("GET", "k") is None


def test_flushall_and_swapdb_reach_the_replica(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    for words in (["MULTI"], ["SET", "k", "v"], ["SWAPDB", 0, 1], ["SET", "l", "w"], ["EXEC"]):
        master(*words)
    lab.pass_time(0)
    assert replica("KEYS", "*") == ["l"]
    replica("SELECT", 1)
    assert replica("KEYS", "*") == ["k"]
    master("FLUSHALL")
    lab.pass_time(0)
    assert replica("KEYS", "*") == []


def test_messages_reach_subscribers_of_replicas_and_their_replicas(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    below = lab.node(replica)
    heard = []
    with contextlib.ExitStack() as stack:
        for node in (replica, below):
            client = stack.enter_context(Control(node.server.address))
            client("SUBSCRIBE", "news")
            heard.append(client)
        assert master("PUBLISH", "news", "hello") == 0
        lab.pass_time(0)
        assert [client.read() for client in heard] == [["message", "news", "hello"]] * 2
        assert replica("PUBLISH", "news", "local") == 1
        lab.pass_time(0)
        assert heard[0].read() == ["message", "news", "local"]
        assert below("PUBLISH", "news", "below") == 1
        assert heard[1].read() == ["message", "news", "below"]


def test_a_change_wakes_who_waits_on_a_replica_that_can_be_written(lab: Lab) -> None:
    master, replica = lab.set_up(1, replica_read_only="no")
    with replica.send("BLPOP", "list", "0") as client:
        lab.blocked(replica, 1)
        assert replica("WATCH", "list") == "OK"
        master("RPUSH", "list", "a", "b")
        lab.pass_time(0)
        assert client.read() == ["list", "a"]
    assert replica("LRANGE", "list", 0, -1) == ["b"]
    replica("MULTI")
    replica("PING")
    assert replica("EXEC") is None
    assert master("LRANGE", "list", 0, -1) == ["a", "b"]


def test_a_full_synchronization_breaks_watches(lab: Lab) -> None:
    master, replica = lab.node(), lab.node()
    replica("SET", "k", "v")
    replica("WATCH", "k")
    replica("REPLICAOF", "127.0.0.1", master.port)
    lab.pass_time()
    replica("MULTI")
    replica("PING")
    assert replica("EXEC") is None
    assert replica("EXISTS", "k") == 0


# Links that break, and how they come back


def test_a_replica_goes_on_from_where_it_was(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    lab.run(lambda: replica.replication.set_lag(float("inf")))
    master("RPUSH", "list", "missed")
    with Control(replica.server.address) as client:
        client("SUBSCRIBE", "news")
        master("PUBLISH", "news", "late")
        lab.pass_time(0)
        assert replica("EXISTS", "list") == 0
        assert master("CLIENT", "KILL", "TYPE", "replica") == 1
        lab.run(replica.replication.set_lag)
        lab.pass_time(0)
        assert replica.state() == "connected"
        assert replica("LRANGE", "list", 0, -1) == ["missed"]
        assert client.read() == ["message", "news", "late"]
    assert master.stats() == (1, 1, 0)
    assert master("ROLE")[1] == replica("ROLE")[4]


def test_the_link_to_the_master_can_be_killed_from_the_replica(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    lab.cut(master, replica)
    assert replica("CLIENT", "KILL", "TYPE", "master") == 1
    assert replica.info()["master_link_status"] == "down"
    lab.heal()
    lab.pass_time(0)
    assert replica.info()["master_link_status"] == "up"
    assert master.stats() == (1, 1, 0)
    assert replica("CLIENT", "KILL", "TYPE", "normal") == 0


def test_what_the_backlog_no_longer_has_is_sent_in_full(lab: Lab) -> None:
    master, replica = lab.set_up(1, repl_backlog_size=16384)
    lab.cut(master, replica)
    for number in range(40):
        master("SET", f"key-{number}", "x" * 1000)
    assert int(master.info()["repl_backlog_histlen"]) <= 16384
    lab.run(replica.replication.break_link)
    lab.heal()
    lab.pass_time(2)
    assert master.stats() == (2, 0, 1)
    assert replica("DBSIZE") == 40


def test_a_swap_that_was_missed_is_sent_in_full(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    master("SET", "k", "v")
    lab.cut(master, replica)
    master("SWAPDB", 0, 1)
    lab.run(replica.replication.break_link)
    lab.heal()
    lab.pass_time(2)
    assert master.stats() == (2, 0, 1)
    assert replica("DBSIZE") == 0


def test_a_master_that_was_killed_is_missed_at_once(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    lab.kill(master)
    lab.pass_time(0)
    about = replica.info()
    assert (about["master_link_status"], about["master_last_io_seconds_ago"]) == ("down", "-1")
    assert about["master_link_down_since_seconds"] == "0"
    assert replica("ROLE") == ["slave", "127.0.0.1", master.port, "connect", -1]
    lab.pass_time(5)
    assert replica.info()["master_link_down_since_seconds"] == "5"


def test_a_master_that_comes_back_empty_empties_its_replicas(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    master("SET", "k", "v")
    lab.pass_time(0)
    lab.restart(master)
    lab.pass_time(2)
    assert replica.state() == "connected"
    assert replica("GET", "k") == "v"
    assert replica.info()["master_replid"] == master.info()["master_replid"]
    assert master.stats() == (1, 0, 1)
    lab.restart(master, empty=True)
    lab.pass_time(2)
    assert replica("GET", "k") is None
    assert (replica.state(), master("ROLE")[1]) == ("connected", 0)


def test_a_replica_that_comes_back_follows_as_it_was_configured(lab: Lab) -> None:
    first, replica, second = *lab.set_up(1), lab.node()
    replica("REPLICAOF", "127.0.0.1", second.port)
    lab.restart(replica)
    lab.pass_time(1)
    assert replica("ROLE")[:4] == ["slave", "127.0.0.1", first.port, "connected"]
    replica("REPLICAOF", "127.0.0.1", second.port)
    lab.run(replica.replication.remember)
    lab.restart(replica)
    lab.pass_time(1)
    assert replica("ROLE")[:4] == ["slave", "127.0.0.1", second.port, "connected"]
    replica("REPLICAOF", "NO", "ONE")
    lab.run(replica.replication.remember)
    lab.restart(replica)
    assert replica("ROLE") == ["master", 0, []]


def test_a_cut_is_noticed_by_the_timeout_only(lab: Lab) -> None:
    master, replica = lab.set_up(1, min_replicas_to_write=1, min_replicas_max_lag=10)
    lab.cut(master, replica)
    lab.pass_time(10)
    assert master("SET", "k", "v") == "OK"
    lab.pass_time(2)
    assert master("SET", "k", "v") == "-NOREPLICAS Not enough good replicas to write."
    assert (master.info()["connected_slaves"], master.info()["min_slaves_good_slaves"]) == ("1", "0")
    assert master.info()["slave0"].endswith("lag=12")
    assert replica.info()["master_link_status"] == "up"
    assert int(replica.info()["master_last_io_seconds_ago"]) > 2
    lab.pass_time(62)
    assert replica.info()["master_link_status"] == "down"
    assert master.info()["connected_slaves"] == "0"
    lab.heal()
    lab.pass_time(2)
    assert replica("GET", "k") == "v"
    assert master("SET", "k", "w") == "OK"


def test_a_cut_that_is_healed_in_time_loses_nothing(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    lab.cut(master, replica)
    master("SET", "k", "v")
    lab.pass_time(30)
    assert replica("GET", "k") is None
    lab.heal()
    lab.pass_time(0)
    assert replica("GET", "k") == "v"
    assert master.stats() == (1, 0, 0)


@pytest.mark.parametrize("which", ["master", "replica"])
def test_who_stands_still_is_missed_like_who_is_cut_off(lab: Lab, which: str) -> None:
    master, replica = lab.set_up(1, min_replicas_to_write=1)
    paused, other = (master, replica) if which == "master" else (replica, master)
    lab.run(paused.server.pause)
    lab.pass_time(12)
    if other is master:
        assert master("SET", "k", "v").startswith("-NOREPLICAS")
        assert master.info()["connected_slaves"] == "1"
    else:
        assert replica.info()["master_link_status"] == "up"
    lab.pass_time(52)
    if other is master:
        assert master.info()["connected_slaves"] == "0"
    else:
        assert replica.state() == "handshake"
    lab.run(paused.server.resume)
    lab.pass_time(2)
    assert replica.state() == "connected"
    assert master("SET", "k", "v") == "OK"
    assert master.stats() == (1, 1, 0)


def test_a_synchronization_takes_the_time_that_it_is_given(lab: Lab) -> None:
    master, replica = lab.node(), lab.node()
    master("SET", "k", "old")
    master.replication.followers.full_sync_seconds = 5.0
    replica.replication.upstream.loading_seconds = 2.0
    replica("REPLICAOF", "127.0.0.1", master.port)
    lab.pass_time(4.5)
    assert replica("ROLE") == ["slave", "127.0.0.1", master.port, "sync", -1]
    assert replica.info()["master_sync_in_progress"] == "1"
    assert ",state=wait_bgsave,offset=0,lag=0" in master.info()["slave0"]
    assert master("ROLE")[2] == []
    master("SET", "k", "new")
    lab.pass_time(1)
    assert replica("GET", "k") == "-LOADING Redis is loading the dataset in memory"
    lab.pass_time(2)
    assert replica("GET", "k") == "new"
    assert master("ROLE")[1] == replica("ROLE")[4]


def test_a_master_that_stands_still_does_not_finish_a_synchronization(lab: Lab) -> None:
    master, replica = lab.node(), lab.node()
    master.replication.followers.full_sync_seconds = 3.0
    replica("REPLICAOF", "127.0.0.1", master.port)
    lab.pass_time(1)
    lab.run(master.server.pause)
    lab.pass_time(10)
    assert replica.state() == "sync"
    lab.run(master.server.resume)
    lab.pass_time(1)
    assert replica.state() == "connected"


def test_a_history_that_no_replica_wants_is_forgotten(lab: Lab) -> None:
    master, replica = lab.set_up(1, repl_backlog_ttl=100)
    master("SET", "k", "v")
    lab.kill(replica)
    before = master.info()
    lab.pass_time(99)
    assert master.info() == before | {"connected_slaves": "0"}
    lab.pass_time(3)
    after = master.info()
    assert (after["repl_backlog_active"], after["repl_backlog_histlen"]) == ("0", "0")
    assert after["master_replid"] != before["master_replid"]
    master("SET", "k", "w")
    assert master.info()["master_repl_offset"] == before["master_repl_offset"]


def test_a_replica_without_its_master_refuses_stale_reads_if_told_so(lab: Lab) -> None:
    master, replica = lab.set_up(1, replica_serve_stale_data="no")
    assert replica("GET", "k") is None
    lab.kill(master)
    lab.pass_time(0)
    assert replica("GET", "k").startswith("-MASTERDOWN Link with MASTER is down")
    assert replica("ROLE")[3] == "connect"


# Replicas that lag


def test_a_lag_in_seconds(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    lab.run(lambda: replica.replication.set_lag(5))
    master("SET", "k", "1")
    lab.pass_time(3)
    master("SET", "k", "2")
    lab.pass_time(1)
    assert replica("GET", "k") is None
    assert int(replica.info()["slave_read_repl_offset"]) > int(replica.info()["slave_repl_offset"])
    lab.pass_time(1)
    assert replica("GET", "k") == "1"
    lab.run(replica.replication.set_lag)
    assert replica("GET", "k") == "2"


def test_a_lag_in_writes(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    lab.run(lambda: replica.replication.set_lag(ops=2))
    for number in range(5):
        master("SET", "k", number)
    lab.pass_time(20)
    assert replica("GET", "k") == "2"
    assert replica.state() == "connected"


def test_what_a_frozen_replica_has_received_is_lost_when_it_is_promoted(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    master("SET", "k", "old")
    lab.pass_time(0)
    lab.run(replica.replication.freeze)
    master("SET", "k", "new")
    lab.pass_time(1)
    assert replica("GET", "k") == "old"
    replica("REPLICAOF", "NO", "ONE")
    lab.run(replica.replication.set_lag)
    lab.pass_time(1)
    assert replica("GET", "k") == "old"
    master("REPLICAOF", "127.0.0.1", replica.port)
    lab.pass_time()
    assert master("GET", "k") == "old"
    assert replica.stats() == (1, 0, 1), "the old master has what the new one has not: it needs all data"


# Isolation of a deployment


def test_clients_that_are_cut_off_do_not_disturb_replication(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    with Control(master.server.address) as client:
        client("PING")
        lab.run(lambda: lab.world.cut([CLIENTS], [replica.server]))
        client("SET", "k", "v")
        lab.pass_time(0)
        assert lab.run(lambda: replica.server.keyspace.copy(0, b"k")) is not None
