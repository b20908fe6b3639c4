"""The failover: from the wish to lead it to the switch, one state after the other, as far as this sentinel leads.

Each function is what a tick does in a state; promotion itself is noticed in INFO (`_info`).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatopo.testing.sentinel import _election, _rules
from hatopo.testing.sentinel._hello import switched
from hatopo.testing.sentinel._instances import (
    NONE,
    RECONF_SLAVES,
    SELECT_SLAVE,
    SEND_SLAVEOF_NOONE,
    UPDATE_CONFIG,
    WAIT_PROMOTION,
    WAIT_START,
)
from hatopo.testing.sentinel._orders import send_slaveof

if TYPE_CHECKING:
    from hatopo.testing.sentinel._instances import Master, Replica
    from hatopo.testing.sentinel._server import SentinelServer


def start(sentinel: SentinelServer, master: Master) -> None:
    """Try to lead a failover."""
    master.failover_state, master.failing_over = WAIT_START, True
    sentinel.epoch += 1
    master.failover_epoch = sentinel.epoch
    sentinel.publish_event("+new-epoch", str(sentinel.epoch), master)
    sentinel.event("+try-failover", master)
    master.failover_start = _election.desynchronized(sentinel)
    master.failover_changed = sentinel.moment
    sentinel.wake()


def force(sentinel: SentinelServer, master: Master) -> None:
    """Lead a failover without asking anybody (SENTINEL FAILOVER)."""
    start(sentinel, master)
    master.forced = True


def advance(sentinel: SentinelServer, master: Master) -> None:
    """Do what is to be done in the present state."""
    step = _STEPS.get(master.failover_state)
    if master.failing_over and step is not None:
        step(sentinel, master)


def _enter(sentinel: SentinelServer, master: Master, state: str) -> None:
    master.failover_state, master.failover_changed = state, sentinel.moment


def _in_state_for(sentinel: SentinelServer, master: Master) -> int:
    return sentinel.moment - master.failover_changed


def election_timeout(sentinel: SentinelServer, master: Master) -> int:
    """After how long a candidate gives up."""
    return min(sentinel.periods.election_timeout, master.failover_timeout)


def _wait_start(sentinel: SentinelServer, master: Master) -> None:
    elected = _election.leader(sentinel, master, master.failover_epoch)
    if (elected is None or elected.lower() != sentinel.myid) and not master.forced:
        if sentinel.moment - master.failover_start > election_timeout(sentinel, master):
            _abort(sentinel, master, "-failover-abort-not-elected")
        return
    sentinel.event("+elected-leader", master)
    sentinel.crash_if("crash-after-election")
    _enter(sentinel, master, SELECT_SLAVE)
    sentinel.event("+failover-state-select-slave", master)


def _select_slave(sentinel: SentinelServer, master: Master) -> None:
    chosen = _rules.select_replica(master, sentinel.periods, sentinel.moment)
    if chosen is None:
        _abort(sentinel, master, "-failover-abort-no-good-slave")
        return
    sentinel.event("+selected-slave", chosen)
    chosen.chosen, master.promoted = True, chosen
    _enter(sentinel, master, SEND_SLAVEOF_NOONE)
    sentinel.event("+failover-state-send-slaveof-noone", chosen)


def _send_slaveof_noone(sentinel: SentinelServer, master: Master) -> None:
    chosen = master.promoted
    assert chosen is not None
    if chosen.line.disconnected:
        _abort_if_late(sentinel, master)
        return
    send_slaveof(chosen, None)
    sentinel.event("+failover-state-wait-promotion", chosen)
    _enter(sentinel, master, WAIT_PROMOTION)


def _abort_if_late(sentinel: SentinelServer, master: Master) -> None:
    if _in_state_for(sentinel, master) > master.failover_timeout:
        _abort(sentinel, master, "-failover-abort-slave-timeout")


def _reconf_slaves(sentinel: SentinelServer, master: Master) -> None:
    """Send the other replicas to the new master, so many at a time."""
    replicas = [*master.replicas.values()]
    busy = sum(one.reconf in ("sent", "inprog") for one in replicas)
    for one in replicas:
        if busy >= master.parallel_syncs:
            break
        if one.chosen or one.reconf == "done":
            continue
        if one.reconf == "sent" and sentinel.moment - one.reconf_sent > sentinel.periods.slave_reconf_timeout:
            sentinel.event("-slave-reconf-sent-timeout", one)
            one.reconf = "done"
        if one.reconf in ("sent", "inprog") or one.line.disconnected:
            continue
        _send_to_promoted(sentinel, master, one, "+slave-reconf-sent")
        busy += 1
    _detect_end(sentinel, master)


def _send_to_promoted(sentinel: SentinelServer, master: Master, one: Replica, channel: str) -> None:
    assert master.promoted is not None
    send_slaveof(one, master.promoted.address)
    one.reconf, one.reconf_sent = "sent", sentinel.moment
    sentinel.event(channel, one)


def _detect_end(sentinel: SentinelServer, master: Master) -> None:
    """End the failover when all replicas that can be reached follow the new master, or when it takes too long."""
    if master.promoted is None or master.promoted.s_down:
        return
    replicas = [*master.replicas.values()]
    waiting = any(not (one.chosen or one.reconf == "done" or one.s_down) for one in replicas)
    late = _in_state_for(sentinel, master) > master.failover_timeout
    if late:
        sentinel.event("+failover-end-for-timeout", master)
    if late or not waiting:
        sentinel.event("+failover-end", master)
        _enter(sentinel, master, UPDATE_CONFIG)
    for one in replicas if late else ():
        if not (one.chosen or one.reconf in ("done", "sent") or one.line.disconnected):
            _send_to_promoted(sentinel, master, one, "+slave-reconf-sent-be")


def switch(sentinel: SentinelServer, master: Master) -> None:
    """The end: from now on the promoted node is the master."""
    to = (master.promoted or master).address
    sentinel.publish_event("+switch-master", switched(master, to), master)
    sentinel.change_address(master, to)


def _abort(sentinel: SentinelServer, master: Master, channel: str) -> None:
    sentinel.event(channel, master)
    master.failing_over = master.forced = False
    _enter(sentinel, master, NONE)
    if master.promoted is not None:
        master.promoted.chosen, master.promoted = False, None


_STEPS = {
    WAIT_START: _wait_start,
    SELECT_SLAVE: _select_slave,
    SEND_SLAVEOF_NOONE: _send_slaveof_noone,
    WAIT_PROMOTION: _abort_if_late,
    RECONF_SLAVES: _reconf_slaves,
}
