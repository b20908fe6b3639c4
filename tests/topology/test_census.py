"""Who is the master, and who its replicas are, by the nodes' own word."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hatopo import Address
from hatopo.topology import Census, Election, RoleReport, Statement, Topology, describe, elect

A, B, C, D = (Address("h", port) for port in (1, 2, 3, 4))
SEEDS = (A, B, C)


def master(*replicas: Address, offset: int = 0, run_id: str = "", peer: Address | None = None) -> Statement:
    return Statement(RoleReport("master", offset=offset, replicas=replicas), run_id, peer)


def replica(of: Address, run_id: str = "", peer: Address | None = None) -> Statement:
    return Statement(RoleReport("replica", of, "connected", 1), run_id, peer)


def test_the_only_one_that_says_so() -> None:
    assert elect({A: master(), B: replica(A)}, None, SEEDS) == Election(A)
    assert elect({A: replica(B), B: replica(A)}, A, SEEDS) == Election(None)
    assert elect({}, A, SEEDS) == Election(None)


def test_of_several_the_one_that_the_others_follow() -> None:
    said = {A: master(), B: master(), C: replica(B)}
    assert elect(said, A, SEEDS) == Election(B, (A,))
    assert elect({A: master(), B: master(D)}, A, SEEDS) == Election(B, (A,)), "by its own list of replicas"


def test_a_tie_changes_nothing() -> None:
    """An empty server that came back without its configuration says that it is a master, too."""
    assert elect({A: master(offset=0), B: master(offset=900)}, A, SEEDS) == Election(A, (B,))
    assert elect({A: master(), B: master()}, B, SEEDS) == Election(B, (A,))


def test_at_the_very_first_the_data_decide_then_the_order() -> None:
    assert elect({A: master(offset=1), B: master(offset=900)}, None, SEEDS).master == B
    assert elect({B: master(), A: master()}, None, SEEDS).master == A


def test_a_master_known_by_name_is_followed_by_its_address() -> None:
    named = Address("db1", 6379)
    said = {named: master(peer=Address("10.0.0.1", 6379)), B: master(), C: replica(Address("10.0.0.1", 6379))}
    assert elect(said, None, (B, named)).master == named


def shown(topology: Topology) -> tuple[Address | None, dict[Address, bool]]:
    (shard,) = topology.shards
    lead = None if shard.master is None else shard.master.address
    return lead, {node.address: bool(node.flagged) for node in shard.replicas}


def test_the_deployment_as_its_nodes_describe_it() -> None:
    said = {A: master(B), B: replica(A), C: replica(Address("foreign", 1))}
    found = describe(said, elect(said, None, SEEDS), None)
    assert shown(found) == (A, {B: False, C: True})
    assert "follows foreign:1" in found.shards[0].replicas[1].flagged


def test_a_replica_of_a_replica_belongs() -> None:
    said = {A: master(B), B: replica(A), C: replica(B)}
    assert shown(describe(said, Election(A), None)) == (A, {B: False, C: False})


def test_two_that_follow_each_other_do_not() -> None:
    said = {A: master(), B: replica(C), C: replica(B)}
    assert shown(describe(said, Election(A), None)) == (A, {B: True, C: True})


def test_whom_the_master_lists_belongs_whatever_address_it_names() -> None:
    said = {A: master(B), B: replica(Address("172.17.0.2", 6379))}
    assert shown(describe(said, Election(A), None)) == (A, {B: False})


def test_replicas_that_do_not_answer_stay_and_the_last_master_too() -> None:
    said = {A: master(B, C), B: replica(A), C: replica(A)}
    last = describe(said, Election(A), None)
    del said[B]
    assert shown(describe(said, elect(said, A, SEEDS), last)) == (A, {B: False, C: False})
    del said[A]
    assert shown(describe(said, elect(said, A, SEEDS), last)) == (A, {B: False, C: False})
    said[A] = replica(D)
    assert shown(describe(said, elect(said, A, SEEDS), last))[0] is None, "it says itself that it is none"


def test_a_master_that_does_not_answer_costs_no_replica() -> None:
    """Its replicas may name it by an address at which we do not know it; a stranger's replica stays a stranger's."""
    named, inside = Address("db1", 6379), Address("10.0.0.1", 6379)
    said = {named: master(peer=inside), B: replica(inside), C: replica(Address("foreign", 1))}
    last = describe(said, Election(named), None)
    assert shown(last) == (named, {B: False, C: True})
    del said[named]
    assert shown(describe(said, elect(said, named, SEEDS), last)) == (named, {B: False, C: True})


def test_another_master_and_the_old_one_returns_as_a_replica() -> None:
    said = {A: master(B), B: replica(A)}
    last = describe(said, Election(A), None)
    said = {B: master(C), C: replica(B)}
    after = describe(said, elect(said, A, SEEDS), last)
    assert shown(after) == (B, {C: False})
    said[A] = replica(B)
    assert shown(describe(said, elect(said, B, SEEDS), after)) == (B, {A: False, C: False})


def test_whom_only_the_master_names_joins_by_its_own_word() -> None:
    census = Census()
    census.note(A, master(B, D, run_id="a"))
    census.note(B, replica(A, run_id="b"))
    census.invite([A], [A, B])
    assert census.invited == (D,)
    assert census.joined([A, B]) == ()
    census.note(D, replica(A, run_id="d"))
    assert [node.address for node in census.joined([A, B])] == [D]
    census.note(D, master(run_id="d"))
    assert census.joined([A, B]) == ()


def test_a_node_by_another_address_does_not_join() -> None:
    """By the place where it was reached it is known at once, by its run id as soon as it was asked."""
    named, inside = Address("db2", 6379), Address("10.0.0.2", 6379)
    census = Census()
    census.note(A, master(inside, run_id="a"))
    census.note(named, replica(A, run_id="b", peer=inside))
    census.invite([A], [A, named])
    assert not census.invited
    census.note(named, replica(A, run_id="b"))
    census.invite([A], [A, named])
    assert census.invited == (inside,)
    census.note(inside, replica(A, run_id="b"))
    assert census.joined([A, named]) == ()
    census.invite([A], [A, named])
    assert not census.invited, "it is not asked again"


def test_a_guest_that_never_answers_is_asked_no_more() -> None:
    census = Census()
    census.note(A, master(D))
    for _ in range(3):
        census.invite([A], [A])
        assert census.invited == (D,)
        census.note(D, None)
    census.invite([A], [A])
    assert not census.invited
    census.note(A, master())
    census.invite([A], [A])
    census.note(A, master(D))
    census.invite([A], [A])
    assert census.invited == (D,), "it left, and is there again"


def test_who_has_gone_for_good_is_forgotten() -> None:
    census = Census()
    census.note(A, master(B, C))
    census.note(B, replica(A))
    census.note(C, replica(A))
    last = describe(census.said, Election(A), None)
    census.note(A, master(C))
    for _ in range(3):
        assert not census.gone([A])
        census.note(B, None)
        census.note(C, None)
        census.invite([A], [A, B, C])
    assert census.gone([A]) == {B}, "C is still named, and may come back"
    assert census.gone([A, B]) == set(), "who was listed is asked for ever"
    assert shown(describe(census.said, Election(A), last, census.gone([A]))) == (A, {C: False})
    census.note(A, None)
    assert census.gone([A]) == set(), "nobody could tell"


ADDRESSES = st.sampled_from([A, B, C, D])
STATEMENTS = st.dictionaries(
    ADDRESSES,
    st.one_of(
        st.builds(lambda replicas, offset: master(*replicas, offset=offset), st.lists(ADDRESSES), st.integers(0, 9)),
        st.builds(replica, ADDRESSES),
    ),
)


@given(STATEMENTS, st.none() | ADDRESSES, STATEMENTS)
def test_laws(said: dict[Address, Statement], current: Address | None, later: dict[Address, Statement]) -> None:
    election = elect(said, current, SEEDS)
    claims = {address for address, one in said.items() if one.role.role == "master"}
    assert {election.master, *election.others} - {None} == claims
    first = describe(said, election, None)
    second = describe(later, elect(later, election.master, SEEDS), first)
    for topology in (first, second):
        addresses = [node.address for node in topology.nodes]
        assert len(set(addresses)) == len(addresses)
    if any(one.role.role == "master" for one in later.values()):
        assert second.complete
