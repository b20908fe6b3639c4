"""What of a sentinel outlives its process: what a real one has written to sentinel.conf.

Decides what is kept and how it is read again; when it is written, those who change something decide.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hatopo.testing.sentinel._instances import Address, Master
    from hatopo.testing.sentinel._server import SentinelServer


@dataclass(frozen=True, slots=True)
class SavedMaster:
    """A service as it is written down."""

    name: str
    address: Address
    quorum: int
    down_after: int
    failover_timeout: int
    parallel_syncs: int
    auth_user: str | None
    auth_pass: str | None
    reboot_down_after: int
    renamed: tuple[tuple[str, str], ...]
    config_epoch: int
    leader_epoch: int
    replicas: tuple[Address, ...]
    sentinels: tuple[tuple[str, Address], ...]


@dataclass(frozen=True, slots=True)
class Saved:
    """A configuration file."""

    masters: tuple[SavedMaster, ...] = ()
    epoch: int = 0
    announce_ip: str | None = None
    announce_port: int = 0
    sentinel_user: str | None = None
    sentinel_pass: str | None = None
    resolve_hostnames: bool = False
    announce_hostnames: bool = False


def save(sentinel: SentinelServer) -> Saved:
    """What would be in the file now."""
    return Saved(
        tuple(_save_master(master) for master in sentinel.masters.values()),
        sentinel.epoch,
        sentinel.announce_ip,
        sentinel.announce_port,
        sentinel.sentinel_user,
        sentinel.sentinel_pass,
        sentinel.resolve_hostnames,
        sentinel.announce_hostnames,
    )


def _save_master(master: Master) -> SavedMaster:
    current = master.current_address
    return SavedMaster(
        master.name,
        current,
        master.quorum,
        master.down_after,
        master.failover_timeout,
        master.parallel_syncs,
        master.auth_user,
        master.auth_pass,
        master.reboot_down_after,
        tuple(master.renamed.items()),
        master.config_epoch,
        master.leader_epoch,
        tuple(master.address if one.address == current else one.address for one in master.replicas.values()),
        tuple((peer.run_id, peer.address) for peer in master.sentinels.values()),
    )


def load(sentinel: SentinelServer, saved: Saved) -> None:
    """Begin with what was written down."""
    sentinel.epoch = saved.epoch
    sentinel.announce_ip, sentinel.announce_port = saved.announce_ip, saved.announce_port
    sentinel.sentinel_user, sentinel.sentinel_pass = saved.sentinel_user, saved.sentinel_pass
    sentinel.resolve_hostnames, sentinel.announce_hostnames = saved.resolve_hostnames, saved.announce_hostnames
    for one in saved.masters:
        master = sentinel.add_master(one.name, one.address, one.quorum)
        master.down_after, master.failover_timeout = one.down_after, one.failover_timeout
        master.parallel_syncs = one.parallel_syncs
        master.auth_user, master.auth_pass = one.auth_user, one.auth_pass
        master.reboot_down_after, master.renamed = one.reboot_down_after, dict(one.renamed)
        master.config_epoch, master.leader_epoch = one.config_epoch, one.leader_epoch
        sentinel.epoch = max(sentinel.epoch, one.config_epoch)
        for address in one.replicas:
            sentinel.add_replica(master, address)
        for run_id, address in one.sentinels:
            sentinel.add_peer(master, run_id, address)
