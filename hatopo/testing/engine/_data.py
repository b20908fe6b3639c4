"""The data of a keyspace: decides what a key holds, when it has expired, and what counts as changed.

Values are those of fakeredis; this module wraps its database so that time is the keyspace's and every change is
noted. It knows no command.
"""

from __future__ import annotations

import copy
import heapq
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from fakeredis._core import Database, Item
from fakeredis.model import ExpiringMembersSet, Hash, StreamGroup, XStream, ZSet

if TYPE_CHECKING:
    from collections.abc import Callable

__all__ = [
    "Data",
    "Hash",
    "HyperLog",
    "MemberSet",
    "Value",
    "XStream",
    "ZSet",
    "copied",
    "expires_of",
    "kind_of",
]

MemberSet = ExpiringMembersSet
"""The value of a set."""


class HyperLog(ExpiringMembersSet):
    """A HyperLogLog: it remembers its elements, so it counts exactly. TYPE calls it a string."""

    _model_type = b"string"


_NAMES: dict[type, str] = {
    bytes: "string",
    list: "list",
    MemberSet: "set",
    ZSet: "zset",
    Hash: "hash",
    XStream: "stream",
}


@dataclass(frozen=True, slots=True)
class Value:
    """What a key held at one moment, with the time at which it expires, in milliseconds since 1970."""

    content: Any
    expires: int | None = None


Change = tuple[int, bytes, "bool | None"]
"""A database, a key, and whether it was there before; None: it was, but has expired."""


class Data(Database):
    """One database of a keyspace."""

    def __init__(
        self, number: int, milliseconds: Callable[[], int], changes: list[Change], quiet: list[tuple[int, bytes]]
    ) -> None:
        super().__init__(None)
        self.number = number
        self.changes = changes
        """What the running command has changed so far."""
        self.quiet = quiet
        """Those of the changes that break no WATCH."""
        self.milliseconds = milliseconds
        self.keeps_expired = False
        """Whether expired keys are hidden only, as on a replica, which waits for its master to delete them."""

    @property
    def time(self) -> float:
        """The time in seconds; fakeredis reads it only where something may expire."""
        return self.milliseconds() / 1000

    @time.setter
    def time(self, value: float) -> None:
        """What fakeredis writes here is not wanted: the keyspace has its own clock."""

    def notify_watch(self, key: bytes) -> None:
        """Note a change. fakeredis calls this before it writes."""
        item = self._dict.get(key)
        if item is not None and item.expireat is not None and self.expired(item):
            self.changes.append((self.number, key, None))
            item = None
        self.changes.append((self.number, key, item is not None))

    def expired(self, item: Any) -> bool:
        return bool(item.expireat is not None and round(item.expireat * 1000) < self.milliseconds())

    def item(self, key: bytes) -> Any:
        """The item of a key that is there and has not expired, or None; it has a `value` and an `expireat`."""
        item = self._dict.get(key)
        if item is not None and item.expireat is not None and self.expired(item):
            self._drop(key)
            return None
        return item

    def __getitem__(self, key: bytes) -> Any:
        item = self.item(key)
        if item is None:
            raise KeyError(key)
        return item

    def get(self, key: bytes, default: Any = None) -> Any:
        item = self.item(key)
        return default if item is None else item

    def __contains__(self, key: object) -> bool:
        return isinstance(key, bytes) and self.item(key) is not None

    def _drop(self, key: bytes) -> None:
        """Forget a key that has expired."""
        if not self.keeps_expired:
            self.changes.append((self.number, key, None))
            del self._dict[key]

    def _remove_expired(self) -> None:
        now, heap = self.milliseconds(), self._expiry_heap
        while not self.keeps_expired and heap and round(heap[0][0] * 1000) < now:
            key = heap[0][1]
            item = self._dict.get(key)
            if item is not None and self.expired(item):
                self._drop(key)
            heapq.heappop(heap)

    def __iter__(self) -> Any:
        self._remove_expired()
        if self.keeps_expired:
            return iter([key for key, item in self._dict.items() if not self.expired(item)])
        return iter(self._dict)

    # --- what the engine's own commands use

    def write(self, key: bytes, content: Any, expires: int | None = None) -> None:
        """Set a key, noting the change; `expires` in milliseconds."""
        self.notify_watch(key)
        self.place(key, content, expires)

    def place(self, key: bytes, content: Any, expires: int | None = None) -> None:
        """Set a key without a word."""
        item: Any = Item(content)
        if expires is not None:
            item.expireat = expires / 1000
            self.schedule_expiry(key, expires / 1000)
        self._dict[key] = item

    def remove(self, key: bytes) -> bool:
        """Delete a key, noting the change; whether it was there."""
        if self.item(key) is None:
            return False
        self.notify_watch(key)
        del self._dict[key]
        return True

    def expire_at(self, key: bytes, expires: int) -> None:
        """Let a key that has just been changed expire at a time, at once if that has come."""
        item = self._dict.get(key)
        if item is None:
            return
        item.expireat = expires / 1000
        self.schedule_expiry(key, item.expireat)
        if expires <= self.milliseconds():
            del self._dict[key]

    def wipe(self) -> None:
        """Delete everything without a word."""
        self._dict.clear()
        self._expiry_heap.clear()

    def live(self) -> dict[bytes, Item]:
        """All keys that have not expired."""
        return {key: item for key, item in self._dict.items() if not self.expired(item)}


def expires_of(item: Any) -> int | None:
    """When an item expires, in milliseconds."""
    return None if item.expireat is None else round(item.expireat * 1000)


def kind_of(content: Any) -> str:
    """The type of a value as TYPE names it."""
    return _NAMES.get(type(content)) or str(getattr(content, "_model_type", b"string"), "ascii")


def copied(content: Any) -> Any:
    """A value that shares nothing with another."""
    kind = type(content)
    if kind is bytes:
        return content
    if kind is list:
        return content.copy()
    if isinstance(content, MemberSet):
        return type(content)(content._values.copy())
    if kind is Hash:
        other = Hash()
        other._values = content._values.copy()
        return other
    if kind is ZSet:
        scores = ZSet()
        scores._bylex = content._bylex.copy()
        scores._byscore = content._byscore.copy()
        return scores
    if kind is XStream:
        return _copied_stream(content)
    return copy.deepcopy(content)


def _copied_stream(stream: XStream) -> XStream:
    """A stream that shares only what never changes, the entries."""
    other = XStream()
    other._ids, other._values_dict = stream._ids.copy(), stream._values_dict.copy()
    other._nodes = [copy.copy(node) for node in stream._nodes]
    other._max_deleted_id, other._entries_added = stream._max_deleted_id, stream._entries_added
    other._last_id = stream._last_id
    for name, group in stream._groups.items():
        twin = StreamGroup(other, name, group.last_delivered_key, group.entries_read)
        twin.consumers = {key: copy.copy(consumer) for key, consumer in group.consumers.items()}
        twin.pel = group.pel.copy()
        other._groups[name] = twin
    return other
