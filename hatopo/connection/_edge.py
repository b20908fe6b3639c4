"""What a connection is told: by hatopo as values, by redis-py as the attributes and methods that it inherits.

Says which part of redis-py's connections is used, so that the rest of the room can be typed. Holds no behaviour.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

from hatopo.address import Address
from hatopo.connection._resp import MAX_REPLY_BYTES, EncoderLike


class Patience(NamedTuple):
    """How long to wait for bytes.

    Attributes:
        silence: seconds without a single byte.
        deadline: the moment (monotonic clock) at which waiting ends, whatever comes.
        calm: the silence was asked for (a blocking command).
    """

    silence: float
    deadline: float = float("inf")
    calm: bool = False

    def until(self, spent: float = 0.0) -> float:
        """The moment at which the next byte must have come, when `spent` seconds were waited already."""
        return min(self.deadline, monotonic() + self.silence - spent)


@dataclass(frozen=True, slots=True)
class WireOptions:
    """What redis-py's connections do not know.

    Attributes:
        address: the node, for messages.
        expect_role: "master" if the node must say so itself in the handshake, or "".
        insist_protocol: RESP3 was chosen by name: no falling back to RESP2.
        max_reply_bytes: a larger reply is refused.
        on_silence: called by the reader after each `SLICE` of silence: whether that was asked for, and the moment
            at which the reader wants to be back.
        on_push: called by the reader with each push of RESP3, in the middle of whatever it reads.
        identify: called in the handshake with the node's run id, or "" where it does not tell; may raise a NodeError.
        server_name: the name that the node's certificate must carry, where that is not the host that is dialled.
    """

    address: Address
    expect_role: str = ""
    insist_protocol: bool = False
    max_reply_bytes: int = MAX_REPLY_BYTES
    on_silence: Callable[[bool, float], None] | None = None
    on_push: Callable[[list[Any]], None] | None = None
    identify: Callable[[str], None] | None = None
    server_name: str | None = None


if TYPE_CHECKING:

    class RedisPart:
        """What is used of redis-py's connection."""

        _connect: Callable[[], Any]
        _connect_callbacks: list[Any]
        _parser: Any
        _sock: Any
        client_name: str | None
        credential_provider: Any
        db: int | None
        encoder: EncoderLike
        handshake_metadata: Any
        host: str
        password: str | None
        port: int
        protocol: int | str
        redis_connect_func: Callable[[Any], None] | None
        socket_connect_timeout: float | None
        socket_timeout: float | None
        username: str | None

        def __init__(self, **kwargs: Any) -> None: ...
        def pack_command(self, *args: Any) -> Any: ...
        def pack_commands(self, commands: Any) -> Any: ...
        def send_packed_command(self, command: Any, check_health: bool = True) -> None: ...
        def disconnect(self, *args: Any, **kwargs: Any) -> None: ...
        def read_response(self, *args: Any, **kwargs: Any) -> Any: ...
        @property
        def is_connected(self) -> bool: ...

else:
    RedisPart = object
