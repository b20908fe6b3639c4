"""python -m tests.conformance: redis-py's tests through hatopo, against redis-py itself as the measure."""

from __future__ import annotations

import argparse
import sys
import time
from collections import Counter

from tests.conformance.suite import (
    FILES,
    THROUGH,
    Comparison,
    NoTests,
    Outcome,
    Variant,
    compare,
    expectations,
    installed_version,
    start,
)


def counts(outcomes: dict[str, Outcome]) -> str:
    found = Counter(outcome.result for outcome in outcomes.values())
    return ", ".join(f"{result} {count}" for result, count in sorted(found.items()))


def show(comparison: Comparison) -> None:
    for name, reason in comparison.expected.items():
        print(f"expected  {name}: {reason}")
    for name in comparison.wrongly_expected:
        print(f"PASSES    {name}, though expected_failures.txt lists it")
    missing = [name for name, outcome in comparison.lost.items() if outcome.result == "missing"]
    for name, outcome in comparison.lost.items():
        if name not in missing:
            print(f"LOST      {name}: {outcome.result}\n{outcome.text}\n")
    if missing:
        print(f"LOST      {len(missing)} tests that did not run at all, from {missing[0]} on\n")
    print(f"lost {len(comparison.lost)}, expected {len(comparison.expected)}", end="")
    print(f", wrongly expected {len(comparison.wrongly_expected)}")


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.conformance", description=__doc__)
    parser.add_argument(
        "--redis-version", default=installed_version(), help="whose tests to run (default: %(default)s)"
    )
    parser.add_argument("--protocol", choices=["default", "2", "3"], default="default")
    parser.add_argument("--pooled", action="store_true", help="a pooled client instead of one with a single connection")
    parser.add_argument(
        "--through", choices=THROUGH, default="standalone", help="the kind of deployment (default: %(default)s)"
    )
    parser.add_argument("--read-from", default="", help="where hatopo reads, as replica_preferred")
    parser.add_argument(
        "--client", choices=["hatopo", "plain"], default="hatopo", help="plain: prove this runner itself"
    )
    parser.add_argument("tests", nargs="*", default=FILES, help="node ids, instead of all, as in the output of a run")
    chosen = parser.parse_args()
    variant = Variant(chosen.redis_version, chosen.protocol, chosen.pooled, chosen.through, chosen.read_from)
    began = time.monotonic()
    try:
        baseline, other = start("plain", variant, chosen.tests), start(chosen.client, variant, chosen.tests)
    except NoTests as error:
        print(error, file=sys.stderr)
        return 2
    try:
        plain, ours = baseline.finish(), other.finish()
    finally:
        baseline.abandon()
        other.abandon()
    print(f"{variant.label}, {time.monotonic() - began:.0f} s")
    print(f"  redis-py  {counts(plain)}")
    print(f"  {chosen.client:<9} {counts(ours)}")
    comparison = compare(plain, ours, expectations(variant) if chosen.client == "hatopo" else {})
    show(comparison)
    return 0 if comparison.good else 1


if __name__ == "__main__":
    sys.exit(main())
