"""The history of a data set: its ids, its offset, and what has changed lately.

Decides what a master sends to its replicas, how many bytes of the replication stream that counts for, and whether
somebody who has followed up to some offset can go on from there. What is sent are states, not commands: "this key
now holds that". So the backlog need not remember values, only which keys to send again as they are by then. It
knows no servers and no links.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hatopo.testing.engine._engine import Snapshot, Value

Key = tuple[int, bytes]
NO_ID: Final = "0" * 40
PING_LENGTH: Final = 14
ASK_LENGTH: Final = 37
"""REPLCONF GETACK * in bytes."""
OTHER_LENGTH: Final = 16
"""What a change of a list, a set ... is taken to add to the stream, beside the key."""


@dataclass(frozen=True, slots=True)
class Change:
    """What a key holds now; None: nothing."""

    db: int
    key: bytes
    value: Value | None


@dataclass(frozen=True, slots=True)
class Swap:
    """Two databases have changed places."""

    a: int
    b: int


@dataclass(frozen=True, slots=True)
class Published:
    """A message of a channel; `kind` as of `Server.publish`."""

    channel: bytes
    message: bytes
    kind: str


@dataclass(frozen=True, slots=True)
class AskAck:
    """Tell your master at once how far you are."""


Action = Change | Swap | Published | AskAck


@dataclass(frozen=True, slots=True)
class Step:
    """One piece of the stream, from an offset to another; without actions it is a PING."""

    start: int
    end: int
    actions: tuple[Action, ...] = ()

    @property
    def writes(self) -> bool:
        """Whether it changes data."""
        return any(isinstance(action, (Change, Swap)) for action in self.actions)


@dataclass(frozen=True, slots=True)
class FullSync:
    """All data, as they were at an offset of a history."""

    id: str
    offset: int
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class StillThere:
    """The newline by which a master says that the full synchronization goes on."""


@dataclass(frozen=True, slots=True)
class _Trace:
    """What the backlog remembers of a step: no values."""

    end: int
    keys: tuple[Key, ...]
    published: tuple[Published, ...]
    final: bool
    """Nobody who has missed it can go on from before: databases have changed places."""


def length_of(*words: bytes) -> int:
    """How many bytes a command takes in the stream."""
    return len(str(len(words))) + 3 + sum(len(word) + len(str(len(word))) + 5 for word in words)


def _length_of_change(change: Change) -> int:
    """The length of a command that could have made this change; exact for SET and DEL."""
    if change.value is None:
        return length_of(b"DEL", change.key)
    content = change.value.content
    if isinstance(content, bytes):
        expiry = (b"PXAT", str(change.value.expires).encode()) if change.value.expires is not None else ()
        return length_of(b"SET", change.key, content, *expiry)
    return length_of(b"RPUSH", change.key) + OTHER_LENGTH


class History:
    """One node's part in the history of a data set."""

    def __init__(self, new_id: Callable[[], str], limit: Callable[[], int]) -> None:
        self._new_id, self._limit = new_id, limit
        self.id = new_id()
        self.second_id = NO_ID
        """The history of which this one is the continuation, up to before `second_offset`."""
        self.second_offset = -1
        self.offset = 0
        self.active = False
        """Whether there is a backlog; without one the offset stands still."""
        self.first = 0
        """The offset of the first byte in the backlog."""
        self._traces: deque[_Trace] = deque()
        self._selected = -1

    @property
    def length(self) -> int:
        """How many bytes the backlog holds."""
        return self.offset - self.first + 1 if self.active else 0

    # Whose history it is

    def rename(self) -> None:
        """Call it by another id, so that nobody goes on from anywhere."""
        self.id, self.second_id, self.second_offset = self._new_id(), NO_ID, -1

    def begin(self) -> None:
        """Begin a history of its own, with the first replica that asks for it."""
        self.rename()
        self._open()

    def end(self) -> None:
        """Forget the backlog, and with it the history."""
        self.rename()
        self.active, self.first = False, 0
        self._traces.clear()

    def adopt(self, message: FullSync) -> None:
        """Take over a master's history together with its data."""
        self.id, self.offset = message.id, message.offset
        self.second_id, self.second_offset = NO_ID, -1
        self._open()

    def branch(self, new_id: str | None = None) -> None:
        """Go on under another id, one of its own or that of a master that was promoted."""
        self.second_id, self.second_offset = self.id, self.offset + 1
        self.id = new_id or self._new_id()
        self._selected = -1

    def select_again(self) -> None:
        """Let the next command be preceded by a SELECT, as after somebody began to follow."""
        self._selected = -1

    def _open(self) -> None:
        self.active, self.first = True, self.offset + 1
        self._traces.clear()
        self._selected = -1

    # What is added to it

    def add_changes(self, changes: Iterable[Change]) -> Step:
        """Write what a master's command has changed."""
        made, length = (*changes,), 0
        for change in made:
            length += self._select(change.db) + _length_of_change(change)
        return self._add(made, length)

    def add_swap(self, swap: Swap) -> Step:
        """Write a SWAPDB."""
        words = (b"SWAPDB", str(swap.a).encode(), str(swap.b).encode())
        return self._add((swap,), self._select(max(self._selected, 0)) + length_of(*words))

    def add_message(self, message: Published) -> Step:
        """Write a PUBLISH or SPUBLISH."""
        name = b"SPUBLISH" if message.kind == "smessage" else b"PUBLISH"
        length = self._select(max(self._selected, 0)) + length_of(name, message.channel, message.message)
        return self._add((message,), length)

    def add_ping(self) -> Step:
        """Write a PING."""
        return self._add((), PING_LENGTH)

    def add_ask(self) -> Step:
        """Write a REPLCONF GETACK."""
        return self._add((AskAck(),), ASK_LENGTH)

    def _select(self, db: int) -> int:
        """The length of the SELECT that a command of this database needs."""
        if db == self._selected:
            return 0
        self._selected = db
        return length_of(b"SELECT", str(db).encode())

    def _add(self, actions: tuple[Action, ...], length: int) -> Step:
        step = Step(self.offset, self.offset + length, actions)
        self.append(step)
        return step

    def append(self, step: Step) -> None:
        """Write a step, one's own or a master's."""
        self.offset = step.end
        keys, published, final = [], [], False
        for action in step.actions:
            if isinstance(action, Change):
                keys.append((action.db, action.key))
            elif isinstance(action, Published):
                published.append(action)
            elif isinstance(action, Swap):
                final = True
        self._traces.append(_Trace(step.end, (*keys,), (*published,), final))
        limit = self._limit()
        while self.length > limit and len(self._traces) > 1:
            self.first = self._traces.popleft().end + 1

    # Who can go on from where

    def covers(self, history: str, wanted: int) -> bool:
        """Whether who has followed `history` to before `wanted` can be given the rest."""
        known = history == self.id or (history == self.second_id and wanted <= self.second_offset)
        within = self.active and self.first <= wanted <= self.offset + 1
        return known and within and not any(trace.final for trace in self._traces if trace.end >= wanted)

    def since(self, wanted: int, value_of: Callable[[int, bytes], Value | None]) -> Step:
        """What has changed from `wanted` on, as one step, with the values of now."""
        keys: dict[Key, None] = {}
        published: list[Published] = []
        for trace in self._traces:
            if trace.end >= wanted:
                keys |= dict.fromkeys(trace.keys)
                published += trace.published
        changes = [Change(db, key, value_of(db, key)) for db, key in keys]
        return Step(wanted - 1, self.offset, (*changes, *published))
