"""Writes hatopo/testing/commands/_commands.json: what a real server and a real sentinel say about their own commands.

    python -m tests.tools.generate_testing_commands             # starts both, writes the file
    python -m tests.tools.generate_testing_commands --stdout    # prints it, writes nothing

The file holds facts only, and none of the server's prose: not the notes of COMMAND, and of COMMAND DOCS neither
summary, complexity and replacement nor arguments and history, which no test server needs. A row is [name, arity, flags,
first key, last key, step, categories, more]; `more` has tips, key specifications (flags, begin_search, find_keys), docs
and subcommands, where there are any.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import redis

from tests.tools.generate_commands import HOST, free_port, own_server, text_of, wait_until_it_listens

if TYPE_CHECKING:
    from collections.abc import Iterator

FILE = Path(__file__).resolve().parents[2] / "hatopo" / "testing" / "commands" / "_commands.json"
LEFT_OUT = ("summary", "complexity", "replaced_by", "arguments", "history", "subcommands")
ABOUT = "COMMAND and COMMAND DOCS of redis-server {version}; made by tests/tools/generate_testing_commands.py"


@contextlib.contextmanager
def own_sentinel() -> Iterator[int]:
    """A redis-sentinel that watches nothing and lives as long as the block; yields its port."""
    port = free_port()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / "sentinel.conf"
        path.write_text(f"port {port}\nbind {HOST}\ndir {directory}\n")
        sentinel = subprocess.Popen(["redis-sentinel", str(path)], stdout=subprocess.DEVNULL)
        try:
            wait_until_it_listens(port)
            yield port
        finally:
            sentinel.terminate()
            sentinel.wait(timeout=10)


def plain(value: Any) -> Any:
    """A reply with text for bytes, and lists for everything that has members."""
    if isinstance(value, dict):
        return {text_of(key): plain(one) for key, one in value.items()}
    if isinstance(value, (list, tuple, set, frozenset)):
        return [plain(one) for one in value]
    return text_of(value) if isinstance(value, bytes) else value


def ask(port: int) -> tuple[list[Any], dict[str, Any], str]:
    """The replies to COMMAND and COMMAND DOCS, and the version."""
    connection = redis.Connection(host=HOST, port=port, protocol=3)
    try:
        replies = []
        for words in (("COMMAND",), ("COMMAND", "DOCS"), ("HELLO", "3")):
            connection.send_command(*words)
            replies.append(plain(connection.read_response()))
    finally:
        connection.disconnect()
    return replies[0], replies[1], replies[2]["version"]


def row_of(told: list[Any], docs: dict[str, Any]) -> list[Any]:
    """The row of a command; sets of words are sorted, so that the file does not change by chance."""
    name, arity, flags, first, last, step, categories, tips, specs, subcommands = told
    described = {key: value for key, value in docs[name].items() if key not in LEFT_OUT}
    if "doc_flags" in described:
        described["doc_flags"] = " ".join(sorted(described["doc_flags"]))
    inner = docs[name].get("subcommands", {})
    more = {
        "tips": tips,
        "keys": [key_spec_of(spec) for spec in specs],
        "docs": described,
        "subcommands": [row_of(child, inner) for child in sorted(subcommands)],
    }
    return [
        name,
        arity,
        " ".join(sorted(flags)),
        first,
        last,
        step,
        " ".join(sorted(category.removeprefix("@") for category in categories)),
        {key: value for key, value in more.items() if value},
    ]


def key_spec_of(spec: dict[str, Any]) -> list[Any]:
    begin, find = ([part["type"], *part["spec"].values()] for part in (spec["begin_search"], spec["find_keys"]))
    return [" ".join(sorted(spec["flags"])), begin, find]


def rows(port: int) -> tuple[dict[str, list[Any]], str]:
    told, docs, version = ask(port)
    return {row[0]: row_of(row, docs) for row in sorted(told)}, version


def render() -> str:
    """The file: a line for each command, shared ones once."""
    with own_server() as server, own_sentinel() as sentinel:
        known, version = rows(server)
        watching, _ = rows(sentinel)
    shared = sorted(name for name in watching if watching[name] == known.get(name))
    own = [row for name, row in watching.items() if name not in shared]

    def dump(value: Any) -> str:
        return json.dumps(value, separators=(",", ":"))

    parts = [
        f'"about":{dump(ABOUT.format(version=version))}',
        '"commands":[\n' + ",\n".join(map(dump, known.values())) + "\n]",
        '"sentinel":[\n' + ",\n".join(map(dump, own)) + "\n]",
        f'"shared":{dump(shared)}',
    ]
    return "{\n" + ",\n".join(parts) + "\n}\n"


def main() -> None:
    parser = argparse.ArgumentParser(description="Write hatopo/testing/commands/_commands.json from what servers say.")
    parser.add_argument("--stdout", action="store_true", help="print the file instead of writing it")
    options = parser.parse_args()
    text = render()
    if options.stdout:
        sys.stdout.write(text)
    else:
        FILE.write_text(text)


if __name__ == "__main__":
    main()
