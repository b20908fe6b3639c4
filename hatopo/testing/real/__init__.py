"""hatopo.testing over real processes: redis-server and redis-sentinel with the handles of the embedded servers.

The same test runs on both. What only an embedded server can do raises `Unsupported`. The processes listen on free
ports of the loopback interface, and nothing is left of them when their `with` block ends.
"""

from __future__ import annotations

from hatopo.testing._access import TlsFiles
from hatopo.testing.real._deployment import RealSentinelDeployment
from hatopo.testing.real._nodes import RealNode
from hatopo.testing.real._process import available, server_version, tls_supported
from hatopo.testing.real._proxy import Proxy
from hatopo.testing.real._replication import RealReplication
from hatopo.testing.real._sentinels import RECORDER, RealSentinel

__all__ = [
    "RECORDER",
    "Proxy",
    "RealNode",
    "RealReplication",
    "RealSentinel",
    "RealSentinelDeployment",
    "TlsFiles",
    "available",
    "server_version",
    "tls_supported",
]
