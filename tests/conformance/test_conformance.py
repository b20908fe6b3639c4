"""No test of redis-py's own that passes with redis-py fails through hatopo, in any protocol.

Three runs at a time, redis-py's and then hatopo's: they sleep more than they compute, and two cores suffice.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from tests.conformance import suite
from tests.conformance.suite import Comparison, NoTests, Outcome, Variant, compare, expectations, parse

if TYPE_CHECKING:
    from pathlib import Path

PROTOCOLS = ["default", "2", "3"]
Outcomes = dict[str, dict[str, Outcome]]


def run_all(client: str) -> Outcomes:
    runs: dict[str, suite.Run] = {}
    try:
        for protocol in PROTOCOLS:
            runs[protocol] = suite.start(client, Variant(suite.installed_version(), protocol))
        return {protocol: run.finish() for protocol, run in runs.items()}
    finally:
        for run in runs.values():
            run.abandon()


@pytest.fixture(scope="module")
def plain(redis_installed: tuple[int, ...]) -> Outcomes:
    try:
        return run_all("plain")
    except NoTests as error:
        if os.environ.get("HATOPO_REQUIRE_REAL") == "1":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def ours(plain: Outcomes) -> Outcomes:
    return run_all("hatopo")


@pytest.mark.timeout(400)
@pytest.mark.parametrize("protocol", PROTOCOLS)
def test_nothing_that_redis_py_can_do_is_lost(plain: Outcomes, ours: Outcomes, protocol: str) -> None:
    # Fewer would mean that the tests themselves did not run.
    assert sum(outcome.result == "passed" for outcome in plain[protocol].values()) > 500
    variant = Variant(suite.installed_version(), protocol)
    found = compare(plain[protocol], ours[protocol], expectations(variant))
    assert found.lost == {}, "\n".join(f"{name}: {outcome.text}" for name, outcome in found.lost.items())
    assert found.wrongly_expected == []


def test_a_test_that_fails_or_vanishes_is_lost_unless_expected() -> None:
    plain = {name: Outcome("passed") for name in ("good", "worse", "gone", "known", "healed")} | {
        "bad": Outcome("failed"),
        "not here": Outcome("skipped"),
    }
    ours = {
        "good": Outcome("passed"),
        "worse": Outcome("error", "why"),
        "known": Outcome("failed"),
        "healed": Outcome("passed"),
        "bad": Outcome("failed"),
        "not here": Outcome("skipped"),
    }
    found = compare(plain, ours, {"known": "a reason", "healed": "another"})
    assert found == Comparison(
        lost={"worse": Outcome("error", "why"), "gone": Outcome("missing")},
        expected={"known": "a reason"},
        wrongly_expected=["healed"],
    )
    assert not found.good


def test_expectations_hold_for_the_variants_they_name(tmp_path: Path) -> None:
    listed = tmp_path / "expected_failures.txt"
    listed.write_text("# a comment\n\n*/3/* a::b[x y] # because\n8.*/*/pooled c # for a reason\n")
    assert expectations(Variant("6.4.0", "3"), listed) == {"a::b[x y]": "because"}
    assert expectations(Variant("8.1.0", "2", pooled=True), listed) == {"c": "for a reason"}


@pytest.mark.parametrize("line", ["*/*/* test without reason", "*/*/* # no test", "*/*/* test # "])
def test_an_expectation_without_a_test_or_a_reason_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="variants test # reason"):
        parse(line)
