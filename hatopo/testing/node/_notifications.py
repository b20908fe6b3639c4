"""Keyspace notifications: decides which events a command is, by what it was asked and which keys it has changed.

The engine tells which keys were there before a command, and which of them had expired; the rest follows from the
command. Not told apart are a consumer that a read or a claim has created, and entries that XADD has trimmed. A replica
gets states and not commands from its master, and so has no events of what that does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

from hatopo.testing.commands import TABLE, find_keys

if TYPE_CHECKING:
    from hatopo.testing.engine._engine import Keyspace

__all__ = ["Notifications", "events"]

Change = tuple[int, bytes, "bool | None"]
"""A database, a key, and whether the key was there before; None: it was, but has expired."""
Event = tuple[str, bytes, int, bytes]
"""The class of an event, as the configuration has it, its name, the database and the key."""
ALL: Final = "g$lshzxetd"
LOST: Final = ("g", b"del")
SAME_NAME: Final = {
    "$": "set append incrby incrbyfloat setrange setbit pfadd",
    "l": "lpush rpush linsert lset lrem ltrim lpop rpop",
    "h": "hset hincrby hincrbyfloat hdel",
    "s": "sadd srem spop sinterstore sunionstore sdiffstore",
    "z": "zadd zrem zremrangebyscore zremrangebyrank zremrangebylex zpopmin zpopmax zunionstore zinterstore zdiffstore "
    "zrangestore geosearchstore",
    "t": "xadd xdel xtrim xsetid",
    "g": "del expire persist restore",
}
OTHER_NAME: Final = {
    "$": "setex:set psetex:set setnx:set getset:set mset:set msetnx:set bitop:set incr:incrby decr:incrby "
    "decrby:incrby bitfield:setbit pfmerge:pfadd",
    "l": "lpushx:lpush rpushx:rpush blpop:lpop brpop:rpop sort:sortstore",
    "h": "hmset:hset hsetnx:hset",
    "z": "zincrby:zincr bzpopmin:zpopmin bzpopmax:zpopmax geoadd:zadd georadius:georadiusstore "
    "georadiusbymember:georadiusstore",
    "t": "xgroup|create:xgroup-create xgroup|setid:xgroup-setid xgroup|destroy:xgroup-destroy "
    "xgroup|createconsumer:xgroup-createconsumer xgroup|delconsumer:xgroup-delconsumer",
    "g": "unlink:del getdel:del pexpire:expire expireat:expire pexpireat:expire copy:copy_to",
}
NAMES: Final = {
    **{name: (kind, name.encode()) for kind, names in SAME_NAME.items() for name in names.split()},
    **{
        name: (kind, event.encode())
        for kind, pairs in OTHER_NAME.items()
        for name, event in (pair.split(":") for pair in pairs.split())
    },
}
"""What a command is called in the event of each key that it has changed."""
ONLY_DELETING: Final = {
    *("bitop", "sort", "sinterstore", "sunionstore", "sdiffstore", "zunionstore", "zinterstore", "zdiffstore"),
    *("zrangestore", "geosearchstore", "georadius", "georadiusbymember"),
    *("expire", "pexpire", "expireat", "pexpireat", "restore", "del", "unlink", "getdel", "getex"),
}
"""Commands that have no event of their own where nothing is left of the key."""
MOVING: Final = {"lmove", "blmove", "rpoplpush", "brpoplpush", "smove", "move", "rename", "renamenx"}
UNSEEN: Final = {"object|encoding", "object|freq", "object|idletime", "object|refcount", "memory|usage", "scan"}
"""Commands that read a key without missing it."""
ALSO_READING: Final = {
    *("getex", "getdel", "getset", "sort", "bitop", "pfmerge", "sinterstore", "sunionstore", "sdiffstore"),
    *("zunionstore", "zinterstore", "zdiffstore", "zrangestore", "geosearchstore"),
}
"""Commands that write, and miss keys that they read."""


def events(args: Sequence[bytes], changes: Sequence[Change], holds: Callable[[int, bytes], bool]) -> Iterator[Event]:
    """What has happened to the keyspace by one command, in order.

    Args:
        args: the command; none where keys have expired by themselves.
        changes: what it has done to which keys, in order; a key may come again.
        holds: whether a database has a key now.
    """
    before: dict[tuple[int, bytes], bool] = {}
    for db, key, existed in changes:
        if existed is None:
            yield "x", b"expired", db, key
        else:
            before.setdefault((db, key), existed)
    command = TABLE.of_request(args) if args else None
    if command is None:
        return
    if command.name in MOVING:
        yield from _moved(command.name, args, before, holds)
        return
    names = _names(command.name, args)
    for (db, key), existed in before.items():
        kept = holds(db, key)
        if kept and (not existed or command.name == "copy"):
            yield "n", b"new", db, key
        if kept or (existed and command.name not in ONLY_DELETING):
            yield from ((kind, name, db, key) for kind, name in names)
        if existed and not kept and names:
            yield *LOST, db, key


def _names(command: str, args: Sequence[bytes]) -> list[tuple[str, bytes]]:
    """What a command is called for a key that it has changed and left."""
    options = {word.lower() for word in args[1:]}
    match command:
        case "set" if options & {b"ex", b"px", b"exat", b"pxat"}:
            return [NAMES["set"], NAMES["expire"]]
        case "setex" | "psetex":
            return [NAMES["set"], NAMES["expire"]]
        case "getex":
            return [NAMES["persist" if b"persist" in options else "expire"]]
        case "zadd" if b"incr" in options:
            return [("z", b"zincr")]
        case "lmpop" | "blmpop":
            return [NAMES["lpop" if b"left" in options else "rpop"]]
        case "zmpop" | "bzmpop":
            return [NAMES["zpopmin" if b"min" in options else "zpopmax"]]
    return [NAMES[command]] if command in NAMES else []


def _moved(
    command: str, args: Sequence[bytes], before: Mapping[tuple[int, bytes], bool], holds: Callable[[int, bytes], bool]
) -> Iterator[Event]:
    """The events of a command that takes from one key and gives to another."""
    if not before:
        return
    new: list[Event] = [("n", b"new", *key) for key, existed in before.items() if not existed and holds(*key)]
    if command != "smove":
        yield from new
    keys = [*before]
    db = keys[0][0]
    source, target = args[1], args[2]
    if command == "move":
        other = next((number for number, _ in keys if holds(number, source)), db)
        here = next((number for number, _ in keys if number != other), db)
        yield from (("g", b"move_from", here, source), ("g", b"move_to", other, source))
    elif command.startswith("rename"):
        yield from (("g", b"rename_from", db, source), ("g", b"rename_to", db, target))
    elif command == "smove":
        yield "s", b"srem", db, source
        yield from _lost(db, source, holds)
        yield from new
        yield "s", b"sadd", db, target
    else:
        ends = [word.lower() for word in args[3:5]] if "lmove" in command else [b"right", b"left"]
        yield "l", b"lpush" if ends[1] == b"left" else b"rpush", db, target
        yield "l", b"lpop" if ends[0] == b"left" else b"rpop", db, source
        yield from _lost(db, source, holds)


def _lost(db: int, key: bytes, holds: Callable[[int, bytes], bool]) -> Iterator[Event]:
    if not holds(db, key):
        yield *LOST, db, key


class Notifications:
    """The notifications of one node, as they are configured."""

    def __init__(self, keyspace: Keyspace, publish: Callable[[bytes, bytes], object]) -> None:
        self._keyspace, self._publish = keyspace, publish
        self._wanted = ""

    def configure(self, wanted: str) -> None:
        """Take notify-keyspace-events into force."""
        self._wanted = wanted.replace("A", ALL)
        on = {*wanted} & {"K", "E"} and {*self._wanted} - {"K", "E"}
        self._keyspace.on_command = self.note if on else None

    def note(self, db: int, args: Sequence[bytes], changes: Sequence[Change]) -> None:
        """A command has run in a database: tell who listens."""
        found = [*events(args, changes, self._keyspace.holds)]
        missed = [("m", b"keymiss", db, key) for key in self._missed(db, args, changes)] if "m" in self._wanted else []
        for event in [*(one for one in found if one[0] == "x"), *missed, *(one for one in found if one[0] != "x")]:
            self._tell(*event)

    def _missed(self, db: int, args: Sequence[bytes], changes: Sequence[Change]) -> Iterator[bytes]:
        """The keys for which a command has looked in vain."""
        command = TABLE.of_request(args) if args else None
        if command is None or command.name in UNSEEN:
            return
        before = {key: existed for number, key, existed in reversed(changes) if number == db}
        reads = "readonly" in command.flags
        if reads or command.name in ALSO_READING:
            for found in find_keys(command, args):
                if reads or "access" in found.flags:
                    there = self._keyspace.holds(db, found.name) and not self._keyspace.has_expired(db, found.name)
                    if not before.get(found.name, there):
                        yield found.name

    def _tell(self, kind: str, event: bytes, db: int, key: bytes) -> None:
        if kind in self._wanted:
            if "K" in self._wanted:
                self._publish(b"__keyspace@%d__:%b" % (db, key), event)
            if "E" in self._wanted:
                self._publish(b"__keyevent@%d__:%b" % (db, event), key)
