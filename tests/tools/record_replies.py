"""Writes tests/topology/recorded/<server>-<version>.json: what servers of one version say about the topology.

    python -m tests.tools.record_replies                                   # the redis-server on the PATH
    HATOPO_REDIS_SERVER=.../valkey-server python -m tests.tools.record_replies

Starts a master, a replica and two sentinels, asks them everything that hatopo/topology/_parse.py reads, under both
protocols, and listens to the sentinels during a planned failover and during one after a kill. Replies are stored as
they came, but lines of INFO that tell about this machine, its build or its disk are left out.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import hiredis

from hatopo.testing.real import RealNode, RealSentinelDeployment
from hatopo.topology import CHANNELS
from tests.control import Address, eventually

FOLDER = Path(__file__).resolve().parents[1] / "topology" / "recorded"
SERVICE = "mymaster"
PROTOCOLS = (2, 3)
QUORUM = 2
DOWN_AFTER = 1.5
OF_NODES = ("ROLE", "INFO server", "INFO replication", "INFO persistence")
OF_SENTINELS = (
    f"SENTINEL MASTER {SERVICE}",
    f"SENTINEL GET-MASTER-ADDR-BY-NAME {SERVICE}",
    f"SENTINEL REPLICAS {SERVICE}",
    f"SENTINEL SENTINELS {SERVICE}",
    "SENTINEL MASTERS",
    "SENTINEL MYID",
    "SENTINEL MASTER unknown",
    "SENTINEL GET-MASTER-ADDR-BY-NAME unknown",
    "SENTINEL REPLICAS unknown",
    "SENTINEL SENTINELS unknown",
    "ROLE",
    "INFO server",
)
OF_THIS_MACHINE = {
    "config_file", "executable", "os", "gcc_version", "hz", "configured_hz", "lru_clock", "monotonic_clock",
    "multiplexing_api", "process_id", "process_supervised", "redis_build_id", "redis_git_dirty", "redis_git_sha1",
    "server_time_usec", "atomicvar_api", "io_threads_active", "arch_bits", "uptime_in_days", "uptime_in_seconds",
}  # fmt: skip
OF_ITS_DISK = ("rdb_", "aof_", "current_", "module_")


class Wire:
    """One connection that hands out replies as the reader of hatopo sees them."""

    def __init__(self, address: Address, protocol: int) -> None:
        self._socket = socket.create_connection(address, 5)
        self._reader = hiredis.Reader()
        self.hello = self.ask("HELLO", str(protocol))

    def send(self, *words: str) -> None:
        parts = [b"$%d\r\n%s\r\n" % (len(word), word) for word in (word.encode() for word in words)]
        self._socket.sendall(b"*%d\r\n" % len(parts) + b"".join(parts))

    def ask(self, *words: str) -> Any:
        self.send(*words)
        return self.read()

    def read(self) -> Any:
        while (reply := self._reader.gets()) is False:
            data = self._socket.recv(65536)
            if not data:
                raise ConnectionResetError("the server closed the connection")
            self._reader.feed(data)
        return reply

    def wait_for_ever(self) -> None:
        self._socket.settimeout(None)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes whoever reads
        self._socket.close()


class Listener:
    """Collects what one sentinel publishes, under one protocol."""

    def __init__(self, address: Address, protocol: int) -> None:
        self.heard: list[list[str]] = []
        self._wire = Wire(address, protocol)
        self._wire.send("SUBSCRIBE", *CHANNELS)
        for _ in CHANNELS:
            assert self._wire.read()[0] == b"subscribe"
        self._wire.wait_for_ever()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        while True:
            try:
                kind, channel, payload = self._wire.read()
            except OSError:
                return
            assert kind == b"message"
            self.heard.append([channel.decode(), payload.decode()])

    def close(self) -> list[list[str]]:
        """What was heard until now, and no more."""
        heard = [*self.heard]
        self._wire.close()
        return heard

    def count(self, channel: str) -> int:
        return sum(1 for one, _ in self.heard if one == channel)


def plain(reply: Any) -> Any:
    """A reply as JSON can hold it: bytes as text, an error as {"!error": its text}."""
    if isinstance(reply, bytes):
        return reply.decode()
    if isinstance(reply, Exception):
        return {"!error": str(reply)}
    if isinstance(reply, dict):
        return {plain(key): plain(value) for key, value in reply.items()}
    return [plain(one) for one in reply] if isinstance(reply, list) else reply


def without_machine(reply: Any) -> Any:
    """A text of INFO without the lines that tell about this machine."""
    names = ((line.partition(":")[0], line) for line in reply.splitlines(keepends=True))
    return "".join(line for name, line in names if name not in OF_THIS_MACHINE and not name.startswith(OF_ITS_DISK))


def questions(nodes: dict[str, Address], when: str) -> Iterator[dict[str, Any]]:
    """Asks every node everything; `when` says at which moment of the recording."""
    for protocol in PROTOCOLS:
        for node, address in nodes.items():
            wire = Wire(address, protocol)
            where = {"when": when, "protocol": protocol, "node": node}
            yield {**where, "command": "HELLO", "reply": plain(wire.hello)}
            for command in OF_SENTINELS if node == "sentinel" else OF_NODES:
                reply = plain(wire.ask(*command.split(" ")))
                if command.startswith("INFO"):
                    reply = without_machine(reply)
                yield {**where, "command": command, "reply": reply}
            wire.close()


def events(servers: RealSentinelDeployment, what: str, cause: Callable[[], Any]) -> Iterator[dict[str, Any]]:
    """Listens to every sentinel under both protocols while `cause` makes them switch to another master."""
    old = servers.master()
    listeners = [
        (number, protocol, Listener(address, protocol))
        for number, address in enumerate(servers.sentinels)
        for protocol in PROTOCOLS
    ]
    cause()
    new = servers.wait_switched(old, 60)
    eventually(lambda: all(one.count("+switch-master") for *_, one in listeners), 30, "every sentinel's word")
    eventually(lambda: settled(servers, old), 60, "the state after the switch")
    for number, protocol, listener in listeners:
        where = {"what": what, "sentinel": number, "protocol": protocol}
        yield {**where, "old": old.address, "new": new.address, "words": listener.close()}


def replicated(servers: RealSentinelDeployment) -> bool:
    """Whether the first sentinel has heard that the replica has got something."""
    (entry,) = servers.sentinel_nodes[0].execute("SENTINEL", "REPLICAS", SERVICE)
    return int(entry[entry.index("slave-repl-offset") + 1]) > 0


def settled(servers: RealSentinelDeployment, old: RealNode) -> bool:
    """Whether the sentinels see the old master as what it is now: a replica that follows, or one that is down."""
    if old.running:
        return old.role() == "slave" and servers._agreed()
    entries = [sentinel.execute("SENTINEL", "REPLICAS", SERVICE) for sentinel in servers.sentinel_nodes]
    return all("s_down" in entry[0][entry[0].index("flags") + 1] for entry in entries)


def record() -> Path:
    servers = RealSentinelDeployment(replicas=1, sentinels=2, name=SERVICE, quorum=QUORUM, down_after=DOWN_AFTER)
    with servers:
        master, replica = servers.nodes
        nodes = {"master": master.address, "replica": replica.address, "sentinel": servers.sentinels[0]}
        eventually(lambda: replicated(servers), 60, "an offset that a sentinel has heard of")
        replies = list(questions(nodes, "calm"))
        words = list(events(servers, "failover", servers.failover))
        words += events(servers, "kill", servers.kill_master)
        survivor = servers.master().address
        replies += questions({"master": survivor, "sentinel": servers.sentinels[0]}, "killed")
    about = next(row["reply"] for row in replies if row["command"] == "HELLO" and row["protocol"] == 3)
    head = {
        "server": about["server"],
        "version": about["version"],
        "service": SERVICE,
        "quorum": QUORUM,
        "down_after": DOWN_AFTER,
        "nodes": {**nodes, "sentinels": servers.sentinels, "survivor": survivor},
    }
    path = FOLDER / f"{head['server']}-{head['version']}.json"
    path.write_text(document(head, {"replies": replies, "events": words}))
    return path


def document(head: dict[str, Any], tables: dict[str, list[dict[str, Any]]]) -> str:
    """JSON with one line for each row, so that two recordings can be compared."""
    parts = [f"{json.dumps(key)}: {json.dumps(value)}" for key, value in head.items()]
    for name, rows in tables.items():
        parts.append(f"{json.dumps(name)}: [\n" + ",\n".join(json.dumps(row) for row in rows) + "\n]")
    return "{\n" + ",\n".join(parts) + "\n}\n"


if __name__ == "__main__":
    print(record())
