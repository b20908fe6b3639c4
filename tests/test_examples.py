"""The examples do what the documentation says that they do, run as a reader would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import hatopo

if TYPE_CHECKING:
    from collections.abc import Mapping

DRILL = Path(__file__).parent.parent / "examples" / "failover_drill.py"


def run_drill(*options: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    package = str(Path(hatopo.__file__).parent.parent)
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": package, "PATH": path or os.environ["PATH"]}
    command = [sys.executable, str(DRILL), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)


def ledgers(printed: str) -> dict[str, dict[str, list[str]]]:
    """By experiment, the rows of its ledger: what the readers have, and the writers."""
    found = {}
    for part in printed.split("ledger of ")[1:]:
        title, *lines = part.split("\n\n")[0].splitlines()
        rows = [re.split(r"\s{2,}", line.strip()) for line in lines]
        found[title.split()[0]] = {row[0]: row[1:] for row in rows}
    return found


def test_the_drill_passes(redis_installed: tuple[int, ...]) -> None:
    ended = run_drill()
    assert ended.returncode == 0, ended.stdout + ended.stderr
    found = ledgers(ended.stdout)
    assert list(found) == ["kill", "planned", "double"]
    for ledger in found.values():
        assert all(int(count) > 0 for count in ledger["acknowledged"])
        assert ledger["other errors"] == ["0", "0"]
        assert ledger["doubled"] == ["-", "0"]
        assert "passed" in ledger
    assert found["kill"]["lost"] == found["double"]["lost"] == ["-", "0"]
    assert ended.stdout.count("hatopo  commands go to ") == 3
    assert re.search(r"failovers +3\n", ended.stdout)


def test_the_drill_says_what_it_needs(tmp_path: Path) -> None:
    ended = run_drill(path=str(tmp_path))
    assert ended.returncode == 2
    assert "redis-server and redis-sentinel" in ended.stderr


def test_the_drill_refuses_what_it_does_not_know() -> None:
    ended = run_drill("--only", "kill,sacle")
    assert ended.returncode == 2
    assert "kill, planned, blind, double, scale" in ended.stderr


def test_the_drill_fails_where_writes_are_lost(redis_installed: tuple[int, ...]) -> None:
    """redis-py goes on with the old master of a planned failover until that is demoted."""
    ended = run_drill("--client", "redis-py", "--only", "planned")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert int(ledgers(ended.stdout)["planned"]["lost"][1]) > 0
    assert "FAILED: writes were lost" in ended.stdout
