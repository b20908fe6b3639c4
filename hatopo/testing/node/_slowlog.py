"""The slow log of one node: which commands took long. What counts as long, and how many are kept, is told to it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from hatopo.testing._reply import Reply

SHOWN_WORDS = 32
SHOWN_BYTES = 128


class SlowLog:
    """Entries as SLOWLOG GET answers them, the last one first."""

    def __init__(self) -> None:
        self.entries: list[list[Reply]] = []
        self._numbers = itertools.count()

    def add(self, args: Sequence[bytes], now: int, microseconds: int, source: tuple[str, bytes], length: int) -> None:
        """Log a command of a client (its address and name), and keep `length` entries."""
        words: list[Reply] = [_shortened(word) for word in args[:SHOWN_WORDS]]
        if len(args) > SHOWN_WORDS:
            words[-1] = b"... (%d more arguments)" % (len(args) - SHOWN_WORDS + 1)
        self.entries.insert(0, [next(self._numbers), now, microseconds, words, *source])
        del self.entries[length:]


def _shortened(word: bytes) -> bytes:
    return word if len(word) <= SHOWN_BYTES else word[:SHOWN_BYTES] + b"... (%d more bytes)" % (len(word) - SHOWN_BYTES)
