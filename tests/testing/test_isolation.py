"""What a client may not do to the process that hosts the server, and what a mistake in the server may not do to it."""

from __future__ import annotations

import ipaddress
import logging
import os
import pickle
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hatopo.testing import Node, Replication, SentinelDeployment, ServerError
from hatopo.testing.node._node import DataNode
from tests.testing.conftest import Dial
from tests.testing.wire import request

# Scripts

REACHES_OUT = [
    "return python.builtins",
    "return python.eval('1')",
    "return io.open('/etc/hostname')",
    "return os.getenv('HOME')",
    "return os.execute('true')",
    "return require('os')",
    "return package.loaded",
    "return debug.getregistry()",
    "return dofile('/etc/hostname')",
    "return loadfile('/etc/hostname')",
    "return getfenv(redis.call).python.builtins",
    "return string.gmatch.__class__",
    "return redis.call.__globals__",
    "return redis.call.__self__",
    "return redis.__init__.__globals__",
    "return getmetatable('').__index.__class__.__mro__",
    "return cjson.null.__class__",
    "return cjson.null()",
    "return cjson.encode.__globals__",
    "local f = load or loadstring; return f('return python')().builtins",
    "local ok, e = pcall(function() return python.builtins end); error(e)",
    "return rawget(_G, 'python').builtins",
    "return coroutine.wrap(function() return python.builtins end)()",
    "return newproxy(true).__class__",
    "return collectgarbage('count').__class__",
]


@pytest.mark.parametrize("script", REACHES_OUT)
def test_a_script_reaches_nothing_of_python(node: Node, script: str) -> None:
    with pytest.raises(ServerError):
        node.execute("EVAL", script, 0)
    assert node.execute("EVAL", "return redis.call('ECHO', ARGV[1])", 0, "works") == "works"


def test_no_name_that_a_script_sees_belongs_to_python(node: Node) -> None:
    names = node.execute(
        "EVAL", "local found = {} for name in pairs(_G) do table.insert(found, name) end return found", 0
    )
    assert {"redis", "string", "table", "math"} <= set(names)
    assert {"python", "io", "package", "require", "dofile", "loadfile", "debug"}.isdisjoint(names)


def test_no_value_that_a_script_can_walk_to_is_an_object_of_python(node: Node) -> None:
    walk = """
        local seen, found = {}, {}
        local function visit(value, path)
            if type(value) == 'userdata' then table.insert(found, path) end
            if type(value) ~= 'table' or seen[value] then return end
            seen[value] = true
            for key, part in pairs(value) do visit(part, path .. '.' .. tostring(key)) end
            local meta = getmetatable(value)
            if type(meta) == 'table' then visit(meta, path .. '!') end
        end
        visit(_G, '_G')
        return found
    """
    assert node.execute("EVAL", walk, 0) == ["_G.cjson.null"]  # a mere sign: it has no fields, and cannot be called


def test_a_script_does_not_change_what_the_next_one_sees(node: Node) -> None:
    look = " return redis.call('ECHO', string.format('%s%s%s', 'a', x or '', y or ''))"
    for script in ("redis.call = nil", "string.format = nil", "x = 1", "_G.x = 1", "rawset(_G, 'y', 1)"):
        with pytest.raises(ServerError):
            node.execute("EVAL", script + look, 0)
    assert node.execute("EVAL", "return redis.call('ECHO', string.format('%s', 'a'))", 0) == "a"


# What comes over the wire


class Bomb:
    """An object that writes a file when it is unpickled."""

    def __init__(self, target: Path) -> None:
        self._target = target

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, (f"touch {self._target}",)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_restore_unpickles_nothing(node: Node, tmp_path: Path, protocol: int) -> None:
    target = tmp_path / "written"
    for payload in (pickle.dumps(Bomb(target), protocol), pickle.dumps(b"harmless", protocol)):
        with pytest.raises(ServerError, match="DUMP payload version or checksum are wrong"):
            node.execute("RESTORE", "k", 0, payload)
    dumped = node.control()
    with dumped:
        dumped("SET", "k", "v")
        dumped.send("DUMP", "k")
        genuine = dumped.read().encode("utf-8", "surrogateescape")
    for payload in (genuine + pickle.dumps(Bomb(target), protocol), pickle.dumps(Bomb(target), protocol) + genuine):
        with pytest.raises(ServerError):
            node.execute("RESTORE", "other", 0, payload)
    assert not target.exists()
    assert node.execute("RESTORE", "copy", 0, genuine) == "OK"
    assert node.execute("GET", "copy") == "v"


@pytest.mark.parametrize(
    "words",
    [
        ("CONFIG", "SET", "dir", "/tmp"),
        ("SAVE",),
        ("BGSAVE",),
        ("BGREWRITEAOF",),
        ("DEBUG", "RELOAD"),
        ("MODULE", "LOAD", "/tmp/x.so"),
        ("SHUTDOWN", "SAVE"),
    ],
    ids=lambda words: " ".join(words[:2]),
)
def test_no_command_touches_the_file_system(
    node: Node, dial: Dial, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[str, ...]
) -> None:
    monkeypatch.chdir(tmp_path)
    node.execute("SET", "k", "v")
    dial(node).ask(*(word.encode() for word in words))  # whatever it answers
    assert list(tmp_path.iterdir()) == []
    node.start()
    assert node.execute("GET", "k") == "v"


def test_servers_listen_on_the_loopback_interface_only() -> None:
    with SentinelDeployment(1, 1, quorum=1) as deployment:
        servers = [*deployment._servers]
        assert len(servers) == 3
        for server in servers:
            listening = server._port._socket
            assert listening is not None
            host, port = listening.getsockname()
            assert ipaddress.ip_address(host).is_loopback
            assert (host, port) == server.address


def test_servers_are_not_reached_by_other_addresses_of_the_machine(node: Node) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # sends nothing: a datagram socket learns the way out
        except OSError:
            pytest.skip("this machine has no other address")
        outside = probe.getsockname()[0]
    if ipaddress.ip_address(outside).is_loopback:
        pytest.skip("this machine has no other address")
    with pytest.raises(OSError):  # noqa: PT011 - refused, or filtered
        socket.create_connection((outside, node.port), timeout=1)


# Mistakes in the server


@pytest.fixture
def broken_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    """ECHO has a mistake in it."""

    def echo(server: Any, session: Any, args: list[bytes]) -> Any:
        raise LookupError(f"no echo of {args[1]!r}")

    monkeypatch.setitem(DataNode.handlers, "echo", echo)


def test_a_mistake_in_a_handler_is_an_error_reply_and_is_logged(
    node: Node, dial: Dial, broken_echo: None, caplog: pytest.LogCaptureFixture
) -> None:
    connection = dial(node)
    with caplog.at_level(logging.ERROR, "hatopo.testing"):
        connection.send(request([b"INCR", b"n"]) + request([b"ECHO", b"x"]) + request([b"INCR", b"n"]))
        replies = [str(connection.read()) for _ in range(3)]
    assert (replies[0], replies[2]) == (":1", ":2")
    assert replies[1].startswith("-ERR internal error of the embedded server: LookupError(")
    assert "no echo of b'x'" in caplog.text
    assert caplog.records[0].exc_info is not None
    assert str(dial(node).ask(b"PING")) == "+PONG"


def test_a_mistake_under_a_guard_or_within_a_transaction(
    dial: Dial, broken_echo: None, caplog: pytest.LogCaptureFixture
) -> None:
    with Replication(1) as pair, caplog.at_level(logging.CRITICAL, "hatopo.testing"):
        replica = dial(pair.replicas()[0])
        assert str(replica.ask(b"ECHO", b"x")).startswith("-ERR internal error")
        assert str(replica.ask(b"PING")) == "+PONG"
        master = dial(pair.master())
        for words in ([b"MULTI"], [b"INCR", b"n"], [b"ECHO", b"x"], [b"INCR", b"n"]):
            master.ask(*words)
        assert str(master.ask(b"EXEC")).startswith("*[:1 -ERR internal error")
        assert str(master.ask(b"GET", b"n")) == '$"2"'


def test_a_mistake_in_the_tests_own_question(node: Node, broken_echo: None) -> None:
    with pytest.raises(ServerError, match="internal error"):
        node.execute("ECHO", "x")
    assert node.execute("PING") == "PONG"


def test_a_mistake_after_a_command_harms_nobody(
    node: Node, dial: Dial, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    connection, calls = dial(node), []

    def settle(self: Any) -> None:
        calls.append(self)
        self._dirty.clear()
        raise LookupError("after the command")

    with monkeypatch.context() as patch, caplog.at_level(logging.ERROR, "hatopo.testing"):
        patch.setattr(DataNode, "settle", settle)
        assert str(connection.ask(b"SET", b"k", b"v")) == "+OK"
        assert str(connection.ask(b"PING")) == "+PONG"
    assert len(calls) == 1
    assert "after the command" in caplog.text
    assert str(connection.ask(b"GET", b"k")) == '$"v"'
