"""What the command COMMAND answers about the table: the shape of its replies, and nothing about other commands.

Where Redis answers in the random order of a hash table (commands, subcommands) the order here is that of the names.
Left out is the prose of the real server: the notes of COMMAND INFO, and of COMMAND DOCS summary, complexity and
replacement; and arguments and history.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final

from hatopo.testing import _glob
from hatopo.testing._reply import ErrorReply, Members, Reply, Status
from hatopo.testing.commands._keys import Key, keys_of
from hatopo.testing.commands._table import TABLE, Command, KeySpec, Table, c_string, lookup

__all__ = ["CATEGORIES", "command_reply"]

FLAGS: Final = (
    *("write", "readonly", "denyoom", "module", "admin", "pubsub", "noscript", "blocking", "loading", "stale"),
    *("skip_monitor", "skip_slowlog", "asking", "fast", "no_auth", "no_mandatory_keys", "no_async_loading"),
    *("no_multi", "movablekeys", "allow_busy"),
)
CATEGORIES: Final = (
    *("keyspace", "read", "write", "set", "sortedset", "list", "hash", "string", "bitmap", "hyperloglog", "geo"),
    *("stream", "pubsub", "admin", "fast", "slow", "blocking", "dangerous", "connection", "transaction", "scripting"),
)
KEY_FLAGS: Final = (
    *("RO", "RW", "OW", "RM", "access", "update", "insert", "delete", "not_key", "incomplete", "variable_flags"),
)
SPEC_FIELDS: Final[dict[str, tuple[str, ...]]] = {
    "index": ("index",),
    "keyword": ("keyword", "startfrom"),
    "range": ("lastkey", "keystep", "limit"),
    "keynum": ("keynumidx", "firstkey", "keystep"),
    "unknown": (),
}
DOC_FLAGS: Final = ("deprecated", "syscmd")


def command_reply(args: Sequence[bytes], table: Table = TABLE) -> Reply:
    """The answer to COMMAND and its subcommands; `args` begins with COMMAND. Raises ErrorReply."""
    return _ANSWERS[lookup(args, table).name](args[2:], table)


def _all(_: Sequence[bytes], table: Table) -> Reply:
    return [_info(command) for command in table.values()]


def _some(names: Sequence[bytes], table: Table) -> Reply:
    if not names:
        return _all(names, table)
    found = [table.named(name) for name in names]
    return [None if command is None else _info(command) for command in found]


def _count(_: Sequence[bytes], table: Table) -> Reply:
    return len(table)


def _docs_of(names: Sequence[bytes], table: Table) -> Reply:
    found = map(table.named, names) if names else iter(table.values())
    return {command.name: _docs(command) for command in found if command is not None}


def _keys(args: Sequence[bytes], table: Table) -> Reply:
    return [key.name for key in _keys_of_request(args, table)]


def _keys_and_flags(args: Sequence[bytes], table: Table) -> Reply:
    return [[key.name, _statuses(key.flags, KEY_FLAGS)] for key in _keys_of_request(args, table)]


def _keys_of_request(args: Sequence[bytes], table: Table) -> list[Key]:
    command = table.of_request(args)
    if command is None:
        raise ErrorReply("ERR Invalid command specified")
    return keys_of(command, args)


def _list(options: Sequence[bytes], table: Table) -> Reply:
    chosen = _filter(options)
    return [command.name for command in _with_subcommands(table.values()) if chosen(command)]


def _filter(options: Sequence[bytes]) -> Callable[[Command], bool]:
    """What the options of COMMAND LIST let pass."""
    if not options:
        return lambda _: True
    if len(options) == 3 and c_string(options[0]).lower() == b"filterby":
        value = options[2]
        match c_string(options[1]).lower():
            case b"module":
                return lambda _: False  # there are no modules
            case b"aclcat":
                category = c_string(value).lower().decode("latin-1")
                return lambda command: category in command.categories
            case b"pattern":
                return lambda command: _glob.matches(value, command.name.encode(), ignore_case=True)
    raise ErrorReply("ERR syntax error")


def _with_subcommands(commands: Iterable[Command]) -> Iterator[Command]:
    for command in commands:
        yield command
        yield from command.subcommands.values()


_ANSWERS: Final[dict[str, Callable[[Sequence[bytes], Table], Reply]]] = {
    "command": _all,
    "command|count": _count,
    "command|docs": _docs_of,
    "command|getkeys": _keys,
    "command|getkeysandflags": _keys_and_flags,
    "command|info": _some,
    "command|list": _list,
}


@functools.cache
def _info(command: Command) -> Reply:
    """The ten facts of a command; built once, as clients ask for all of them whenever they start."""
    return [
        command.name,
        command.arity,
        _statuses(command.flags, FLAGS),
        command.first,
        command.last,
        command.step,
        Members([Status(f"@{word}") for word in CATEGORIES if word in command.categories]),
        Members(command.tips),
        Members([_key_spec(spec) for spec in command.key_specs]),
        [_info(child) for child in command.subcommands.values()] if command.subcommands else Members(),
    ]


def _key_spec(spec: KeySpec) -> Reply:
    reply: dict[Reply, Reply] = {"flags": _statuses(spec.flags, KEY_FLAGS)}
    for name, part in (("begin_search", spec.begin), ("find_keys", spec.find)):
        values: Sequence[int | str] = part[1:]
        shown: dict[Reply, Reply] = dict(zip(SPEC_FIELDS[part[0]], values, strict=True))
        reply[name] = {"type": part[0], "spec": shown}
    return reply


@functools.cache
def _docs(command: Command) -> Reply:
    reply: dict[Reply, Reply] = dict(command.docs.items())
    if "doc_flags" in command.docs:
        reply["doc_flags"] = _statuses(frozenset(command.docs["doc_flags"].split()), DOC_FLAGS)
    if command.subcommands:
        reply["subcommands"] = {child.name: _docs(child) for child in command.subcommands.values()}
    return reply


def _statuses(words: frozenset[str], order: Sequence[str]) -> Reply:
    """Flags in the order in which Redis has them."""
    return Members([Status(word) for word in order if word in words])
