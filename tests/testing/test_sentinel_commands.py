"""The commands of an embedded sentinel answer byte for byte what those of a real one answer, times and ports aside."""

from __future__ import annotations

from typing import Any

import pytest

from hatopo.testing import ManualClock, RealClock, RealSentinelDeployment, SentinelDeployment
from tests.testing.sentinel_questions import ask_all, recorded

Answers = dict[str, list[tuple[str, str]]]


def differences(ours: Answers, theirs: Answers) -> list[tuple[tuple[str, str], tuple[str, str]]]:
    assert ours.keys() == theirs.keys()
    pairs = [pair for kind in ours for pair in zip(ours[kind], theirs[kind], strict=True)]
    return [(mine, other) for mine, other in pairs if mine != other]


@pytest.mark.parametrize("clock", [RealClock, ManualClock])
def test_answers_are_those_that_a_real_sentinel_has_given(clock: type[RealClock] | type[ManualClock]) -> None:
    with SentinelDeployment(2, 3, parallel_syncs=1, down_after=3.0, clock=clock()) as embedded:
        assert differences(ask_all(embedded), recorded()) == []


@pytest.mark.real
def test_a_real_sentinel_still_gives_these_answers(redis_installed: Any) -> None:
    with RealSentinelDeployment(2, 3, parallel_syncs=1, down_after=3.0) as real:
        assert differences(ask_all(real), recorded()) == []
