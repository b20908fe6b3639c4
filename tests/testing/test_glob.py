"""Patterns match what they match on a real server, with and without regard to case."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatopo.testing._glob import matches
from tests.servers import Server
from tests.testing.tagged import ALL, Wire, needs_7_0_15

PIECES = [*(bytes([char]) for char in b"**?[]^-\\aceghtsETG|z"), b"[a-", b"-z]", b"[^", b"\xff", b"\x80", b"\xc3"]
WORDS = [
    b"a",
    b"A",
    b"get",
    b"GET",
    b"Get",
    b"ge[t",
    b"g]t",
    b"g-t",
    b"^",
    b"\\",
    b"*",
    b"a*",
    b"??",
    b"\xff",
    b"e\x80",
]
PATTERNS = [b"*[", b"ge[t", b"ge[]t", b"ge\\", b"[g\\-z]et", b"[G-H]et", b"[\\G]et", b"[^", b"[a-", b"[a-z", b"[]*"]
PATTERNS += [b"*a*b*", b"**t", b"?", b"[a-\xff]*", b"[\x80-\xff]", b"[c-a]*", b"\\*", b"[A-z]", b"[\\]]*", b"[a\\"]


def random_patterns(count: int) -> list[bytes]:
    chance = random.Random(1)
    return PATTERNS + [b"".join(chance.choices(PIECES, k=chance.randrange(1, 9))) for _ in range(count)]


def test_with_regard_to_case(server: Server, redis_installed: tuple[int, ...]) -> None:
    """KEYS compares so."""
    needs_7_0_15(redis_installed)
    chance = random.Random(2)
    words = WORDS + [b"".join(chance.choices(PIECES, k=chance.randrange(1, 5))) for _ in range(200)]
    patterns = random_patterns(3000)
    with Wire(server) as wire:
        wire.ask([[b"SET", word, b""] for word in words])
        told = wire.ask([[b"KEYS", pattern] for pattern in patterns])
    assert sum(bool(members) for _, members in told) > 500
    for pattern, (_, members) in zip(patterns, told, strict=True):
        assert {word for word in words if matches(pattern, word)} == {word for _, word in members}, pattern


def test_without_regard_to_case(server: Server, redis_installed: tuple[int, ...]) -> None:
    """COMMAND LIST compares so."""
    needs_7_0_15(redis_installed)
    names = [command.name.encode() for command in ALL]
    patterns = [way % pattern for pattern in random_patterns(1000) for way in (b"%b", b"*%b*")]
    with Wire(server) as wire:
        told = wire.ask([[b"COMMAND", b"LIST", b"FILTERBY", b"PATTERN", pattern] for pattern in patterns])
    assert sum(bool(members) for _, members in told) > 200
    for pattern, (_, members) in zip(patterns, told, strict=True):
        assert {name for name in names if matches(pattern, name, True)} == {name for _, name in members}, pattern


@pytest.mark.parametrize(
    ("pattern", "text", "expected"),
    [(b"h?llo", b"hello", True), (b"h[^e]llo", b"hello", False), (b"news.*", b"news.", True), (b"*", b"", False)],
)
def test_examples(pattern: bytes, text: bytes, expected: bool) -> None:
    assert matches(pattern, text) is expected


@given(st.binary(max_size=8), st.binary(max_size=8), st.booleans())
def test_any_bytes(pattern: bytes, text: bytes, ignore_case: bool) -> None:
    assert matches(pattern, text, ignore_case) in (True, False)
    literal = b"".join(b"\\%c" % char for char in text)
    assert matches(literal, text, ignore_case)
    assert matches(b"*" + literal + b"*", text, ignore_case) == bool(text)


def test_a_pattern_that_would_take_for_ever() -> None:
    assert not matches(b"*a" * 30 + b"*b", b"a" * 5000)
