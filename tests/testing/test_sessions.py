"""What a server keeps of its clients: replies left out, monitors, what it shows; and what a restart leaves."""

from __future__ import annotations

import pytest

from hatopo.testing import ManualClock, Node, SentinelDeployment
from tests.control import eventually
from tests.testing.conftest import Dial
from tests.testing.wire import request


def test_client_reply_skip_within_a_transaction_is_for_what_comes_after_exec(node: Node, dial: Dial) -> None:
    client = dial(node)
    words = ["MULTI", "CLIENT REPLY SKIP", "GET k", "EXEC", "ECHO skipped", "ECHO heard"]
    client.send(b"".join(request(line.encode().split()) for line in words))
    assert [str(client.read()) for _ in range(3)] == ["+OK", "+QUEUED", "+QUEUED"]
    # the head counts two commands, one of which has no reply: what follows is taken for it
    assert str(client.read()) == '*[$nil $"heard"]'


def test_client_reply_skip_is_for_one_command(node: Node, dial: Dial) -> None:
    client = dial(node)
    words = ["CLIENT REPLY SKIP", "ECHO a", "ECHO b", "CLIENT REPLY SKIP", "CLIENT REPLY SKIP", "ECHO c", "ECHO d"]
    client.send(b"".join(request(line.encode().split()) for line in words))
    assert [str(client.read()) for _ in range(2)] == ['$"b"', '$"d"']


def test_a_skipped_reply_stays_skipped_while_clients_are_paused(node: Node, dial: Dial) -> None:
    client = dial(node)
    client.ask(b"PING")
    server = node._server
    client.send(request([b"CLIENT", b"REPLY", b"SKIP"]))
    eventually(lambda: any(one.skipping == 2 for one in server.sessions.values()))
    node._call(lambda: server.pause_clients(60, everything=True))
    client.send(request([b"ECHO", b"a"]) + request([b"ECHO", b"b"]))
    eventually(lambda: server._paused_sessions)
    node._call(server.unpause_clients)
    assert str(client.read()) == '$"b"'


@pytest.mark.parametrize("line", ["GET k", "SET k v", "PUBLISH c m", "EVAL return 0"])
def test_who_monitors_does_not_touch_the_data(node: Node, dial: Dial, line: str) -> None:
    client = dial(node)
    assert str(client.ask(b"MONITOR")) == "+OK"
    refused = "-ERR Replica can't interact with the keyspace"
    assert str(client.ask(*[word.encode() for word in line.replace("return", "return\n").split(" ")])) == refused
    assert node.execute("EXISTS", "k") == 0


def test_who_has_monitored_touches_the_data_again_after_reset(node: Node, dial: Dial) -> None:
    client = dial(node)
    client.ask(b"MONITOR")
    assert str(client.ask(b"RESET")) == "+RESET"
    assert str(client.ask(b"GET", b"k")) == "$nil"


def test_client_list_names_exec_and_not_what_it_ran(node: Node, dial: Dial) -> None:
    client = dial(node)
    for line in ("CLIENT SETNAME one", "MULTI", "GET k", "CLIENT INFO"):
        client.ask(*line.encode().split())
    inside = client.ask(b"EXEC")
    shown = node.execute("CLIENT", "LIST")
    assert "cmd=exec" in str(inside)
    assert "cmd=exec" in next(one for one in shown.splitlines() if "name=one" in one)


def test_a_restart_takes_users_and_statistics_that_nobody_configured() -> None:
    with Node(users=["user kept on nopass ~* &* +@all"]) as node:
        users = node.execute("ACL", "USERS")
        node.execute("ACL", "SETUSER", "joe", "on", "nopass")
        node.execute("ACL", "SETUSER", "kept", "-get")
        with pytest.raises(Exception, match="WRONGTYPE"):
            node.execute("EVAL", "return redis.call('SET', KEYS[1], 1) and redis.call('LPUSH', KEYS[1], 1)", 1, "k")
        node.restart()
        shown = node.execute("INFO", "commandstats")
        assert "cmdstat_set:" not in shown
        assert "cmdstat_eval:" not in shown
        assert node.execute("ACL", "USERS") == users
        assert "-get" not in " ".join(node.execute("ACL", "LIST"))
        assert node.execute("GET", "k") == "1"


def test_a_restart_leaves_the_password_that_is_configured(dial: Dial) -> None:
    with Node(config={"requirepass": "secret"}) as node:
        node.execute("CONFIG", "SET", "requirepass", "other")
        node.execute("ACL", "SETUSER", "default", "-get")
        node.restart()
        client = dial(node)
        assert str(client.ask(b"AUTH", b"secret")) == "+OK"
        assert str(client.ask(b"GET", b"k")) == "$nil"


def test_expiry_goes_on_after_a_mistake(
    manual: Node, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    keyspace = manual._server.keyspace

    def fail() -> None:
        raise LookupError("of the expiry")

    with monkeypatch.context() as patch:
        patch.setattr(keyspace, "expire_due", fail)
        clock.advance(1)
    assert "of the expiry" in caplog.text
    manual.execute("SET", "k", "v", "PX", 10)
    clock.advance(1)
    assert not manual._call(lambda: keyspace.holds(0, b"k"))


def test_a_sentinel_goes_on_after_a_mistake(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with SentinelDeployment(1, 1, quorum=1, clock=clock) as deployment:
        server = deployment.sentinel_nodes[0]._server

        def fail(one: object) -> None:
            raise LookupError("of the sentinel")

        with monkeypatch.context() as patch:
            patch.setattr(server, "_see_to", fail)
            clock.advance(10)
        assert "of the sentinel" in caplog.text
        before = server._last_tick
        clock.advance(10)
        assert server._last_tick > before
