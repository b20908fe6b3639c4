"""Reads while another view of the topology is put in force."""

from __future__ import annotations

import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import hatopo
from hatopo.client import _reading
from hatopo.testing import Replication
from tests.client.test_reading_troubles import calls, opened
from tests.control import eventually

if TYPE_CHECKING:
    import pytest

    from hatopo.topology import Topology


def test_a_view_that_comes_while_a_policy_decides_is_used() -> None:
    """The plan that it would have made is of nodes that are not all."""
    going, decided = threading.Event(), threading.Event()

    def zones(host: str, port: int) -> str:
        if going.is_set():
            decided.wait(10)
        return "ours"

    with Replication(replicas=1) as own:
        with (
            opened(own, read_from=hatopo.ReadFrom.zone("ours", zones=zones)) as client,
            ThreadPoolExecutor(1) as threads,
        ):
            going.set()
            reading = threads.submit(client.get, "k")
            new = own.add_replica()
            eventually(lambda: client.topology is not None and len(client.topology.nodes) == 3)
            decided.set()
            going.clear()
            assert reading.result(10) == b"v"
            eventually(
                lambda: client.get("k") and calls(new, "get"), 3, "it is read from before a plan would have ended"
            )


def test_a_view_that_is_being_put_in_force_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """In between, its nodes are known as they were under the one before: nobody would be fit."""
    adopt, between = _reading.Reading.adopt, threading.Event()

    def adopt_slowly(reading: _reading.Reading, topology: Topology | None) -> None:
        between.set()
        time.sleep(0.1)
        adopt(reading, topology)

    with Replication(replicas=2) as deployment:
        with opened(deployment, read_from="any") as client, ThreadPoolExecutor(1) as threads:
            monkeypatch.setattr(_reading.Reading, "adopt", adopt_slowly)
            reading = threads.submit(lambda: between.wait(20) and client.get("k"))
            old, new, _ = deployment.nodes
            old.kill()
            deployment.promote(new)
            assert reading.result(20) == b"v"
