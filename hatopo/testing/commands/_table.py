"""The commands of Redis 7.0.15 as facts: decides which command a request names, and refuses what is none.

The facts are in _commands.json, as a real server and a real sentinel told them; nothing here knows what a command does.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal, TypedDict, cast

from hatopo.testing._reply import ErrorReply

__all__ = [
    "SENTINEL_TABLE",
    "TABLE",
    "Command",
    "KeySpec",
    "Table",
    "c_string",
    "has_arity",
    "lookup",
]

MOST_SPELLINGS: Final = 4096
"""How many spellings of names a table remembers; a client that mixes cases at random cannot fill the memory."""


Begin = tuple[Literal["index"], int] | tuple[Literal["keyword"], str, int] | tuple[Literal["unknown"]]
"""Where keys begin: at an argument; behind a word, looked for from an argument on (negative: backwards); or unknown."""
Find = tuple[Literal["range", "keynum"], int, int, int] | tuple[Literal["unknown"]]
"""Which arguments then are keys.

    range    last key (relative to the first, or if negative to the end), step, limit (2: half of the rest)
    keynum   the argument with their number and the first key (both relative to the begin), step
"""


@dataclass(frozen=True, slots=True)
class KeySpec:
    """One place in which a command has keys, and what it does to them."""

    flags: frozenset[str]
    begin: Begin
    find: Find


@dataclass(frozen=True, slots=True, eq=False)
class Command:
    """One command or subcommand ("client|list"), as COMMAND INFO and COMMAND DOCS describe it.

    `subcommands` goes by the second word alone ("list"). `docs` has no prose, no arguments and no history; its
    "doc_flags" are words between spaces.
    """

    name: str
    arity: int
    flags: frozenset[str]
    first: int
    last: int
    step: int
    categories: frozenset[str]
    tips: tuple[str, ...]
    key_specs: tuple[KeySpec, ...]
    subcommands: Mapping[str, Command]
    docs: Mapping[str, str]


class Table(Mapping[str, Command]):
    """The commands of one kind of server by their lower-case names, without subcommands."""

    __slots__ = ("_kind", "spellings", "sub_spellings")

    def __init__(self, kind: Literal["server", "sentinel"]) -> None:
        self._kind = kind
        self.spellings: dict[bytes, Command] = {}
        self.sub_spellings: dict[tuple[bytes, bytes], Command] = {}

    def __getitem__(self, name: str) -> Command:
        return _load()[self._kind][name]

    def __iter__(self) -> Iterator[str]:
        return iter(_load()[self._kind])

    def __len__(self) -> int:
        return len(_load()[self._kind])

    def named(self, name: bytes) -> Command | None:
        """The command of a full name in any case: b"get", b"CLIENT|LIST"."""
        words = name.split(b"|")
        command = self.of_request(words) if len(words) <= 2 else None
        return None if command is None or (len(words) == 2) != ("|" in command.name) else command

    def of_request(self, args: Sequence[bytes]) -> Command | None:
        """The command or subcommand that a request names, whatever else is wrong with it."""
        word = args[0]
        command = self.spellings.get(word)
        if command is None:
            command = self.get(_lower(word))
            if command is None:
                return None
            if len(self.spellings) >= MOST_SPELLINGS:
                self.spellings.clear()
            self.spellings[word] = command
        if not command.subcommands or len(args) == 1:
            return command
        pair = (word, args[1])
        found = self.sub_spellings.get(pair)
        if found is None:
            found = command.subcommands.get(_lower(args[1]))
            if found is None:
                return None
            if len(self.sub_spellings) >= MOST_SPELLINGS:
                self.sub_spellings.clear()
            self.sub_spellings[pair] = found
        return found


def has_arity(command: Command, count: int) -> bool:
    """Whether a command takes that many arguments, its own name included."""
    arity = command.arity
    return count == arity or (arity < 0 and count >= -arity)


def c_string(word: bytes) -> bytes:
    """What a C function sees of an argument: it ends before the first zero."""
    return word.partition(b"\0")[0]


def _lower(word: bytes) -> str:
    return word.lower().decode("latin-1")


def _refuse_unknown(args: Sequence[bytes], table: Table) -> ErrorReply:
    """The words for a request that names no command, bytes of any kind on one line."""
    first = c_string(args[0])
    container = table.named(args[0])
    if container is not None and container.subcommands:
        text = b"unknown subcommand '%b'. Try %b HELP." % (c_string(args[1])[:128], first.upper())
    else:
        shown = b""
        for word in args[1:]:
            if len(shown) >= 128:
                break
            shown += b"'%b' " % c_string(word)[: 128 - len(shown)]
        text = b"unknown command '%b', with args beginning with: %b" % (first[:128], shown)
    line = text.replace(b"\r", b" ").replace(b"\n", b" ")
    return ErrorReply("ERR " + line.decode("utf-8", "surrogateescape"))


class _More(TypedDict, total=False):
    tips: list[str]
    keys: list[tuple[str, list[str | int], list[str | int]]]
    docs: dict[str, str]
    subcommands: list[_Row]


_Row = tuple[str, int, str, int, int, int, str, _More]


class _File(TypedDict):
    commands: list[_Row]
    sentinel: list[_Row]
    shared: list[str]


def _spec(flags: str, begin: list[str | int], find: list[str | int]) -> KeySpec:
    return KeySpec(frozenset(flags.split()), cast("Begin", tuple(begin)), cast("Find", tuple(find)))


def _command(row: _Row) -> Command:
    name, arity, flags, first, last, step, categories, more = row
    children = [_command(child) for child in more.get("subcommands", ())]
    return Command(
        name,
        arity,
        frozenset(flags.split()),
        first,
        last,
        step,
        frozenset(categories.split()),
        tuple(more.get("tips", ())),
        tuple(_spec(*spec) for spec in more.get("keys", ())),
        {child.name.partition("|")[2]: child for child in children},
        more.get("docs", {}),
    )


@functools.cache
def _load() -> dict[str, Mapping[str, Command]]:
    """The commands of both kinds of server; read when somebody first asks, so that the import stays cheap."""
    data = cast("_File", json.loads(Path(__file__).with_name("_commands.json").read_bytes()))
    server = {row[0]: _command(row) for row in data["commands"]}
    sentinel = {name: server[name] for name in data["shared"]}
    sentinel.update((row[0], _command(row)) for row in data["sentinel"])
    return {"server": server, "sentinel": dict(sorted(sentinel.items()))}


TABLE: Final = Table("server")
"""What a data node knows."""
SENTINEL_TABLE: Final = Table("sentinel")
"""What a sentinel knows; commands that both have are the same objects."""


def lookup(args: Sequence[bytes], table: Table = TABLE) -> Command:
    """The command or subcommand of a request, which has one word at least.

    Raises ErrorReply if there is no such command, or if it takes another number of arguments.
    """
    word = args[0]
    command = table.spellings.get(word)
    count = len(args)
    if command is None:
        command = table.of_request(args)
    elif command.subcommands and count > 1:
        command = table.sub_spellings.get((word, args[1])) or table.of_request(args)
    if command is None:
        raise _refuse_unknown(args, table)
    arity = command.arity
    if count != arity and (arity > 0 or count < -arity):
        raise ErrorReply(f"ERR wrong number of arguments for '{command.name}' command")
    return command
