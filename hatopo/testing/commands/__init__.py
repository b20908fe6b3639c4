"""The door to the table of commands: what commands there are, what a request names, and which keys it has."""

from __future__ import annotations

from hatopo.testing.commands._keys import Key, find_keys, has_keys, keys_of
from hatopo.testing.commands._replies import CATEGORIES, command_reply
from hatopo.testing.commands._table import SENTINEL_TABLE, TABLE, Command, KeySpec, Table, lookup

__all__ = [
    "CATEGORIES",
    "SENTINEL_TABLE",
    "TABLE",
    "Command",
    "Key",
    "KeySpec",
    "Table",
    "command_reply",
    "find_keys",
    "has_keys",
    "keys_of",
    "lookup",
]
