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
    with_timeout,
)
from hatopo.routing._failure import Cause, Failure, Outcome, failure_of, runs_code
from hatopo.routing._router import pick
from hatopo.routing._slots import slot_of

__all__ = [
    "CONTAINERS",
    "FACTS",
    "Attempt",
    "Cause",
    "CommandClass",
    "Facts",
    "Failure",
    "GiveUp",
    "Limits",
    "Outcome",
    "Policies",
    "PolicyLike",
    "Refresh",
    "RetryBudget",
    "RetryPolicy",
    "Verdict",
    "Wait",
    "blocking_seconds",
    "classify",
    "facts_of",
    "failure_of",
    "pick",
    "runs_code",
    "slot_of",
    "with_timeout",
]
