"""Replies about the topology, read into values. One place that knows how servers spell them.

Accepts both protocols' shapes (flat lists of RESP2, maps of RESP3). A reply that makes no sense is None, never
an exception: whoever asked treats it as no answer.
"""

from __future__ import annotations

from dataclasses import dataclass

from hatopo.address import Address
from hatopo.errors import OptionError


@dataclass(frozen=True, slots=True)
class MasterReport:
    """What one sentinel says about the master of a service.

    Attributes:
        address: where writes should go.
        run_id: the master's, or "" where the sentinel does not know it (yet).
        epoch: the config epoch of the statement (sentinel.c).
        promoting: a failover is under way: this sentinel already names the promoted replica.
    """

    address: Address
    run_id: str
    epoch: int
    promoting: bool = False


def text(value: object) -> str:
    """A reply's string, whether it came as bytes or text."""
    return value.decode("utf-8", "replace") if isinstance(value, bytes) else str(value)


def pairs(reply: object) -> dict[str, object]:
    """A map, whether it came as one or as a flat list."""
    if isinstance(reply, dict):
        return {text(key): value for key, value in reply.items()}
    if isinstance(reply, (list, tuple)) and len(reply) % 2 == 0:
        return {text(key): value for key, value in zip(reply[::2], reply[1::2], strict=True)}
    return {}


def parse_endpoint(reply: object) -> Address | None:
    """The reply to SENTINEL GET-MASTER-ADDR-BY-NAME."""
    if not isinstance(reply, (list, tuple)) or len(reply) != 2:
        return None
    return _address(reply[0], reply[1])


def parse_master(state: object, endpoint: object) -> MasterReport | None:
    """What SENTINEL MASTER and SENTINEL GET-MASTER-ADDR-BY-NAME, asked together, say.

    While the leader reconfigures after a promotion, the second already names the new master and the first
    still the old one (sentinelGetCurrentMasterAddress, sentinel.c): the second counts.
    """
    fields = pairs(state)
    listed = _address(fields.get("ip"), fields.get("port"))
    current = parse_endpoint(endpoint)
    address = current or listed
    if address is None:
        return None
    same = listed == address
    run_id = text(fields.get("runid", "")) if same else ""
    return MasterReport(address, run_id, _number(fields.get("config-epoch")), promoting=bool(listed) and not same)


def parse_names(reply: object) -> tuple[str, ...]:
    """The service names in a reply to SENTINEL MASTERS."""
    if not isinstance(reply, (list, tuple)):
        return ()
    found = (pairs(entry).get("name") for entry in reply)
    return tuple(text(name) for name in found if name is not None)


def _address(host: object, port: object) -> Address | None:
    if host is None or port is None:
        return None
    try:
        return Address.tcp(text(host), text(port))
    except OptionError:
        return None


def _number(value: object) -> int:
    try:
        return int(text(value))
    except ValueError:
        return 0
