"""The decisions of a sentinel, as functions over what it knows: who is down, who leads, whom to promote.

As in sentinel.c of Redis 7.0.15. Nothing here changes anything, or knows what time it is.
"""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from hatopo.testing.sentinel._instances import Master, Node, Peer, Replica

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hatopo.testing.sentinel._instances import Instance, Periods
    from hatopo.testing.sentinel._line import Line


def is_silent(line: Line, down_after: int, now: int) -> bool:
    """Whether an instance has not answered for longer than `down_after`."""
    if line.act_ping:
        return now - line.act_ping > down_after
    return line.disconnected and now - line.last_avail > down_after


def is_down(one: Instance, periods: Periods, now: int) -> bool:
    """Whether an instance is down for this sentinel alone (SDOWN)."""
    if is_silent(one.line, one.down_after, now):
        return True
    if not isinstance(one, Master):
        return False
    if one.role_reported == "slave" and now - one.role_reported_since > one.down_after + 2 * periods.info_period:
        return True
    return one.rebooted and now - one.rebooted_since > one.reboot_down_after


def down_votes(master: Master) -> int:
    """How many sentinels, this one included, hold the master to be down; 0 if this one does not."""
    return 1 + sum(peer.master_down for peer in master.sentinels.values()) if master.s_down else 0


def looks_sane(master: Master, periods: Periods, now: int) -> bool:
    """Whether a master is one that replicas may be sent to."""
    return (
        master.role_reported == "master"
        and not (master.s_down or master.o_down)
        and now - master.info_refresh < 2 * periods.info_period
    )


def was_up_for(one: Node, milliseconds: int, now: int) -> bool:
    """Whether an instance has not gone down for so long."""
    return one.s_down_since == 0 or now - one.s_down_since > milliseconds


def may_start_failover(master: Master, now: int) -> bool:
    """Whether this sentinel may try to lead a failover now."""
    return master.o_down and not master.failing_over and now - master.failover_start >= 2 * master.failover_timeout


def is_candidate(replica: Replica, master: Master, periods: Periods, now: int) -> bool:
    """Whether a replica may be promoted at all."""
    fresh = 5 * periods.ping_period if master.s_down else 3 * periods.info_period
    down_for = now - master.s_down_since if master.s_down else 0
    return not (
        replica.s_down
        or replica.line.disconnected
        or now - replica.line.last_avail > 5 * periods.ping_period
        or replica.priority == 0
        or now - replica.info_refresh > fresh
        or replica.master_link_down_time > down_for + 10 * master.down_after
    )


def select_replica(master: Master, periods: Periods, now: int) -> Replica | None:
    """The replica to promote: lowest priority, then most data, then lowest run id."""
    found = [one for one in master.replicas.values() if is_candidate(one, master, periods, now)]
    return min(found, key=rank, default=None)


def rank(replica: Replica) -> tuple[int, int, bool, str]:
    """The better of two candidates has the lower rank; who has no run id comes last."""
    return (replica.priority, -replica.offset, not replica.run_id, replica.run_id.lower())


def most_voted(votes: Iterable[str]) -> str | None:
    """Who has most of the votes; the first one that reached so many."""
    counted = Counter(votes)
    return max(counted, key=lambda name: counted[name], default=None)


def winner(votes: Iterable[str], own: str | None, known: int, quorum: int) -> str | None:
    """Who is elected: by the majority of all sentinels ever known, and by no fewer than the quorum.

    Args:
        votes: those of the other sentinels, in this epoch.
        own: for whom this sentinel votes in this epoch.
        known: how many sentinels there are, this one included.
        quorum: how many must agree in any case.
    """
    counted = Counter(votes)
    best = most_voted(counted.elements())
    if own is not None:
        counted[own] += 1
        if best is None or counted[own] > counted[best]:
            best = own
    return best if best is not None and counted[best] >= max(known // 2 + 1, quorum) else None


def check_quorum(master: Master) -> tuple[int, bool, bool]:
    """How many sentinels are usable, whether they are enough for the quorum, and for the majority."""
    usable = 1 + sum(not peer.s_down for peer in master.sentinels.values())
    return usable, usable >= master.quorum, usable >= (len(master.sentinels) + 1) // 2 + 1


def flags(one: Instance) -> str:
    """The flags of an instance as MASTERS, REPLICAS and SENTINELS show them."""
    found = ["s_down"] if one.s_down else []
    if isinstance(one, Master) and one.o_down:
        found.append("o_down")
    found.append(one.kind)
    if one.line.disconnected:
        found.append("disconnected")
    if isinstance(one, Peer) and one.master_down:
        found.append("master_down")
    if isinstance(one, Master) and one.failing_over:
        found.append("failover_in_progress")
    if isinstance(one, Replica):
        found += ["promoted"] if one.chosen else []
        found += [f"reconf_{one.reconf}"] if one.reconf else []
    if isinstance(one, Master) and one.forced:
        found.append("force_failover")
    if one.script_kill_sent:
        found.append("script_kill_sent")
    return ",".join(found)


def title(one: Instance) -> str:
    """An instance as events name it: kind, name and address, and the master where it is not one itself."""
    text = f"{one.kind} {one.name} {one.address[0]} {one.address[1]}"
    master = one.service
    return text if one is master else f"{text} @ {master.name} {master.address[0]} {master.address[1]}"
