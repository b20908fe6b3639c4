"""Writes hatopo/testing/node/_config.json and _admin.json: what a real server says of its parameters and of itself.

    python tests/tools/generate_testing_admin.py            # starts servers, writes the files
    python tests/tools/generate_testing_admin.py --stdout   # prints them, writes nothing

_config.json has all parameters of CONFIG: a row is [default, kind, ...], where an int and a memory size have their
bounds and an enum its words. The kind is learned from what the server says of a value that cannot be right, in its
command line; `immutable` and `protected` from what it says of CONFIG SET. _admin.json has the fields of
INFO and MEMORY STATS of a server that nobody has used.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from tests.tools.generate_commands import HOST, free_port, text_of, wait_until_it_listens

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOM = Path(__file__).resolve().parents[2] / "hatopo" / "testing" / "node"
ABOUT = "{what} of redis-server {version}; made by tests/tools/generate_testing_admin.py"
OWN = {"port": "6379", "dir": "/data", "bind": HOST, "enable-debug-command": "no"}
"""What differs from the defaults in the server that is asked, or should in the embedded one."""
HIDDEN = (
    "key-load-delay",
    "loading-process-events-interval-bytes",
    "rdb-key-save-delay",
    "use-exit-on-panic",
    "watchdog-period",
)
"""Parameters that no pattern of CONFIG GET finds."""
OLD_WORDS = (("replica", "slave"), ("listpack", "ziplist"), ("busy-reply-threshold", "lua-time-limit"))
"""How the old name of a parameter is made of the new one."""
OF_THE_MACHINE = ("os", "executable", "config_file", "process_id", "run_id", "tcp_port", "server_time_usec")
BETWEEN = re.compile(r"argument must be between (-?\d+) and (-?\d+) inclusive")


class Asked:
    """A connection to the server, and its answers as text."""

    def __init__(self, port: int) -> None:
        self._connection = redis.Connection(host=HOST, port=port, protocol=3)

    def ask(self, *words: str) -> Any:
        self._connection.send_command(*words)
        try:
            return plain(self._connection.read_response())
        except redis.ResponseError as error:
            return str(error)

    def close(self) -> None:
        self._connection.disconnect()


def plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {text_of(key): plain(one) for key, one in value.items()}
    if isinstance(value, list):
        return [plain(one) for one in value]
    return text_of(value) if isinstance(value, bytes) else value


@contextlib.contextmanager
def fresh_server() -> Iterator[Asked]:
    """A server with the defaults of its build, that allows DEBUG."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        command = ["redis-server", "--port", str(port), "--dir", directory, "--enable-debug-command", "yes"]
        server = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        try:
            wait_until_it_listens(port)
            asked = Asked(port)
            yield asked
            asked.close()
        finally:
            server.terminate()
            server.wait(timeout=10)


def complaint(name: str, value: str) -> str:
    """What the server says of a parameter on its command line; another one makes sure that it never runs."""
    command = ["redis-server", "--port", "0", f"--{name}", value, "--no-such-parameter", "x"]
    ended = subprocess.run(command, check=False, capture_output=True, text=True, timeout=10)
    lines = [line for line in (ended.stdout + ended.stderr).splitlines() if line.strip()]
    position = next(index for index, line in enumerate(lines) if line.startswith(">>>"))
    return "" if "no-such-parameter" in lines[position] else lines[position + 1]


def kind_of(name: str) -> list[Any]:
    """The kind of a parameter, with its bounds or words."""
    said = complaint(name, "nonsense")
    if "must be 'yes' or 'no'" in said:
        return ["bool"]
    if "one of the following: " in said:
        return ["enum", said.split("following: ")[1].split(", ")]
    if "parsed into an integer" in said:
        return ["int", *bounds(complaint(name, str(-(2**63))))]
    if "percent value" in said:
        return ["percent"]
    if "memory value" in said:
        return ["memory", *bounds(complaint(name, str(2**64 - 1)))]
    return ["text"]


def bounds(said: str) -> tuple[int, int]:
    found = BETWEEN.search(said)
    return (int(found[1]), int(found[2])) if found else (0, 2**64 - 1)


def parameters(asked: Asked) -> dict[str, Any]:
    """The content of _config.json."""
    values: dict[str, str] = asked.ask("CONFIG", "GET", "*")
    for name in HIDDEN:
        values |= asked.ask("CONFIG", "GET", name)
    aliases = {
        name.replace(new, old): name
        for name in values
        for new, old in OLD_WORDS
        if new in name and name.replace(new, old) in values
    }
    names = sorted(values.keys() - aliases.keys())
    refused = {name: str(asked.ask("CONFIG", "SET", name, values[name])) for name in names}
    return {
        "aliases": dict(sorted(aliases.items())),
        "immutable": [name for name in names if "set immutable" in refused[name]],
        "protected": [name for name in names if "set protected" in refused[name]],
        "hidden": sorted(HIDDEN),
        "parameters": {name: [OWN.get(name, values[name]), *kind_of(name)] for name in names},
    }


def about_itself(asked: Asked) -> dict[str, Any]:
    """The content of _admin.json."""
    sections: dict[str, list[list[str]]] = {}
    fields: list[list[str]] = []
    for line in asked.ask("INFO", "everything").removeprefix("txt:").splitlines():
        if line.startswith("# "):
            fields = sections[line[2:].lower()] = []
        elif line:
            name, _, value = line.partition(":")
            fields.append([name, "" if name in OF_THE_MACHINE else value])
    for name in ("replication", "commandstats", "errorstats", "latencystats"):
        sections[name] = []  # all of them are the server's own business
    memory = {name: value for name, value in asked.ask("MEMORY", "STATS").items() if not name.startswith("db.")}
    return {
        "info": sections,
        "memory": memory,
    }


def render() -> dict[str, str]:
    """The text of the files, by their names."""
    with fresh_server() as asked:
        itself = about_itself(asked)
        version = dict(itself["info"]["server"])["redis_version"]
        config = parameters(asked)
    return {
        "_config.json": written("CONFIG", version, config),
        "_admin.json": written("INFO and MEMORY STATS", version, itself),
    }


def written(what: str, version: str, content: dict[str, Any]) -> str:
    """JSON with a line for everything that is two levels deep."""

    def lines(value: Any) -> str:
        if isinstance(value, dict):
            return "{\n" + ",\n".join(f"{json.dumps(key)}:{compact(one)}" for key, one in value.items()) + "\n}"
        return compact(value)

    parts = {"about": ABOUT.format(what=what, version=version), **content}
    return "{\n" + ",\n".join(f"{json.dumps(key)}:{lines(value)}" for key, value in parts.items()) + "\n}\n"


def compact(value: Any) -> str:
    return json.dumps(value, separators=(",", ":"))


def main() -> None:
    parser = argparse.ArgumentParser(description="Write hatopo/testing/node/_config.json and _admin.json.")
    parser.add_argument("--stdout", action="store_true", help="print the files instead of writing them")
    options = parser.parse_args()
    for name, text in render().items():
        if options.stdout:
            sys.stdout.write(text)
        else:
            (ROOM / name).write_text(text)


if __name__ == "__main__":
    main()
