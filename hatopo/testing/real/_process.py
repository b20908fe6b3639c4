"""A Redis process: decides how it is started, asked, signalled and cleaned up; what it is told is its kind's business.

A process is signalled through its own `Popen` handle only, and its files live in a temporary directory that `close()`
removes. It is asked over bare connections, not through a Redis client.
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
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hatopo.testing import _checks
from hatopo.testing._access import TlsFiles
from hatopo.testing._control import HOST, wait_until
from hatopo.testing._lifetime import Lifetime
from hatopo.testing._member import Member
from hatopo.testing.real._unsupported import NoFaults

if TYPE_CHECKING:
    from collections.abc import Mapping

    from hatopo.testing._control import Address

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
    """What precedes a command so that a test run that is killed leaves no server behind, where Linux offers it."""
    found = shutil.which("setpriv")
    if found is None:
        return []
    helped = subprocess.run([found, "--help"], capture_output=True, text=True, check=False).stdout
    return [found, "--pdeathsig", "KILL", "--"] if "--pdeathsig" in helped else []


class _Starter:
    """A thread that stays: the kernel ends a process with the thread that has started it, not with the program."""

    def __init__(self) -> None:
        self.reset()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.reset)

    def reset(self) -> None:
        """Forget the thread; in a forked child there is none."""
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="redis-starter")

    def start(self, command: list[str], directory: Path) -> subprocess.Popen[bytes]:
        """Start a process whose output goes to the file "log"."""
        return self._threads.submit(self._start, command, directory).result()

    @staticmethod
    def _start(command: list[str], directory: Path) -> subprocess.Popen[bytes]:
        with (directory / "log").open("ab") as log:
            return subprocess.Popen([*_end_with_parent(), *command], stdout=log, stderr=log, cwd=directory)


_starter = _Starter()


def _free_port() -> int:
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


class Process(Member, NoFaults, Lifetime):
    """A server process that keeps its port and its directory through kill and restart, until `close()`."""

    def __init__(self, name: str, port: int = 0, tls: TlsFiles | None = None, login: tuple[str, ...] = ()) -> None:
        super().__init__()
        _checks.port(port)
        self.name = name
        self.directory = Path(tempfile.mkdtemp(prefix="hatopo-test-"))
        self.tls = tls
        self.announced = None
        self._port = port
        self._login = login
        self._popen: subprocess.Popen[bytes] | None = None
        self._paused = False
        self._closed = False

    def _command(self) -> list[str]:
        raise NotImplementedError

    @property
    def address(self) -> Address:
        return (HOST, self._port)

    @property
    def running(self) -> bool:
        return self._popen is not None and self._popen.poll() is None

    @property
    def paused(self) -> bool:
        return self._paused

    @property
    def _speaks_tls(self) -> bool:
        return self.tls is not None

    @property
    def log(self) -> str:
        """What it has written about itself, through all restarts."""
        return (self.directory / "log").read_text(errors="replace")

    # Asking

    def execute(self, *words: str | int | float | bytes, timeout: float = 10.0) -> Any:
        packed = _checks.words(words)
        with self.control(timeout) as control:
            return control(*packed)

    def disconnect(self, kind: str = "normal") -> int:
        """Close connections of clients: "normal", "pubsub", "replica", "master" or "all"; returns how many.

        Raises:
            ConnectionRefusedError: the server does not run.
            TimeoutError: it is paused.
        """
        _checks.kind(kind)
        kinds = _checks.CONNECTIONS if kind == "all" else (kind,)
        return sum(int(self.execute("CLIENT", "KILL", "TYPE", each)) for each in kinds)

    # Its life

    def start(self) -> None:
        """Start it, if it does not run, and return when it serves.

        Raises:
            RuntimeError: it ended instead; what it said of that is told.
        """
        with self._lock:
            if self._closed:
                raise RuntimeError("the deployment of this server has ended")
            if self.running:
                return
            chosen = self._port
            for _ in range(5):
                self._port = chosen or _free_port()
                self._popen = _starter.start(self._command(), self.directory)
                if wait_until(self._fate, what=f"start of {self._command()}") == "serves":
                    return
                # A free port may have been lost to somebody else meanwhile: the next one.
            raise RuntimeError(f"{self._command()} did not start:\n{self.log[-2000:]}")

    def _fate(self) -> str:
        """What became of the process just started; empty while that is open."""
        if not self.running:
            return "ended"
        about = self.execute("INFO")
        # A stranger may answer at this port while ours fails to bind it.
        assert self._popen is not None
        serves = f"process_id:{self._popen.pid}\r" in about and "\nloading:1" not in about
        return "serves" if serves else ""

    def _signal(self, number: signal.Signals) -> subprocess.Popen[bytes]:
        if self._popen is None or not self.running:
            raise RuntimeError(f"{self.name} does not run")
        self._popen.send_signal(number)
        return self._popen

    def kill(self) -> None:
        """SIGKILL: no farewell to anybody."""
        with self._lock:
            if self._popen is not None:
                self._popen.kill()
                self._popen.wait()
            self._paused = False

    def stop(self) -> None:
        """SIGTERM: an orderly shutdown that tells replicas and closes connections."""
        with self._lock:
            self.resume()
            # Not while it begins an append-only file: it is told again. A master waits ten seconds for replicas.
            for _ in range(150):
                if self._popen is None or not self.running:
                    return
                self._popen.send_signal(signal.SIGTERM)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    self._popen.wait(timeout=0.1)
            raise TimeoutError(f"{self.name} does not stop:\n{self.log[-2000:]}")

    def restart(self) -> None:
        """Kill it, if it runs, and start it again at the same port."""
        with self._lock:
            self.kill()
            self.start()

    def pause(self) -> None:
        """SIGSTOP: connections stay open and nothing is answered."""
        with self._lock:
            process = self._signal(signal.SIGSTOP)
            os.waitid(os.P_PID, process.pid, os.WSTOPPED | os.WNOWAIT)
            self._paused = True

    def resume(self) -> None:
        """SIGCONT, the end of `pause`."""
        with self._lock:
            if self._paused:
                self._signal(signal.SIGCONT)
                self._paused = False

    def close(self) -> None:
        """The end of it and of its files."""
        with self._lock:
            self._closed = True
            Process.kill(self)
        for _ in range(100):
            shutil.rmtree(self.directory, ignore_errors=True)
            if not self.directory.exists():
                return
            time.sleep(0.01)  # a child that writes a file outlives the server by a moment


def words(settings: Mapping[str, str | int]) -> list[str]:
    """Parameters as a command line has them: a value may be several words, as that of "replicaof"."""
    found: list[str] = []
    for name, value in settings.items():
        found += [f"--{name}", *(str(value).split(" ") if name in SEVERAL_WORDS else [str(value)])]
    return found


SEVERAL_WORDS = ("replicaof", "client-output-buffer-limit")
"""Servers before 7.0 want the words of such a value apart."""
