"""Attempt: it ends in time, it never repeats what is not safe to repeat, and it says why it gave up."""

from __future__ import annotations

from random import Random

import pytest
import redis.exceptions as rx
from hypothesis import given
from hypothesis import strategies as st

from hatopo import OptionError, RetryPolicy, errors
from hatopo.routing import (
    Attempt,
    CommandClass,
    Failure,
    GiveUp,
    Limits,
    Outcome,
    Policies,
    Refresh,
    RetryBudget,
    Verdict,
    Wait,
    failure_of,
)

UNREACHABLE = failure_of(errors.DialError("refused"))
NOT_SENT = failure_of(errors.NotSentError("end of connection"))
LOST = failure_of(errors.ReplyLostError("lost"))
SILENT = failure_of(errors.ReplyTimeoutError("silent"))
READONLY = failure_of(rx.ReadOnlyError("You can't write against a read only replica."))
LOADING = failure_of(rx.BusyLoadingError("Redis is loading the dataset in memory"))
WRONG_TYPE = failure_of(rx.ResponseError("WRONGTYPE"))
NON_FINAL = [UNREACHABLE, NOT_SENT, LOST, SILENT, READONLY, LOADING]


def attempt(policy: RetryPolicy = RetryPolicy.SAFE, budget: float = 500, **limits: object) -> Attempt:
    bounds = Limits(**{"failover_timeout": 15.0, **limits})  # type: ignore[arg-type]
    return Attempt(policy, bounds, RetryBudget(budget, 0.0), Random(1), started=0.0, now=0.0)


failures = st.lists(st.tuples(st.sampled_from(NON_FINAL), st.floats(0, 3)), min_size=1, max_size=200)


@given(failures, st.sampled_from(CommandClass), st.sampled_from(RetryPolicy), st.floats(0.1, 20), st.floats(0.1, 20))
def test_it_ends_in_time(
    story: list[tuple[Failure, float]], kind: CommandClass, policy: RetryPolicy, ride: float, deadline: float
) -> None:
    """Whatever fails, no step makes a call wait beyond its deadline or its failover timeout."""
    call = attempt(policy, failover_timeout=ride, deadline=deadline)
    now = 0.0
    for failure, passed in story:
        now += passed
        step = call.next(failure, kind, now)
        if isinstance(step, GiveUp):
            return
        assert now < min(ride, deadline)
        assert now + step.seconds <= min(ride, deadline) + 1e-9
        now += step.seconds


@given(failures, st.sampled_from(RetryPolicy))
def test_an_unsafe_command_is_never_sent_twice(story: list[tuple[Failure, float]], policy: RetryPolicy) -> None:
    """Once INCR may have been executed, only the policy that says so sends it again."""
    call, now = attempt(policy), 0.0
    for failure, passed in story:
        now += passed
        step = call.next(failure, CommandClass.NON_IDEMPOTENT, now)
        if isinstance(step, GiveUp):
            return
        assert failure.outcome is not Outcome.AMBIGUOUS or policy is RetryPolicy.ALWAYS


def test_an_error_reply_ends_the_call() -> None:
    assert attempt().next(WRONG_TYPE, CommandClass.READ, 0.0) == GiveUp(Verdict.FINAL)


@pytest.mark.parametrize(
    ("policy", "repeated"),
    [
        (RetryPolicy.NEVER, set()),
        (RetryPolicy.SAFE, {CommandClass.READ, CommandClass.REPEATABLE}),
        (RetryPolicy.STATE, {CommandClass.READ, CommandClass.REPEATABLE, CommandClass.STATE_STABLE}),
        (RetryPolicy.ALWAYS, set(CommandClass)),
    ],
)
def test_what_each_policy_repeats(policy: RetryPolicy, repeated: set[CommandClass]) -> None:
    for kind in CommandClass:
        step = attempt(policy).next(LOST, kind, 0.0)
        assert isinstance(step, Refresh) == (kind in repeated), kind
        if kind not in repeated:
            assert step == GiveUp(Verdict.AMBIGUOUS)


def test_a_write_is_sent_again_only_for_a_while() -> None:
    """Later it might overwrite what somebody else wrote since."""
    assert isinstance(attempt().next(LOST, CommandClass.REPEATABLE, 4.9), Refresh)
    assert attempt().next(LOST, CommandClass.REPEATABLE, 5.1) == GiveUp(Verdict.AMBIGUOUS)
    assert isinstance(attempt().next(LOST, CommandClass.READ, 5.1), Refresh)


def test_a_lost_connection_is_replaced_at_once_and_the_next_waits() -> None:
    call = attempt()
    first, second = call.next(NOT_SENT, CommandClass.READ, 0.0), call.next(NOT_SENT, CommandClass.READ, 0.0)
    assert first == Refresh(0.0)
    assert isinstance(second, Refresh)
    assert second.seconds > 0


def test_a_busy_node_is_waited_for_without_looking_for_another() -> None:
    assert isinstance(attempt().next(LOADING, CommandClass.READ, 0.0), Wait)


def test_where_nobody_can_name_another_node_its_refusal_is_final() -> None:
    call = attempt(fixed=True)
    assert isinstance(call.next(READONLY, CommandClass.NON_IDEMPOTENT, 0.0), Refresh)  # a name may lead elsewhere now
    assert call.next(READONLY, CommandClass.NON_IDEMPOTENT, 0.0) == GiveUp(Verdict.FINAL)


@pytest.mark.parametrize("retries", [0, 1, 5])
def test_retries_bound_the_attempts(retries: int) -> None:
    call = attempt(retries=retries)
    for _ in range(retries):
        assert isinstance(call.next(UNREACHABLE, CommandClass.READ, 0.0), Refresh)
    assert call.next(UNREACHABLE, CommandClass.READ, 0.0) == GiveUp(Verdict.ATTEMPTS_UP)


def test_never_means_not_even_what_was_not_executed() -> None:
    assert attempt(RetryPolicy.NEVER).next(UNREACHABLE, CommandClass.READ, 0.0) == GiveUp(Verdict.ATTEMPTS_UP)


def test_the_budget_stops_a_storm_and_refills() -> None:
    budget = RetryBudget(500, 0.0)
    assert [budget.take(0.0) for _ in range(101)] == [True] * 100 + [False]
    assert [budget.take(0.1) for _ in range(11)] == [True] * 10 + [False]  # 500 tokens a second
    assert [budget.take(1000.0) for _ in range(101)] == [True] * 100 + [False]  # never more than its capacity


def test_a_read_that_others_can_answer_costs_no_budget() -> None:
    """All connections to a node end with it; each read that was under way is asked of another one, once."""
    given_up = GiveUp(Verdict.BUDGET_UP)
    assert attempt(budget=0).next(LOST, CommandClass.READ, 0.0, elsewhere=True) == Wait(0.0)
    assert attempt(budget=0).next(LOST, CommandClass.READ, 0.0) == given_up
    assert attempt(budget=0).next(LOST, CommandClass.REPEATABLE, 0.0, elsewhere=True) == given_up


def test_waiting_costs_no_budget() -> None:
    call = attempt(failover_timeout=1000.0)
    steps = [call.next(UNREACHABLE, CommandClass.READ, 0.0) for _ in range(300)]
    assert all(isinstance(step, Refresh) for step in steps)


def test_policies_by_name() -> None:
    policies = Policies.of({"incr": "always", "*": RetryPolicy.STATE})
    assert policies.of_command("INCR") is RetryPolicy.ALWAYS
    assert policies.of_command("DECR") is RetryPolicy.STATE
    assert Policies.of("never").of_command("INCR") is RetryPolicy.NEVER
    with pytest.raises(OptionError, match="'safe', 'state', 'always', 'never'"):
        Policies.of("sometimes")


@pytest.mark.parametrize("policy", RetryPolicy)
def test_a_blocking_pop_that_had_waited_is_issued_again(policy: RetryPolicy) -> None:
    step = attempt(policy).next(LOST, CommandClass.NON_IDEMPOTENT, 10.0, waited=True)
    assert isinstance(step, GiveUp) == (policy is RetryPolicy.NEVER), "however long it has waited"


def test_a_blocking_pop_that_is_given_up_later_may_have_been_executed() -> None:
    call = attempt()
    call.next(LOST, CommandClass.NON_IDEMPOTENT, 0.0, waited=True)
    assert call.maybe_executed
