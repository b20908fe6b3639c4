"""Whether a node may answer reads: by its own word, by what calls have met, by the view in force."""

from __future__ import annotations

import pytest
import redis.exceptions as rx

from hatopo import Address
from hatopo.routing import Checkup, Health, as_dialled, read_checkup
from hatopo.topology import Node, RoleReport, Shard, Topology

M, R, S = (Address("h", port) for port in (1, 2, 3))
ROLE_OF_MASTER = [b"master", 100, [[b"h", b"2", b"90"]]]
ROLE_OF_REPLICA = [b"slave", b"h", 1, b"connected", 90]


def topology(master: Address = M, *replicas: Address, by_name: bool = False) -> Topology:
    nodes = tuple(Node(address) for address in replicas or (R, S))
    return Topology((Shard(Node(master), nodes),), by_name=by_name)


def healthy(max_lag: int | None = None, *, by_name: bool = False) -> Health:
    health = Health(max_lag)
    health.adopt(topology(by_name=by_name))
    tell(health, M, ROLE_OF_MASTER)
    tell(health, R, ROLE_OF_REPLICA)
    tell(health, S, ROLE_OF_REPLICA)
    return health


def tell(health: Health, node: Address, role: object, ping: object = b"PONG", number: int = 1) -> bool:
    return health.heard(node, read_checkup(number, ping, role, 0.001))


def refusals(health: Health) -> dict[int, str]:
    return {one.port: one.refused for one in health.statuses() if one.refused}


def doubtful(health: Health) -> list[int]:
    return [one.port for one in health.statuses() if one.doubtful]


def test_nobody_is_fit_before_he_was_asked() -> None:
    health = Health()
    health.adopt(topology())
    assert set(refusals(health)) == {1, 2, 3}
    assert health.unseen() == (M, R, S)
    assert refusals(healthy()) == {}
    assert healthy().unseen() == ()


@pytest.mark.parametrize(
    ("role", "ping", "reason"),
    [
        ([b"slave", b"h", 1, b"connect", -1], b"PONG", "link to its master is down"),
        ([b"slave", b"h", 1, b"connecting", -1], b"PONG", "link to its master is down"),
        ([b"slave", b"h", 1, b"handshake", -1], b"PONG", "link to its master is down"),
        ([b"slave", b"h", 1, b"sync", -1], b"PONG", "synchronised"),
        ([b"master", 90, []], b"PONG", "says that it is a master"),
        ([b"sentinel", []], b"PONG", "says that it is a sentinel"),
        (ROLE_OF_REPLICA, rx.BusyLoadingError("LOADING Redis is loading the dataset in memory"), "loading"),
        (ROLE_OF_REPLICA, rx.MasterDownError("MASTERDOWN Link with MASTER is down"), "MASTER is down"),
        (ROLE_OF_REPLICA, rx.ResponseError("BUSY Redis is busy running a script"), "busy"),
        (b"role:slave\r\nmaster_host:h\r\nmaster_port:1\r\nmaster_link_status:down\r\n", b"PONG", "link"),
        (
            b"role:slave\r\nmaster_host:h\r\nmaster_port:1\r\nmaster_link_status:down\r\nmaster_sync_in_progress:1\r\n",
            b"PONG",
            "synchronised",
        ),
    ],
)
def test_what_a_replica_says_that_bars_it(role: object, ping: object, reason: str) -> None:
    health = healthy()
    tell(health, M, ROLE_OF_MASTER, number=2)
    assert tell(health, R, role, ping, 2)
    assert reason in refusals(health)[2]
    assert set(refusals(health)) == {2}
    assert tell(health, R, ROLE_OF_REPLICA, number=3)
    assert refusals(health) == {}


@pytest.mark.parametrize(
    ("role", "ping"),
    [
        (rx.NoPermissionError("NOPERM no ROLE"), b"PONG"),  # then nothing is known against it
        (ROLE_OF_REPLICA, rx.NoPermissionError("NOPERM no PING")),
        (b"role:slave\r\nmaster_host:h\r\nmaster_port:1\r\nmaster_link_status:up\r\nslave_repl_offset:90\r\n", b"PONG"),
    ],
)
def test_what_does_not_bar_it(role: object, ping: object) -> None:
    health = healthy()
    tell(health, R, role, ping, 2)
    assert refusals(health) == {}


def test_a_reader_by_name_may_be_the_master() -> None:
    health = healthy(by_name=True)
    tell(health, R, ROLE_OF_MASTER, number=2)
    assert refusals(health) == {}
    tell(health, M, ROLE_OF_MASTER, number=2)
    assert refusals(health) == {}, "it has no link to judge"


def test_silence_first_makes_doubtful_then_bars() -> None:
    health = healthy()
    assert health.heard(R, Checkup(2, error="no answer for 0.3 s", silent=True))
    assert doubtful(health) == [2]
    assert refusals(health) == {}
    assert health.heard(R, Checkup(3, error="no answer for 1.0 s"))
    assert refusals(health) == {2: "no answer for 1.0 s"}
    tell(health, R, ROLE_OF_REPLICA, number=4)
    assert doubtful(health) == []
    assert refusals(health) == {}


@pytest.mark.parametrize("last", [["master", 90, []], ["slave", "h", 1, "sync", -1], "LOADING", "no answer for 1.0 s"])
def test_silence_takes_nothing_back(last: str | list[str | int]) -> None:
    """What bars a node is true until it says otherwise."""
    health = healthy()
    if last == "LOADING":
        tell(health, R, ROLE_OF_REPLICA, rx.BusyLoadingError(last), 2)
    elif isinstance(last, str):
        health.heard(R, Checkup(2, error=last))
    else:
        tell(health, R, [part.encode() if isinstance(part, str) else part for part in last], number=2)
    before = refusals(health)
    assert set(before) == {2}
    health.heard(R, Checkup(3, error="no answer for 0.3 s", silent=True))
    assert refusals(health) == before
    tell(health, R, ROLE_OF_REPLICA, number=4)
    assert refusals(health) == {}


def test_a_failed_call_makes_doubtful_until_the_node_answers() -> None:
    health = healthy()
    assert health.failed(R, "reset", barred=False)
    assert not health.failed(R, "reset", barred=False), "that is no news"
    assert doubtful(health) == [2]
    assert health.failed(R, "LOADING", barred=True)
    assert refusals(health) == {2: "LOADING"}
    assert not health.failed(Address("elsewhere", 1), "x", barred=True)
    tell(health, R, ROLE_OF_REPLICA, number=2)
    assert doubtful(health) == []
    assert refusals(health) == {}


def test_a_link_that_went_down_with_the_master_bars_nobody() -> None:
    """Nobody has newer data; but who was cut off before stays behind the others."""
    health = healthy()
    down, lost = [b"slave", b"h", 1, b"connect", -1], Checkup(3, error="refused")
    tell(health, S, down, number=2)
    tell(health, M, ROLE_OF_MASTER, number=2)
    assert set(refusals(health)) == {3}
    tell(health, R, down, number=3)
    assert set(refusals(health)) == {3}, "the master has not been asked at that moment yet"
    health.heard(M, lost)
    tell(health, S, down, number=3)
    assert set(refusals(health)) == {1, 3}
    tell(health, M, ROLE_OF_MASTER, number=4)
    tell(health, R, down, number=4)
    assert set(refusals(health)) == {2, 3}
    tell(health, R, ROLE_OF_REPLICA, number=5)
    assert set(refusals(health)) == {3}, "by its own word, whenever the master is asked"


def test_lag_is_measured_within_one_round_only() -> None:
    health = healthy(max_lag=5)
    assert refusals(health) == {2: refusals(health)[2], 3: refusals(health)[3]}
    assert "10 bytes behind" in refusals(health)[2]
    tell(health, M, [b"master", 1000, []], number=2)  # the replicas have not been asked since
    assert "10 bytes behind" in refusals(health)[2]
    tell(health, R, [b"slave", b"h", 1, b"connected", 996], number=2)
    assert set(refusals(health)) == {3}
    tell(health, S, [b"slave", b"h", 1, b"connected", 1007], number=2)  # it was asked a moment after the master
    assert refusals(health) == {}
    assert [one.lag for one in health.statuses()] == [None, 4, 0]


def test_with_a_limit_a_lag_that_is_not_known_bars() -> None:
    health = Health(5)
    health.adopt(topology())
    tell(health, R, ROLE_OF_REPLICA)
    assert "not known" in refusals(health)[2]
    assert set(health.unseen()) == {M, R, S}, "its first answer is not complete without the master's"
    tell(health, M, [b"master", 92, []])
    assert set(refusals(health)) == {3}
    assert health.unseen() == (S,)
    tell(health, S, rx.NoPermissionError("NOPERM"))
    assert "not known" in refusals(health)[3]
    assert health.unseen() == (), "nobody waits for what never comes"
    health.heard(M, Checkup(2, error="refused"))
    assert 3 not in refusals(health), "nobody is behind a master that is down"


def test_a_former_master_is_known_by_its_address_too() -> None:
    """Sentinels may announce names where nodes name addresses."""
    named, inside = Address("db1", 6379), Address("10.0.0.1", 6379)
    health = Health()
    health.adopt(topology(named, R, S))
    health.heard(named, Checkup(1, role=RoleReport("master"), peer=inside))
    tell(health, R, ROLE_OF_MASTER)
    tell(health, S, [b"slave", b"10.0.0.1", 6379, b"connected", 90])
    assert 3 not in refusals(health)
    health.adopt(topology(R, S))
    assert "follows 10.0.0.1:6379, which is not the master any more" in refusals(health)[3]


def test_lag_bars_nobody_without_a_limit() -> None:
    health = healthy()
    assert [one.lag for one in health.statuses()] == [None, 10, 10]
    assert refusals(health) == {}


def test_latency_is_smoothed() -> None:
    health = healthy()
    health.heard(R, read_checkup(2, b"PONG", ROLE_OF_REPLICA, 0.101))
    assert health.statuses([R])[0].latency == pytest.approx(0.021)
    health.heard(R, read_checkup(3, b"PONG", ROLE_OF_REPLICA, 0.001))
    assert health.statuses([R])[0].latency == pytest.approx(0.009), "near again soon"


def test_who_follows_a_former_master_is_not_read_from() -> None:
    health = healthy()
    health.adopt(topology(R, S))  # R was promoted, M is gone
    assert "says that it is a replica" in refusals(health)[2], "R has not said yet that it is the master"
    tell(health, R, [b"master", 100, []], number=2)
    assert "follows h:1, which is not the master any more" in refusals(health)[3]
    health.adopt(topology(R, S, M))  # M is known as a replica, and has not heard of it
    assert "not the master any more" in refusals(health)[3]
    tell(health, M, ROLE_OF_MASTER, number=3)
    assert "not the master any more" in refusals(health)[3]
    tell(health, M, [b"slave", b"h", 2, b"connected", 100], number=4)  # S gets the new master's data through M
    assert refusals(health) == {}
    tell(health, M, [b"slave", b"h", 3, b"connected", 100], number=5)  # in a circle nobody gets anything
    assert set(refusals(health)) == {1, 3}


def test_a_former_master_that_cannot_be_reached_is_still_one() -> None:
    """It may be cut off from us, and not from a replica that nobody has told of the new master yet."""
    health = healthy()
    health.adopt(topology(R, S, M))
    tell(health, R, [b"master", 100, []], number=2)
    health.heard(M, Checkup(2, error="timed out"))
    tell(health, S, ROLE_OF_REPLICA, number=2)
    assert refusals(health) == {1: "timed out", 3: "it follows h:1, which is not the master any more"}
    tell(health, M, [b"slave", b"h", 2, b"connected", 100], number=3)
    health.heard(M, Checkup(4, error="timed out"))
    assert refusals(health) == {1: "timed out"}, "it had followed the new one when it was heard last"


def test_what_makes_the_data_of_a_replica_others() -> None:
    """Lag and silence do not, nor a failover of which it has not heard."""
    health = Health(max_lag=5)
    health.adopt(topology())
    assert health.astray(R, None) is None
    tell(health, M, ROLE_OF_MASTER)
    tell(health, R, ROLE_OF_REPLICA)
    before = health.role_of(R)
    assert "behind" in refusals(health)[2]
    health.heard(S, Checkup(1, error="timed out"))
    assert [health.astray(one, before) for one in (R, S)] == ["", ""]
    health.adopt(topology(S, R))
    assert "not the master any more" in refusals(health)[2]
    assert health.astray(R, before) == ""
    tell(health, R, [b"slave", b"h", 3, b"connected", 90])
    assert health.astray(R, before) == "", "it follows the new one"
    tell(health, R, [b"slave", b"h", 3, b"sync", -1])
    assert "synchronised" in str(health.astray(R, before))
    tell(health, R, [b"master", 100, []])
    assert "says that it is a master" in str(health.astray(R, before))
    tell(health, R, [b"slave", b"elsewhere", 1, b"connected", 90])
    health.adopt(Topology((Shard(Node(S), (Node(R, flagged="it follows another"),)),)))
    assert health.astray(R, before) == "it follows another"


def test_what_those_who_watch_hold_against_a_replica() -> None:
    health = healthy()
    health.adopt(Topology((Shard(Node(M, flagged="ignored"), (Node(R, flagged="the sentinels say so"), Node(S))),)))
    assert refusals(health) == {2: "the sentinels say so"}
    health.adopt(topology())
    assert refusals(health) == {}


def test_nodes_that_left_are_forgotten_and_new_ones_unseen() -> None:
    health = healthy()
    health.adopt(topology(M, R, Address("h", 9)))
    assert health.unseen() == (Address("h", 9),)
    assert not tell(health, S, ROLE_OF_REPLICA)
    health.forget()
    assert len(health.unseen()) == 3


def test_announced_addresses_are_read_as_they_are_dialled() -> None:
    def admit(address: Address) -> Address | None:
        return None if address.port == 66 else Address("dialled", address.port)

    role = RoleReport("master", replicas=(Address("inside", 7), Address("inside", 66)))
    found = as_dialled(Checkup(1, role=role), admit).role
    assert found is not None
    assert found.replicas == (Address("dialled", 7),)
    replica = as_dialled(Checkup(1, role=RoleReport("replica", Address("inside", 66), "connected", 1)), admit).role
    assert replica is not None
    assert replica.master is None
