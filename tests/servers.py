"""Real Redis processes for tests: one server, or a Sentinel set, on free ports of the loopback interface.

A process is signalled through its own `Popen` handle only, and its files live in a temporary directory that
`close()` removes. Servers are asked and steered over the bare connections of tests/control.py, not through a
Redis client.
"""

from __future__ import annotations

import contextlib
import functools
import os
import random
import re
import shutil
import signal
import socket
import subprocess
import tempfile
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tests.control import HOST, Address, Certificates, Control, ServerError, eventually

if TYPE_CHECKING:
    from collections.abc import Iterator

__all__ = ["Address", "Certificates", "Control", "SentinelSet", "Server", "ServerError", "eventually"]

BINARY = os.environ.get("HATOPO_REDIS_SERVER", "redis-server")
_handed_out: set[int] = set()


def available() -> bool:
    """Whether a server can be started on this machine at all."""
    return shutil.which(BINARY) is not None


@functools.cache
def server_version() -> tuple[int, ...]:
    """The version of the installed server, as (7, 0, 15)."""
    said = subprocess.run([BINARY, "--version"], capture_output=True, text=True, check=True).stdout
    found = re.search(r"\bv=(\d+)\.(\d+)\.(\d+)", said)
    if found is None:
        raise RuntimeError(f"{BINARY} --version said {said!r}")
    return tuple(int(part) for part in found.groups())


@functools.cache
def tls_supported() -> bool:
    """Whether the installed server was built with TLS: a build without it does not know the directive."""
    # With no port to listen on, either build ends at once.
    ended = subprocess.run(
        [BINARY, "--port", "0", "--tls-port", "0"], capture_output=True, text=True, check=False, timeout=10
    )
    return "bad directive" not in (ended.stdout + ended.stderr).lower()


@functools.cache
def _end_with_parent() -> list[str]:
    """What precedes a command so that a test run that is killed leaves no server behind, where Linux offers it.

    The kernel counts the thread that starts a process as its parent: servers are started by threads that stay.
    """
    found = shutil.which("setpriv")
    if found is None:
        return []
    helped = subprocess.run([found, "--help"], capture_output=True, text=True, check=False).stdout
    return [found, "--pdeathsig", "KILL", "--"] if "--pdeathsig" in helped else []


def free_port() -> int:
    """A port that nobody listens on now, below the range from which the kernel takes source ports.

    From within that range an outgoing connection could take the port of a killed server, and a client that
    dials it could even meet itself.
    """
    for port in random.sample(range(11_000, _first_ephemeral_port()), 200):
        if port in _handed_out:
            continue
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind((HOST, port))
            _handed_out.add(port)
            return port
    raise RuntimeError("found no free port")


def _first_ephemeral_port() -> int:
    limits = Path("/proc/sys/net/ipv4/ip_local_port_range")
    first = int(limits.read_text().split()[0]) if limits.exists() else 32_768
    return first if first > 12_000 else 65_536


class _Process:
    """A server process that keeps its port and its directory through kill and restart, until `close()`."""

    def __init__(self, tls: Certificates | None = None, password: str | None = None) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hatopo-test-"))
        self.port = 0
        self.tls = tls
        self._password = password
        self._popen: subprocess.Popen[bytes] | None = None
        self.frozen = False

    def _command(self) -> list[str]:
        raise NotImplementedError

    @property
    def address(self) -> Address:
        return (HOST, self.port)

    @property
    def alive(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def log(self) -> str:
        return (self.directory / "log").read_text(errors="replace")

    def call(self, *words: str | int | bytes, timeout: float = 2.0) -> Any:
        """Send one command over a control connection of its own; an error reply is raised as ServerError."""
        with self.control(timeout) as control:
            return control(*words)

    def control(self, timeout: float = 2.0) -> Control:
        """A control connection to keep, for SUBSCRIBE or a transaction."""
        control = Control(self.address, tls=self.tls, timeout=timeout)
        try:
            if self._password is not None:
                control("AUTH", self._password)
        except BaseException:
            control.close()
            raise
        return control

    def start(self) -> None:
        """Start the process and wait until it serves; a port lost to somebody else is replaced by another."""
        chosen = self.port
        for _ in range(5):
            self.port = chosen or free_port()
            with (self.directory / "log").open("ab") as log:
                command = [*_end_with_parent(), *self._command()]
                self._popen = subprocess.Popen(command, stdout=log, stderr=log, cwd=self.directory)
            if eventually(self._fate, what=f"start of {self._command()}") == "serves":
                return
        raise RuntimeError(f"{self._command()} did not start:\n{self.log[-2000:]}")

    def _fate(self) -> str:
        """What became of the process just started; empty while that is open."""
        if not self.alive:
            return "ended"
        about = self.call("INFO")
        # A stranger may answer at this port while ours fails to bind it.
        assert self._popen is not None
        serves = f"process_id:{self._popen.pid}\r" in about and "\nloading:1" not in about
        return "serves" if serves else ""

    def _signal(self, number: signal.Signals) -> None:
        assert self._popen is not None
        self._popen.send_signal(number)

    def kill(self) -> None:
        """SIGKILL: no farewell to anybody."""
        if self._popen is not None:
            self._popen.kill()
            self._popen.wait()
        self.frozen = False

    def stop(self) -> None:
        """SIGTERM: an orderly shutdown that tells replicas and closes connections."""
        if self.alive:
            assert self._popen is not None
            self.thaw()
            self._signal(signal.SIGTERM)
            self._popen.wait(timeout=10)

    def freeze(self) -> None:
        """SIGSTOP: connections stay open and nothing is answered."""
        self._signal(signal.SIGSTOP)
        assert self._popen is not None
        os.waitid(os.P_PID, self._popen.pid, os.WSTOPPED | os.WNOWAIT)
        self.frozen = True

    def thaw(self) -> None:
        self._signal(signal.SIGCONT)
        self.frozen = False

    def restart(self) -> None:
        """Kill, and start again on the same port."""
        self.kill()
        self.start()

    def close(self) -> None:
        self.kill()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __exit__(self, *_: object) -> None:
        self.close()


class Server(_Process):
    """One redis-server; options as on its command line ("--maxmemory", "1mb") or as keywords."""

    def __init__(self, *options: str, tls: Certificates | None = None, **settings: str | int) -> None:
        password = settings.get("requirepass")
        super().__init__(tls, None if password is None else str(password))
        self._options = [*options]
        for name, value in settings.items():
            self._options += [f"--{name.replace('_', '-')}", str(value)]

    def _command(self) -> list[str]:
        basics = [
            "--bind",
            HOST,
            "--dir",
            str(self.directory),
            "--save",
            "",
            "--repl-diskless-sync-delay",
            "0",
        ]
        ports = ["--port", str(self.port)]
        if self.tls is not None:
            ports = ["--port", "0", "--tls-port", str(self.port), *self.tls.options()]
        allowed = ["--enable-debug-command", "yes", "--enable-module-command", "yes"]
        if server_version() < (7,):
            allowed = []
        return [BINARY, *ports, *basics, *allowed, *self._options]

    def role(self) -> str:
        """What the server says it is: "master" or "slave"."""
        return str(self.call("ROLE")[0])

    def __enter__(self) -> Server:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self


class SentinelProcess(_Process):
    """One sentinel that watches one service, with a configuration file that it rewrites itself."""

    def __init__(self, service: str, master: Address, settings: dict[str, int], quorum: int) -> None:
        super().__init__()
        watched = [f"monitor {service} {master[0]} {master[1]} {quorum}"]
        watched += [f"{name} {service} {value}" for name, value in settings.items()]
        self._watched = "\n".join(f"sentinel {line}" for line in watched)
        self._configured_port = 0

    def _command(self) -> list[str]:
        path = self.directory / "sentinel.conf"
        if self._configured_port != self.port:
            path.write_text(f"port {self.port}\nbind {HOST}\ndir {self.directory}\n{self._watched}\n")
            self._configured_port = self.port
        return [BINARY, str(path), "--sentinel"]


class SentinelSet:
    """One master, its replicas and their sentinels; once entered, it is complete and in agreement."""

    def __init__(
        self,
        replicas: int = 2,
        sentinels: int = 3,
        *,
        name: str = "mymaster",
        quorum: int = 2,
        down_after: int = 1000,
        failover_timeout: int = 6000,
        options: tuple[str, ...] = (),
    ) -> None:
        self.name = name
        self.nodes = [Server(*options) for _ in range(1 + replicas)]
        self._wanted_sentinels = sentinels
        self._quorum = quorum
        self._timing = {
            "down-after-milliseconds": down_after,
            "failover-timeout": failover_timeout,
            "parallel-syncs": 2,
        }
        self.processes: list[SentinelProcess] = []

    @property
    def sentinels(self) -> list[Address]:
        """The addresses of all sentinels, in the order in which a client is to be given them."""
        return [sentinel.address for sentinel in self.processes]

    def start(self) -> None:
        first, *others = self.nodes
        first.start()
        for other in others:
            other._options += ["--replicaof", f"{HOST} {first.port}"]
            other.start()
        online = len(others)
        eventually(lambda: first.call("INFO", "replication").count("state=online") == online, 20, "replicas online")
        for _ in range(self._wanted_sentinels):
            self.processes.append(SentinelProcess(self.name, first.address, self._timing, self._quorum))
            self.processes[-1].start()
        with contextlib.suppress(ServerError):  # before 7.0 there is no DEBUG, and agreement takes some seconds
            self.tune(publish_period=100, info_period=100)
        eventually(self._agreed, 30, "sentinels that know each other and the replicas")
        with contextlib.suppress(ServerError):
            self.tune(publish_period=2000, info_period=10_000)

    def _agreed(self) -> bool:
        for sentinel in self.processes:
            seen = _pairs(sentinel.call("SENTINEL", "MASTER", self.name))
            if seen["flags"] != "master" or int(seen["num-other-sentinels"]) != len(self.processes) - 1:
                return False
            replicas = [_pairs(one) for one in sentinel.call("SENTINEL", "REPLICAS", self.name)]
            if [one["master-link-status"] for one in replicas] != ["ok"] * (len(self.nodes) - 1):
                return False
            others = [_pairs(one) for one in sentinel.call("SENTINEL", "SENTINELS", self.name)]
            if any(one["flags"] != "sentinel" or not one["runid"] for one in others):
                return False
        return True

    def tune(self, **periods: int) -> None:
        """SENTINEL DEBUG on every sentinel; publish_period also sets how soon a former master is demoted."""
        for sentinel in self._running():
            for name, milliseconds in periods.items():
                sentinel.call("SENTINEL", "DEBUG", name.replace("_", "-"), milliseconds)

    def _running(self) -> Iterator[SentinelProcess]:
        return (sentinel for sentinel in self.processes if sentinel.alive and not sentinel.frozen)

    def _named_by(self, sentinel: SentinelProcess) -> Server:
        _, port = sentinel.call("SENTINEL", "GET-MASTER-ADDR-BY-NAME", self.name)
        return next(node for node in self.nodes if node.port == int(port))

    def master(self) -> Server:
        """The master that most of the running sentinels name."""
        return Counter(self._named_by(sentinel) for sentinel in self._running()).most_common(1)[0][0]

    def kill_master(self) -> Server:
        """SIGKILL for the master, which is returned."""
        victim = self.master()
        victim.kill()
        return victim

    def failover(self) -> None:
        """Ask a running sentinel for a planned failover; one that is not ready for it is asked again."""
        sentinel = next(self._running())
        eventually(lambda: sentinel.call("SENTINEL", "FAILOVER", self.name), 20, "SENTINEL FAILOVER accepted")

    def wait_switched(self, old: Server, seconds: float = 30) -> Server:
        """The new master, once every running sentinel names it instead of `old` and it says so itself."""

        def switched() -> Server | None:
            named = {self._named_by(sentinel) for sentinel in self._running()}
            new = named.pop()
            return new if not named and new is not old and new.role() == "master" else None

        new = eventually(switched, seconds, "a new master")
        assert new is not None
        return new

    def close(self) -> None:
        for process in [*self.processes, *self.nodes]:
            process.close()

    def __enter__(self) -> SentinelSet:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pairs(flat: list[str]) -> dict[str, str]:
    return dict(zip(flat[::2], flat[1::2], strict=True))
