from __future__ import annotations

import ast
import functools
import runpy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

from hatopo.routing import _commands, _overlay
from hatopo.routing._commands import FACTS, CommandClass, Facts, blocking_seconds, classify, facts_of
from hatopo.routing._commands import with_timeout as limited
from hatopo.routing._table import SERVER_VERSION

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

READ, REPEATABLE, STATE_STABLE, NON_IDEMPOTENT = CommandClass
REDIS_PY = Path(redis.__file__).parent
GENERATOR = Path(__file__).parents[1] / "tools" / "generate_commands.py"

EXAMPLES_OF = {
    READ: """
    GET k | MGET k l | HGETALL h | SCAN 0 | KEYS * | TYPE k | TTL k | DUMP k | LRANGE list 0 -1 | XRANGE x - +
    PING | INFO | ROLE | DBSIZE | TIME | ECHO hi | LASTSAVE | COMMAND | COMMAND COUNT | COMMAND DOCS get
    CONFIG GET maxmemory | CLIENT LIST | CLIENT ID | CLIENT INFO | CLIENT GETNAME | MEMORY USAGE k
    MEMORY DOCTOR | OBJECT ENCODING k | OBJECT HELP | SCRIPT EXISTS abc | FUNCTION LIST | FUNCTION STATS
    PUBSUB CHANNELS | PUBSUB NUMPAT | SLOWLOG GET | SLOWLOG LEN | LATENCY LATEST | ACL LIST | ACL WHOAMI
    ACL LOG | ACL LOG 5 | XINFO STREAM x | XINFO HELP | XPENDING x g | XREAD STREAMS x 0 | MODULE LIST
    CLUSTER INFO | CLUSTER KEYSLOT k | CLUSTER SLOTS | CLUSTER MIGRATION STATUS | DEBUG OBJECT k
    SENTINEL MASTERS | SENTINEL GET-MASTER-ADDR-BY-NAME m | SENTINEL CONFIG GET announce-ip | EVAL_RO s 0
    EVALSHA_RO s 0 | FCALL_RO f 0 | GETEX k | HGETEX h FIELDS 1 f | BITFIELD k GET u8 0
    BITFIELD k OVERFLOW SAT GET u8 0 | BITFIELD_RO k GET u8 0 | SORT list ALPHA | SORT list BY w_* GET # ALPHA
    GEORADIUS geo 1 1 5 km | GEORADIUSBYMEMBER geo m 5 km | SORT_RO list | LCS k l | STRALGO LCS KEYS k l
    JSON.GET j $ | JSON.MGET j k $ | TS.RANGE t - + | FT.SEARCH i q | FT.CONFIG GET * | BF.EXISTS b i
    CMS.QUERY c i | TOPK.LIST t | TDIGEST.MIN t | VSIM v ELE e | DIGEST k | HTTL h FIELDS 1 f | ARGET a 0
    """,
    REPEATABLE: """
    SET k v | SET k v EX 10 | SET k v px 10000 | SET k NX | SET k v EXAT 33177117420 | MSET k v l w
    SETEX k 100 v | PSETEX k 100000 v | HMSET h f v | EXPIREAT k 33177117420 | PEXPIREAT k 33177117420000
    SCRIPT LOAD return | CONFIG SET maxmemory 0 | SELECT 1 | AUTH p | HELLO 3 | READONLY | CLIENT SETNAME n
    RESTORE k 0 dump REPLACE | RESTORE k 9 dump ABSTTL replace | FUNCTION LOAD REPLACE code | MEMORY PURGE
    HSETEX h FIELDS 1 f v | HSETEX h EX 10 FIELDS 1 FNX v | HSETEX h FIELDS 1 f v PX 9 | MSETEX 1 k v EX 5
    MSETEX 1 k NX | HEXPIREAT h 33177117420 FIELDS 1 f | JSON.SET j $.a 1 | JSON.MSET j $ 1 k $.b 2
    JSON.MERGE j $ {} | TS.ALTER t RETENTION 5 | VSETATTR v e {} | SENTINEL CONFIG SET announce-ip h
    """,
    STATE_STABLE: """
    SADD s m | SREM s m | DEL k | UNLINK k l | HSET h f v | HSET h g v | HDEL h f | ZADD z 1 m
    ZADD z CH 1.5 m | ZADD z -inf m | ZREM z m | ZREMRANGEBYSCORE z 0 1 | SETBIT bits 7 1 | SETRANGE k 2 xx
    PFADD hll a | PFMERGE hll2 hll | GEOADD geo 1 2 m | XDEL x 1-1 | XACK x g 1-1 | XTRIM x MAXLEN 1
    EXPIRE k 100 | PEXPIRE k 100000 | PERSIST k | XADD x 5-5 f v | XADD x MAXLEN ~ 9 LIMIT 5 7 f v
    XADD x NOMKSTREAM 5-5 f v | XGROUP CREATE x g2 0 | XGROUP CREATECONSUMER x g c | XGROUP DESTROY x g
    BITFIELD k SET u8 0 5 GET u8 0 | SINTERSTORE d s t | SUNIONSTORE d s | SDIFFSTORE d s t
    ZUNIONSTORE d 1 z | ZINTERSTORE d 1 z | ZRANGESTORE d z 0 -1
    GEOSEARCHSTORE d geo FROMMEMBER m BYRADIUS 5 km | BITOP NOT d bits | CMS.MERGE d 1 c | FUNCTION LOAD code
    FUNCTION DELETE lib | DELEX k | HEXPIRE h 10 FIELDS 1 f | HPERSIST h FIELDS 1 f | XACKDEL x g IDS 1 1-1
    JSON.DEL j | JSON.DEL j $.a | BF.ADD b i | VADD v VALUES 1 1 e | FT.SUGADD d s 1
    FT.CREATE i SCHEMA t TEXT | TS.CREATE t | TS.DEL t 0 1 | WAIT 1 0 | WAITAOF 1 0 0
    """,
    NON_IDEMPOTENT: """
    SET k v NX | SET k v XX | SET k v GET | SET k v KEEPTTL | SET k v EX 10 NX | SET k v nx ex 10
    SET k v IFEQ w | SET k v FUTURE | SET k v FUTURE 1 | INCR k | INCRBYFLOAT k 1 | APPEND k v | LPUSH list v
    RPOP list | LMOVE a b LEFT LEFT | LTRIM list 0 1 | LREM list 0 v | LSET list 0 v | SPOP s | SMOVE s d m
    MSETNX k v | XADD x * f v | XADD x 5-* f v | XADD x MAXLEN ~ 9 * 5 5 | XADD x MAXLEN 5 * 5 5
    XADD x IDMP p 5 * f v | XADD x NOMKSTREAM * f v | XREADGROUP GROUP g c STREAMS x > | XCLAIM x g c 0 1-1
    XAUTOCLAIM x g c 0 0 | XGROUP SETID x g 0 | SETNX k v | HSETNX h f v | GETSET k v | GETDEL k
    GETEX k EX 5 | GETEX k PERSIST | RENAME k l | COPY k l | PUBLISH c m | SPUBLISH c m | MULTI | EXEC
    DISCARD | WATCH k | SUBSCRIBE c | EVAL s 0 | EVALSHA s 0 | FCALL f 0 | MIGRATE h 1 k 0 9 | FLUSHALL
    FLUSHDB | SCRIPT FLUSH | FUNCTION FLUSH | CONFIG RESETSTAT | SLOWLOG RESET | LATENCY RESET | ACL LOG RESET
    ACL SETUSER u | SWAPDB 0 1 | SHUTDOWN | DEBUG SLEEP 0 | EXPIRE k 5 NX | PEXPIREAT k 5 GT | EXPIREAT k 5 LT
    HEXPIRE h 5 XX FIELDS 1 f | HEXPIREAT h 5 GT FIELDS 1 f | ZADD z NX 1 m | ZADD z GT CH 1 m
    ZADD z INCR 1 m | ZADD z CH XX 1 m | GEOADD geo NX 1 2 m | ZINCRBY z 1 m | ZREMRANGEBYRANK z 0 1
    BITFIELD k INCRBY u8 0 1 | BITFIELD k SET u8 0 1 INCRBY u8 0 1 | BITOP XOR d d e | SORT list STORE d
    GEORADIUS geo 1 1 5 km STORE d | GEORADIUSBYMEMBER geo m 5 km storedist d | SDIFFSTORE d a d
    ZUNIONSTORE d 2 d z | ZRANGESTORE z z 1 -1 | RESTORE k 0 dump | RESTORE REPLACE 0 dump
    HSETEX h FNX FIELDS 1 f v | HSETEX h KEEPTTL FIELDS 1 f v | HSETEX h FIELDS 1 f v FXX
    HGETEX h EX 5 FIELDS 1 f | HGETDEL h FIELDS 1 f | HSETEX h FIELDS x f v | MSETEX 1 k v NX
    MSETEX 1 k v KEEPTTL | DELEX k IFEQ v | JSON.SET j $.a 1 NX | JSON.SET j $.a[0] 1 | JSON.SET j $..a 1
    JSON.DEL j $.a[0] | JSON.MSET j $ 1 j $[0] 2 | JSON.NUMINCRBY j $.a 1 | JSON.ARRAPPEND j $ 1
    TS.ADD t 1 2 | TS.INCRBY t 1 | BF.LOADCHUNK b 1 d | CF.ADD c i | CMS.MERGE d 2 d c | TOPK.ADD t i
    TDIGEST.ADD t 1 | FT.CURSOR READ i 1 | FT.SUGADD d s 1 INCR | HIMPORT SET k s v
    CLUSTER MIGRATION IMPORT 1 2 | CLUSTER FAILOVER | SENTINEL FAILOVER m | NOSUCH k | MY.MODULE k
    CONFIG NOSUCH k | COMMAND NOSUCH | CLIENT KILL ID 5 | CLIENT NOSUCH | XCFGSET x IDMP-MAXSIZE 5 | INCREX k
    LMOVEM a b LEFT LEFT
    """,
}


def commands_in(text: str) -> list[list[str]]:
    return [command.split() for line in text.strip().splitlines() for command in line.split(" | ")]


EXAMPLES = [(words, kind) for kind, text in EXAMPLES_OF.items() for words in commands_in(text)]


def spellings(words: Sequence[str]) -> Iterator[tuple[object, ...]]:
    """The ways in which one and the same command may be written."""
    yield tuple(words)
    yield tuple(word.encode() for word in words)
    yield (words[0].lower(), *words[1:])
    yield (bytearray(words[0].encode()), *(memoryview(word.encode()) for word in words[1:]))
    yield (" ".join(words),)
    if len(words) > 1:
        yield (" ".join(words[:2]), *words[2:])
        yield (" ".join(words[:2]).lower().encode(), *words[2:])


@pytest.mark.parametrize(("words", "kind"), EXAMPLES, ids=str)
def test_class_in_every_spelling(words: list[str], kind: CommandClass) -> None:
    for args in spellings(words):
        facts = facts_of(args)
        assert facts == facts_of(words)
        assert classify(args, facts) is kind, args


def test_examples_cover_every_rule() -> None:
    shown = {facts_of(words).name for words, _ in EXAMPLES}
    alike = {"HPEXPIRE", "HPEXPIREAT", "ZDIFFSTORE", "JSON.FORGET", "JSON.CLEAR"}
    assert {*_commands._PLAIN_FORM, *_commands._SAFER_FORM} <= shown | alike


ODD_NAMES: list[tuple[tuple[object, ...], str]] = [
    *[(("CONFIG", b"Get", "x"), "CONFIG GET"), (("SENTINEL", "CONFIG", "GET", "x"), "SENTINEL CONFIG")],
    *[(("COMMAND", "COUNT"), "COMMAND COUNT"), (("COMMAND",), "COMMAND"), (("SENTINEL",), "SENTINEL")],
    *[(("nosuch thing", "k"), "NOSUCH"), (("", "GET", "k"), "GET"), ((5,), "5"), ((None,), "")],
    *[((True,), ""), (("",), ""), ((b" ",), ""), ((), "")],
]


@pytest.mark.parametrize(("args", "name"), ODD_NAMES)
def test_odd_names(args: tuple[object, ...], name: str) -> None:
    assert facts_of(args).name == name


def test_facts_of_some_commands() -> None:
    assert facts_of(["MGET"]) == Facts("MGET", READ, True, False, False, 1, -1, 1, False)
    assert facts_of(["MEMORY", "USAGE"]) == Facts("MEMORY USAGE", READ, True, False, False, 2, 2, 1, False)
    assert facts_of(["BLMPOP"]) == Facts("BLMPOP", NON_IDEMPOTENT, False, True, False, 0, 0, 0, True)
    assert facts_of(["NOSUCH"]) == Facts("NOSUCH", NON_IDEMPOTENT, False, False, False, 0, 0, 0, False)
    assert facts_of(["EVAL_RO"]).readonly > facts_of(["PING"]).readonly
    assert facts_of(["CLIENT", "REPLY", "OFF"]).stateful > facts_of(["CLIENT", "LIST"]).stateful
    assert facts_of(["CLIENT"]).stateful
    assert facts_of(["CLIENT", "NOSUCH"]) == Facts("CLIENT", NON_IDEMPOTENT, False, False, True, 0, 0, 0, False)


def test_facts_agree_with_each_other() -> None:
    listed = [*_overlay.READ, *_overlay.REPEATABLE, *_overlay.STATE_STABLE]
    assert len(listed) == len(set(listed))
    assert FACTS.keys() >= {*listed, *_overlay.STATEFUL, *_overlay.BLOCKING}
    added = [name for names, *_ in _overlay.MORE_COMMANDS for name in names]
    assert len(added) == len(set(added))
    assert all(facts.kind is READ for facts in FACTS.values() if facts.readonly)
    assert all(facts.kind is READ for name, facts in FACTS.items() if name.endswith(" HELP"))
    assert {name for name in FACTS if FACTS[name].blocking} == {facts_of(c).name for c in commands_in(TIMEOUTS)}


# Calls with their timeout in brackets, and what it is in seconds.
TIMEOUTS = """
    BLPOP k l [5] = 5 | BLPOP k [0] = 0 | brpop k [0.25] = 0.25 | BRPOP k [-0] = 0 | BZPOPMIN z [2] = 2
    BLMOVE a b LEFT RIGHT [1e1] = 10 | BRPOPLPUSH a b [3.] = 3 | BLMOVEM a b LEFT LEFT [4] COUNT 2 OBO = 4
    BZPOPMAX z [.5] = 0.5 | BLMPOP [4] 1 k LEFT = 4 | BZMPOP [0] 1 z MIN = 0 | TS.READ BLOCK 5 BLOCK [100] 1 = 0.1
    XREAD block [2500] STREAMS x $ = 2.5 | XREAD COUNT 1 BLOCK [0] STREAMS BLOCK 5 = 0
    XREADGROUP GROUP BLOCK STREAMS NOACK BLOCK [9] STREAMS x > = 0.009 | WAIT 1 [500] = 0.5 | WAITAOF 1 1 [0] = 0
    """
MILLISECONDS = ("XREAD", "XREADGROUP", "TS.READ", "WAIT", "WAITAOF")
UNLIMITED: list[tuple[object, ...]] = [
    *[("GET", "k"), ("BLPOP",), ("XREAD", "BLOCK"), ("XREAD", "STREAMS", "BLOCK", "5")],
    *[("XREADGROUP", "GROUP", "BLOCK", "5", "STREAMS", "x", ">"), ("TS.READ", "k", 0, "MAX_COUNT", 5)],
    *(("BLPOP", "k", wrong) for wrong in ("soon", -1, float("nan"), "1_0", True, None, 1e30, 10**5000)),
    *(("WAIT", 1, wrong) for wrong in (0.5, -1, "05", "9" * 19)),
]


@pytest.mark.parametrize("case", commands_in(TIMEOUTS), ids=str)
def test_blocking(case: list[str]) -> None:
    *call, _, seconds = case
    place = next(place for place, word in enumerate(call) if word.startswith("["))
    for args in spellings([word.strip("[]") for word in call]):
        facts = facts_of(args)
        assert blocking_seconds(args, facts) == float(seconds)
        words = tuple(word for arg in args for word in (arg.split() if isinstance(arg, (str, bytes)) else [arg]))
        limit = 1500 if facts.name in MILLISECONDS else 1.5
        again = limited(args, facts, 1.5)
        assert again == (*words[:place], limit, *words[place + 1 :])
        assert blocking_seconds(again, facts) == 1.5
        for nothing_left in (0.0, -3.0, 0.0001):
            assert blocking_seconds(limited(args, facts, nothing_left), facts) == 0.001


@pytest.mark.parametrize("args", UNLIMITED)
def test_not_blocking(args: tuple[object, ...]) -> None:
    assert blocking_seconds(args, facts_of(args)) is None
    assert limited(args, facts_of(args), 5) is args


WORDS = ["NX", b"nx", "FIELDS", "BLOCK", "STREAMS", "MAXLEN", "~", "GET", "SET", "10", "", " ", 10**5000]
ODD = [memoryview(b"get"), bytearray(b"xx"), None, True, object(), (), {}]
SIMPLE = st.one_of(st.text(max_size=8), st.binary(max_size=8), st.integers(), st.floats())
ANY_ARGUMENT = st.one_of(st.sampled_from([*sorted(FACTS), *WORDS, *ODD]), SIMPLE)


@given(st.lists(ANY_ARGUMENT, max_size=8), st.floats(-10, 1e6))
def test_nothing_raises(args: list[Any], seconds: float) -> None:
    facts = facts_of(args)
    assert isinstance(classify(args, facts), CommandClass)
    limit = blocking_seconds(args, facts)
    assert limit is None or limit >= 0
    again = limited(tuple(args), facts, seconds)
    assert limit is not None or len(again) == len(args)


@given(st.sampled_from(sorted(FACTS)), st.lists(ANY_ARGUMENT, max_size=6))
def test_kind_read_is_a_promise(name: str, arguments: list[Any]) -> None:
    facts = facts_of([name, *arguments])
    assert facts.kind is not READ or classify([name, *arguments], facts) is READ


SET_OPTIONS = [["EX", 10], ["px", b"10"], ["EXAT", "10"], ["PXAT", 10], ["NX"], [b"xx"], ["Get"], ["KEEPTTL"]]
ZADD_FLAGS = ["NX", "xx", b"GT", "LT", "Incr", bytearray(b"CH")]


@given(st.lists(st.sampled_from([*SET_OPTIONS, ["IFEQ", "v"], ["LATER"], ["LATER", 1]]), max_size=5))
def test_a_set_is_repeated_only_if_all_it_has_are_times(options: list[list[object]]) -> None:
    args = ("SET", "NX", "XX", *(word for option in options for word in option))
    plain = all(option in SET_OPTIONS[:4] for option in options)
    assert classify(args, facts_of(args)) is (REPEATABLE if plain else NON_IDEMPOTENT)


@given(st.lists(st.sampled_from(ZADD_FLAGS), max_size=4), st.floats(allow_nan=False), st.text())
def test_a_conditional_zadd_is_never_repeated(flags: list[object], score: float, member: str) -> None:
    args = ("ZADD", "z", *flags, score, member)
    plain = flags in ([], [b"CH"])
    assert classify(args, facts_of(args)) is (STATE_STABLE if plain else NON_IDEMPOTENT)


DYNAMIC = {"execute", "cluster"}  # their callers name the command: BITFIELD's builder, and CLUSTER <anything>


@functools.cache
def constants(file: Path, with_imports: bool) -> dict[str, str]:
    """The string constants at the top of a module of redis-py, and those that it imports from others."""
    found: dict[str, str] = {}
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.ImportFrom) and with_imports:
            package = file.parents[node.level - 1] if node.level else REDIS_PY.parent
            source = package.joinpath(*(node.module or "").split(".")).with_suffix(".py")
            theirs = constants(source, False) if source.is_file() else {}
            found |= {name.name: theirs[name.name] for name in node.names if name.name in theirs}
        elif isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            for value in strings(node.value, found):
                found[node.targets[0].id] = value
    return found


def strings(node: ast.expr, known: dict[str, str]) -> list[str]:
    """What an expression may be, as far as the source tells."""
    match node:
        case ast.Constant(value=str(text)):
            return [text]
        case ast.Name(id=name) if name in known:
            return [known[name]]
        case ast.JoinedStr(values=parts):
            texts = [strings(p.value if isinstance(p, ast.FormattedValue) else p, known) for p in parts]
            return ["".join(text[0] for text in texts)] if all(texts) else []
    return []


def calls(tree: ast.AST, method: str) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == method:
            yield node


class Source:
    """The commands of one module of redis-py, followed through local variables and private helpers."""

    def __init__(self, file: Path) -> None:
        self.tree = ast.parse(file.read_text())
        self.known = constants(file, True)
        self.commands: set[str] = set()
        self.unresolved: set[str] = set()
        for function in ast.walk(self.tree):
            if isinstance(function, (ast.FunctionDef, ast.AsyncFunctionDef)):
                for call in calls(function, "execute_command"):
                    found = set(self.names(call.args, function))
                    self.commands |= found
                    self.unresolved |= set() if found else {function.name}

    def names(self, words: list[ast.expr], function: Any) -> Iterator[str]:
        """What the first words say; the second one counts where the first is a container."""
        match words:
            case [ast.Starred(value=ast.Name(id=variable)), *_]:
                for value in self.values(variable, function):
                    while isinstance(value, ast.BinOp):
                        value = value.left
                    if isinstance(value, (ast.List, ast.Tuple)):
                        yield from self.names(value.elts, function)
            case [ast.Name(id=variable), *_] if variable not in self.known:
                for value in self.values(variable, function):
                    yield from strings(value, self.known)
            case [first, *rest]:
                for name in strings(first, self.known):
                    second = strings(rest[0], self.known) if rest and name in _commands.CONTAINERS else []
                    yield " ".join([name, *second])

    def values(self, variable: str, function: Any) -> Iterator[ast.expr]:
        """What a variable is set to in a function, or what its callers pass for a parameter."""
        for node in ast.walk(function):
            if isinstance(node, (ast.Assign, ast.AnnAssign)) and node.value is not None:
                target = node.targets[0] if isinstance(node, ast.Assign) else node.target
                if getattr(target, "id", "") == variable:
                    yield node.value
        parameters = [argument.arg for argument in function.args.args]
        if variable in parameters:
            place = parameters.index(variable) - 1
            for call in calls(self.tree, function.name):
                yield from call.args[place : place + 1]


def test_every_command_of_redis_py_has_a_class() -> None:
    sources = [Source(file) for file in (REDIS_PY / "commands").rglob("*.py")]
    commands = {name.upper() for source in sources for name in source.commands}
    expected = ["GET", "CONFIG GET", "EVALSHA_RO", "ZRANGESTORE", "MSETNX", "GEOSEARCHSTORE", "SENTINEL SET"]
    assert commands.issuperset([*expected, "JSON.SET", "FT.CURSOR READ", "FT.INFO", "TS.INFO", "BF.ADD"])
    assert len(commands) > 350
    assert {name for source in sources for name in source.unresolved} <= DYNAMIC
    plain = FACTS.keys() - _commands.CONTAINERS  # "LOLWUT VERSION" is LOLWUT with an argument
    assert {name for name in commands if name not in FACTS and name.split()[0] not in plain} == set()


@pytest.fixture(scope="module")
def server() -> Iterator[tuple[int, str]]:
    """The port of a server, and the table that is generated from it."""
    if shutil.which("redis-server") is None:
        pytest.skip("redis-server is not on the PATH")
    tool = runpy.run_path(str(GENERATOR))
    with tool["own_server"]() as port:
        yield port, tool["render"](port)


@pytest.mark.real
def test_table_is_what_the_server_says(server: tuple[int, str]) -> None:
    said: dict[str, Any] = {}
    exec(server[1], said)
    if said["SERVER_VERSION"] == SERVER_VERSION:
        assert server[1] == Path(_commands.__file__).with_name("_table.py").read_text()
    for name, flags, *keys in said["TABLE"]:
        facts = FACTS.get(name)
        if facts and name not in _commands.CONTAINERS:
            ours = [facts.first_key, facts.last_key, facts.key_step]
            assert ("r" in flags, True) == (facts.readonly, facts.movable_keys or keys == ours), name
            assert facts.blocking or "b" not in flags, name


SETUP = """
    SET k v | SET l w EX 1000 | RPUSH list a b | HSET h f 1 | SADD s m n | SADD t n | ZADD z 1 m 2 n
    SETBIT bits 3 1 | PFADD hll b | PFADD hll2 c | GEOADD geo 1 1 m | XADD x 1-1 f v | XADD x 2-1 f v
    XGROUP CREATE x g 0 | XREADGROUP GROUP g c STREAMS x >
    """


def outcome(connection: redis.Connection, *words: str) -> tuple[object, object]:
    """The reply to a command, or its error, and all that the database holds afterwards."""

    def ask(*words: Any) -> Any:
        connection.send_command(*words)
        try:
            return connection.read_response()
        except redis.ResponseError as error:
            return str(error)

    reply = ask(*words)
    return reply, [(key, ask("DUMP", key), ask("PTTL", key) > 0) for key in sorted(ask("KEYS", "*"))]


@pytest.mark.real
def test_a_second_application_does_what_the_class_says(server: tuple[int, str]) -> None:
    connection = redis.Connection(port=server[0], protocol=2)
    tried = 0
    for words, kind in EXAMPLES:
        facts = facts_of(words)
        if kind is NON_IDEMPOTENT or facts.stateful or facts.blocking:
            continue
        for command in [["FLUSHALL"], *commands_in(SETUP)]:
            _, before = outcome(connection, *command)
        first_reply, first_state = outcome(connection, *words)
        second_reply, second_state = outcome(connection, *words)
        assert second_state == first_state, words
        assert kind is not READ or first_state == before, words
        assert kind is not REPEATABLE or second_reply == first_reply, words
        tried += "unknown" not in str(first_reply)
    connection.disconnect()
    assert tried > 100
