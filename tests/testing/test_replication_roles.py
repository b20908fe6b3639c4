"""Roles of the embedded data nodes: REPLICAOF, chains, WAIT, FAILOVER, and the answers of a real server beside ours."""

from __future__ import annotations

import contextlib
import logging
import re
import socket
from collections.abc import Callable
from typing import Any

import pytest

from hatopo.testing.real import RealNode
from tests.control import Control, ServerError, eventually
from tests.testing.replication_lab import Lab, lab

__all__ = ["lab"]

ASK = 37
"""Bytes of REPLCONF GETACK in the stream."""


# Roles


def test_a_promoted_replica_continues_the_history_under_a_new_name(lab: Lab) -> None:
    master, first, second = lab.set_up(2)
    master("SET", "k", "v")
    lab.pass_time(0)
    before = master.info()
    assert first("REPLICAOF", "NO", "ONE") == "OK"
    after = first.info()
    assert after["role"] == "master"
    assert after["master_replid2"] == before["master_replid"] != after["master_replid"]
    assert int(after["second_repl_offset"]) == int(before["master_repl_offset"]) + 1
    assert after["master_repl_offset"] == before["master_repl_offset"]
    assert second("REPLICAOF", "127.0.0.1", first.port) == "OK"
    assert master("REPLICAOF", "127.0.0.1", first.port) == "OK"
    lab.pass_time()
    assert first.stats() == (0, 2, 0), "nobody needs all data"
    first("SET", "k", "w")
    lab.pass_time(0)
    assert (master("GET", "k"), second("GET", "k")) == ("w", "w")
    assert master.info()["master_replid"] == after["master_replid"]


def test_a_replica_of_a_replica(lab: Lab) -> None:
    master, middle = lab.set_up(1)
    below = lab.node(middle)
    master("SET", "k", "v")
    lab.pass_time(0)
    assert below("GET", "k") == "v"
    assert below("SET", "k", "w") == "-READONLY You can't write against a read only replica."
    assert master("ROLE")[1] == middle("ROLE")[4] == below("ROLE")[4]
    assert (master.info()["connected_slaves"], middle.info()["connected_slaves"]) == ("1", "1")
    lab.kill(master)
    lab.pass_time(2)
    assert (middle.state(), below.state()) == ("connect", "connected")
    middle("REPLICAOF", "NO", "ONE")
    lab.pass_time(0)
    middle("SET", "k", "w")
    lab.pass_time(0)
    assert below("GET", "k") == "w"
    assert middle.stats() == (1, 1, 0)


def test_a_replica_of_a_replica_waits_until_that_has_a_master(lab: Lab) -> None:
    nowhere = lab.node()
    middle = lab.node(nowhere)
    lab.kill(nowhere)
    lab.pass_time()
    below = lab.node(middle)
    assert below.state() == "connect"
    lab.restart(nowhere)
    lab.pass_time(3)
    assert below.state() == "connected"


def test_the_replicas_of_a_replica_follow_it_into_another_history(lab: Lab) -> None:
    first, second = lab.node(), lab.node()
    second("SET", "k", "second")
    middle = lab.node(first)
    below = lab.node(middle)
    middle("REPLICAOF", "127.0.0.1", second.port)
    lab.pass_time(2)
    assert below("GET", "k") == "second"
    assert below.info()["master_replid"] == second.info()["master_replid"]
    second("SET", "k", "more")
    lab.pass_time(0)
    assert below("GET", "k") == "more"


def test_the_replicas_of_a_replica_learn_the_new_name_of_the_history(lab: Lab) -> None:
    master, sibling, middle = lab.set_up(2)
    below = lab.node(middle)
    master("SET", "k", "v")
    lab.pass_time(0)
    sibling("REPLICAOF", "NO", "ONE")
    middle("REPLICAOF", "127.0.0.1", sibling.port)
    lab.pass_time(2)
    assert {node.info()["master_replid"] for node in (sibling, middle, below)} == {sibling.replication.history.id}
    assert (sibling.stats(), middle.stats()) == ((0, 1, 0), (1, 1, 0))


def test_replicas_do_not_delete_what_has_expired(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    assert not lab.run(lambda: master.server.keyspace.replica)
    assert lab.run(lambda: replica.server.keyspace.replica)
    replica("REPLICAOF", "NO", "ONE")
    assert not lab.run(lambda: replica.server.keyspace.replica)


def test_replicaof_answers(lab: Lab) -> None:
    master, node = lab.node(), lab.node()
    assert node("REPLICAOF", "127.0.0.1", master.port) == "OK"
    assert node("SLAVEOF", "127.0.0.1", master.port) == "OK Already connected to specified master"
    assert node("REPLICAOF", "127.0.0.1", "x") == "-ERR Invalid master port"
    assert node("REPLICAOF", "127.0.0.1", 65536) == "-ERR Invalid master port"
    assert node("ROLE")[0] == "slave"
    assert node("REPLICAOF", "no", "ONE") == "OK"
    assert node("REPLICAOF", "no", "one") == "OK"
    assert node("ROLE")[0] == "master"


def test_replicaof_closes_blocked_clients_and_no_others(lab: Lab) -> None:
    master, node = lab.node(), lab.node()
    node("MULTI")
    with node.send("BLPOP", "list", "0") as popping, node.send("WAIT", "1", "0") as waiting:
        lab.blocked(node, 2)
        with Control(node.server.address) as other:
            assert other("REPLICAOF", "127.0.0.1", master.port) == "OK"
            for client in (popping, waiting):
                with pytest.raises(ServerError, match="UNBLOCKED force unblock from blocking operation"):
                    client.read()
                with pytest.raises(ConnectionResetError):
                    client.read()
            assert other("PING") == "PONG"
    assert node("SET", "k", "v") == "-READONLY You can't write against a read only replica."
    assert node("EXEC") == "-EXECABORT Transaction discarded because of previous errors."


def test_a_replica_is_known_by_what_it_announces(lab: Lab) -> None:
    master = lab.node()
    replica = lab.node(master, {"replica-announce-ip": "10.1.2.3", "replica-announce-port": 4567})
    assert master("ROLE")[2] == [["10.1.2.3", "4567", "0"]]
    assert replica.state() == "connected"


def test_a_replica_logs_in(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    master = lab.node(None, {"requirepass": "secret"})
    replica = lab.node(master)
    with caplog.at_level(logging.WARNING, "hatopo.testing"):
        lab.pass_time(3)
    assert replica.state() == "connect"
    assert replica("CONFIG", "SET", "masterauth", "wrong") == "OK"
    lab.pass_time(1)
    assert replica.state() == "connect"
    assert replica("CONFIG", "SET", "masterauth", "secret") == "OK"
    lab.pass_time(2)
    assert replica.state() == "connected"


def test_a_server_of_another_process_cannot_be_followed(lab: Lab, caplog: pytest.LogCaptureFixture) -> None:
    node = lab.node()
    with socket.create_server(("127.0.0.1", 0)) as stranger, caplog.at_level(logging.WARNING, "hatopo.testing"):
        assert node("REPLICAOF", "127.0.0.1", stranger.getsockname()[1]) == "OK"
        for _ in range(2):
            stranger.settimeout(5)
            connection, _ = stranger.accept()
            connection.close()
            eventually(lambda: node.state() == "connect")
            lab.pass_time(1.1)
    warnings = [record for record in caplog.records if "cannot follow" in record.getMessage()]
    assert len(warnings) == 1
    assert node("REPLICAOF", "NO", "ONE") == "OK"


def test_a_client_of_another_process_cannot_follow(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    assert "replicates only to servers of its own deployment" in master("PSYNC", "?", "-1")
    assert master("PSYNC", "?", "x") == "-ERR value is not an integer or out of range"
    assert master("PSYNC", "?", "-1", "FAILOVER") == "-ERR PSYNC FAILOVER can't be sent to a master."
    assert replica("PSYNC", "?", "-1", "FAILOVER") == "-ERR PSYNC FAILOVER replid must match my replid."
    assert master.stats()[0] == 1


# WAIT


def test_wait_asks_the_replicas_at_once(lab: Lab) -> None:
    master, _, _ = lab.set_up(2)
    before = master("ROLE")[1]
    assert master("WAIT", 2, 0) == 2, "nothing was written: whoever is online counts"
    assert master("ROLE")[1] == before
    master("SET", "k", "v")
    written = master("ROLE")[1]
    assert master("WAIT", 2, 0) == 2
    assert master("ROLE")[1] == written + ASK


def test_wait_blocks_until_its_time_is_up(lab: Lab) -> None:
    master, first, _ = lab.set_up(2)
    lab.run(first.replication.freeze)
    with Control(master.server.address) as client:
        client("SET", "k", "v")
        client._socket.sendall(b"WAIT 2 3000\r\nPING\r\n")
        lab.blocked(master, 1)
        lab.pass_time(2.9)
        lab.blocked(master, 1)
        lab.pass_time(0.1)
        assert client.read() == 1
        assert client.read() == "PONG"
        client._socket.sendall(b"WAIT 2 0\r\n")
        lab.blocked(master, 1)
        lab.run(first.replication.set_lag)
        assert client.read() == 2
        assert client("PING") == "PONG", "the first WAIT is not answered again"


def test_wait_asks_only_when_clients_may_write_again(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    with Control(master.server.address) as client:
        client("SET", "k", "v")
        written = client("ROLE")[1]
        assert master("CLIENT", "PAUSE", 5000, "WRITE") == "OK"
        client._socket.sendall(b"WAIT 1 0\r\n")
        lab.blocked(master, 1)
        lab.run(replica.replication.freeze)  # so that what it acknowledges by itself is not enough
        lab.pass_time(4)
        assert master("ROLE")[1] == written
        lab.run(replica.replication.set_lag)
        lab.pass_time(2)
        assert client.read() == 1
        assert master("ROLE")[1] == written + ASK


def test_wait_does_not_block_in_a_transaction(lab: Lab) -> None:
    master, _ = lab.set_up(1)
    master("SET", "k", "v")
    master("MULTI")
    master("WAIT", 5, 0)
    master("PING")
    assert master("EXEC")[1:] == ["PONG"]


def test_wait_refuses(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    assert master("WAIT", 1, "x") == "-ERR timeout is not an integer or out of range"
    assert master("WAIT", 1, -1) == "-ERR timeout is negative"
    assert replica("WAIT", 0, 0).startswith("-ERR WAIT cannot be used with replica instances. Please also note")


# FAILOVER


def test_failover_hands_over_without_losing_a_write(lab: Lab) -> None:
    master, first, second = lab.set_up(2)
    master("SET", "k", "v")
    lab.pass_time(0)
    lab.run(first.replication.freeze)
    lab.run(second.replication.freeze)
    master("SET", "k", "last")
    lab.pass_time(1)
    assert master("FAILOVER", "TO", "127.0.0.1", second.port) == "OK"
    assert master.info()["master_failover_state"] == "waiting-for-sync"
    with master.send("SET", "k", "paused") as writer:
        lab.pass_time(3)
        assert master("ROLE")[0] == "master"
        assert master("FAILOVER") == "-ERR FAILOVER already in progress."
        assert master("REPLICAOF", "NO", "ONE") == "-ERR REPLICAOF not allowed while failing over."
        lab.run(second.replication.set_lag)
        lab.pass_time(1.2)
        with pytest.raises(ServerError, match="READONLY"):
            writer.read()
    lab.run(first.replication.set_lag)
    lab.pass_time(2)
    assert [node("ROLE")[0] for node in (master, first, second)] == ["slave", "slave", "master"]
    assert second("GET", "k") == "last"
    assert master("ROLE")[2:4] == [second.port, "connected"]
    assert first("ROLE")[2:4] == [master.port, "connected"], "the others stay where they are"
    assert [node("GET", "k") for node in (master, first)] == ["last"] * 2
    assert [node.stats()[0] for node in (first, second)] == [0, 0]
    assert master.info()["master_failover_state"] == "no-failover"


def test_failover_to_any_replica_that_has_all(lab: Lab) -> None:
    master, first, second = lab.set_up(2)
    lab.run(first.replication.freeze)
    master("SET", "k", "v")
    lab.pass_time(1)
    assert master("FAILOVER") == "OK"
    lab.pass_time(1)
    assert second("ROLE")[0] == "master"


def test_failover_is_given_up_when_its_time_is_up(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    lab.run(replica.replication.freeze)
    master("SET", "k", "v")
    assert master("FAILOVER", "TIMEOUT", 2000) == "OK"
    assert master("PSYNC", "?", "-1") == "-NOMASTERLINK Can't SYNC while failing over"
    with master.send("SET", "k", "w") as writer:
        lab.pass_time(2.5)
        assert writer.read() == "OK"
    assert master("ROLE")[0] == "master"
    assert master.info()["master_failover_state"] == "no-failover"


@pytest.mark.parametrize(("words", "grows"), [(("TIMEOUT", "60000"), False), ((), True)])
def test_pings_stop_while_a_failover_that_may_time_out_waits(lab: Lab, words: tuple[str, ...], grows: bool) -> None:
    master, replica = lab.set_up(1)
    lab.run(replica.replication.freeze)
    master("SET", "k", "v")
    offset = master("ROLE")[1]
    assert master("FAILOVER", *words) == "OK"
    lab.pass_time(25)
    assert (master("ROLE")[1] > offset) is grows


def test_failover_by_force_when_its_time_is_up(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    master("SET", "k", "old")
    lab.pass_time(0)
    lab.run(replica.replication.freeze)
    master("SET", "k", "new")
    assert master("FAILOVER", "TO", "127.0.0.1", replica.port, "FORCE", "TIMEOUT", 2000) == "OK"
    lab.pass_time(2.5)
    assert (master("ROLE")[0], replica("ROLE")[0]) == ("slave", "master")
    assert replica("GET", "k") == master("GET", "k") == "old"


def test_failover_can_be_aborted(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    lab.run(replica.replication.freeze)
    master("SET", "k", "v")
    lab.pass_time(0)
    assert master("FAILOVER") == "OK"
    assert master("FAILOVER", "ABORT") == "OK"
    assert master("SET", "k", "w") == "OK"
    assert master("FAILOVER", "TO", "127.0.0.1", replica.port, "FORCE", "TIMEOUT", 1000) == "OK"
    lab.run(replica.server.pause)
    lab.pass_time(2)
    assert master.info()["master_failover_state"] == "failover-in-progress"
    assert master("ROLE")[0] == "slave"
    assert master("FAILOVER", "ABORT") == "OK"
    assert master("ROLE")[0] == "master"
    assert master("SET", "k", "x") == "OK"


def test_failover_refused_by_the_replica_makes_the_master_master_again(lab: Lab) -> None:
    master, replica = lab.set_up(1)
    lab.run(replica.replication.freeze)
    master("SET", "k", "v")
    assert master("FAILOVER", "TO", "127.0.0.1", replica.port, "FORCE", "TIMEOUT", 1000) == "OK"
    lab.run(replica.replication.change_id)
    lab.pass_time(3)
    assert (master("ROLE")[0], master.info()["master_failover_state"]) == ("master", "no-failover")
    assert replica("ROLE")[0] == "slave"


# Beside the real server


def _transcript(nodes: list[Any], wait: Callable[[], object]) -> list[Any]:
    """What a master, its replica and a node that is to follow that one answer, step by step."""
    master, replica, below = nodes
    ports = {str(node.port): name for node, name in zip(nodes, ("M", "R", "B"), strict=True)}
    said: list[Any] = []

    def ask(node: Any, *words: str | int) -> None:
        reply = node(*words)
        text = re.sub(r"(?<=lag=)\d+|(?<=seconds_ago:)\d+", "N", repr(reply))
        text = re.sub(r"\b[0-9a-f]{40}\b", lambda found: "0" if found[0] == "0" * 40 else "ID", text)
        said.append((words[0], re.sub(r"\b\d{4,5}\b", lambda found: ports.get(found[0], found[0]), text)))

    for node in nodes:
        ask(node, "CONFIG", "SET", "repl-ping-replica-period", 3600)
    for words in REFUSED:
        ask(master, *words.split())
    ask(master, "INFO", "replication")
    replica("REPLICAOF", "127.0.0.1", master.port)
    wait()
    for words in REFUSED:
        if not words.startswith("REPLICAOF"):
            ask(replica, *words.split())
    for words in WRITES:
        ask(master, *words.split())
        said.append(master("ROLE")[1])
    below("REPLICAOF", "127.0.0.1", replica.port)
    wait()
    for node in nodes:
        ask(node, "ROLE")
        ask(node, "INFO", "replication")
    ask(master, "FAILOVER", "TO", "127.0.0.1", replica.port)
    wait()
    for node in nodes:
        ask(node, "ROLE")
        ask(node, "INFO", "replication")
        said.append(re.findall(r"sync_\w+:\d+", node("INFO", "stats")))
    return said


REFUSED = [
    *("WAIT 0 0", "WAIT a 0", "WAIT 1 a", "WAIT 1 -1", "WAIT -1 0", "FAILOVER", "FAILOVER ABORT", "FAILOVER x"),
    *("FAILOVER TIMEOUT 0", "FAILOVER TIMEOUT a", "FAILOVER TO a", "FAILOVER TO a b", "FAILOVER TO a 1"),
    *("FAILOVER FORCE", "FAILOVER FORCE FORCE", "FAILOVER TIMEOUT 1 TIMEOUT 1", "FAILOVER ABORT x"),
    *("REPLICAOF a b", "REPLICAOF a 65536", "REPLICAOF a -1", "REPLICAOF a", "REPLCONF", "REPLCONF a"),
    *("REPLCONF a b", "REPLCONF listening-port a", "REPLCONF rdb-only 3", "REPLCONF capa x", "PSYNC", "PSYNC a b"),
    *("PSYNC a 1 failover", "ROLE x", "SYNC 1"),
]
WRITES = ["SET k v", "SET k w", "SELECT 3", "SET k v", "DEL k", "PUBLISH c m", "SPUBLISH c m", "WAIT 1 0", "PING"]


@pytest.mark.real
def test_the_answers_are_those_of_the_real_server(lab: Lab, redis_installed: tuple[int, ...]) -> None:
    if redis_installed[:2] != (7, 0):
        pytest.skip("the embedded server imitates 7.0")
    found = _transcript([lab.node() for _ in range(3)], lambda: lab.pass_time(2))
    expected = _real_transcript()
    if found != expected:  # once a second a replica acknowledges by itself: if before WAIT, that need not ask for it
        expected = _real_transcript()
    assert found == expected


def _real_transcript() -> list[Any]:
    with contextlib.ExitStack() as stack:
        servers = [stack.enter_context(RealNode()) for _ in range(3)]
        real = [_RealNode(server, stack.enter_context(server.control())) for server in servers]

        def synchronized() -> None:
            eventually(lambda: _in_place([node("INFO", "replication") for node in real]))

        return _transcript(real, synchronized)


def _in_place(reports: list[str]) -> bool:
    """Whether all that follow have what they follow, and have said so."""
    assert not any(re.search("link_status:down|-sync|-in-progress|state=[^o]", report) for report in reports)
    for report in reports:
        assert {*re.findall(r",offset=(\d+)", report)} <= {*re.findall(r"master_repl_offset:(\d+)", report)}
    return True


class _RealNode:
    """A real server, asked as the embedded ones are."""

    def __init__(self, server: RealNode, control: Control) -> None:
        self.port = server.address[1]
        self._control = control

    def __call__(self, *words: str | int) -> Any:
        try:
            return self._control(*words)
        except ServerError as error:
            return f"-{error}"
