"""Elections: asking the other sentinels, voting once in an epoch, and finding out who leads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatopo.testing.sentinel import _rules
from hatopo.testing.sentinel._instances import NONE
from hatopo.testing.sentinel._line import plain
from hatopo.testing.sentinel._orders import spelled

if TYPE_CHECKING:
    from hatopo.testing._reply import Reply
    from hatopo.testing.sentinel._instances import Master, Peer
    from hatopo.testing.sentinel._server import SentinelServer

MAX_DESYNC = 1000
"""By how many milliseconds, at most, sentinels are kept from all starting at the same time."""


def ask_others(sentinel: SentinelServer, master: Master, *, forced: bool = False) -> None:
    """Ask the other sentinels whether the master is down for them, and for their votes during an election."""
    now, period = sentinel.moment, sentinel.periods.ask_period
    for peer in master.sentinels.values():
        elapsed = now - peer.last_down_reply
        if elapsed > 5 * period:
            peer.master_down, peer.leader = False, None
        if not master.s_down or peer.line.disconnected or (not forced and elapsed < period):
            continue
        _ask(sentinel, master, peer)


def _ask(sentinel: SentinelServer, master: Master, peer: Peer) -> None:
    candidate = "*" if master.failover_state == NONE else sentinel.myid
    peer.line.call(
        *(spelled(peer, "SENTINEL"), "is-master-down-by-addr", *master.address, sentinel.epoch, candidate),
        then=lambda reply: _told(sentinel, peer, reply),
    )


def _told(sentinel: SentinelServer, peer: Peer, reply: Reply) -> None:
    if not isinstance(reply, (list, tuple)) or len(reply) != 3:
        return
    down, leader, epoch = reply
    if not isinstance(down, int) or not isinstance(epoch, int):
        return
    peer.last_down_reply = sentinel.moment
    peer.master_down = down == 1
    if plain(leader) != "*":
        peer.leader, peer.leader_epoch = plain(leader), epoch
    sentinel.wake()


def vote(sentinel: SentinelServer, master: Master, epoch: int, candidate: str) -> tuple[str | None, int]:
    """Vote for a candidate, unless this sentinel has voted in that epoch or a later one; returns its vote."""
    sentinel.raise_epoch(master, epoch)
    if master.leader_epoch < epoch and sentinel.epoch <= epoch:
        master.leader, master.leader_epoch = candidate, sentinel.epoch
        sentinel.save()
        sentinel.publish_event("+vote-for-leader", f"{candidate} {master.leader_epoch}", master)
        if candidate.lower() != sentinel.myid:
            master.failover_start = desynchronized(sentinel)
        sentinel.wake()
    return master.leader, master.leader_epoch


def desynchronized(sentinel: SentinelServer) -> int:
    """This moment, or one a little later."""
    return sentinel.moment + sentinel.world.rng.randrange(MAX_DESYNC)


def leader(sentinel: SentinelServer, master: Master, epoch: int) -> str | None:
    """Who is elected in an epoch; this sentinel votes, if it has not yet: for whom most have voted, or itself."""
    others = master.sentinels.values()
    votes = [one.leader for one in others if one.leader is not None and one.leader_epoch == sentinel.epoch]
    own, own_epoch = vote(sentinel, master, epoch, _rules.most_voted(votes) or sentinel.myid)
    return _rules.winner(votes, own if own_epoch == epoch else None, len(others) + 1, master.quorum)
