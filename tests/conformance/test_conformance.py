"""No test of redis-py's own that passes with redis-py fails through hatopo: in any protocol, in any deployment.

redis-py's runs at once, and then hatopo's: they sleep more than they compute, and two cores suffice.
"""

from __future__ import annotations

import dataclasses
import os
from typing import TYPE_CHECKING, Any

import pytest
import redis

from hatopo.testing import SentinelDeployment
from tests.conformance import suite
from tests.conformance.inside import Stand
from tests.conformance.suite import Comparison, NoTests, Outcome, Variant, compare, expectations, parse
from tests.control import eventually

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from pathlib import Path

    import hatopo

VERSION = suite.installed_version()
VARIANTS = [
    *(Variant(VERSION, protocol) for protocol in ("default", "2", "3")),
    # A pool is what an application has; and without replicas, reads go to the master wherever they are to go.
    Variant(VERSION, pooled=True, through="sentinel"),
    Variant(VERSION, pooled=True, through="replicated", read_from="replica_preferred"),
]
"""What is proven here; `python -m tests.conformance` runs any other."""
FEW = 5
"""So many failures can be bad luck."""
Outcomes = dict[Variant, dict[str, Outcome]]


def measure(variant: Variant) -> Variant:
    """What a variant is held against: redis-py at a server by itself."""
    return dataclasses.replace(variant, through="standalone", read_from="")


def run_all(client: str, variants: Iterable[Variant]) -> Outcomes:
    runs: dict[Variant, suite.Run] = {}
    try:
        for variant in variants:
            runs[variant] = suite.start(client, variant)
        return {variant: run.finish() for variant, run in runs.items()}
    finally:
        for run in runs.values():
            run.abandon()


@pytest.fixture(scope="module")
def plain(redis_installed: tuple[int, ...]) -> Outcomes:
    try:
        return run_all("plain", dict.fromkeys(map(measure, VARIANTS)))
    except NoTests as error:
        if os.environ.get("HATOPO_REQUIRE_REAL") == "1":
            raise
        pytest.skip(str(error))


@pytest.fixture(scope="module")
def ours(plain: Outcomes) -> Outcomes:
    return run_all("hatopo", VARIANTS)


@pytest.mark.timeout(900)
@pytest.mark.parametrize("variant", VARIANTS, ids=lambda variant: variant.label)
def test_nothing_that_redis_py_can_do_is_lost(plain: Outcomes, ours: Outcomes, variant: Variant) -> None:
    expected = plain[measure(variant)]
    # Fewer would mean that the tests themselves did not run.
    assert sum(outcome.result == "passed" for outcome in expected.values()) > 500
    found = compare(expected, ours[variant], expectations(variant))
    lost = lost_again(variant, found.lost)
    assert lost == {}, "\n".join(f"{name}: {outcome.text}" for name, outcome in lost.items())
    assert found.wrongly_expected == []


def lost_again(variant: Variant, lost: dict[str, Outcome]) -> dict[str, Outcome]:
    """Those that fail by themselves, too.

    Some of redis-py's tests are races that a busy machine decides (TestPubSubAutoReconnect also without hatopo).
    """
    if not 0 < len(lost) <= FEW:
        return lost
    outcomes = suite.start("hatopo", variant, list(lost)).finish()
    again = {name: outcomes.get(name, Outcome("missing")) for name in lost}
    return {name: outcome for name, outcome in again.items() if outcome.result != "passed"}


@pytest.fixture
def deployment() -> Iterator[SentinelDeployment]:
    with SentinelDeployment(replicas=1) as deployment:
        yield deployment


@pytest.mark.parametrize("through", suite.THROUGH)
def test_clients_go_through_what_was_chosen(through: str, deployment: SentinelDeployment, tmp_path: Path) -> None:
    """One server is the one in the URL; sentinels name the master instead; nodes know each other."""
    chosen: dict[str, Any] = {"client": "hatopo", "through": through, "options": {"client_name": "ours"}}
    stand = Stand({**chosen, "service": deployment.name, "sentinels": deployment.sentinels}, tmp_path / "report")
    master, replica = deployment.nodes
    given = master if through == "replicated" else replica
    with stand.open(f"redis://{given.host}:{given.port}/3", db=2) as client:
        assert client.client_getname() in (b"ours", "ours")
        assert client.connection_pool.connection_kwargs["db"] == 2
        if through == "standalone":
            with pytest.raises(redis.ReadOnlyError):
                client.set("key", "value")
        else:
            client.set("key", "value")
            assert "db2:keys=1," in master.execute("INFO", "keyspace")
            eventually(lambda: ports(client) == {master.port, replica.port}, what="both are known")
    stand.pytest_unconfigure()


def ports(client: hatopo.Redis) -> set[int]:
    return set() if client.topology is None else {node.address.port for node in client.topology.nodes}


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
    lines = ["# a comment", "", "*/3/*/* a::b[x y] # because", "8.*/*/pooled/* c # for a reason", "*/sentinel d # so"]
    listed.write_text("\n".join(lines))
    assert expectations(Variant("6.4.0", "3"), listed) == {"a::b[x y]": "because"}
    assert expectations(Variant("8.1.0", "2", pooled=True), listed) == {"c": "for a reason"}
    assert expectations(Variant("6.4.0", through="sentinel"), listed) == {"d": "so"}
    assert expectations(Variant("6.4.0", through="sentinel", read_from="nearest"), listed) == {}


@pytest.mark.parametrize("line", ["*/*/*/* test without reason", "*/*/*/* # no test", "*/*/*/* test # "])
def test_an_expectation_without_a_test_or_a_reason_is_refused(line: str) -> None:
    with pytest.raises(ValueError, match="variants test # reason"):
        parse(line)
