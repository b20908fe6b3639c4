"""Which commands are the engine's: those of fakeredis that are about data, with our corrections, and ours."""

from __future__ import annotations

import functools

from hatopo.testing import (
    _engine_blocking,
    _engine_geo,
    _engine_groups,
    _engine_keys,
    _engine_lists,
    _engine_scripts,
    _engine_sets,
    _engine_streams,
    _engine_strings,
    _engine_zsets,
)
from hatopo.testing._commands import TABLE
from hatopo.testing._engine_adapter import SUPPORTED_COMMANDS
from hatopo.testing._engine_context import NATIVE

__all__ = ["MODULES", "is_ours"]

MODULES = (
    _engine_blocking,
    _engine_geo,
    _engine_groups,
    _engine_keys,
    _engine_lists,
    _engine_scripts,
    _engine_sets,
    _engine_streams,
    _engine_strings,
    _engine_zsets,
)
"""Those that register ours."""
_ABOUT_DATA = frozenset(
    ("bitmap", "geo", "hash", "hyperloglog", "keyspace", "list", "set", "sortedset", "stream", "string")
)


@functools.cache
def is_ours(name: str) -> bool:
    """Whether the engine runs this command, in lower case and without subcommand."""
    command = TABLE.get(name)
    if name in NATIVE or command is None:
        return name in NATIVE
    return name in SUPPORTED_COMMANDS and name != "swapdb" and not _ABOUT_DATA.isdisjoint(command.categories)
