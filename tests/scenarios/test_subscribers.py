"""Those who wait for messages and elements while the master changes."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import pytest

from hatopo import events
from tests.conftest import eventually
from tests.scenarios.support import change_master, told

if TYPE_CHECKING:
    from hatopo.testing import NodeHandle, SentinelDeployment
    from tests.drivers import WatchingDriver


@pytest.mark.parametrize("trouble", ["kill", "pause", "planned"])
def test_a_subscriber_moves_and_tells_of_the_gap(
    driver: WatchingDriver, sentinel_set: SentinelDeployment, trouble: str
) -> None:
    driver.open_sentinel("mymaster", sentinel_set.sentinels)
    subscriber = driver.subscriber("news", "weather")
    try:
        driver.call("publish", "news", "before")
        eventually(lambda: subscriber.messages == ["before"], what="the first message")
        assert told(driver, events.PubSubGap) == []
        new = change_master(sentinel_set, trouble)
        eventually(
            lambda: new.execute("PUBSUB", "NUMSUB", "news", "weather") == ["news", 1, "weather", 1], 30, "it moved"
        )
        driver.call("publish", "weather", "after")
        eventually(lambda: subscriber.messages == ["before", "after"], what="the second message")
        gaps = eventually(lambda: told(driver, events.PubSubGap), what="the gap is told")
    finally:
        subscriber.close()
    assert subscriber.error is None
    assert {gap.channels for gap in gaps} == {2}


def waits_in_vain(master: NodeHandle) -> bool:
    """Whether a client has been blocked in BLPOP for a second: servers count whole seconds of the clock."""
    clients = [
        dict(word.split("=", 1) for word in line.split()) for line in master.execute("CLIENT", "LIST").splitlines()
    ]
    return any(client["cmd"] == "blpop" and int(client["idle"]) >= 2 for client in clients)


@pytest.mark.parametrize("trouble", ["kill", "pause", "planned"])
def test_a_blocking_pop_rides_over(driver: WatchingDriver, sentinel_set: SentinelDeployment, trouble: str) -> None:
    driver.open_sentinel("mymaster", sentinel_set.sentinels)
    driver.call("set", "key", "value")
    with ThreadPoolExecutor(1) as threads:
        waiting = threads.submit(driver.call, "blpop", ["queue"], 0)
        try:
            eventually(lambda: waits_in_vain(sentinel_set.master()), what="it has waited for a while")
        finally:
            new = change_master(sentinel_set, trouble)
            new.execute("RPUSH", "queue", "element")
        assert [*waiting.result(60)] == [b"queue", b"element"]
    assert new.execute("LLEN", "queue") == 0
