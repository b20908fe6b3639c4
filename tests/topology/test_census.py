"""Who is the master, and who its replicas are, by the nodes' own word."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hypothesis import given
from hypothesis import strategies as st

from hatopo import Address
from hatopo.topology import Census, Election, RoleReport, Statement, Statements, Topology, describe, elect

if TYPE_CHECKING:
    from collections.abc import Collection, Sequence

A, B, C, D = (Address("h", port) for port in (1, 2, 3, 4))
SEEDS = (A, B, C)


def elected(said: Statements, current: Address | None = None, seeds: Sequence[Address] = SEEDS) -> Election:
    return elect(said, current, seeds, names(said))


def described(
    said: Statements, election: Election, last: Topology | None = None, gone: Collection[Address] = ()
) -> Topology:
    return describe(said, election, last, names(said), gone)


def names(said: Statements) -> dict[Address, set[Address]]:
    return {address: {one.peer} for address, one in said.items() if one.peer is not None}


def master(*replicas: Address, offset: int = 0, run_id: str = "", peer: Address | None = None) -> Statement:
    return Statement(RoleReport("master", offset=offset, replicas=replicas), run_id, peer)


def replica(of: Address, run_id: str = "", peer: Address | None = None) -> Statement:
    return Statement(RoleReport("replica", of, "connected", 1), run_id, peer)


def test_the_only_one_that_says_so() -> None:
    assert elected({A: master(), B: replica(A)}) == Election(A)
    assert elected({A: replica(B), B: replica(A)}, A) == Election(None)
    assert elected({}, A) == Election(None)


def test_of_several_the_one_that_the_others_follow() -> None:
    said = {A: master(), B: master(), C: replica(B)}
    assert elected(said, A) == Election(B, (A,))
    said = {A: master(), B: master(D), D: replica(Address("172.17.0.2", 6379))}
    assert elected(said, A) == Election(B, (A,)), "by its own list of replicas"
    assert elected({A: master(), B: master(D, C)}, A) == Election(A, (B,)), "strangers have no vote"


def test_a_master_that_does_not_answer_keeps_its_followers() -> None:
    """An empty server that says that it is a master does not take its place; one that the others follow does."""
    said = {B: master(), C: replica(A)}
    assert elected(said, A) == Election(None, (B,))
    assert elected({B: master(), C: replica(B), D: replica(A)}, A) == Election(None, (B,)), "a draw"
    assert elected({B: master(), C: replica(B)}, A) == Election(B)
    assert elected({B: master()}, A) == Election(B), "nobody is left who follows the old one"
    last = described({A: master(C), B: replica(A), C: replica(A)}, Election(A))
    assert shown(described(said, elected(said, A), last))[0] == A, "writes wait for it"


def test_a_tie_changes_nothing() -> None:
    """An empty server that came back without its configuration says that it is a master, too."""
    assert elected({A: master(offset=0), B: master(offset=900)}, A) == Election(A, (B,))
    assert elected({A: master(), B: master()}, B) == Election(B, (A,))


def test_at_the_very_first_the_data_decide_then_the_order() -> None:
    assert elected({A: master(offset=1), B: master(offset=900)}).master == B
    assert elected({B: master(), A: master()}).master == A


def test_a_master_known_by_name_is_followed_by_its_address() -> None:
    named = Address("db1", 6379)
    said = {named: master(peer=Address("10.0.0.1", 6379)), B: master(), C: replica(Address("10.0.0.1", 6379))}
    assert elected(said, None, (B, named)).master == named


def shown(topology: Topology) -> tuple[Address | None, dict[Address, bool]]:
    (shard,) = topology.shards
    lead = None if shard.master is None else shard.master.address
    return lead, {node.address: bool(node.flagged) for node in shard.replicas}


def test_the_deployment_as_its_nodes_describe_it() -> None:
    said = {A: master(B), B: replica(A), C: replica(Address("foreign", 1))}
    found = described(said, elected(said), None)
    assert shown(found) == (A, {B: False, C: True})
    assert "follows foreign:1" in found.shards[0].replicas[1].flagged


def test_a_replica_of_a_replica_belongs() -> None:
    said = {A: master(B), B: replica(A), C: replica(B)}
    assert shown(described(said, Election(A), None)) == (A, {B: False, C: False})


def test_two_that_follow_each_other_do_not() -> None:
    said = {A: master(), B: replica(C), C: replica(B)}
    assert shown(described(said, Election(A), None)) == (A, {B: True, C: True})


def test_whom_the_master_lists_belongs_whatever_address_it_names() -> None:
    said = {A: master(B), B: replica(Address("172.17.0.2", 6379))}
    assert shown(described(said, Election(A), None)) == (A, {B: False})


def test_replicas_that_do_not_answer_stay_and_the_last_master_too() -> None:
    said = {A: master(B, C), B: replica(A), C: replica(A)}
    last = described(said, Election(A), None)
    del said[B]
    assert shown(described(said, elected(said, A), last)) == (A, {B: False, C: False})
    del said[A]
    assert shown(described(said, elected(said, A), last)) == (A, {B: False, C: False})
    said[A] = replica(D)
    assert shown(described(said, elected(said, A), last))[0] is None, "it says itself that it is none"


def test_a_master_that_does_not_answer_costs_no_replica() -> None:
    """Its replicas may name it by an address at which we do not know it; a stranger's replica stays a stranger's."""
    named, inside = Address("db1", 6379), Address("10.0.0.1", 6379)
    said = {named: master(peer=inside), B: replica(inside), C: replica(Address("foreign", 1))}
    last = described(said, Election(named), None)
    assert shown(last) == (named, {B: False, C: True})
    del said[named]
    assert shown(described(said, elected(said, named), last)) == (named, {B: False, C: True})


def test_another_master_and_the_old_one_returns_as_a_replica() -> None:
    said = {A: master(B), B: replica(A)}
    last = described(said, Election(A), None)
    said = {B: master(C), C: replica(B)}
    after = described(said, elected(said, A), last)
    assert shown(after) == (B, {C: False})
    said[A] = replica(B)
    assert shown(described(said, elected(said, B), after)) == (B, {A: False, C: False})


def test_whom_only_the_master_names_joins_by_its_own_word() -> None:
    census = Census()
    census.note(A, master(B, D, run_id="a"))
    census.note(B, replica(A, run_id="b"))
    census.invite([A, B])
    assert census.invited == (D,)
    assert census.joined([A, B], [A]) == ()
    census.note(D, replica(A, run_id="d"))
    assert [node.address for node in census.joined([A, B], [A])] == [D]
    census.note(D, master(run_id="d"))
    assert census.joined([A, B], [A]) == ()


def test_a_node_by_another_address_does_not_join() -> None:
    """By the place where it was reached it is known at once, by its run id as soon as it was asked."""
    named, inside = Address("db2", 6379), Address("10.0.0.2", 6379)
    census = Census()
    census.note(A, master(inside, run_id="a"))
    census.note(named, replica(A, run_id="b", peer=inside))
    census.invite([A, named])
    assert not census.invited
    census = Census()
    census.note(A, master(inside, run_id="a"))
    census.note(named, replica(A, run_id="b"))
    census.invite([A, named])
    assert census.invited == (inside,)
    census.note(inside, replica(A, run_id="b"))
    assert census.joined([A, named], [A]) == ()
    census.invite([A, named])
    assert not census.invited, "it is not asked again"


def test_nodes_that_know_each_other_by_other_addresses() -> None:
    """As soon as those were asked, the run ids tell; and a name goes with its process."""
    inside, out = (Address("10.0.0.1", 1), Address("10.0.0.2", 2)), (A, B)
    census = Census()
    census.note(A, master(inside[1], run_id="a"))
    census.note(B, replica(inside[0], run_id="b"))
    census.invite(out)
    assert set(census.invited) == {*inside}
    census.note(inside[0], master(inside[1], run_id="a"))
    census.note(inside[1], replica(inside[0], run_id="b"))
    voters = census.voters(out, None)
    assert elect(voters, None, SEEDS, census.names) == Election(A)
    assert shown(describe(voters, Election(A), None, census.names)) == (A, {B: False})
    census.invite(out)
    assert census.invited == ()
    census.note(A, None)
    census.invite(out)
    assert census.invited == (), "it is still known whose they are"
    census.note(A, master(inside[1], run_id="another"))
    census.invite(out)
    assert inside[0] in census.invited, "it may be another's now"


def test_a_node_that_is_listed_twice_is_followed_by_either_address() -> None:
    census = Census()
    census.note(A, master(run_id="a"))
    census.note(D, master(run_id="a"))
    census.note(B, replica(D, run_id="b"))
    members = (A, D, B)
    voters = census.voters(members, None)
    assert set(voters) == {A, B}
    assert elect(voters, None, SEEDS, census.names) == Election(A)


def test_a_master_whose_replicas_are_connected_by_a_network_that_is_not_ours() -> None:
    """Nobody can ask them there: that it lists as many as follow somebody unknown is enough."""
    inside = Address("10.0.0.1", 1), Address("10.0.0.2", 2)
    assert elected({A: master(inside[1]), B: replica(inside[0])}) == Election(A)
    assert elected({A: master(inside[1]), B: replica(D), C: replica(D)}) == Election(None, (A,))


def test_a_former_master_with_a_straggler_is_not_the_master_that_is_silent() -> None:
    """It is listed, so it is no other address of this one; and replicas that say whom they follow are no strangers."""
    straggler = Address("10.0.0.9", 1)
    assert elected({D: master(straggler), B: replica(A)}) == Election(None, (D,))
    assert elect({D: master(B, C), B: replica(A), C: replica(A)}, None, (), {}) == Election(D), "by its own list"
    assert elect({D: master(straggler), B: replica(A), C: replica(A)}, None, (), {}) == Election(None, (D,))


def test_a_master_by_its_other_address() -> None:
    """The one in use falls silent (a virtual IP, a proxy); the process is the same."""
    census = Census()
    census.note(D, master(B, run_id="a"))
    census.note(A, master(B, run_id="a"))
    census.note(B, replica(A, run_id="b"))
    members = (D, A, B)
    assert set(census.voters(members, D)) == {D, B}
    census.note(D, None)
    voters = census.voters(members, D)
    election = elect(voters, D, (D, A, B), census.names)
    assert election == Election(A)
    assert shown(describe(voters, election, None, census.names)) == (A, {B: False})


def test_a_replica_by_another_address_than_its_master_is_known_by() -> None:
    """The master is listed alone; what it lists names it by an address that nobody has listed: that is asked, too."""
    inside = Address("10.0.0.1", 1), Address("10.0.0.2", 2)
    census = Census()
    census.note(A, master(inside[1], run_id="a"))
    census.invite([A])
    census.note(inside[1], replica(inside[0], run_id="b"))
    census.invite([A])
    assert census.invited == (inside[1], inside[0])
    census.note(inside[0], master(inside[1], run_id="a"))
    assert [node.address for node in census.joined([A], [A])] == [inside[1]]


def test_a_listed_address_that_means_another_server_here_does_not_join() -> None:
    census = Census()
    census.note(A, master(D, run_id="a"))
    census.invite([A])
    census.note(D, replica(Address("foreign", 1), run_id="d"))
    assert census.joined([A], [A]) == ()


def test_a_master_that_only_its_replicas_name() -> None:
    """One seed will do, also if that is a replica. Where a known node is the master, nobody else's master counts."""
    census = Census()
    census.note(B, replica(A, run_id="b"))
    census.invite([B])
    assert census.invited == (A,)
    expects = [census.expects_more]
    census.note(A, master(B, run_id="a"))
    assert [*expects, census.expects_more] == [True, False]
    voters = census.voters([B], None)
    assert elected(voters, None, [B]) == Election(A)
    census.note(C, master(run_id="c"))
    assert A not in census.voters([B, C], C), "B was taken away by somebody else"


def test_a_node_with_two_addresses_has_one_vote() -> None:
    census = Census()
    for address in (A, B):
        census.note(address, master(run_id="same"))
    assert elected(census.voters([A, B], None)) == Election(A)
    assert elected(census.voters([A, B], B), B) == Election(B)


def test_a_replica_that_was_taken_elsewhere_takes_nobody_with_it() -> None:
    """Silence is no consent: only the master itself can say that it follows a stranger now."""
    foreign = Address("foreign", 1)
    census = Census()
    census.note(A, master(B))
    census.note(B, replica(foreign))
    census.invite([A, B])
    census.note(foreign, master(B, run_id="f"))
    assert elected(census.voters([A, B], A), A) == Election(A)
    census.note(A, None)
    assert elected(census.voters([A, B], A), A) == Election(None)
    census.note(A, replica(foreign))
    assert elected(census.voters([A, B], A), A) == Election(foreign)


def test_at_the_first_those_count_who_have_not_been_heard() -> None:
    """A slow master is not passed over for an empty one that is quick."""
    assert elected({B: master(), C: replica(A)}) == Election(None, (B,))
    assert elected({B: master(), C: replica(A), D: replica(B)}) == Election(B)
    assert elect({B: master()}, None, SEEDS, {}, pending=True) == Election(None, (B,))
    assert elect({B: master(), C: replica(B)}, None, SEEDS, {}, pending=True) == Election(B)
    assert elected({B: master()}) == Election(B)


def test_who_has_gone_for_good_is_forgotten() -> None:
    census = Census()
    census.note(A, master(B, C))
    census.note(B, replica(A))
    census.note(C, replica(A))
    last = described(census.said, Election(A), None)
    census.note(A, master(C))
    for _ in range(3):
        assert not census.gone([A])
        census.note(B, None)
        census.note(C, None)
        census.invite([A, B, C])
    assert census.gone([A]) == {B}, "C is still named, and may come back"
    assert census.gone([A, B]) == set(), "who was listed is asked for ever"
    assert shown(described(census.said, Election(A), last, census.gone([A]))) == (A, {C: False})
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
    election = elected(said, current)
    claims = {address for address, one in said.items() if one.role.role == "master"}
    assert {election.master, *election.others} - {None} == claims
    first = described(said, election, None)
    second = described(later, elected(later, election.master), first)
    for topology in (first, second):
        addresses = [node.address for node in topology.nodes]
        assert len(set(addresses)) == len(addresses)
    assert first.complete or election.master is None
    assert second.complete or elected(later, election.master).master is None
