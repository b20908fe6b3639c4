"""Members: what a server of a deployment is for a test, whether it lives in this process or is one of its own.

Decides nothing about servers: embedded handles (`_handles`) and processes (`real._process`) say how each thing is done.
"""

from __future__ import annotations

from typing import Any

from hatopo.testing import _checks
from hatopo.testing._control import Address, Control


class Member:
    """Any server: an address, a life, and somebody to ask."""

    name: str
    announced: Address | None
    """Where others are told to reach it, if not where it listens."""
    _login: tuple[str, ...]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name} {self.host}:{self.port}>"

    @property
    def address(self) -> Address:
        """Where it listens; the same after a restart."""
        raise NotImplementedError

    @property
    def host(self) -> str:
        """The host that it listens at."""
        return self.address[0]

    @property
    def port(self) -> int:
        """The port that it listens at."""
        return self.address[1]

    @property
    def running(self) -> bool:
        """Whether it has been started, and neither killed nor stopped since."""
        raise NotImplementedError

    @property
    def paused(self) -> bool:
        """Whether it stands still."""
        raise NotImplementedError

    @property
    def awake(self) -> bool:
        """Whether it runs and does not stand still."""
        return self.running and not self.paused

    @property
    def _speaks_tls(self) -> bool:
        raise NotImplementedError

    def execute(self, *words: str | int | float | bytes, timeout: float = 10.0) -> Any:
        """Run a command there, whatever users and partitions there are.

        Args:
            words: the command and its arguments.
            timeout: seconds after which the server does not answer.

        Returns:
            What RESP2 has: int, str (bytes that are no UTF-8 as surrogates), None, lists of these.

        Raises:
            ServerError: an error reply.
            ConnectionRefusedError: the server does not run.
            TimeoutError: it did not answer in time: it is paused, or the command blocks.
            ValueError: there is no command.
        """
        raise NotImplementedError

    def control(self, timeout: float | None = 10.0) -> Control:
        """A connection to keep, for SUBSCRIBE or a transaction; logged in where that is needed."""
        control = Control(self.address, timeout=timeout, tls=self._speaks_tls)
        try:
            if self._login:
                control("AUTH", *self._login)
        except BaseException:
            control.close()
            raise
        return control

    def kill(self) -> None:
        """End it at once, as by SIGKILL."""
        raise NotImplementedError

    def stop(self) -> None:
        """Shut it down, as by SIGTERM."""
        raise NotImplementedError


class DataMember(Member):
    """A data node."""

    def role(self) -> str:
        """What it says that it is: "master" or "slave"."""
        return str(self.execute("ROLE")[0])

    @property
    def url(self) -> str:
        """What redis-py's `from_url` takes, without a password.

        Raises:
            RuntimeError: it has never been started, so it has no port.
        """
        if not self.port:
            raise RuntimeError(f"{self.name} has no port before it is started")
        return f"redis{'s' if self._speaks_tls else ''}://{self.host}:{self.port}"

    def configure(self, **settings: str | int) -> None:
        """CONFIG SET, if it runs; a restart keeps it."""
        raise NotImplementedError

    def replicate(self, master: Address | None) -> None:
        """Follow this master (REPLICAOF), or none; also through restarts. A node that does not run is left alone."""
        if master is not None:
            _checks.address(master)
        if self.running:
            self.execute("REPLICAOF", *(master or ("NO", "ONE")))
