"""URLs, read into keywords: for one server as redis-py reads them, for Sentinel in the forms that clients have in use.

Decides what the parts of a URL mean. No message holds text of a URL that could be a piece of a password: a password
with a `/`, `?`, `#` or `&` in it that was not percent-encoded ends up anywhere. What the values mean is checked later.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

from redis import connection as redis_connection

from hatopo.address import Address
from hatopo.client._keywords import DATA, OWN, REFUSED, SENTINEL, check_names, nearest
from hatopo.errors import OptionError, UnknownOptionError

REDIS_PORT, SENTINEL_PORT = 6379, 26379
SENTINEL_FORM = "redis+sentinel://user:password@host:26379,host2/service/0"
_SCHEMES = {
    "redis": "redis",
    "rediss": "rediss",
    "unix": "unix",
    "valkey": "redis",
    "valkeys": "rediss",
}
_SENTINEL_SCHEMES = {
    "redis+sentinel": False,
    "rediss+sentinel": True,
    "sentinel": False,
    "valkey+sentinel": False,
    "valkeys+sentinel": True,
    "redis-sentinel": False,
    "rediss-sentinel": True,
}
_REPLICATED_SCHEMES = {
    "redis+replicated": False,
    "rediss+replicated": True,
    "valkey+replicated": False,
    "valkeys+replicated": True,
}
"""And whether they ask for TLS."""
REPLICATED_FORM = "redis+replicated://user:password@host:6379,host2/0"
_SERVICE = ("service", "master_name")
_BOOLEANS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}
_ENCODE = "a password that holds one of / ? # & @ % , must be percent-encoded (/ is written %2F)"


def _boolean(value: str) -> bool:
    if value.lower() not in _BOOLEANS:
        raise ValueError("neither true nor false")
    return _BOOLEANS[value.lower()]


def _listed(value: str) -> list[str]:
    return [part.strip() for part in value.split(",")]


_PARSERS: Mapping[str, Callable[[str], object]] = {
    "failover_timeout": float,
    "deadline": float,
    "max_waiting": int,
    "max_reply_bytes": int,
    "ping_after": float,
    "max_idle_time": float,
    "max_connection_age": float,
    "max_lag": int,
    "error_arguments": _boolean,
    "allowed_hosts": _listed,
    "early_promotion": _boolean,
    "watch": _boolean,
    "ssl": _boolean,
    "sentinel_ssl": _boolean,
}
"""How hatopo's options are written in a URL; those that are missing are text."""


def read_url(url: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Reads the URL of one server into keywords; what it says wins over `given`, as in redis-py.

    Raises:
        UnknownOptionError: a parameter nobody knows.
        OptionError: the scheme is unknown, or a value is wrong.
    """
    if is_sentinel_url(url) or is_replicated_url(url):
        raise OptionError("this is the URL of a deployment of several servers: hatopo.from_url() reads it")
    scheme = _SCHEMES.get(_scheme(url))
    if scheme is None:
        raise _wrong_scheme(url)
    parts = _split(url)
    if "@" in parts.fragment:
        raise OptionError(f"the URL has an @ behind a #; {_ENCODE}")
    number = _port(parts)
    if number is None:
        raise OptionError("the port in the URL is no number from 1 to 65535")
    if number == 0:
        raise OptionError("the port in the URL is 0")
    own = _parameters(url, parts.query, DATA | {"timeout", "path", "host", "port"}, OWN)
    if scheme != "unix" and parts.path.strip("/") and not parts.path.strip("/").isdigit():
        raise OptionError("the path of the URL must be a database number (a / in a password is written %2F)")
    try:
        found = redis_connection.parse_url(scheme + url[len(parts.scheme) :])
    except ValueError as error:
        raise OptionError(str(error)) from None
    connection_class = found.pop("connection_class", None)
    found = {name: value for name, value in found.items() if name not in OWN}
    if scheme == "unix":
        found["unix_socket_path"] = found.pop("path", "")
    elif connection_class is not None:
        found["ssl"] = True
    return {**given, **found, **own}


@dataclass(frozen=True)
class SentinelUrl:
    """What the URL of a deployment with sentinels says.

    Attributes:
        service: the name by which the sentinels know the master.
        sentinels: where they listen.
        options: keywords of `hatopo.sentinel`: the URL's over those that were given besides.
    """

    service: str
    sentinels: tuple[Address, ...]
    options: dict[str, Any] = field(repr=False)


def is_sentinel_url(url: object) -> bool:
    """Whether the scheme is one of those for Sentinel."""
    return isinstance(url, str) and _scheme(url) in _SENTINEL_SCHEMES


def read_sentinel_url(url: str, given: Mapping[str, Any]) -> SentinelUrl:
    """Reads `redis+sentinel://user:password@host:26379,host2/service/0?option=value`; it wins over `given`.

    User and password are the data nodes'. The service may also be named by `?service=`, `?master_name=` or
    `#service`; the path then may be the database alone. A scheme with TLS asks for it at the data nodes and, unless
    `sentinel_ssl` is in the URL or "ssl" in `sentinel_kwargs`, at the sentinels.

    Raises:
        UnknownOptionError: a parameter nobody knows.
        OptionError: the scheme is unknown, the service is missing, or a value is wrong.
    """
    tls = _SENTINEL_SCHEMES.get(_scheme(url))
    if tls is None:
        raise _wrong_scheme(url)
    parts = _parts(url)
    known = DATA | SENTINEL | frozenset(_SERVICE)
    options = _parameters(url, parts.query, known, known)
    named = {options.pop(name) for name in _SERVICE if name in options} | {unquote(parts.fragment)} - {""}
    service, database = _service(parts.path, named)
    user, _, password = parts.login.partition(":")
    login = {"username": unquote(user), "password": unquote(password), "db": database}
    options = {**{name: value for name, value in login.items() if value not in ("", None)}, **options}
    if tls:
        options["ssl"] = True
        more = given.get("sentinel_kwargs")
        if not isinstance(more, Mapping) or "ssl" not in more:
            options.setdefault("sentinel_ssl", True)
    return SentinelUrl(service, _listed_hosts(parts.hosts, SENTINEL_PORT, "sentinel"), {**given, **options})


def is_replicated_url(url: object) -> bool:
    """Whether the scheme is one of those for a master and its replicas without sentinels."""
    return isinstance(url, str) and _scheme(url) in _REPLICATED_SCHEMES


def read_replicated_url(url: str, given: Mapping[str, Any]) -> dict[str, Any]:
    """Reads `redis+replicated://user:password@host:6379,host2/0?option=value` into the arguments of `replicated`.

    With `?readers=host,host2:6380` the one host of the URL is the primary.

    Raises:
        UnknownOptionError: a parameter nobody knows.
        OptionError: a value is wrong.
    """
    parts = _parts(url)
    known = DATA | {"readers"}
    options = _parameters(url, parts.query, known, known)
    database = unquote(parts.path).strip("/")
    if parts.fragment or (database and not database.isdecimal()):
        raise OptionError(f"the path of the URL must be a database number: {REPLICATED_FORM}; {_ENCODE}")
    user, _, password = parts.login.partition(":")
    login = {"username": unquote(user), "password": unquote(password), "db": int(database) if database else None}
    found = {**given, **{name: value for name, value in login.items() if value not in ("", None)}, **options}
    if _REPLICATED_SCHEMES[_scheme(url)]:
        found["ssl"] = True
    nodes = _listed_hosts(parts.hosts, REDIS_PORT, "node")
    if "readers" not in options:
        return {**found, "nodes": nodes}
    if len(nodes) != 1:
        raise OptionError("a URL with ?readers= names one host, the primary")
    return {**found, "primary": nodes[0], "readers": _listed_hosts(options["readers"], REDIS_PORT, "reader")}


class _Parts(NamedTuple):
    login: str
    hosts: str
    path: str
    query: str
    fragment: str


def _parts(url: str) -> _Parts:
    """The raw parts of a URL with several hosts, which `urlsplit` refuses if one is an IPv6 address."""
    rest, _, fragment = url.partition("://")[2].partition("#")
    rest, _, query = rest.partition("?")
    place, slash, path = rest.partition("/")
    login, _, hosts = place.rpartition("@")
    if "@" in login and "," in login:
        raise OptionError(f"the URL takes one login, in front of the first sentinel; {_ENCODE}")
    if "@" in path + fragment:  # then what stands for the sentinels is the beginning of a login
        raise OptionError(f"the URL has an @ behind its sentinels; {_ENCODE}")
    return _Parts(login, hosts, slash + path, query, fragment)


def _listed_hosts(hosts: str, default_port: int, what: str) -> tuple[Address, ...]:
    if not hosts.strip():
        form = SENTINEL_FORM if what == "sentinel" else REPLICATED_FORM
        raise OptionError(f"the URL names no {what}: {form}")
    found = []
    for number, host in enumerate(hosts.split(","), 1):
        address = _address(unquote(host), default_port)
        if address is None:
            raise OptionError(f"{what} number {number} in the URL is no host or host:port; {_ENCODE}")
        found.append(address)
    return tuple(dict.fromkeys(found))


def _address(text: str, default_port: int) -> Address | None:
    try:
        return Address.parse(text, default_port)
    except OptionError:  # its message holds the text
        return None


def _service(path: str, named: set[Any]) -> tuple[str, int | None]:
    """The service, and the database if the path holds one."""
    words = [unquote(word) for word in path.strip("/").split("/")] if path.strip("/") else []
    database = int(words.pop()) if words and words[-1].isdecimal() and (named or len(words) > 1) else None
    if len(words) > 1:
        raise OptionError(f"the path of the URL must be /service or /service/database: {SENTINEL_FORM}; {_ENCODE}")
    if words and not named and database is None and words[0].isdecimal():
        raise OptionError(f"the URL names no service, only a database: {SENTINEL_FORM}")
    named = named | set(words)
    if not named:
        raise OptionError(f"the URL names no service: {SENTINEL_FORM}")
    if len(named) > 1:
        raise OptionError("the URL names more than one service, by its path, ?service=, ?master_name= or #")
    return str(named.pop()), database


def _parameters(url: str, query: str, known: frozenset[str], wanted: frozenset[str]) -> dict[str, Any]:
    """The parameters that are wanted, with their values read; all must be known. The first of a name counts."""
    found = parse_qs(query, keep_blank_values=True)
    for name in found:
        if name not in known and name not in REFUSED and name not in SENTINEL:
            raise _unknown(url, name, known)
    check_names(dict.fromkeys(found, True), known)
    return {name: _value(name, values[0]) for name, values in found.items() if name in wanted and values[0] != ""}


def _unknown(url: str, name: str, known: frozenset[str]) -> UnknownOptionError:
    """Names the parameter, unless it may be what follows a `?` or `&` in a password."""
    near = nearest(name, known)
    hint = f": did you mean {near!r}?" if near else ""
    behind = url.partition("://")[2].partition("?")[2]
    if "@" in behind or "password" in behind:
        return UnknownOptionError(f"unknown parameter in the URL{hint or f'; {_ENCODE}'}")
    return UnknownOptionError(f"unknown option {name!r}{hint}")


def _value(name: str, value: str) -> object:
    """What a parameter says: hatopo's by their types, redis-py's as redis-py reads them."""
    own = name in OWN or name in SENTINEL or name == "ssl"
    if name in OWN and value.lower() == "none":
        return None
    redis_parsers: Mapping[str, Any] = redis_connection.URL_QUERY_ARGUMENT_PARSERS
    parse = (_PARSERS.get(name) if own else None) or redis_parsers.get(name.removeprefix("sentinel_"), str)
    try:
        return parse(value)
    except (TypeError, ValueError):
        raise OptionError(f"{name} in the URL is not what this option takes") from None


def _scheme(url: str) -> str:
    if not isinstance(url, str):
        raise OptionError(f"a URL is text, not {type(url).__name__}")
    return url.partition("://")[0].strip().lower() if "://" in url else ""


def _wrong_scheme(url: str) -> OptionError:
    """Names the scheme, if it is one: without `://` it may be anything."""
    scheme = _scheme(url)
    shown = repr(scheme) if re.fullmatch(r"[a-z][a-z0-9+.-]{0,20}", scheme) else "of the URL"
    known = ", ".join(f"{name}://" for name in (*_SCHEMES, *_SENTINEL_SCHEMES, *_REPLICATED_SCHEMES))
    return OptionError(f"the URL scheme {shown} is not one of {known}")


def _split(url: str) -> SplitResult:
    parts = None
    with suppress(ValueError):  # its message may hold the login
        parts = urlsplit(url)
    if parts is None:
        raise OptionError(f"the host in the URL cannot be read; {_ENCODE}")
    return parts


def _port(parts: SplitResult) -> int | None:
    """The port; -1 where there is none, None if it makes no sense."""
    try:
        number = parts.port
    except ValueError:
        return None
    return -1 if number is None else number
