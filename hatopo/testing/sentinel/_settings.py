"""Settings that change while a sentinel runs: SENTINEL SET, SENTINEL CONFIG, SENTINEL DEBUG."""

from __future__ import annotations

from dataclasses import fields
from typing import TYPE_CHECKING

from hatopo.testing._glob import matches
from hatopo.testing._reply import OK, ErrorReply, Reply
from hatopo.testing.sentinel import _monitor
from hatopo.testing.sentinel._commands import named
from hatopo.testing.sentinel._instances import Periods
from hatopo.testing.server._handlers import Handlers, integer, text

if TYPE_CHECKING:
    from collections.abc import Sequence

    from hatopo.testing.sentinel._instances import Master
    from hatopo.testing.sentinel._server import SentinelServer
    from hatopo.testing.server._session import Session

commands = Handlers()

SCRIPTS_DENIED = (
    "ERR Reconfiguration of scripts path is denied for security reasons. Check the deny-scripts-reconfig "
    "configuration directive in your Sentinel configuration"
)
NUMBERS = {
    "down-after-milliseconds": "down_after",
    "failover-timeout": "failover_timeout",
    "parallel-syncs": "parallel_syncs",
    "quorum": "quorum",
    "master-reboot-down-after-period": "reboot_down_after",
}
"""Options of a service that are positive numbers, by the names of their attributes."""
LOGINS = {"auth-user": "auth_user", "auth-pass": "auth_pass"}
SCRIPTS = ("notification-script", "client-reconfig-script")


def _values(option: str) -> int:
    """How many values an option of SENTINEL SET takes; 0: there is no such option."""
    if option == "rename-command":
        return 2
    return 1 if option in NUMBERS or option in LOGINS or option in SCRIPTS else 0


def change(master: Master, option: str, values: Sequence[str]) -> None:
    """Change one option of a service; ErrorReply if it cannot be."""
    value = values[0]
    if option in SCRIPTS:
        raise ErrorReply(SCRIPTS_DENIED)
    if option in NUMBERS:
        least = 0 if option == "master-reboot-down-after-period" else 1
        setattr(master, NUMBERS[option], _number(value, least, f"for SENTINEL SET '{option}'"))
        if option == "down-after-milliseconds":
            for one in (*master.replicas.values(), *master.sentinels.values()):
                one.down_after = master.down_after
    elif option in LOGINS:
        setattr(master, LOGINS[option], value or None)
        _monitor.drop_connections(master)
    else:
        old, new = values
        if not old or not new:
            raise ErrorReply(f"ERR Invalid argument '' for SENTINEL SET '{option}'")
        master.renamed.pop(old.lower(), None)
        if old.lower() != new.lower():
            master.renamed[old.lower()] = new


def _number(word: str, least: int, where: str) -> int:
    wrong = f"ERR Invalid argument '{word}' {where}"
    number = integer(word.encode("utf-8", "surrogateescape"), wrong)
    if number < least:
        raise ErrorReply(wrong)
    return number


@commands("sentinel|set")
def set_options(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    master = named(sentinel, args[2])
    words = [text(word) for word in args[3:]]
    try:
        while words:
            spelling = words.pop(0)
            option = spelling.lower()
            count = _values(option)
            if not count or len(words) < count:
                raise ErrorReply(f"ERR Unknown option or number of arguments for SENTINEL SET '{spelling}'")
            values, words = words[:count], words[count:]
            change(master, option, values)
            shown = ["******"] if option == "auth-pass" else values
            sentinel.event("+set", master, " ".join([spelling, *shown]))
    finally:
        sentinel.save()
        sentinel.wake()
    return OK


@commands("sentinel|config")
def config(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    action = args[2].lower()
    if action == b"set" and len(args) == 5:
        _set_global(sentinel, text(args[3]), text(args[4]))
        return OK
    if action == b"get" and len(args) == 4:
        found = _globals(sentinel)
        return {name: value for name, value in found.items() if matches(args[3], name.encode(), ignore_case=True)}
    raise ErrorReply("ERR Only SENTINEL CONFIG GET <option> / SET <option> <value> are supported.")


def _globals(sentinel: SentinelServer) -> dict[str, str]:
    return {
        "resolve-hostnames": "yes" if sentinel.resolve_hostnames else "no",
        "announce-hostnames": "yes" if sentinel.announce_hostnames else "no",
        "announce-ip": sentinel.announce_ip or "",
        "announce-port": str(sentinel.announce_port),
        "sentinel-user": sentinel.sentinel_user or "",
        "sentinel-pass": sentinel.sentinel_pass or "",
    }


def _set_global(sentinel: SentinelServer, spelling: str, value: str) -> None:
    option = spelling.lower()
    wrong = ErrorReply(f"ERR Invalid value '{value}' to SENTINEL CONFIG SET '{spelling}'")
    if option not in _globals(sentinel):
        raise ErrorReply(f"ERR Invalid argument '{spelling}' to SENTINEL CONFIG SET")
    attribute = option.replace("-", "_")
    if option.endswith("hostnames"):
        if value.lower() not in ("yes", "no"):
            raise wrong
        setattr(sentinel, attribute, value.lower() == "yes")
    elif option == "announce-port":
        number = integer(value.encode("utf-8", "surrogateescape"), wrong.text)
        if not 0 <= number <= 65535:
            raise wrong
        sentinel.announce_port = number
    elif option == "announce-ip":
        sentinel.announce_ip = value
    else:
        setattr(sentinel, attribute, value or None)
    sentinel.save()
    if option.startswith("sentinel-"):
        _monitor.drop_peers([*sentinel.masters.values()])
    sentinel.wake()


@commands("sentinel|debug")
def debug(sentinel: SentinelServer, session: Session, args: list[bytes]) -> Reply:
    names = [field.name for field in fields(Periods)]
    if len(args) == 2:
        return {_spelled(name).upper(): str(getattr(sentinel.periods, name)) for name in names}
    words = [text(word) for word in args[2:]]
    try:
        while words:
            spelling = words.pop(0)
            option = spelling.lower()
            if option not in map(_spelled, names) or not words:
                raise ErrorReply(f"ERR Unknown option or number of arguments for SENTINEL DEBUG '{spelling}'")
            number = _number(words.pop(0), 1, f"for SENTINEL DEBUG '{spelling}'")
            setattr(sentinel.periods, option.replace("-", "_"), number)
    finally:
        sentinel.wake()
    return OK


def _spelled(name: str) -> str:
    return name.replace("_", "-")
