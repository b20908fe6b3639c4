"""`python -m hatopo.testing`: says how to connect, serves, and ends when it is asked to."""

from __future__ import annotations

import contextlib
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from tests.control import Control, ServerError

COMMAND = [sys.executable, "-m", "hatopo.testing"]


@contextlib.contextmanager
def served(*options: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """The process, and what it says."""
    with subprocess.Popen([*COMMAND, *options], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            said = []
            for line in process.stdout:
                said.append(line)
                if line.startswith("Ctrl-C"):
                    break
            yield process, "".join(said)
        finally:
            if process.poll() is None:
                process.kill()


def addresses(said: str, role: str) -> list[tuple[str, int]]:
    return [(host, int(port)) for host, port in re.findall(rf"^{role} +([0-9.]+):(\d+)$", said, re.MULTILINE)]


def ends(process: subprocess.Popen[str], sign: signal.Signals) -> None:
    process.send_signal(sign)
    output, errors = process.communicate(timeout=20)
    assert (process.returncode, output.strip(), errors) == (0, "", "")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM], ids=lambda sign: sign.name)
def test_a_node(sign: signal.Signals) -> None:
    with served("node") as (process, said):
        (address,) = addresses(said, "node")
        assert f"redis-cli -p {address[1]}\n" in said
        assert f"hatopo.standalone('127.0.0.1', {address[1]})" in said
        with Control(address) as control:
            assert control("SET", "k", "v") == "OK"
            ends(process, sign)
            with pytest.raises(OSError):  # noqa: PT011 - closed or reset
                control("GET", "k")


@pytest.mark.parametrize("sign", [signal.SIGINT, signal.SIGTERM], ids=lambda sign: sign.name)
def test_a_deployment_with_sentinels(sign: signal.Signals) -> None:
    options = ("--replicas", "1", "--sentinels", "3", "--name", "orders", "--speed", "20", "--seed", "1")
    with served("sentinel", *options) as (process, said):
        (master,), replicas, sentinels = (addresses(said, role) for role in ("master", "replica", "sentinel"))
        assert (len(replicas), len(sentinels)) == (1, 3)
        assert f"hatopo.sentinel('orders', {[f'{host}:{port}' for host, port in sentinels]!r})" in said
        for address in sentinels:
            with Control(address) as control:
                assert control("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "orders") == [master[0], str(master[1])]
        with Control(replicas[0]) as control:
            assert control("ROLE")[0] == "slave"
        ends(process, sign)


def test_replication_with_a_password() -> None:
    with served("replication", "--replicas", "2", "--password", "secret") as (process, said):
        (master,), replicas = addresses(said, "master"), addresses(said, "replica")
        assert len(replicas) == 2
        assert f"redis-cli -p {master[1]} -a secret\n" in said
        assert f"hatopo.standalone('127.0.0.1', {master[1]}, password='secret')" in said
        with Control(master) as control:
            with pytest.raises(ServerError, match="NOAUTH"):
                control("PING")
            control("AUTH", "secret")
            assert len(control("ROLE")[2]) == 2
        ends(process, signal.SIGINT)


def test_ports_follow_each_other() -> None:
    for _ in range(20):  # the next port may be somebody else's
        with socket.create_server(("127.0.0.1", 0)) as found:
            port = found.getsockname()[1]
        with served("replication", "--replicas", "1", "--port", str(port)) as (process, said):
            if not said:
                continue
            listening = addresses(said, "master") + addresses(said, "replica")
            assert listening == [("127.0.0.1", port), ("127.0.0.1", port + 1)]
            ends(process, signal.SIGTERM)
            return
    pytest.fail("there were no two free ports in a row")


def run(*options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *options], capture_output=True, text=True, check=False, timeout=30)


@pytest.mark.parametrize("kind", ["node", "replication", "sentinel"])
def test_a_port_that_is_taken(kind: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        ended = run(kind, "--port", str(port))
    assert ended.returncode == 1
    assert ended.stdout == ""
    message = f"python -m hatopo.testing: [Errno 98] port {port} of 127.0.0.1 cannot be had: Address already in use\n"
    assert re.sub(r"Errno \d+", "Errno 98", ended.stderr) == message


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("replication --replicas -1", "replicas must be at least 0, not -1"),
        ("node --speed 0", "speed must be a positive number"),
        ("node --port 70000", "there is no port 70000"),
        ("replication --port 65535", "there is no port 65536"),
        ("sentinel --quorum 0", "quorum must be at least 1, not 0"),
        ("sentinel --sentinels 0", "sentinels must be at least 1, not 0"),
        ("sentinel --sentinels -1", "sentinels must be at least 1, not -1"),
        ("sentinel --down-after 0", "down_after must be at least 0.001, not 0"),
        ("sentinel --name=", "name must be one word, not ''"),
    ],
)
def test_what_makes_no_sense(options: str, message: str) -> None:
    ended = run(*options.split())
    assert ended.returncode == 2
    assert ended.stdout == ""
    assert re.fullmatch(rf"python -m hatopo\.testing: {re.escape(message)}.*\n", ended.stderr)


@pytest.mark.parametrize("options", [(), ("cluster",), ("node", "--replicas", "1")], ids=" ".join)
def test_what_there_is_not(options: tuple[str, ...]) -> None:
    ended = run(*options)
    assert ended.returncode == 2
    assert ended.stderr.startswith("usage: python -m hatopo.testing")


def test_help() -> None:
    for kind in ("node", "replication", "sentinel"):
        assert f"python -m hatopo.testing {kind}" in run(kind, "--help").stdout
