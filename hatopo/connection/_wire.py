"""One connection: bytes out, replies in, and the proof that each reply belongs to its command.

Any exit with an unread reply (an exception from a signal, a timeout, a lost connection) closes the connection.
Knows nothing of topology, retries or which command is safe. The classes are redis-py connections: foreign code
(PubSub, Monitor, kombu) uses their inherited methods on a connection that was lent to it.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

import redis.exceptions as rx
from hiredis import PushNotification
from redis import connection as redis_connection
from redis.credentials import UsernamePasswordCredentialProvider

from hatopo import errors
from hatopo.address import Address
from hatopo.connection._edge import Patience, WireOptions
from hatopo.connection._foreign import UNKNOWN, Abroad
from hatopo.connection._handshake import Greeting, shake_hands
from hatopo.connection._resp import Pack, check_announced, make_pack
from hatopo.connection._translate import call_error, dial_error, handshake_error, is_pause

READ_SIZE = 65536
SLICE = 0.5
"""Seconds that one system call may block; the reply itself may take longer."""
COMPLETE = frozenset({bytes, str, int, list, type(None), dict, float, bool, set, tuple})
"""Types of a whole reply that needs no second look: no error, no push, not the sign for "more bytes needed"."""
_RETIRED = -1
_TLS_RECORD = 16384


class Wire(Abroad):
    """What hatopo adds to redis-py's connections."""

    def __init__(self, *, wire: WireOptions, **kwargs: Any) -> None:
        self.wire = wire
        self.home: Callable[[], Any] = _nowhere  # a weak reference to its pool, set by that
        self.generation = 0  # set by the pool; _RETIRED once the connection must not be used again
        self.check_at = 0.0  # from this moment on it is checked before use; written by whoever holds it
        self.renew_at = float("inf")  # from this moment on it is replaced before use
        self.dial_by = float("inf")  # the moment at which a dial must have ended; set by who dials
        self.owed = 0  # replies that foreign code has not read
        self._packed = UNKNOWN  # commands in what foreign code packed last
        self.abroad = False  # lent to foreign code
        self.stateful = False  # a command has changed the state of its connection
        self.role = self.run_id = self.zone = ""  # what the node said in the handshake
        self._reader: Any = None  # hiredis'; None while not connected
        self._begun = False  # bytes of a reply that is not complete have come
        self._dial_end = float("inf")  # of the dial under way
        self._more: Any = None  # its sign for "more bytes needed"
        self._poller: Any = None
        super().__init__(**kwargs)
        self.pack: Pack = make_pack(self.encoder)
        limit = self.socket_timeout
        self.patience = Patience(float("inf") if limit is None else limit)
        self._slice = SLICE if limit is None else min(SLICE, limit)

    if not hasattr(redis_connection.AbstractConnection, "is_connected"):  # redis-py before 7

        @property
        def is_connected(self) -> bool:
            """Whether there is a socket."""
            return self._sock is not None

    # ------------------------------------------------------------------ dialling

    def connect(self) -> None:
        """Connects and shakes hands, if it is not connected.

        Raises:
            DialError: the node cannot be reached or did not answer within `socket_connect_timeout`.
            HandshakeError, redis.AuthenticationError, redis.ResponseError: it will not have us.
            WrongRoleError: it is not the master that it should be.
            RetiredError: the connection was retired.
        """
        if self._sock is not None:
            return
        address = self.wire.address
        if self.generation == _RETIRED:
            raise errors.RetiredError(f"this connection to {address} was retired: take a new one", address)
        try:
            self._open()
        except rx.AuthenticationError:
            if self.credential_provider is None:
                raise
            self._open()  # credentials may just have been rotated: the provider is asked once more
        self._connect_callbacks = [ref for ref in self._connect_callbacks if ref()]
        for ref in self._connect_callbacks:
            callback = ref()
            if callback is not None:
                callback(self)

    def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """redis-py's inner entry to `connect`."""
        del check_health, retry_socket_connect
        self.connect()

    def on_connect(self) -> None:
        """Shakes hands on a fresh socket; what a `redis_connect_func` calls."""
        if hasattr(self, "_reset_himport_state"):
            self._reset_himport_state()
        self._parser.on_connect(self)
        self._reader = self._parser._reader
        self._more = self._reader.gets()  # an empty reader answers with its sign for "more bytes needed"
        if hasattr(select, "poll"):
            self._poller = select.poll()
            self._poller.register(self._sock, select.POLLIN)
        self._shake_hands(Patience(float("inf"), self._dial_end))

    def on_connect_check_health(self, check_health: bool = True) -> None:
        """redis-py's inner entry to `on_connect`."""
        del check_health
        self.on_connect()

    def _open(self) -> None:
        address = self.wire.address
        self.owed = 0
        self.stateful = False
        limit = self.socket_connect_timeout
        self._dial_end = min(self.dial_by, float("inf") if limit is None else monotonic() + limit)
        try:
            if limit is not None:
                self.socket_connect_timeout = self.time_to_dial()
            self._sock = self._connect()
        except Exception as error:
            raise dial_error(error, address) from error
        finally:
            self.socket_connect_timeout = limit
        try:
            self._sock.settimeout(self._slice)
            if self.redis_connect_func is None:
                self.on_connect()
            else:
                self.redis_connect_func(self)
        except BaseException as error:
            self.disconnect()
            meaning = handshake_error(error, address)
            if meaning is error:
                raise
            raise meaning from error

    def time_to_dial(self) -> float | None:
        """The seconds that are left for the dial under way, or None for no limit."""
        return None if self._dial_end == float("inf") else max(self._dial_end - monotonic(), 0.001)

    def _shake_hands(self, patience: Patience) -> None:
        handshake = shake_hands(self._greeting())
        commands = next(handshake)
        while True:
            replies: list[Any] = []
            if commands:
                self.send(b"".join([self.pack(command) for command in commands]), patience)
                self.read_into(replies, len(commands), patience)
            try:
                commands = handshake.send(replies)
            except StopIteration as done:
                welcome = done.value
                break
        self.protocol = welcome.protocol
        self.handshake_metadata = welcome.metadata
        self.role, self.run_id, self.zone = welcome.role, welcome.run_id or "", welcome.zone
        if self.wire.expect_role and self.role not in ("", self.wire.expect_role):
            address = self.wire.address
            raise errors.WrongRoleError(f"{address} says that it is a {self.role}, not the master", address)
        if self.wire.identify is not None and welcome.run_id is not None:
            self.wire.identify(welcome.run_id)

    def _greeting(self) -> Greeting:
        provider = self.credential_provider
        if provider is None and (self.username or self.password):
            provider = UsernamePasswordCredentialProvider(self.username, self.password)
        library, version = _library(self)
        return Greeting(
            protocol=int(self.protocol),
            insist=self.wire.insist_protocol,
            credentials=() if provider is None else tuple(provider.get_credentials()),
            client_name=self.client_name,
            library=library,
            version=version,
            database=self.db or 0,
            ask_role=bool(self.wire.expect_role),
            ask_id=self.wire.identify is not None,
        )

    # ------------------------------------------------------------------ calling

    def call(self, packed: bytes) -> Any:
        """Sends one packed command and returns its reply. An error reply is returned, not raised.

        The hot path: the node may be silent for `socket_timeout` seconds, there is no other bound.

        Raises:
            NotSentError, ReplyLostError, ReplyTimeoutError, ProtocolError: the connection is closed.
        """
        sent = waiting = False
        try:
            sock = self._sock
            count = sock.send(packed)
            if count != len(packed):
                self._send_rest([memoryview(packed)[count:]], self.patience)
            sent = waiting = True
            data = sock.recv(READ_SIZE)
            waiting = False
            reader = self._reader
            reader.feed(data)
            reply = reader.gets()
            if reply.__class__ in COMPLETE:
                return reply
            return self._read_on(reply, data, self.patience)
        except BaseException as error:
            if not waiting or not is_pause(error):
                self._fail(error, sent=sent)
        return self.read(self.patience, spent=self._slice)

    def send(self, data: bytes, patience: Patience) -> None:
        """Sends all of `data`.

        Raises:
            NotSentError: the connection ended, or took no more bytes, before all was sent.
        """
        rest = [memoryview(data)]
        try:
            self._send_rest(rest, patience)
        except BaseException as error:
            tls_may_have = len(data) > _TLS_RECORD and isinstance(self._sock, ssl.SSLSocket)
            self._fail(error, sent=False, partly=len(rest[0]) < len(data) or tls_may_have)

    def read(self, patience: Patience, *, decode: bool = True, spent: float = 0.0) -> Any:
        """The next reply, pushes aside. An error reply is returned, not raised.

        Args:
            patience: how long to wait.
            decode: False leaves bulk strings as bytes whatever `decode_responses` says.
            spent: seconds of silence that the caller has already waited.

        Raises:
            ReplyTimeoutError: it did not come in time.
            ReplyLostError, ProtocolError: the connection is closed.
        """
        replies: list[Any] = []
        self.read_into(replies, 1, patience, decode=decode, spent=spent)
        return replies[0]

    def read_into(
        self, replies: list[Any], count: int, patience: Patience, *, decode: bool = True, spent: float = 0.0
    ) -> None:
        """Appends the next `count` replies; those that came before a failure stay in the list.

        Raises:
            as `read`.
        """
        try:
            gets = self._reader.gets
            while count:
                reply = gets() if decode else gets(False)
                if reply.__class__ not in COMPLETE:
                    reply = self._read_on(reply, None, patience, decode, spent)
                replies.append(reply)
                count -= 1
        except BaseException as error:
            self._fail(error, sent=True)

    def _send_rest(self, rest: list[memoryview], patience: Patience) -> None:
        """Sends `rest[0]`, and keeps there what is not sent yet."""
        until = patience.until()
        while rest[0]:
            try:
                rest[0] = rest[0][self._sock.send(rest[0]) :]
                until = patience.until()
            except TimeoutError as error:
                if not is_pause(error) or monotonic() >= until:
                    raise

    def _read_on(
        self, reply: Any, data: bytes | None, patience: Patience, decode: bool = True, spent: float = 0.0
    ) -> Any:
        """The rest of a reply: after a push, for an error, or when more bytes are needed."""
        reader = self._reader
        received = 0
        whole = data is not None  # whether `data` begins where the reply begins
        while True:
            if reply is self._more:
                if data is not None:
                    received = self._account(data, received, whole)
                whole = not received and not reader.has_data()
                data = self._receive(patience.until(spent), patience.calm)
                spent = 0.0
                reader.feed(data)
            elif reply.__class__ is PushNotification:
                received, data, whole = 0, None, False
                self._pushed(reply)
            else:
                self._begun = False
                return reply
            reply = reader.gets() if decode else reader.gets(False)

    def _account(self, data: bytes, received: int, whole: bool) -> int:
        """Counts the bytes of an unfinished reply; refuses the end of the connection, and too many."""
        if not data:
            raise ConnectionResetError(self._ender())
        self._begun = True
        limit = self.wire.max_reply_bytes
        if whole:
            check_announced(data, limit)
        received += len(data)
        if received > limit:
            raise errors.ProtocolError(f"the reply is larger than max_reply_bytes ({limit})", self.wire.address)
        return received

    def _receive(self, until: float, calm: bool) -> bytes:
        """The next bytes, waited for in slices. What has arrived is read before time is declared up."""
        sock = self._sock
        shortened = False
        try:
            while True:
                left = until - monotonic()
                if left < self._slice:
                    shortened = True
                    sock.settimeout(max(left, 0.0))
                try:
                    return bytes(sock.recv(READ_SIZE))
                except (TimeoutError, BlockingIOError, ssl.SSLWantReadError) as error:
                    if left <= 0 or not is_pause(error):
                        raise
                if self.wire.on_silence is not None and not shortened:
                    self.wire.on_silence(calm, until)  # a whole slice: a shorter one is the caller's haste
        finally:
            if shortened and self._sock is not None:
                sock.settimeout(self._slice)

    def _fail(self, error: BaseException, *, sent: bool, partly: bool = False) -> None:
        """Closes the connection and raises what `error` means."""
        begun, self._begun = self._begun, False
        self.disconnect()
        meaning = call_error(error, self.wire.address, sent=sent, partly=partly)
        if isinstance(meaning, (errors.ReplyLostError, errors.ReplyTimeoutError)):
            meaning.begun = begun
        try:
            if meaning is error:
                raise error
            raise meaning from error
        finally:
            del error, meaning  # a frame that an exception holds must not hold the exception

    def _ender(self) -> str:
        """Who has ended the connection, if it was not its owner."""
        return "ended here, for the node was left" if self.generation == _RETIRED else "closed by the server"

    # ------------------------------------------------------------------ the state of a connection

    def clean(self) -> bool:
        """Whether it can take a command: not ended, and no stray reply waits in it. Reads waiting pushes.

        Once it is not clean it stays so, until it is connected again.
        """
        sock, reader = self._sock, self._reader
        if sock is None or reader is None or self.owed:
            return False
        if self._poller is not None and not self._poller.poll(0) and not reader.has_data() and not _pending(sock):
            return True
        if self._only_pushes(sock, reader):
            return True
        self.owed = UNKNOWN
        return False

    def _pushed(self, push: list[Any]) -> None:
        if self.wire.on_push is not None:
            self.wire.on_push(push)

    def readable(self, seconds: float) -> bool:
        """Waits for bytes, or for the end of the connection, for at most `seconds`; whether there are any."""
        sock = self._sock
        if sock is None or _pending(sock):
            return True
        if self._poller is None:
            return bool(select.select([sock], [], [], max(seconds, 0.0))[0])
        return bool(self._poller.poll(max(seconds, 0.0) * 1000))

    def drain(self) -> list[Any]:
        """The replies that have come, without waiting; pushes go to `on_push`. What has only begun stays.

        Raises:
            ReplyLostError: the connection has ended, and no reply came before its end.
            ProtocolError: something came that is no reply.
        """
        try:
            return self._drain(self._sock, self._reader)
        except BaseException as error:
            self._fail(error, sent=True)
            raise

    def _drain(self, sock: Any, reader: Any) -> list[Any]:
        replies = []
        try:
            sock.settimeout(0)
            while True:
                reply = reader.gets()
                if reply is self._more:
                    data = sock.recv(READ_SIZE)
                    if not data:
                        raise ConnectionResetError(self._ender())
                    reader.feed(data)
                elif reply.__class__ is PushNotification:
                    self._pushed(reply)
                else:
                    replies.append(reply)
        except (BlockingIOError, ssl.SSLWantReadError):
            return replies
        except OSError:
            if not replies:  # else whoever reads on meets the end again
                raise
            return replies
        finally:
            if self._sock is not None:
                sock.settimeout(self._slice)

    def _only_pushes(self, sock: Any, reader: Any) -> bool:
        """Whether all that can be read now are whole pushes."""
        try:
            return not self._drain(sock, reader) and not reader.has_data()
        except (OSError, ValueError, rx.InvalidResponse):
            return False

    def move_to(self, other: Wire) -> None:
        """Takes over the target of `other`, an unconnected connection: the next `connect` dials it."""
        self.wire = other.wire
        if not other.wire.address.is_unix:
            self.host, self.port = other.host, other.port
        self.credential_provider = other.credential_provider
        self.username, self.password = other.username, other.password

    @property
    def peer(self) -> Address | None:
        """The IP address and port at the other end; None where there is none."""
        try:
            host, port = self._sock.getpeername()[:2]
            return Address(host, port)
        except (AttributeError, OSError, ValueError):  # not connected; a unix socket
            return None

    def abort(self) -> None:
        """Ends the connection from another thread: a blocked reader wakes, only the owner closes."""
        self.generation = _RETIRED
        sock = self._sock
        if sock is not None:
            try:
                socket.socket.shutdown(sock, socket.SHUT_RDWR)  # of the base class: leaves TLS state alone
            except OSError:
                return  # it has ended already

    def disown(self) -> None:
        """Closes the descriptor without a word to the server: in a forked child it is the parent's."""
        sock, self._sock, self._reader, self._poller = self._sock, None, None, None
        self.generation = _RETIRED
        if sock is not None:
            sock.close()

    def disconnect(self, *args: Any, **kwargs: Any) -> None:
        """Closes the connection; a later `connect` opens it again."""
        self._reader = self._poller = None
        super().disconnect(*args, **kwargs)


def readable_wires(wires: Sequence[Wire], seconds: float) -> list[Wire]:
    """Waits for bytes on any of several connections, or for the end of one, for at most `seconds`: those it is."""
    ready = [wire for wire in wires if wire._sock is None or _pending(wire._sock)]
    if ready:
        return ready
    if not hasattr(select, "poll"):
        found = select.select([wire._sock for wire in wires], [], [], max(seconds, 0.0))[0]
        return [wire for wire in wires if wire._sock in found]
    poller = select.poll()
    for wire in wires:
        poller.register(wire._sock, select.POLLIN)
    numbers = {number for number, _ in poller.poll(max(seconds, 0.0) * 1000)}
    return [wire for wire in wires if wire._sock is not None and wire._sock.fileno() in numbers]


def _nowhere() -> None:
    """The home of a connection that no pool has made."""


def _pending(sock: Any) -> bool:
    return isinstance(sock, ssl.SSLSocket) and sock.pending() > 0


def _library(connection: Any) -> tuple[str | None, str | None]:
    """The names for CLIENT SETINFO, wherever this redis-py keeps them."""
    driver = getattr(connection, "driver_info", None)
    if driver is not None:
        return driver.formatted_name, driver.lib_version
    return getattr(connection, "lib_name", None), getattr(connection, "lib_version", None)
