"""The topology room: what sentinels say, whose word counts, which view replaces which."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatopo import Address, OptionError
from hatopo.address import parse_addresses
from hatopo.topology import (
    Answer,
    Listen,
    MasterReport,
    Node,
    NotFound,
    Shard,
    Topology,
    TopologyView,
    discover_master,
    parse_master,
    parse_names,
)

OLD, NEW = Address("10.0.0.1", 6379), Address("10.0.0.2", 6379)
SENTINELS = tuple(Address(f"10.0.1.{index}", 26379) for index in range(3))


def says(index: int, address: Address, epoch: int = 0, *, promoting: bool = False) -> Answer:
    return Answer(SENTINELS[index], MasterReport(address, "", epoch, promoting))


def discover(*answers: Answer | None) -> Topology | NotFound | Listen:
    """Feeds the answers in order; the verdict, or what is still wanted after them."""
    discovery = discover_master(SENTINELS)
    wanted = next(discovery)
    for answer in answers:
        try:
            wanted = discovery.send(answer)
        except StopIteration as done:
            result: Topology | NotFound = done.value
            return result
    return wanted


def master_of(found: Topology | NotFound | Listen) -> Address:
    assert isinstance(found, Topology)
    assert found.shards[0].master is not None
    return found.shards[0].master.address


# ---------------------------------------------------------------- discovery


def test_a_majority_in_agreement_is_enough() -> None:
    found = discover(says(0, OLD), says(1, OLD))
    assert master_of(found) == OLD
    assert isinstance(found, Topology)
    assert found.agreed


def test_one_answer_waits_only_a_moment_for_the_others() -> None:
    wanted = discover(says(0, OLD))
    assert isinstance(wanted, Listen)
    assert wanted.seconds is not None
    assert wanted.seconds <= 0.05
    found = discover(says(0, OLD), None)
    assert master_of(found) == OLD
    assert isinstance(found, Topology)
    assert not found.agreed


def test_an_error_does_not_start_the_clock() -> None:
    assert discover(Answer(SENTINELS[0], error="refused")) == Listen(None)


def test_the_highest_epoch_wins_over_the_larger_number() -> None:
    assert master_of(discover(says(0, OLD, 1), says(1, NEW, 2), says(2, OLD, 1))) == NEW


def test_two_that_agree_on_an_older_epoch_do_not_end_it() -> None:
    assert isinstance(discover(says(0, NEW, 2), says(1, OLD, 1)), Listen)


def test_the_leader_in_the_middle_of_a_failover_wins_at_the_same_epoch() -> None:
    assert master_of(discover(says(0, OLD, 1), says(1, NEW, 1, promoting=True), says(2, OLD, 1))) == NEW


def test_nobody_answers() -> None:
    assert discover(None) == NotFound(())
    errors = [Answer(sentinel, error="refused") for sentinel in SENTINELS]
    assert discover(*errors) == NotFound(tuple(errors))


@given(st.lists(st.tuples(st.sampled_from([OLD, NEW]), st.integers(0, 3), st.booleans()), min_size=3, max_size=3))
def test_the_verdict_names_a_master_of_the_highest_epoch_heard(said: list[tuple[Address, int, bool]]) -> None:
    answers = [says(index, *words[:2], promoting=words[2]) for index, words in enumerate(said)]
    found = discover(*answers)
    assert isinstance(found, Topology)
    agreed_early = said[0][0] == said[1][0] and max(said[0][1], said[1][1]) < said[2][1]
    assert found.epoch == max(words[1] for words in said) or agreed_early


# ---------------------------------------------------------------- replies

STATE = {"name": "mymaster", "ip": "10.0.0.1", "port": "6379", "runid": "a1b2", "config-epoch": "7"}


@pytest.mark.parametrize("binary", [False, True])
@pytest.mark.parametrize("flat", [False, True])
def test_sentinel_master_in_both_protocols(flat: bool, binary: bool) -> None:
    def wire(value: str) -> str | bytes:
        return value.encode() if binary else value

    state: object = {wire(key): wire(value) for key, value in STATE.items()}
    if flat:
        state = [wire(part) for pair in STATE.items() for part in pair]
    report = parse_master(state, [wire("10.0.0.1"), wire("6379")])
    assert report == MasterReport(OLD, "a1b2", 7)


def test_the_promoted_replica_is_named_before_the_state_changes() -> None:
    assert parse_master(STATE, ["10.0.0.2", "6379"]) == MasterReport(NEW, "", 7, promoting=True)


junk = st.recursive(
    st.none() | st.integers() | st.binary() | st.text() | st.booleans(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text() | st.binary(), inner),
)


@given(junk, junk)
def test_what_makes_no_sense_is_no_answer(state: object, endpoint: object) -> None:
    report = parse_master(state, endpoint)
    assert report is None or 1 <= report.address.port <= 65535
    assert isinstance(parse_names(state), tuple)


def test_names_of_services() -> None:
    assert parse_names([[b"name", b"cache", b"ip", b"x"], {"name": "broker"}]) == ("cache", "broker")


# ---------------------------------------------------------------- the view


def view_of(address: Address, epoch: int = 0, *, agreed: bool = True) -> Topology:
    return Topology((Shard(Node(address)),), epoch=epoch, agreed=agreed)


topologies = st.builds(
    Topology,
    st.tuples(st.builds(Shard, st.sampled_from([None, Node(OLD), Node(NEW)]))),
    epoch=st.integers(0, 3),
    agreed=st.booleans(),
)


@given(st.lists(topologies))
def test_the_laws_of_the_view(offers: list[Topology]) -> None:
    view = TopologyView()
    for found in offers:
        before = view.current
        changed = view.offer(found)
        after = view.current
        assert changed == (after is not before)
        if before is not None and before.complete:
            assert after is not None
            assert after.complete, "a good view gave way to one without a master"
            assert after.epoch >= before.epoch or after.agreed, "a minority turned back the epoch"


def test_the_same_view_again_is_no_change() -> None:
    view = TopologyView()
    assert view.offer(view_of(OLD))
    assert not view.offer(view_of(OLD))
    assert not view.offer(view_of(NEW, -1, agreed=False))
    assert view.offer(view_of(NEW, 1, agreed=False))


# ---------------------------------------------------------------- addresses


@pytest.mark.parametrize(
    ("given", "address"),
    [
        ("db", Address("db", 26379)),
        ("db:7000", Address("db", 7000)),
        (("db", 7000), Address("db", 7000)),
        (("db", "7000"), Address("db", 7000)),
        ("[::1]:7000", Address("::1", 7000)),
        ("::1", Address("::1", 26379)),
        ("[::1]", Address("::1", 26379)),
    ],
)
def test_addresses(given: str | tuple[str, int], address: Address) -> None:
    assert Address.parse(given, 26379) == address
    assert Address.parse(str(address), 1) == address


@pytest.mark.parametrize("wrong", ["", " ", "db:", "db:x", "db:0", "db:65536", ("db",), ("", 1), 7, ("db", None)])
def test_wrong_addresses_say_so(wrong: object) -> None:
    with pytest.raises(OptionError):
        Address.parse(wrong, 26379)  # type: ignore[arg-type]


def test_a_list_of_addresses_is_a_list() -> None:
    assert parse_addresses(["a", ("a", 26379), "b"], 26379, "sentinels") == (Address("a", 26379), Address("b", 26379))
    empty: list[str] = []
    for wrong in ("a:1", empty):
        with pytest.raises(OptionError, match="sentinels"):
            parse_addresses(wrong, 26379, "sentinels")
