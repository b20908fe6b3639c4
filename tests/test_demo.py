"""`hatopo demo` does what the documentation says that it does, run as a reader would run it."""

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

Ledger = dict[str, list[str]]


def run_demo(*options: str, path: str = "") -> subprocess.CompletedProcess[str]:
    """Run it; on the PATH is nothing, unless a test says otherwise."""
    package = str(Path(hatopo.__file__).parent.parent)
    environment: Mapping[str, str] = {**os.environ, "PYTHONPATH": package, "PATH": path}
    command = [sys.executable, "-m", "hatopo.cli", "demo", *options]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=100, check=False)


def experiments(printed: str) -> dict[str, str]:
    """What was printed of each; of the last try, where the machine stood still and there was more than one."""
    parts = re.split(r"^(\w+): .*\n", printed.partition("client.stats()")[0], flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


def ledgers(printed: str) -> dict[str, Ledger]:
    """By experiment, the rows of its ledger: what the readers have, and the writers."""
    found = {}
    for title, part in experiments(printed).items():
        lines = part.partition(f"ledger of {title}")[2].strip().splitlines()
        rows = [re.split(r"\s{2,}", line.strip()) for line in lines]
        found[title] = {row[0]: row[1:] for row in rows}
    return found


def assert_passed(ended: subprocess.CompletedProcess[str], *titles: str) -> None:
    """These experiments, in this order, and every ledger is as it must be."""
    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert ended.stderr == ""
    found = ledgers(ended.stdout)
    assert list(found) == [*titles]
    for title, ledger in found.items():
        assert all(int(count) > 0 for count in ledger["acknowledged"])
        assert ledger["AmbiguousResultError"][0] == "0"
        assert int(ledger["AmbiguousResultError"][1]) <= 3  # one for each writer
        assert ledger["other errors"] == ["0", "0"]
        assert ledger["doubled"] == ["-", "0"]
        assert "passed" in ledger
        if title not in ("planned", "scale"):
            assert ledger["lost"] == ["-", "0"]
        assert int(ledger["went back by"][0].removesuffix(" ms")) <= 200, "one replica is a moment behind another"


def switches(printed: str) -> list[str]:
    """What hatopo has said of the masters that it follows."""
    return re.findall(r" hatopo +commands go to ([A-Z]) instead of [A-Z], ", printed)


def all_switches(printed: str) -> int:
    """How often the master has changed, also while the set was repaired and nothing was shown: by who it is next."""
    count, master = 0, "A"
    told = r"commands go to ([A-Z]) instead of ([A-Z]), |FAULT +the (?:connections to the )?master, ([A-Z]), "
    for new, old, broken in re.findall(told, printed):
        count += (old or broken) != master
        count += bool(new)
        master = new or broken
    return count


def test_the_demo_passes_without_a_server_on_the_path() -> None:
    ended = run_demo()
    assert_passed(ended, "kill", "planned", "blind")
    shown = experiments(ended.stdout)
    assert [len(switches(part)) for part in shown.values()] == [1, 1, 0]
    assert [part.count("FAULT") for part in shown.values()] == [1, 1, 1]
    assert re.search(rf"failovers +{all_switches(ended.stdout)} *\n", ended.stdout)
    assert re.search(r" S[123] +\+switch-master: A -> [BC]\n", ended.stdout)


def test_the_other_experiments_pass() -> None:
    ended = run_demo("--only", "double,scale")
    assert_passed(ended, "double", "scale")
    shown = experiments(ended.stdout)
    assert len(switches(shown["double"])) == 1
    assert switches(shown["scale"]) == ["D"], "the replica that came has been promoted"


def test_all_are_five() -> None:
    ended = run_demo("--all", "--only", "none")
    assert ended.returncode == 2
    assert "the experiments are kill, planned, blind, double, scale" in ended.stderr


def test_the_demo_refuses_what_it_does_not_know() -> None:
    ended = run_demo("--only", "kill,sacle")
    assert ended.returncode == 2
    assert "kill, planned, blind, double, scale" in ended.stderr
    assert "starting" not in ended.stdout


def test_the_demo_fails_where_writes_are_lost() -> None:
    """redis-py goes on with the old master of a planned failover until that is demoted."""
    ended = run_demo("--client", "redis-py", "--only", "planned")
    assert ended.returncode == 1, ended.stdout + ended.stderr
    assert int(ledgers(ended.stdout)["planned"]["lost"][1]) > 0
    assert "FAILED: writes were lost" in ended.stdout


@pytest.mark.parametrize("missing", ["rich", "fakeredis", "lupa"])
def test_the_demo_names_the_extra_that_is_missing(missing: str) -> None:
    package = str(Path(hatopo.__file__).parent.parent)
    code = f"import sys; sys.modules[{missing!r}] = None; from hatopo.cli import main; main(['demo'])"
    command = [sys.executable, "-c", code]
    environment = {**os.environ, "PYTHONPATH": package}
    ended = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=60, check=False)
    assert ended.returncode == 2, ended.stdout + ended.stderr
    assert ended.stderr == f"'hatopo demo' needs {missing}: pip install 'hatopo[demo]'\n"


@pytest.mark.timeout(330)
def test_the_demo_passes_on_real_processes(redis_installed: tuple[int, ...]) -> None:
    for _ in range(3):
        ended = run_demo("--backend", "real", "--only", "kill", path=os.environ["PATH"])
        # A stall of the machine looks like a dead master to sentinels that wait for no more than a second.
        if len(set(re.findall(r"\+switch-master: (. -> .)", ended.stdout))) < 2:
            break
    assert_passed(ended, "kill")
    assert len(switches(experiments(ended.stdout)["kill"])) == 1
