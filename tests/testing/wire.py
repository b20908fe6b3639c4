"""Raw talk with a server: a bare socket, the parser of what comes from it, and what of a reply is compared.

Values keep their kinds on the wire, so that `$-1`, `*-1` and `_` differ. Knows no command and no right answer.
"""

from __future__ import annotations

import contextlib
import re
import select
import socket
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import reduce

from tests.control import Address

__all__ = ["CLOSED", "MASKS", "PATIENCE", "SILENCE", "Connection", "Wire", "named", "request"]

PATIENCE = 15.0
"""Seconds after which a reply that was expected counts as silence."""


@dataclass(frozen=True, slots=True)
class Wire:
    """A reply as it came: the sign of its kind, and its bytes, or its parts (of a map: keys and values in turn)."""

    kind: str
    body: bytes | tuple[Wire, ...] | None

    def __str__(self) -> str:
        if self.body is None:
            return f"{self.kind}nil"
        if isinstance(self.body, tuple):
            return f"{self.kind}[{' '.join(map(str, self.body))}]"
        text = self.body.decode("latin-1")
        if self.kind in "+-:,#(!":
            return f"{self.kind}{text}"
        return f'{self.kind}"{text.encode("unicode_escape").decode()}"'


CLOSED = Wire("!", b"closed")
SILENCE = Wire("!", b"nothing")


class _ClosedError(Exception):
    """The server has ended the connection."""


class Connection:
    """A bare socket to a server, and the parser of what comes from it."""

    def __init__(self, opened: socket.socket) -> None:
        self._socket = opened
        self._buffer = b""
        self._over: Wire | None = None

    @classmethod
    def to(cls, address: Address, protocol: int = 2) -> Connection:
        connection = cls(socket.create_connection(address, PATIENCE))
        if protocol == 3:
            connection.ask(b"HELLO", b"3")
        return connection

    @property
    def port(self) -> int:
        """The port of this end."""
        return int(self._socket.getsockname()[1])

    def send(self, data: bytes) -> None:
        with contextlib.suppress(OSError):  # `read` finds that out, behind the replies that have come
            self._socket.sendall(data)

    def ask(self, *words: bytes) -> Wire:
        self.send(request(words))
        return self.read()

    def read(self, patience: float = PATIENCE) -> Wire:
        """The next reply or message; CLOSED where the connection has ended, SILENCE if nothing comes.

        A connection that was silent once is not waited for again.
        """
        if self._over is not None and not self._buffer:
            return self._over
        self._socket.settimeout(patience)
        try:
            return self._value()
        except TimeoutError:
            self._over = SILENCE
        except (_ClosedError, OSError):
            self._over = CLOSED
        return self._over

    def rest(self) -> tuple[Wire, ...]:
        """What has come already, without waiting; a connection that has ended says so at last."""
        heard: list[Wire] = []
        while self._over is None and (self._buffer or select.select([self._socket], [], [], 0)[0]):
            heard.append(self.read())
        return tuple(heard)

    def close(self) -> None:
        self._over = CLOSED
        self._socket.close()

    def _value(self) -> Wire:
        line = self._line()
        kind, rest = line[:1].decode("latin-1"), line[1:]
        if kind in "+-:,#(":
            return Wire(kind, rest)
        if kind == "_":
            return Wire(kind, None)
        size = int(rest)
        if size < 0:
            return Wire(kind, None)
        if kind in "$=":
            return Wire(kind, self._exactly(size + 2)[:-2])
        if kind not in "*%~>":
            raise ValueError(f"not RESP: {line!r}")
        return Wire(kind, tuple(self._value() for _ in range(size * 2 if kind == "%" else size)))

    def _line(self) -> bytes:
        while b"\r\n" not in self._buffer:
            self._receive()
        line, _, self._buffer = self._buffer.partition(b"\r\n")
        return line

    def _exactly(self, size: int) -> bytes:
        while len(self._buffer) < size:
            self._receive()
        data, self._buffer = self._buffer[:size], self._buffer[size:]
        return data

    def _receive(self) -> None:
        data = self._socket.recv(65536)
        if not data:
            raise _ClosedError
        self._buffer += data


def request(words: Iterable[bytes]) -> bytes:
    parts = tuple(words)
    return b"*%d\r\n" % len(parts) + b"".join(b"$%d\r\n%b\r\n" % (len(part), part) for part in parts)


def _each(value: Wire, change: Callable[[Wire], Wire]) -> Wire:
    """The value with `change` applied to it and, from the inside, to all its parts."""
    if isinstance(value.body, tuple):
        value = Wire(value.kind, tuple(_each(part, change) for part in value.body))
    return change(value)


def shape(value: Wire) -> Wire:
    """Kinds and sizes of arrays alone."""
    return _each(value, lambda one: one if isinstance(one.body, tuple) or one.body is None else Wire(one.kind, b"?"))


def ordered(value: Wire) -> Wire:
    """Arrays and sets, of whatever depth, in one order; the pairs of a map, too."""

    def change(one: Wire) -> Wire:
        if not isinstance(one.body, tuple):
            return one
        width = 2 if one.kind == "%" else 1
        parts = [one.body[at : at + width] for at in range(0, len(one.body), width)]
        return Wire(one.kind, tuple(part for pair in sorted(parts, key=str) for part in pair))

    return _each(value, change)


def without_after(value: Wire, keys: Sequence[str]) -> Wire:
    """What follows one of these strings in an array or a map is masked, but for its kind."""

    def change(one: Wire) -> Wire:
        if not isinstance(one.body, tuple):
            return one
        named = [False, *(isinstance(part.body, bytes) and part.body.decode("latin-1") in keys for part in one.body)]
        return Wire(
            one.kind,
            tuple(shape(part) if masked else part for part, masked in zip(one.body, named, strict=False)),
        )

    return _each(value, change)


def without_at(value: Wire, path: Sequence[str]) -> Wire:
    """What is at this place is masked, but for its kind: `1.2` is the third of the second, `*` is any."""
    if not path:
        return shape(value)
    if not isinstance(value.body, tuple):
        return value
    return Wire(
        value.kind,
        tuple(
            without_at(part, path[1:]) if path[0] in ("*", str(index)) else part
            for index, part in enumerate(value.body)
        ),
    )


TELLING = {
    "role",
    "redis_version",
    "redis_mode",
    "connected_slaves",
    "master_link_status",
    "blocked_clients",
    "loading",
}
TELLING |= {
    "cluster_enabled",
    "slave_read_only",
    "slave_priority",
    "master_host",
    "master_failover_state",
    "maxclients",
}
TELLING |= {"db0", "db1", "db2", "slave0", "min_slaves_good_slaves", "second_repl_offset", "maxmemory_policy"}
"""The fields of INFO of which the values are compared, too."""


def info(value: Wire, how: Sequence[str] = ()) -> Wire:
    """The names of the sections and fields of INFO in their order, and the values of TELLING but for their times.

    With `how` "sorted" they are in an order of their own.
    """
    if not isinstance(value.body, bytes):
        return value
    lines, head = [], value.body[:4] if value.kind == "=" else b""
    for line in value.body[len(head) :].decode().splitlines():
        name, colon, _ = line.partition(":")
        told = re.sub(r"(avg_ttl=|offset=|lag=|second_repl_offset:)\d+", r"\1?", line)
        lines.append(told if name in TELLING else name + colon)
    return Wire(value.kind, head + "\n".join(sorted(lines) if how else lines).encode())


CLIENT_FIELDS = ("name", "db", "sub", "psub", "multi", "flags", "events", "cmd", "user", "redir", "resp")


def clients(value: Wire) -> Wire:
    """Lines of CLIENT LIST: the names of all fields in their order, and the values of those that cannot vary."""
    if not isinstance(value.body, bytes):
        return value
    lines = []
    for line in value.body.decode().splitlines():
        pairs = [field.partition("=") for field in line.split(" ")]
        lines.append(" ".join(f"{name}={said}" if name in CLIENT_FIELDS else f"{name}=" for name, _, said in pairs))
    return Wire(value.kind, "\n".join(lines).encode())


def named(value: Wire, names: dict[bytes, bytes]) -> Wire:
    """Ports and captured values by their names, wherever a string, an error or a number is or has them."""

    def change(one: Wire) -> Wire:
        body = one.body
        if not isinstance(body, bytes):
            return one
        for said, name in names.items():
            if body == said and one.kind in "$+:":
                return Wire(one.kind, name)
            if len(said) >= 5:
                body = re.sub(rb"(?<![0-9])" + re.escape(said) + rb"(?![0-9])", name, body)
        return Wire(one.kind, body)

    return _each(value, change)


MASKS: dict[str, Callable[[Wire, Sequence[str]], Wire]] = {
    "shape": lambda value, _: shape(value),
    "kind": lambda value, _: Wire(value.kind, b"?"),
    "sorted": lambda value, _: ordered(value),
    "info": info,
    "clients": lambda value, _: clients(value),
    "after": without_after,
    "at": lambda value, paths: reduce(lambda left, path: without_at(left, path.split(".")), paths, value),
}
