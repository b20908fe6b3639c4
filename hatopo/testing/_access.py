"""Who may come in: the logins of a deployment that has users, and the certificate of one that speaks TLS.

Both backends use the same. Replicas and sentinels have what they need on data nodes, and no more (redis.io: ACL rules
for Sentinel and replicas).
"""

from __future__ import annotations

import ssl
from dataclasses import dataclass
from pathlib import Path

ADMIN = ("admin", "admin-secret")
"""The login of `control`, and of sentinels among each other."""
REPLICA = ("replica", "replica-secret")
SENTINEL = ("sentinel", "sentinel-secret")
DEFAULT_OFF = ("user default off", f"user {ADMIN[0]} on >{ADMIN[1]} ~* &* +@all")
_FOR_SENTINELS = (
    "allchannels +ping +info +role +publish +subscribe +client|setname +client|kill "
    "+multi +exec +slaveof +config|rewrite +script|kill"
)
NODE_USERS = (
    f"user {REPLICA[0]} on >{REPLICA[1]} +psync +replconf +ping",
    f"user {SENTINEL[0]} on >{SENTINEL[1]} {_FOR_SENTINELS}",
)


@dataclass(frozen=True, slots=True)
class TlsFiles:
    """The files (PEM) of a server that speaks TLS only."""

    cert_file: Path
    key_file: Path
    ca_file: Path

    def __post_init__(self) -> None:
        """Make the paths absolute: processes run in directories of their own."""
        for name in ("cert_file", "key_file", "ca_file"):
            object.__setattr__(self, name, Path(getattr(self, name)).resolve())

    def settings(self) -> dict[str, str]:
        """What makes a process present this certificate, and ask nobody for one."""
        return {
            "tls-cert-file": str(self.cert_file),
            "tls-key-file": str(self.key_file),
            "tls-ca-cert-file": str(self.ca_file),
            "tls-auth-clients": "no",
            "tls-replication": "yes",
        }

    def context(self) -> ssl.SSLContext:
        """What makes an embedded server do the same."""
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(self.cert_file, self.key_file)
        return context
