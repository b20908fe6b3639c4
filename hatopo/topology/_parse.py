"""Replies about the topology, read into values. One place that knows how servers spell them.

Decides what the replies of sentinels (SENTINEL ...) and of data nodes (ROLE, HELLO, INFO) mean, in the shapes of
both protocols (flat lists of RESP2, maps of RESP3), as bytes or as text. Addresses are as announced. It must not
know who was asked, or whom to believe. A reply that makes no sense is None or empty, never an exception: whoever
asked treats it as no answer.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from hatopo.address import Address
from hatopo.errors import OptionError

ROLES = {"master": "master", "slave": "replica", "replica": "replica", "sentinel": "sentinel"}
"""How servers spell a role, and how this package does."""
DEFAULT_PRIORITY = 100
"""The replica-priority of a server whose configuration names none."""
NOBODY = "?"
"""What servers say instead of a host that they do not know."""
LIMIT = 2**63
"""Servers count in 64 bits: a larger number is none of theirs."""


@dataclass(frozen=True, slots=True)
class MasterReport:
    """What one sentinel says about the master of a service.

    Attributes:
        address: where writes should go.
        run_id: the master's, or "" where the sentinel does not know it (yet).
        epoch: the config epoch of the statement (sentinel.c).
        promoting: a failover is under way: this sentinel already names the promoted replica.
        down_after: after how many seconds of silence this sentinel calls the master down; 0 if it did not say.
        flags: the state in the sentinel's words, such as "master", "s_down", "o_down", "failover_in_progress".
            While `promoting`, they speak of the old master.
        quorum: how many sentinels must agree that the master is down; 0 if it did not say.
    """

    address: Address
    run_id: str
    epoch: int
    promoting: bool = False
    down_after: float = 0.0
    flags: frozenset[str] = frozenset()
    quorum: int = 0


@dataclass(frozen=True, slots=True)
class ReplicaReport:
    """What one sentinel says about one replica.

    Attributes:
        address: where it listens.
        run_id: its run id, or "" where the sentinel has not heard it yet.
        flags: the state in the sentinel's words, such as "slave", "s_down", "disconnected".
        link_up: whether its link to its master stands, as far as the sentinel heard; None if it did not say.
        priority: its replica-priority; 0 is never promoted.
        offset: how far it has replicated, when the sentinel last heard.
        master: whom it follows by its own account, or None if it named nobody yet.
    """

    address: Address
    run_id: str
    flags: frozenset[str]
    link_up: bool | None
    priority: int
    offset: int
    master: Address | None


@dataclass(frozen=True, slots=True)
class SentinelReport:
    """What one sentinel says about another: its address, its id ("" if unknown), its state in flags."""

    address: Address
    id: str
    flags: frozenset[str]


@dataclass(frozen=True, slots=True)
class RoleReport:
    """What a node says about itself, to ROLE or HELLO.

    Attributes:
        role: "master", "replica" or "sentinel".
        master: whom a replica follows, else None.
        link: the state of a replica's link in the server's words ("connected", "connect", "sync" ...), else "".
        offset: the replication offset; -1 for a replica that is not connected, 0 where none was told.
        replicas: those that follow a master, as far as they are online.
    """

    role: str
    master: Address | None = None
    link: str = ""
    offset: int = 0
    replicas: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class InfoReport:
    """What a node says about itself to INFO. Each section tells a part; what was not told is empty.

    Attributes:
        run_id: the node's (section server).
        version: the server's version, as "7.0.15"; for Valkey its own, not the Redis version that it imitates.
        server: "redis" or "valkey", or whatever name the server told; "" if it told no version.
        role: "master", "replica" or "sentinel"; "" if it was not told.
        master: whom a replica follows, else None.
        link_up: whether a replica's link to its master stands; None for others.
        syncing: a replica is taking over the data of its master.
        loading: it is reading its data from disk, and refuses commands meanwhile (section persistence).
        offset: of the replication stream that it offers (master_repl_offset).
        replica_offset: how far a replica has got in its master's stream (slave_repl_offset).
        replicas: those that follow a master, as far as they are online.
    """

    run_id: str = ""
    version: str = ""
    server: str = ""
    role: str = ""
    master: Address | None = None
    link_up: bool | None = None
    syncing: bool = False
    loading: bool = False
    offset: int = 0
    replica_offset: int = 0
    replicas: tuple[Address, ...] = ()


# ---------------------------------------------------------------- what sentinels say


def parse_endpoint(reply: object) -> Address | None:
    """The reply to SENTINEL GET-MASTER-ADDR-BY-NAME."""
    if not isinstance(reply, (list, tuple)) or len(reply) != 2:
        return None
    return address_of(reply[0], reply[1])


def parse_master(state: object, endpoint: object) -> MasterReport | None:
    """What SENTINEL MASTER and SENTINEL GET-MASTER-ADDR-BY-NAME, asked together, say.

    While the leader reconfigures after a promotion, the second already names the new master and the first
    still the old one (sentinelGetCurrentMasterAddress, sentinel.c): the second counts.
    """
    fields = pairs(state)
    listed = address_of(fields.get("ip"), fields.get("port"))
    current = parse_endpoint(endpoint)
    address = current or listed
    if address is None:
        return None
    same = listed == address
    return MasterReport(
        address,
        text(fields.get("runid")) if same else "",
        _number(fields.get("config-epoch")),
        promoting=bool(listed) and not same,
        down_after=_number(fields.get("down-after-milliseconds")) / 1000,
        flags=_flags(fields),
        quorum=_number(fields.get("quorum")),
    )


def parse_names(reply: object) -> tuple[str, ...]:
    """The service names in a reply to SENTINEL MASTERS."""
    found = (text(fields.get("name")) for fields in _entries(reply))
    return tuple(name for name in found if name)


def parse_replicas(reply: object) -> tuple[ReplicaReport, ...]:
    """The reply to SENTINEL REPLICAS; an entry without a usable address is left out."""
    return tuple(
        ReplicaReport(
            address,
            text(fields.get("runid")),
            _flags(fields),
            _link_up(fields.get("master-link-status"), up="ok"),
            _number(fields.get("slave-priority"), DEFAULT_PRIORITY),
            _number(fields.get("slave-repl-offset")),
            address_of(fields.get("master-host"), fields.get("master-port")),
        )
        for address, fields in _located(reply)
    )


def parse_sentinels(reply: object) -> tuple[SentinelReport, ...]:
    """The reply to SENTINEL SENTINELS; an entry without a usable address is left out."""
    return tuple(
        SentinelReport(address, text(fields.get("runid")), _flags(fields)) for address, fields in _located(reply)
    )


# ---------------------------------------------------------------- what nodes say about themselves


def parse_role(reply: object) -> RoleReport | None:
    """The reply to ROLE."""
    if not isinstance(reply, (list, tuple)) or not reply:
        return None
    role, *rest = reply
    said = ROLES.get(text(role))
    if said == "sentinel":
        return RoleReport(said)
    if said == "master" and len(rest) >= 2 and isinstance(rest[1], (list, tuple)):
        entries = [entry for entry in rest[1] if isinstance(entry, (list, tuple)) and len(entry) >= 2]
        listed = (address_of(entry[0], entry[1]) for entry in entries)
        return RoleReport(said, offset=_number(rest[0]), replicas=tuple(one for one in listed if one is not None))
    if said == "replica" and len(rest) >= 4:
        return RoleReport(said, address_of(rest[0], rest[1]), text(rest[2]), _number(rest[3]))
    return None


def parse_hello(reply: object) -> RoleReport | None:
    """The reply to HELLO: only the role is known. A sentinel tells it as its mode."""
    fields = pairs(reply)
    role = ROLES.get(text(fields.get("role") or fields.get("mode")))
    return None if role is None else RoleReport(role)


def parse_info(reply: object) -> InfoReport | None:
    """The reply to INFO, whatever sections it has; None if it tells neither who the node is nor what it does."""
    lines = (line.partition(":") for line in text(reply).splitlines())
    fields = {name: value.strip() for name, colon, value in lines if colon}
    role = ROLES.get(fields.get("role") or fields.get("redis_mode") or fields.get("server_mode", ""), "")
    report = InfoReport(
        run_id=fields.get("run_id", ""),
        version=fields.get("valkey_version") or fields.get("redis_version", ""),
        server=_server_name(fields),
        role=role,
        master=address_of(fields.get("master_host"), fields.get("master_port")),
        link_up=_link_up(fields.get("master_link_status"), up="up"),
        syncing=fields.get("master_sync_in_progress") == "1",
        loading=fields.get("loading") == "1",
        offset=_number(fields.get("master_repl_offset")),
        replica_offset=_number(fields.get("slave_repl_offset")),
        replicas=_listed_replicas(fields),
    )
    return None if report == InfoReport() and "loading" not in fields else report


def _listed_replicas(fields: dict[str, str]) -> tuple[Address, ...]:
    """Those of the lines "slave0:ip=...,port=...,state=online,..." that are online."""
    found = []
    for name, value in fields.items():
        if name.startswith("slave") and is_number(name.removeprefix("slave")):
            about = dict(part.partition("=")[::2] for part in value.split(","))
            address = address_of(about.get("ip"), about.get("port"))
            if address is not None and about.get("state") == "online":
                found.append(address)
    return tuple(found)


def _server_name(fields: dict[str, str]) -> str:
    if "valkey_version" in fields:
        return "valkey"
    return fields.get("server_name") or ("redis" if "redis_version" in fields else "")


# ---------------------------------------------------------------- shapes


def text(value: object) -> str:
    """A reply's string, whether it came as bytes, text or a number; anything else is empty."""
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, int) and not isinstance(value, bool) and -LIMIT <= value < LIMIT:
        return str(value)
    return value if isinstance(value, str) else ""


def pairs(reply: object) -> dict[str, object]:
    """A map, whether it came as one or as a flat list."""
    if isinstance(reply, dict):
        return {text(key): value for key, value in reply.items()}
    if isinstance(reply, (list, tuple)) and len(reply) % 2 == 0:
        return {text(key): value for key, value in zip(reply[::2], reply[1::2], strict=True)}
    return {}


def address_of(host: object, port: object) -> Address | None:
    """The address, or None where host or port is none: empty, "?", 0, out of range, no string."""
    name, number = text(host).strip(), text(port)
    if name == NOBODY or isinstance(host, int) or not is_number(number):
        return None
    try:
        return Address.tcp(name, number)
    except OptionError:
        return None


def is_number(word: str) -> bool:
    """Whether it is written in digits and nothing else."""
    return word.isascii() and word.isdigit()


def _entries(reply: object) -> Iterator[dict[str, object]]:
    if isinstance(reply, (list, tuple)):
        yield from map(pairs, reply)


def _located(reply: object) -> Iterator[tuple[Address, dict[str, object]]]:
    for fields in _entries(reply):
        address = address_of(fields.get("ip"), fields.get("port"))
        if address is not None:
            yield address, fields


def _flags(fields: dict[str, object]) -> frozenset[str]:
    return frozenset(filter(None, text(fields.get("flags")).split(",")))


def _link_up(status: object, up: str) -> bool | None:
    said = text(status)
    return said == up if said else None


def _number(value: object, default: int = 0) -> int:
    try:
        number = int(text(value))
    except ValueError:
        return default
    return number if -LIMIT <= number < LIMIT else default
