"""What happened to a deployment, as values for `client.subscribe_events`.

All are frozen. Times are seconds. A callback runs in a thread of its own, one event after the other; what it raises is
logged and harms nobody.
"""

from __future__ import annotations

import enum
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hatopo.address import Address

if TYPE_CHECKING:
    from hatopo.topology import Topology


class Cause(enum.Enum):
    """Why another view of the topology is in force."""

    FIRST = "first view"
    """It is the first one."""
    SENTINELS = "sentinels"
    """Those who know have said so."""
    EARLY_PROMOTION = "early promotion"
    """A replica was selected in a failover and says that it is the master; the sentinels have not confirmed it yet."""
    ROLES = "roles"
    """The nodes themselves say so: a master says that it is a replica of another one, which says that it is the master;
    in a deployment without sentinels, whatever their roles are."""
    NAMES = "names"
    """A name that the user gave stands for other addresses than before."""
    WITHDRAWN = "withdrawn"
    """A provisional view was not confirmed: the last confirmed one is in force again."""
    RESET = "reset"
    """A majority names a lower epoch: the deployment was set up anew."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened.

    Attributes:
        service: the name of the deployment ("mymaster").
    """

    service: str


@dataclass(frozen=True, slots=True)
class TopologyChanged(Event):
    """Another view is in force: another master, other replicas, or a provisional view that was confirmed."""

    topology: Topology
    cause: Cause


@dataclass(frozen=True, slots=True)
class FailoverStarted(Event):
    """A failover is announced, by a sentinel or by a master that has become a replica. Calls may have failed before.

    Attributes:
        sign: what announced it, in words.
    """

    sign: str


@dataclass(frozen=True, slots=True)
class MasterChanged(Event):
    """Commands go to another master than before.

    Attributes:
        old: the former one, or None if there was none for a while.
        new: the one that takes over.
        seconds: since the first sign of trouble, be it an announcement or a call that failed; 0 where there was none.
        provisional: the sentinels have not confirmed it yet: it may fall. Its confirmation is a `TopologyChanged`.
        cause: why.
    """

    old: Address | None
    new: Address
    seconds: float
    provisional: bool
    cause: Cause


@dataclass(frozen=True, slots=True)
class NodeDown(Event):
    """A node cannot be reached from here."""

    address: Address
    reason: str


@dataclass(frozen=True, slots=True)
class NodeUp(Event):
    """A node that could not be reached answers again. One that nobody dials any more (it left) is not heard of."""

    address: Address


@dataclass(frozen=True, slots=True)
class ReplicaRefused(Event):
    """A replica gets no reads any more. Told only while a client reads from replicas.

    Attributes:
        reason: it is down, loading, syncing, without its master, too far behind: in words.
    """

    address: Address
    reason: str


@dataclass(frozen=True, slots=True)
class ReplicaAccepted(Event):
    """A replica that was refused gets reads again."""

    address: Address


@dataclass(frozen=True, slots=True)
class SeveralMasters(Event):
    """More than one node says that it is the master: what is written to the others is not in this deployment.

    Attributes:
        chosen: the one that is used: most of the other nodes follow it.
        others: those that say so as well.
    """

    chosen: Address
    others: tuple[Address, ...]


@dataclass(frozen=True, slots=True)
class SentinelFound(Event):
    """A sentinel was learned of, or is heard again."""

    address: Address


@dataclass(frozen=True, slots=True)
class SentinelLost(Event):
    """A sentinel that was listened to is not heard any more."""

    address: Address
    reason: str


@dataclass(frozen=True, slots=True)
class DiscoveryDegraded(Event):
    """No sentinel can be asked: the last known master is kept as long as it says that it is one.

    Attributes:
        reasons: what happened at each sentinel.
    """

    reasons: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class TopologyReset(Event):
    """A majority of the sentinels names an older epoch: the deployment was set up anew (SENTINEL RESET, MONITOR)."""

    old_epoch: int
    new_epoch: int


@dataclass(frozen=True, slots=True)
class PubSubGap(Event):
    """A subscriber was moved to another connection: what was published meanwhile it has not received.

    Attributes:
        channels: how many channels and patterns it had subscribed to.
        seconds: from the end of the old connection to the new subscription.
    """

    channels: int
    seconds: float


@dataclass(frozen=True, slots=True)
class DatasetReplaced(Event):
    """The master at an address is another process than before: its data may be older, or gone. Nothing is done."""

    address: Address
    old_id: str
    new_id: str
