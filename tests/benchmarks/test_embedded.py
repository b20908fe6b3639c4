"""The benchmark of the embedded servers runs and shows every figure. What it measures is not judged here."""

from __future__ import annotations

import shutil

import pytest

from tests.benchmarks.embedded import main


def test_every_figure_is_shown(capsys: pytest.CaptureFixture[str]) -> None:
    if shutil.which("redis-benchmark") is None:
        pytest.skip("redis-benchmark is not on the PATH")
    main(["--rounds", "1", "--n", "1000"])
    rows = [line.rsplit(maxsplit=2) for line in capsys.readouterr().out.splitlines()]
    assert [row[2] for row in rows] == ["ms", "ms", "ms", "/s", "/s"]
    assert all(float(row[1]) > 0 for row in rows)
