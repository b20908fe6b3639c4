"""The embedded server answers like a real one: the same conversations with both, and what differs has a reason."""

from __future__ import annotations

import re
import socket
from collections.abc import Iterator

import pytest

from tests.testing.accepted import ACCEPTED
from tests.testing.corpus import Conversation, conversations, parse
from tests.testing.differential import Heard, Subject, compare, differences, start_embedded, start_real
from tests.testing.wire import MASKS, Connection, Wire

CORPUS = conversations()
CASES = [(conversation, protocol) for conversation in CORPUS for protocol in conversation.protocols]
LEFT_OUT = {
    *("function", "fcall", "fcall_ro"),  # the embedded server has no libraries of functions
    "cluster",  # all of it has one answer where there is no cluster
    *("psync", "bgrewriteaof", "module", "pfdebug"),  # not for clients
}
"""Commands, with all that is below them, that the corpus may leave out."""


@pytest.fixture(scope="module")
def real_node(redis_installed: tuple[int, ...]) -> Iterator[Subject]:
    with start_real(1) as subject:
        yield subject


@pytest.fixture(scope="module")
def real_pair(redis_installed: tuple[int, ...]) -> Iterator[Subject]:
    with start_real(2) as subject:
        yield subject


@pytest.fixture(scope="module")
def embedded_node() -> Iterator[Subject]:
    with start_embedded(1) as subject:
        yield subject


@pytest.fixture(scope="module")
def embedded_pair() -> Iterator[Subject]:
    with start_embedded(2) as subject:
        yield subject


@pytest.fixture(autouse=True, scope="module")
def _same_version(redis_installed: tuple[int, ...]) -> None:
    if redis_installed[:2] != (7, 0):
        pytest.skip("the embedded server answers like Redis 7.0")


@pytest.mark.parametrize(
    ("conversation", "protocol"), CASES, ids=[f"{conversation.name} resp{protocol}" for conversation, protocol in CASES]
)
def test_the_embedded_server_answers_like_a_real_one(
    conversation: Conversation, protocol: int, request: pytest.FixtureRequest
) -> None:
    kind = "pair" if conversation.pair else "node"
    real: Subject = request.getfixturevalue(f"real_{kind}")
    embedded: Subject = request.getfixturevalue(f"embedded_{kind}")
    found = compare(conversation, real, embedded, protocol)
    accepted = {one.step for one in ACCEPTED if one.conversation == conversation.name and protocol in one.protocols}
    new = [one for one in found if one.step not in accepted]
    assert not new, f"{len(new)} differences in {conversation}:\n" + "\n".join(map(str, new))
    gone = accepted - {one.step for one in found}
    assert not gone, f"no longer different, to be struck from accepted.py: {sorted(gone)}"


@pytest.mark.parametrize("nodes", [1, 2])
def test_two_real_servers_do_not_differ(nodes: int, redis_installed: tuple[int, ...]) -> None:
    # What the corpus compares is what cannot vary: neither a mask is missing, nor is a reply a matter of chance.
    with start_real(nodes) as one, start_real(nodes) as other:
        for conversation, protocol in CASES:
            if conversation.pair == (nodes == 2):
                found = compare(conversation, one, other, protocol)
                assert not found, f"{conversation} in RESP{protocol}:\n" + "\n".join(map(str, found))


def test_accepted_differences_are_few_and_name_lines_of_the_corpus() -> None:
    assert len(ACCEPTED) < 15
    lines = {conversation.name: conversation for conversation in CORPUS}
    for one in ACCEPTED:
        assert one.reason
        step, number = re.fullmatch(r"(.*?)(?:  \((\d+)\))?", one.step, re.DOTALL).groups("1")  # type: ignore[union-attr]
        again = [line for line in lines[one.conversation].steps if line.text == step]
        assert len(again) >= int(number), one
        assert set(one.protocols) <= set(lines[one.conversation].protocols), one


def test_the_corpus_speaks_every_command_but_those_left_out(real_node: Subject) -> None:
    used = {b"|".join(words[:size]).lower() for one in CORPUS for words in one.commands for size in (1, 2)}
    assert len({words for one in CORPUS for words in one.commands}) >= 600
    said = real_node.control(0, "COMMAND", "LIST").body
    assert isinstance(said, tuple)
    names = {one.body for one in said if isinstance(one.body, bytes)}
    silent = {name.decode() for name in names - used}
    assert {name for name in silent if name.partition("|")[0] not in LEFT_OUT} == set()
    assert len({one.name for one in CORPUS}) == len(CORPUS)


def heard(data: bytes) -> Wire:
    """What the parser makes of these bytes."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        connection = Connection(ours)
        theirs.sendall(data)
        theirs.close()
        return connection.read()


@pytest.mark.parametrize(
    "spellings",
    [
        [b"$-1\r\n", b"*-1\r\n", b"_\r\n", b"$0\r\n\r\n", b"*0\r\n", b"%0\r\n", b"~0\r\n", b">0\r\n", b""],
        [b":1\r\n", b"$1\r\n1\r\n", b"+1\r\n", b",1\r\n", b",1.0\r\n", b"(1\r\n", b"-1\r\n", b"#t\r\n"],
        [b"*2\r\n:1\r\n:2\r\n", b"*2\r\n:2\r\n:1\r\n", b"*1\r\n*2\r\n:1\r\n:2\r\n", b"%1\r\n:1\r\n:2\r\n"],
        [b"$7\r\ntxt:a b\r\n", b"=7\r\ntxt:a b\r\n", b"*2\r\n+a\r\n+b\r\n", b"*1\r\n+a b\r\n", b"*1\r\n+a"],
    ],
    ids=["nothing", "one", "arrays", "texts"],
)
def test_no_two_spellings_are_taken_for_one(spellings: list[bytes]) -> None:
    seen = [str(heard(spelling)) for spelling in spellings]
    assert len(set(seen)) == len(spellings), seen


@pytest.mark.parametrize(
    ("mark", "words", "hides", "shows"),
    [
        ("shape", "", (b"*1\r\n:1\r\n", b"*1\r\n:2\r\n"), (b"*1\r\n:1\r\n", b"*1\r\n$1\r\n1\r\n")),
        ("kind", "", (b"*1\r\n:1\r\n", b"*0\r\n"), (b"*0\r\n", b"~0\r\n")),
        ("sorted", "", (b"*2\r\n:1\r\n:2\r\n", b"*2\r\n:2\r\n:1\r\n"), (b"*1\r\n:1\r\n", b"*1\r\n:2\r\n")),
        ("at", "1", (b"*2\r\n:1\r\n:2\r\n", b"*2\r\n:1\r\n:3\r\n"), (b"*1\r\n:1\r\n", b"*1\r\n:2\r\n")),
        ("after", "a", (b"*2\r\n+a\r\n:2\r\n", b"*2\r\n+a\r\n:3\r\n"), (b"*2\r\n+b\r\n:2\r\n", b"*2\r\n+b\r\n:3\r\n")),
        ("info", "", (b"$5\r\na:1\r\n\r\n", b"$5\r\na:2\r\n\r\n"), (b"$3\r\na:1\r\n", b"$3\r\nb:1\r\n")),
        ("clients", "", (b"$8\r\nid=1 a=1\r\n", b"$8\r\nid=2 a=1\r\n"), (b"$4\r\ndb=1\r\n", b"$4\r\ndb=2\r\n")),
    ],
)
def test_a_mask_hides_what_it_says_and_no_more(
    mark: str, words: str, hides: tuple[bytes, bytes], shows: tuple[bytes, bytes]
) -> None:
    one, other = (str(MASKS[mark](heard(data), words.split())) for data in hides)
    assert one == other
    one, other = (str(MASKS[mark](heard(data), words.split())) for data in shows)
    assert one != other


def test_a_difference_is_found_where_it_is() -> None:
    real = [Heard("GET a", "+1"), Heard("GET b", "+2"), Heard("GET b", "+3"), Heard("GET c", "+4")]
    other = [Heard("GET a", "+1"), Heard("GET b", "+2"), Heard("GET b", "+0"), Heard("at the end, b", "+5")]
    found = [(one.step, one.real, one.other) for one in differences(real, other)]
    assert found == [("GET b  (2)", "+3", "+0"), ("GET c", "+4", ""), ("at the end, b", "", "+5")]


def test_a_line_of_the_corpus_is_read_as_it_is_written() -> None:
    lines = ["== one [pair] [resp3]", "# remark", 'SET k "a\\x00 b"', "b>> {raw} {as x} (ab*2) (1..3)", "b<", "b|close"]
    text = "\n".join([*lines, "-- synced", "== two", "GET a"])
    one, two = parse(text, "file")
    assert (one.name, one.pair, one.protocols, two.pair, two.protocols) == ("one", True, (3,), False, (2, 3))
    assert [(step.op, step.connection) for step in one.steps] == [
        *(("ask", "a"), ("send", "b"), ("read", "b"), ("close", "b"), ("--", ""))
    ]
    assert one.commands == [(b"SET", b"k", b"a\x00 b"), (b"abab", b"1", b"2", b"3")]
    assert one.steps[1].marks == {"raw": (), "as": ("x",)}
