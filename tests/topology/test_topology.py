"""The topology room: what sentinels say, whose word counts, which view replaces which."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatopo import Address, OptionError
from hatopo.address import parse_addresses
from hatopo.topology import (
    Answer,
    Council,
    Joined,
    Listen,
    MasterReport,
    Node,
    NotFound,
    Offer,
    ReplicaReport,
    Roster,
    SentinelReport,
    Shard,
    Topology,
    TopologyView,
    backers_of,
    discover_master,
    parse_master,
    parse_names,
    vouched,
    weigh,
)

OLD, NEW, OTHER = (Address(f"10.0.0.{number}", 6379) for number in (1, 2, 3))
SENTINELS = tuple(Address(f"10.0.1.{index}", 26379) for index in range(3))


def says(index: int, address: Address, epoch: int = 0, *, promoting: bool = False) -> Answer:
    return Answer(SENTINELS[index], f"id{index}", MasterReport(address, "", epoch, promoting))


def replica(address: Address) -> ReplicaReport:
    return ReplicaReport(address, f"id of {address.host}", frozenset({"slave"}), True, 100, 0, None)


def discover(*answers: Answer | Joined | None) -> Topology | NotFound | Listen:
    """Feeds the answers in order; the verdict, or what is still wanted after them."""
    discovery = discover_master(len(SENTINELS))
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


def test_one_sentinel_at_two_addresses_has_one_vote() -> None:
    again = replace(says(0, OLD), sentinel=SENTINELS[1])
    found = discover(says(0, OLD), again)
    assert isinstance(found, Listen), "one of two sentinels is no majority"
    assert isinstance(discover(says(0, OLD), again, says(2, OLD)), Topology)


def test_a_name_that_stands_for_several_sentinels_raises_the_majority() -> None:
    assert isinstance(discover(says(0, OLD), Joined(2), says(1, OLD)), Listen)
    found = discover(says(0, OLD), Joined(2), says(1, OLD), says(2, OLD))
    assert isinstance(found, Topology)
    assert found.agreed


def test_replicas_are_those_that_the_backers_of_the_master_list() -> None:
    listed = replace(says(0, OLD, 2), replicas=(replica(NEW), replica(OTHER)))
    stale = replace(says(1, NEW, 1), replicas=(replica(OLD),))
    found = weigh([listed, stale], 3)
    assert isinstance(found, Topology)
    assert [node.address for node in found.nodes] == [OLD, NEW, OTHER]
    assert found.nodes[1].id == "id of 10.0.0.2"


def test_a_promoted_replica_keeps_the_id_that_it_was_known_by() -> None:
    leader = replace(says(0, NEW, 2, promoting=True), replicas=(replica(NEW),))
    found = weigh([leader], 3)
    assert isinstance(found, Topology)
    assert found.shards == (Shard(Node(NEW, "id of 10.0.0.2")),)


def test_a_node_is_vouched_for_by_others_only() -> None:
    liar = replace(says(0, NEW, 9), replicas=(replica(OTHER),))
    honest = replace(says(1, OLD), replicas=(replica(OTHER),))
    assert not vouched(NEW, [liar, honest], besides={"id0"})
    assert vouched(OTHER, [liar, honest], besides={"id0"})
    assert vouched(OLD, [liar, honest], besides={"id0"})
    assert backers_of(NEW, [liar, honest]) == (liar,)


def council(*answers: Answer) -> Council:
    heard = Council()
    for answer in answers:
        heard.note(answer, 0.0)
    return heard


def test_a_majority_does_not_undo_the_choice_at_the_same_epoch() -> None:
    leader = replace(says(0, NEW, 5, promoting=True), replicas=(replica(NEW),))
    others = [replace(says(index, OLD, 5), replicas=(replica(NEW),)) for index in (1, 2)]
    verdict = council(leader, *others).judge(3, None, 1.0)
    assert master_of(verdict.found) == NEW
    assert verdict.majority is None


def test_a_majority_at_a_lower_epoch_is_told_beside_the_newest() -> None:
    verdict = council(says(0, NEW, 5), *(replace(says(n, OLD, 1), replicas=(replica(NEW),)) for n in (1, 2))).judge(
        3, None, 1.0
    )
    assert master_of(verdict.found) == NEW
    assert verdict.majority is not None
    assert (verdict.majority.masters, verdict.majority.agreed) == ((OLD,), True)


def test_a_lone_voice_for_an_unknown_node_is_left_out() -> None:
    verdict = council(says(0, NEW, 5), says(1, OLD, 1), says(2, OLD, 1)).judge(3, None, 1.0)
    assert master_of(verdict.found) == OLD
    assert verdict.refused == ((NEW, str(SENTINELS[0])),)
    assert master_of(council(says(0, NEW, 5)).judge(3, None, 1.0).found) == NEW, "nobody says anything else"
    permitted = council(says(0, NEW, 5), says(1, OLD, 1)).judge(3, None, 1.0, permitted=True)
    assert master_of(permitted.found) == NEW


def test_old_words_count_no_more() -> None:
    heard = council(says(0, NEW, 5), says(1, NEW, 5))
    heard.note(says(2, OLD, 1), 31.0)
    assert master_of(heard.judge(3, None, 31.0).found) == OLD
    assert heard.vouches(NEW, SENTINELS[2], 31.0), "but they still know the node"
    assert not heard.vouches(NEW, SENTINELS[2], 121.0)


def test_an_outvoted_claim_counts_again_when_it_is_a_higher_one() -> None:
    heard = council(says(0, NEW, 5), says(1, OLD, 1), says(2, OLD, 1))
    assert heard.dissent(view_of(OLD, 1), 1.0) == {NEW}
    heard.outvote(view_of(OLD, 1), 1.0)
    assert not heard.dissent(view_of(OLD, 1), 1.0)
    heard.note(says(0, NEW, 5), 2.0)
    assert not heard.dissent(view_of(OLD, 1), 2.0)
    heard.note(says(0, NEW, 6), 3.0)
    assert heard.dissent(view_of(OLD, 1), 3.0) == {NEW}


def test_who_does_not_watch_the_service_does_not_count_in_its_majority() -> None:
    ignorant = Answer(SENTINELS[2], "id2", names=("other",))
    found = council(says(0, OLD), says(1, OLD), ignorant).judge(4, None, 1.0).found
    assert isinstance(found, Topology)
    assert found.agreed


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
    assert found.agreed == (sum(words[0] == master_of(found) for words in said) >= 2)


# ---------------------------------------------------------------- the roster


def told(index: int, *others: int) -> Answer:
    reports = tuple(SentinelReport(Address(f"10.0.1.{n}", 26379), f"id{n}", frozenset()) for n in others)
    return replace(says(index, OLD), sentinels=reports)


def test_sentinels_are_learned_and_forgotten_but_seeds_stay() -> None:
    roster = Roster([Address("10.0.1.0", 26379), Address("dead", 26379)])
    assert roster.note(told(0, 1, 2), []) == (Address("10.0.1.1", 26379), Address("10.0.1.2", 26379))
    assert [address.host for address in roster.addresses()] == ["10.0.1.0", "dead", "10.0.1.1", "10.0.1.2"]
    assert roster.note(told(1, 0, 2), [told(0, 1, 2)]) == ()
    assert roster.note(told(0, 1), [told(1, 0)]) == ()
    assert [address.host for address in roster.addresses()] == ["10.0.1.0", "dead", "10.0.1.1"]


def test_a_sentinel_known_by_a_name_is_not_learned_by_its_address() -> None:
    seed = Address("sentinel-1", 26379)
    roster = Roster([seed])
    roster.note(replace(told(1, 0), sentinel=seed), [])
    assert roster.note(told(0, 1), [replace(told(1, 0), sentinel=seed)]) == ()
    assert [address.host for address in roster.addresses()] == ["sentinel-1", "10.0.1.0"]


def test_two_names_of_one_sentinel_count_once() -> None:
    roster = Roster([Address("a", 1), Address("b", 1)])
    for host in "ab":
        roster.note(replace(says(0, OLD), sentinel=Address(host, 1)), [])
    assert roster.addresses() == (Address("a", 1),)


def test_a_learned_sentinel_may_move() -> None:
    roster = Roster([SENTINELS[0]])
    roster.note(told(0, 1), [])
    moved = SentinelReport(Address("10.0.9.9", 26379), "id1", frozenset())
    assert roster.note(replace(says(0, OLD), sentinels=(moved,)), []) == ()
    assert roster.addresses() == (SENTINELS[0], Address("10.0.9.9", 26379))


def test_a_name_stands_for_its_addresses_until_one_of_them_fails() -> None:
    seed, first, second = Address("sentinels", 26379), *SENTINELS[:2]
    roster = Roster([seed])
    assert roster.expand(seed, [first, second]) == (first, second)
    assert roster.addresses() == (first, second)
    assert roster.name_of(second) == "sentinels"
    roster.collapse(second)
    assert roster.addresses() == (seed,)
    assert roster.name_of(second) is None


def test_a_seed_that_has_moved_is_asked_where_it_answers() -> None:
    seed, moved = Address("10.0.1.0", 26379), Address("10.0.9.9", 26379)
    roster = Roster([seed])
    roster.note(told(0, 1), [])
    roster.collapse(seed)
    told_of = SentinelReport(moved, "id0", frozenset())
    assert roster.note(replace(told(1), sentinels=(told_of,)), []) == (moved,)
    assert roster.addresses() == (moved, Address("10.0.1.1", 26379))
    roster.collapse(moved)
    assert seed in roster.addresses(), "seeds are asked for ever"


def test_a_liar_cannot_make_us_dial_without_end() -> None:
    roster = Roster([SENTINELS[0]])
    for start in range(100, 10_000, 100):
        roster.note(told(0, *range(start, start + 100)), [])
    assert len(roster.addresses()) <= 51


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


def ahead() -> Topology:
    return replace(view_of(NEW, 1), agreed=False, provisional=True)


topologies = st.builds(
    Topology,
    st.tuples(st.builds(Shard, st.sampled_from([None, Node(OLD), Node(NEW)]))),
    epoch=st.integers(0, 3),
    agreed=st.booleans(),
    provisional=st.booleans(),
)


@given(st.lists(topologies))
def test_the_laws_of_the_view(offers: list[Topology]) -> None:
    view = TopologyView()
    for found in offers:
        before, confirmed = view.current, view.confirmed
        outcome = view.offer(found)
        after = view.current
        assert (outcome in (Offer.TAKEN, Offer.RESET)) == (after != before)
        assert (outcome is Offer.RESET) == (confirmed is not None and after == found and found.epoch < confirmed.epoch)
        if before is not None and before.complete:
            assert after is not None
            assert after.complete, "a good view gave way to one without a master"
            assert after.epoch >= before.epoch or after.agreed, "a minority turned back the epoch"
        if after is not None and after.provisional:
            assert view.confirmed is not None
            assert not view.confirmed.provisional
            assert after.epoch == view.confirmed.epoch, "a provisional view raises no epoch"


def test_a_provisional_view_stands_until_a_higher_epoch_is_confirmed() -> None:
    view = TopologyView()
    assert view.offer(ahead()) is Offer.REFUSED, "ahead of nothing"
    view.offer(view_of(OLD, 1))
    assert view.offer(ahead()) is Offer.TAKEN
    assert view.offer(ahead()) is Offer.KNOWN
    assert view.offer(view_of(OLD, 1)) is Offer.KNOWN, "sentinels that have not heard of it do not end it"
    assert view.current == ahead()
    assert view.offer(view_of(NEW, 2)) is Offer.TAKEN
    assert not view.withdraw()
    assert view.offer(ahead()) is Offer.REFUSED, "it is late"


def test_a_provisional_view_that_is_withdrawn_leaves_what_was_confirmed() -> None:
    view = TopologyView()
    view.offer(view_of(OLD, 1))
    view.offer(ahead())
    assert view.withdraw()
    assert view.current == view_of(OLD, 1)
    assert not view.withdraw()


def test_a_higher_epoch_for_another_node_ends_a_provisional_view() -> None:
    view = TopologyView()
    view.offer(view_of(OLD, 1))
    view.offer(ahead())
    assert view.offer(view_of(OTHER, 2, agreed=False)) is Offer.TAKEN
    assert view.current == view_of(OTHER, 2, agreed=False)


def test_a_provisional_view_is_the_confirmed_one_under_another_master() -> None:
    confirmed = Topology((Shard(Node(OLD), (Node(NEW, "x"), Node(OTHER))),), epoch=3, roles_matter=True)
    view = confirmed.led_by(Node(NEW))
    assert view.shards == (Shard(Node(NEW), (Node(OTHER),)),)
    assert (view.epoch, view.provisional, view.agreed, view.roles_matter) == (3, True, False, True)
    assert confirmed.node_at(OTHER) == Node(OTHER)
    assert view.node_at(OLD) is None


def test_the_same_view_again_is_no_change() -> None:
    view = TopologyView()
    assert view.offer(view_of(OLD)) is Offer.TAKEN
    assert view.offer(view_of(OLD)) is Offer.KNOWN
    assert view.offer(view_of(NEW, -1, agreed=False)) is Offer.REFUSED
    assert view.offer(view_of(NEW, 1, agreed=False)) is Offer.TAKEN
    assert view.offer(view_of(OLD, 0)) is Offer.RESET


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
