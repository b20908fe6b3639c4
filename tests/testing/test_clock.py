"""Clocks: what is due happens in order, each at its own moment, however late the machine is; and time is a test's."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from hatopo.testing import Clock, ManualClock, Node, RealClock, Replication, ScaledClock
from hatopo.testing.world._loop import LOOP


@pytest.fixture(autouse=True)
def _thread() -> Iterator[None]:
    LOOP.acquire()
    yield
    LOOP.release()


class Log:
    """What has happened, and at what time of its clock."""

    def __init__(self, clock: Clock) -> None:
        self.clock, self.start = clock, clock.now
        self.seen: list[tuple[str, float]] = []
        self._more = threading.Condition()

    def note(self, name: str) -> None:
        with self._more:
            self.seen.append((name, round(self.clock.now - self.start, 6)))
            self._more.notify_all()

    def wait_for(self, count: int) -> list[tuple[str, float]]:
        with self._more:
            assert self._more.wait_for(lambda: len(self.seen) >= count, 10), self.seen
        return self.seen

    @property
    def names(self) -> list[str]:
        return [name for name, _ in self.seen]


def on_thread(function: Callable[[], object]) -> None:
    LOOP.call(function)


def cancelled(clock: Clock, log: Log, delay: float) -> None:
    on_thread(lambda: clock.after(delay, log.note, "cancelled").cancel())


def test_a_manual_clock_stands_still_until_it_is_advanced() -> None:
    clock = ManualClock(1000.0)
    log = Log(clock)
    on_thread(lambda: [clock.after(2, log.note, "late"), clock.after(1, log.note, "early")])
    clock.advance(0.5)
    assert (clock.now, log.seen) == (1000.5, [])
    clock.advance(10)
    assert (clock.now, log.seen) == (1010.5, [("early", 1.0), ("late", 2.0)])


def test_what_is_due_at_one_moment_happens_in_the_order_in_which_it_was_asked_for() -> None:
    clock = ManualClock()
    log = Log(clock)
    on_thread(lambda: [clock.after(1, log.note, str(number)) for number in range(20)])
    clock.advance(1)
    assert log.names == [str(number) for number in range(20)]


def test_a_timer_that_a_timer_sets_still_happens_in_its_place() -> None:
    clock = ManualClock()
    log = Log(clock)

    def chain(left: int) -> None:
        log.note(f"chain {left}")
        if left:
            clock.after(1, chain, left - 1)

    on_thread(lambda: [clock.after(1, chain, 2), clock.after(2.5, log.note, "between"), clock.after(9, log.note, "x")])
    clock.advance(5)
    assert log.seen == [("chain 2", 1.0), ("chain 1", 2.0), ("between", 2.5), ("chain 0", 3.0)]


def test_time_does_not_run_backwards() -> None:
    clock = ManualClock(5.0)
    with pytest.raises(ValueError, match="backwards"):
        clock.advance(-1)
    for seconds in (float("inf"), float("nan")):
        with pytest.raises(ValueError, match="finite"):
            clock.advance(seconds)
    log = Log(clock)
    on_thread(lambda: clock.after(-3, log.note, "past"))
    clock.advance(0)
    assert log.seen == [("past", 0.0)]


def test_without_a_deployment_a_manual_clock_says_so() -> None:
    LOOP.release()
    try:
        with pytest.raises(RuntimeError, match="no deployment runs"):
            ManualClock().advance(1)
    finally:
        LOOP.acquire()


def test_what_is_late_happens_in_order_and_each_at_its_own_moment() -> None:
    clock = RealClock(0.0)
    log = Log(clock)
    stall = threading.Event()

    def begin() -> None:
        for due in (0.003, 0.001, 0.002):
            clock.after(due, log.note, f"{due}")
        deadline = time.monotonic() + 0.005
        while time.monotonic() < deadline:  # the loop is busy until all of them are late
            pass
        stall.set()

    on_thread(begin)
    assert stall.is_set()
    assert log.wait_for(3) == [("0.001", 0.001), ("0.002", 0.002), ("0.003", 0.003)]


def test_an_error_in_a_timer_is_logged_and_stops_nobody(caplog: pytest.LogCaptureFixture) -> None:
    clock = ManualClock()
    log = Log(clock)

    def fail() -> None:
        raise LookupError("of a timer")

    on_thread(lambda: [clock.after(1, fail), clock.after(1, log.note, "next")])
    with caplog.at_level(logging.ERROR, "hatopo.testing"):
        clock.advance(1)
    assert log.names == ["next"]
    assert "of a timer" in caplog.text


def test_a_cancelled_timer_does_not_happen() -> None:
    clock = ManualClock()
    log = Log(clock)
    cancelled(clock, log, 1)
    on_thread(lambda: clock.after(2, log.note, "kept"))
    clock.advance(3)
    assert log.names == ["kept"]


def test_a_cancelled_timer_does_not_keep_the_next_one_from_happening() -> None:
    clock = RealClock()
    log = Log(clock)
    cancelled(clock, log, 0.001)
    on_thread(lambda: clock.after(0.002, log.note, "kept"))
    assert [name for name, _ in log.wait_for(1)] == ["kept"]


def test_cancelled_timers_are_not_kept_until_they_are_due() -> None:
    clock = ManualClock()
    log = Log(clock)
    on_thread(lambda: [clock.after(3, log.note, "kept"), clock.after(2, log.note, "before")])
    for _ in range(1000):
        cancelled(clock, log, 1e6)
    assert len(clock._heap) < 200
    clock.advance(4)
    assert log.names == ["before", "kept"]
    clock.advance(1e6)
    assert (clock._heap, clock.cancelled) == ([], 0)


def test_a_timer_that_is_cancelled_twice_or_late_is_counted_once() -> None:
    clock = ManualClock()
    log = Log(clock)
    timers = LOOP.call(lambda: [clock.after(delay, log.note, "x") for delay in (1, 2)])
    clock.advance(1)
    for timer in timers * 2:
        on_thread(timer.cancel)
    assert clock.cancelled == 1


def test_the_timers_of_an_owner_end_with_it() -> None:
    clock, ended = ManualClock(), object()
    log = Log(clock)
    on_thread(lambda: [clock.after(1, log.note, "ended", owner=ended), clock.after(1, log.note, "lives", owner="x")])
    on_thread(lambda: clock.drop(ended))
    clock.advance(2)
    assert log.names == ["lives"]


def test_a_scaled_clock_is_faster_for_servers_than_for_their_clients() -> None:
    clock = ScaledClock(1000, start=0.0)
    log = Log(clock)
    on_thread(lambda: clock.after(30, log.note, "servers'"))  # half a minute of theirs
    log.wait_for(1)
    on_thread(clock.catch_up)
    assert clock.now >= 30 > clock.data.now


@pytest.mark.parametrize("speed", [0, -1, float("inf"), float("nan")])
def test_a_speed_must_be_a_positive_number(speed: float) -> None:
    with pytest.raises(ValueError, match="speed"):
        ScaledClock(speed)
    with pytest.raises(ValueError, match="speed"):
        ScaledClock(2).speed = speed


def test_a_timer_that_waits_follows_a_change_of_speed() -> None:
    clock = ScaledClock(0.001, start=0.0)
    log = Log(clock)
    on_thread(lambda: clock.after(100, log.note, "due"))  # more than a day, at this speed
    clock.speed = 1_000_000
    assert clock.speed == 1_000_000
    assert log.wait_for(1) == [("due", 100.0)]


def test_a_change_of_speed_is_no_jump() -> None:
    clock = ScaledClock(1_000_000, start=0.0)
    log = Log(clock)
    on_thread(lambda: clock.after(1000, log.note, "before"))
    log.wait_for(1)
    on_thread(clock.catch_up)
    before = clock.now
    clock.speed = 0.000001
    on_thread(clock.catch_up)
    slow = clock.now
    on_thread(clock.catch_up)
    assert before <= slow
    assert clock.now - slow < 1  # an hour of the wall's is less than 0.004 s now


def test_deployments_can_share_a_clock() -> None:
    clock = ManualClock()
    with Node(clock=clock) as one, Node(clock=clock) as other:
        for node in (one, other):
            node.execute("SET", "k", "v", "EX", 100)
        clock.advance(40)
        assert [node.execute("TTL", "k") for node in (one, other)] == [60, 60]
    with Node(clock=clock) as third:  # and outlives them
        third.execute("SET", "k", "v", "EX", 10)
        clock.advance(11)
        assert third.execute("GET", "k") is None


def test_the_end_of_one_deployment_leaves_the_timers_of_another_on_a_shared_clock() -> None:
    clock = ManualClock()
    with Replication(1, clock=clock) as stays:
        with Node(clock=clock):
            pass
        stays.replicas()[0].set_lag(seconds=5)
        stays.master().execute("SET", "k", "v")
        clock.advance(4)
        assert stays.replicas()[0].execute("GET", "k") is None
        clock.advance(2)
        assert stays.replicas()[0].execute("GET", "k") == "v"


def test_a_deployment_of_a_manual_clock_needs_no_real_time_to_start() -> None:
    clock = ManualClock(1_000_000.0)
    with Replication(2, clock=clock) as deployment:
        seconds, micros = deployment.master().execute("TIME")
        assert abs(int(seconds) - clock.now) <= 1
        assert clock.now - 1_000_000 < 60
        assert int(micros) < 1_000_000


def test_clocks_say_what_they_are() -> None:
    assert [repr(clock) for clock in (RealClock(), ScaledClock(20), ManualClock())] == [
        "RealClock()",
        "ScaledClock(20)",
        "ManualClock()",
    ]
