"""Embedded sentinels publish what real ones publish, and both can be in one set."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest

from hatopo.testing import ManualClock, RealClock, RealSentinelDeployment, ScaledClock
from hatopo.testing.sentinel import Event, SentinelServer
from hatopo.testing.world._loop import LOOP
from hatopo.testing.world._world import World
from tests.control import Control
from tests.testing import sentinel_story
from tests.testing.sentinel_story import RECORDED, STORIES, Story


def recorded(name: str) -> Story:
    story: Story = json.loads(RECORDED.read_text())[name]
    return story


def strict(story: Story) -> Story:
    return {who: lines for who, lines in story.items() if who != "RACES"}


def anybody(story: Story) -> set[str]:
    """What was said in any order, by whomever."""
    return {line.partition(" ")[2] for line in story["RACES"]}


@pytest.mark.parametrize("name", STORIES)
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("clock", [ManualClock, ScaledClock])
def test_embedded_sentinels_publish_what_real_ones_have_published(
    name: str, clock: type[ManualClock] | type[ScaledClock], seed: int
) -> None:
    ours, theirs = sentinel_story.of_embedded(name, clock, seed), recorded(name)
    assert strict(ours) == strict(theirs)
    assert {*ours["RACES"]} <= {*theirs["RACES"]}
    if name == "returned":  # all of it is a race: who sees it first, and who acts on it
        assert anybody(ours) == anybody(theirs)


@pytest.mark.real
@pytest.mark.parametrize("name", STORIES)
def test_real_sentinels_still_publish_it(redis_installed: Any, name: str) -> None:
    ours, theirs = sentinel_story.of_real(name), recorded(name)
    assert strict(ours) == strict(theirs)
    assert {*ours["RACES"]} <= {*theirs["RACES"]}


class Mixed:
    """Two real sentinels and an embedded one over real nodes."""

    def __init__(self, deployment: RealSentinelDeployment) -> None:
        self.deployment = deployment
        self.events: list[Event] = []
        self.server = SentinelServer(World(RealClock(), 1))
        master = deployment.master()
        LOOP.call(self.server.bind)
        self.server.on_event(self.events.append)
        self.server.monitor("mymaster", *master.address, 2, down_after_milliseconds=1000, failover_timeout=6000)
        LOOP.wait(self.server.start())
        deployment.wait_until(self.met, what="three sentinels that know each other")

    def met(self) -> bool:
        name = self.deployment.name
        asked = [one.execute("SENTINEL", "CKQUORUM", name) for one in self.deployment.sentinel_nodes]
        return all(answer.startswith("OK 3 ") for answer in [*asked, self.ask("SENTINEL", "CKQUORUM", name)])

    def ask(self, *words: str | int) -> Any:
        with Control(self.server.address) as control:
            return control(*words)

    def channels(self) -> list[str]:
        return [event.channel for event in self.events]

    def agree_on(self, old: Any) -> bool:
        new = self.deployment.wait_switched(old)
        named = ["127.0.0.1", str(new.port)]
        self.deployment.wait_until(lambda: self.ask("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "mymaster") == named)
        return True


@pytest.fixture
def mixed(redis_installed: Any) -> Iterator[Mixed]:
    LOOP.acquire()
    try:
        with RealSentinelDeployment(2, 2) as deployment:
            mixed = Mixed(deployment)
            try:
                yield mixed
            finally:
                LOOP.call(mixed.server.close)
                LOOP.call(mixed.server.world.close)
                LOOP.wait(_turns())
    finally:
        LOOP.release()


async def _turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


@pytest.mark.real
def test_an_embedded_and_two_real_sentinels_replace_a_dead_master(mixed: Mixed) -> None:
    assert mixed.agree_on(mixed.deployment.kill_master())


@pytest.mark.real
def test_real_sentinels_elect_an_embedded_one(mixed: Mixed) -> None:
    mixed.deployment.set(quorum=3)  # the real ones need all three to agree, and one of them is slow to notice
    mixed.deployment.sentinel_nodes[1].execute("SENTINEL", "SET", "mymaster", "down-after-milliseconds", 20_000)
    assert mixed.agree_on(mixed.deployment.kill_master())
    mixed.deployment.wait_until(lambda: "+switch-master" in mixed.channels(), what="the end of the failover")
    channels = mixed.channels()
    assert channels.index("+try-failover") < channels.index("+elected-leader") < channels.index("+switch-master")
    assert all("+elected-leader" not in one.log for one in mixed.deployment.sentinel_nodes)


@pytest.mark.real
def test_an_embedded_sentinel_switches_real_nodes_on_demand(mixed: Mixed) -> None:
    old = mixed.deployment.master()
    assert mixed.ask("SENTINEL", "FAILOVER", "mymaster") == "OK"
    assert mixed.agree_on(old)
    mixed.deployment.wait_until(lambda: old.role() == "slave", 60.0, "the old master demoted")
