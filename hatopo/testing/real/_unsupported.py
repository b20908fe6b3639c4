"""What an embedded server can suffer and a process cannot: the faults that raise `Unsupported`."""

from __future__ import annotations

from typing import TYPE_CHECKING, NoReturn

from hatopo.testing._control import Unsupported

if TYPE_CHECKING:
    from hatopo.testing._control import Address


def unsupported(what: str) -> NoReturn:
    """Say what an embedded server is needed for."""
    raise Unsupported(f"a real process cannot {what}: that takes an embedded server")


class NoFaults:
    """The faults of every embedded server."""

    def refuse(self, refusing: bool = True) -> None:
        """Unsupported: refuse new connections."""
        unsupported("refuse connections while it runs")

    def fail(self, command: str, error: str, times: int | None = 1, after: int = 0) -> None:
        """Unsupported: answer a command with an error."""
        unsupported("answer a command with an error of the test's choice")

    def delay(self, command: str, seconds: float, times: int | None = 1, after: int = 0) -> None:
        """Unsupported: run a command later."""
        unsupported("delay a command")

    def cut_reply(self, command: str, after_bytes: int, times: int | None = 1, after: int = 0) -> None:
        """Unsupported: send a part of a reply."""
        unsupported("cut a reply")

    def drop_before(self, command: str, times: int | None = 1, after: int = 0) -> None:
        """Unsupported: close the connection instead of running a command."""
        unsupported("close a connection instead of running a command")

    def drop_after_execute(self, command: str, times: int | None = 1, after: int = 0) -> None:
        """Unsupported: close the connection instead of answering."""
        unsupported("close a connection instead of answering")

    def clear_faults(self) -> None:
        """Unsupported: there are no faults to end."""
        unsupported("have faults on commands")


class NoNodeFaults(NoFaults):
    """The faults of embedded data nodes."""

    def set_lag(self, seconds: float = 0.0, ops: int = 0) -> None:
        """Unsupported: apply writes later."""
        unsupported("lag behind by a given amount")

    def set_loading(self, loading: bool = True) -> None:
        """Unsupported: answer LOADING."""
        unsupported("answer LOADING at will")


class NoSentinelFaults(NoFaults):
    """The faults of embedded sentinels."""

    def swallow(self, event: str, times: int | None = None) -> None:
        """Unsupported: publish less than happens."""
        unsupported("swallow an event")

    def lie(self, master: Address, epoch: int | None = None) -> None:
        """Unsupported: name a master that it does not believe in."""
        unsupported("lie about the master")

    def honest(self) -> None:
        """Unsupported: it always is."""
        unsupported("stop lying, for it never began")
