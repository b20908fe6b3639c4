"""The commands of a sentinel: SENTINEL with its subcommands, ROLE, PUBLISH, INFO, SHUTDOWN.

Decides what is answered, in the order and the words of Redis 7.0.15; settings are in `_settings`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatopo.testing._glob import matches
from hatopo.testing._reply import NO_REPLY, NULL_ARRAY, OK, ErrorReply, Reply, Status
from hatopo.testing.sentinel import _about, _election, _failover, _rules
from hatopo.testing.sentinel._instances import Master, Node, Peer, Replica, is_address
from hatopo.testing.sentinel._line import HELLO_CHANNEL
from hatopo.testing.server._handlers import Handlers, integer, text

if TYPE_CHECKING:
    from hatopo.testing.sentinel._instances import Address, Instance
    from hatopo.testing.sentinel._server import SentinelServer
    from hatopo.testing.server._session import Session

commands = Handlers()

NO_SUCH_MASTER = "ERR No such master with that name"
NO_QUORUM = "Not enough available Sentinels to reach the specified quorum for this master"
NO_MAJORITY = "Not enough available Sentinels to reach the majority and authorize a failover"
FAILURES = ("crash-after-election", "crash-after-promotion")


def named(sentinel: SentinelServer, name: bytes) -> Master:
    """The master of a name; ErrorReply if there is none."""
    master = sentinel.masters.get(text(name))
    if master is None:
        raise ErrorReply(NO_SUCH_MASTER)
    return master


def fields(sentinel: SentinelServer, one: Instance) -> dict[Reply, Reply]:
    """An instance as MASTERS, REPLICAS and SENTINELS show it."""
    line, now, address = one.line, sentinel.moment, sentinel.shown_address(one)
    found: dict[str, object] = {
        "name": one.name,
        "ip": address[0],
        "port": address[1],
        "runid": one.run_id,
        "flags": _rules.flags(one),
        "link-pending-commands": line.pending,
        "link-refcount": line.users,
    }
    if isinstance(one, Master) and one.failing_over:
        found["failover-state"] = one.failover_state
    found["last-ping-sent"] = now - line.act_ping if line.act_ping else 0
    found["last-ok-ping-reply"] = now - line.last_avail
    found["last-ping-reply"] = now - line.last_pong
    if one.s_down:
        found["s-down-time"] = now - one.s_down_since
    if isinstance(one, Master) and one.o_down:
        found["o-down-time"] = now - one.o_down_since
    found["down-after-milliseconds"] = one.down_after
    if isinstance(one, Node):
        found["info-refresh"] = now - one.info_refresh if one.info_refresh else 0
        found["role-reported"] = "master" if one.role_reported == "master" else "slave"
        found["role-reported-time"] = now - one.role_reported_since
    if isinstance(one, Master):
        found.update(_fields_of_master(sentinel, one))
    elif isinstance(one, Replica):
        found.update(_fields_of_replica(one))
    elif isinstance(one, Peer):
        found["last-hello-message"] = now - one.last_hello
        found["voted-leader"] = one.leader or "?"
        found["voted-leader-epoch"] = one.leader_epoch
    return {name: str(value) for name, value in found.items()}


def _fields_of_master(sentinel: SentinelServer, master: Master) -> dict[str, object]:
    return {
        "config-epoch": sentinel.told(master)[1],
        "num-slaves": len(master.replicas),
        "num-other-sentinels": len(master.sentinels),
        "quorum": master.quorum,
        "failover-timeout": master.failover_timeout,
        "parallel-syncs": master.parallel_syncs,
    }


def _fields_of_replica(replica: Replica) -> dict[str, object]:
    return {
        "master-link-down-time": replica.master_link_down_time,
        "master-link-status": "ok" if replica.master_link_up else "err",
        "master-host": "?" if replica.master_host is None else replica.master_host,
        "master-port": replica.master_port,
        "slave-priority": replica.priority,
        "slave-repl-offset": replica.offset,
        "replica-announced": int(replica.announced),
    }


@commands("sentinel|masters")
def masters(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    return [fields(sentinel, master) for master in sentinel.masters.values()]


@commands("sentinel|master")
def master(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    return fields(sentinel, named(sentinel, args[2]))


@commands("sentinel|replicas", "sentinel|slaves")
def replicas(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    return [fields(sentinel, one) for one in named(sentinel, args[2]).replicas.values() if one.announced]


@commands("sentinel|sentinels")
def sentinels(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    return [fields(sentinel, one) for one in named(sentinel, args[2]).sentinels.values()]


@commands("sentinel|get-master-addr-by-name")
def get_master_addr_by_name(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    found = sentinel.masters.get(text(args[2]))
    if found is None:
        return NULL_ARRAY
    (host, port), _ = sentinel.told(found)
    return [host, str(port)]


@commands("sentinel|ckquorum")
def ckquorum(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    usable, quorum, majority = _rules.check_quorum(named(sentinel, args[2]))
    if quorum and majority:
        return Status(f"OK {usable} usable Sentinels. Quorum and failover authorization can be reached")
    why = [] if quorum else [NO_QUORUM]
    why += [] if majority else [NO_MAJORITY]
    raise ErrorReply(f"NOQUORUM {usable} usable Sentinels. {'. '.join(why)}")


@commands("sentinel|failover")
def failover(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    found = named(sentinel, args[2])
    if found.failing_over:
        raise ErrorReply("INPROG Failover already in progress")
    if _rules.select_replica(found, sentinel.periods, sentinel.moment) is None:
        raise ErrorReply("NOGOODSLAVE No suitable replica to promote")
    _failover.force(sentinel, found)
    return OK


@commands("sentinel|reset")
def reset(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    found = [one for name, one in sentinel.masters.items() if matches(args[2], name.encode("utf-8", "surrogateescape"))]
    for one in found:
        sentinel.reset_master(one)
        sentinel.event("+reset-master", one)
    return len(found)


@commands("sentinel|monitor")
def monitor(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    quorum, port = integer(args[5], "ERR Invalid quorum"), integer(args[4], "ERR Invalid port")
    name, address = text(args[2]), (text(args[3]), port)
    if quorum <= 0:
        raise ErrorReply("ERR Quorum must be 1 or greater.")
    if not is_address((address[0], 0)):
        raise ErrorReply("ERR Invalid IP address or hostname specified")
    if not is_address(address):
        raise ErrorReply("ERR Invalid port number.")
    if name in sentinel.masters:
        raise ErrorReply("ERR Duplicate master name.")
    sentinel.monitor(name, *address, quorum)
    return OK


@commands("sentinel|remove")
def remove(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    found = named(sentinel, args[2])
    sentinel.event("-monitor", found)
    sentinel.remove_master(found)
    sentinel.save()
    return OK


@commands("sentinel|is-master-down-by-addr")
def is_master_down_by_addr(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    address: Address = (text(args[2]), integer(args[3]))
    epoch, candidate = integer(args[4]), text(args[5])
    found = next((one for one in sentinel.masters.values() if one.address == address), None)
    down = found is not None and found.s_down and not sentinel.tilt
    leader, leader_epoch = None, 0
    if found is not None and candidate != "*":
        leader, leader_epoch = _election.vote(sentinel, found, epoch, candidate)
    return [int(down), leader or "*", leader_epoch]


@commands("sentinel|myid")
def myid(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    return sentinel.myid


@commands("sentinel|info-cache")
def info_cache(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    found = [sentinel.masters[text(name)] for name in dict.fromkeys(args[2:]) if text(name) in sentinel.masters]
    reply: list[Reply] = []
    for one in found:
        cached: list[Reply] = [
            [sentinel.moment - node.info_refresh if one.info_refresh else 0, node.info]
            for node in (one, *one.replicas.values())
        ]
        reply += [one.name, cached]
    return reply


@commands("sentinel|pending-scripts")
def pending_scripts(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    return []


@commands("sentinel|flushconfig")
def flushconfig(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    sentinel.save()
    return OK


@commands("sentinel|simulate-failure")
def simulate_failure(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    sentinel.failures.clear()
    for word in args[2:]:
        failure = text(word).lower()
        if failure == "help":
            return [*FAILURES]
        if failure not in FAILURES:
            raise ErrorReply("ERR Unknown failure simulation specified")
        sentinel.failures.add(failure)
    return OK


@commands("role")
def role(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    return ["sentinel", [*sentinel.masters]]


@commands("publish")
def publish(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    if text(args[1]) != HELLO_CHANNEL:
        raise ErrorReply("ERR Only HELLO messages are accepted by Sentinel instances.")
    sentinel.receive_hello(text(args[2]))
    return 1


@commands("info")
def info(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    return _about.REPORT.of(sentinel, args[1:])


@commands("shutdown")
def shutdown(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    words = [word.lower() for word in args[1:]]
    how = {b"save", b"nosave", b"now", b"force", b"abort"}
    if not how.issuperset(words) or {b"save", b"nosave"} <= {*words} or (b"abort" in words and len(words) > 1):
        raise ErrorReply("ERR syntax error")
    if words == [b"abort"]:
        raise ErrorReply("ERR No shutdown in progress.")
    sentinel.shut_down()
    return NO_REPLY
