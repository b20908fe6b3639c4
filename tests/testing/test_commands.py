"""The table of commands says what a real server and a real sentinel of the same version say, errors included."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from hatopo.testing._reply import ErrorReply, encode
from hatopo.testing.commands import SENTINEL_TABLE, TABLE, Table, lookup
from hatopo.testing.commands import _table as _command_table
from tests.sentinels import SentinelProcess
from tests.servers import Server
from tests.testing.tagged import ALL, Request, Wire, answer, needs_7_0_15, ours, words_of
from tests.tools import generate_testing_commands


@pytest.fixture
def sentinel(redis_installed: tuple[int, ...]) -> Iterator[SentinelProcess]:
    """A sentinel that watches nobody who is there."""
    process = SentinelProcess("mymaster", ("127.0.0.1", 1), {}, 1)
    try:
        process.start()
        yield process
    finally:
        process.close()


def test_the_file_is_what_the_generator_writes(redis_installed: tuple[int, ...]) -> None:
    needs_7_0_15(redis_installed)
    path = Path(_command_table.__file__).with_name("_commands.json")
    assert path.read_text() == generate_testing_commands.render()
    assert path.stat().st_size < 150_000


def test_a_command_and_a_subcommand_as_values() -> None:
    get, kill = TABLE["get"], TABLE["client"].subcommands["kill"]
    assert (get.name, get.arity, get.first, get.last, get.step) == ("get", 2, 1, 1, 1)
    assert get.flags == {"readonly", "fast"}
    assert get.categories == {"read", "string", "fast"}
    assert kill.name == "client|kill"
    assert kill.arity == -3
    assert TABLE["ping"].tips == ("request_policy:all_shards", "response_policy:all_succeeded")
    assert TABLE["xread"].key_specs[0].begin == ("keyword", "STREAMS", 1)
    assert len(TABLE) == 240
    assert len(SENTINEL_TABLE) == 15
    assert SENTINEL_TABLE["ping"] is TABLE["ping"]
    assert "sentinel" not in TABLE
    assert "get" not in SENTINEL_TABLE


def test_the_file_is_json_with_a_line_for_each_command() -> None:
    text = Path(_command_table.__file__).with_name("_commands.json").read_text()
    assert set(json.loads(text)) == {"about", "commands", "sentinel", "shared"}
    assert text.count("\n") > len(TABLE)


def test_any_spelling_names_the_same_command() -> None:
    for request in ([b"get", b"k"], [b"GET", b"k"], [b"gEt", b"k"]):
        assert lookup(request) is TABLE["get"]
        assert lookup(request) is TABLE["get"]
    for request in ([b"client", b"LIST"], [b"CLIENT", b"list"], [b"Client", b"List"]):
        assert lookup(request) is TABLE["client"].subcommands["list"]
        assert lookup(request) is TABLE["client"].subcommands["list"]


def spelling(word: bytes, number: int) -> bytes:
    """The word with its letters in capitals where the number has ones."""
    return bytes(char - 32 * (number >> place & 1) for place, char in enumerate(word))


def test_spellings_do_not_fill_the_memory() -> None:
    """Names have more spellings than are remembered, and all of them are understood."""
    table, most = Table("server"), _command_table.MOST_SPELLINGS
    sizes, sub_sizes = set(), set()
    for number in range(2 * most + 10):
        assert lookup([spelling(b"georadiusbymember", number), *[b"x"] * 5], table) is TABLE["georadiusbymember"]
        container, sub = spelling(b"command", number % 128), spelling(b"getkeys", number // 128)
        assert lookup([container, sub, b"get", b"x"], table) is TABLE["command"].subcommands["getkeys"]
        sizes.add(len(table.spellings))
        sub_sizes.add(len(table.sub_spellings))
    assert max(sizes) == max(sub_sizes) == most


def refused() -> list[list[bytes]]:
    """Requests that a real server refuses before it executes anything."""
    requests: list[list[bytes]] = [
        [b"nosuch"],
        [b"NoSuch", b"a", b"b"],
        [b""],
        [b"", b""],
        [b"x" * 300, b"y" * 300],
        [b"nosuch", *[b"0123456789"] * 30],
        [b"nosuch", b"a" * 124, b"bcdefgh", b"c"],
        [b"nosuch", b"a" * 125, b"b"],
        [b"nosuch", b"a" * 127, b"b"],
        [b"line\r\nbreak", b"in\nargs", b"\r"],
        [b"zero\0tail", b"a\0b", b"c"],
        [b"quote'", b"it's"],
        [b"\xff\xfe", b"\xc3\x28", "é".encode()],
        [b"config|get", b"x"],
        [b"client|list"],
        [b"sentinel", b"masters"],
        [b"CLIENT", b"x"],
        [b"cLiEnT", b"N\0o"],
        [b"config", b"y" * 300],
        [b"config", b"a\r\nb"],
        [b"config", b"get|x"],
        [b"xinfo", b""],
    ]
    for command in ALL:
        words = words_of(command)
        if command.arity > 0:
            requests += [words + [b"x"] * (command.arity - len(words) + 1), [*words, *[b"x"] * command.arity]]
        if len(words) < abs(command.arity):
            requests.append(words + [b"x"] * (abs(command.arity) - len(words) - 1))
        if command.subcommands:
            requests += [[words[0]], [words[0].upper(), b"nosuch", b"a"]]
    # COMMAND without a subcommand is executed; to a refusal of EXEC its session adds EXECABORT.
    return [request for request in requests if is_refused(request) and request[0] != b"exec"]


def is_refused(request: Request) -> bool:
    try:
        lookup(request)
    except ErrorReply:
        return True
    return False


def test_refusals_have_the_words_of_a_real_server(server: Server, redis_installed: tuple[int, ...]) -> None:
    needs_7_0_15(redis_installed)
    requests = refused()
    assert len(requests) > 500
    with Wire(server) as wire:
        told = wire.ask(requests)
    for request, reply in zip(requests, told, strict=True):
        with pytest.raises(ErrorReply) as caught:
            lookup(request)
        assert ours(caught.value, 2) == reply, request


def test_refusals_of_a_sentinel(sentinel: SentinelProcess, redis_installed: tuple[int, ...]) -> None:
    needs_7_0_15(redis_installed)
    requests = [[b"get", b"k"], [b"sentinel"], [b"SENTINEL", b"x"], [b"sentinel", b"masters", b"x"], [b"spublish"]]
    with Wire(sentinel) as wire:
        told = wire.ask(requests)
    for request, reply in zip(requests, told, strict=True):
        with pytest.raises(ErrorReply) as caught:
            lookup(request, SENTINEL_TABLE)
        assert ours(caught.value, 2) == reply, request


def without_notes(reply: Any) -> Any:
    """Infos of commands without the notes of their keys."""
    if not isinstance(reply, tuple) or not isinstance(reply[1], list):
        return reply
    members = reply[1]
    if ("$", b"notes") in members:
        at = members.index(("$", b"notes"))
        members = members[:at] + members[at + 2 :]
    pairs = [one for one in members if not (isinstance(one, tuple) and one[0] == ("$", b"notes"))]
    return reply[0], [
        without_notes(one) if isinstance(one[0], str) else tuple(map(without_notes, one)) for one in pairs
    ]


def unordered(infos: Any) -> Any:
    """Infos of commands without notes, and without the order of commands and subcommands."""
    sign, members = without_notes(infos)
    return sign, sorted(
        (one if one[0] != "*" else (one[0], [*one[1][:9], unordered(one[1][9])]) for one in members), key=repr
    )


@pytest.mark.parametrize("protocol", [2, 3])
def test_info_of_all_commands(server: Server, redis_installed: tuple[int, ...], protocol: int) -> None:
    needs_7_0_15(redis_installed)
    with Wire(server, protocol) as wire:
        for request in ([b"COMMAND"], [b"COMMAND", b"INFO"]):
            (told,) = wire.ask([request])
            assert unordered(ours(answer(request), protocol)) == unordered(told)


@pytest.mark.parametrize("protocol", [2, 3])
def test_info_and_docs_of_a_sentinel(
    sentinel: SentinelProcess, redis_installed: tuple[int, ...], protocol: int
) -> None:
    needs_7_0_15(redis_installed)
    with Wire(sentinel, protocol) as wire:
        for request in ([b"command"], [b"command", b"info", b"sentinel|masters", b"get", b"ping"]):
            (told,) = wire.ask([request])
            assert unordered(ours(answer(request, SENTINEL_TABLE), protocol)) == unordered(told)
        assert wire.ask([[b"COMMAND", b"COUNT"]]) == [ours(answer([b"COMMAND", b"COUNT"], SENTINEL_TABLE), protocol)]
        assert listed(wire.ask([[b"COMMAND", b"LIST"]])[0]) == sorted(names(SENTINEL_TABLE))


@pytest.mark.parametrize("protocol", [2, 3])
def test_info_by_name_keeps_the_order_of_the_question(
    server: Server, redis_installed: tuple[int, ...], protocol: int
) -> None:
    needs_7_0_15(redis_installed)
    asked = b"get GET nosuch config|get Config|GET config|x get|x config|get|x set| | ".split(b" ")
    asked += [command.name.encode() for command in ALL if not command.subcommands]
    request = [b"COMMAND", b"INFO", *asked]
    with Wire(server, protocol) as wire:
        (told,) = wire.ask([request])
        assert without_notes(told) == ours(answer(request), protocol)


LEFT_OUT = (b"summary", b"complexity", b"replaced_by", b"arguments", b"history")


@pytest.mark.parametrize("protocol", [2, 3])
def test_docs_without_prose_arguments_and_history(
    server: Server, redis_installed: tuple[int, ...], protocol: int
) -> None:
    needs_7_0_15(redis_installed)

    def known(reply: Any) -> dict[bytes, Any]:
        """Docs by name in either protocol, without what is left out."""
        found = {}
        for (_, name), (_, value) in as_pairs(reply):
            facts = {}
            for (_, word), fact in as_pairs(("", value)):
                if word not in LEFT_OUT:
                    facts[word] = known(fact) if word == b"subcommands" else fact
            found[name] = facts
        return found

    def as_pairs(reply: Any) -> Any:
        members = reply[1]
        return members if protocol == 3 else zip(members[::2], members[1::2], strict=True)

    with Wire(server, protocol) as wire:
        for request in ([b"COMMAND", b"DOCS"], [b"COMMAND", b"DOCS", b"get", b"nosuch", b"CLIENT|LIST", b"config"]):
            (told,) = wire.ask([request])
            mine = ours(answer(request), protocol)
            assert mine[0] == told[0]
            assert known(mine) == known(told)


def names(table: Table) -> list[bytes]:
    return [one.name.encode() for command in table.values() for one in (command, *command.subcommands.values())]


def listed(reply: Any) -> list[bytes]:
    sign, members = reply
    assert sign == "*"
    assert {member[0] for member in members} <= {"$"}
    return sorted(member[1] for member in members)


CATEGORY_WORDS = [*sorted({word for command in ALL for word in command.categories}), "READ", "@read", "nosuch", ""]


PATTERNS = [b"*", b"get", b"GET", b"g?t", b"*|*", b"client|*", b"[A-C]*", b"", b"nosuch", b"*[^a-z]*", b"[\\S]*"]


def test_list_and_its_filters(server: Server, redis_installed: tuple[int, ...]) -> None:
    needs_7_0_15(redis_installed)
    head = [b"COMMAND", b"LIST"]
    filters = [[b"aclcat", word.encode()] for word in CATEGORY_WORDS]
    filters += [[b"PATTERN", pattern] for pattern in PATTERNS] + [[b"module", b"x"], [b"Module", b""]]
    requests = [head, *([*head, b"FilterBy", *one] for one in filters)]
    with Wire(server) as wire:
        for request, reply in zip(requests, wire.ask(requests), strict=True):
            assert listed(ours(answer(request), 2)) == listed(reply), request
    assert listed(ours(answer(head), 2)) == sorted(names(TABLE))


def test_other_subcommands_and_wrong_options(server: Server, redis_installed: tuple[int, ...]) -> None:
    needs_7_0_15(redis_installed)
    rest: list[list[bytes]] = [
        [b"COUNT"],
        [b"count", b"x"],
        [b"HELP", b"x"],
        [b"nosuch"],
        [b"LIST", b"x"],
        [b"LIST", b"FILTERBY"],
        [b"LIST", b"FILTERBY", b"pattern"],
        [b"LIST", b"FILTERBY", b"x", b"y"],
        [b"LIST", b"FILTERBY", b"pattern", b"*", b"x"],
        [b"LIST", b"FILTERBY\0", b"pattern\0x", b"get"],
        [b"GETKEYS"],
        [b"GETKEYSANDFLAGS"],
        [b"GETKEYS", b"nosuch", b"x"],
        [b"GETKEYS", b"config", b"nosuch"],
        [b"GETKEYS", b"config|get", b"x"],
        [b"GETKEYS", b"object"],
        [b"GETKEYS", b""],
    ]
    with Wire(server) as wire:
        for words, reply in zip(rest, wire.ask([[b"command", *one] for one in rest]), strict=True):
            assert ours(answer([b"command", *words]), 2) == reply, words


NAMES = st.sampled_from([command.name.encode() for command in ALL])
OPTIONS = st.sampled_from([b"FILTERBY", b"aclcat", b"pattern", b"module"])
ANY_WORD = st.one_of(NAMES, OPTIONS, st.binary(max_size=12))
SUBCOMMANDS = st.sampled_from([b"INFO", b"DOCS", b"LIST", b"GETKEYS", b"COUNT", b"x"])


@given(SUBCOMMANDS, st.lists(ANY_WORD, max_size=6))
@example(b"INFO", [b""])
@example(b"INFO", [b"|"])
@example(b"DOCS", [b"||", b"config|", b"|get"])
def test_command_answers_anything(subcommand: bytes, rest: list[bytes]) -> None:
    for table in (TABLE, SENTINEL_TABLE):
        reply = answer([b"COMMAND", subcommand, *rest], table)
        encode(reply, 2)
        encode(reply, 3)


@given(st.lists(ANY_WORD, min_size=1, max_size=6), st.sampled_from([TABLE, SENTINEL_TABLE]))
def test_lookup_finds_or_refuses_on_one_line(request_: list[bytes], table: Table) -> None:
    refusal = None
    try:
        lookup(request_, table)
    except ErrorReply as error:
        refusal = error
    assert refusal is None or (refusal.text.startswith("ERR ") and encode(refusal).count(b"\n") == 1)
