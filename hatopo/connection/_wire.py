"""One connection: bytes out, replies in, and the proof that each reply belongs to its command.

Any exit with an unread reply (an exception from a signal, a timeout, a lost connection) closes the connection.
Foreign exceptions of sockets, TLS and hiredis are translated here, once, into what the rest of hatopo knows:
NotSentError (not executed), ReplyLostError and ReplyTimeoutError (it may have been executed), DialError,
HandshakeError and ProtocolError. An exception that somebody else threw into the call (a signal handler) passes
through unchanged.

Knows nothing of topology, retries or which command is safe. The classes are redis-py connections: foreign code
(PubSub, Monitor, kombu) uses their inherited methods on a connection that was lent to it.
"""

from __future__ import annotations

import select
import socket
import ssl
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any, NamedTuple

import redis.exceptions as rx
from hiredis import PushNotification
from redis import connection as redis_connection
from redis.credentials import UsernamePasswordCredentialProvider

from hatopo import errors
from hatopo.address import Address
from hatopo.connection._handshake import Greeting, shake_hands
from hatopo.connection._resp import MAX_REPLY_BYTES, Pack, check_announced, make_pack

if TYPE_CHECKING:
    from hiredis import Reader

    _Base = redis_connection.AbstractConnection
else:
    _Base = object

READ_SIZE = 65536
SLICE = 0.5
"""Seconds that one system call may block; the reply itself may take longer."""
COMPLETE = frozenset({bytes, str, int, list, type(None), dict, float, bool, set, tuple})
"""Types of a whole reply that needs no second look: no error, no push, not the sign for "more bytes needed"."""
_RETIRED = -1
_TLS_RECORD = 16384
_OUR_MODULES = ("hatopo", "socket", "ssl", "gevent", "eventlet", "_socket")


class Patience(NamedTuple):
    """How long to wait for bytes.

    Attributes:
        silence: seconds without a single byte.
        deadline: the moment (monotonic clock) at which waiting ends, whatever comes.
    """

    silence: float
    deadline: float = float("inf")

    def until(self, spent: float = 0.0) -> float:
        """The moment at which the next byte must have come, when `spent` seconds were waited already."""
        return min(self.deadline, monotonic() + self.silence - spent)


@dataclass(frozen=True, slots=True)
class WireOptions:
    """What redis-py's connections do not know.

    Attributes:
        address: the node, for messages.
        expect_role: "master" if the node must say so itself in the handshake, or "".
        insist_protocol: the protocol was chosen by name: no falling back to RESP2.
        max_reply_bytes: a larger reply is refused.
        on_silence: called by the reader at each `SLICE` of silence, without arguments.
        on_push: called with each RESP3 push that is read between replies.
    """

    address: Address
    expect_role: str = ""
    insist_protocol: bool = False
    max_reply_bytes: int = MAX_REPLY_BYTES
    on_silence: Callable[[], None] | None = None
    on_push: Callable[[list[object]], None] | None = None


class Wire(_Base):
    """What hatopo adds to redis-py's connections."""

    def __init__(self, *, wire: WireOptions, **kwargs: Any) -> None:
        self.wire = wire
        self.generation = 0  # set by the pool that owns it; _RETIRED once it must not be used again
        self.check_at = 0.0  # from this moment on it is checked before use; written by whoever holds it
        self.renew_at = float("inf")  # from this moment on it is replaced before use
        self.tainted = False  # foreign code left a reply unread
        self.role = ""
        self.home: Callable[[], Any] = _nowhere  # a weak reference to its pool, set by it
        self._reader: Reader | None = None
        self._poller: select.poll | None = None
        self._slice = SLICE
        super().__init__(**kwargs)
        self.pack: Pack = make_pack(self.encoder)
        self.patience = Patience(float("inf"))
        if self._socket_timeout is not None:
            self.patience = Patience(self._socket_timeout)
            self._slice = min(SLICE, self._socket_timeout)

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
        where = self.wire.address
        if self.generation == _RETIRED:
            raise errors.RetiredError(f"this connection to {where} was retired: take a new one", where)
        try:
            self._open()
        except rx.AuthenticationError:
            if self.credential_provider is None:
                raise
            self._open()  # credentials may just have been rotated: the provider is asked once more
        self._run_connect_callbacks()

    def connect_check_health(self, check_health: bool = True, retry_socket_connect: bool = True) -> None:
        """redis-py's inner entry to `connect`."""
        del check_health, retry_socket_connect
        self.connect()

    def on_connect(self) -> None:
        """Shakes hands on a fresh socket; what a `redis_connect_func` calls."""
        self._greet(Patience(self._socket_connect_timeout or float("inf")))

    def on_connect_check_health(self, check_health: bool = True) -> None:
        """redis-py's inner entry to `on_connect`."""
        del check_health
        self.on_connect()

    def _open(self) -> None:
        self.tainted = False
        try:
            self._sock = self._connect()
        except Exception as error:
            raise _dial_error(error, self.wire.address) from error
        try:
            self._sock.settimeout(self._slice)
            if self.redis_connect_func is None:
                self.on_connect()
            else:
                self.redis_connect_func(self)  # type: ignore[call-arg]  # redis-py passes the connection
        except BaseException as error:
            self.disconnect()
            where = self.wire.address
            if isinstance(error, (errors.NotSentError, errors.ReplyLostError, errors.ReplyTimeoutError)):
                raise errors.DialError(
                    f"{where} was reached, but the handshake failed: {error}", where
                ) from error
            if isinstance(error, errors.ProtocolError):
                hint = "is it a TLS port, or no Redis server?"
                raise errors.HandshakeError(f"{where} does not speak RESP ({hint})", where) from error
            raise

    def _greet(self, patience: Patience) -> None:
        if hasattr(self, "_reset_himport_state"):
            self._reset_himport_state()
        self._parser.on_connect(self)
        self._attach()
        handshake = shake_hands(self._greeting())
        commands = next(handshake)
        while True:
            replies: list[object] = []
            if commands:
                self.send(b"".join(self.pack(command) for command in commands), patience)
                self.read_into(replies, len(commands), patience)
            try:
                commands = handshake.send(replies)
            except StopIteration as done:
                welcome = done.value
                break
        self.protocol = welcome.protocol
        self.handshake_metadata = welcome.metadata
        self.role = welcome.role
        if self.wire.expect_role and welcome.role and welcome.role != self.wire.expect_role:
            where = self.wire.address
            raise errors.WrongRoleError(f"{where} says that it is a {welcome.role}, not the master", where)

    def _greeting(self) -> Greeting:
        credentials: tuple[str, ...] = ()
        provider = self.credential_provider
        if provider is None and (self.username or self.password):
            provider = UsernamePasswordCredentialProvider(self.username, self.password)
        if provider is not None:
            credentials = tuple(provider.get_credentials())
        library, version = _library(self)
        return Greeting(
            protocol=int(self.protocol),
            insist=self.wire.insist_protocol and int(self.protocol) == 3,
            credentials=credentials,
            client_name=self.client_name,
            library=library,
            version=version,
            database=self.db or 0,
            ask_role=bool(self.wire.expect_role),
        )

    def _attach(self) -> None:
        """Takes over the reader that redis-py's parser has made for the new socket."""
        self._reader = self._parser._reader
        self._more = self._reader.gets()  # an empty reader answers with its sign for "more bytes needed"
        if hasattr(select, "poll"):
            self._poller = select.poll()
            self._poller.register(self._sock, select.POLLIN)

    def _run_connect_callbacks(self) -> None:
        self._connect_callbacks = [ref for ref in self._connect_callbacks if ref()]
        for ref in self._connect_callbacks:
            callback = ref()
            if callback is not None:
                callback(self)

    # ------------------------------------------------------------------ calling

    def call(self, packed: bytes) -> Any:
        """Sends one packed command and returns its reply. An error reply is returned, not raised.

        The hot path: the node may be silent for `socket_timeout` seconds, there is no other bound.

        Raises:
            NotSentError, ReplyLostError, ReplyTimeoutError, ProtocolError: the connection is closed.
        """
        sent = False
        try:
            sock = self._sock
            count = sock.send(packed)
            if count != len(packed):
                self._send_rest([memoryview(packed)[count:]], self.patience)
            sent = True
            data = sock.recv(READ_SIZE)
            reader = self._reader
            reader.feed(data)  # type: ignore[union-attr]  # None when closed by another thread: translated below
            reply = reader.gets()  # type: ignore[union-attr]
            if reply.__class__ in COMPLETE:
                return reply
            return self._read_on(reply, data, self.patience)
        except BaseException as error:
            if not sent or not _is_slice(error):
                self._fail(error, sent)
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
            partly = len(rest[0]) < len(data) or (len(data) > _TLS_RECORD and isinstance(self, SSLConnection))
            self._fail(error, sent=False, partly=partly)

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
            gets = self._reader.gets  # type: ignore[union-attr]  # None when closed by another thread
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
                if not _is_slice(error) or monotonic() >= until:
                    raise

    def _read_on(
        self, reply: Any, data: bytes | None, patience: Patience, decode: bool = True, spent: float = 0.0
    ) -> Any:
        """The rest of a reply: after a push, for an error, or when more bytes are needed."""
        reader = self._reader
        received = 0
        while True:
            if reply is self._more:
                if data is not None:
                    received = self._account(data, received)
                data = self._receive(patience.until(spent))
                spent = 0.0
                reader.feed(data)  # type: ignore[union-attr]
            elif reply.__class__ is PushNotification:
                received, data = 0, None
                if self.wire.on_push is not None:
                    self.wire.on_push(reply)
            else:
                return reply
            reply = reader.gets() if decode else reader.gets(False)  # type: ignore[union-attr]

    def _account(self, data: bytes, received: int) -> int:
        """Counts the bytes of an unfinished reply; refuses the end of the connection, and too many."""
        if not data:
            raise ConnectionResetError("closed by the server")
        limit = self.wire.max_reply_bytes
        if not received:
            check_announced(data, limit)
        received += len(data)
        if received > limit:
            raise errors.ProtocolError(f"the reply is larger than max_reply_bytes ({limit})")
        return received

    def _receive(self, until: float) -> bytes:
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
                    if not _is_slice(error) or left <= 0:
                        raise
                if self.wire.on_silence is not None:
                    self.wire.on_silence()
        finally:
            if shortened and self._sock is not None:
                sock.settimeout(self._slice)

    def _fail(self, error: BaseException, sent: bool, partly: bool = False) -> Any:
        """Closes the connection and raises what `error` means."""
        self.disconnect()
        if not isinstance(error, Exception) or isinstance(error, errors.HatopoError) or not _is_ours(error):
            raise error
        where = self.wire.address
        if isinstance(error, rx.InvalidResponse):
            raise errors.ProtocolError(
                f"{where} sent what is no RESP: {errors.clip(error)}", where
            ) from error
        in_time = not isinstance(error, (TimeoutError, BlockingIOError, ssl.SSLWantReadError))
        if in_time and (
            isinstance(error, UnicodeError) or not isinstance(error, (OSError, AttributeError, ValueError))
        ):
            raise error
        # AttributeError, ValueError: another thread has closed the connection under us.
        reason = (
            errors.clip(error.strerror or error) if isinstance(error, OSError) else "closed by another thread"
        )
        if not sent:
            not_sent = errors.NotSentError(f"{where}: the command was not sent: {reason}", where)
            not_sent.partly = partly
            raise not_sent from error
        if in_time:
            raise errors.ReplyLostError(
                f"{where}: connection lost before the reply: {reason}", where
            ) from error
        raise errors.ReplyTimeoutError(f"{where} sent no complete reply in time", where) from error

    # ------------------------------------------------------------------ the state of a connection

    def clean(self) -> bool:
        """Whether it can take a command: not ended, and no stray reply waits in it. Reads waiting pushes."""
        sock, reader = self._sock, self._reader
        if sock is None or reader is None or self.tainted:
            return False
        if (
            self._poller is not None
            and not self._poller.poll(0)
            and not _pending(sock)
            and not reader.has_data()
        ):
            return True
        try:
            sock.settimeout(0)
            while True:
                reply = reader.gets()
                if reply is self._more:
                    data = sock.recv(READ_SIZE)
                    if not data:
                        return False
                    reader.feed(data)
                elif reply.__class__ is not PushNotification:
                    return False
                elif self.wire.on_push is not None:
                    self.wire.on_push(reply)
        except (BlockingIOError, ssl.SSLWantReadError):
            return not reader.has_data()
        except (OSError, ValueError, rx.InvalidResponse):
            return False
        finally:
            if self._sock is not None:
                sock.settimeout(self._slice)

    def lend_to_foreign_code(self) -> None:
        """From now on redis-py's own methods read from it, with the whole `socket_timeout` per system call."""
        if self._sock is not None:
            self._sock.settimeout(self._socket_timeout)

    def take_back(self) -> None:
        """Ends what `lend_to_foreign_code` began; it is checked before its next use."""
        self.check_at = 0.0
        if self._sock is not None:
            self._sock.settimeout(self._slice)

    def read_response(self, *args: Any, **kwargs: Any) -> Any:
        """redis-py's own reading, which notes when a reply stays unread."""
        try:
            return super().read_response(*args, **kwargs)
        except rx.ResponseError:
            raise
        except BaseException:
            self.tainted = True
            raise

    def move_to(self, other: Wire) -> None:
        """Takes over the target of `other`, an unconnected connection: the next `connect` dials it."""
        self.wire = other.wire
        if not other.wire.address.is_unix:
            self.host, self.port = other.host, other.port
        self.credential_provider = other.credential_provider
        self.username, self.password = other.username, other.password

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
        self._reader = None
        self._poller = None
        super().disconnect(*args, **kwargs)


class Connection(Wire, redis_connection.Connection):
    """A TCP connection."""


class SSLConnection(Wire, redis_connection.SSLConnection):
    """A TLS connection."""


class UnixDomainSocketConnection(Wire, redis_connection.UnixDomainSocketConnection):
    """A connection to a unix socket."""


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


def _is_slice(error: BaseException) -> bool:
    """Whether this is a socket saying that its timeout is over, not a signal handler's TimeoutError."""
    return isinstance(error, (TimeoutError, BlockingIOError, ssl.SSLWantReadError)) and _is_ours(error)


def _is_ours(error: BaseException) -> bool:
    """Whether the error arose in a socket, TLS or hiredis call, not in code that interrupted it."""
    trace = error.__traceback__
    if trace is None:
        return True
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in (*_OUR_MODULES, "redis")


def _dial_error(error: Exception, address: Address) -> Exception:
    if isinstance(error, rx.RedisError):
        return error
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = "check ssl_ca_certs, and that the certificate carries the name that is dialled"
        return errors.HandshakeError(
            f"{address}: the TLS certificate was refused: {error.verify_message} ({advice})", address
        )
    if isinstance(error, ssl.SSLError) and not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        return errors.HandshakeError(
            f"{address}: TLS failed: {error.reason or errors.clip(error)} (is it a TLS port?)", address
        )
    if isinstance(error, TimeoutError):
        return errors.DialError(f"{address} did not accept a connection in time", address)
    if isinstance(error, OSError):
        return errors.DialError(
            f"{address} cannot be reached: {errors.clip(error.strerror or error)}", address
        )
    return error
