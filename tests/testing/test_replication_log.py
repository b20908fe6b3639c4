"""The history of a data set, by itself: offsets, ids, and who can go on from where."""

from __future__ import annotations

from hatopo.testing.engine._engine import Snapshot, Value
from hatopo.testing.replication._log import NO_ID, Change, FullSync, History, Published, Swap


def _history(limit: int = 1000) -> History:
    ids = iter("abcdefgh")
    return History(lambda: next(ids), lambda: limit)


def _value(db: int, key: bytes) -> Value:
    return Value(b"%d:%b now" % (db, key))


def test_a_history_without_a_backlog_stands_still() -> None:
    history = _history()
    assert (history.id, history.offset, history.length) == ("a", 0, 0)
    assert not history.covers("a", 1)
    history.begin()
    assert (history.id, history.first, history.length) == ("b", 1, 0)
    assert history.covers("b", 1)
    assert not history.covers("a", 1)
    assert not history.covers("b", 2)


def test_a_history_sends_again_what_has_changed_with_the_values_of_now() -> None:
    history = _history()
    history.begin()
    first = history.add_changes([Change(0, b"k", Value(b"1"))])
    message = Published(b"c", b"m", "message")
    history.add_message(message)
    last = history.add_changes([Change(0, b"k", Value(b"2")), Change(1, b"l", None)])
    rest = history.since(first.end + 1, _value)
    assert (rest.start, rest.end) == (first.end, last.end)
    assert rest.actions == (Change(0, b"k", _value(0, b"k")), Change(1, b"l", _value(1, b"l")), message)
    assert history.since(last.end + 1, _value).actions == ()


def test_a_history_forgets_what_is_long_ago_but_never_the_last() -> None:
    history = _history(limit=100)
    history.begin()
    for _ in range(10):
        history.add_ping()
    assert (history.length, history.first) == (98, history.offset - 97)
    assert history.covers("b", history.first)
    assert not history.covers("b", history.first - 1)
    history.add_changes([Change(0, b"k", Value(b"x" * 1000))])
    assert history.covers("b", history.offset + 1)
    assert not history.covers("b", history.first - 1)


def test_a_history_that_branches_is_known_by_both_names_up_to_there() -> None:
    history = _history()
    history.begin()
    history.add_ping()
    branched = history.offset + 1
    history.branch()
    history.add_ping()
    assert (history.id, history.second_id, history.second_offset) == ("c", "b", branched)
    assert history.covers("b", branched)
    assert not history.covers("b", branched + 1)
    assert history.covers("c", branched + 1)
    assert not history.covers(NO_ID, branched)


def test_a_history_does_not_repeat_a_swap() -> None:
    history = _history()
    history.begin()
    history.add_ping()
    swap = history.add_swap(Swap(0, 1))
    assert not history.covers("b", swap.start + 1)
    assert history.covers("b", swap.end + 1)


def test_a_history_that_is_adopted_begins_there() -> None:
    history = _history()
    history.adopt(FullSync("f" * 40, 500, Snapshot({})))
    assert (history.id, history.offset, history.first, history.length) == ("f" * 40, 500, 501, 0)
    assert history.covers("f" * 40, 501)
    assert not history.covers("f" * 40, 500)
