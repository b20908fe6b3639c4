"""Watching: connects to every instance, asks it what is due, and notes who does not answer.

Decides what is sent when; what an INFO says is read by `_info`, what a hello says by `_hello`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatopo.testing._reply import ErrorReply, Status, Text
from hatopo.testing.sentinel import _rules
from hatopo.testing.sentinel._hello import hello_text
from hatopo.testing.sentinel._info import refresh
from hatopo.testing.sentinel._instances import Master, Node, Replica
from hatopo.testing.sentinel._line import HELLO_CHANNEL, plain
from hatopo.testing.sentinel._orders import spelled

if TYPE_CHECKING:
    from hatopo.testing._reply import Reply
    from hatopo.testing.sentinel._instances import Instance, Periods
    from hatopo.testing.sentinel._server import SentinelServer

GOOD_ANSWERS = ("PONG", "LOADING", "MASTERDOWN")


def reconnect(sentinel: SentinelServer, one: Instance) -> None:
    """Connect to an instance where a connection is missing, at most once in a ping period."""
    line, now = one.line, sentinel.moment
    if not line.disconnected or one.address[1] == 0 or now - line.last_reconnect < sentinel.periods.ping_period:
        return
    line.last_reconnect = now
    login = sentinel.login_for(one)
    name = f"sentinel-{sentinel.myid[:8]}"
    if line.cmd is None:
        line.dial_cmd(one.address, now)
        if login:
            line.call(spelled(one, "AUTH"), *login)
        line.call(spelled(one, "CLIENT"), "SETNAME", f"{name}-cmd")
        send_ping(sentinel, one)
    if isinstance(one, Node) and line.pubsub is None:
        line.dial_pubsub(one.address, now)
        if login:
            line.call_pubsub(spelled(one, "AUTH"), *login)
        line.call_pubsub(spelled(one, "CLIENT"), "SETNAME", f"{name}-pubsub")
        line.subscribe(spelled(one, "SUBSCRIBE"))
    line.disconnected = False


def info_period(one: Node, periods: Periods) -> int:
    """How often a data node is asked for INFO."""
    if isinstance(one, Replica):
        master = one.master
        if master.o_down or master.failing_over or one.master_link_down_time:
            return 1000
    return periods.info_period


def ping_due(one: Instance, periods: Periods) -> int:
    """When the next PING is due."""
    period = min(one.down_after, periods.ping_period)
    return max(one.line.last_pong + period, one.line.last_ping + period // 2) + 1


def send_periodic(sentinel: SentinelServer, one: Instance) -> None:
    """Send an instance the INFO, PING and hello that are due."""
    line, now, periods = one.line, sentinel.moment, sentinel.periods
    if line.disconnected or line.crowded:
        return
    if isinstance(one, Node) and (not one.info_refresh or now - one.info_refresh > info_period(one, periods)):
        node = one
        line.call(spelled(one, "INFO"), then=lambda reply: _informed(sentinel, node, reply))
    if now >= ping_due(one, periods):
        send_ping(sentinel, one)
    if now - one.last_pub > periods.publish_period:
        send_hello(sentinel, one)


def send_ping(sentinel: SentinelServer, one: Instance) -> None:
    """Send a PING."""
    line = one.line
    line.last_ping = sentinel.moment
    if not line.act_ping:
        line.act_ping = line.last_ping
    line.call(spelled(one, "PING"), then=lambda reply: _ponged(sentinel, one, reply))


def _ponged(sentinel: SentinelServer, one: Instance, reply: Reply) -> None:
    line = one.line
    line.last_pong = sentinel.moment
    if not isinstance(reply, (Status, ErrorReply)):
        return
    text = reply.text if isinstance(reply, ErrorReply) else str(reply)
    if text.startswith(GOOD_ANSWERS):
        line.last_avail, line.act_ping = sentinel.moment, 0
        if isinstance(one, Master) and one.rebooted and text.startswith("PONG"):
            one.rebooted = False
        if one.s_down:
            sentinel.wake()
    elif text.startswith("BUSY") and one.s_down and not one.script_kill_sent:
        line.call(spelled(one, "SCRIPT"), "KILL")
        one.script_kill_sent = True


def _informed(sentinel: SentinelServer, one: Node, reply: Reply) -> None:
    if isinstance(reply, (bytes, Text)) or type(reply) is str:
        refresh(sentinel, one, plain(reply))
        sentinel.wake()


def send_hello(sentinel: SentinelServer, one: Instance) -> None:
    """Tell an instance of this sentinel, and of its master."""
    if one.line.disconnected:
        return
    words = hello_text(sentinel, one.service)
    one.line.call(spelled(one, "PUBLISH"), HELLO_CHANNEL, words, then=lambda reply: _greeted(sentinel, one, reply))


def _greeted(sentinel: SentinelServer, one: Instance, reply: Reply) -> None:
    if not isinstance(reply, ErrorReply):
        one.last_pub = sentinel.moment


def check_subjectively_down(sentinel: SentinelServer, one: Instance) -> None:
    """Note whether an instance is down for this sentinel, and hang up where a connection seems dead."""
    line, now, periods = one.line, sentinel.moment, sentinel.periods
    if line.cmd is not None and line.act_ping and now >= cmd_dead_at(one, periods):
        line.close_cmd()
    if line.pubsub is not None and now >= pubsub_dead_at(one, periods):
        line.close_pubsub()
    down = _rules.is_down(one, periods, now)
    if down and not one.s_down:
        sentinel.event("+sdown", one)
        one.s_down, one.s_down_since = True, now
    elif one.s_down and not down:
        sentinel.event("-sdown", one)
        one.s_down = one.script_kill_sent = False


def cmd_dead_at(one: Instance, periods: Periods) -> int:
    """When the command connection is given up, if its PING stays without an answer."""
    line, half = one.line, one.down_after // 2
    return max(line.cmd_since + periods.min_link_reconnect_period, line.act_ping + half, line.last_pong + half) + 1


def pubsub_dead_at(one: Instance, periods: Periods) -> int:
    """When the connection for the hello channel is given up, if nothing is heard on it."""
    line = one.line
    return (
        max(line.pubsub_since + periods.min_link_reconnect_period, line.pubsub_heard + 3 * periods.publish_period) + 1
    )


def check_objectively_down(sentinel: SentinelServer, master: Master) -> None:
    """Note whether enough sentinels hold a master to be down (ODOWN)."""
    votes = _rules.down_votes(master)
    down = master.s_down and votes >= master.quorum
    if down and not master.o_down:
        sentinel.event("+odown", master, f"#quorum {votes}/{master.quorum}")
        master.o_down, master.o_down_since = True, sentinel.moment
    elif master.o_down and not down:
        sentinel.event("-odown", master)
        master.o_down = False


def drop_connections(master: Master) -> None:
    """Hang up on a master and its replicas, whose login has changed."""
    for one in (master, *master.replicas.values()):
        one.line.close()


def drop_peers(masters: list[Master]) -> None:
    """Hang up on all other sentinels."""
    for master in masters:
        for peer in master.sentinels.values():
            if not peer.line.disconnected:
                peer.line.close()
