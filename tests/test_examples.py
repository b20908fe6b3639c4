"""The examples do what the documentation says that they do, run as a reader would run them."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import hatopo

EXAMPLE = Path(__file__).parent.parent / "examples" / "test_failover.py"
TESTS = {
    "test_a_seat_is_sold_once",
    "test_the_master_is_killed",
    "test_a_planned_failover",
    "test_nobody_knows_whether_it_was_executed",
    "test_a_reply_is_lost[drop_before]",
    "test_a_reply_is_lost[drop_after_execute]",
    "test_two_sentinels_go_with_the_master",
    "test_redis_py_on_asyncio",
}
NO_PROCESS_CAN = {name for name in TESTS if "reply_is_lost" in name or "nobody_knows" in name}


def run_example(*options: str, path: str = "") -> dict[str, str]:
    """Run the tutorial's tests; by test, what became of it. On the PATH is nothing unless a test says otherwise."""
    package = str(Path(hatopo.__file__).parent.parent)
    environment = {**os.environ, "PYTHONPATH": package, "PATH": path}
    command = [sys.executable, "-m", "pytest", "-v", "-p", "no:cacheprovider", str(EXAMPLE), *options]
    ended = subprocess.run(
        command, cwd=EXAMPLE.parent.parent, env=environment, capture_output=True, text=True, timeout=280, check=False
    )
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return dict(re.findall(r"::(\S+) ([A-Z]+)", ended.stdout))


@pytest.mark.timeout(300)
def test_the_tests_of_the_tutorial_pass_without_a_server_on_the_path() -> None:
    assert run_example() == dict.fromkeys(TESTS, "PASSED")


@pytest.mark.timeout(300)
def test_the_tests_of_the_tutorial_pass_on_real_processes(redis_installed: tuple[int, ...]) -> None:
    found = run_example("--hatopo-backend=real", "-p", "tests.unhurried", path=os.environ["PATH"])
    assert found == dict.fromkeys(TESTS, "PASSED") | dict.fromkeys(NO_PROCESS_CAN, "SKIPPED")
