"""The pure parts of the connection room: the handshake's words, packing, limits, the dial gate."""

from __future__ import annotations

import enum
from collections.abc import Mapping, Sequence
from random import Random
from typing import Any

import hiredis
import pytest
import redis
import redis.exceptions as rx
from hypothesis import given
from hypothesis import strategies as st
from redis.connection import DefaultParser

from hatopo import errors
from hatopo.connection._handshake import Greeting, Welcome, shake_hands
from hatopo.connection._lending import DialGate, Dialler, Turn
from hatopo.connection._resp import check_announced, chunks, make_pack

PARSER: Any = DefaultParser
HELLO = {b"server": b"redis", b"proto": 3, b"role": b"master"}
UNKNOWN = PARSER.parse_error("ERR unknown command 'HELLO', with args beginning with: '3'")
NOPERM = PARSER.parse_error("NOPERM this user has no permissions to run the 'hello' command")
WRONGPASS = PARSER.parse_error("WRONGPASS invalid username-password pair or user is disabled.")


def speak(greeting: Greeting, *rounds: Sequence[object]) -> tuple[list[list[tuple[Any, ...]]], Welcome]:
    """Plays the server's part; what was asked in each round, and the result."""
    handshake = shake_hands(greeting)
    asked = [list(next(handshake))]
    for replies in rounds:
        assert len(replies) == len(asked[-1])
        try:
            asked.append(list(handshake.send(replies)))
        except StopIteration as done:
            return asked, done.value
    raise AssertionError(f"it asks for more: {asked[-1]}")


# ---------------------------------------------------------------- handshake


def test_everything_in_one_round_trip() -> None:
    greeting = Greeting(3, credentials=("app", "pw"), client_name="me", library="lib", version="1", database=2)
    asked, welcome = speak(greeting, [HELLO, "OK", "OK", "OK", "OK"])
    assert asked == [
        [
            ("HELLO", 3, "AUTH", "app", "pw"),
            ("CLIENT", "SETNAME", "me"),
            ("CLIENT", "SETINFO", "LIB-NAME", "lib"),
            ("CLIENT", "SETINFO", "LIB-VER", "1"),
            ("SELECT", 2),
        ]
    ]
    assert (welcome.protocol, welcome.role) == (3, "master")


@pytest.mark.parametrize("refusal", [UNKNOWN, NOPERM])
def test_a_server_without_hello_is_spoken_to_in_resp2(refusal: Exception) -> None:
    asked, welcome = speak(Greeting(3, credentials=("pw",), database=1), [refusal, "OK"], ["OK", "OK"])
    assert asked[1] == [("AUTH", "pw"), ("SELECT", 1)]
    assert welcome.protocol == 2


def test_who_insists_on_resp3_gets_it_or_an_error() -> None:
    with pytest.raises(rx.ResponseError, match="unknown command"):
        speak(Greeting(3, insist=True), [UNKNOWN])


def test_wrong_credentials_are_tried_once() -> None:
    with pytest.raises(rx.AuthenticationError):
        speak(Greeting(3, credentials=("app", "wrong")), [WRONGPASS])
    with pytest.raises(rx.AuthenticationError):
        speak(Greeting(2, credentials=("app", "wrong")), [WRONGPASS])


def test_before_redis_6_a_password_has_no_user() -> None:
    arity = PARSER.parse_error("ERR wrong number of arguments for 'auth' command")
    asked, _ = speak(Greeting(2, credentials=("app", "pw")), [arity], ["OK"])
    assert asked == [[("AUTH", "app", "pw")], [("AUTH", "pw")]]


def test_the_role_is_asked_where_hello_does_not_tell_it() -> None:
    asked, welcome = speak(Greeting(2, ask_role=True), [[b"slave", b"10.0.0.1", 6379, b"connected", 7]])
    assert asked == [[("ROLE",)]]
    assert welcome.role == "slave"
    _, welcome = speak(Greeting(2, ask_role=True), [NOPERM])
    assert welcome.role == ""


@pytest.mark.parametrize(
    ("metadata", "info", "zone"),
    [
        ({b"role": b"replica", b"availability_zone": b"eu-1a"}, b"run_id:abc\r\n", "eu-1a"),
        ({b"role": b"replica"}, b"# Server\r\nrun_id:abc\r\navailability_zone:eu-1b\r\n", "eu-1b"),
        ({b"role": b"replica"}, b"run_id:abc\r\navailability_zone:\r\ntcp_port:1\r\n", ""),
        ({b"role": b"replica"}, rx.NoPermissionError("NOPERM this user has no permissions to run 'info'"), ""),
    ],
)
def test_a_node_may_tell_its_zone(metadata: Mapping[object, object], info: object, zone: str) -> None:
    _, welcome = speak(Greeting(3, ask_id=True), [metadata, info])
    assert welcome.zone == zone
    _, welcome = speak(Greeting(2, ask_id=True), [info])
    assert welcome.zone == ("" if b"availability_zone" in metadata else zone)


def test_optional_commands_may_be_forbidden() -> None:
    greeting = Greeting(3, client_name="me", library="lib", version="1")
    _, welcome = speak(greeting, [HELLO, NOPERM, NOPERM, rx.ResponseError("anything at all")])
    assert welcome.protocol == 3
    with pytest.raises(rx.ResponseError, match="out of range"):
        speak(Greeting(3, database=99), [HELLO, rx.ResponseError("DB index is out of range")])
    with pytest.raises(rx.ResponseError, match="spaces"):
        speak(Greeting(3, client_name="a b"), [HELLO, rx.ResponseError("Client names cannot contain spaces")])


def test_a_greeting_keeps_its_password_to_itself() -> None:
    assert "hunter2" not in repr(Greeting(3, credentials=("app", "hunter2")))


# ---------------------------------------------------------------- packing

packed_by_hiredis: Any = hiredis.pack_command


class Colour(enum.IntEnum):
    RED = 7


def encoder(encoding: str = "utf-8", strictness: str = "strict") -> Any:
    return redis.ConnectionPool(encoding=encoding, encoding_errors=strictness).get_encoder()


@pytest.mark.parametrize(
    ("value", "packed"),
    [
        ("v", b"v"),
        (b"\x00\xff", b"\x00\xff"),
        (12, b"12"),
        (1.5, b"1.5"),
        (bytearray(b"ba"), b"ba"),
        (memoryview(b"abcdef")[::2], b"ace"),
        (memoryview(b"abc"), b"abc"),
        (Colour.RED, b"7"),
    ],
)
def test_types_of_arguments(value: object, packed: bytes) -> None:
    sent = make_pack(encoder())(("SET", "k", value))
    assert sent == packed_by_hiredis(("SET", "k", packed))


@pytest.mark.parametrize("value", [True, None, [1], {"a": 1}, object()])
def test_types_without_a_form_are_refused(value: object) -> None:
    with pytest.raises(redis.DataError):
        make_pack(encoder())(("SET", "k", value))


def test_other_encodings() -> None:
    assert b"\xe4" in make_pack(encoder("latin-1"))(("SET", "k", "\xe4"))
    assert b"?" in make_pack(encoder("ascii", "replace"))(("SET", "k", "\xe4"))


@pytest.mark.parametrize("name", ["CONFIG GET", b"CONFIG GET"])
def test_the_words_of_a_name_are_arguments(name: str | bytes) -> None:
    assert make_pack(encoder())((name, "x")) == packed_by_hiredis(("CONFIG", "GET", "x"))


@given(st.lists(st.binary(max_size=50)), st.integers(1, 200))
def test_chunks_lose_nothing(values: list[bytes], size: int) -> None:
    pack = make_pack(encoder())
    commands = [("ECHO", value) for value in values]
    pieces = list(chunks(commands, pack, size))
    assert sum(count for count, _ in pieces) == len(commands)
    assert b"".join(data for _, data in pieces) == b"".join(pack(command) for command in commands)


@pytest.mark.parametrize("header", [b"$3000000000\r\n", b"*200000000\r\n", b"%200000000\r\n", b"=600000000\r\n"])
def test_announcements_beyond_the_limit(header: bytes) -> None:
    with pytest.raises(errors.ProtocolError, match="max_reply_bytes"):
        check_announced(header, 512 * 1024 * 1024)
    check_announced(header, 4 * 1024 * 1024 * 1024)


@given(st.binary())
def test_any_beginning_can_be_checked(data: bytes) -> None:
    try:
        check_announced(data, 1000)
    except errors.ProtocolError:
        assert data[:1] in b"$=!*%~>"


# ---------------------------------------------------------------- dialling


def test_a_node_that_answers_is_dialled_by_two_at_once() -> None:
    gate, diallers = DialGate(Random(1)), [Dialler() for _ in range(3)]
    assert [gate.enter(each, 0.0) for each in diallers] == [Turn.DIAL, Turn.DIAL, Turn.LATER]
    assert not gate.succeeded(), "that is no news"
    gate.leave(diallers[0])
    assert gate.enter(diallers[2], 0.0) is Turn.DIAL


def test_a_suspect_node_is_dialled_by_one_until_it_answers() -> None:
    gate, diallers = DialGate(Random(1)), [Dialler() for _ in range(3)]
    gate.suspect = True
    assert [gate.enter(each, 0.0) for each in diallers] == [Turn.DIAL, Turn.LATER, Turn.LATER]
    gate.leave(diallers[0])
    assert gate.enter(diallers[1], 0.0) is Turn.DIAL
    gate.succeeded()
    assert gate.enter(diallers[2], 0.0) is Turn.DIAL


def test_a_dialler_that_everybody_forgot_gives_its_turn_back() -> None:
    gate = DialGate(Random(1))
    gate.suspect = True
    dialler = Dialler()
    assert gate.enter(dialler, 0.0) is Turn.DIAL
    assert not gate.free()
    del dialler
    assert gate.free()


@given(st.integers(0, 2**32), st.integers(1, 12))
def test_a_silent_node_is_dialled_by_one_and_ever_more_rarely(seed: int, failures: int) -> None:
    gate, now, error = DialGate(Random(seed)), 0.0, errors.DialError("refused")
    gate.failed(error, now)
    dialler, other = Dialler(), Dialler()
    pauses = []
    for _ in range(failures):
        start = now
        while gate.enter(dialler, now) is not Turn.DIAL:
            now += 0.001
        assert gate.enter(other, now) is Turn.NO, "two dials in flight"
        pauses.append(now - start)
        gate.leave(dialler)
        gate.failed(error, now)
    for index, pause in enumerate(pauses):
        expected = min(2.0, 0.1 * 2**index)
        assert 0.8 * expected - 0.01 <= pause <= 1.2 * expected + 0.01
    while gate.enter(dialler, now) is not Turn.DIAL:
        now += 0.001
    assert gate.succeeded()
    assert gate.enter(other, now) is Turn.DIAL
