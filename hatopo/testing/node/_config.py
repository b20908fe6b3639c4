"""CONFIG: the parameters of a data node, with the names, defaults and checks of a real 7.0.15.

Decides what value a parameter may have and how it reads back, and tells the node of what takes effect: the password,
the guards of the write path, the limit on clients and on their idleness. All other parameters are kept and shown,
and change nothing. What a parameter means to replication or to a client is decided where it is read.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from hatopo.testing._glob import matches
from hatopo.testing._reply import OK, ErrorReply, Reply
from hatopo.testing.node._slowlog import SlowLog
from hatopo.testing.server._handlers import Handlers, text

if TYPE_CHECKING:
    from hatopo.testing.node._node import DataNode
    from hatopo.testing.server._session import Session
    from hatopo.testing.world._clock import Timer

commands = Handlers()

ROOM = Path(__file__).parent
SYNTAX_ERROR = "ERR syntax error"
LOADING = "LOADING Redis is loading the dataset in memory"
NOT_WHILE_LOADING = {"dir", "repl-diskless-load", "appendonly"}
NO_DEFRAG = (
    "Active defragmentation cannot be enabled: it requires a Redis server compiled with a modified Jemalloc like the "
    "one shipped by default with the Redis source distribution"
)


class _RefusedError(Exception):
    """Why a value is not one of this parameter, in the words of the server."""


@dataclass(frozen=True, slots=True)
class Parameter:
    """What CONFIG knows of one parameter."""

    name: str
    default: str
    kind: str
    """bool, int, memory, percent, enum or text."""
    low: int = 0
    high: int = 0
    words: tuple[str, ...] = ()
    """The values of an enum."""
    immutable: bool = False
    protected: bool = False
    hidden: bool = False

    def checked(self, value: str, present: str) -> str:
        """The value as it reads back; _RefusedError if it cannot be one. `present` is the one that it replaces."""
        special = _SPECIAL.get(self.name)
        if special is not None:
            return special(value, present)
        return _KINDS[self.kind](self, value)


def _text(parameter: Parameter, value: str) -> str:
    return value


def _bool(parameter: Parameter, value: str) -> str:
    if value.lower() not in ("yes", "no"):
        raise _RefusedError("argument must be 'yes' or 'no'")
    if parameter.name == "activedefrag" and value.lower() == "yes":
        raise _RefusedError(NO_DEFRAG)
    return value.lower()


def _enum(parameter: Parameter, value: str) -> str:
    words = value.lower().split(" ") if parameter.name.startswith("shutdown-on-sig") else [value.lower()]
    if not {*words} <= {*parameter.words}:
        raise _RefusedError(f"argument(s) must be one of the following: {', '.join(parameter.words)}"[:255])
    if {"save", "nosave"} <= {*words}:
        raise _RefusedError("shutdown options SAVE and NOSAVE can't be used simultaneously")
    found = [word for word in parameter.words if word in words and word != "default"]
    if parameter.name == "oom-score-adj":
        return {"relative": "yes"}.get(value.lower(), value.lower())
    return " ".join(found) or "default"


def _int(parameter: Parameter, value: str) -> str:
    if not re.fullmatch(r"0|-?[1-9][0-9]*", value) or not -(2**63) <= int(value) < 2**63:
        raise _RefusedError("argument couldn't be parsed into an integer")
    number = _within(parameter, int(value))
    return str(max(1, min(number, 500))) if parameter.name == "hz" else str(number)


def _within(parameter: Parameter, number: int) -> int:
    if not parameter.low <= number <= parameter.high:
        raise _RefusedError(f"argument must be between {parameter.low} and {parameter.high} inclusive")
    return number


UNITS = {"": 1, "b": 1, "k": 1000, "kb": 1 << 10, "m": 1000**2, "mb": 1 << 20, "g": 1000**3, "gb": 1 << 30}


def memory_size(value: str) -> int | None:
    """A number of bytes, such as 1gb; None if it is none."""
    found = re.fullmatch(r"([0-9]+)([a-zA-Z]*)", value)
    if found is None or found[2].lower() not in UNITS:
        return None
    return min(int(found[1]), 2**64 - 1) * UNITS[found[2].lower()] % 2**64


def _memory(parameter: Parameter, value: str) -> str:
    size = memory_size(value)
    if size is None:
        raise _RefusedError("argument must be a memory value")
    return str(_within(parameter, size))


def _percent(parameter: Parameter, value: str) -> str:
    size = memory_size(value)
    if size is not None:
        return str(size)
    if not re.fullmatch(r"(0|[1-9][0-9]*)%", value):
        raise _RefusedError("argument must be a memory or percent value")
    if int(value[:-1]) > 100:
        raise _RefusedError("percentage argument must be less or equal to 100")
    return "0" if value == "0%" else value


_KINDS: Final[Mapping[str, Callable[[Parameter, str], str]]] = {
    "text": _text,
    "bool": _bool,
    "enum": _enum,
    "int": _int,
    "memory": _memory,
    "percent": _percent,
}


# Parameters that are several words


def _save(value: str, _: str) -> str:
    words = value.split(" ") if value else []
    for index, word in enumerate(words):
        if not re.fullmatch(r"\+?[0-9]+", word) or (index % 2 == 0 and int(word) < 1):
            raise _RefusedError("Invalid save parameters")
    if len(words) % 2:
        raise _RefusedError("Invalid save parameters")
    return " ".join(str(int(word)) for word in words)


def _output_limits(value: str, present: str) -> str:
    words, limits = value.split(" "), present.split(" ")
    if len(words) % 4:
        raise _RefusedError("Wrong number of arguments in buffer limit configuration.")
    for at in range(0, len(words), 4):
        kind = {"replica": "slave"}.get(words[at].lower(), words[at].lower())
        if kind not in ("normal", "slave", "pubsub"):
            raise _RefusedError("Invalid client class specified in buffer limit configuration.")
        sizes = [memory_size(word) for word in words[at + 1 : at + 3]]
        if None in sizes or not words[at + 3].isdigit():
            raise _RefusedError("Error in hard, soft or soft_seconds setting in buffer limit configuration.")
        place = limits.index(kind)
        limits[place + 1 : place + 4] = [str(size) for size in sizes] + [words[at + 3]]
    return " ".join(limits)


def _events(value: str, _: str) -> str:
    if {*value} - {*"Ag$lshzxeKEtmdn"}:
        raise _RefusedError("Invalid event class character. Use 'Ag$lshzxeKEtmdn'.")
    classes = "A" if "A" in value or {*"g$lshzxetd"} <= {*value} else "".join(w for w in "g$lshzxetd" if w in value)
    return classes + "".join(sign for sign in "nKEm" if sign in value)  # a real server forgets to show n behind A


def _oom_scores(value: str, _: str) -> str:
    words = value.split(" ")
    if len(words) != 3:
        raise _RefusedError("wrong number of arguments")
    if not all(re.fullmatch(r"[-+]?[0-9]+", word) and -2000 <= int(word) <= 2000 for word in words):
        raise _RefusedError("Invalid oom-score-adj-values, elements must be between -2000 and 2000.")
    return " ".join(str(int(word)) for word in words)


def _percentiles(value: str, _: str) -> str:
    found = []
    for word in value.split(" ") if value else []:
        try:
            number = float(word)
        except ValueError:
            raise _RefusedError("Invalid latency-tracking-info-percentiles parameters") from None
        if not 0 <= number <= 100:
            raise _RefusedError("latency-tracking-info-percentiles parameters should sit between [0.0,100.0]")
        found.append(f"{number:f}".rstrip("0").rstrip("."))
    return " ".join(found)


def _bind(value: str, present: str) -> str:
    if value != present and not {*value.split(" ")} & {"127.0.0.1", "0.0.0.0", "*", "localhost"}:
        raise _RefusedError("Failed to bind to specified addresses.")
    return value


def _file_name(value: str, _: str) -> str:
    if "/" in value or "\\" in value:
        raise _RefusedError("dbfilename can't be a path, just a filename")
    return value


def _host_name(value: str, _: str) -> str:
    if len(value) >= 256:
        raise _RefusedError("Hostnames must be less than 256 characters")
    if not re.fullmatch(r"[A-Za-z0-9.-]*", value):
        raise _RefusedError("Hostnames may only contain alphanumeric characters, hyphens or dots")
    return value


_SPECIAL: Final[Mapping[str, Callable[[str, str], str]]] = {
    "save": _save,
    "client-output-buffer-limit": _output_limits,
    "notify-keyspace-events": _events,
    "oom-score-adj-values": _oom_scores,
    "latency-tracking-info-percentiles": _percentiles,
    "bind": _bind,
    "dbfilename": _file_name,
    "cluster-announce-hostname": _host_name,
}


def _parameter(name: str, row: Sequence[Any], told: Mapping[str, Any]) -> Parameter:
    default, kind, *more = row
    low, high = more if kind in ("int", "memory") else (0, 0)
    words = tuple(more[0]) if kind == "enum" else ()
    traits = (name in told["immutable"], name in told["protected"], name in told["hidden"])
    return Parameter(name, default, kind, low, high, words, *traits)


@functools.cache
def parameters() -> tuple[dict[str, Parameter], dict[str, str]]:
    """All parameters by their names, and the names behind the old ones."""
    told = json.loads((ROOM / "_config.json").read_text())
    return {name: _parameter(name, row, told) for name, row in told["parameters"].items()}, told["aliases"]


class Config:
    """The parameters of one data node.

    Those that are asked for with every write, or by replication, are attributes as well.
    """

    min_replicas_to_write: int
    min_replicas_max_lag: int
    replica_read_only: bool
    replica_serve_stale_data: bool
    replica_priority: int
    replica_announced: bool
    replica_announce_ip: str
    replica_announce_port: int
    repl_timeout: int
    repl_ping_replica_period: int
    masteruser: str
    masterauth: str
    maxclients: int
    maxmemory: int
    timeout: int
    databases: int

    def __init__(self, node: DataNode) -> None:
        self._node = node
        self._parameters, self._aliases = parameters()
        self._values = {name: one.default for name, one in self._parameters.items()}
        self._file: dict[str, str] = {}
        """What stands in the configuration file: a restart begins with it."""
        self._idle_check: Timer | None = None
        self.saved_at = node.world.data_now
        """When the data was last saved, which it never really is."""
        self.saves = 0
        self.slow_log = SlowLog()
        self._refresh()

    # Reading

    def get(self, name: str) -> str:
        """The value of a parameter, as CONFIG GET shows it."""
        name = self._aliases.get(name, name)
        if name == "port":
            return str(self._node.address[1])
        if name == "replicaof":
            master = self._node.replication.master
            return f"{master[0]} {master[1]}" if master is not None else ""
        return self._values[name]

    def number(self, name: str) -> int:
        """The value of a parameter that is a number."""
        return int(self.get(name))

    def flag(self, name: str) -> bool:
        """The value of a parameter that is yes or no."""
        return self.get(name) == "yes"

    def find(self, patterns: Sequence[bytes]) -> dict[str, str]:
        """What CONFIG GET answers: by names as they were asked for, or as a pattern found them."""
        found: dict[str, str] = {}
        for pattern in patterns:
            name = text(pattern)
            names = [name] if not {*"[*?"} & {*name} else self._names(pattern)
            known = {one.lower() for one in found}
            found |= {one: self.get(one.lower()) for one in names if self._knows(one) and one.lower() not in known}
        return found

    def _names(self, pattern: bytes) -> list[str]:
        names = [name for name in self._parameters if not self._parameters[name].hidden]
        return [name for name in [*names, *self._aliases] if matches(pattern, name.encode(), ignore_case=True)]

    def _knows(self, name: str) -> bool:
        return name.lower() in self._parameters or name.lower() in self._aliases

    # Writing

    def set(self, name: str, value: str) -> None:
        """Set a parameter by a line of the configuration file: also one that CONFIG SET may not, and for restarts."""
        name = name.lower()
        if not self._knows(name):
            raise ErrorReply(f"ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
        values = self._checked({name: value})
        self._file |= values
        self._take(values)

    def change(self, words: Sequence[bytes]) -> None:
        """CONFIG SET of names and values in turn: all of them, or none and ErrorReply."""
        if len(words) % 2:
            raise ErrorReply(SYNTAX_ERROR)
        wanted: dict[str, str] = {}
        for word, value in zip(words[::2], words[1::2], strict=True):
            name = text(word)
            if not self._knows(name):
                raise ErrorReply(f"ERR Unknown option or number of arguments for CONFIG SET - '{name}'")
            self._check_change(name, wanted)
            wanted[name.lower()] = text(value)
        self._take(self._checked(wanted))

    def _check_change(self, name: str, others: Mapping[str, str]) -> None:
        """Raise what forbids that CONFIG SET changes this parameter."""
        parameter = self._parameters[self._aliases.get(name.lower(), name.lower())]
        if parameter.immutable:
            raise _failed(name, "can't set immutable config")
        if parameter.protected and self.get("enable-protected-configs") == "no":
            raise _failed(name, "can't set protected config")
        if self._node.loading and parameter.name in NOT_WHILE_LOADING:
            raise ErrorReply(LOADING)
        if name.lower() in others:
            raise _failed(name, "duplicate parameter")

    def _checked(self, wanted: Mapping[str, str]) -> dict[str, str]:
        """What these parameters would be, by their proper names."""
        values: dict[str, str] = {}
        for name, value in wanted.items():
            proper = self._aliases.get(name, name)
            try:
                values[proper] = self._parameters[proper].checked(value, values.get(proper, self._values[proper]))
                if proper == "port" and self._node.running and values[proper] != self.get("port"):
                    raise _RefusedError("Unable to listen on this port. Check server logs.")
            except _RefusedError as refused:
                raise _failed(name, str(refused)) from None
        return values

    def _take(self, values: Mapping[str, str]) -> None:
        """Let values take effect."""
        before, self._values = self._values, {**self._values, **values}
        self._refresh()
        if self._values["requirepass"] != before["requirepass"]:
            self._node.accounts.set_password(self._values["requirepass"])
        self._watch_idle()
        self._node.update_guard()

    def _refresh(self) -> None:
        """Make the attributes what the values say."""
        number, flag, get = self.number, self.flag, self.get
        self.min_replicas_to_write = number("min-replicas-to-write")
        self.min_replicas_max_lag = number("min-replicas-max-lag")
        self.replica_read_only = flag("replica-read-only")
        self.replica_serve_stale_data = flag("replica-serve-stale-data")
        self.replica_priority = number("replica-priority")
        self.replica_announced = flag("replica-announced")
        self.replica_announce_ip = get("replica-announce-ip")
        self.replica_announce_port = number("replica-announce-port")
        self.repl_timeout = number("repl-timeout")
        self.repl_ping_replica_period = number("repl-ping-replica-period")
        self.masteruser, self.masterauth = get("masteruser"), get("masterauth")
        self.maxclients, self.maxmemory = number("maxclients"), number("maxmemory")
        self.timeout = number("timeout")
        self.databases = number("databases")

    # Restarts

    def rewrite(self) -> None:
        """CONFIG REWRITE: a restart keeps what is set now, and whose replica the node is."""
        self._file = {name: value for name, value in self._values.items() if value != self._parameters[name].default}
        self._node.replication.remember()

    def restarted(self) -> None:
        """The node begins again with its configuration file."""
        defaults = {name: one.default for name, one in self._parameters.items()}
        self._take({**defaults, **self._file})
        self.saved_at, self.saves = self._node.world.data_now, 0
        self.slow_log = SlowLog()

    # Clients

    def admit(self, session: Session) -> None:
        """Turn a new client away where there are too many."""
        if len(self._node.sessions) > self.maxclients:
            self._node.stats["rejected_connections"] += 1
            session.fail("ERR max number of clients reached")
            session.close("too many clients")

    def _watch_idle(self) -> None:
        """Look for idle clients once a second, as long as there is a limit."""
        if self.timeout and self._idle_check is None:
            self._idle_check = self._node.world.data_after(1.0, self._close_idle)

    def _close_idle(self) -> None:
        self._idle_check = None
        now = self._node.world.data_now
        for session in [*self._node.sessions.values()] if self.timeout and not self._node.paused else ():
            busy = session.blocked is not None or session.subscriptions or session in self._node.monitors
            if session.kind == "normal" and not busy and int(now - session.active) > self.timeout:
                session.close("idle for too long")
        self._watch_idle()


def _failed(name: str, reason: str) -> ErrorReply:
    return ErrorReply(f"ERR CONFIG SET failed (possibly related to argument '{name}') - {reason}")


@commands("config|get")
def config_get(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    found: dict[Reply, Reply] = {}
    found.update(node.config.find(args[2:]))
    return found


@commands("config|set")
def config_set(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    node.config.change(args[2:])
    return OK


@commands("config|rewrite")
def config_rewrite(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    node.config.rewrite()
    return OK


@commands("config|resetstat")
def config_resetstat(node: DataNode, session: Session, args: list[bytes]) -> Reply:
    node.stats.clear()
    node.errors.clear()
    for counted in ("calls", "rejected_calls", "failed_calls"):
        getattr(node, counted, {}).clear()
    node.calls["config|resetstat"] += 1
    return OK
