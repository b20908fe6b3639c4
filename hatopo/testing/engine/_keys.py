"""Keys of any kind: what Redis has that fakeredis has not (TOUCH, OBJECT), or has otherwise (times to live, DUMP)."""

from __future__ import annotations

import re
from typing import Any

from hatopo.testing._reply import OK, ErrorReply, Reply
from hatopo.testing.engine._context import NOT_INTEGER, SYNTAX, Context, integer, native, text
from hatopo.testing.engine._data import Hash, MemberSet, ZSet, copied, expires_of, kind_of
from hatopo.testing.engine._dump import dumped, restored


@native("touch")
def touch(context: Context, args: list[bytes]) -> Reply:
    return context.adapted("exists", args)


@native("ttl", "pttl", "expiretime", "pexpiretime")
def ttl(context: Context, args: list[bytes]) -> Reply:
    """Ours: fakeredis rounds a half to the even second, and may lose a millisecond of PEXPIRETIME."""
    item = context.item(args[1])
    expires = None if item is None else expires_of(item)
    if expires is None:
        return -2 if item is None else -1
    name = args[0].lower()
    left = expires if name.endswith(b"expiretime") else max(expires - context.now(), 0)
    return left if name.startswith(b"p") else (left + 500) // 1000


@native("expire", "pexpire", "expireat", "pexpireat")
def expire(context: Context, args: list[bytes]) -> Reply:
    """Corrected: fakeredis takes any number, and does not delete a key at once that has expired already."""
    name = text(args[0]).lower()
    start = 0 if name.endswith("at") else context.now()
    expires = integer(args[2]) * (1 if name.startswith("p") else 1000) + start
    if not -(2**63) <= expires - start < 2**63 or not -(2**63) <= expires < 2**63:
        raise ErrorReply(f"ERR invalid expire time in '{name}' command")
    options = {word.lower() for word in args[3:]}
    if {b"gt", b"lt"} <= options and b"nx" not in options:
        raise ErrorReply("ERR GT and LT options at the same time are not compatible")
    reply = context.adapted(name, args)
    if reply == 1:
        context.data.expire_at(args[1], expires)
    return reply


# --- from one name to another


def _database(context: Context, value: bytes) -> int:
    """The number of a database."""
    found = integer(value, NOT_INTEGER)
    if not -(2**31) <= found < 2**31:
        raise ErrorReply("ERR value is out of range, value must between -2147483648 and 2147483647")
    if not 0 <= found < len(context.databases):
        raise ErrorReply("ERR DB index is out of range")
    return found


@native("move")
def move(context: Context, args: list[bytes]) -> Reply:
    """Corrected: fakeredis says that the key has been there before."""
    target, changes = _database(context, args[2]), context.data.changes
    reply = context.adapted("move", args)
    changes[:] = [(target, args[1], False) if change == (target, args[1], True) else change for change in changes]
    return reply


@native("copy")
def copy(context: Context, args: list[bytes]) -> Reply:
    """Corrected: with fakeredis both keys hold the same value, and what is done to one is done to the other."""
    target = context.data
    for index in range(3, len(args)):
        if args[index - 1].lower() == b"db" and index > 3:
            target = context.databases[_database(context, args[index])]
    existed = args[2] in target._dict
    reply = context.adapted("copy", args)
    if reply == 1:
        item = target._dict[args[2]]
        target.place(args[2], copied(item.value), expires_of(item))
        target.changes[-1] = (target.number, args[2], existed)
    return reply


@native("dump")
def dump(context: Context, args: list[bytes]) -> Reply:
    item = context.item(args[1])
    return None if item is None else dumped(item.value)


def _restore_options(args: list[bytes]) -> set[bytes]:
    words: set[bytes] = set()
    index = 4
    while index < len(args):
        option, more = args[index].lower(), index + 1 < len(args)
        if option in (b"replace", b"absttl"):
            words.add(option)
        elif option in (b"idletime", b"freq") and more and not words & {b"idletime", b"freq"}:
            limit, name = (255, "FREQ") if option == b"freq" else (2**63 - 1, "IDLETIME")
            if not 0 <= integer(args[index + 1]) <= limit:
                upper = " and <= 255" if option == b"freq" else ""
                raise ErrorReply(f"ERR Invalid {name} value, must be >= 0{upper}")
            words.add(option)
            index += 1
        else:
            raise ErrorReply(SYNTAX)
        index += 1
    return words


@native("restore", "restore-asking")
def restore(context: Context, args: list[bytes]) -> Reply:
    words = _restore_options(args)
    if b"replace" not in words and context.item(args[1]) is not None:
        raise ErrorReply("BUSYKEY Target key name already exists.")
    left = integer(args[2])
    if left < 0:
        raise ErrorReply("ERR Invalid TTL value, must be >= 0")
    content = restored(args[3])
    expires = None if left == 0 else left if b"absttl" in words else left + context.now()
    if expires is not None and expires < context.now():
        context.data.remove(args[1])
    else:
        context.data.write(args[1], content, expires)
    return OK


# --- the database as a whole


@native("flushdb", "flushall")
def flush(context: Context, args: list[bytes]) -> Reply:
    if len(args) > 2 or (len(args) == 2 and args[1].lower() not in (b"sync", b"async")):
        raise ErrorReply(SYNTAX)
    return context.adapted(text(args[0]).lower(), args[:1])


def cursor_of(value: bytes) -> bytes:
    """The cursor of a scan as fakeredis takes it."""
    if not re.fullmatch(rb"[-+]?[0-9]{1,19}", value):
        raise ErrorReply("ERR invalid cursor")
    return b"%d" % (int(value) % 2**63)


@native("scan")
def scan(context: Context, args: list[bytes]) -> Reply:
    return context.adapted("scan", [args[0], cursor_of(args[1]), *_scan_options(args, 2)])


def _scan_options(args: list[bytes], start: int) -> list[bytes]:
    """MATCH, COUNT and so on, every one with a value."""
    options = args[start:]
    if len(options) % 2 or any(
        word.lower() == b"count" and integer(value) < 1 for word, value in zip(options[::2], options[1::2], strict=True)
    ):
        raise ErrorReply(SYNTAX)
    return options


@native("sscan", "hscan", "zscan")
def scan_value(context: Context, args: list[bytes]) -> Reply:
    """Corrected: what Redis keeps in one piece comes in one piece."""
    name, options = text(args[0]).lower(), _scan_options(args, 3)
    item = context.item(args[1])
    if item is not None and encoding_of(item.value) not in ("hashtable", "skiplist", "stream"):
        options += [b"count", b"512"]
    return context.adapted(name, [args[0], args[1], cursor_of(args[2]), *options])


# --- OBJECT


def encoding_of(content: Any) -> str:
    """How Redis would keep a value that has got its size at once."""
    kind = type(content)
    if kind is bytes:
        return "int" if is_integer(content) else "embstr" if len(content) <= 44 else "raw"
    if kind is list:
        return "quicklist"
    if kind is MemberSet:
        return "intset" if len(content) <= 512 and all(map(is_integer, content._values)) else "hashtable"
    if kind is Hash:
        small = all(len(one) <= 64 for pair in content.items() for one in pair)
        return "listpack" if len(content) <= 128 and small else "hashtable"
    if kind is ZSet:
        small = all(len(member) <= 64 for member in content._bylex)
        return "listpack" if len(content) <= 128 and small else "skiplist"
    return "raw" if kind_of(content) == "string" else "stream"


def is_integer(value: bytes) -> bool:
    """Whether a string would be kept as a number."""
    try:
        integer(value)
    except ErrorReply:
        return False
    return True


@native("object")
def object_(context: Context, args: list[bytes]) -> Reply:
    item = context.item(args[2])
    if item is None:
        return None
    match args[1].lower():
        case b"encoding":
            return encoding_of(item.value)
        case b"refcount":
            shared = type(item.value) is bytes and is_integer(item.value) and 0 <= int(item.value) < 10000
            return 2147483647 if shared else 1
        case b"idletime":
            return 0
    raise ErrorReply(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching "
        "between policies at runtime LRU and LFU data will take some time to adjust."
    )
