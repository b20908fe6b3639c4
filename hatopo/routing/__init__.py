"""Where a command goes, and what to do when it does not arrive: pure decisions over values."""

from hatopo.routing._attempt import (
    Attempt,
    GiveUp,
    Limits,
    Policies,
    PolicyLike,
    Refresh,
    RetryBudget,
    RetryPolicy,
    Verdict,
    Wait,
)
from hatopo.routing._commands import (
    CONTAINERS,
    FACTS,
    CommandClass,
    Facts,
    blocking_seconds,
    classify,
    facts_of,
    may_read_elsewhere,
    with_timeout,
)
from hatopo.routing._failure import Cause, Failure, Outcome, failure_of, node_is_busy, runs_code
from hatopo.routing._fitness import Checkup, Health, as_dialled, read_checkup
from hatopo.routing._overlay import MAY_TAKE_A_CURSOR
from hatopo.routing._read_from import (
    NodeStatus,
    ReadFrom,
    ReadFromFunction,
    ReadFromLike,
    Tiers,
    choices,
)
from hatopo.routing._router import pick, shard_of
from hatopo.routing._slots import slot_of

__all__ = [
    "CONTAINERS",
    "FACTS",
    "MAY_TAKE_A_CURSOR",
    "Attempt",
    "Cause",
    "Checkup",
    "CommandClass",
    "Facts",
    "Failure",
    "GiveUp",
    "Health",
    "Limits",
    "NodeStatus",
    "Outcome",
    "Policies",
    "PolicyLike",
    "ReadFrom",
    "ReadFromFunction",
    "ReadFromLike",
    "Refresh",
    "RetryBudget",
    "RetryPolicy",
    "Tiers",
    "Verdict",
    "Wait",
    "as_dialled",
    "blocking_seconds",
    "choices",
    "classify",
    "facts_of",
    "failure_of",
    "may_read_elsewhere",
    "node_is_busy",
    "pick",
    "read_checkup",
    "runs_code",
    "shard_of",
    "slot_of",
    "with_timeout",
]
