"""Hello: how sentinels learn of each other and of newer configurations.

Decides what a sentinel says of itself, and whom and what it believes.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from hatopo.testing.sentinel._instances import Address, Master, Peer
    from hatopo.testing.sentinel._server import SentinelServer


class Hello(NamedTuple):
    """What a sentinel says of itself and of a master."""

    address: Address
    run_id: str
    epoch: int
    name: str
    master: Address
    config_epoch: int


def spell(hello: Hello) -> str:
    """A hello as it is published."""
    (ip, port), run_id, epoch, name, (master_ip, master_port), config_epoch = hello
    return f"{ip},{port},{run_id},{epoch},{name},{master_ip},{master_port},{config_epoch}"


def parse(text: str) -> Hello | None:
    """What a message on the hello channel says; None: nothing."""
    words = text.split(",")
    if len(words) != 8:
        return None
    ip, port, run_id, epoch, name, master_ip, master_port, config_epoch = words
    numbers = [
        int(word) if word.isascii() and word.isdigit() else 0 for word in (port, epoch, master_port, config_epoch)
    ]
    return Hello((ip, numbers[0]), run_id, numbers[1], name, (master_ip, numbers[2]), numbers[3])


def hello_text(sentinel: SentinelServer, master: Master) -> str:
    """What this sentinel says of itself and of a master."""
    address, epoch = sentinel.told(master)
    return spell(Hello(sentinel.announced, sentinel.myid, sentinel.epoch, master.name, address, epoch))


def receive(sentinel: SentinelServer, text: str) -> None:
    """Believe what another sentinel says."""
    hello = parse(text)
    master = sentinel.masters.get(hello.name) if hello is not None else None
    if hello is None or master is None:
        return
    peer = _peer_of(master, hello.run_id, hello.address) or _meet(sentinel, master, hello)
    sentinel.raise_epoch(master, hello.epoch)
    if peer is not None and master.config_epoch < hello.config_epoch:
        master.config_epoch = hello.config_epoch
        if hello.master != master.address:
            sentinel.event("+config-update-from", peer)
            sentinel.publish_event("+switch-master", switched(master, hello.master), master)
            sentinel.change_address(master, hello.master)
    if peer is not None:
        peer.last_hello = sentinel.moment


def switched(master: Master, to: Address) -> str:
    """The payload of +switch-master."""
    return f"{master.name} {master.address[0]} {master.address[1]} {to[0]} {to[1]}"


def _peer_of(master: Master, run_id: str, address: Address) -> Peer | None:
    peer = master.sentinels.get(run_id)
    return peer if peer is not None and peer.address == address else None


def _meet(sentinel: SentinelServer, master: Master, hello: Hello) -> Peer | None:
    """A sentinel that was unknown, or has moved."""
    moved = _forget(master, hello.run_id)
    if moved:
        ip, port = hello.address
        sentinel.event("+sentinel-address-switch", master, f"ip {ip} port {port} for {hello.run_id}")
    else:
        other = next((one for one in master.sentinels.values() if one.address == hello.address), None)
        if other is not None:
            sentinel.event("+sentinel-invalid-addr", other)
            for service in sentinel.masters.values():
                _forget(service, other.run_id)
    peer = sentinel.add_peer(master, hello.run_id, hello.address)
    if peer is not None:
        if not moved:
            sentinel.event("+sentinel", peer)
        if moved:
            _moved(sentinel, peer)
        sentinel.save()
    return peer


def _forget(master: Master, run_id: str) -> bool:
    peer = master.sentinels.pop(run_id, None)
    if peer is not None:
        peer.line.release()
    return peer is not None


def _moved(sentinel: SentinelServer, peer: Peer) -> None:
    """Let the same sentinel have its new address with all services."""
    count = 0
    for service in sentinel.masters.values():
        match = service.sentinels.get(peer.run_id)
        if match is None:
            continue
        match.line.close()
        if match is not peer:
            match.address = peer.address
            count += 1
    if count:
        sentinel.event("+sentinel-address-update", peer, f"{count} additional matching instances")
