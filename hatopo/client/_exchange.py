"""One exchange of a call with a server, on one connection: what it sends, and what comes back.

Does not know where the connection comes from, what becomes of it afterwards, nor what a failure means.
"""

from __future__ import annotations

from time import monotonic
from typing import Any

from hatopo.client._calls import Call
from hatopo.connection import Wire


def exchange(connection: Wire, call: Call, deadline: float) -> Any:
    """Sends what a call asks and reads what comes back, on one connection.

    Raises:
        NotSentError, ReplyLostError, ReplyTimeoutError, ProtocolError: the connection is closed.
    """
    now = monotonic()
    pieces = call.begin(connection.pack, now)
    patience = call.patience(connection.patience.silence, deadline, now)
    for count, data in pieces:
        call.sending = count
        connection.send(data, patience)
        call.sent += count
    decoding = call.decoding()
    if False in decoding:
        for decode in decoding:
            connection.read_into(call.replies, 1, patience, decode=decode)
    elif decoding:
        connection.read_into(call.replies, len(decoding), patience)
    return call.result()
