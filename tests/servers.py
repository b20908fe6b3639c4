"""Real Redis processes for tests, on free ports of the loopback interface; tests/sentinels.py makes sets of them.

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
from pathlib import Path
from typing import Any

from tests.control import HOST, Address, Certificates, Control, ServerError, eventually

__all__ = ["Address", "Certificates", "Control", "Process", "Server", "ServerError", "eventually"]

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


class Process:
    """A server process that keeps its port and its directory through kill and restart, until `close()`."""

    def __init__(self, tls: Certificates | None = None, credentials: tuple[str, ...] = ()) -> None:
        self.directory = Path(tempfile.mkdtemp(prefix="hatopo-test-"))
        self.port = 0
        self.tls = tls
        self._credentials = credentials
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
            if self._credentials:
                control("AUTH", *self._credentials)
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


ADMIN = ("admin", "admin-secret")
"""The login of the tests' own connections where the default user is off."""
DEFAULT_OFF = ("user default off", f"user {ADMIN[0]} on >{ADMIN[1]} ~* &* +@all")


class Server(Process):
    """One redis-server; options as on its command line ("--maxmemory", "1mb") or as keywords.

    With `users`, lines of an ACL file, the default user is off.
    """

    def __init__(
        self,
        *options: str,
        tls: Certificates | None = None,
        users: tuple[str, ...] = (),
        **settings: str | int,
    ) -> None:
        password = settings.get("requirepass")
        super().__init__(tls, ADMIN if users else () if password is None else (str(password),))
        self.announced_port = 0  # where others reach it, if not at its own port
        if users:
            (self.directory / "users.acl").write_text("".join(f"{line}\n" for line in (*DEFAULT_OFF, *users)))
            options = (*options, "--aclfile", str(self.directory / "users.acl"))
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

    def announce(self, port: int) -> None:
        """Be known by another port, that of a proxy, to the node of which this one becomes a replica."""
        self.announced_port = port
        self._options += ["--replica-announce-port", str(port)]
        if self.alive:
            self.call("CONFIG", "SET", "replica-announce-port", port)

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
