"""Bytes: RESP, the handshake, connections and their lending."""

from hatopo.connection._edge import Patience, WireOptions
from hatopo.connection._kinds import Connection, SSLConnection, UnixDomainSocketConnection
from hatopo.connection._lending import IDLE_CHECK, Care, NodePool, Observer, Room, survive_fork
from hatopo.connection._resp import MAX_REPLY_BYTES, PLAIN, Pack, chunks, split_name
from hatopo.connection._waiters import Waiters
from hatopo.connection._wire import COMPLETE, Wire, readable_wires

__all__ = [
    "COMPLETE",
    "IDLE_CHECK",
    "MAX_REPLY_BYTES",
    "PLAIN",
    "Care",
    "Connection",
    "NodePool",
    "Observer",
    "Pack",
    "Patience",
    "Room",
    "SSLConnection",
    "UnixDomainSocketConnection",
    "Waiters",
    "Wire",
    "WireOptions",
    "chunks",
    "readable_wires",
    "split_name",
    "survive_fork",
]
