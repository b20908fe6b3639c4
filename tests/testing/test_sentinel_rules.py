"""The decisions of a sentinel, one by one, as sentinel.c of Redis 7.0.15 takes them."""

from __future__ import annotations

from typing import Any, cast

import pytest

from hatopo.testing.sentinel import _rules
from hatopo.testing.sentinel._hello import Hello, parse, spell
from hatopo.testing.sentinel._info import number, replica_address
from hatopo.testing.sentinel._instances import Master, Peer, Periods, Replica, is_address, shown
from hatopo.testing.sentinel._line import Line

NOW = 1_000_000
PERIODS = Periods()


class NoSentinel:
    """Who owns lines that nobody uses."""


def line(**state: Any) -> Line:
    found = Line(cast("Any", NoSentinel()), NOW)
    found.disconnected, found.act_ping = False, 0
    for name, value in state.items():
        setattr(found, name, value)
    return found


def master(**state: Any) -> Master:
    made = Master("m", ("127.0.0.1", 1), line(), 1000, NOW, quorum=2, info_refresh=NOW)
    for name, value in state.items():
        setattr(made, name, value)
    return made


def replica(of: Master, port: int, **state: Any) -> Replica:
    made = Replica(f"127.0.0.1:{port}", ("127.0.0.1", port), line(), 1000, NOW, str(port), master=of, info_refresh=NOW)
    for name, value in state.items():
        setattr(made, name, value)
    of.replicas[made.name] = made
    return made


def peer(of: Master, name: str, **state: Any) -> Peer:
    made = Peer(name, ("127.0.0.1", 9), line(), 1000, NOW, name, master=of)
    for key, value in state.items():
        setattr(made, key, value)
    of.sentinels[name] = made
    return made


@pytest.mark.parametrize(
    ("state", "down"),
    [
        ({}, False),
        ({"act_ping": NOW - 1000}, False),
        ({"act_ping": NOW - 1001}, True),
        ({"disconnected": True, "last_avail": NOW - 1000}, False),
        ({"disconnected": True, "last_avail": NOW - 1001}, True),
        ({"last_avail": NOW - 5000}, False),
    ],
)
def test_who_does_not_answer_for_longer_than_down_after_is_down(state: dict[str, Any], down: bool) -> None:
    assert _rules.is_down(master(line=line(**state)), PERIODS, NOW) is down


@pytest.mark.parametrize(("since", "down"), [(NOW - 21_000, False), (NOW - 21_001, True)])
def test_a_master_that_says_it_is_a_replica_is_down_after_two_infos_more(since: int, down: bool) -> None:
    assert _rules.is_down(master(role_reported="slave", role_reported_since=since), PERIODS, NOW) is down
    assert not _rules.is_down(replica(master(), 2, role_reported_since=since), PERIODS, NOW)


def test_a_master_that_has_rebooted_is_down_if_that_was_asked_for() -> None:
    assert _rules.is_down(master(rebooted=True, rebooted_since=NOW - 11, reboot_down_after=10), PERIODS, NOW)
    assert not _rules.is_down(master(rebooted=True, rebooted_since=NOW - 10, reboot_down_after=10), PERIODS, NOW)


def test_only_who_holds_the_master_to_be_down_counts_others() -> None:
    watched = master()
    peer(watched, "a", master_down=True)
    peer(watched, "b")
    assert _rules.down_votes(watched) == 0
    watched.s_down = True
    assert _rules.down_votes(watched) == 2


@pytest.mark.parametrize(
    ("state", "good"),
    [
        ({}, True),
        ({"s_down": True}, False),
        ({"line": line(disconnected=True)}, False),
        ({"line": line(last_avail=NOW - 5000)}, True),
        ({"line": line(last_avail=NOW - 5001)}, False),
        ({"priority": 0}, False),
        ({"info_refresh": NOW - 30_000}, True),
        ({"info_refresh": NOW - 30_001}, False),
        ({"master_link_down_time": 10_000}, True),
        ({"master_link_down_time": 10_001}, False),
    ],
)
def test_which_replicas_may_be_promoted_while_the_master_is_up(state: dict[str, Any], good: bool) -> None:
    watched = master()
    one = replica(watched, 2, **state)
    assert _rules.is_candidate(one, watched, PERIODS, NOW) is good
    assert _rules.select_replica(watched, PERIODS, NOW) is (one if good else None)


@pytest.mark.parametrize(
    ("state", "good"),
    [
        ({"info_refresh": NOW - 5000}, True),
        ({"info_refresh": NOW - 5001}, False),
        ({"master_link_down_time": 13_000}, True),
        ({"master_link_down_time": 13_001}, False),
    ],
)
def test_which_replicas_may_be_promoted_while_the_master_is_down(state: dict[str, Any], good: bool) -> None:
    watched = master(s_down=True, s_down_since=NOW - 3000)
    assert _rules.is_candidate(replica(watched, 2, **state), watched, PERIODS, NOW) is good


def test_the_best_replica_has_priority_then_data_then_the_lower_id() -> None:
    watched = master()
    replica(watched, 2, priority=100, offset=900)
    replica(watched, 3, priority=10, offset=5, run_id="B")
    replica(watched, 4, priority=10, offset=7, run_id="")
    replica(watched, 5, priority=10, offset=7, run_id="C")
    best = replica(watched, 6, priority=10, offset=7, run_id="b")
    assert _rules.select_replica(watched, PERIODS, NOW) is best
    assert [one.address[1] for one in sorted(watched.replicas.values(), key=_rules.rank)] == [6, 5, 4, 3, 2]


@pytest.mark.parametrize(
    ("votes", "own", "known", "quorum", "elected"),
    [
        ([], "me", 1, 1, "me"),
        ([], "me", 1, 2, None),
        ([], "me", 3, 2, None),
        (["me"], "me", 3, 2, "me"),
        (["me"], "me", 3, 3, None),
        (["me"], "me", 5, 2, None),
        (["you", "you"], "me", 3, 2, "you"),
        (["you"], None, 3, 1, None),
        (["you", "you"], None, 3, 1, "you"),
        (["me", "you"], "me", 3, 2, "me"),
        (["me", "you", "you"], "me", 4, 2, None),
    ],
)
def test_a_leader_needs_the_majority_of_the_known_and_the_quorum(
    votes: list[str], own: str | None, known: int, quorum: int, elected: str | None
) -> None:
    assert _rules.winner(votes, own, known, quorum) == elected


@pytest.mark.parametrize(
    ("down", "quorum", "found"),
    [(0, 2, (3, True, True)), (1, 2, (2, True, True)), (2, 2, (1, False, False)), (0, 4, (3, False, True))],
)
def test_how_many_sentinels_are_usable(down: int, quorum: int, found: tuple[int, bool, bool]) -> None:
    watched = master(quorum=quorum)
    for number_of in range(2):
        peer(watched, str(number_of), s_down=number_of < down)
    assert _rules.check_quorum(watched) == found


def test_a_failover_is_tried_again_after_twice_its_timeout() -> None:
    watched = master(o_down=True, failover_timeout=100, failover_start=NOW - 199)
    assert not _rules.may_start_failover(watched, NOW)
    assert _rules.may_start_failover(watched, NOW + 1)
    watched.failing_over = True
    assert not _rules.may_start_failover(watched, NOW + 1)


def test_flags_are_spelled_in_the_order_of_redis() -> None:
    watched = master(s_down=True, o_down=True, failing_over=True, forced=True, line=line(disconnected=True))
    assert _rules.flags(watched) == "s_down,o_down,master,disconnected,failover_in_progress,force_failover"
    assert _rules.flags(replica(watched, 2, chosen=True, reconf="sent")) == "slave,promoted,reconf_sent"
    told = peer(watched, "a", s_down=True, master_down=True, script_kill_sent=True)
    assert _rules.flags(told) == "s_down,sentinel,master_down,script_kill_sent"


def test_events_name_an_instance_and_its_master() -> None:
    watched = master()
    assert _rules.title(watched) == "master m 127.0.0.1 1"
    assert _rules.title(replica(watched, 2)) == "slave 127.0.0.1:2 127.0.0.1 2 @ m 127.0.0.1 1"
    assert _rules.title(peer(watched, "id")) == "sentinel id 127.0.0.1 9 @ m 127.0.0.1 1"


def test_hello_is_read_as_it_is_written() -> None:
    hello = Hello(("10.0.0.1", 26379), "a" * 40, 7, "mymaster", ("10.0.0.2", 6379), 5)
    assert parse(spell(hello)) == hello
    assert parse("10.0.0.1,26379,id,7,mymaster,10.0.0.2,6379") is None
    assert parse("10.0.0.1,x,id,-1,m,10.0.0.2,y,z") == Hello(("10.0.0.1", 0), "id", 0, "m", ("10.0.0.2", 0), 0)


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("slave0:ip=127.0.0.1,port=6380,state=online,offset=1,lag=0", ("127.0.0.1", 6380)),
        ("slave12:127.0.0.1,6380,online", ("127.0.0.1", 6380)),
        ("slave_priority:100", None),
        ("slave0:", None),
        ("role:master", None),
    ],
)
def test_replicas_are_found_in_info(text: str, address: tuple[str, int] | None) -> None:
    assert replica_address(text) == address


def test_addresses_are_numeric() -> None:
    assert is_address(("127.0.0.1", 0))
    assert is_address(("::1", 65_535))
    assert not is_address(("localhost", 1))
    assert not is_address(("127.0.0.1", 65_536))
    assert shown(("::1", 1)) == "[::1]:1"
    assert number("12abc") == 12
    assert number("abc") == 0
