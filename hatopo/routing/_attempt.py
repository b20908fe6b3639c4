"""What to do when an attempt has failed: the one place that decides about retries, waiting and deadlines.

`Attempt` is made for a call when its first attempt fails, is told of every failure, and answers with a step
for the driver to carry out. It does no I/O and reads no clock: the driver passes `now`.

    failure                                     step
    executed (an error reply, a refusal)        GiveUp
    ambiguous, and repeating is not safe        GiveUp
    node gone, demoted, cut off, unknown        Refresh: look for a newer view, then route again
    node busy (loading, migrating, full)        Wait, then route again
    time, attempts or retry budget used up      GiveUp
"""

from __future__ import annotations

import difflib
import enum
from collections.abc import Mapping
from dataclasses import dataclass
from random import Random
from typing import TypeAlias

from hatopo.errors import OptionError
from hatopo.routing._commands import FACTS, CommandClass
from hatopo.routing._failure import Cause, Failure, Outcome

REPEAT_WINDOW = 5.0
"""Seconds in which a write may be sent again: later it might overwrite what others wrote since."""
WAIT_MIN, WAIT_MAX = 0.010, 0.300
RETRY_COST, RETRY_REFILL = 5.0, 500.0


class RetryPolicy(enum.Enum):
    """Which commands may be sent again after their reply was lost."""

    SAFE = "safe"
    """Reads, and writes whose second application changes neither the data nor the reply."""
    STATE = "state"
    """Also writes whose second application leaves the same data, though the reply may lie (SADD, DEL)."""
    ALWAYS = "always"
    """Every command: what redis-py does. INCR may be applied twice."""
    NEVER = "never"
    """Nothing is ever tried a second time, whatever the failure."""

    def repeats(self, kind: CommandClass) -> bool:
        """Whether a command of this class may be sent again."""
        if self is RetryPolicy.ALWAYS:
            return True
        if self is RetryPolicy.NEVER:
            return False
        if kind is CommandClass.STATE_STABLE:
            return self is RetryPolicy.STATE
        return kind in (CommandClass.READ, CommandClass.REPEATABLE)


PolicyLike: TypeAlias = "RetryPolicy | str | Mapping[str, RetryPolicy | str]"


@dataclass(frozen=True, slots=True)
class Policies:
    """The policy of each command: by its name, or the default."""

    default: RetryPolicy = RetryPolicy.SAFE
    by_name: tuple[tuple[str, RetryPolicy], ...] = ()

    @classmethod
    def of(cls, value: PolicyLike) -> Policies:
        """Reads "safe", a RetryPolicy, or {"INCR": "always", "*": "safe"}.

        Raises:
            OptionError: no such policy.
        """
        if not isinstance(value, Mapping):
            return cls(_policy(value))
        named = {str(name).upper(): _policy(policy) for name, policy in value.items()}
        for name in named:
            if name != "*" and name not in FACTS and "." not in name:  # modules have commands that nobody lists
                near = difflib.get_close_matches(name, FACTS, 1)
                hint = f": did you mean {near[0]!r}?" if near else ""
                raise OptionError(f"retry_policy names an unknown command {name!r}{hint}")
        for asked, sent in (("INCR", "INCRBY"), ("DECR", "DECRBY")):  # what redis-py's incr() and decr() send
            if asked in named:
                named.setdefault(sent, named[asked])
        return cls(named.pop("*", RetryPolicy.SAFE), tuple(sorted(named.items(), key=lambda item: item[0])))

    def of_command(self, name: str) -> RetryPolicy:
        """The policy of the command with this canonical name."""
        for known, policy in self.by_name:
            if known == name:
                return policy
        return self.default


def _policy(value: RetryPolicy | str) -> RetryPolicy:
    try:
        return RetryPolicy(value)
    except ValueError:
        known = ", ".join(repr(policy.value) for policy in RetryPolicy)
        raise OptionError(f"retry_policy must be one of {known}, not {value!r}") from None


class RetryBudget:
    """Bounds how many commands are sent again, so that retries never become a storm.

    A bucket of `capacity` tokens; sending a command again costs 5, 500 come back each second. Waiting, and
    trying what was never executed, is free. Written by any thread without a lock: a lost update costs a token.
    """

    def __init__(self, capacity: float, now: float) -> None:
        self._capacity = capacity
        self._tokens = capacity
        self._filled = now

    def take(self, now: float) -> bool:
        """Takes the price of one retry; False when there is not enough."""
        self._tokens = min(self._capacity, self._tokens + max(0.0, now - self._filled) * RETRY_REFILL)
        self._filled = now
        if self._tokens < RETRY_COST:
            return False
        self._tokens -= RETRY_COST
        return True


@dataclass(frozen=True, slots=True)
class Refresh:
    """Look for a newer view of the topology for at most `seconds`, then route again."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Wait:
    """Route again after `seconds`, or as soon as the topology changes."""

    seconds: float


class Verdict(enum.Enum):
    """Why a call ends."""

    FINAL = "the failure is final"
    AMBIGUOUS = "it may have been executed, and repeating it is not safe"
    TIME_UP = "time is up"
    ATTEMPTS_UP = "the attempts are used up"
    BUDGET_UP = "the retry budget is used up"


@dataclass(frozen=True, slots=True)
class GiveUp:
    """The call ends with an error."""

    verdict: Verdict


Step: TypeAlias = "Refresh | Wait | GiveUp"

_REDISCOVER = frozenset(
    {
        Cause.NO_MASTER,
        Cause.UNREACHABLE,
        Cause.NOT_SENT,
        Cause.REPLY_LOST,
        Cause.SILENCE,
        Cause.GARBAGE,
        Cause.WRONG_ROLE,
        Cause.READONLY,
        Cause.NO_REPLICAS,
        Cause.MASTER_DOWN,
        Cause.CLUSTER_DOWN,
        Cause.UNBLOCKED,
    }
)
_ELSEWHERE = frozenset({Cause.READONLY, Cause.NO_REPLICAS, Cause.MASTER_DOWN, Cause.WRONG_ROLE})
"""Only another node would help."""
_AT_ONCE = frozenset({Cause.NOT_SENT, Cause.REPLY_LOST, Cause.SILENCE, Cause.GARBAGE, Cause.NO_SCRIPT})


@dataclass(frozen=True, slots=True)
class Limits:
    """What bounds a call. All times are seconds.

    Attributes:
        failover_timeout: how long a call rides on after its first failure.
        deadline: the moment (same clock as `now`) at which the whole call ends.
        retries: how many more attempts after the first, or None.
        fixed: nobody can name another node, so waiting for one is no use.
    """

    failover_timeout: float
    deadline: float = float("inf")
    retries: int | None = None
    fixed: bool = False


class Attempt:
    """The state of one call that has failed at least once."""

    def __init__(
        self,
        policy: RetryPolicy,
        limits: Limits,
        budget: RetryBudget,
        rng: Random,
        *,
        started: float,
        now: float,
    ) -> None:
        self.started = started
        self.failures = 0
        self.maybe_executed = False
        self.end = min(limits.deadline, now + limits.failover_timeout)
        self.hurried = limits.deadline <= self.end  # the caller's deadline, not our patience, ends it
        self._policy = policy
        self._retries = limits.retries
        self._fixed = limits.fixed
        self._budget = budget
        self._rng = rng
        self._first_sent: float | None = None

    def next(
        self, failure: Failure, kind: CommandClass, now: float, *, waited: bool = False, elsewhere: bool = False
    ) -> Step:
        """The step after `failure` of a command of class `kind`.

        Args:
            failure: what happened.
            kind: of what is still to be done.
            now: the moment.
            waited: the command was waiting on the server for an element, and no byte of a reply had come.
            elsewhere: another node, which this call has not tried yet, may answer it as well.
        """
        self.failures += 1
        if failure.outcome is Outcome.EXECUTED:
            return GiveUp(Verdict.FINAL)
        if self._fixed and failure.cause in _ELSEWHERE and self.failures > 1:
            return GiveUp(Verdict.FINAL)
        if failure.outcome is Outcome.AMBIGUOUS:
            refusal = self._wait_again(now) if waited else self._repeat(kind, now, elsewhere=elsewhere)
            if refusal is not None:
                return GiveUp(refusal)
        if self._policy is RetryPolicy.NEVER or (self._retries is not None and self.failures > self._retries):
            return GiveUp(Verdict.ATTEMPTS_UP)
        if now >= self.end:
            return GiveUp(Verdict.TIME_UP)
        if elsewhere:
            return Wait(0.0)
        return self._step(failure, now)

    def _repeat(self, kind: CommandClass, now: float, *, elsewhere: bool) -> Verdict | None:
        """Why a command that may have been executed must not be sent again, or None.

        A read that goes to a node which it has not tried is no charge on the budget: there are no more than nodes.
        """
        writes = kind is not CommandClass.READ
        self.maybe_executed = self.maybe_executed or writes
        if not self._policy.repeats(kind):
            return Verdict.AMBIGUOUS
        if self._first_sent is None:
            self._first_sent = self.started
        if writes and self._policy is not RetryPolicy.ALWAYS and now - self._first_sent > REPEAT_WINDOW:
            return Verdict.AMBIGUOUS
        return None if (elsewhere and not writes) or self._budget.take(now) else Verdict.BUDGET_UP

    def _wait_again(self, now: float) -> Verdict | None:
        """Why a blocking command must not be issued again, or None.

        It had found nothing to take. If an element came at the very moment at which its connection ended, that went
        with the reply, as if a worker had crashed with it.
        """
        self.maybe_executed = True
        if self._policy is RetryPolicy.NEVER:
            return Verdict.AMBIGUOUS
        return None if self._budget.take(now) else Verdict.BUDGET_UP

    def _step(self, failure: Failure, now: float) -> Step:
        cause = failure.cause
        seconds = 0.0
        if self.failures > 1 or cause not in _AT_ONCE:
            seconds = min(self._rng.uniform(WAIT_MIN, WAIT_MAX), max(0.0, self.end - now))
        return Refresh(seconds) if cause in _REDISCOVER else Wait(seconds)
