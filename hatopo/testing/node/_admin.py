"""Administration: time, databases, saving, shutdown, DEBUG, and the reports that are always empty here.

Nothing takes long, is saved or loaded as a module in the embedded server, so LATENCY and MODULE answer as a real server
does that has nothing to tell, SLOWLOG has what is logged without regard to its time, and saving only moves the time
of the last save. What works on data asks
the engine; INFO, CONFIG and CLIENT have modules of their own.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Container
from typing import TYPE_CHECKING, Any

from hatopo.testing._reply import NO_REPLY, OK, ErrorReply, Members, Push, Reply, Status, Text
from hatopo.testing.commands import TABLE
from hatopo.testing.node._config import ROOM, SYNTAX_ERROR
from hatopo.testing.node._info import BYTES_PER_KEY, used_memory
from hatopo.testing.server._client_commands import address_of, wrong_form
from hatopo.testing.server._handlers import Handler, Handlers, integer, text
from hatopo.testing.server._help import subcommands_of
from hatopo.testing.server._monitors import redacted

if TYPE_CHECKING:
    from hatopo.testing.node._node import DataNode
    from hatopo.testing.server._server import Server
    from hatopo.testing.server._session import Session

commands = Handlers()

OUT_OF_RANGE = "ERR DB index is out of range"
NO_CLUSTER = "ERR This instance has cluster support disabled"
NO_KEY = "ERR no such key"
NOT_ALLOWED = (
    'ERR {0} command not allowed. If the enable-{1}-command option is set to "local", you can run it from a local '
    "connection, otherwise you need to set this option in the configuration file, and then restart the server."
)
LATENCY_DOCTOR = (
    "I'm sorry, Dave, I can't do that. Latency monitoring is disabled in this Redis instance. You may use \"CONFIG SET "
    "latency-monitor-threshold <milliseconds>.\" in order to enable it. If we weren't in a deep space mission I'd "
    "suggest to take a look at https://redis.io/topics/latency-monitor.\n"
)
MEMORY_DOCTOR = (
    "Hi Sam, this instance is empty or is using very little memory, my issues detector can't be used in these "
    "conditions. Please, leave for your mission on Earth and fill it with some data. The new Sam and I will be back to "
    "our programming as soon as I finished rebooting.\n"
)


# Time and databases


@commands("time")
def time_(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    seconds, rest = divmod(int(node.world.data_now * 1_000_000), 1_000_000)
    return [str(seconds), str(rest)]


@commands("select")
def select(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    number = integer(args[1])
    if not 0 <= number < node.config.databases:
        raise ErrorReply(OUT_OF_RANGE)
    session.engine.db = number
    return OK


@commands("swapdb")
def swapdb(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    one = integer(args[1], "ERR invalid first DB index")
    other = integer(args[2], "ERR invalid second DB index")
    if not (0 <= one < node.config.databases and 0 <= other < node.config.databases):
        raise ErrorReply(OUT_OF_RANGE)
    if one != other:
        _swap(node, session, one, other)
    return OK


def _swap(node: DataNode, session: Session, one: int, other: int) -> None:
    """Exchange two databases, and let those know who watch or wait for a key of either."""
    held = node.keyspace.dump().databases
    keys = [(number, key) for key in {**held.get(one, {}), **held.get(other, {})} for number in (one, other)]
    node.settle()
    node.replication.swap(one, other)
    node.keyspace.swap(one, other)
    for key in keys:
        node.watches.touch(key)
    for key in keys:
        node.waiters.serve(key)


# Saving and ending


def _saved(node: DataNode) -> None:
    node.config.saved_at = node.world.data_now
    node.config.saves += 1


@commands("save")
def save(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    _saved(node)
    return OK


@commands("bgsave")
def bgsave(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    if len(args) > 2 or (len(args) == 2 and args[1].lower() != b"schedule"):
        raise ErrorReply(SYNTAX_ERROR)
    _saved(node)
    return Status("Background saving started")


@commands("bgrewriteaof")
def bgrewriteaof(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    return Status("Background append only file rewriting started")


@commands("lastsave")
def lastsave(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    return int(node.config.saved_at)


@commands("shutdown")
def shutdown(server: Server, session: Session, args: list[bytes]) -> Reply:
    options = [word.lower() for word in args[1:]]
    unknown = {*options} - {b"nosave", b"save", b"now", b"force", b"abort"}
    if unknown or {b"save", b"nosave"} <= {*options} or (b"abort" in options and {*options} != {b"abort"}):
        raise ErrorReply(SYNTAX_ERROR)
    if b"abort" in options:
        raise ErrorReply("ERR No shutdown in progress.")
    server.kill()
    return NO_REPLY


# DEBUG


def _check_allowed(node: DataNode, container: str) -> None:
    """Raise unless the configuration allows a dangerous command; all connections are local ones here."""
    if node.config.get(f"enable-{container}-command") == "no":
        raise ErrorReply(NOT_ALLOWED.format(container.upper(), container))


@commands("debug")
def debug(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    _check_allowed(node, "debug")
    name, count = text(args[1]).lower(), len(args)
    if name == "help" and count == 2:
        return subcommands_of("debug", _DEBUG)
    expected, function = _DEBUG.get(name, ((), _debug_log))
    if count not in expected:
        raise wrong_form(args)
    return function(node, session, args)


def _debug_sleep(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    """Let the node stand still; within a transaction, as soon as that is over."""
    try:
        seconds = float(args[2])
    except ValueError:
        seconds = 0.0
    if seconds <= 0:
        return OK
    run, in_transaction = node.run_id, session.replies_of_transaction is not None
    node.pause()

    def wake() -> None:
        if node.running and node.run_id == run:
            note_slow(node, session, args, int(seconds * 1_000_000))
            if not in_transaction:
                session.answer(OK)
            node.resume()

    node.world.after(seconds, wake)
    return OK if in_transaction else NO_REPLY


def _debug_object(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    encoding = session.engine.execute([b"OBJECT", b"ENCODING", args[2]])
    if not isinstance(encoding, (bytes, str)):
        raise ErrorReply(NO_KEY)
    word = encoding if isinstance(encoding, str) else text(encoding)
    size = max(1, (_size_of(session, args[2]) or 0) - BYTES_PER_KEY)
    lru = int(node.world.data_now) & 0xFFFFFF
    return Status(
        f"Value at:0x7f0000000000 refcount:1 encoding:{word} serializedlength:{size} lru:{lru} lru_seconds_idle:0"
    )


def _debug_populate(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    wrong = "ERR value is out of range, must be positive"
    count = integer(args[2], wrong)
    size = integer(args[4], wrong) if len(args) == 5 else 0
    if count < 0 or size < 0:
        raise ErrorReply(wrong)
    prefix = args[3] if len(args) > 3 else b"key"
    for number in range(count):
        value = b"value:%d" % number
        value = value.ljust(size, b"\0")[:size] if size else value
        session.engine.execute([b"SET", b"%b:%d" % (prefix, number), value, b"NX"])
    return OK


def _debug_error(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    return ErrorReply(text(args[2]))


def _debug_log(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    return OK


def _debug_reload(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    if {word.upper() for word in args[2:]} - {b"MERGE", b"NOFLUSH", b"NOSAVE"}:
        raise ErrorReply("ERR DEBUG RELOAD only supports the MERGE, NOFLUSH and NOSAVE options.")
    _saved(node)
    return OK


def _debug_change_repl_id(node: Any, session: Session, args: list[bytes]) -> Reply:
    node.replication.change_id()
    return OK


SAMPLES: dict[str, Reply] = {
    "string": "Hello World",
    "integer": 12345,
    "double": 3.141,
    "null": None,
    "array": [0, 1, 2],
    "set": Members([0, 1, 2]),
    "map": {0: False, 1: True, 2: False},
    "attrib": "Some real reply following the attribute",
    "push": "Some real reply following the push reply",
    "true": True,
    "false": False,
    "verbatim": Text("This is a verbatim\nstring"),
}


def _debug_protocol(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    name = text(args[2]).lower()
    if name == "bignum":
        number = 1234567999999999999999999999999999999
        return number if session.protocol == 3 else str(number)
    if name not in SAMPLES:
        raise ErrorReply(
            "ERR Wrong protocol type name. Please use one of the following: string|integer|double|bignum|null|array|"
            "set|map|attrib|push|verbatim|true|false"
        )
    if name == "push":
        if session.protocol == 2:
            raise ErrorReply("ERR RESP2 is not supported by this command")
        session.push(*Push(["server-cpu-usage", 42]))
    return SAMPLES[name]


_DEBUG: dict[str, tuple[Container[int], Handler]] = {
    "sleep": ((3,), _debug_sleep),
    "object": ((3,), _debug_object),
    "populate": ((3, 4, 5), _debug_populate),
    "error": ((3,), _debug_error),
    "log": ((3,), _debug_log),
    "set-active-expire": ((3,), _debug_log),
    "quicklist-packed-threshold": ((3,), _debug_log),
    "set-disable-deny-scripts": ((3,), _debug_log),
    "pause-cron": ((3,), _debug_log),
    "reload": (range(2, 6), _debug_reload),
    "change-repl-id": ((2,), _debug_change_repl_id),
    "protocol": ((3,), _debug_protocol),
}
"""By subcommand: how many words it may have, and what it does."""


# SLOWLOG


MICROSECONDS = 1
"""How long any command takes."""


def note_slow(node: DataNode, session: Session, args: list[bytes], microseconds: int = MICROSECONDS) -> None:
    """A command has run: log it, if that was long."""
    limit, length = node.config.number("slowlog-log-slower-than"), node.config.number("slowlog-max-len")
    if 0 <= limit <= microseconds:
        source = (address_of(session), session.name)
        node.config.slow_log.add(redacted(args), int(node.world.data_now), microseconds, source, length)


@commands("slowlog|get")
def slowlog_get(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    if len(args) > 3:
        raise wrong_form(args)
    if len(args) == 3 and integer(args[2], wrong := "ERR count should be greater than or equal to -1") < -1:
        raise ErrorReply(wrong)
    count = integer(args[2]) if len(args) == 3 else 10
    return node.config.slow_log.entries[: count if count >= 0 else None]


@commands("slowlog|len")
def slowlog_len(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    return len(node.config.slow_log.entries)


@commands("slowlog|reset")
def slowlog_reset(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    node.config.slow_log.entries.clear()
    return OK


# What there is nothing to tell of


@commands("memory|purge")
def nothing_to_do(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    return OK


@commands("latency|latest", "latency|history", "module|list")
def nothing_there(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    return []


@commands("latency|graph")
def latency_graph(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    raise ErrorReply(f"ERR No samples available for event '{text(args[2])}'")


@commands("latency|reset")
def latency_reset(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    return 0


@commands("latency|histogram")
def latency_histogram(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    return {}


@commands("latency|doctor")
def latency_doctor(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    return Text(LATENCY_DOCTOR)


@commands("module|load", "module|loadex", "module|unload")
def module_change(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    _check_allowed(node, "module")
    if args[1].lower() == b"unload":
        raise ErrorReply("ERR Error unloading module: no such module with that name")
    raise ErrorReply("ERR Error loading the extension. Please check the server logs.")


# MEMORY


def _size_of(session: Session, key: bytes) -> int | None:
    """What a key might need in a real server; None if it is not there."""
    lengths = {
        "string": (b"STRLEN", 1),
        "list": (b"LLEN", 16),
        "hash": (b"HLEN", 32),
        "set": (b"SCARD", 24),
        "zset": (b"ZCARD", 40),
        "stream": (b"XLEN", 64),
    }
    kind = session.engine.execute([b"TYPE", key])
    if str(kind) not in lengths:
        return None
    command, width = lengths[str(kind)]
    count = session.engine.execute([command, key])
    return -(-(56 + len(key) + width * int(count)) // 8) * 8


@commands("memory|usage")
def memory_usage(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    if len(args) > 3:
        if len(args) != 5 or args[3].lower() != b"samples":
            raise ErrorReply(SYNTAX_ERROR)
        if integer(args[4]) < 0:
            raise ErrorReply(SYNTAX_ERROR)
    return _size_of(session, args[2])


@functools.cache
def _recorded_memory() -> dict[str, int | float]:
    told: dict[str, int | float] = json.loads((ROOM / "_admin.json").read_text())["memory"]
    return told


@commands("memory|stats")
def memory_stats(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    sizes, used = node.keyspace.sizes(), used_memory(node)
    keys = sum(count for count, _ in sizes.values())
    known = {"total.allocated": used, "peak.allocated": used, "keys.count": keys}
    found: dict[Reply, Reply] = {}
    for name, value in _recorded_memory().items():
        if name == "overhead.total":
            for number, (count, expiring) in sorted(sizes.items()):
                tables = {"main": 72 * count, "expires": 32 * expiring, "slot-to-keys": 0}
                found[f"db.{number}"] = {f"overhead.hashtable.{table}": size for table, size in tables.items()}
        found[name] = known.get(name, value)
    return found


@commands("memory|doctor")
def memory_doctor(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    return Text(MEMORY_DOCTOR)


@commands("memory|malloc-stats")
def malloc_stats(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    return Text("Stats not supported for the current allocator")


@commands("migrate")
def migrate(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    keys, index = [args[3]], 6
    while index < len(args):
        option, rest = args[index].lower(), len(args) - index - 1
        if option == b"keys":
            if args[3]:
                raise ErrorReply("ERR When using MIGRATE KEYS option, the key argument must be set to the empty string")
            keys, index = args[index + 1 :], len(args)
        width = {b"copy": 0, b"replace": 0, b"auth": 1, b"auth2": 2, b"keys": 0}.get(option, rest + 1)
        if width > rest:
            raise ErrorReply(SYNTAX_ERROR)
        index += width + 1
    integer(args[5])
    integer(args[4])
    if not any(node.keyspace.copy(session.engine.db, key) for key in keys):
        return Status("NOKEY")
    raise ErrorReply("IOERR error or timeout connecting to the client")  # embedded servers send their data to nobody


@commands("lolwut")
def lolwut(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    if len(args) > 2 and args[1].lower() == b"version":
        integer(args[2])
    return Text(f"Redis ver. {node.version}\n")


# What only a node of a cluster knows


@commands(*(f"cluster|{name}" for name in TABLE["cluster"].subcommands))
@commands("readonly", "readwrite", "asking")
def cluster(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    raise ErrorReply(NO_CLUSTER)
