"""What an application sees of a failover, on real processes: latency, and a rare "maybe executed".

Every scenario is written against a driver, so that each colour of the client runs the same ones.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest
from redis.backoff import NoBackoff
from redis.retry import Retry

import hatopo
from tests.conftest import eventually
from tests.drivers import Driver, Load, PlainDriver
from tests.scenarios.support import assert_rode_through

if TYPE_CHECKING:
    from hatopo.testing import NodeHandle, SentinelDeployment


def test_a_killed_master_costs_latency_only(driver: Driver, sentinel_set: SentinelDeployment) -> None:
    driver.open_sentinel("mymaster", sentinel_set.sentinels)
    with Load(driver, incr=4, get=2, set=2) as load:
        load.progress()
        old = sentinel_set.kill_master()
        new = sentinel_set.wait_switched(old)
        load.progress()
    assert_rode_through(load.ledger(new))


@pytest.mark.parametrize("outages", [1, 3])
def test_a_restarted_server_is_waited_for(driver: Driver, own_server: NodeHandle, outages: int) -> None:
    driver.open_standalone(own_server.address)
    with Load(driver, incr=4, get=2, set=2) as load:
        load.progress()
        for _ in range(outages):
            own_server.kill()
            load.stall()
            own_server.start()
            load.progress()
    assert_rode_through(load.ledger(own_server), outages)


def test_the_ledger_sees_a_doubled_call(own_server: NodeHandle) -> None:
    """Proof of the instrument: redis-py repeats an INCR whose reply was late, and it is applied twice."""
    driver = PlainDriver()
    driver.open_standalone(own_server.address, socket_timeout=0.05)
    with Load(driver, incr=2) as load:
        load.progress()
        own_server.pause()
        load.stall()
        own_server.resume()
        load.progress()
    driver.close()
    ledger = load.ledger(own_server)
    assert ledger.doubled != []
    assert ledger.lost == []


def test_the_ledger_sees_a_lost_call(own_server: NodeHandle) -> None:
    """Proof of the instrument: what the server forgets after acknowledging it is listed by name."""
    driver = PlainDriver()
    driver.open_standalone(own_server.address)
    with Load(driver, incr=1) as load:
        load.progress()
        own_server.execute("HDEL", Load.KEY, "incr-0-0")
    driver.close()
    assert load.ledger(own_server).lost == ["incr-0-0"]


@pytest.mark.usefixtures("patient")
def test_many_threads_begin_at_once(sentinel_set: SentinelDeployment) -> None:
    """One round of discovery serves them all, even if nobody may try twice; and more rounds find no other master."""
    with hatopo.sentinel("mymaster", sentinel_set.sentinels, retry=Retry(NoBackoff(), 0)) as client:
        with ThreadPoolExecutor(30) as threads:
            assert list(threads.map(lambda _: client.ping(), range(30))) == [True] * 30
        assert client.topology is not None
        (shard,) = client.topology.shards
        assert shard.master is not None
        assert (shard.master.address.host, shard.master.address.port) == sentinel_set.master().address


def test_silence_makes_a_reader_look_around(sentinel_set: SentinelDeployment) -> None:
    """A frozen master closes nothing: whoever reads from it finds out that it is no longer the master."""
    with hatopo.sentinel("mymaster", sentinel_set.sentinels, socket_timeout=60) as client:
        client.set("k", "v")
        eventually(lambda: client.wait(2, 1000) == 2)
        old = sentinel_set.master()
        old.pause()
        try:
            assert client.get("k") == b"v", "answered by the new master, long before the socket's timeout"
        finally:
            old.resume()
