"""The engine of the embedded server by itself: time, effects, waiting, scripts, payloads, and what must not leak."""

from __future__ import annotations

import hashlib
import json
import logging
import random
import threading
import time
from collections.abc import Sequence

import fakeredis
import pytest
from fakeredis import _commands, _core, _helpers, _msgs, _socket, model
from fakeredis.model import _stream

from hatopo.testing._reply import NULL_ARRAY, OK, ErrorReply, Members, Reply, encode
from hatopo.testing.commands import TABLE, lookup
from hatopo.testing.engine import _patches as _engine_patches
from hatopo.testing.engine._engine import EngineSession, Keyspace, Waiting
from hatopo.testing.engine._natives import is_ours

START = 1_700_000_000.0


class Host:
    """What scripts ask; it refuses what it is told to refuse."""

    def __init__(self) -> None:
        self.refused: dict[str, str] = {}
        self.asked: list[str] = []

    def begin(self, flags: frozenset[str] | None, read_only: bool) -> None:
        if "begin" in self.refused:
            raise ErrorReply(self.refused["begin"])

    def check(self, name: str, args: Sequence[bytes]) -> None:
        self.asked.append(name)
        if name in self.refused:
            raise ErrorReply(self.refused[name])

    def call(self, args: Sequence[bytes]) -> Reply:
        return [b"host", *args]


class Node:
    """A keyspace with a client, a clock that is moved by hand, and a record of what has changed."""

    def __init__(self, seed: int = 1) -> None:
        self.now = START
        self.host = Host()
        self.changes: list[tuple[int, bytes]] = []
        self.keyspace = Keyspace(now=lambda: self.now, rng=random.Random(seed))
        self.keyspace.on_change = lambda db, key: self.changes.append((db, key))
        self.session = self.client()

    def client(self) -> EngineSession:
        return self.keyspace.session(self.host)

    def run(self, *words: str | bytes | int | float) -> Reply | Waiting:
        return self.session.execute([one if isinstance(one, bytes) else str(one).encode() for one in words])

    def changed(self, *words: str | bytes | int | float) -> list[bytes]:
        """The keys that a command has changed."""
        self.changes.clear()
        self.run(*words)
        return [key for _, key in self.changes]

    def error(self, *words: str | bytes | int | float) -> str:
        reply = self.run(*words)
        assert isinstance(reply, ErrorReply), reply
        return reply.text


@pytest.fixture
def node() -> Node:
    return Node()


# --- fakeredis has what we rely on, and others who use it notice nothing


def test_the_internal_names_of_fakeredis_are_there() -> None:
    assert fakeredis.__version__.startswith("2.40.")
    for name in ("_dict", "_expiry_heap", "schedule_expiry", "_remove_expired", "expired", "swap", "notify_watch"):
        assert hasattr(_core.Database(None), name), name
    for name in ("_db", "_db_num", "_client_info", "_blocking"):
        assert name in vars(_socket.FakeSocket(fakeredis.FakeServer(), 0, client_class=object)) or hasattr(
            _socket.FakeSocket, name
        ), name
    assert len([name for name in TABLE if is_ours(name) and name in _commands.SUPPORTED_COMMANDS]) > 150
    assert hasattr(_commands.Signature, "apply")
    for name in ("WRONG_ARGS_MSG6", "WRONG_ARGS_MSG7", "INVALID_MIN_MAX_STR_MSG", "BITOP_NOT_ONE_KEY_ONLY"):
        assert hasattr(_msgs, name), name
    assert _helpers.SimpleError("x").value == "x"
    zset, stream = model.ZSet(), model.XStream()
    assert {"_bylex", "_byscore"} <= vars(zset).keys()
    assert {"_ids", "_values_dict", "_nodes", "_groups", "_max_deleted_id", "_entries_added", "_last_id"} <= (
        vars(stream).keys()
    )
    assert "_values" in vars(model.Hash())
    assert "_values" in vars(model.ExpiringMembersSet())
    assert _stream.PelEntry._fields == ("consumer_name", "time_read", "times_delivered")


def test_every_clock_and_dice_of_fakeredis_is_replaced() -> None:
    Keyspace(now=time.time, rng=random.Random(1))
    assert _engine_patches.install() == []
    assert vars(_stream)["time"] is not time
    assert vars(_stream)["time"].sleep is time.sleep


def test_others_who_use_fakeredis_keep_the_real_time(node: Node) -> None:
    assert node.run("XADD", "s", "*", "f", "v") == b"1700000000000-0"
    entry: object = fakeredis.FakeRedis().xadd("s", {"f": "v"})
    assert isinstance(entry, bytes)
    assert int(entry.split(b"-")[0]) / 1000 > START + 1000


def test_the_clock_of_a_keyspace_is_not_seen_by_another_thread(node: Node) -> None:
    seen: list[float] = []
    _engine_patches.RUNNING.keyspace = node.keyspace
    try:
        thread = threading.Thread(target=lambda: seen.append(vars(_stream)["time"].time()))
        thread.start()
        thread.join()
        assert vars(_stream)["time"].time() == START
    finally:
        _engine_patches.RUNNING.keyspace = None
    assert seen[0] != START


# --- time and chance


def test_keys_expire_by_the_clock_of_the_keyspace(node: Node) -> None:
    node.run("SET", "k", "v", "PX", 1500)
    assert node.run("PTTL", "k") == 1500
    node.now += 1.5
    assert node.run("GET", "k") == b"v"
    node.now += 0.001
    node.changes.clear()
    assert node.run("GET", "k") is None
    assert node.changes == [(0, b"k")]
    assert node.run("DBSIZE") == 0


def test_times_to_live_are_kept_to_the_millisecond(node: Node) -> None:
    node.now += 0.7
    node.run("SET", "k", "v")
    for words, left in (("PSETEX k 150 v", 150), ("SETEX k 2 v", 2000), ("GETEX k PX 2500", 2500), ("PEXPIRE k 9", 9)):
        node.run(*words.split())
        assert node.run("PTTL", "k") == left
    node.run("PEXPIRE", "k", 2500)
    assert node.run("TTL", "k") == 3
    assert node.run("PEXPIRETIME", "k") == int(START * 1000) + 3200


def test_keys_that_nobody_reads_expire_when_it_is_their_turn(node: Node) -> None:
    node.run("SET", "a", "v", "EX", 1)
    node.run("SET", "b", "v", "EX", 100)
    node.now += 2
    node.changes.clear()
    node.keyspace.expire_due()
    assert node.changes == [(0, b"a")]
    assert node.keyspace.sizes() == {0: (1, 1)}


def test_a_replica_hides_what_has_expired_and_leaves_it_to_its_master(node: Node) -> None:
    node.run("SET", "k", "v", "EX", 1)
    node.keyspace.replica = True
    node.now += 2
    node.changes.clear()
    assert node.run("GET", "k") is None
    assert node.run("KEYS", "*") == []
    assert node.run("TTL", "k") == -2
    node.keyspace.expire_due()
    assert node.changes == []
    node.keyspace.replica = False
    assert node.changed("GET", "k") == [b"k"]


def test_time_stands_still_in_a_script(node: Node) -> None:
    ticks = iter(range(1_700_000_000, 1_800_000_000))
    keyspace = Keyspace(now=lambda: float(next(ticks)), rng=random.Random(1))
    session = keyspace.session(Host())
    script = b"redis.call('SET','k','v','EX',100) return {redis.call('TTL','k'), redis.call('TTL','k')}"
    assert session.execute([b"EVAL", script, b"0"]) == [100, 100]
    first, second = session.execute([b"TTL", b"k"]), session.execute([b"TTL", b"k"])
    assert isinstance(first, int)
    assert isinstance(second, int)
    assert first > second


@pytest.mark.parametrize("command", ["SPOP s 5", "SRANDMEMBER s -9", "RANDOMKEY", "HRANDFIELD h 3", "ZRANDMEMBER z 3"])
def test_chance_follows_the_seed(command: str) -> None:
    def drawn(seed: int) -> list[object]:
        node = Node(seed)
        found: list[object] = []
        for _ in range(5):
            node.keyspace.clear()
            node.run("SADD", "s", *range(50))
            node.run("HSET", "h", *range(50))
            node.run("ZADD", "z", *range(50))
            found.append(node.run(*command.split()))
        return found

    state = random.getstate()
    assert drawn(1) == drawn(1)
    assert drawn(1) != drawn(2)
    assert random.getstate() == state


# --- effects


@pytest.mark.parametrize(
    ("before", "command", "keys"),
    [
        ("", "SET k v", "k"),
        ("", "MSET a 1 b 2 a 3", "a b"),
        ("", "DEL k", ""),
        ("SET k v", "DEL k k nope", "k"),
        ("SADD k a", "SADD k a", ""),
        ("SADD k a", "SADD k a b", "k"),
        ("RPUSH k a", "LPOP k 0", ""),
        ("RPUSH k a", "LMPOP 1 k LEFT", "k"),
        ("SET k v", "GETEX k PERSIST", ""),
        ("SADD k a", "SREM k b", ""),
        ("SADD k a", "SMOVE k l a", "k l"),
        ("", "SINTERSTORE d a b", ""),
        ("SADD d x", "SINTERSTORE d a b", "d"),
        ("ZADD k 1 a", "ZADD k 1 a", ""),
        ("ZADD k 1 a", "ZADD k 2 a", "k"),
        ("RPUSH k a", "LMOVE k l LEFT LEFT", "k l"),
        ("RPUSH k a", "LPOP k", "k"),
        ("", "LPOP k", ""),
        ("SET k v", "EXPIRE k 100", "k"),
        ("SET k v", "PERSIST k", ""),
        ("SET k v", "RENAME k l", "k l"),
        ("SET k v", "COPY k l", "l"),
        ("SET k v", "GETDEL k", "k"),
        ("SET k v", "INCR k", ""),
        ("SET k v", "LPUSH k a", ""),
        ("XADD k 1-1 a b|XGROUP CREATE k g 0", "XREADGROUP GROUP g c STREAMS k >", "k"),
        ("XADD k 1-1 a b|XGROUP CREATE k g 0", "XGROUP CREATECONSUMER k g c", "k"),
        ("XADD k 1-1 a b|XGROUP CREATE k g 0", "XGROUP SETID k g $", "k"),
        ("XADD k 1-1 a b|XGROUP CREATE k g 0", "XACK k g 1-1", ""),
        ("XADD k 1-1 a b|XGROUP CREATE k g 0|XREADGROUP GROUP g c STREAMS k >", "XACK k g 1-1", "k"),
        ("XADD k 1-1 a b|XGROUP CREATE k g 0|XREADGROUP GROUP g c STREAMS k >", "XCLAIM k g d 0 1-1", "k"),
        ("XADD k 1-1 a b|XGROUP CREATE k g 0|XREADGROUP GROUP g c STREAMS k >", "XAUTOCLAIM k g d 0 0", "k"),
        ("XADD k 1-1 a b", "XDEL k 1-1", "k"),
        ("XADD k 1-1 a b", "XDEL k 2-1", ""),
        ("SETBIT k 1 1", "SETBIT k 1 1", ""),
        ("PFADD k a", "PFADD k a", ""),
        ("GEOADD k 1 1 a", "GEOADD k 1 1 a", ""),
        ("SET a 1|SET b 2", "FLUSHALL", "a b"),
        ("SET k v", "GET k", ""),
    ],
)
def test_each_key_that_changes_is_told_once(node: Node, before: str, command: str, keys: str) -> None:
    for one in filter(None, before.split("|")):
        assert not isinstance(node.run(*one.split()), ErrorReply)
    assert sorted(node.changed(*command.split())) == [key.encode() for key in keys.split()]


def test_a_script_tells_each_key_once_and_none_that_it_has_left_as_it_was(node: Node) -> None:
    code = "redis.call('SET','a',1) redis.call('SET','a',2) redis.call('SET','gone',1) redis.call('DEL','gone')"
    assert node.changed("EVAL", code, 0) == [b"a"]


def test_what_consumer_groups_do_can_be_told_apart(node: Node) -> None:
    quiet: list[bytes] = []
    node.keyspace.on_quiet_change = lambda db, key: quiet.append(key)
    node.run("XADD", "s", "1-1", "f", "v")
    node.run("XGROUP", "CREATE", "s", "g", 0)
    assert node.changed("XREADGROUP", "GROUP", "g", "c", "STREAMS", "s", ">") == []
    assert quiet[-1:] == [b"s"]
    both = "redis.call('XACK','s','g','1-1') redis.call('XADD','s','2-1','f','v')"
    quiet.clear()
    assert node.changed("EVAL", both, 0) == [b"s"]
    assert quiet == []


def test_effects_make_an_equal_copy(node: Node) -> None:
    other = Keyspace(now=lambda: node.now, rng=random.Random(2))
    node.keyspace.on_change = lambda db, key: other.put(db, key, node.keyspace.copy(db, key))
    commands = """SET s v EX 100|RPUSH l a b c|SADD m 1 2|ZADD z 1 a 2.5 b|HSET h f v|XADD x 1-1 a b|PFADD p a b
    XGROUP CREATE x g 0|XREADGROUP GROUP g c STREAMS x >|LPOP l|SPOP m|ZINCRBY z 1 a|HDEL h nope|EXPIRE h 10
    APPEND s w|XADD x 2-1 c d|XACK x g 1-1|RENAME l r|SETRANGE s 5 x|GEOADD geo 1 1 a|PERSIST h"""
    for command in commands.replace("\n", "|").split("|"):
        assert not isinstance(node.run(*command.split()), ErrorReply), command
    replica = other.session(Host())
    for key in ("s", "r", "m", "z", "h", "x", "p", "geo"):
        assert replica.execute([b"DUMP", key.encode()]) == node.run("DUMP", key) is not None
        assert replica.execute([b"PTTL", key.encode()]) == node.run("PTTL", key)
    node.run("RPUSH", "r", "later")
    assert replica.execute([b"LRANGE", b"r", b"0", b"-1"]) == [b"b", b"c", b"later"]
    node.keyspace.on_change = lambda db, key: None
    node.run("RPUSH", "r", "more")
    assert replica.execute([b"LLEN", b"r"]) == 3


def test_a_snapshot_holds_everything_and_is_independent(node: Node) -> None:
    node.run("SET", "a", "1", "EX", 50)
    node.run("RPUSH", "l", "x")
    node.session.db = 3
    node.run("SET", "b", "2")
    snapshot = node.keyspace.dump()
    node.keyspace.clear()
    other = Node()
    other.run("SET", "old", "1")
    other.keyspace.load(snapshot)
    assert other.keyspace.sizes() == {0: (2, 1), 3: (1, 0)}
    assert other.run("PTTL", "a") == 50000
    other.run("RPUSH", "l", "y")
    third = Node()
    third.keyspace.load(snapshot)
    assert third.run("LRANGE", "l", 0, -1) == [b"x"]
    assert node.keyspace.sizes() == {}
    assert third.changes == []


def test_databases_are_swapped(node: Node) -> None:
    node.run("SET", "a", "0", "EX", 10)
    node.keyspace.swap(0, 5)
    assert node.run("GET", "a") is None
    node.session.db = 5
    assert node.run("GET", "a") == b"0"
    node.now += 11
    assert node.run("GET", "a") is None
    assert node.session.db == 5


def test_what_the_engine_does_not_have_is_named(node: Node) -> None:
    for words in (["FCALL", "f", 0], ["FUNCTION", "LIST"], ["JSON.GET", "k"], ["SWAPDB", 0, 1]):
        assert node.error(*words) == f"ERR the embedded server does not have '{words[0]}'"
    assert not node.keyspace.handles("fcall")


# --- waiting


@pytest.mark.parametrize(
    ("command", "fill", "reply"),
    [
        ("BLPOP k l 0", "RPUSH k a b", [b"k", b"a"]),
        ("BRPOP k 1", "RPUSH k a b", [b"k", b"b"]),
        ("BLMOVE k d LEFT RIGHT 0", "RPUSH k a b", b"a"),
        ("BRPOPLPUSH k d 0", "RPUSH k a b", b"b"),
        ("BLMPOP 0 2 l k LEFT COUNT 2", "RPUSH k a b", [b"k", [b"a", b"b"]]),
        ("BZPOPMIN k 0", "ZADD k 1 a 2 b", [b"k", b"a", b"1"]),
        ("BZPOPMAX k 0", "ZADD k 1 a 2 b", [b"k", b"b", b"2"]),
        ("BZMPOP 0 1 k MIN", "ZADD k 1 a 2 b", [b"k", [[b"a", b"1"]]]),
        ("XREAD BLOCK 0 STREAMS k $", "XADD k 1-1 a b", [[b"k", [[b"1-1", [b"a", b"b"]]]]]),
    ],
)
def test_who_waits_is_served_once_and_takes_nothing_before(node: Node, command: str, fill: str, reply: Reply) -> None:
    words = [word.encode() for word in command.split()]
    waiting = node.session.execute(words)
    dropped = node.client().execute(words)
    assert isinstance(waiting, Waiting)
    assert isinstance(dropped, Waiting)
    assert b"k" in waiting.keys
    assert waiting.retry(b"k") is None
    node.run(*fill.split())
    before = node.run("DUMP", "k")
    del dropped
    assert node.run("DUMP", "k") == before
    assert waiting.retry(b"k") == reply
    assert waiting.expired() is NULL_ARRAY


def test_where_nobody_may_wait_the_answer_comes_at_once(node: Node) -> None:
    assert node.session.execute([b"BLPOP", b"k", b"0"], may_block=False) is NULL_ARRAY
    assert node.session.execute([b"BLMOVE", b"k", b"l", b"LEFT", b"LEFT", b"0"], may_block=False) is None
    assert node.session.execute([b"XREAD", b"BLOCK", b"0", b"STREAMS", b"k", b"$"], may_block=False) is NULL_ARRAY


def test_a_key_of_another_kind_is_refused_at_first_and_ignored_later(node: Node) -> None:
    waiting = node.run("BLPOP", "k", 0)
    assert isinstance(waiting, Waiting)
    node.run("SET", "k", "v")
    assert waiting.retry(b"k") is None
    assert node.error("BLPOP", "k", 0).startswith("WRONGTYPE")


def test_a_group_that_goes_away_ends_the_wait(node: Node) -> None:
    node.run("XGROUP", "CREATE", "s", "g", "$", "MKSTREAM")
    waiting = node.run("XREADGROUP", "GROUP", "g", "c", "BLOCK", 0, "STREAMS", "s", ">")
    assert isinstance(waiting, Waiting)
    node.run("XGROUP", "DESTROY", "s", "g")
    reply = waiting.retry(b"s")
    assert isinstance(reply, ErrorReply)
    assert reply.text.startswith("NOGROUP")


# --- scripts


@pytest.mark.parametrize(
    "expression",
    [
        *("python", "io", "os", "require", "package", "debug", "module", "dofile", "loadfile", "print"),
        *("getfenv", "setfenv", "newproxy", "lupa", "_G.python", "_G.debug", "_G.os", "_G.io", "_G.package"),
    ],
)
def test_a_script_has_no_way_out(node: Node, expression: str) -> None:
    assert "nonexistent global variable" in node.error("EVAL", f"return {expression}", 0)


ATTACKS = [
    "return redis.call.__globals__",
    "return redis.call.__class__",
    "local ok, e = pcall(redis.call, 'get') return e.__traceback__",
    "local ok, e = pcall(redis.call) return e.__class__",
    "local ok, e = pcall(cjson.decode, '{') return e.__traceback__.tb_frame",
    "return cjson.null.__class__",
    "return cjson.decode('[null]')[1].__class__",
    "return KEYS.__class__",
    "return getmetatable('').__index.dump",
    "return string.dump(function() end)",
    "return loadstring(string.char(27) .. 'Lua')()",
    "return load(function() return string.char(27) .. 'Lua' end)()",
    "return setmetatable(_G, {})",
    "rawset(_G, 'python', 1)",
    "string.format = nil",
    "redis.call = nil",
    "for k in pairs(getmetatable(redis.call)) do return k end",
    "return coroutine.wrap(function() return python end)()",
    "return xpcall(function() return python.eval('1') end, function(e) return e.__class__ end) and 1 or error('no')",
]


@pytest.mark.parametrize("code", ATTACKS)
def test_attacks_end_in_an_error_of_the_script(node: Node, code: str, caplog: pytest.LogCaptureFixture) -> None:
    reply = node.run("EVAL", code, 0)
    assert isinstance(reply, ErrorReply) or reply in (None, b"nil"), reply
    assert not caplog.records
    assert node.run("EVAL", "return redis.call('PING')", 0) == [b"host", b"PING"]
    assert node.run("EVAL", "return string.format('%d', 5)", 0) == b"5"


def test_no_value_of_a_script_belongs_to_python(node: Node) -> None:
    """All that a script can reach is made of tables, Lua functions, texts, numbers and the null of cjson."""
    code = """
    local seen, kinds = {}, {}
    local function visit(value)
        kinds[type(value)] = (kinds[type(value)] or 0) + 1
        if type(value) == 'userdata' and value ~= cjson.null then error('python: ' .. tostring(value)) end
        if type(value) ~= 'table' or seen[value] then return end
        seen[value] = true
        for k, v in pairs(value) do visit(k) visit(v) end
        if getmetatable(value) then visit(getmetatable(value)) end
    end
    visit(_G)
    visit(redis.pcall('GET'))
    visit(cjson.decode('{"a":[1,null,{}]}'))
    visit({pcall(redis.call, 'NOPE')})
    visit({pcall(cjson.decode, '{')})
    return {kinds['function'], kinds['table']}
    """
    reply = node.run("EVAL", code, 0)
    assert isinstance(reply, list)
    assert all(isinstance(count, int) and count > 5 for count in reply)


@pytest.mark.parametrize("body", ["while true do end", "while true do pcall(function() while true do end end) end"])
def test_a_script_without_end_is_stopped(node: Node, body: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hatopo.testing.engine._lua.STEPS", 3)
    assert "so long" in node.error("EVAL", body, 0)
    assert "so long" in node.error("EVAL", f"coroutine.wrap(function() {body} end)()", 0)
    assert node.run("EVAL", "return 1", 0) == 1


def test_a_script_asks_the_host_before_each_command_and_for_what_is_not_data(node: Node) -> None:
    node.host.refused["set"] = "READONLY no"
    sha = hashlib.sha1(b"return redis.call('SET','k','v')").hexdigest()
    assert node.error("EVAL", "return redis.call('SET','k','v')", 0) == (
        f"READONLY no script: {sha}, on @user_script:1."
    )
    reply = node.run("EVAL", "return redis.pcall('SET','k','v')", 0)
    assert isinstance(reply, ErrorReply)
    assert reply.text == "READONLY no"
    assert node.run("EVAL", "return redis.call('PUBLISH','c','m')", 0) == [b"host", b"PUBLISH", b"c", b"m"]
    assert node.host.asked == ["set", "set", "publish"]
    node.host.refused["begin"] = "MASTERDOWN no"
    assert node.error("EVAL", "return 1", 0) == "MASTERDOWN no"


@pytest.mark.parametrize(
    ("code", "text"),
    [
        ("return redis.call('NOPE')", "ERR Unknown Redis command called from script"),
        ("return redis.call('GET')", "ERR Wrong number of args calling Redis command from script"),
        ("return redis.call('SUBSCRIBE','c')", "ERR This Redis command is not allowed from script"),
        ("return redis.call('EVAL','return 1',0)", "ERR This Redis command is not allowed from script"),
        (
            "\n\nlocal x = redis.call('LPUSH','s','v')",
            "WRONGTYPE Operation against a key holding the wrong kind of value",
        ),
    ],
)
def test_errors_of_scripts_say_where(node: Node, code: str, text: str) -> None:
    node.run("SET", "s", "v")
    line = code.count("\n") + 1
    sha = hashlib.sha1(code.encode()).hexdigest()
    assert node.error("EVAL", code, 0) == f"{text} script: {sha}, on @user_script:{line}."


def test_a_script_that_only_reads_cannot_write(node: Node) -> None:
    for command, prefix in (("EVAL_RO", ""), ("EVAL", "#!lua flags=no-writes\n")):
        text = node.error(command, f"{prefix}return redis.call('SET','k','v')", 0)
        assert text.startswith("ERR Write commands are not allowed from read-only scripts. script: ")
    assert node.run("EVAL_RO", "return redis.call('GET','k')", 0) is None


def test_a_script_leaves_database_and_protocol_as_they_were(node: Node) -> None:
    node.session.protocol = 3
    node.run("SADD", "s", "a")
    code = "redis.setresp(2) local r = redis.call('SMEMBERS','s') return type(r[1])"
    assert node.run("EVAL", code, 0) == b"string"
    assert node.session.protocol == 3
    assert type(node.run("SMEMBERS", "s")) is Members


# --- payloads


@pytest.mark.parametrize(
    "fill",
    [
        "SET k v\x00w",
        "RPUSH k a b",
        "SADD k a b",
        "ZADD k 1.1 a -inf b",
        "HSET k f v g w",
        "PFADD k a b",
        "XADD k 1-1 f v|XADD k 2-1 f v|XGROUP CREATE k g 0|XREADGROUP GROUP g c COUNT 1 STREAMS k >|XDEL k 2-1",
    ],
)
def test_a_payload_carries_a_value_to_another_node(node: Node, fill: str) -> None:
    for command in fill.split("|"):
        assert not isinstance(node.run(*command.split(" ")), ErrorReply)
    payload = node.run("DUMP", "k")
    assert isinstance(payload, bytes)
    other = Node()
    assert other.run("RESTORE", "copy", 5000, payload) is OK
    assert other.run("DUMP", "copy") == payload
    assert other.run("TYPE", "copy") == node.run("TYPE", "k")
    assert other.run("PTTL", "copy") == 5000
    assert other.error("RESTORE", "copy", 0, payload) == "BUSYKEY Target key name already exists."
    assert other.run("RESTORE", "copy", int(START * 1000) + 9, payload, "REPLACE", "ABSTTL", "IDLETIME", 5) is OK
    assert other.run("PTTL", "copy") == 9


def payload_of(state: object) -> bytes:
    body = b"\x7fhatopo\x01" + json.dumps(state).encode()
    return body + hashlib.sha256(body).digest()[:8]


@pytest.mark.parametrize(
    "payload",
    [b"", b"abc", b"\x00\x03foo\x09\x00" + b"x" * 8, b"\x80\x04N.", payload_of(["string", "a"])[:-1] + b"?"],
)
def test_a_payload_of_somebody_else_is_refused(node: Node, payload: bytes) -> None:
    assert node.error("RESTORE", "k", 0, payload) == "ERR DUMP payload version or checksum are wrong"


@pytest.mark.parametrize(
    "state",
    [
        *(None, [], ["string"], ["string", 5], ["os", "x"], ["list", 5], ["zset", [["a"]]], ["zset", [["a", "x"]]]),
        *(["hash", {"a": 1}], ["stream", {}], ["stream", {"entries": [[1]]}], ["set", [[]]], ["string", "\u4e2d"]),
    ],
)
def test_a_payload_with_a_right_checksum_and_wrong_contents_is_refused(node: Node, state: object) -> None:
    assert node.error("RESTORE", "k", 0, payload_of(state)) == "ERR Bad data format"
    assert node.run("EXISTS", "k") == 0


# --- whatever is asked, the engine answers


def test_nonsense_is_answered_and_never_raises(caplog: pytest.LogCaptureFixture) -> None:
    """Random words for every command: replies that can be sent in both protocols, and no internal errors."""
    rng = random.Random(7)
    node = Node()
    names = [name for name in TABLE if node.keyspace.handles(name)]
    text = """a b k0 k1 k2 k3 k4 k5 0 1 -1 2 10 1.5 inf -inf nan * $ > - + ( [a (1 1-1 0-0 GET SET NX XX EX PX COUNT
    LIMIT WITHSCORES BYLEX BYSCORE REV MATCH STREAMS GROUP IDLE FORCE JUSTID STORE BY ALPHA LEFT RIGHT BEFORE km m
    FROMMEMBER FROMLONLAT BYRADIUS BYBOX WITHCOORD u8 i5 OVERFLOW FAIL IDX LEN RANK MAXLEN MINID ~ WEIGHTS AGGREGATE
    9223372036854775807 -9223372036854775808 18446744073709551616 1e400 \xff"""
    words = text.split()
    fill = "SADD k0 a b 1|ZADD k1 1 a 2 b|HSET k2 a 1 b x|RPUSH k3 a b 1|XADD k4 1-1 a b|SET k5 10|XGROUP CREATE k4 a 0"
    answered = 0
    with caplog.at_level(logging.ERROR):
        for turn in range(6000):
            if turn % 50 == 0:
                node.keyspace.clear()
                for command in fill.split("|"):
                    node.run(*command.split())
            name = rng.choice(names)
            subcommands = [one for one in TABLE[name].subcommands if one != "help"]  # which the node answers
            request = [name.encode()]
            if subcommands:
                request.append(rng.choice(subcommands).encode())
            request += [rng.choice(words).encode("latin-1") for _ in range(rng.randrange(8))]
            try:
                lookup(request)
            except ErrorReply:
                continue
            node.session.protocol = rng.choice((2, 3))
            reply = node.session.execute(request)
            if isinstance(reply, Waiting):
                reply = reply.expired()
            encode(reply, node.session.protocol)
            answered += not isinstance(reply, ErrorReply)
    assert answered > 500
    assert [record.getMessage() for record in caplog.records] == []


def test_a_fault_of_the_engine_becomes_an_error_reply(
    node: Node, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(key: bytes) -> None:
        raise TypeError("oops")

    monkeypatch.setattr(node.session.data, "item", fail)
    assert "TypeError" in node.error("GET", "k")
    assert caplog.records[0].name == "hatopo.testing"
    monkeypatch.undo()
    assert node.run("SET", "k", "v") is OK


@pytest.mark.parametrize(
    ("command", "two", "three"),
    [
        ("SMEMBERS s", b"*1\r\n$1\r\na\r\n", b"~1\r\n$1\r\na\r\n"),
        ("HGETALL h", b"*2\r\n$1\r\nf\r\n$1\r\nv\r\n", b"%1\r\n$1\r\nf\r\n$1\r\nv\r\n"),
        ("ZSCORE z m", b"$18\r\n3.2000000000000002\r\n", b",3.2000000000000002\r\n"),
        ("ZRANGE z 0 -1 WITHSCORES", b"*2\r\n$1\r\nm\r\n$18\r\n3.2000000000000002\r\n", None),
        ("LPOP nope 2", b"*-1\r\n", b"_\r\n"),
        ("XREAD STREAMS x $", b"*-1\r\n", b"_\r\n"),
        ("GEOPOS g nope", b"*1\r\n*-1\r\n", b"*1\r\n_\r\n"),
        ("XPENDING x g", b"*4\r\n:0\r\n$-1\r\n$-1\r\n*-1\r\n", b"*4\r\n:0\r\n_\r\n_\r\n_\r\n"),
    ],
)
def test_replies_have_the_shapes_of_both_protocols(node: Node, command: str, two: bytes, three: bytes | None) -> None:
    for one in ("SADD s a", "HSET h f v", "ZADD z 3.2 m", "XADD x 1-1 a b", "XGROUP CREATE x g $", "GEOADD g 1 1 a"):
        assert not isinstance(node.run(*one.split()), ErrorReply)
    for protocol, expected in ((2, two), (3, three)):
        node.session.protocol = protocol
        reply = node.run(*command.split())
        assert not isinstance(reply, Waiting)
        assert expected is None or encode(reply, protocol) == expected
