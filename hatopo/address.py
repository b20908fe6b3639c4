"""Where a node listens: a value, parsed once and compared often.

Decides how an address is written and read. Knows nothing of sockets, names or roles.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from ipaddress import ip_address
from typing import TypeAlias

from hatopo.errors import OptionError

AddressLike: TypeAlias = "Address | str | tuple[str, int]"
NO_HOST = frozenset(" \t\r\n'\"(),;/@")
"""What is in no name and no IP address, but in what was not meant to be one: a tuple as text, a URL, a list."""


@dataclass(frozen=True, slots=True, order=True)
class Address:
    """A TCP endpoint (`host`, `port`), or a unix socket (`host` is the path, `port` is 0).

    Attributes:
        announced: what the node is called by who named it, if it is dialled elsewhere; only for messages, and no part
            of what addresses are compared by.
    """

    host: str
    port: int
    announced: str = field(default="", compare=False)

    def __str__(self) -> str:
        shown = self.host
        if not self.is_unix:
            shown = f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"
        return f"{shown} (announced as {self.announced})" if self.announced else shown

    def mapped(self, host: str, port: object) -> Address:
        """Where this announced address is dialled; the result names both. Itself, if that is the same place.

        Raises:
            OptionError: the host is empty, or the port is no number from 1 to 65535.
        """
        target = Address.tcp(host, port)
        if target == self:
            return self
        return Address(target.host, target.port, self.announced or str(self))

    @property
    def is_unix(self) -> bool:
        """Whether this is the path of a unix socket."""
        return self.port == 0

    @property
    def is_ip(self) -> bool:
        """Whether the host is an IP address: no name, which may stand for another host tomorrow, and no path."""
        try:
            ip_address(self.host.partition("%")[0])
        except ValueError:
            return False
        return True

    @classmethod
    def unix(cls, path: str) -> Address:
        """The address of a unix socket."""
        if not path:
            raise OptionError("the path of the unix socket is empty")
        return cls(path, 0)

    @classmethod
    def tcp(cls, host: str, port: object) -> Address:
        """A checked TCP address.

        Raises:
            OptionError: the host is empty or none, or the port is no number from 1 to 65535.
        """
        if not isinstance(host, str) or not host.strip() or not NO_HOST.isdisjoint(host.strip()):
            raise OptionError(f"host must be a name or an IP address, not {host!r}")
        try:
            number = int(port)  # type: ignore[call-overload]
        except (TypeError, ValueError):
            raise OptionError(f"port must be a number from 1 to 65535, not {port!r}") from None
        if not 1 <= number <= 65535:
            raise OptionError(f"port {number} is out of range: 1 to 65535")
        return cls(host.strip(), number)

    @classmethod
    def parse(cls, value: AddressLike, default_port: int) -> Address:
        """Reads `"host"`, `"host:port"`, `"[v6]:port"` or `(host, port)`.

        Raises:
            OptionError: it is none of these.
        """
        if isinstance(value, Address):
            return value
        host, port = split_endpoint(value)
        return cls.tcp(host, default_port if port is None else port)


def split_endpoint(value: object) -> tuple[str, object]:
    """Takes `"host"`, `"host:port"`, `"[v6]:port"` or `(host, port)` apart; the port is None where there is none.

    Neither part is checked: see `Address.tcp`.

    Raises:
        OptionError: it is none of these.
    """
    if isinstance(value, Address):
        return value.host, value.port
    if isinstance(value, (tuple, list)):
        if len(value) != 2 or value[1] is None:
            raise OptionError(f"an address is (host, port), not {value!r}")
        return value[0], value[1]
    if not isinstance(value, str):
        raise OptionError(f"an address is 'host:port' or (host, port), not {value!r}")
    text = value.strip()
    if text.startswith("["):
        host, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise OptionError(f"an address is 'host:port', or '[v6]:port', not {value!r}")
        return host, rest[1:] if rest else None
    if text.count(":") > 1:  # a bare IPv6 address
        return text, None
    host, colon, port = text.partition(":")
    return host, port if colon else None


def parse_addresses(values: Iterable[AddressLike], default_port: int, what: str) -> tuple[Address, ...]:
    """Reads a list of addresses, each once, in order.

    Args:
        values: the addresses.
        default_port: for those that name none.
        what: what they are, for the error ("sentinels").

    Raises:
        OptionError: the list is empty, is a single string, or holds something else.
    """
    if isinstance(values, str):
        raise OptionError(f"{what} must be a list of addresses, not the string {values!r}")
    found = tuple(dict.fromkeys(Address.parse(value, default_port) for value in values))
    if not found:
        raise OptionError(f"{what} is empty: name at least one address")
    return found
