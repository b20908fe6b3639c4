"""Sentinels: what watches the embedded data nodes, or real ones, and replaces a master that fails."""

from hatopo.testing._control import Event
from hatopo.testing.sentinel._server import SentinelServer

__all__ = ["Event", "SentinelServer"]
