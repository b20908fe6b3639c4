"""The keywords of `hatopo.sentinel`, taken apart: what is for the sentinels, what for the data nodes.

Decides which of them reach whom: no login of the one is ever sent to the other. Checked before any I/O and frozen.
Knows nothing of how sentinels are asked or watched.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, field
from types import FunctionType, MethodType
from typing import Any, Literal

from redis.credentials import CredentialProvider

from hatopo.address import Address
from hatopo.client._keywords import DATA, OWN, SENTINEL, TLS_DETAILS, check_names
from hatopo.client._options import Options, read_options
from hatopo.errors import OptionError
from hatopo.topology import AddressMap, AllowedHosts

_LOGIN = ("username", "password", "credential_provider")
_INHERITED = ("socket_keepalive", "socket_keepalive_options", "socket_read_size", "socket_type")
"""What redis-py's Sentinel takes over without `sentinel_kwargs`; not the timeouts: those bound calls to data nodes."""
_TOGETHER = (
    frozenset({"ssl_certfile", "ssl_keyfile", "ssl_password"}),
    frozenset({"ssl_ca_certs", "ssl_ca_path", "ssl_ca_data"}),
)
"""Details that are taken over all or none: a key belongs to its certificate, one trusted CA replaces another."""
_NOT_OURS = ("host", "port", "unix_socket_path")
_FOR_SENTINELS = frozenset({"tls_server_name", "max_reply_bytes"})


@dataclass(frozen=True)
class Identity:
    """What two watchers have in common if one can stand for both. Compared, never shown: it holds passwords."""

    parts: Hashable = field(repr=False)


@dataclass(frozen=True)
class Watching:
    """How sentinels are asked, and what is done with their word.

    Attributes:
        connection: for connections to sentinels; it holds their login and never the data nodes'.
        address_map, allowed_hosts, early_promotion, watch, startup: see `SentinelOptions`.
    """

    connection: Options
    address_map: AddressMap
    allowed_hosts: AllowedHosts | None
    early_promotion: bool = True
    watch: bool = True
    startup: Literal["lazy", "fail"] = "lazy"

    def identity(self, sentinels: Iterable[Address]) -> Identity:
        """Equal and of equal hash for clients that can share a watcher of these sentinels, in whatever order.

        Objects such as credential providers count by identity: whoever keeps an `Identity` keeps the `Watching`, too.
        """
        options = self.connection
        parts = (
            frozenset(sentinels),
            options.connection_class,
            _frozen(options.connection_kwargs),
            options.max_reply_bytes,
            _frozen(options.tls_server_name),
            (self.address_map.entries, _frozen(self.address_map.function), self.address_map.seed_host),
            self.allowed_hosts,
        )
        return Identity(parts)


def split_sentinel_options(given: Mapping[str, Any]) -> tuple[Watching, dict[str, Any]]:
    """Takes the keywords of `hatopo.sentinel` apart.

    Returns:
        What is for the sentinels, and the keywords for the data nodes, which `read_options` takes.

    Raises:
        UnknownOptionError: nobody knows a keyword.
        OptionError: a value is wrong, or two contradict each other.
    """
    check_names(given, DATA | SENTINEL)
    for name in _NOT_OURS:
        if name in given:
            raise OptionError(f"{name}= has no meaning here: the sentinels name the master")
    data = {name: value for name, value in given.items() if name not in SENTINEL}
    startup = given.get("startup", "lazy")
    if startup not in ("lazy", "fail"):
        raise OptionError(f"startup must be 'lazy' or 'fail', not {startup!r}")
    watching = Watching(
        connection=_read(_for_sentinels(given)),
        address_map=AddressMap.of(given.get("address_map")),
        allowed_hosts=AllowedHosts.of(given.get("allowed_hosts")),
        early_promotion=_boolean(given, "early_promotion"),
        watch=_boolean(given, "watch"),
        startup=startup,
    )
    return watching, data


def _for_sentinels(given: Mapping[str, Any]) -> dict[str, Any]:
    """The keywords for the connections to sentinels."""
    more = _more(given)
    own = {name: given[f"sentinel_{name}"] for name in _LOGIN if given.get(f"sentinel_{name}") is not None}
    if own.get("credential_provider") is not None and not isinstance(own["credential_provider"], CredentialProvider):
        raise OptionError("sentinel_credential_provider must be a redis.credentials.CredentialProvider")
    details = {name: given[f"sentinel_{name}"] for name in TLS_DETAILS if f"sentinel_{name}" in given}
    tls = _tls(given)
    if details and tls is None and "ssl" not in more:
        raise OptionError(
            f"sentinel_{min(details)}= is given, but not sentinel_ssl=True: the connections would be plain"
        )
    own.update(details)
    if tls is not None:
        own["ssl"] = tls
    for name in own.keys() & more.keys():
        raise OptionError(f"sentinel_{name}= is given, and {name!r} in sentinel_kwargs, too")
    found = {**own, **more}
    if found.get("credential_provider") is not None and (found.get("username") or found.get("password")):
        raise OptionError("sentinel_credential_provider= excludes sentinel_username= and sentinel_password=")
    inherited = _inherited(given, found) if tls else {}
    if given.get("sentinel_kwargs") is None:
        inherited.update({name: given[name] for name in _INHERITED if name in given})
    return {**inherited, **found}


def _more(given: Mapping[str, Any]) -> dict[str, Any]:
    """What `sentinel_kwargs` holds."""
    more = given.get("sentinel_kwargs")
    if more is None:
        return {}
    if not isinstance(more, Mapping):
        raise OptionError(f"sentinel_kwargs must be a dictionary of redis-py's keywords, not {type(more).__name__}")
    for name in more:
        if name in _NOT_OURS:
            raise OptionError(f"{name!r} has no meaning in sentinel_kwargs: the list of sentinels says where they are")
        if name in OWN - _FOR_SENTINELS:
            raise OptionError(f"{name!r} has no meaning in sentinel_kwargs: it is an option of the client itself")
    return dict(more)


def _inherited(given: Mapping[str, Any], found: Mapping[str, Any]) -> dict[str, Any]:
    """The data nodes' details of TLS that the sentinels have none of their own for."""
    taken = set(found)
    for group in _TOGETHER:
        if not group.isdisjoint(found):
            taken |= group
    return {name: given[name] for name in TLS_DETAILS if name in given and name not in taken}


def _read(keywords: Mapping[str, Any]) -> Options:
    try:
        return read_options(keywords)
    except OptionError as error:
        raise type(error)(f"for the connections to the sentinels: {error}") from None


def _tls(given: Mapping[str, Any]) -> bool | None:
    return None if given.get("sentinel_ssl") is None else _boolean(given, "sentinel_ssl")


def _boolean(given: Mapping[str, Any], name: str) -> bool:
    value = given.get(name, True)
    if not isinstance(value, bool):
        raise OptionError(f"{name} must be True or False, not {value!r}")
    return value


def _frozen(value: object) -> Hashable:
    """What an option is compared by: plain values by type and value, functions by themselves, else by identity."""
    if isinstance(value, Mapping):
        return frozenset((_frozen(key), _frozen(entry)) for key, entry in value.items())
    if isinstance(value, (list, tuple)):
        return tuple(_frozen(entry) for entry in value)
    if value is None or isinstance(value, (bool, int, float, str, bytes)):
        return type(value), value
    if isinstance(value, (type, FunctionType, MethodType)):
        return value
    return type(value), id(value)
