"""Commands into bytes, and what a reply may announce. Knows nothing of sockets.

hiredis packs str and bytes. What it refuses or gets wrong goes through redis-py's encoder first: other encodings,
strided memoryviews, bytearray, subclasses of int, and int itself: while Python writes a number out it may run a
signal handler, and hiredis does not survive an exception from that.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Protocol

import hiredis
import redis

from hatopo.errors import ProtocolError

PLAIN = frozenset({str, bytes})
"""Types of arguments that hiredis packs safely."""
MAX_REPLY_BYTES = 512 * 1024 * 1024
_SMALLEST_ELEMENT = 3  # "_\r\n"
_BULK, _AGGREGATE = (b"$", b"=", b"!"), (b"*", b"%", b"~", b">")


class EncoderLike(Protocol):
    """What is used of redis-py's Encoder."""

    encoding: str
    encoding_errors: str

    def encode(self, value: object) -> bytes | bytearray | memoryview:
        """The bytes of one argument."""


Pack = Callable[[tuple[object, ...]], bytes]
pack_command: Pack = hiredis.pack_command  # type: ignore[assignment]  # it raises TypeError for the rest


def make_pack(encoder: EncoderLike) -> Pack:
    """The function that packs a command for a connection with this encoder.

    It raises `redis.DataError` for a type that Redis has no form for (bool, None, a list ...).
    """
    encode = encoder.encode

    def pack(args: tuple[object, ...]) -> bytes:
        if PLAIN.issuperset(map(type, args)) and type(args[0]) is str and " " not in args[0]:
            return pack_command(args)
        return pack_encoded(args, encode)

    if encoder.encoding.lower() in ("utf-8", "utf8") and encoder.encoding_errors == "strict":
        return pack
    return lambda args: pack_command((*split_name(args[0]), *[_argument(value, encode) for value in args[1:]]))


def pack_encoded(args: tuple[object, ...], encode: Callable[[object], bytes | bytearray | memoryview]) -> bytes:
    """Packs with redis-py's encoder. The words of a joined name ("CONFIG GET") become arguments."""
    words = split_name(args[0])
    return pack_command((*words, *[value if type(value) in PLAIN else _argument(value, encode) for value in args[1:]]))


def split_name(name: object) -> list[bytes]:
    """The words of a command name, as bytes."""
    if isinstance(name, str):
        return name.encode().split()
    if isinstance(name, (bytes, bytearray, memoryview)):
        return bytes(name).split()
    raise redis.DataError(f"a command name is str or bytes, not {type(name).__name__}")


def _argument(value: object, encode: Callable[[object], bytes | bytearray | memoryview]) -> bytes:
    if isinstance(value, int) and type(value) is not int and not isinstance(value, bool):
        value = int(value)  # an IntEnum is its number, whatever its repr says
    return bytes(value if isinstance(value, bytearray) else encode(value))


def chunks(commands: Iterable[tuple[object, ...]], pack: Pack, size: int) -> Iterable[tuple[int, bytes]]:
    """Packs many commands into pieces of about `size` bytes: (how many commands are in it, the bytes)."""
    pieces: list[bytes] = []
    length = 0
    for args in commands:
        packed = pack(args)
        pieces.append(packed)
        length += len(packed)
        if length >= size:
            yield len(pieces), b"".join(pieces)
            pieces, length = [], 0
    if pieces:
        yield len(pieces), b"".join(pieces)


def check_announced(data: bytes, limit: int) -> None:
    """Refuses a reply whose first header announces more than `limit` bytes.

    Raises:
        ProtocolError: it does.
    """
    kind, end = data[:1], data.find(b"\r\n")
    if end < 0 or kind not in _BULK + _AGGREGATE:
        return
    try:
        announced = int(data[1:end])
    except ValueError:
        return  # hiredis says what is wrong with it
    if announced * (1 if kind in _BULK else _SMALLEST_ELEMENT) > limit:
        unit = "bytes" if kind in _BULK else "elements"
        raise ProtocolError(f"the reply announces {announced} {unit}; max_reply_bytes is {limit}")
