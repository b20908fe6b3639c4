"""A data node: decides how a redis-server is configured, and what of that, of its role and its data a restart keeps.

It has all that it acknowledged after a kill: what a process has written to its append-only file outlives it without
any fsync, as long as the machine does. Its role is that which it had when it was killed.
"""

from __future__ import annotations

import contextlib
import shutil
from typing import TYPE_CHECKING

from hatopo.testing import _checks
from hatopo.testing._access import ADMIN, DEFAULT_OFF, TlsFiles
from hatopo.testing._control import HOST, ServerError, Unsupported, wait_until
from hatopo.testing._member import DataMember
from hatopo.testing.real._process import BINARY, Process, server_version, words
from hatopo.testing.real._unsupported import NoNodeFaults
from hatopo.testing.world._clock import Clock, RealClock, ScaledClock

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hatopo.testing._control import Address


def real_time(clock: Clock | None, seed: int | None) -> RealClock:
    """The clock of real processes; what only embedded servers can promise is refused."""
    if not (clock is None or isinstance(clock, Clock)):
        raise TypeError(f"clock must be a clock, as RealClock(), not {clock!r}")
    if not (clock is None or isinstance(clock, RealClock)) or isinstance(clock, ScaledClock):
        raise Unsupported(f"real processes live by the wall's clock, not by {clock!r}")
    if seed is not None:
        raise Unsupported("real processes do not do the same again for a seed")
    return clock or RealClock()


class RealNode(Process, DataMember, NoNodeFaults):
    """One redis-server on a port of the loopback interface.

    Args:
        password: what clients must AUTH with.
        users: lines of an ACL file ("user app on >secret ~* +@all"); the default user is off then.
        config: parameters as of a configuration file; by default a node keeps its data in an append-only file.
        tls: the files of a certificate; the port then speaks TLS only.
        port: where to listen; 0: where there is room.
        clock: the wall's clock, no other.
        seed: none, for real processes do nothing twice.
    """

    def __init__(
        self,
        *,
        password: str | None = None,
        users: Sequence[str] = (),
        config: Mapping[str, str | int] | None = None,
        tls: TlsFiles | None = None,
        port: int = 0,
        clock: Clock | None = None,
        seed: int | None = None,
    ) -> None:
        _checks.access(password, users, tls, TlsFiles)
        self.clock = real_time(clock, seed)
        settings = {"save": "", "appendonly": "yes", "appendfsync": "no", "repl-diskless-sync-delay": "0"}
        settings |= _checks.config(config)
        if password is not None:
            settings |= {"requirepass": password, "masterauth": password}
        password = settings.get("requirepass")
        login = ADMIN if users else () if password is None else (password,)
        super().__init__("node-1", port, tls, login)
        if users:
            path = self.directory / "users.acl"
            path.write_text("".join(f"{line}\n" for line in (*DEFAULT_OFF, *users)))
            settings["aclfile"] = str(path)
        self._settings = settings
        self._follows: Address | None = None

    def _command(self) -> list[str]:
        basics = {"bind": HOST, "dir": str(self.directory)}
        if self.tls is None:
            basics["port"] = str(self.port)
        else:
            basics |= {"port": "0", "tls-port": str(self.port), **self.tls.settings()}
        if server_version() >= (7,):
            basics |= {"enable-debug-command": "yes", "enable-module-command": "yes"}
        if self._follows is not None:
            basics["replicaof"] = f"{self._follows[0]} {self._follows[1]}"
        return [BINARY, *words(basics | self._settings)]

    def configure(self, **settings: str | int) -> None:
        """CONFIG SET, if it runs; a restart keeps it."""
        for name, value in settings.items():
            parameter = name.replace("_", "-")
            if self.running:
                self.execute("CONFIG", "SET", parameter, value)
            self._settings[parameter] = str(value)
            if parameter == "requirepass" and self._login[:1] != ADMIN[:1]:
                self._login = (str(value),) if value else ()

    def announce(self, host: str, port: int) -> None:
        """Be known to the others by this address, which may be a wrong one; a restart keeps it."""
        _checks.address((host, port))
        self.announced = (host, port)
        self.configure(replica_announce_ip=host, replica_announce_port=port)
        if self.running:
            self.disconnect("master")  # a replica says its address when it connects

    def replicate(self, master: Address | None) -> None:
        super().replicate(master)
        if self.running:
            self._follows = master

    def begin_as_replica(self, master: Address) -> None:
        """Follow this master from its first start on."""
        self._follows = master

    def kill(self) -> None:
        """SIGKILL: no farewell to anybody."""
        with self._lock:
            self._prepare_end()
            super().kill()

    def stop(self) -> None:
        """SIGTERM: an orderly shutdown that tells replicas and closes connections."""
        with self._lock:
            self._prepare_end()
            super().stop()

    def restart(self, empty: bool = False) -> None:
        """Kill it, if it runs, and start it again at the same port.

        Args:
            empty: without its data, as a node that does not persist; otherwise it has all that it acknowledged.
        """
        with self._lock:
            self.kill()
            if empty:
                for found in self.directory.glob("*.rdb"):
                    found.unlink()
                for found in self.directory.glob("appendonly*"):
                    shutil.rmtree(found) if found.is_dir() else found.unlink()
            self.start()

    def _prepare_end(self) -> None:
        """See to it that a restart finds what the node acknowledged, and its role.

        What is acknowledged while the first append-only file after a full synchronization is written (a tenth of a
        second) is in no file until that is done. A role may have been changed by anybody; no file says it.
        """
        if self.awake:
            with contextlib.suppress(OSError, ServerError), self.control(timeout=5) as control:
                wait_until(lambda: not _writes_file(control("INFO", "persistence")), 2, "the append-only file")
                role = control("ROLE")
                self._follows = (str(role[1]), int(role[2])) if role[0] == "slave" else None


def _writes_file(info: str) -> bool:
    return "aof_rewrite_in_progress:1" in info or "aof_rewrite_scheduled:1" in info
