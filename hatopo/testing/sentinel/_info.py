"""INFO of a data node: what a sentinel reads in it, and what it does about it.

Decides which new replicas there are, when a role has changed, and whether a node that follows the wrong master is
told otherwise.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from hatopo.testing.sentinel import _rules
from hatopo.testing.sentinel._instances import RECONF_SLAVES, WAIT_PROMOTION, Master, Replica
from hatopo.testing.sentinel._orders import force_hello, send_slaveof

if TYPE_CHECKING:
    from hatopo.testing.sentinel._instances import Address, Node
    from hatopo.testing.sentinel._server import SentinelServer


def replica_address(line: str) -> Address | None:
    """The address in a line `slave0:ip=...,port=...,...` of INFO, or `slave0:ip,port,state` of old servers."""
    name, _, rest = line.partition(":")
    if re.fullmatch(r"slave[0-9]\w*", name) is None:
        return None
    parts = rest.split(",")
    fields = (
        dict(part.partition("=")[::2] for part in parts)
        if "ip=" in rest
        else dict(zip(("ip", "port"), parts, strict=False))
    )
    return (fields.get("ip", ""), number(fields["port"])) if "port" in fields else None


def number(word: str) -> int:
    """The number at the beginning of a word, as atoi reads it."""
    found = re.match(r"\s*[-+]?\d+", word)
    return int(found[0]) if found else 0


def refresh(sentinel: SentinelServer, one: Node, info: str) -> None:
    """Note what a data node says of itself, and act on it."""
    one.info = info
    one.master_link_down_time = 0
    role = _read(sentinel, one, info)
    one.info_refresh = sentinel.moment
    if role != one.role_reported:
        one.role_reported, one.role_reported_since = role, sentinel.moment
        if role == "slave":
            one.conf_changed = sentinel.moment
        channel = "+role-change" if role == one.kind else "-role-change"
        sentinel.event(channel, one, f"new reported role is {'master' if role == 'master' else 'slave'}")
    if sentinel.tilt or not isinstance(one, Replica):
        return
    if role == "master":
        _turned_master(sentinel, one)
    elif role == "slave":
        _follows(sentinel, one)


def _read(sentinel: SentinelServer, one: Node, info: str) -> str:
    """Take over all fields; returns the role."""
    role = ""
    for line in info.split("\r\n"):
        name, _, value = line.partition(":")
        if name == "run_id":
            _ran(sentinel, one, value)
        elif name == "role":
            role = value if value in ("master", "slave") else role
        elif name == "master_link_down_since_seconds":
            one.master_link_down_time = number(value) * 1000
        elif isinstance(one, Master) and name.startswith("slave"):
            _met(sentinel, one, line)
        if role == "slave":
            _read_as_replica(sentinel, one, name, value)
    return role


def _ran(sentinel: SentinelServer, one: Node, run_id: str) -> None:
    if one.run_id and one.run_id != run_id:
        sentinel.event("+reboot", one)
        if isinstance(one, Master) and one.reboot_down_after:
            one.rebooted, one.rebooted_since = True, sentinel.moment
    one.run_id = run_id


def _met(sentinel: SentinelServer, master: Master, line: str) -> None:
    address = replica_address(line)
    if address is not None:
        replica = sentinel.add_replica(master, address)
        if replica is not None:
            sentinel.event("+slave", replica)
            sentinel.save()


def _read_as_replica(sentinel: SentinelServer, one: Node, name: str, value: str) -> None:
    if name == "master_host":
        if one.master_host is None or value.lower() != one.master_host.lower():
            one.master_host, one.conf_changed = value, sentinel.moment
    elif name == "master_port":
        if one.master_port != number(value):
            one.master_port, one.conf_changed = number(value), sentinel.moment
    elif name == "master_link_status":
        one.master_link_up = value.lower() == "up"
    elif name == "slave_priority":
        one.priority = number(value)
    elif name == "slave_repl_offset":
        one.offset = number(value)
    elif name == "replica_announced":
        one.announced = number(value) != 0


def _turned_master(sentinel: SentinelServer, one: Replica) -> None:
    """A replica says that it is a master: because it was promoted, or because it has come back."""
    master = one.master
    if one.chosen and master.failing_over and master.failover_state == WAIT_PROMOTION:
        master.config_epoch = master.failover_epoch
        master.failover_state, master.failover_changed = RECONF_SLAVES, sentinel.moment
        sentinel.save()
        sentinel.event("+promoted-slave", one)
        sentinel.crash_if("crash-after-promotion")
        sentinel.event("+failover-state-reconf-slaves", master)
        force_hello(sentinel, master)
        return
    wait = 4 * sentinel.periods.publish_period
    now = sentinel.moment
    patient = _rules.was_up_for(one, wait, now) and now - one.role_reported_since > wait
    if not one.chosen and patient and _rules.looks_sane(master, sentinel.periods, now) and one.line.cmd is not None:
        send_slaveof(one, master.address)
        sentinel.event("+convert-to-slave", one)


def _follows(sentinel: SentinelServer, one: Replica) -> None:
    """A replica says whom it follows: the right one or not, and how far it has come."""
    master, now = one.master, sentinel.moment
    reported = (one.master_host, one.master_port)
    if reported != master.address:
        wait = master.failover_timeout
        patient = _rules.was_up_for(one, wait, now) and now - one.conf_changed > wait
        if patient and _rules.looks_sane(master, sentinel.periods, now) and one.line.cmd is not None:
            send_slaveof(one, master.address)
            sentinel.event("+fix-slave-config", one)
    if one.reconf == "sent" and master.promoted is not None and reported == master.promoted.address:
        one.reconf = "inprog"
        sentinel.event("+slave-reconf-inprog", one)
    if one.reconf == "inprog" and one.master_link_up:
        one.reconf = "done"
        sentinel.event("+slave-reconf-done", one)
