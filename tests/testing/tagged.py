"""What the tests of the command table compare with: a bare connection, and replies in which every type is told apart.

Our replies go through their bytes. Members of sets and pairs of maps have no order in Redis, so they are sorted.
"""

from __future__ import annotations

import io
import socket
from collections.abc import Sequence
from typing import Any, BinaryIO

import pytest

from hatopo.testing._reply import ErrorReply, Reply, encode
from hatopo.testing.commands import TABLE, Command, Table, command_reply
from tests.servers import Process

Request = Sequence[bytes]
ALL = [one for command in TABLE.values() for one in (command, *command.subcommands.values())]


class Wire:
    """A bare connection that sends many requests at once."""

    def __init__(self, process: Process, protocol: int = 2) -> None:
        self._socket = socket.create_connection(process.address, 10)
        self._replies = self._socket.makefile("rb")
        if protocol == 3:
            self.ask([[b"HELLO", b"3"]])

    def ask(self, requests: Sequence[Request]) -> list[Any]:
        replies = []
        for start in range(0, len(requests), 200):
            part = requests[start : start + 200]
            self._socket.sendall(b"".join(encode(list(request)) for request in part))
            replies += [parse(self._replies) for _ in part]
        return replies

    def __enter__(self) -> Wire:
        return self

    def __exit__(self, *_: object) -> None:
        self._replies.close()
        self._socket.close()


def parse(stream: BinaryIO) -> Any:
    """One reply: (sign, value); null has the value b"-1" or b""."""
    line = stream.readline()
    assert line.endswith(b"\r\n")
    sign, rest = chr(line[0]), line[1:-2]
    if sign not in "$*~%>" or rest == b"-1":
        return sign, rest
    if sign == "$":
        return sign, stream.read(int(rest) + 2)[:-2]
    members = [parse(stream) for _ in range(int(rest) * (2 if sign == "%" else 1))]
    if sign == "%":
        return sign, sorted(zip(members[::2], members[1::2], strict=True))
    return sign, sorted(members) if sign == "~" else members


def ours(reply: Reply, protocol: int = 2) -> Any:
    """Our reply as it would be read."""
    stream = io.BytesIO(encode(reply, protocol))
    parsed = parse(stream)
    assert not stream.read()
    return parsed


def answer(request: Request, table: Table = TABLE) -> Reply:
    """What COMMAND answers, be it an error."""
    try:
        return command_reply(request, table)
    except ErrorReply as error:
        return error


def words_of(command: Command) -> list[bytes]:
    return command.name.encode().split(b"|")


def needs_7_0_15(installed: tuple[int, ...]) -> None:
    """Skip a test that compares words which other versions have otherwise."""
    if installed != (7, 0, 15):
        pytest.skip("compares with 7.0.15")
