"""What embedded sentinels do in a life: restarts, pauses, crashes, quarrels, and the faults that tests give them.

Time stands still but for what a test lets pass, so all of it is the same at every run.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator
from typing import Any

import pytest

from hatopo.testing import CLIENTS, ManualClock, SentinelDeployment
from hatopo.testing._control import ServerError
from hatopo.testing.sentinel import SentinelServer
from hatopo.testing.sentinel import _server as sentinel_server
from hatopo.testing.world._loop import LOOP


class Lab(SentinelDeployment):
    """A set on a clock that the test moves."""

    clock: ManualClock

    def __init__(self, replicas: int = 2, sentinels: int = 3, **options: Any) -> None:
        super().__init__(replicas, sentinels, clock=ManualClock(1e9), seed=options.pop("seed", 5), **options)

    def pass_time(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def channels(self, since: int = 0, sentinel: int | None = None) -> list[str]:
        return [event.channel for event in self.events[since:] if self.is_of(event.sentinel, sentinel)]

    def is_of(self, address: tuple[str, int], sentinel: int | None) -> bool:
        return sentinel is None or address == self.sentinel_nodes[sentinel].address

    def payloads(self, channel: str, since: int = 0) -> list[str]:
        return [event.payload for event in self.events[since:] if event.channel == channel]

    def seen(self, command: str, sentinel: int = 0) -> list[dict[str, str]]:
        found = self.sentinel_nodes[sentinel].execute("SENTINEL", command, self.name)
        return [dict(zip(one[::2], one[1::2], strict=True)) for one in found]

    def service(self, sentinel: int = 0) -> dict[str, str]:
        found = self.sentinel_nodes[sentinel].execute("SENTINEL", "MASTER", self.name)
        return dict(zip(found[::2], found[1::2], strict=True))

    def server(self, sentinel: int = 0) -> SentinelServer:
        return self.sentinel_nodes[sentinel]._server


@pytest.fixture
def lab() -> Iterator[Lab]:
    with Lab() as lab:
        yield lab


def test_a_restarted_sentinel_knows_what_it_has_written_down(lab: Lab) -> None:
    old = lab.kill_master()
    new = lab.wait_switched(old)
    lab.wait_until(lambda: len(lab.payloads("+switch-master")) == 3)
    sentinel, begun = lab.sentinel_nodes[0], len(lab.events)
    before = (sentinel.execute("SENTINEL", "MYID"), lab.service()["config-epoch"], lab.seen("SENTINELS")[0]["name"])
    run = lab.server().run_id
    LOOP.call(sentinel._server.kill)
    sentinel.restart()
    after = (sentinel.execute("SENTINEL", "MYID"), lab.service()["config-epoch"], lab.seen("SENTINELS")[0]["name"])
    assert after == before
    assert lab.server().run_id != run
    assert lab.service()["port"] == str(new.port)
    assert {one["port"] for one in lab.seen("REPLICAS")} == {str(one.port) for one in lab.nodes if one is not new}
    assert lab.channels(begun, 0) == ["+monitor"]
    assert lab.server().epoch == 1


def test_what_is_configured_while_it_is_stopped_is_there_when_it_starts(lab: Lab) -> None:
    sentinel, known = lab.sentinel_nodes[0], {one["port"] for one in lab.seen("SENTINELS")}
    sentinel.kill()
    sentinel.announce("127.0.0.1", 7)
    LOOP.call(lambda: sentinel._server.monitor("second", "127.0.0.1", 1, 3, down_after_milliseconds=50))
    sentinel.restart()
    assert sentinel.execute("ROLE") == ["sentinel", [lab.name, "second"]]
    assert {one["port"] for one in lab.seen("SENTINELS")} == known
    assert sentinel.execute("SENTINEL", "CONFIG", "GET", "announce-port") == ["announce-port", "7"]
    assert lab.server().masters["second"].down_after == 50


def test_shutdown_ends_it(lab: Lab) -> None:
    with pytest.raises(ConnectionError):
        lab.sentinel_nodes[0].execute("SHUTDOWN")
    assert not lab.sentinel_nodes[0].running
    lab.pass_time(3)
    assert [one["flags"] for one in lab.seen("SENTINELS", 1)].count("s_down,sentinel,disconnected") == 1


def test_a_sentinel_that_has_voted_does_not_vote_again_after_a_restart(lab: Lab) -> None:
    sentinel = lab.sentinel_nodes[0]
    ask = ("SENTINEL", "IS-MASTER-DOWN-BY-ADDR", *lab.master().address)
    assert sentinel.execute(*ask, 7, "somebody") == [0, "somebody", 7]
    assert sentinel.execute(*ask, 7, "another") == [0, "somebody", 7]
    sentinel.restart()
    assert sentinel.execute(*ask, 7, "another") == [0, "*", 7]
    assert sentinel.execute(*ask, 8, "another") == [0, "another", 8]


def test_a_long_pause_ends_in_tilt(lab: Lab) -> None:
    sentinel, begun = lab.sentinel_nodes[0], len(lab.events)
    sentinel.pause()
    lab.pass_time(5)
    assert lab.channels(begun, 0) == []
    sentinel.resume()
    lab.pass_time(0.5)
    assert lab.channels(begun, 0) == ["+tilt"]
    assert "sentinel_tilt:1\r\n" in sentinel.execute("INFO", "sentinel")
    victim = lab.kill_master()
    lab.pass_time(3)
    assert "+sdown" in lab.channels(begun, 1)
    assert lab.channels(begun, 0).count("+sdown") == 0  # it only looks
    assert sentinel.execute("SENTINEL", "IS-MASTER-DOWN-BY-ADDR", *victim.address, 0, "*")[0] == 0
    lab.pass_time(27)
    assert lab.payloads("-tilt", begun) == ["#tilt mode exited"]


def test_a_short_pause_is_none(lab: Lab) -> None:
    lab.set(down_after_milliseconds=500)
    lab.pass_time(2)
    begun = len(lab.events)
    lab.sentinel_nodes[0].pause()
    lab.pass_time(1.5)
    lab.sentinel_nodes[0].resume()
    lab.pass_time(3)
    assert lab.channels(begun, 0) == []
    assert lab.channels(begun, 1) == ["+sdown", "-sdown"]  # the others have missed it


def test_stalled_time_is_no_silence(lab: Lab) -> None:
    begun = len(lab.events)
    lab.pass_time(100)  # at once: as if the machine had been busy
    assert lab.channels(begun) == []


@pytest.mark.parametrize("failure", ["crash-after-election", "crash-after-promotion"])
def test_when_the_leader_crashes_another_one_finishes(lab: Lab, failure: str) -> None:
    for sentinel in lab.sentinel_nodes:
        sentinel.execute("SENTINEL", "SIMULATE-FAILURE", failure)
    victim = lab.kill_master()
    lab.pass_time(4)
    leader = next(one for one in lab.sentinel_nodes if not one.running)
    last = [event.channel for event in lab.events if event.sentinel == leader.address][-1]
    assert last == ("+elected-leader" if failure == "crash-after-election" else "+promoted-slave")
    lab.let_leaders_live()
    lab.wait_switched(victim, 60)
    assert len(lab.leaders()) == 2


def test_a_swallowed_event_is_not_published(lab: Lab) -> None:
    lab.sentinel_nodes[0].swallow("+switch-master", times=1)
    begun = len(lab.events)
    lab.wait_switched(lab.kill_master())
    lab.pass_time(3)
    assert "+switch-master" not in lab.channels(begun, 0)
    assert lab.channels(begun, 1).count("+switch-master") == 1
    lab.failover()
    lab.pass_time(5)
    assert lab.channels(begun, 0).count("+switch-master") == 1


def test_a_liar_names_another_master_and_is_believed_under_a_higher_epoch(lab: Lab) -> None:
    wrong = lab.replicas()[0]
    name = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", lab.name)
    right = lab.sentinel_nodes[0].execute(*name)
    lab.sentinel_nodes[0].lie(wrong.address)
    lab.pass_time(5)
    assert lab.sentinel_nodes[0].execute(*name) == ["127.0.0.1", str(wrong.port)]
    assert lab.service(0)["port"] == str(wrong.port)
    assert lab.sentinel_nodes[1].execute(*name) == right
    lab.sentinel_nodes[0].lie(wrong.address, epoch=9)
    lab.pass_time(3)
    assert lab.sentinel_nodes[1].execute(*name) == ["127.0.0.1", str(wrong.port)]
    lab.sentinel_nodes[0].honest()
    assert lab.sentinel_nodes[0].execute(*name) == right


def test_a_sentinel_that_announces_another_address_moves(lab: Lab) -> None:
    begun, myid = len(lab.events), lab.server(0).myid
    lab.sentinel_nodes[0].announce("127.0.0.1", 1)
    lab.pass_time(3)
    assert (
        lab.payloads("+sentinel-address-switch", begun)
        == [f"master mymaster 127.0.0.1 {lab.master().port} ip 127.0.0.1 port 1 for {myid}"] * 2
    )
    assert {one["port"] for one in lab.seen("SENTINELS", 1)} == {"1", str(lab.sentinel_nodes[2].port)}
    lab.pass_time(2)
    assert lab.channels(begun, 1)[-1] == "+sdown"  # nobody is there


def test_who_announces_the_address_of_another_one_drives_it_out(lab: Lab) -> None:
    begun = len(lab.events)
    lab.sentinel_nodes[0].announce(*lab.sentinel_nodes[1].address)
    lab.pass_time(2.2)
    assert "+sentinel-address-switch" in lab.channels(begun, 2)
    lab.sentinel_nodes[2].execute("SENTINEL", "RESET", lab.name)
    lab.pass_time(3)
    assert "+sentinel-invalid-addr" in lab.channels(begun, 2)


def test_without_a_good_replica_there_is_no_failover(lab: Lab) -> None:
    lab.configure(replica_priority=0)
    lab.pass_time(11)
    with pytest.raises(ServerError, match=r"^NOGOODSLAVE No suitable replica to promote$"):
        lab.sentinel_nodes[0].execute("SENTINEL", "FAILOVER", lab.name)
    begun = len(lab.events)
    lab.kill_master()
    lab.pass_time(10)
    channels = lab.channels(begun)
    assert channels.index("+failover-state-select-slave") + 1 == channels.index("-failover-abort-no-good-slave")
    assert "+selected-slave" not in channels
    lab.pass_time(14)
    assert lab.channels(begun).count("-failover-abort-no-good-slave") == 2  # tried again after twice the timeout


def test_a_minority_is_not_elected(lab: Lab) -> None:
    for sentinel in lab.sentinel_nodes[1:]:
        sentinel.kill()
    lab.sentinel_nodes[0].execute("SENTINEL", "SET", lab.name, "quorum", 1)
    lab.pass_time(3)
    with pytest.raises(ServerError, match=r"^NOQUORUM 1 usable Sentinels. Not enough .* majority and authorize"):
        lab.sentinel_nodes[0].execute("SENTINEL", "CKQUORUM", lab.name)
    begun = len(lab.events)
    lab.kill_master()
    lab.pass_time(10)
    assert lab.channels(begun) == [
        *("+sdown", "+odown", "+new-epoch", "+try-failover", "+vote-for-leader", "-failover-abort-not-elected")
    ]


def test_replicas_are_reconfigured_one_after_the_other() -> None:
    with Lab(4, parallel_syncs=1) as lab:
        victim, begun = lab.kill_master(), len(lab.events)
        lab.wait_switched(victim)
        lab.pass_time(8)
        steps = [one for one in lab.channels(begun) if one.startswith("+slave-reconf-")]
        assert steps == ["+slave-reconf-sent", "+slave-reconf-inprog", "+slave-reconf-done"] * 3
        assert lab.channels(begun).count("+failover-end") == 1


def test_a_replica_that_never_follows_ends_the_failover_late(lab: Lab) -> None:
    lab.kill_master()
    begun = len(lab.events)
    lab.wait_until(lambda: "+promoted-slave" in lab.channels(begun))
    new = lab.payloads("+promoted-slave")[0].split()[3]
    lab.partition([node for node in lab.nodes if node.running and str(node.port) != new], lab.nodes)
    lab.pass_time(8)
    channels = lab.channels(begun)
    assert channels.index("+failover-end-for-timeout") + 1 == channels.index("+failover-end")


def test_a_replica_of_the_wrong_master_is_sent_to_the_right_one(lab: Lab) -> None:
    first, second = lab.replicas()
    begun = len(lab.events)
    first.execute("REPLICAOF", second.host, second.port)
    lab.pass_time(20)
    fixed = f"slave 127.0.0.1:{first.port} 127.0.0.1 {first.port} @ mymaster 127.0.0.1 {lab.master().port}"
    assert {*lab.payloads("+fix-slave-config", begun)} == {fixed}
    lab.wait_stable()
    assert first.execute("ROLE")[2] == lab.master().port


def test_a_restarted_node_is_another_run(lab: Lab) -> None:
    first = lab.replicas()[0]
    begun = len(lab.events)
    first.restart()
    lab.pass_time(12)
    reboot = f"slave 127.0.0.1:{first.port} 127.0.0.1 {first.port} @ mymaster 127.0.0.1 {lab.master().port}"
    assert lab.payloads("+reboot", begun) == [reboot] * 3


def test_two_services_share_what_connects_their_sentinels(lab: Lab) -> None:
    with_another = lab.replicas()[0]
    lab.promote(with_another)
    for sentinel in lab.sentinel_nodes:
        sentinel.execute("SENTINEL", "MONITOR", "second", *with_another.address, 2)
    lab.pass_time(5)
    shared = [
        dict(zip(one[::2], one[1::2], strict=True))
        for one in lab.sentinel_nodes[0].execute("SENTINEL", "SENTINELS", "second")
    ]
    assert [one["link-refcount"] for one in shared] == ["2", "2"]
    assert lab.sentinel_nodes[0].execute("ROLE") == ["sentinel", ["mymaster", "second"]]
    lab.sentinel_nodes[0].execute("SENTINEL", "REMOVE", "second")
    assert [one["link-refcount"] for one in lab.seen("SENTINELS")] == ["1", "1"]
    lab.pass_time(3)
    assert {one["flags"] for one in lab.seen("SENTINELS")} == {"sentinel"}


def test_sentinels_cut_off_with_the_master_keep_it_until_they_are_back(lab: Lab) -> None:
    old = lab.master()
    lab.partition([old, lab.sentinel_nodes[0]], [*lab.replicas(), *lab.sentinel_nodes[1:]])
    lab.pass_time(10)
    name = ("SENTINEL", "GET-MASTER-ADDR-BY-NAME", lab.name)
    assert lab.sentinel_nodes[0].execute(*name)[1] == str(old.port)
    new = lab.sentinel_nodes[1].execute(*name)
    assert new == lab.sentinel_nodes[2].execute(*name)
    assert new[1] != str(old.port)
    lab.heal()
    lab.pass_time(30)
    assert lab.sentinel_nodes[0].execute(*name) == new
    assert old.role() == "slave"


def test_clients_that_are_cut_off_do_not_disturb_sentinels(lab: Lab) -> None:
    begun = len(lab.events)
    lab.partition(CLIENTS, [*lab.nodes, *lab.sentinel_nodes])
    lab.pass_time(60)
    assert lab.channels(begun) == []


def test_sentinels_log_in() -> None:
    users = ["user app on >secret ~* +@all"]
    with Lab(users=users) as secured:
        begun = len(secured.events)
        secured.wait_switched(secured.kill_master())
        assert "+elected-leader" in secured.channels(begun)


def test_sentinels_with_a_password_share_it(lab: Lab) -> None:
    for sentinel in lab.sentinel_nodes:
        LOOP.call(functools.partial(sentinel._server.set_requirepass, "secret"))
        sentinel.execute("SENTINEL", "CONFIG", "SET", "sentinel-pass", "secret")
    begun = len(lab.events)
    lab.pass_time(5)
    assert lab.channels(begun) == []
    lab.sentinel_nodes[0].execute("SENTINEL", "CONFIG", "SET", "sentinel-pass", "wrong")
    lab.pass_time(5)
    assert lab.channels(begun, 0) == ["+sdown", "+sdown"]


@pytest.mark.parametrize("seed", range(3))
def test_ticks_are_only_left_out_where_nothing_would_happen(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def told() -> list[str]:
        with Lab(1, 1, quorum=1, down_after=2.0, seed=seed) as lab:
            begun = len(lab.events)
            victim = lab.kill_master()
            lab.pass_time(20)
            victim.restart()
            lab.pass_time(60)
            order = {str(node.port): node.name for node in lab.nodes}
            events = [f"{one.channel} {one.payload}" for one in lab.events[begun:]]
            own = lab.server().myid
        return ["".join(order.get(word, word) for word in _words(event.replace(own, "ME"))) for event in events]

    lazy = told()
    monkeypatch.setattr(sentinel_server, "next_due", lambda sentinel: sentinel.moment)
    assert told() == lazy
    assert lazy[-1].startswith("+role-change")


def _words(text: str) -> list[str]:
    return [part for word in text.replace(":", " : ").split(" ") for part in (word, " ")]


def test_the_master_after_a_switch_may_seem_down_where_down_after_is_as_short_as_a_ping() -> None:
    """As with real ones: the old master is dialled once a second, and the new one no sooner than that."""
    with Lab(1, 1, quorum=1) as lab:
        lab.kill_master()
        lab.wait_until(lambda: "+failover-end" in lab.channels())
        line = lab.server().masters[lab.name].line
        LOOP.call(lambda: setattr(line, "last_reconnect", lab.server().moment))
        begun = len(lab.events)
        lab.pass_time(3)
        about = [event.payload.partition(" ")[0] for event in lab.events[begun:] if event.channel == "+sdown"]
        assert "master" in about
