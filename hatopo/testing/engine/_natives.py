"""Which commands are the engine's: those of fakeredis that are about data, with our corrections, and ours."""

from __future__ import annotations

import functools

from hatopo.testing.commands import TABLE
from hatopo.testing.engine import _blocking as _engine_blocking
from hatopo.testing.engine import _geo as _engine_geo
from hatopo.testing.engine import _groups as _engine_groups
from hatopo.testing.engine import _keys as _engine_keys
from hatopo.testing.engine import _lists as _engine_lists
from hatopo.testing.engine import _scripts as _engine_scripts
from hatopo.testing.engine import _sets as _engine_sets
from hatopo.testing.engine import _streams as _engine_streams
from hatopo.testing.engine import _strings as _engine_strings
from hatopo.testing.engine import _zsets as _engine_zsets
from hatopo.testing.engine._adapter import SUPPORTED_COMMANDS
from hatopo.testing.engine._context import NATIVE

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
