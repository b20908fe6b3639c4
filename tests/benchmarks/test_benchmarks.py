"""The benchmark runs and shows every workload of every client. What it measures is not judged here."""

from __future__ import annotations

import pytest

from hatopo.testing.real import RealNode
from tests.benchmarks.__main__ import main
from tests.benchmarks.workloads import KEYS, VALUE, WORKLOADS, Floor


def test_every_workload_is_shown_for_every_client(
    redis_installed: tuple[int, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    main(["--rounds", "1", "--n", "20"])
    table = capsys.readouterr().out
    for workload in WORKLOADS:
        rows = [line for line in table.splitlines() if line.startswith(workload)]
        assert [row[25:].split()[0] for row in rows] == ["redis-py", "hatopo", "floor"]
        assert all(float(row[25:].split()[1]) > 0 for row in rows)


def test_the_floor_does_what_the_clients_do(server: RealNode) -> None:
    floor = Floor(*server.address)
    try:
        assert floor.set(KEYS[0], VALUE) == b"OK"
        assert floor.get(KEYS[0]) == VALUE.encode()
        assert floor.incr("n") == 1
        assert floor.batch(KEYS) == [VALUE.encode(), *[None] * 99]
    finally:
        floor.close()
