"""The ledger of the demo: decides what became of each call, and what must not have.

Nothing doubled; nothing lost, but in a planned failover up to 50 ms of writes, which the former master acknowledges and
Redis throws away; no error but AmbiguousResultError, once for each writer at most, of a call that was under way at the
fault. Readers, whom replicas answer, may go back by 200 ms: one replica is a moment behind another.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from hatopo.cli._load import AMBIGUOUS, Call, Load, Worker

MAY_LOSE = 0.05  # seconds of writes, in a planned failover
MAY_GO_BACK = 0.2  # seconds of what is read: what is lost in a planned failover, and what one replica lags
LOST_FOR_LONG, WENT_BACK = f"writes were lost for more than {MAY_LOSE * 1000:.0f} ms", "reads went back"
TIMED = frozenset({LOST_FOR_LONG, WENT_BACK})
"""What may be the machine's fault, if that has stood still."""


@dataclass(frozen=True)
class Ledger:
    """Rows of what readers and writers met, and what of it must not be."""

    rows: Mapping[str, tuple[str, str]]
    complaints: Sequence[str]


def _column(workers: Sequence[Worker]) -> dict[str, str]:
    """What the ledger says of readers and writers alike."""
    calls = [call for worker in workers for call in worker.calls]
    errors = Counter(call.error for call in calls)
    acknowledged, ambiguous = errors.pop("", 0), errors.pop(AMBIGUOUS, 0)
    rows = {"calls": len(calls), "acknowledged": acknowledged, AMBIGUOUS: ambiguous, "other errors": errors.total()}
    longest = max((call.ended - call.began for call in calls), default=0.0)
    outage = max((worker.outage() for worker in workers), default=0.0)
    shown = {row: f"{count}" for row, count in {**rows, **errors}.items()}
    return {**shown, "longest call": f"{longest:.2f} s", "outage": f"{outage:.2f} s"}


def _complaints(load: Load, since: float, *, planned: bool) -> list[str]:
    """What the errors of the calls must not be."""
    met = [Counter(call.error for call in worker.calls if call.error) for worker in load.workers]
    readers, writers = met[: len(load.readers)], met[len(load.readers) :]
    calls: list[Call] = [call for worker in load.workers for call in worker.calls]
    late = [call for call in calls if call.error == AMBIGUOUS and call.began > since]
    found = {
        f"errors other than {AMBIGUOUS}": any(set(errors) - {AMBIGUOUS} for errors in met),
        f"a reader met {AMBIGUOUS}": any(errors[AMBIGUOUS] for errors in readers),
        f"a writer met {AMBIGUOUS} more than once": any(errors[AMBIGUOUS] > 1 for errors in writers),
        f"{AMBIGUOUS} of a call that began after the fault": bool(late) and not planned,
    }
    return [what for what, so in found.items() if so]


def settle(load: Load, applied: Mapping[str, int], since: float, *, planned: bool) -> Ledger:
    """Set what the application was told against what the master holds.

    Args:
        load: which has ended.
        applied: how often each field was counted.
        since: the moment of the fault.
        planned: whether it was a planned failover.
    """
    counts = [call for writer in load.writers for call in writer.calls if call.field]
    lost = [call.ended for call in counts if not call.error and call.field not in applied]
    lost_for = max(lost) - min(*lost, since) if lost else 0.0
    doubled = sum(applied.get(call.field, 0) > 1 for call in counts)
    back = max((reader.back for reader in load.readers), default=0.0)
    more = {"lost": f"{len(lost)}", "lost within": f"{lost_for * 1000:.0f} ms", "doubled": f"{doubled}"}
    reads = {**_column(load.readers), "went back by": f"{back * 1000:.0f} ms"}
    writes = {**_column(load.writers), **more}
    rows = {row: (reads.get(row, "-"), writes.get(row, "-")) for row in {**writes, **reads}}
    data = {
        "writes were doubled": doubled > 0,
        "writes were lost": len(lost) > 0 and not planned,
        LOST_FOR_LONG: lost_for > MAY_LOSE and planned,
        WENT_BACK: back > MAY_GO_BACK,
    }
    return Ledger(rows, [*(what for what, so in data.items() if so), *_complaints(load, since, planned=planned)])
