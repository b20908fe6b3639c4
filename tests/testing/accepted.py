"""The differences between the embedded server and a real one that are meant to be, each with its reason.

An entry names one line of one conversation, as it stands in the corpus (and with its number in brackets where the
line comes again). The tests fail when an entry no longer makes a difference.
"""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["ACCEPTED", "Accepted"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """A line of the corpus to which the two servers may answer differently."""

    conversation: str
    step: str
    reason: str
    protocols: tuple[int, ...] = (2, 3)


ACCEPTED: tuple[Accepted, ...] = (
    Accepted(
        "server: config get and set",
        "CONFIG REWRITE",
        "Sentinels rewrite the configuration of those that they promote: an embedded node acts as if it had a file.",
    ),
    Accepted(
        "server: commands",
        "COMMAND INFO get nope set",
        "The notes on keys are prose of the real server, which is not ours to pass on.",
    ),
    Accepted(
        "server: commands",
        "COMMAND DOCS get",
        "So are summary and complexity; arguments and history are left out as nobody asks a test server for them.",
    ),
)
