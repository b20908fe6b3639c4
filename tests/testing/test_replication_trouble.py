"""Replication of the embedded data nodes under whatever happens: in the end, all have what their master has."""

from __future__ import annotations

import random

import pytest

from tests.testing.replication_lab import Lab, Node, lab

__all__ = ["lab"]


class _Trouble:
    """Does to three nodes whatever comes into the mind of a generator of random numbers."""

    def __init__(self, lab: Lab, seed: int) -> None:
        self._lab, self._random = lab, random.Random(seed)
        self.nodes = lab.set_up(2, repl_backlog_size=16384, repl_timeout=5)
        self.master = self.nodes[0]

    def write(self) -> None:
        key = f"key-{self._random.randrange(5)}"
        size = self._random.choice([1, 5000])
        command = self._random.choice(
            [
                ("SET", key, "x" * size),
                ("DEL", key),
                ("FLUSHALL",),
                ("SWAPDB", 0, 1),
                ("SELECT", self._random.randrange(2)),
                ("SET", key, "soon", "PX", 3000),
                ("PUBLISH", "c", "m"),
            ]
        )
        self.master("DEL", "list") if self._random.random() < 0.1 else self.master("RPUSH", "list", size)
        self.master(*command)

    def change_roles(self) -> None:
        new = self._random.choice(self.nodes)
        new("REPLICAOF", "NO", "ONE")
        self.master = new
        for node in self.nodes:
            if node is not new and self._random.random() < 0.8:
                node("REPLICAOF", "127.0.0.1", new.port)

    def break_something(self) -> None:
        lab, one, other = self._lab, *self._random.sample(self.nodes, 2)
        what = self._random.randrange(7)
        if what == 0:
            lab.cut(one, other)
        elif what == 1:
            lab.heal()
        elif what == 2:
            lab.run(one.replication.break_link)
        elif what == 3:
            lab.run(lambda: one.replication.set_lag(self._random.random() * 3, self._random.randrange(3)))
        elif what == 4:
            lab.restart(one)
        elif what == 5:
            lab.run(one.replication.freeze)
        else:
            self.master("FAILOVER", "TIMEOUT", 1000)
            lab.pass_time(5)
            self.master("FAILOVER", "ABORT")

    def end(self) -> None:
        """Let all become well, with one of them as the master."""
        self._lab.heal()
        for node in self.nodes:
            self._lab.run(node.replication.set_lag)
        self._lab.pass_time(10)
        self.master("FAILOVER", "ABORT")
        self.master("REPLICAOF", "NO", "ONE")
        for node in self.nodes:
            if node is not self.master:
                node("REPLICAOF", "127.0.0.1", self.master.port)
        self._lab.pass_time(10)

    def content(self, node: Node) -> list[str]:
        """All keys of a node and what they hold, as text that can be compared."""
        databases = self._lab.run(lambda: node.server.keyspace.dump().databases)
        return sorted(f"{db} {key!r} {value}" for db, keys in databases.items() for key, value in keys.items())


@pytest.mark.parametrize("seed", range(12))
def test_replicas_end_with_the_data_of_their_master(lab: Lab, seed: int) -> None:
    trouble, chance = _Trouble(lab, seed), random.Random(seed)
    for _ in range(120):
        action = chance.choices([trouble.write, trouble.break_something, trouble.change_roles], [8, 3, 1])[0]
        action()
        lab.pass_time(chance.choice([0, 0, 0.1, 1, 4]))
    trouble.end()
    trouble.master("SET", "the end", "x")
    lab.pass_time(1)
    states = [node.state() for node in trouble.nodes if node is not trouble.master]
    assert states == ["connected", "connected"]
    expected = trouble.content(trouble.master)
    assert any("the end" in line for line in expected)
    assert [trouble.content(node) for node in trouble.nodes] == [expected] * 3
    assert len({node.replication.offset for node in trouble.nodes}) == 1
