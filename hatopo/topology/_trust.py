"""Which announced addresses are dialled, where, and under which name: what the user allows, checked once.

Whoever speaks for a sentinel tells clients where to send their writes and their passwords. An announced address is
mapped first, then judged. Names are never resolved here, and nothing is dialled.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Literal, TypeAlias

from hatopo.address import Address, AddressLike, split_endpoint
from hatopo.errors import OptionError, clip

AddressEntries: TypeAlias = (
    "Mapping[str, AddressLike] | Mapping[tuple[str, int], AddressLike] | Mapping[Address, AddressLike]"
)
AddressMapLike: TypeAlias = (
    "AddressEntries | Callable[[str, int], AddressLike] | Literal['seed-host'] | AddressMap | None"
)
AllowedHostsLike: TypeAlias = "Iterable[str | IPv4Address | IPv6Address | IPv4Network | IPv6Network] | None"
ServerName: TypeAlias = "str | Callable[[str, int], str] | None"
IP: TypeAlias = "IPv4Address | IPv6Address"
Network: TypeAlias = "IPv4Network | IPv6Network"
Entry: TypeAlias = tuple[str, int]
"""Host and port; port 0 is any port in what is announced, and the announced one in what is dialled."""

SEED_HOST = "seed-host"
SEED = "seed"
_NAME = re.compile(r"[a-z0-9_-]+(\.[a-z0-9_-]+)*")
_NUMERIC = re.compile(r"(.*\.)?(\d+|0x[0-9a-f]*)")
"""What resolvers take for an IP address in an old notation: 2852039166, 0xa9.0xfe.1, 169.254.1."""
_V4_IN_V6 = IPv6Network("::ffff:0:0/96")


@dataclass(frozen=True)
class AddressMap:
    """Where announced addresses are dialled.

    Attributes:
        entries: what is announced, and what is dialled instead.
        function: what is asked instead, with host and port.
        seed_host: the host of whoever announced it is dialled.
    """

    entries: tuple[tuple[Entry, Entry], ...] = ()
    function: Callable[[str, int], AddressLike] | None = None
    seed_host: bool = False

    @classmethod
    def of(cls, value: AddressMapLike) -> AddressMap:
        """Reads the option `address_map`.

        Raises:
            OptionError: it is nothing of what the option takes; names the entry.
        """
        if value is None:
            return cls()
        if isinstance(value, AddressMap):
            return value
        if isinstance(value, str) and value == SEED_HOST:
            return cls(seed_host=True)
        if isinstance(value, Mapping):
            return cls(_entries(value))
        if callable(value):
            return cls(function=value)
        raise OptionError(f"address_map must be a dictionary, a function of (host, port) or 'seed-host', not {value!r}")

    def of_announced(self, address: Address, said_by: Address) -> Address:
        """Where `address` is dialled, which `said_by` announced.

        Raises:
            OptionError: the function raised, or returned no address.
        """
        if self.seed_host:
            return address.mapped(said_by.host, address.port)
        if self.function is not None:
            return _called(self.function, address)
        found = dict(self.entries)
        host = _plain(address.host)
        target = found.get((host, address.port)) or found.get((host, 0))
        return address if target is None else address.mapped(target[0], target[1] or address.port)


def _entries(given: AddressEntries) -> tuple[tuple[Entry, Entry], ...]:
    found: dict[Entry, Entry] = {}
    for announced, dialled in given.items():
        try:
            host, port = _entry(announced)
            target = _entry(dialled)
        except OptionError as error:
            raise OptionError(f"address_map, entry {announced!r}: {error}") from None
        if found.setdefault((_plain(host), port), target) != target:
            raise OptionError(f"address_map, entry {announced!r}: this address is mapped twice")
    return tuple(sorted(found.items()))


def _entry(value: object) -> Entry:
    host, port = split_endpoint(value)
    checked = Address.tcp(host, 1 if port is None else port)
    return checked.host, 0 if port is None else checked.port


def _called(function: Callable[[str, int], AddressLike], address: Address) -> Address:
    try:
        answer = function(address.host, address.port)
    except Exception as error:
        raise OptionError(f"address_map raised {_shown(error)} for {address}") from error
    try:
        host, port = split_endpoint(answer)
        return address.mapped(host, address.port if port is None else port)
    except OptionError as error:
        raise OptionError(f"address_map returned {clip(repr(answer))} for {address}: {error}") from None


@dataclass(frozen=True)
class AllowedHosts:
    """The hosts that may be dialled when somebody announces them.

    Attributes:
        networks: of IP addresses.
        names: of hosts, in lower case.
        suffixes: of such names, each with its dot at the beginning.
    """

    networks: frozenset[Network] = frozenset()
    names: frozenset[str] = frozenset()
    suffixes: frozenset[str] = frozenset()

    @classmethod
    def of(cls, values: AllowedHostsLike | AllowedHosts) -> AllowedHosts | None:
        """Reads the option `allowed_hosts`; None allows every host.

        Raises:
            OptionError: it is no list, is empty, or holds something else; names the entry.
        """
        if values is None or isinstance(values, AllowedHosts):
            return values
        if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
            raise OptionError(f"allowed_hosts must be a list of hosts, not {values!r}")
        networks: set[Network] = set()
        names: set[str] = set()
        suffixes: set[str] = set()
        for value in values:
            text = _plain(str(value)) if isinstance(value, _HOST_TYPES) else ""
            network = _network(text)
            name = text.removeprefix("*").removeprefix(".")
            if network is not None:
                networks.add(network)
            elif not _is_name(name) or (text.startswith("*") and not text.startswith("*.")):
                raise OptionError(
                    f"allowed_hosts, entry {value!r}: neither an IP address, a network such as '10.0.0.0/8', a host "
                    "name, nor a suffix such as '.example.com'"
                )
            elif text == name:
                names.add(name)
            else:
                suffixes.add(f".{name}")
        if not networks and not names and not suffixes:
            raise OptionError("allowed_hosts is empty: no node could ever be dialled")
        return cls(frozenset(networks), frozenset(names), frozenset(suffixes))

    def permits(self, address: Address) -> bool:
        """Whether the host is one of them. An IP address is in a network, a name is given or ends in a suffix."""
        ip = _ip(address.host)
        if ip is not None:
            return any(ip in network for network in self.networks)
        host = _plain(address.host)
        return host in self.names or any(host.endswith(suffix) for suffix in self.suffixes)


ZonesLike: TypeAlias = "Mapping[str, str] | Callable[[str, int], str] | Zones | None"


@dataclass(frozen=True)
class Zones:
    """The availability zones of nodes, as the user tells them.

    Attributes:
        entries: (host or "host:port", network or suffix that stands for hosts, zone).
        function: what is asked instead, with host and port.
    """

    entries: tuple[tuple[Entry | AllowedHosts, str], ...] = ()
    function: Callable[[str, int], str] | None = None

    @classmethod
    def of(cls, value: ZonesLike) -> Zones:
        """Reads a mapping from hosts to zones, or a function.

        Raises:
            OptionError: it is neither; names the entry.
        """
        if value is None or isinstance(value, Zones):
            return value or cls()
        if isinstance(value, Mapping):
            return cls(tuple((_zone_key(key), str(zone)) for key, zone in value.items()))
        if callable(value):
            return cls(function=value)
        raise OptionError(f"zones must be a dictionary or a function of (host, port), not {value!r}")

    def of_node(self, address: Address) -> str:
        """The zone of a node; "" where nobody told."""
        if self.function is not None:
            return str(self.function(address.host, address.port) or "")
        for key, zone in self.entries:
            if isinstance(key, AllowedHosts):
                if key.permits(address):
                    return zone
            elif key[0] == _plain(address.host) and key[1] in (0, address.port):
                return zone
        return ""


def _zone_key(key: object) -> Entry | AllowedHosts:
    text = key if isinstance(key, str) else ""
    if "/" in text or "*" in text or text.startswith("."):
        found = AllowedHosts.of([text])
        assert found is not None
        return found
    try:
        host, port = _entry(key)
    except OptionError as error:
        raise OptionError(f"zones, entry {key!r}: {error}") from None
    return _plain(host), port


_HOST_TYPES = (str, IPv4Address, IPv6Address, IPv4Network, IPv6Network)


def why_refused(address: Address, allowed: AllowedHosts | None) -> str:
    """Why an announced address is not dialled, or "" if it is.

    Args:
        address: the one that would be dialled, after mapping.
        allowed: the hosts that the user allows; None: all but those that no node can have.
    """
    shown, ip = clip(address), _ip(address.host)
    if address.port == 0:
        return f"{shown} has port 0"
    if ip is None and not _is_name(_plain(address.host)):
        return f"{shown} is neither an IP address nor a host name"
    if ip is not None and ip.is_unspecified:
        return f"{shown} is the unspecified address: the node does not know its own (announce-ip sets it)"
    if ip is not None and ip.is_link_local:
        return f"{shown} is a link-local address"
    if ip is not None and ip.is_multicast:
        return f"{shown} is a multicast address"
    if allowed is not None and not allowed.permits(address):
        return f"{shown} is not among allowed_hosts"
    return ""


@dataclass(frozen=True, slots=True)
class Refused:
    """An announced address that must not be dialled."""

    why: str


def admit(
    address_map: AddressMap, allowed: AllowedHosts | None, announced: Address, said_by: Address
) -> Address | Refused:
    """The address that is to be dialled for one that `said_by` has announced."""
    try:
        address = address_map.of_announced(announced, said_by)
    except OptionError as error:
        return Refused(clip(error))
    why = why_refused(address, allowed)
    return Refused(why) if why else address


def check_server_name(value: object) -> ServerName:
    """Reads the option `tls_server_name`.

    Raises:
        OptionError: it is no name and no function.
    """
    if value is None or (isinstance(value, str) and value.strip()) or callable(value):
        found: ServerName = value
        return found
    raise OptionError(f"tls_server_name must be a host name, 'seed' or a function of (host, port), not {value!r}")


def server_name_for(option: ServerName, address: Address, seed: Address | None) -> str | None:
    """The name that a node's certificate must carry, or None for the host that is dialled.

    Args:
        option: the value of `tls_server_name`.
        address: the node, as it is dialled.
        seed: the first address that the user gave, if there is one.

    Raises:
        OptionError: the function raised, or returned no name.
    """
    if option is None or (option == SEED and seed is None):
        return None
    if isinstance(option, str):
        return seed.host if option == SEED and seed is not None else option
    try:
        name = option(address.host, address.port)
    except Exception as error:
        raise OptionError(f"tls_server_name raised {_shown(error)} for {address}") from error
    if not isinstance(name, str) or not name:
        raise OptionError(f"tls_server_name returned {clip(repr(name))} for {address}: it must be a host name")
    return name


def _shown(error: Exception) -> str:
    return f"{type(error).__name__} ({clip(error)})"


def _plain(host: str) -> str:
    """One spelling for each host, by which hosts are compared."""
    ip = _ip(host)
    return str(ip) if ip is not None else host.strip().lower().removesuffix(".")


def _ip(host: str) -> IP | None:
    """The IP address, without its zone; an IPv4 address that IPv6 carries is an IPv4 address."""
    try:
        found = ip_address(host.strip().partition("%")[0])
    except ValueError:
        return None
    return getattr(found, "ipv4_mapped", None) or found


def _network(text: str) -> Network | None:
    try:
        found = ip_network(text)
    except ValueError:
        return None
    if isinstance(found, IPv6Network) and found.subnet_of(_V4_IN_V6):
        carried = found.network_address.ipv4_mapped
        return None if carried is None else IPv4Network((carried, found.prefixlen - 96))
    return found


def _is_name(host: str) -> bool:
    """Whether this can only be a name: ASCII, and no IP address in a notation that only resolvers read."""
    return _NAME.fullmatch(host) is not None and _NUMERIC.fullmatch(host) is None
