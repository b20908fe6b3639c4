"""Which nodes may answer reads, and in which order: policies over what is known of the nodes.

Decides candidates and their order, nothing else: whether a node is fit is told by its `NodeStatus`, which of several
equals is taken is decided where their connections are. Must not know connections, time, or where a status comes from.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address, ip_network
from typing import Any, ClassVar, TypeAlias

from hatopo.address import Address
from hatopo.errors import OptionError
from hatopo.topology import Zones, ZonesLike

LATENCY_WINDOW = 0.015
"""Seconds above the best latency within which nodes are equally near."""


@dataclass(frozen=True, slots=True)
class NodeStatus:
    """What is known of a node: as a `read_from` function gets it, and as `client.nodes()` shows it.

    Attributes:
        address: where it is dialled.
        role: "master" or "replica", as the topology has it; "" where it has no place there: nobody has heard of the
            node's role, or a second node says that it is the master.
        refused: why no read is sent to it, in words; "" if nothing speaks against it.
        doubtful: it has just failed: it is taken after all others.
        zone: its availability zone, where that is known.
        latency: seconds of a round trip (moving average), or None where it was not measured.
        lag: bytes that it is behind its master, or None where that is not known.
        in_flight: connections to it that are in use, at the moment of asking.
    """

    address: Address
    role: str
    refused: str = ""
    doubtful: bool = False
    zone: str = ""
    latency: float | None = None
    lag: int | None = None
    in_flight: int = 0

    @property
    def host(self) -> str:
        """The host of its address."""
        return self.address.host

    @property
    def port(self) -> int:
        """The port of its address."""
        return self.address.port

    @property
    def is_master(self) -> bool:
        """Whether it is the master of its shard."""
        return self.role == "master"


Nodes: TypeAlias = "Sequence[NodeStatus]"
Tiers: TypeAlias = "tuple[tuple[NodeStatus, ...], ...]"
"""Groups of equals, the preferred ones first."""
Rank: TypeAlias = "Callable[[Nodes], Tiers]"
ReadFromFunction: TypeAlias = "Callable[[Nodes], Iterable[NodeStatus | Iterable[NodeStatus]]]"
"""Takes the nodes that are fit and returns candidates, the preferred first; equals stand in a group of their own.

It is asked the same of those that have just failed, and of the master alone where that is not among the others: so it
decides whether a call waits for the master when nobody else is left.
"""
ReadFromLike: TypeAlias = "ReadFrom | str | ReadFromFunction"


@dataclass(frozen=True)
class ReadFrom:
    """Which nodes answer reads. Writes, transactions and whatever may write go to the master in any case.

    Attributes:
        name: as messages show it, and as it is written in a URL.
    """

    name: str
    _rank: Rank = field(compare=False, repr=False)
    _identity: object = field(default=None, repr=False)
    lively: bool = field(default=False, compare=False, repr=False)
    """Whether the order depends on figures that change all the time (latency)."""
    any_master: bool = field(default=True, compare=False, repr=False)
    """Whether it permits the master, whichever node that is."""
    opaque: bool = field(default=False, compare=False, repr=False)
    """Whether it is a function of the user's, which sees nodes only when they have been asked how they are."""
    homeless: bool = field(default=False, compare=False, repr=False)
    """Whether it needs to be told the zone of this process."""

    MASTER: ClassVar[ReadFrom]
    """The master alone (the default)."""
    MASTER_PREFERRED: ClassVar[ReadFrom]
    """The master; a replica while the master cannot answer."""
    REPLICA: ClassVar[ReadFrom]
    """Replicas alone: an error where none is fit."""
    REPLICA_PREFERRED: ClassVar[ReadFrom]
    """Replicas; the master where none is fit."""
    ANY: ClassVar[ReadFrom]
    """Every node alike."""
    ANY_REPLICA: ClassVar[ReadFrom]
    """Another name of `REPLICA`: replicas always share the load here."""
    LOWEST_LATENCY: ClassVar[ReadFrom]
    """Every node whose latency is within 15 ms of the best one."""
    NEAREST: ClassVar[ReadFrom]
    """Another name of `LOWEST_LATENCY`."""

    def __str__(self) -> str:
        return self.name

    def tiers(self, nodes: Nodes) -> Tiers:
        """The candidates among `nodes`, in groups of equals, the preferred first; a node that is none is left out.

        Raises:
            OptionError: a function of the user's has returned something else than nodes.
        """
        return tuple(group for group in self._rank(nodes) if group) if nodes else ()

    @property
    def only_master(self) -> bool:
        """Whether reads go where writes go."""
        return self == ReadFrom.MASTER

    @staticmethod
    def zone(own: str = "", *, zones: ZonesLike = None, master: str = "last") -> ReadFrom:
        """Nodes of the availability zone of this process first.

        Args:
            own: that zone; "": what the environment variable HATOPO_ZONE says.
            zones: the zones of nodes, by "host", "host:port", network ("10.0.1.0/24") or suffix ("*.a.example"), or a
                function of (host, port). What it does not know is asked of the nodes (Valkey tells).
            master: where the master stands: "last" (replicas of the zone, other replicas, master), "in_zone"
                (replicas of the zone, the master if it is in the zone, other replicas, master) or "any" (all nodes of
                the zone, all nodes).

        Raises:
            OptionError: an argument is none of these.
        """
        if master not in _LADDERS:
            raise OptionError(f"zone(): master must be one of {', '.join(map(repr, _LADDERS))}, not {master!r}")
        if not isinstance(own, str):
            raise OptionError(f"zone(): the zone must be a string, not {own!r}")
        known, ladder = Zones.of(zones), _LADDERS[master]

        def rank(nodes: Nodes) -> Tiers:
            near = [node for node in nodes if (known.of_node(node.address) or node.zone) == own]
            return ladder(near, [node for node in nodes if node not in near])

        return ReadFrom(f"zone:{own}" if own else "zone", rank, (own, known, master), homeless=not own)

    def at_home(self, own: str) -> ReadFrom:
        """The same for a process in this zone, where the policy asks for one.

        Raises:
            OptionError: it does, and `own` is empty.
        """
        if not self.homeless:
            return self
        if not own:
            raise OptionError(
                "read_from needs the zone of this process: ReadFrom.zone('eu-west-1a'), or the environment variable "
                "HATOPO_ZONE"
            )
        _, zones, master = self._identity  # type: ignore[misc]  # of a zone, as `zone` has made it
        return ReadFrom.zone(own, zones=zones, master=master)  # type: ignore[has-type]

    @staticmethod
    def subnet(*networks: str) -> ReadFrom:
        """Nodes whose IP address is in one of these networks ("10.0.0.0/8"), whatever their role; names never are.

        Raises:
            OptionError: there is none, or one is no network.
        """
        try:
            known = frozenset(ip_network(text.strip()) for text in networks)
        except (ValueError, AttributeError):
            raise OptionError(f"subnet(): {networks!r} are not networks such as '10.0.0.0/8'") from None
        if not known:
            raise OptionError("subnet() needs at least one network")

        def holds(node: NodeStatus) -> bool:
            try:
                found = ip_address(node.host.partition("%")[0])
            except ValueError:
                return False
            return any(found in network for network in known)

        return ReadFrom(f"subnet:{','.join(networks)}", _those(holds), known, any_master=False)

    @staticmethod
    def regex(pattern: str) -> ReadFrom:
        """Nodes whose whole host (as it is dialled) matches a regular expression, whatever their role.

        Raises:
            OptionError: it is none.
        """
        try:
            compiled = re.compile(pattern)
        except (re.error, TypeError) as error:
            raise OptionError(f"regex(): {pattern!r} is no regular expression: {error}") from None
        matches = _those(lambda node: compiled.fullmatch(node.host) is not None)
        return ReadFrom(f"regex:{pattern}", matches, pattern, any_master=False)

    @staticmethod
    def of(value: object) -> ReadFrom:
        """Reads a policy, its name in any usual spelling, "zone:a", "subnet:10.0.0.0/8", "regex:..." or a function.

        Raises:
            OptionError: it is nothing of that.
        """
        if isinstance(value, ReadFrom):
            return value
        if isinstance(value, str):
            return _named(value)
        if callable(value) and not isinstance(value, type):
            return ReadFrom(
                getattr(value, "__name__", "function"),
                _asking(value),
                value if _is_hashable(value) else id(value),  # `_asking` keeps it alive
                lively=True,
                any_master=False,
                opaque=True,
            )
        raise OptionError(f"read_from must be a ReadFrom, its name or a function of nodes, not {value!r}")


def _is_hashable(value: object) -> bool:
    try:
        hash(value)
    except TypeError:
        return False
    return True


def choices(policy: ReadFrom, nodes: Nodes) -> Tiers:
    """The nodes to try, in groups of equals: fit ones, then those that have just failed, then the master at last.

    A replica that is refused is never among them. The master of a policy that may use it always is: where nothing else
    is left, a call waits for it as every other call does. Empty: nobody may answer.
    """
    fit = policy.tiers([node for node in nodes if not node.refused and not node.doubtful])
    shaky = policy.tiers([node for node in nodes if not node.refused and node.doubtful])
    found = (*fit, *shaky)
    listed = {node.address for group in found for node in group}
    masters = [node for node in nodes if node.is_master and node.address not in listed]
    return (*found, *policy.tiers(masters))


def _split(nodes: Nodes) -> tuple[tuple[NodeStatus, ...], tuple[NodeStatus, ...]]:
    """Masters, replicas."""
    return tuple(n for n in nodes if n.is_master), tuple(n for n in nodes if not n.is_master)


def _replica_preferred(nodes: Nodes) -> Tiers:
    masters, replicas = _split(nodes)
    return replicas, masters


def _nearest(nodes: Nodes) -> Tiers:
    measured = [node.latency for node in nodes if node.latency is not None]
    if not measured:
        return (tuple(nodes),)
    limit = min(measured) + LATENCY_WINDOW
    near = tuple(node for node in nodes if node.latency is not None and node.latency <= limit)
    far = sorted((n for n in nodes if n not in near), key=lambda n: float("inf") if n.latency is None else n.latency)
    return near, *((node,) for node in far)


def _those(holds: Callable[[NodeStatus], bool]) -> Rank:
    return lambda nodes: (tuple(node for node in nodes if holds(node)),)


def _asking(function: ReadFromFunction) -> Rank:
    def rank(nodes: Nodes) -> Tiers:
        groups = []
        for entry in _listed(function(tuple(nodes))):
            group = (entry,) if isinstance(entry, NodeStatus) else _listed(entry)
            for node in group:
                if node not in nodes:
                    raise OptionError(f"the read_from function has returned {node!r}, which is none of its nodes")
            groups.append(group)
        return tuple(groups)

    return rank


def _listed(returned: object) -> tuple[Any, ...]:
    if not isinstance(returned, Iterable):
        raise OptionError(f"the read_from function has returned {returned!r}: neither nodes nor groups of them")
    return tuple(returned)


def _zone_master_last(near: Nodes, far: Nodes) -> Tiers:
    masters, replicas = _split(near)
    others, distant = _split(far)
    return replicas, distant, (*masters, *others)


def _zone_master_in_zone(near: Nodes, far: Nodes) -> Tiers:
    masters, replicas = _split(near)
    others, distant = _split(far)
    return replicas, masters, distant, others


_LADDERS: dict[str, Callable[[Nodes, Nodes], Tiers]] = {
    "last": _zone_master_last,
    "in_zone": _zone_master_in_zone,
    "any": lambda near, far: (tuple(near), tuple(far)),
}

ReadFrom.MASTER = ReadFrom("master", lambda nodes: _split(nodes)[:1])
ReadFrom.MASTER_PREFERRED = ReadFrom("master_preferred", _split)
ReadFrom.REPLICA = ReadFrom.ANY_REPLICA = ReadFrom("replica", lambda nodes: _split(nodes)[1:], any_master=False)
ReadFrom.REPLICA_PREFERRED = ReadFrom("replica_preferred", _replica_preferred)
ReadFrom.ANY = ReadFrom("any", lambda nodes: (tuple(nodes),))
ReadFrom.LOWEST_LATENCY = ReadFrom.NEAREST = ReadFrom("lowest_latency", _nearest, lively=True)

_SPELLINGS: dict[str, ReadFrom] = {
    **dict.fromkeys(("master", "primary", "upstream"), ReadFrom.MASTER),
    **dict.fromkeys(
        ("masterpreferred", "primarypreferred", "upstreampreferred", "prefermaster", "preferprimary"),
        ReadFrom.MASTER_PREFERRED,
    ),
    **dict.fromkeys(("replica", "slave", "secondary", "replicaonly", "slaveonly", "anyreplica"), ReadFrom.REPLICA),
    **dict.fromkeys(
        ("replicapreferred", "slavepreferred", "secondarypreferred", "preferreplica", "readonly"),
        ReadFrom.REPLICA_PREFERRED,
    ),
    **dict.fromkeys(("any", "allnodes", "routerandomly"), ReadFrom.ANY),
    **dict.fromkeys(("lowestlatency", "nearest", "routebylatency"), ReadFrom.LOWEST_LATENCY),
    **dict.fromkeys(("zone", "azaffinity"), ReadFrom.zone()),
    "azaffinityreplicasandprimary": ReadFrom.zone(master="in_zone"),
    "azaffinityallnodes": ReadFrom.zone(master="any"),
}
"""The names of lettuce, GLIDE, go-redis, MongoDB and ours, in lower case and without separators."""


def _named(text: str) -> ReadFrom:
    kind, colon, rest = text.partition(":")
    kind = re.sub(r"[\s_-]", "", kind).lower()
    if colon and rest.strip():
        if kind == "zone":
            return ReadFrom.zone(rest.strip())
        if kind == "subnet":
            return ReadFrom.subnet(*(part.strip() for part in rest.split(",")))
        if kind == "regex":
            return ReadFrom.regex(rest)
    elif not colon and kind in _SPELLINGS:
        return _SPELLINGS[kind]
    known = "master, master_preferred, replica, replica_preferred, any, any_replica, lowest_latency, zone, zone:NAME"
    raise OptionError(f"read_from {text!r} is none of {known}, subnet:NETWORK,... or regex:PATTERN")
