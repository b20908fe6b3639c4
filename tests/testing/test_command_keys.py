"""Which arguments are keys: the same answer as a real server, for every command and for requests that make no sense."""

from __future__ import annotations

import contextlib
import random

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hatopo.testing._reply import ErrorReply, encode
from hatopo.testing.commands import SENTINEL_TABLE, TABLE, Command, Table, find_keys, has_keys, keys_of, lookup
from tests.servers import Server
from tests.testing.tagged import ALL, Wire, answer, needs_7_0_15, ours, words_of

KEYED = [command for command in ALL if has_keys(command)]
WORDS = [
    *(b"STREAMS", b"keys", b"STORE", b"storedist", b"Get", b"by", b"LIMIT", b"count", b"block", b"GROUP", b"noack"),
    *(b"set", b"incrby", b"overflow", b"auth", b"AUTH2", b"copy", b"replace", b"", b"ex", b"store\0x", b"k e y"),
    *(b"0", b"1", b"2", b"3", b"-1", b"+1", b"02", b" 2", b"2x", b"1000", b"-0", b"4294967297", b"9" * 30, b"\xff"),
]
"""Whatever a rule for keys looks at. Counts between a million and 2^32 are missing: a real server asks for as much
memory."""


KNOWN_KEYS = [
    (b"GET k", b"k"),
    (b"MSET a 1 b 2", b"a b"),
    (b"EVAL s 2 a b x", b"a b"),
    (b"ZUNIONSTORE d 2 a b", b"d a b"),
    (b"ZUNIONSTORE d 02 a b", b"a b d"),
    (b"XREAD COUNT 2 STREAMS a b 0 0", b"a b"),
    (b"XREADGROUP GROUP g c STREAMS a >", b"a"),
    (b"SORT k BY w_* STORE d", b"k d"),
    (b"MIGRATE h 1 k 0 9", b"k"),
    (b"GEORADIUS k 1 2 3 m STORE d", b"k d"),
    (b"LMPOP 2 a b LEFT", b"a b"),
    (b"BLMPOP 0 2 a b LEFT", b"a b"),
    (b"OBJECT ENCODING k", b"k"),
    (b"XGROUP CREATE k g 0", b"k"),
    (b"MEMORY USAGE k", b"k"),
    (b"EVAL s 0", b""),
]


@pytest.mark.parametrize(("request_line", "keys"), KNOWN_KEYS, ids=[line.decode() for line, _ in KNOWN_KEYS])
def test_keys_of_requests(request_line: bytes, keys: bytes) -> None:
    request = request_line.split()
    found = find_keys(lookup(request), request)
    assert [key.name for key in found] == keys.split()
    assert [request[key.index] for key in found] == keys.split()


def test_flags_of_keys_depend_on_options() -> None:
    def flags(line: bytes) -> list[frozenset[str]]:
        return [key.flags for key in keys_of(lookup(line.split()), line.split())]

    assert flags(b"SET k v") == [{"OW", "update"}]
    assert flags(b"SET k v GET") == [{"RW", "access", "update"}]
    assert flags(b"BITFIELD k GET u8 0") == [{"RO", "access"}]
    assert flags(b"BITFIELD k GET u8 0 SET u8 0 1") == [{"RW", "access", "update"}]


def test_a_channel_of_a_shard_is_no_key() -> None:
    assert find_keys(lookup([b"SPUBLISH", b"c", b"m"]), [b"SPUBLISH", b"c", b"m"]) == []
    with pytest.raises(ErrorReply, match="ERR The command has no key arguments"):
        keys_of(TABLE["spublish"], [b"SPUBLISH", b"c", b"m"])


def requests_with_keys(command: Command) -> list[list[bytes]]:
    """Requests of many lengths: of plain words, of words that matter to rules for keys, and of both."""
    chance = random.Random(command.name)
    words, least = words_of(command), abs(command.arity)
    requests = [words + [b"w%d" % at for at in range(count)] for count in range(least + 6)]
    plain = [b"a", b"b", b"c"]
    for _ in range(1200 if "movablekeys" in command.flags or command.name in ("set", "bitfield") else 40):
        pool = WORDS + plain * chance.choice((1, 6, 12))
        rest = chance.choices(pool, k=max(0, least - len(words) + chance.choice((-1, 0, 0, 1, 2, 3, 4, 5, 7))))
        requests.append([*words, *rest])
    return requests


@pytest.mark.parametrize("subcommand", [b"GETKEYS", b"GETKEYSANDFLAGS"])
@pytest.mark.parametrize("protocol", [2, 3])
def test_keys_of_every_command(
    server: Server, redis_installed: tuple[int, ...], subcommand: bytes, protocol: int
) -> None:
    needs_7_0_15(redis_installed)
    with Wire(server, protocol) as wire:
        for command in ALL:
            requests = requests_with_keys(command) if has_keys(command) else [words_of(command)]
            requests = [[b"COMMAND", subcommand, *request] for request in requests]
            told = wire.ask(requests)
            for request, reply in zip(requests, told, strict=True):
                assert ours(answer(request), protocol) == reply, request
            if has_keys(command):
                assert any(reply[0] == "*" and reply[1] for reply in told), f"no keys were ever found: {command.name}"


SHAPES = [
    b"EVAL s {n} k k k",
    b"evalsha s {n} k",
    b"fcall_ro f {n} k k",
    b"ZMPOP {n} k k MIN",
    b"zunionstore d {n} k k",
    b"XREAD {w} 1 STREAMS k k 0 0",
    b"XREADGROUP STREAMS {w} k {w} k STREAMS {w}",
    b"xread STREAMS k {n} {w}",
    b"SORT k {w} {w} STORE {w} store {w}",
    b"sort k LIMIT {w} {w} {w}",
    b"SORT_RO k {w} {w} {w}",
    b"MIGRATE h 1 {e} 0 9 {w} {w} KEYS k k",
    b"MIGRATE h 1 {e} 0 9 AUTH2 {w} {w} {w} keys k",
    b"migrate h 1 k 0 9 KEYS",
    b"GEORADIUS k 1 2 3 m {w} STORE d STOREDIST {w}",
    b"georadiusbymember k m 3 m STORE d {w} storedist",
    b"SET k v {w} {w} {w}",
    b"BITFIELD k GET u8 0 {w} {w} {w} {w}",
    b"bitfield k OVERFLOW {w} {w} {w} GET {w} {w}",
]


def test_keys_of_requests_that_nearly_make_sense(server: Server, redis_installed: tuple[int, ...]) -> None:
    """Forms that reach the rules behind the key specifications."""
    needs_7_0_15(redis_installed)
    chance = random.Random(2)
    numbers = [*b"0 1 2 3 02 +2 2x x -1 4294967298 1\0 9999999999999999999999999".split(b" "), b" 2", b"\t1"]
    requests = []
    for shape in SHAPES:
        for _ in range(300):
            picks = {b"{n}": numbers, b"{w}": WORDS, b"{e}": [b"", b"", b"k"]}
            words = [chance.choice(picks[word]) if word in picks else word for word in shape.split()]
            requests.append([b"COMMAND", b"GETKEYSANDFLAGS", *words])
    with Wire(server) as wire:
        told = wire.ask(requests)
    assert sum(reply[0] == "*" for reply in told) > 1000
    assert sum(reply[0] == "-" for reply in told) > 100
    for request, reply in zip(requests, told, strict=True):
        assert ours(answer(request), 2) == reply, request


ANY_WORD = st.one_of(
    st.sampled_from(WORDS + [word for command in ALL for word in words_of(command)]),
    st.binary(max_size=12),
    st.integers().map(lambda number: b"%d" % number),
)
ANY_REQUEST = st.lists(ANY_WORD, min_size=1, max_size=12)


@given(ANY_REQUEST, st.sampled_from([TABLE, SENTINEL_TABLE]))
@example([b"EVAL", b"s", b"9" * 5000], TABLE)
@example([b"EVAL", b"s", b"0" * 5000 + b"1", b"k"], TABLE)
@example([b"EVAL", b"s", b"-" + b"9" * 30], TABLE)
def test_keys_are_arguments_or_an_error_reply_is_raised(request_: list[bytes], table: Table) -> None:
    with contextlib.suppress(ErrorReply):
        command = lookup(request_, table)
        for key in find_keys(command, request_):
            assert 0 < key.index < len(request_)
            assert request_[key.index] is key.name
        keys_of(command, request_)


@given(st.sampled_from(KEYED), st.lists(ANY_WORD, max_size=12), st.sampled_from([b"GETKEYS", b"getkeysandflags"]))
def test_keys_of_random_requests(command: Command, rest: list[bytes], subcommand: bytes) -> None:
    reply = answer([b"COMMAND", subcommand, *words_of(command), *rest])
    assert isinstance(reply, (list, ErrorReply))
    encode(reply, 3)
