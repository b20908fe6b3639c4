"""hatopo.testing: Redis servers for tests, in the test's own process.

    with SentinelDeployment(replicas=2, sentinels=3) as d:
        client = hatopo.sentinel(d.name, d.sentinels)
        d.kill_master()

Servers that really listen on the loopback interface and speak RESP2 and RESP3: any client connects, in any colour or
from another process. They live on one daemon thread; data commands come from fakeredis. They fail on command, in ways
in which no real process can be asked to, and their time runs as fast as a test wants.

Needs the extra `hatopo[testing]`, which is imported with the first name that is used. This room imports nothing from
the others: who judges does not borrow the answers.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hatopo.testing._access import TlsFiles
    from hatopo.testing._control import Control, Event, ServerError, Unsupported
    from hatopo.testing._deployments import Node, Replication
    from hatopo.testing._handles import NodeHandle, SentinelHandle
    from hatopo.testing._sentinel_set import SentinelDeployment
    from hatopo.testing.real import RealNode, RealReplication, RealSentinelDeployment
    from hatopo.testing.server._faults import Fault
    from hatopo.testing.world._clock import Clock, ManualClock, RealClock, ScaledClock
    from hatopo.testing.world._world import CLIENTS

__all__ = [
    "CLIENTS",
    "Clock",
    "Control",
    "Event",
    "Fault",
    "ManualClock",
    "Node",
    "NodeHandle",
    "RealClock",
    "RealNode",
    "RealReplication",
    "RealSentinelDeployment",
    "Replication",
    "ScaledClock",
    "SentinelDeployment",
    "SentinelHandle",
    "ServerError",
    "TlsFiles",
    "Unsupported",
]

_BEHIND = {
    "_access": ("TlsFiles",),
    "world._clock": ("Clock", "ManualClock", "RealClock", "ScaledClock"),
    "_control": ("Control", "Event", "ServerError", "Unsupported"),
    "_deployments": ("Node", "Replication"),
    "_sentinel_set": ("SentinelDeployment",),
    "server._faults": ("Fault",),
    "_handles": ("NodeHandle", "SentinelHandle"),
    "world._world": ("CLIENTS",),
    "real": ("RealNode", "RealReplication", "RealSentinelDeployment"),
}
_MODULES = {name: module for module, names in _BEHIND.items() for name in names}


def __getattr__(name: str) -> Any:
    """Open the module behind a public name when it is used: pytest loads this room's plugin in every run."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        found = getattr(importlib.import_module(f"{__name__}.{_MODULES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name in ("fakeredis", "lupa"):
            raise ImportError(f"hatopo.testing.{name} needs {error.name}: pip install 'hatopo[testing]'") from error
        raise
    globals()[name] = found
    return found
