"""The examples do what the documentation says that they do, run as a reader would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

import hatopo

if TYPE_CHECKING:
    from collections.abc import Mapping

DRILL = Path(__file__).parent.parent / "examples" / "failover_drill.py"


def run_drill(*options: str, path: str | None = None) -> subprocess.CompletedProcess[str]:
    package = str(Path(hatopo.__file__).parent.parent)
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": package, "PATH": path or os.environ["PATH"]}
    command = [sys.executable, str(DRILL), *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=90, check=False)


@pytest.mark.parametrize("options", [(), ("--planned",)], ids=["kill", "planned"])
def test_the_drill_passes(redis_installed: tuple[int, ...], options: tuple[str, ...]) -> None:
    ended = run_drill(*options)
    assert ended.returncode == 0, ended.stdout + ended.stderr
    ledgers = ended.stdout.split("Ledger of the ")[1:]
    assert len(ledgers) == 1 + len(options)
    assert all("doubled 0\n" in ledger and "other errors 0\n" in ledger for ledger in ledgers)
    assert ledgers[0].startswith("kill -9")
    assert "lost 0\n" in ledgers[0]
    assert int(re.findall(r"acknowledged (\d+)", ledgers[0])[0]) > 0


def test_the_drill_says_what_it_needs(tmp_path: Path) -> None:
    ended = run_drill(path=str(tmp_path))
    assert ended.returncode == 2
    assert "redis-server and redis-sentinel" in ended.stderr


def test_the_drill_fails_where_the_application_sees_errors(redis_installed: tuple[int, ...]) -> None:
    ended = run_drill("--client", "redis-py")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert "other errors {" in ended.stdout
