"""Whether what a test asks for makes sense: decided before anything is started, and in the same words everywhere.

It knows no server: what only a server can judge (the value of a parameter, the rules of a user) is its own.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

OWN = ("port", "tls-port", "bind", "aclfile", "replicaof", "slaveof")
"""Parameters by which a deployment holds its nodes together."""

CONNECTIONS = ("normal", "pubsub", "replica", "master")
"""The kinds of connections, as CLIENT KILL TYPE has them."""


def kind(value: object) -> None:
    """Refuse what is no kind of connections; "all" are all of them."""
    if value not in (*CONNECTIONS, "all"):
        raise ValueError(f"{value!r} is none of {(*CONNECTIONS, 'all')}")


def number(name: str, value: object, least: float) -> None:
    """Refuse what is no finite number of at least so much."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{name} must be a number, not {value!r}")
    if not math.isfinite(value) or value < least:
        raise ValueError(f"{name} must be at least {least:g}, not {value:g}")


def seconds(name: str, value: object) -> None:
    """Refuse what is less than the millisecond that a sentinel can be told."""
    number(name, value, 0.001)


def count(name: str, value: object, least: int) -> None:
    """Refuse what is no whole number of at least so much."""
    if isinstance(value, float):
        raise TypeError(f"{name} must be a whole number, not {value!r}")
    number(name, value, least)


def port(value: object) -> None:
    """Refuse what is no port; 0 stands for any."""
    if isinstance(value, bool) or not isinstance(value, int):
        raise TypeError(f"a port must be a whole number, not {value!r}")
    if not 0 <= value <= 65535:
        raise ValueError(f"there is no port {value}")


def ports(values: object) -> None:
    """Refuse what is no list of ports, and a port that is given twice."""
    if not isinstance(values, Iterable) or isinstance(values, (str, bytes)):
        raise TypeError(f"ports must be a list of ports, not {values!r}")
    given = [*values]
    for value in given:
        port(value)
    twice = {value for value in given if value and given.count(value) > 1}
    if twice:
        raise ValueError(f"port {min(twice)} is given twice")


def address(value: object) -> None:
    """Refuse what is no host and port."""
    if not (isinstance(value, tuple) and len(value) == 2 and isinstance(value[0], str)):
        raise TypeError(f"an address is a host and a port, as ('127.0.0.1', 6379), not {value!r}")
    if not value[0] or any(sign.isspace() for sign in value[0]):
        raise ValueError(f"{value[0]!r} is no host")
    port(value[1])
    if value[1] == 0:
        raise ValueError("there is nobody at port 0")


def service(name: object) -> None:
    """Refuse what a sentinel would not take for the name of a service, or what would break its messages."""
    if not isinstance(name, str):
        raise TypeError(f"name must be text, not {name!r}")
    if not name or any(sign.isspace() or not sign.isprintable() for sign in name):
        raise ValueError(f"name must be one word, not {name!r}")


def access(password: object, users: object, tls: object, kind_of_tls: type) -> None:
    """Refuse what nobody could log in with."""
    if not (password is None or isinstance(password, str)):
        raise TypeError(f"password must be text, not {type(password).__name__}")
    if password == "":
        raise ValueError("password must not be empty; None stands for none")
    if not isinstance(users, Sequence) or isinstance(users, (str, bytes)):
        raise TypeError("users must be a list of lines, as ['user app on >secret ~* +@all']")
    for line in users:
        if not isinstance(line, str):
            raise TypeError(f"a line of users must be text, not {line!r}")
        if line.split()[:1] != ["user"] or "\n" in line:
            raise ValueError(f"a line of users begins with 'user' and a name: {line!r}")
    if not (tls is None or isinstance(tls, kind_of_tls)):
        raise TypeError(f"tls must be TlsFiles, not {tls!r}")


def config(settings: object) -> dict[str, str]:
    """The parameters as text; refuse what is none, and what is the deployment's own."""
    if settings is None:
        return {}
    if not isinstance(settings, Mapping):
        raise TypeError(f"config must be a mapping of parameters, not {settings!r}")
    for name in settings:
        if not isinstance(name, str):
            raise TypeError(f"the name of a parameter must be text, not {name!r}")
        if name.lower() in OWN:
            raise ValueError(f"{name} cannot be configured: arguments of the deployment say it")
    return {name: str(value) for name, value in settings.items()}


def words(command: Sequence[Any]) -> list[bytes]:
    """A command as bytes; text that came from bytes that are no UTF-8 becomes these bytes again."""
    if not command:
        raise ValueError("there is no command in it")
    for word in command:
        if not isinstance(word, (str, int, float, bytes)):
            raise TypeError(f"a word of a command must be text, bytes or a number, not {word!r}")
    return [word if isinstance(word, bytes) else str(word).encode("utf-8", "surrogateescape") for word in command]
