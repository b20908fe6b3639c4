"""Foreign exceptions into hatopo's, once, at the edge: sockets, TLS and hiredis on one side, the rest on the other.

Decides what an exception means. What somebody else threw into a call (a signal handler's exception) is told
apart by where it arose, and stays what it is.
"""

from __future__ import annotations

import socket
import ssl

import redis.exceptions as rx

from hatopo import errors
from hatopo.address import Address

_OUR_MODULES = frozenset({"hatopo", "redis", "socket", "ssl", "gevent", "eventlet"})
_WAITING = (TimeoutError, BlockingIOError, ssl.SSLWantReadError)


def is_pause(error: BaseException) -> bool:
    """Whether a socket says that nothing came in the time it was given."""
    return isinstance(error, _WAITING) and _is_ours(error)


def call_error(error: BaseException, address: Address, *, sent: bool, partly: bool) -> BaseException:
    """What `error`, which ended a call, means.

    Args:
        error: the exception.
        address: the node.
        sent: whether the whole command had been sent.
        partly: whether some of it had.

    Returns:
        NotSentError, ReplyLostError, ReplyTimeoutError or ProtocolError; `error` itself if it is not about the
        connection.
    """
    if not isinstance(error, Exception) or isinstance(error, errors.HatopoError) or not _is_ours(error):
        return error
    if isinstance(error, rx.InvalidResponse):
        return errors.ProtocolError(f"{address} sent what is no RESP: {errors.clip(error)}", address)
    if isinstance(error, OSError):
        reason = errors.clip(error.strerror or error)
    elif isinstance(error, (AttributeError, ValueError)) and not isinstance(error, UnicodeError):
        reason = "it was closed by another thread"
    else:
        return error
    if not sent:
        not_sent = errors.NotSentError(f"{address}: connection lost before the command was sent: {reason}", address)
        not_sent.partly = partly
        return not_sent
    if isinstance(error, _WAITING):
        return errors.ReplyTimeoutError(f"{address} sent no complete reply in time", address)
    return errors.ReplyLostError(f"{address}: connection lost before the reply: {reason}", address)


def dial_error(error: Exception, address: Address) -> Exception:
    """What `error`, which ended a dial, means: DialError if trying again may help, else HandshakeError."""
    if isinstance(error, rx.RedisError) or not (_is_ours(error) or isinstance(error, socket.gaierror)):
        return error  # the resolver may be another library's
    if isinstance(error, ssl.SSLCertVerificationError):
        advice = "check ssl_ca_certs, and that the certificate carries the name that is dialled"
        message = f"{address}: the TLS certificate was refused: {error.verify_message} ({advice})"
        return errors.HandshakeError(message, address)
    if isinstance(error, ssl.SSLError) and not isinstance(error, (ssl.SSLEOFError, ssl.SSLZeroReturnError)):
        reason = error.reason or errors.clip(error)
        return errors.HandshakeError(f"{address}: TLS failed: {reason} (is it a TLS port?)", address)
    if isinstance(error, TimeoutError):
        return errors.DialError(f"{address} did not accept a connection in time", address)
    if isinstance(error, OSError):
        return errors.DialError(f"{address} cannot be reached: {errors.clip(error.strerror or error)}", address)
    return error


def handshake_error(error: BaseException, address: Address) -> BaseException:
    """What `error`, which ended a handshake, means."""
    if isinstance(error, (errors.NotSentError, errors.ReplyLostError, errors.ReplyTimeoutError)):
        return errors.DialError(f"{address} was reached, but the handshake failed: {error}", address)
    if isinstance(error, errors.ProtocolError):
        return errors.HandshakeError(f"{address} does not speak RESP: is it a TLS port, or no Redis server?", address)
    if isinstance(error, rx.AuthenticationError) and not isinstance(error, errors.HatopoError):
        message = f"{address} refused the login: {errors.clip(error)} (check username=, password= or the provider)"
        return errors.LoginError(message, address)
    return error


def _is_ours(error: BaseException) -> bool:
    """Whether it arose in a call to a socket, TLS or hiredis, not in code that interrupted one."""
    trace = error.__traceback__
    if trace is None:
        return True
    while trace.tb_next is not None:
        trace = trace.tb_next
    module = str(trace.tb_frame.f_globals.get("__name__", ""))
    return module.partition(".")[0] in _OUR_MODULES
