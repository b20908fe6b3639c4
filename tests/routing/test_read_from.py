"""Policies: candidates and their order, from what is known of the nodes."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatopo import Address, OptionError, ReadFrom
from hatopo.routing import NodeStatus, choices

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

MASTER = NodeStatus(Address("10.0.0.1", 6379), "master", latency=0.001, zone="a")
NEAR = NodeStatus(Address("10.0.0.2", 6379), "replica", latency=0.002, zone="a")
FAR = NodeStatus(Address("10.1.0.3", 6379), "replica", latency=0.080, zone="b")
NODES = (MASTER, NEAR, FAR)
NAMES = {node.address: name for node, name in ((MASTER, "M"), (NEAR, "near"), (FAR, "far"))}


def shown(tiers: Sequence[Sequence[NodeStatus]]) -> list[str]:
    return ["+".join(NAMES[node.address] for node in tier) for tier in tiers]


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        (ReadFrom.MASTER, ["M"]),
        (ReadFrom.MASTER_PREFERRED, ["M", "near+far"]),
        (ReadFrom.REPLICA, ["near+far"]),
        (ReadFrom.ANY_REPLICA, ["near+far"]),
        (ReadFrom.REPLICA_PREFERRED, ["near+far", "M"]),
        (ReadFrom.ANY, ["M+near+far"]),
        (ReadFrom.LOWEST_LATENCY, ["M+near", "far"]),
        (ReadFrom.NEAREST, ["M+near", "far"]),
        (ReadFrom.zone("a"), ["near", "far", "M"]),
        (ReadFrom.zone("b"), ["far", "near", "M"]),
        (ReadFrom.zone("nowhere"), ["near+far", "M"]),
        (ReadFrom.zone("a", master="in_zone"), ["near", "M", "far"]),
        (ReadFrom.zone("b", master="in_zone"), ["far", "near", "M"]),
        (ReadFrom.zone("a", master="any"), ["M+near", "far"]),
        (ReadFrom.zone("x", zones={"10.0.0.0/8": "x", "10.1.0.0/16": "y"}), ["near+far", "M"]),
        (ReadFrom.zone("x", zones={"10.1.0.3": "x"}), ["far", "near", "M"]),
        (ReadFrom.zone("x", zones={"10.1.0.3:6379": "x", "10.0.0.2:7000": "x"}), ["far", "near", "M"]),
        (ReadFrom.zone("x", zones=lambda host, port: "x" if port and host == "10.0.0.2" else ""), ["near", "far", "M"]),
        (ReadFrom.subnet("10.0.0.0/24"), ["M+near"]),
        (ReadFrom.subnet("10.1.0.0/16", "fd00::/8"), ["far"]),
        (ReadFrom.regex(r"10\.0\..*"), ["M+near"]),
        (ReadFrom.regex("10"), []),  # the whole host must match
        (ReadFrom.of(lambda nodes: [nodes[2], nodes[1], nodes[0]]), ["far", "near", "M"]),
        (ReadFrom.of(lambda nodes: [nodes[1:], nodes[0]]), ["near+far", "M"]),
        (ReadFrom.of(lambda nodes: []), []),
    ],
)
def test_candidates_and_their_order(policy: ReadFrom, expected: list[str]) -> None:
    assert shown(policy.tiers(NODES)) == expected
    assert shown(choices(policy, NODES))[: len(expected)] == expected


@pytest.mark.parametrize(
    ("spellings", "policy"),
    [
        ("master MASTER primary upstream UPSTREAM", ReadFrom.MASTER),
        ("master_preferred masterPreferred upstreamPreferred PRIMARY_PREFERRED", ReadFrom.MASTER_PREFERRED),
        ("replica slave REPLICA anyReplica any_replica ANY-REPLICA", ReadFrom.REPLICA),
        ("replica_preferred replicaPreferred slavePreferred PREFER_REPLICA", ReadFrom.REPLICA_PREFERRED),
        ("any ANY all_nodes RouteRandomly", ReadFrom.ANY),
        ("lowest_latency lowestLatency nearest NEAREST RouteByLatency", ReadFrom.LOWEST_LATENCY),
        ("subnet:10.0.0.0/8,fd00::/8", ReadFrom.subnet("10.0.0.0/8", "fd00::/8")),
        ("regex:db-.*", ReadFrom.regex("db-.*")),
        ("zone:a", ReadFrom.zone("a")),
    ],
)
def test_spellings(spellings: str, policy: ReadFrom) -> None:
    for spelling in spellings.split():
        assert ReadFrom.of(spelling) == policy


@pytest.mark.parametrize(
    ("name", "master"),
    [("AZ_AFFINITY", "last"), ("AZAffinityReplicasAndPrimary", "in_zone"), ("az_affinity_all_nodes", "any")],
)
def test_the_zones_of_glide(name: str, master: str) -> None:
    assert ReadFrom.of(name).at_home("a") == ReadFrom.zone("a", master=master)


def test_a_zone_that_nobody_told_is_an_error_before_any_io() -> None:
    with pytest.raises(OptionError, match="HATOPO_ZONE"):
        ReadFrom.zone().at_home("")
    assert ReadFrom.ANY.at_home("") is ReadFrom.ANY


@pytest.mark.parametrize(
    "make",
    [
        lambda: ReadFrom.of("replicas_preferred"),
        lambda: ReadFrom.of("regex:("),
        lambda: ReadFrom.of("subnet:"),
        lambda: ReadFrom.of("master:x"),
        lambda: ReadFrom.of(7),
        lambda: ReadFrom.of(int),
        ReadFrom.subnet,
        lambda: ReadFrom.subnet("10.0.0.0/99"),
        lambda: ReadFrom.zone("a", master="first"),
        lambda: ReadFrom.zone("a", zones={"10.0.0.0/99": "x"}),
    ],
)
def test_what_is_no_policy_is_refused(make: Callable[[], object]) -> None:
    with pytest.raises(OptionError):
        make()


def test_a_function_may_return_its_nodes_only() -> None:
    stranger = NodeStatus(Address("evil", 1), "replica")
    with pytest.raises(OptionError, match="none of its nodes"):
        ReadFrom.of(lambda nodes: [stranger]).tiers(NODES)


def test_equal_policies_are_one_key() -> None:
    def own(nodes: Sequence[NodeStatus]) -> Sequence[NodeStatus]:
        return nodes

    assert len({ReadFrom.zone("a"), ReadFrom.of("zone:a"), ReadFrom.zone("a", zones={})}) == 1
    assert len({ReadFrom.zone("a"), ReadFrom.zone("a", zones={"h": "b"}), ReadFrom.zone("a", master="any")}) == 3
    assert ReadFrom.of(own) == ReadFrom.of(own) != ReadFrom.of(lambda nodes: nodes)
    assert str(ReadFrom.of(own)) == "own"


def test_who_has_just_failed_comes_last_and_who_is_refused_never() -> None:
    shaky, refused = replace(NEAR, doubtful=True), replace(FAR, refused="it is being synchronised")
    assert shown(choices(ReadFrom.REPLICA, (MASTER, shaky, FAR))) == ["far", "near"]
    assert shown(choices(ReadFrom.REPLICA_PREFERRED, (MASTER, shaky, refused))) == ["M", "near"]
    assert shown(choices(ReadFrom.REPLICA, (MASTER, NEAR, refused))) == ["near"]
    assert shown(choices(ReadFrom.REPLICA, (MASTER, refused))) == []


@pytest.mark.parametrize("policy", [ReadFrom.REPLICA_PREFERRED, ReadFrom.ANY, ReadFrom.NEAREST, ReadFrom.zone("a")])
def test_the_master_is_waited_for_where_the_policy_permits_it(policy: ReadFrom) -> None:
    """Whatever speaks against it: nobody else is left."""
    down = [replace(node, refused="down") for node in NODES]
    assert shown(choices(policy, down)) == ["M"]


STATUSES = st.builds(
    NodeStatus,
    st.builds(Address, st.sampled_from(["10.0.0.1", "10.9.9.9", "name"]), st.integers(1, 9)),
    st.sampled_from(["master", "replica"]),
    st.sampled_from(["", "down"]),
    st.booleans(),
    st.sampled_from(["", "a", "b"]),
    st.none() | st.floats(0, 1),
)
POLICIES = st.sampled_from(
    [
        *(ReadFrom.MASTER, ReadFrom.MASTER_PREFERRED, ReadFrom.REPLICA, ReadFrom.REPLICA_PREFERRED, ReadFrom.ANY),
        *(ReadFrom.NEAREST, ReadFrom.zone("a"), ReadFrom.zone("a", master="in_zone"), ReadFrom.zone("b", master="any")),
        *(ReadFrom.subnet("10.0.0.0/24"), ReadFrom.regex("n.*"), ReadFrom.of(lambda nodes: [nodes])),
    ]
)


@given(POLICIES, st.lists(STATUSES, max_size=6, unique_by=lambda node: node.address))
def test_laws_of_every_choice(policy: ReadFrom, nodes: list[NodeStatus]) -> None:
    tiers = choices(policy, nodes)
    listed = [node for tier in tiers for node in tier]
    assert all(tiers)
    assert len(set(listed)) == len(listed)
    assert set(listed) <= set(nodes)
    permitted = {node for tier in policy.tiers(nodes) for node in tier}
    assert set(listed) <= permitted
    assert not [node for node in listed if node.refused and not node.is_master]
    fit = {node for node in permitted if not node.refused}
    assert fit <= set(listed)
    doubts = [node.doubtful for node in listed if not node.refused and not (node.is_master and node.doubtful)]
    assert doubts == sorted(doubts)


@pytest.mark.parametrize("frozen", [False, True])
def test_a_function_that_cannot_be_hashed_is_known_by_its_identity(frozen: bool) -> None:
    """A frozen one with a list in it says that it can be, and cannot."""

    class Listed:
        def __init__(self) -> None:
            self.hosts = ["a"]

        def __call__(self, nodes: Sequence[NodeStatus]) -> Sequence[NodeStatus]:
            return [node for node in nodes if node.host in self.hosts]

        if frozen:

            def __hash__(self) -> int:
                return hash((self.hosts,))
        else:
            __hash__ = None  # type: ignore[assignment]

    one, other = Listed(), Listed()
    assert len({ReadFrom.of(one), ReadFrom.of(one), ReadFrom.of(other)}) == 2
