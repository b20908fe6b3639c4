"""The benchmark of reading runs and shows every figure. What it measures is not judged here."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from tests.benchmarks import reading
from tests.benchmarks.reading import main

if TYPE_CHECKING:
    import pytest


def test_every_figure_is_shown(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "SETTLE", 0.1)
    monkeypatch.setattr(reading, "JITTER", 0.0)
    few = ["--runs", "1", "--hold", "0.2", "--reads", "400", "--rounds", "2", "--n", "200"]
    main(["--backend", "embedded", "--faults", "kill", "--policies", "any", *few])
    shown = capsys.readouterr().out
    for row in (
        r"kill +any +0 +[\d.]+ s +[\d.]+ s +[\d.]+ s$",
        r"400 reads, 3 equal replicas, 1 thread +[\d.]+% / [\d.]+% / [\d.]+% ",
        r"400 reads, 3 equal replicas, 8 threads +[\d.]+% / [\d.]+% / [\d.]+% ",
        r"the old master is demoted +\d+ +0 +[\d.]+ s +[\d.]+ s +[\d.]+ s +\d+$",
        r"the old one says that it is a master, too +\d+ +0 +[\d.]+ s +[\d.]+ s +[\d.]+ s +0$",
        r"floor +[\d.]+ +[\d.]+ +0.000$",
        r"redis-py +[\d.]+ +[\d.]+ +1.000$",
        r"MASTER +[\d.]+ +[\d.]+ +-?[\d.]+$",
        r"REPLICA_PREFERRED +[\d.]+ +[\d.]+ +-?[\d.]+$",
        r"REPLICA_PREFERRED more than MASTER +-?[\d.]+ +-?[\d.]+ ",
        r"idle: a client that asks 2 nodes +\d+ us of CPU in a second$",
        r"the reads were answered by +localhost:\d+$",
    ):
        assert re.search(row, shown, re.MULTILINE), f"no row {row!r} in\n{shown}"
    assert "never" not in shown
