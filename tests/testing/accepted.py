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
    *(
        Accepted(
            "strings: floating point",
            step,
            "The sum is 5005.6; only the 64 bits of Redis make it 5005.60000000000000009.",
        )
        for step in ("INCRBYFLOAT f 5.0e3", "GET f")
    ),
    Accepted(
        "strings: floating point",
        "INCRBYFLOAT f 1  (3)",
        "A number that is too great for a double, which is all that Python and other clients have.",
    ),
    Accepted(
        "strings: numbers",
        "DECRBY n -9223372036854775808",
        "An error of the same kind in other words, for the one number that cannot be negated.",
    ),
    *(
        Accepted(
            "strings: encodings",
            step,
            "How a string is kept that was changed in place; fakeredis does not know, and no client sees it otherwise.",
        )
        for step in ("OBJECT ENCODING n", "OBJECT ENCODING s")
    ),
)
