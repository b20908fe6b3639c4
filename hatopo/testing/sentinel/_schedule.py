"""When a sentinel has something to do next: decides which of its ticks may be left out because nothing would happen.

A real sentinel looks at everything ten to nineteen times a second. This one skips the looks that would find nothing
to do, and does what is due at the first tick that is not skipped; whatever arrives meanwhile wakes it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatopo.testing.sentinel import _failover, _monitor
from hatopo.testing.sentinel._instances import (
    RECONF_SLAVES,
    SELECT_SLAVE,
    SEND_SLAVEOF_NOONE,
    UPDATE_CONFIG,
    WAIT_PROMOTION,
    WAIT_START,
    Master,
    Node,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

    from hatopo.testing.sentinel._instances import Instance
    from hatopo.testing.sentinel._server import SentinelServer

AT_NEXT_TICK = 0


def next_due(sentinel: SentinelServer) -> int | None:
    """The moment of the first tick that must not be left out; None: there is none."""
    moments: list[int] = []
    tilt_end = sentinel.tilt_since + sentinel.periods.tilt_period if sentinel.tilt else None
    for master in sentinel.masters.values():
        for one in (master, *master.replicas.values(), *master.sentinels.values()):
            moments += _monitoring(sentinel, one)
            moments += _acting(sentinel, one) if tilt_end is None else [tilt_end]
        if tilt_end is None:
            moments += _leading(sentinel, master)
    return min(moments, default=None)


def _monitoring(sentinel: SentinelServer, one: Instance) -> Iterator[int]:
    """When the instance is asked something."""
    line, periods = one.line, sentinel.periods
    if line.disconnected:
        if one.address[1]:
            yield line.last_reconnect + periods.ping_period
    elif not line.crowded:
        yield _monitor.ping_due(one, periods)
        yield one.last_pub + periods.publish_period + 1
        if isinstance(one, Node):
            period = _monitor.info_period(one, periods)
            yield one.info_refresh + period + 1 if one.info_refresh else AT_NEXT_TICK


def _acting(sentinel: SentinelServer, one: Instance) -> Iterator[int]:
    """When silence means something."""
    line, periods = one.line, sentinel.periods
    if line.cmd is not None and line.act_ping:
        yield _monitor.cmd_dead_at(one, periods)
    if line.pubsub is not None:
        yield _monitor.pubsub_dead_at(one, periods)
    if one.s_down:
        return
    if line.act_ping:
        yield line.act_ping + one.down_after + 1
    elif line.disconnected:
        yield line.last_avail + one.down_after + 1
    if isinstance(one, Master):
        if one.role_reported == "slave":
            yield one.role_reported_since + one.down_after + 2 * periods.info_period + 1
        if one.rebooted:
            yield one.rebooted_since + one.reboot_down_after + 1


def _leading(sentinel: SentinelServer, master: Master) -> Iterator[int]:
    """When an answer is too old, or a failover goes on."""
    period = sentinel.periods.ask_period
    for peer in master.sentinels.values():
        if master.s_down and not peer.line.disconnected:
            yield peer.last_down_reply + period
        elif peer.master_down or peer.leader is not None:
            yield peer.last_down_reply + 5 * period + 1
    if not master.failing_over:
        if master.o_down:
            yield master.failover_start + 2 * master.failover_timeout
    elif master.failover_state in (SELECT_SLAVE, SEND_SLAVEOF_NOONE, RECONF_SLAVES, UPDATE_CONFIG):
        yield AT_NEXT_TICK
    elif master.failover_state == WAIT_START:
        yield master.failover_start + _failover.election_timeout(sentinel, master) + 1
    elif master.failover_state == WAIT_PROMOTION:
        yield master.failover_changed + master.failover_timeout + 1
