"""The real deployments of hatopo.testing, and a sentinel that watches alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatopo.testing.real import RealSentinel, RealSentinelDeployment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from tests.control import Address

__all__ = ["RealSentinel", "RealSentinelDeployment", "SentinelProcess", "SentinelSet"]

SentinelSet = RealSentinelDeployment


class SentinelProcess(RealSentinel):
    """One sentinel that watches one service; settings as in its configuration file."""

    def __init__(
        self, service: str, master: Address, settings: Mapping[str, int], quorum: int, users: Sequence[str] = ()
    ) -> None:
        lines = [f"sentinel monitor {service} {master[0]} {master[1]} {quorum}"]
        lines += [f"sentinel {name} {service} {value}" for name, value in settings.items()]
        super().__init__(lines=lines, users=users)
