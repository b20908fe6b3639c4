"""Requests: bytes to commands. Decides what is a command and what is a protocol error, in the words of the real
server's networking, however the bytes were cut into pieces. It knows no socket, and no command.

Complete requests in the form in which all clients write them are parsed by hiredis, and compared with what they must
look like then; all else, by a parser that is slow and exact.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import hiredis

from hatopo.testing._reply import ErrorReply

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hatopo.testing.server._session import Session

MAX_INLINE = 64 * 1024
MAX_BULK = 512 * 1024 * 1024
MAX_COUNT = 2**31 - 1
MAX_COUNT_BEFORE_LOGIN, MAX_BULK_BEFORE_LOGIN = 10, 16384
NUMBER = re.compile(rb"0|-?[1-9][0-9]{0,18}")
HUGE = re.compile(rb"\*[0-9]{7}")
"""What could announce more strings than hiredis should make room for at once."""


class Requests:
    """What one client has sent and is not complete yet."""

    def __init__(self) -> None:
        self._buffer = bytearray()
        self._needed = 0
        """How many bytes the buffer must have before it is worth another look."""
        self._looked_at = 0
        """How many bytes of an inline command are known to have no end."""
        self._missing: int | None = None
        """How many strings of the array that has begun have not come; None: none has begun."""
        self._words: list[bytes] = []
        """Those that have."""
        self._reader = hiredis.Reader()

    def feed(self, data: bytes, session: Session) -> Iterator[list[bytes]]:
        """Yield the commands that are complete now; ErrorReply where what was sent is no request.

        Args:
            data: what has arrived.
            session: who has sent it: before the login, requests must be small.
        """
        buffer = self._buffer
        if buffer or self._missing is not None:
            buffer += data
            if len(buffer) < self._needed or (args := self._exact(session.user is None)) is None:
                return
            if args:
                yield args
            data = bytes(buffer)
            buffer.clear()
        at = 0
        if session.user is not None and data[:1] == b"*" and HUGE.search(data) is None:
            found, at = self._well_formed(data)
            yield from found
        if at == len(data):
            return
        buffer += data[at:]
        while buffer and (args := self._exact(session.user is None)) is not None:
            if args:
                yield args

    def _well_formed(self, data: bytes) -> tuple[list[list[bytes]], int]:
        """The requests at the beginning of the data that are as any client writes them, and where they end."""
        found, at, reader = [], 0, self._reader
        reader.feed(data)
        try:
            while args := reader.gets():
                written = hiredis.pack_command((*args,))
                if not data.startswith(written, at):
                    break
                at += len(written)
                found.append(args)
        except (hiredis.HiredisError, TypeError):
            pass  # it is for the exact parser to say what is wrong
        if at != len(data):
            self._reader = hiredis.Reader()
        return found, at

    def _exact(self, stranger: bool) -> list[bytes] | None:
        """Take the next request from the buffer, or as much of it as is there; None: not all of it is."""
        self._needed = 0
        if self._missing is not None or self._buffer.startswith(b"*"):
            return self._array(stranger)
        return self._inline()

    def _inline(self) -> list[bytes] | None:
        end = self._buffer.find(b"\n", self._looked_at)
        if end < 0:
            self._looked_at = len(self._buffer)
            if len(self._buffer) > MAX_INLINE:
                raise _wrong("too big inline request")
            return None
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        self._looked_at = 0
        return split_words(line)

    def _line(self, start: int, error: str) -> tuple[bytes, int] | None:
        """The line that begins here, and where the next one does."""
        end = self._buffer.find(b"\r", start)
        if end < 0 and len(self._buffer) - start > MAX_INLINE:
            raise _wrong(error)
        return (bytes(self._buffer[start:end]), end + 2) if 0 <= end < len(self._buffer) - 1 else None

    def _array(self, stranger: bool) -> list[bytes] | None:
        """Go on with an array where the bytes ended last time: what has been read is not looked at again."""
        buffer, at = self._buffer, 0
        if self._missing is None:
            head = self._line(0, "too big mbulk count string")
            if head is None:
                return None
            self._missing, at = _count(head[0], stranger), head[1]
        while self._missing > 0 and (line := self._line(at, "too big bulk count string")) is not None:
            start = line[1]
            end = start + _size(line[0], stranger)
            if end + 2 > len(buffer):
                self._needed = end + 2 - at
                break
            self._words.append(bytes(buffer[start:end]))
            self._missing, at = self._missing - 1, end + 2
        del buffer[:at]
        if self._missing > 0:
            return None
        words, self._words, self._missing = self._words, [], None
        return words


def _count(line: bytes, stranger: bool) -> int:
    """How many strings the array has that this line announces."""
    count = _number(line[1:])
    if count is None or count > MAX_COUNT:
        raise _wrong("invalid multibulk length")
    if stranger and count > MAX_COUNT_BEFORE_LOGIN:
        raise _wrong("unauthenticated multibulk length")
    return count


def _size(line: bytes, stranger: bool) -> int:
    """How long the string is that this line announces."""
    if line[:1] != b"$":
        raise _wrong(f"expected '$', got '{line[:1].decode('latin-1')}'")
    size = _number(line[1:])
    if size is None or not 0 <= size <= MAX_BULK:
        raise _wrong("invalid bulk length")
    if stranger and size > MAX_BULK_BEFORE_LOGIN:
        raise _wrong("unauthenticated bulk length")
    return size


def _wrong(what: str) -> ErrorReply:
    return ErrorReply(f"ERR Protocol error: {what}")


def _number(digits: bytes) -> int | None:
    return int(digits) if NUMBER.fullmatch(digits) and -(2**63) <= int(digits) < 2**63 else None


SPACE = rb"[ \t\n\r\v\f]"
WORD = re.compile(
    rb"""
    ([^ \t\n\r\0"']*)                                           # what precedes quotes
    (?: "((?:\\.|[^"\\])*)"  |  '((?:\\'|[^'\\]|\\(?!'))*)' )?  # what is in quotes, which end the word
    (?=[ \t\n\r\v\f\0]|\Z)
    """,
    re.VERBOSE | re.DOTALL,
)
ESCAPED = re.compile(rb"\\(x[0-9a-fA-F]{2}|.)", re.DOTALL)
SIGNS = {b"n": b"\n", b"r": b"\r", b"t": b"\t", b"b": b"\b", b"a": b"\a"}


def split_words(line: bytes) -> list[bytes]:
    """The words of an inline command, which may be quoted."""
    if b'"' not in line and b"'" not in line:
        return line.split()
    words, rest = [], line.lstrip()
    while rest:
        found = WORD.match(rest)
        if found is None:
            raise _wrong("unbalanced quotes in request")
        plain, double, single = found.groups()
        words.append(plain + ESCAPED.sub(_sign, double or b"") + (single or b"").replace(b"\\'", b"'"))
        rest = rest[found.end() :].lstrip()
    return words


def _sign(escaped: re.Match[bytes]) -> bytes:
    said = escaped[1]
    return bytes([int(said[1:], 16)]) if len(said) == 3 else SIGNS.get(said, said)
