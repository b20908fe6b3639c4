"""Which commands there are: those of fakeredis that answer as Redis 7.0.15 does, and all of ours."""

from __future__ import annotations

from hatopo.testing import (
    _engine_bits,
    _engine_functions,
    _engine_geo,
    _engine_groups,
    _engine_hashes,
    _engine_keys,
    _engine_lists,
    _engine_ranges,
    _engine_scan,
    _engine_scripts,
    _engine_sets,
    _engine_sort,
    _engine_streams,
    _engine_strings,
    _engine_xinfo,
    _engine_zsetops,
    _engine_zsets,
)

__all__ = ["ADAPTED", "MODULES"]

ADAPTED = frozenset({"bitcount", "bitpos", "llen", "lrem", "xadd", "xtrim"})
"""The commands that fakeredis answers."""
MODULES = (
    _engine_bits,
    _engine_functions,
    _engine_geo,
    _engine_groups,
    _engine_hashes,
    _engine_keys,
    _engine_lists,
    _engine_ranges,
    _engine_scan,
    _engine_scripts,
    _engine_sets,
    _engine_sort,
    _engine_streams,
    _engine_strings,
    _engine_xinfo,
    _engine_zsetops,
    _engine_zsets,
)
"""Those that register ours."""
