"""What a sentinel knows of those it watches: masters, their replicas, and the sentinels that watch the same masters.

Values without conduct: all moments are milliseconds since 1970, in the world's time; 0 is never. What follows from
them is decided in `_rules`, who changes them stands in the other modules.
"""

from __future__ import annotations

import ipaddress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hatopo.testing.sentinel._line import Line

Address = tuple[str, int]

NONE, WAIT_START, SELECT_SLAVE, SEND_SLAVEOF_NOONE, WAIT_PROMOTION, RECONF_SLAVES, UPDATE_CONFIG = (
    *("none", "wait_start", "select_slave", "send_slaveof_noone"),
    *("wait_promotion", "reconf_slaves", "update_config"),
)
"""The states of a failover."""


@dataclass(slots=True)
class Periods:
    """How often a sentinel does what, in milliseconds: what SENTINEL DEBUG shows and changes."""

    info_period: int = 10_000
    ping_period: int = 1_000
    ask_period: int = 1_000
    publish_period: int = 2_000
    default_down_after: int = 30_000
    default_failover_timeout: int = 180_000
    tilt_trigger: int = 2_000
    tilt_period: int = 30_000
    slave_reconf_timeout: int = 10_000
    min_link_reconnect_period: int = 15_000
    election_timeout: int = 10_000
    script_max_runtime: int = 60_000
    script_retry_delay: int = 30_000


@dataclass(slots=True, eq=False)
class Instance:
    """What masters, replicas and sentinels have in common."""

    name: str
    address: Address
    line: Line
    down_after: int
    since: int
    """When it was met."""
    run_id: str = ""
    s_down: bool = False
    s_down_since: int = 0
    script_kill_sent: bool = False
    last_pub: int = 0

    def __post_init__(self) -> None:
        self.last_pub = self.since

    @property
    def kind(self) -> str:
        """What events and flags call it."""
        raise NotImplementedError

    @property
    def service(self) -> Master:
        """The master whose service it belongs to; for a master, itself."""
        raise NotImplementedError


@dataclass(slots=True, eq=False)
class Node(Instance):
    """A data node, with what its INFO has said."""

    info: str | None = None
    info_refresh: int = 0
    role_reported: str = ""
    role_reported_since: int = 0
    conf_changed: int = 0
    """When the master that it reports has changed."""
    master_link_down_time: int = 0
    master_link_up: bool = False
    master_host: str | None = None
    master_port: int = 0
    priority: int = 100
    offset: int = 0
    announced: bool = True

    def __post_init__(self) -> None:
        self.last_pub = self.role_reported_since = self.conf_changed = self.since
        self.role_reported = self.kind


@dataclass(slots=True, eq=False)
class Master(Node):
    """A master: a service."""

    quorum: int = 1
    failover_timeout: int = 180_000
    parallel_syncs: int = 1
    auth_user: str | None = None
    auth_pass: str | None = None
    renamed: dict[str, str] = field(default_factory=dict)
    config_epoch: int = 0
    replicas: dict[str, Replica] = field(default_factory=dict)
    sentinels: dict[str, Peer] = field(default_factory=dict)
    o_down: bool = False
    o_down_since: int = 0
    reboot_down_after: int = 0
    rebooted: bool = False
    rebooted_since: int = 0
    leader: str | None = None
    """For whom this sentinel has voted."""
    leader_epoch: int = 0
    failing_over: bool = False
    forced: bool = False
    failover_epoch: int = 0
    failover_state: str = NONE
    failover_changed: int = 0
    failover_start: int = 0
    promoted: Replica | None = None

    @property
    def kind(self) -> str:
        return "master"

    @property
    def service(self) -> Master:
        return self

    @property
    def current_address(self) -> Address:
        """Where clients are sent: to the replica that has been promoted, as soon as it is known to be a master."""
        if self.failing_over and self.promoted is not None and self.failover_state in (RECONF_SLAVES, UPDATE_CONFIG):
            return self.promoted.address
        return self.address


@dataclass(slots=True, eq=False)
class Replica(Node):
    """A replica of a master."""

    master: Master = field(kw_only=True)
    chosen: bool = False
    """To be promoted."""
    reconf: str = ""
    """How far it has been told of its new master: "sent", "inprog", "done"."""
    reconf_sent: int = 0

    @property
    def kind(self) -> str:
        return "slave"

    @property
    def service(self) -> Master:
        return self.master


@dataclass(slots=True, eq=False)
class Peer(Instance):
    """Another sentinel that watches the same master."""

    master: Master = field(kw_only=True)
    last_hello: int = 0
    master_down: bool = False
    """It has said that the master is down for it, too."""
    last_down_reply: int = 0
    leader: str | None = None
    """For whom it has voted."""
    leader_epoch: int = 0

    def __post_init__(self) -> None:
        self.last_pub = self.last_hello = self.last_down_reply = self.since

    @property
    def kind(self) -> str:
        return "sentinel"

    @property
    def service(self) -> Master:
        return self.master


def shown(address: Address) -> str:
    """An address as the name of a replica spells it."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def is_address(address: Address) -> bool:
    """Whether an address is numeric, as sentinels want it that do not resolve host names."""
    try:
        ipaddress.ip_address(address[0])
    except ValueError:
        return False
    return 0 <= address[1] <= 65535
