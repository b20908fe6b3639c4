"""A sentinel: decides how a redis-sentinel is configured, and records what it publishes."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from hatopo.testing import _checks
from hatopo.testing._access import ADMIN, DEFAULT_OFF
from hatopo.testing._control import HOST, Event, ServerError
from hatopo.testing.real._process import BINARY, Process
from hatopo.testing.real._unsupported import NoSentinelFaults

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from hatopo.testing._access import TlsFiles
    from hatopo.testing._control import Control

RECORDER = "testing-recorder"
"""The name of the connection over which events are recorded, as CLIENT LIST has it."""


class RealSentinel(Process, NoSentinelFaults):
    """One redis-sentinel, with a configuration file that it rewrites itself.

    Args:
        name: how a test calls it.
        lines: of its configuration file.
        users: lines of an ACL file; the default user is off then.
        tls: the files of a certificate; it then speaks TLS with everybody.
        port: where to listen; 0: where there is room.
        note: called with every event that it publishes once it has been started, from a thread.
    """

    def __init__(
        self,
        name: str = "sentinel-1",
        *,
        lines: Sequence[str] = (),
        users: Sequence[str] = (),
        tls: TlsFiles | None = None,
        port: int = 0,
        note: Callable[[Event], object] | None = None,
    ) -> None:
        super().__init__(name, port, tls, ADMIN if users else ())
        self._lines = [*lines]
        if users:
            # Its own talk with the other sentinels needs a login, too.
            mutual = [f"sentinel sentinel-user {ADMIN[0]}", f"sentinel sentinel-pass {ADMIN[1]}"]
            self._lines += [*DEFAULT_OFF, *users, *mutual]
        self._configured_port = 0
        self._note = note
        self._recorder: _Recorder | None = None

    def _command(self) -> list[str]:
        path = self.directory / "sentinel.conf"
        if self._configured_port != self.port:
            here = [f"port {self.port}", f"bind {HOST}", f"dir {self.directory}"]
            if self.tls is not None:
                files = [f"{name} {value}" for name, value in self.tls.settings().items()]
                here = ["port 0", f"tls-port {self.port}", *files, *here[1:]]
            path.write_text("".join(f"{line}\n" for line in (*here, *self._lines)))
            self._configured_port = self.port
        return [BINARY, str(path), "--sentinel"]

    def start(self) -> None:
        """Start it, if it does not run, and return when it serves and its events are recorded."""
        with self._lock:
            if self.running:
                return
            self._end_recording()  # of an earlier run that ended by itself
            super().start()
            if self._note is not None:
                self._recorder = _Recorder(self, self._note)

    def kill(self) -> None:
        """SIGKILL: no farewell to anybody."""
        with self._lock:
            super().kill()
            self._end_recording()

    def stop(self) -> None:
        """SIGTERM: an orderly shutdown."""
        with self._lock:
            super().stop()
            self._end_recording()

    def _end_recording(self) -> None:
        recorder, self._recorder = self._recorder, None
        if recorder is not None:
            recorder.close()

    def close(self) -> None:
        """The end of it and of its files."""
        self.kill()
        super().close()

    def announce(self, host: str, port: int) -> None:
        """Be known to the others by this address, which may be a wrong one; a restart keeps it."""
        _checks.address((host, port))
        self.announced = (host, port)
        self.execute("SENTINEL", "CONFIG", "SET", "announce-ip", host)
        self.execute("SENTINEL", "CONFIG", "SET", "announce-port", port)


class _Recorder:
    """A thread that listens to one sentinel until it ends; a connection that is closed is opened again."""

    def __init__(self, sentinel: RealSentinel, note: Callable[[Event], object]) -> None:
        self._sentinel, self._note = sentinel, note
        self._closing = False
        self._control: Control | None = self._subscribed()
        self._thread = threading.Thread(target=self._run, name=f"recorder-{sentinel.name}", daemon=True)
        self._thread.start()

    def _subscribed(self) -> Control:
        control = self._sentinel.control()
        try:
            control("CLIENT", "SETNAME", RECORDER)
            control("PSUBSCRIBE", "*")
            control.wait_for_ever()
        except BaseException:
            control.close()
            raise
        return control

    def _run(self) -> None:
        while not self._closing and self._sentinel.running:
            try:
                with self._control or self._subscribed() as control:
                    self._control = control
                    self._listen(control)
            except (OSError, ValueError, ServerError):
                pass  # the connection was closed, or the sentinel is paused, or ends
            self._control = None
            time.sleep(0.02)

    def _listen(self, control: Control) -> None:
        while not self._closing:
            _, _, channel, payload = control.read()
            self._note(Event(time.time(), self._sentinel.address, channel, payload))

    def close(self) -> None:
        """What was published before the sentinel's end has been noted when this returns."""
        self._thread.join(2)
        self._closing = True
        if (control := self._control) is not None:
            control.close()
        self._thread.join(10)
