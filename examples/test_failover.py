"""Test your failover in pytest: a small application, and what becomes of it when its master is lost.

pytest examples/test_failover.py                            servers in the test's own process
pytest examples/test_failover.py --hatopo-backend=real      redis-server and redis-sentinel
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest
import redis.asyncio.sentinel

import hatopo
from hatopo.testing import SentinelDeployment


def sell(shop: hatopo.Redis, seat: str, customer: str) -> bool:
    """Sell a seat, once; says whether it is this customer's now."""
    try:
        return bool(shop.hsetnx("seats", seat, customer))
    except hatopo.AmbiguousResultError:  # it may have been executed: whose is the seat?
        owner = shop.hget("seats", seat)
        return sell(shop, seat, customer) if owner is None else owner == customer


@pytest.fixture
def shop(hatopo_sentinel: SentinelDeployment) -> Iterator[hatopo.Redis]:
    with hatopo.sentinel(hatopo_sentinel.name, hatopo_sentinel.sentinels, decode_responses=True) as client:
        yield client


def test_a_seat_is_sold_once(shop: hatopo.Redis) -> None:
    assert sell(shop, "1A", "ada")
    assert not sell(shop, "1A", "bob")


def test_the_master_is_killed(hatopo_sentinel: SentinelDeployment, shop: hatopo.Redis) -> None:
    assert sell(shop, "1A", "ada")
    hatopo_sentinel.wait_stable()  # the replicas have it, too
    old = hatopo_sentinel.kill_master()
    assert sell(shop, "1B", "bob")  # waits until there is a new master
    assert hatopo_sentinel.wait_switched(old) is not old
    assert shop.hgetall("seats") == {"1A": "ada", "1B": "bob"}


def test_a_planned_failover(hatopo_sentinel: SentinelDeployment, shop: hatopo.Redis) -> None:
    assert sell(shop, "1A", "ada")
    hatopo_sentinel.wait_stable()
    old = hatopo_sentinel.master()
    hatopo_sentinel.failover()
    new = hatopo_sentinel.wait_switched(old)
    hatopo_sentinel.wait_until(lambda: shop.stats().failovers == 1, what="a client that has followed")
    assert not sell(shop, "1A", "bob")
    assert sell(shop, "1B", "bob")
    assert new.execute("HGET", "seats", "1B") == "bob"


def test_nobody_knows_whether_it_was_executed(hatopo_sentinel: SentinelDeployment, shop: hatopo.Redis) -> None:
    hatopo_sentinel.master().drop_after_execute("hsetnx")
    with pytest.raises(hatopo.AmbiguousResultError):
        shop.hsetnx("seats", "1A", "ada")
    assert shop.hget("seats", "1A") == "ada"


@pytest.mark.parametrize("fault", ["drop_before", "drop_after_execute"])
def test_a_reply_is_lost(hatopo_sentinel: SentinelDeployment, shop: hatopo.Redis, fault: str) -> None:
    getattr(hatopo_sentinel.master(), fault)("hsetnx")
    assert sell(shop, "1A", "ada")
    assert not sell(shop, "1A", "bob")
    assert shop.hgetall("seats") == {"1A": "ada"}


@pytest.mark.hatopo(sentinels=5, quorum=3)
def test_two_sentinels_go_with_the_master(hatopo_sentinel: SentinelDeployment, shop: hatopo.Redis) -> None:
    assert sell(shop, "1A", "ada")
    for sentinel in hatopo_sentinel.sentinel_nodes[:2]:
        sentinel.kill()
    old = hatopo_sentinel.kill_master()
    assert sell(shop, "1B", "bob")
    assert hatopo_sentinel.wait_switched(old) is not old


async def sell_with_redis_py(deployment: SentinelDeployment) -> None:
    sentinels = redis.asyncio.sentinel.Sentinel(deployment.sentinels, decode_responses=True)
    client = sentinels.master_for(deployment.name)
    try:
        assert await client.hsetnx("seats", "1A", "ada")
        old = deployment.kill_master()
        with pytest.raises(redis.ConnectionError):
            await client.hsetnx("seats", "1B", "bob")
        await asyncio.to_thread(deployment.wait_switched, old)
        assert await client.hsetnx("seats", "1B", "bob")
    finally:
        for connected in (client, *sentinels.sentinels):
            await connected.aclose()


def test_redis_py_on_asyncio(hatopo_sentinel: SentinelDeployment) -> None:
    asyncio.run(sell_with_redis_py(hatopo_sentinel))
