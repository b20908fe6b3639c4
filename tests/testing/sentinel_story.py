"""What sentinels publish when a master dies, is replaced by order, or comes back: told without ports, ids and times.

The same story is told by embedded and by real sentinels, so that they can be compared. Run as a program
(`python -m tests.testing.sentinel_story`), it writes down what real ones tell.
"""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from hatopo.testing import RealSentinelDeployment, SentinelDeployment
from hatopo.testing._control import Event
from hatopo.testing.world._clock import Clock

Deployment = SentinelDeployment | RealSentinelDeployment
RECORDED = Path(__file__).parent / "recorded" / "sentinel_events.json"
Story = dict[str, list[str]]

RACES = {"+odown", "-odown", "+role-change", "-role-change", "+convert-to-slave", "-sdown"}
"""Events of which the moment, or who sees them first, is a matter of chance: compared without their order."""


class SplitVote(Exception):
    """Two sentinels wanted to lead: a story of its own."""


def _names(deployment: Deployment, old: str, new: str) -> dict[str, str]:
    """What stands for a port or an id."""
    named = {port: "OTHER" for node in deployment.nodes if (port := str(node.port)) not in (old, new)}
    named |= {old: "OLD", new: "NEW"}
    for sentinel in deployment.sentinel_nodes:
        led = any(e.sentinel == sentinel.address and e.channel == "+elected-leader" for e in deployment.events)
        name = "LEADER" if led else "FOLLOWER"
        named[str(sentinel.port)] = named[sentinel.execute("SENTINEL", "MYID")] = name
    return named


def _told(event: Event, names: dict[str, str]) -> str:
    text = re.sub(r"[0-9a-f]{40}|\b\d{4,5}\b", lambda found: names.get(found[0], found[0]), event.payload)
    return f"{event.channel} {re.sub('#quorum [0-9]+/', '#quorum N/', text)}"


def _is_race(told: str, leads: bool) -> bool:
    channel = told.partition(" ")[0]
    if leads and told.startswith("-role-change slave 127.0.0.1:NEW"):
        return False  # before +promoted-slave, always
    return channel in RACES or (not leads and channel in ("+sdown", "+new-epoch", "+vote-for-leader"))


def _who_said(told: str, name: str) -> str:
    """Whoever sees first that a node must be demoted does it."""
    return "ANYBODY" if told.startswith("+convert-to-slave") else name


def tell(deployment: Deployment, events: list[Event], old: str, new: str) -> Story:
    """The story of these events: what each kind of sentinel says in order, and what was said in any order."""
    names = _names(deployment, old, new)
    story: Story = {}
    races: set[str] = set()
    for sentinel in deployment.sentinel_nodes:
        name = names[str(sentinel.port)]
        own = [_told(event, names) for event in events if event.sentinel == sentinel.address]
        races |= {f"{_who_said(told, name)} {told}" for told in own if _is_race(told, name == "LEADER")}
        lines = _sorted_runs([told for told in own if not _is_race(told, name == "LEADER")])
        if story.setdefault(name, lines) != lines:
            raise AssertionError(f"followers differ: {lines} and {story[name]}")
    return {**story, "RACES": sorted(races)}


def _sorted_runs(lines: list[str]) -> list[str]:
    """Replicas are listed in the order of a hash table: sort what was said of them together."""
    found: list[list[str]] = []
    for line in lines:
        if found and line.startswith("+slave ") and found[-1][0].startswith("+slave "):
            found[-1].append(line)
        else:
            found.append([line])
    return [line for run in found for line in sorted(run)]


def _who(events: list[Event], channel: str, part: str = "") -> set[Any]:
    return {event.sentinel for event in events if event.channel == channel and part in event.payload}


def _until(deployment: Deployment, begun: int, *seen: tuple[str, str]) -> list[Event]:
    """The events since `begun`, once every sentinel has published all these (channel, part of the payload)."""
    count = len(deployment.sentinel_nodes)

    def all_seen() -> bool:
        events = deployment.events[begun:]
        return all(len(_who(events, channel, part)) == count for channel, part in seen)

    deployment.wait_until(all_seen, 60.0, f"{seen} of all sentinels")
    events = deployment.events[begun:]
    if sum(event.channel == "+try-failover" for event in events) > 1:
        raise SplitVote
    return events


def killed(deployment: Deployment) -> Story:
    """The master dies."""
    old = str(deployment.kill_master().port)
    events = _until(deployment, _begun(deployment), ("+switch-master", ""), ("+sdown", f"slave 127.0.0.1:{old}"))
    return tell(deployment, events, old, str(deployment.master().port))


def _begun(deployment: Deployment) -> int:
    """Where the events begin that follow the introduction of all sentinels to each other."""
    met = [number for number, event in enumerate(deployment.events) if event.channel in ("+sentinel", "+set")]
    return met[-1] + 1


def ordered(deployment: Deployment) -> Story:
    """A failover is ordered (SENTINEL FAILOVER), and the old master becomes a replica."""
    begun = len(deployment.events)
    old = str(deployment.master().port)
    deployment.tune(publish_period=300, info_period=1000)
    deployment.failover()
    events = _until(deployment, begun, ("+switch-master", ""), ("+role-change", old))
    return tell(deployment, events, old, str(deployment.master().port))


def returned(deployment: Deployment) -> Story:
    """The old master comes back, when all is over."""
    victim = deployment.kill_master()
    old = str(victim.port)
    _until(deployment, _begun(deployment), ("+switch-master", ""), ("+sdown", f"slave 127.0.0.1:{old}"))
    begun = len(deployment.events)
    deployment.tune(publish_period=300, info_period=1000)
    victim.restart()
    events = _until(deployment, begun, ("-sdown", old), ("+role-change", old))
    return tell(deployment, events, old, str(deployment.master().port))


STORIES: dict[str, Callable[[Any], Story]] = {"killed": killed, "ordered": ordered, "returned": returned}


DOWN_AFTER = 2.0
"""Longer than sentinels wait between two dials: with less, a new master that is not dialled yet may seem down."""


def of_real(name: str) -> Story:
    """A story as real sentinels tell it."""
    make = functools.partial(RealSentinelDeployment, 2, 3, down_after=DOWN_AFTER)
    return _without_split_vote(name, [make] * 6)


def of_embedded(name: str, clock: Callable[[], Clock], seed: int = 1) -> Story:
    """A story as embedded sentinels tell it."""
    seeds = range(seed, seed + 6)
    make = functools.partial(SentinelDeployment, 2, 3, down_after=DOWN_AFTER)
    return _without_split_vote(name, [functools.partial(make, clock=clock(), seed=one) for one in seeds])


def _without_split_vote(name: str, deployments: Iterable[Callable[[], Any]]) -> Story:
    for make in deployments:
        with make() as deployment:
            try:
                return STORIES[name](deployment)
            except SplitVote:
                continue
    raise AssertionError("the sentinels never agreed on one leader at once")


def record(times: int = 3) -> None:
    """Write down what real sentinels tell; what differs between times may only be a race."""
    found: dict[str, Story] = {}
    for name in STORIES:
        for _ in range(times):
            story = of_real(name)
            races = {*story["RACES"], *found.get(name, story)["RACES"]}
            strict = {key: value for key, value in story.items() if key != "RACES"}
            before = {key: value for key, value in found.get(name, story).items() if key != "RACES"}
            if strict != before:
                raise AssertionError(f"{name}: {strict} and {before}")
            found[name] = {**story, "RACES": sorted(races)}
    RECORDED.parent.mkdir(exist_ok=True)
    RECORDED.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    record()
