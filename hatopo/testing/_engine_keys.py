"""Commands on keys of any kind: whether they are there, how long they live, where they go."""

from __future__ import annotations

from typing import Any

from hatopo.testing._engine_context import NO_KEY, NOT_INTEGER, SYNTAX, Context, integer, native
from hatopo.testing._engine_data import Hash, MemberSet, ZSet, copied, expires_of, kind_of
from hatopo.testing._engine_dump import dumped, restored
from hatopo.testing._engine_help import help_of
from hatopo.testing._reply import OK, ErrorReply, Reply, Status


@native("del", "unlink")
def delete(context: Context, args: list[bytes]) -> Reply:
    remove = context.data.remove
    return sum(remove(key) for key in args[1:])


@native("exists", "touch")
def exists(context: Context, args: list[bytes]) -> Reply:
    return sum(context.item(key) is not None for key in args[1:])


@native("type")
def type_(context: Context, args: list[bytes]) -> Reply:
    item = context.item(args[1])
    return Status("none" if item is None else kind_of(item.value))


# --- time to live


@native("ttl", "pttl", "expiretime", "pexpiretime")
def ttl(context: Context, args: list[bytes]) -> Reply:
    item = context.item(args[1])
    if item is None:
        return -2
    expires = expires_of(item)
    if expires is None:
        return -1
    name = args[0].lower()
    left = expires if name.endswith(b"expiretime") else max(expires - context.now(), 0)
    return left if name.startswith(b"p") else (left + 500) // 1000


@native("expire", "pexpire", "expireat", "pexpireat")
def expire(context: Context, args: list[bytes]) -> Reply:
    name = args[0].decode("latin-1").lower()
    options = _expire_options(args)
    scale = 1 if name.startswith("p") else 1000
    start = 0 if name.endswith("at") else context.now()
    expires = integer(args[2]) * scale + start
    if not -(2**63) <= expires - start < 2**63 or not -(2**63) <= expires < 2**63:
        raise ErrorReply(f"ERR invalid expire time in '{name}' command")
    item = context.item(args[1])
    if item is None:
        return 0
    old = expires_of(item)
    if (
        (b"nx" in options and old is not None)
        or (b"xx" in options and old is None)
        or (b"gt" in options and (old is None or expires <= old))
        or (b"lt" in options and old is not None and expires >= old)
    ):
        return 0
    if expires <= context.now():
        context.data.remove(args[1])
    else:
        context.data.expire(args[1], item, expires)
    return 1


def _expire_options(args: list[bytes]) -> set[bytes]:
    options = set()
    for one in args[3:]:
        option = one.lower()
        if option not in (b"nx", b"xx", b"gt", b"lt"):
            raise ErrorReply(f"ERR Unsupported option {one.decode('utf-8', 'surrogateescape')}")
        options.add(option)
    if b"nx" in options and len(options) > 1:
        raise ErrorReply("ERR NX and XX, GT or LT options at the same time are not compatible")
    if {b"gt", b"lt"} <= options:
        raise ErrorReply("ERR GT and LT options at the same time are not compatible")
    return options


@native("persist")
def persist(context: Context, args: list[bytes]) -> Reply:
    item = context.item(args[1])
    if item is None or item.expireat is None:
        return 0
    context.data.expire(args[1], item, None)
    return 1


# --- from one name to another


@native("rename", "renamenx")
def rename(context: Context, args: list[bytes]) -> Reply:
    only_new = args[0].lower() == b"renamenx"
    item = context.item(args[1])
    if item is None:
        raise ErrorReply(NO_KEY)
    if args[1] == args[2]:
        return 0 if only_new else OK
    if only_new and context.item(args[2]) is not None:
        return 0
    context.data.remove(args[1])
    context.data.write(args[2], item.value, expires_of(item))
    return 1 if only_new else OK


def _database(context: Context, value: bytes, message: str) -> int:
    """The number of a database."""
    number = integer(value, message)
    if not -(2**31) <= number < 2**31:
        raise ErrorReply("ERR value is out of range, value must between -2147483648 and 2147483647")
    if not 0 <= number < len(context.databases):
        raise ErrorReply("ERR DB index is out of range")
    return number


@native("move")
def move(context: Context, args: list[bytes]) -> Reply:
    target = context.databases[_database(context, args[2], NOT_INTEGER)]
    if target is context.data:
        raise ErrorReply("ERR source and destination objects are the same")
    item = context.item(args[1])
    if item is None or target.item(args[1]) is not None:
        return 0
    target.write(args[1], item.value, expires_of(item))
    context.data.remove(args[1])
    return 1


@native("copy")
def copy(context: Context, args: list[bytes]) -> Reply:
    target, replace, index = context.data, False, 3
    while index < len(args):
        option = args[index].lower()
        if option == b"replace":
            replace = True
        elif option == b"db" and index + 1 < len(args):
            target = context.databases[_database(context, args[index + 1], NOT_INTEGER)]
            index += 1
        else:
            raise ErrorReply(SYNTAX)
        index += 1
    if target is context.data and args[1] == args[2]:
        raise ErrorReply("ERR source and destination objects are the same")
    item = context.item(args[1])
    if item is None or (target.item(args[2]) is not None and not replace):
        return 0
    target.write(args[2], copied(item.value), expires_of(item))
    return 1


@native("dump")
def dump(context: Context, args: list[bytes]) -> Reply:
    item = context.item(args[1])
    return None if item is None else dumped(item.value)


@native("restore", "restore-asking")
def restore(context: Context, args: list[bytes]) -> Reply:
    words: set[bytes] = set()
    index = 4
    while index < len(args):
        option, more = args[index].lower(), index + 1 < len(args)
        if option in (b"replace", b"absttl"):
            words.add(option)
        elif option == b"idletime" and more and b"freq" not in words:
            integer(args[index + 1])
            if integer(args[index + 1]) < 0:
                raise ErrorReply("ERR Invalid IDLETIME value, must be >= 0")
            words.add(option)
            index += 1
        elif option == b"freq" and more and b"idletime" not in words:
            if not 0 <= integer(args[index + 1]) <= 255:
                raise ErrorReply("ERR Invalid FREQ value, must be >= 0 and <= 255")
            words.add(option)
            index += 1
        else:
            raise ErrorReply(SYNTAX)
        index += 1
    if b"replace" not in words and context.item(args[1]) is not None:
        raise ErrorReply("BUSYKEY Target key name already exists.")
    ttl_ms = integer(args[2])
    if ttl_ms < 0:
        raise ErrorReply("ERR Invalid TTL value, must be >= 0")
    content = restored(args[3])
    expires = None if ttl_ms == 0 else ttl_ms if b"absttl" in words else ttl_ms + context.now()
    if expires is not None and expires < context.now():
        context.data.remove(args[1])
    else:
        context.data.write(args[1], content, expires)
    return OK


# --- the database as a whole


@native("dbsize")
def dbsize(context: Context, args: list[bytes]) -> Reply:
    return len(context.data)


@native("flushdb", "flushall")
def flush(context: Context, args: list[bytes]) -> Reply:
    if len(args) > 2 or (len(args) == 2 and args[1].lower() not in (b"sync", b"async")):
        raise ErrorReply(SYNTAX)
    for data in context.databases if args[0].lower() == b"flushall" else [context.data]:
        for key in data._dict:
            data.notify_watch(key)
        data.wipe()
    return OK


@native("randomkey")
def randomkey(context: Context, args: list[bytes]) -> Reply:
    keys = list(context.data)
    return context.rng.choice(keys) if keys else None


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
        small = all(len(one) <= 64 for pair in content._values.items() for one in pair)
        return "listpack" if len(content) <= 128 and small else "hashtable"
    if kind is ZSet:
        small = all(len(member) <= 64 for member in content._bylex)
        return "listpack" if len(content) <= 128 and small else "skiplist"
    return "raw" if kind_of(content) == "string" else "stream"


def is_integer(value: bytes) -> bool:
    """Whether a string would be kept as a number."""
    if len(value) > 20:
        return False
    try:
        integer(value)
    except ErrorReply:
        return False
    return True


@native("object")
def object_(context: Context, args: list[bytes]) -> Reply:
    sub = args[1].lower()
    if sub == b"help":
        return help_of("object")
    item = context.item(args[2])
    if item is None:
        return None
    if sub == b"encoding":
        return "raw" if getattr(item, "raw", False) else encoding_of(item.value)
    if sub == b"refcount":
        shared = (
            not getattr(item, "raw", False)
            and type(item.value) is bytes
            and is_integer(item.value)
            and 0 <= int(item.value) < 10000
        )
        return 2147483647 if shared else 1
    if sub == b"idletime":
        return 0
    raise ErrorReply(
        "ERR An LFU maxmemory policy is not selected, access frequency not tracked. Please note that when switching "
        "between policies at runtime LRU and LFU data will take some time to adjust."
    )
