"""Fetches redis-py's tests, runs them through a client, and compares two runs."""

from __future__ import annotations

import fnmatch
import importlib.metadata
import importlib.util
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from hatopo.testing.real import RealNode
from tests.servers import PLAIN

if TYPE_CHECKING:
    from collections.abc import Sequence

HERE = Path(__file__).resolve().parent
CACHE = HERE.parent.parent / ".cache" / "redis-py-tests"
EXPECTED = HERE / "expected_failures.txt"
FILES = [
    "tests/test_commands.py",
    "tests/test_encoding.py",
    "tests/test_lock.py",
    "tests/test_monitor.py",
    "tests/test_pipeline.py",
    "tests/test_pubsub.py",
    "tests/test_scripting.py",
]
# test_auth leaves a password on the server for the tests after it.
SELECTION = ["-m", "not onlycluster and not redismod", "-k", "not test_auth"]
# redis-py's own configuration, as far as these tests need it: hatopo's must not reach into them.
CONFIGURATION = """\
[pytest]
asyncio_mode = auto
asyncio_default_fixture_loop_scope = function
timeout = 30
filterwarnings =
    ignore
"""


class NoTests(Exception):
    """redis-py's tests cannot be had: no network, or no such version."""


@dataclass(frozen=True)
class Variant:
    """One way to run the suite; `label` is what expected_failures.txt calls it."""

    version: str
    protocol: str = "default"
    pooled: bool = False

    @property
    def label(self) -> str:
        return f"{self.version}/{self.protocol}/{'pooled' if self.pooled else 'single'}"


@dataclass(frozen=True)
class Outcome:
    result: str
    text: str = ""


def installed_version() -> str:
    return importlib.metadata.version("redis")


def fetch(version: str) -> Path:
    """The directory that holds the `tests` package of that version of redis-py."""
    home = (CACHE / version).resolve()
    if home.exists():
        return home
    CACHE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=CACHE) as scratch:
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        wanted = ["--no-binary", ":all:", "--dest", scratch, f"redis=={version}"]
        ended = subprocess.run([*pip, *wanted], capture_output=True, text=True, check=False)
        archives = list(Path(scratch).glob("redis-*.tar.gz"))
        if ended.returncode != 0 or not archives:
            raise NoTests(f"pip cannot fetch the source distribution of redis {version}:\n{ended.stderr[-1000:]}")
        unpacked = Path(scratch, "unpacked")
        with tarfile.open(archives[0]) as archive:
            members = [one for one in archive.getmembers() if one.name.startswith(f"redis-{version}/tests/")]
            archive.extractall(unpacked, members, filter="data")
        try:
            (unpacked / f"redis-{version}").rename(home)
        except OSError:  # another process was faster
            if not home.exists():
                raise
    return home


@dataclass
class Run:
    """A run under way: the process, its server, and where its outcomes will be."""

    process: subprocess.Popen[bytes]
    server: RealNode
    scratch: Path

    def finish(self, seconds: float = 600) -> dict[str, Outcome]:
        try:
            self.process.wait(seconds)
            report = self.scratch / "outcomes"
            if not report.exists():
                raise RuntimeError(f"the run ended without a report:\n{self.output()[-3000:]}")
            lines = map(json.loads, report.read_text().splitlines())
            outcomes = {name: Outcome(result, text) for name, result, text in lines}
            broken_off = Outcome("unfinished", self.output()[-3000:])
            return {name: broken_off if found.result == "unfinished" else found for name, found in outcomes.items()}
        finally:
            self.abandon()

    def output(self) -> str:
        return (self.scratch / "output").read_text(errors="replace")

    def abandon(self) -> None:
        self.process.kill()
        self.process.wait()
        self.server.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


def start(client: str, variant: Variant, tests: Sequence[str] = FILES) -> Run:
    """Start the tests through "plain" redis-py or "hatopo", against a fresh server."""
    home = fetch(variant.version)
    scratch = Path(tempfile.mkdtemp(prefix="hatopo-conformance-"))
    configuration = scratch / "pytest.ini"
    configuration.write_text(CONFIGURATION)
    server = RealNode(config=PLAIN)
    server.start()
    url = f"redis://localhost:{server.port}"
    options = [*tests, *SELECTION, "-q", "-p", "no:cacheprovider", "-c", str(configuration)]
    # Other styles parse the source with `ast`, which CPython 3.11 cannot do while a test's left-over thread runs.
    options.append("--tb=native")
    options += [f"--rootdir={home}", f"--redis-url={url}/0", f"--redis-mod-url={url}"]
    if variant.protocol != "default":
        options.append(f"--protocol={variant.protocol}")
    where = importlib.util.find_spec("hatopo")
    assert where is not None
    assert where.origin is not None
    plugin = [str(HERE / "inside.py"), client, "pooled" if variant.pooled else "single"]
    command = [sys.executable, *plugin, str(Path(where.origin).parent.parent), str(scratch / "outcomes"), *options]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    with (scratch / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=home, env=environment)
    return Run(process, server, scratch)


@dataclass(frozen=True)
class Expectation:
    """A line of expected_failures.txt: a pattern of variants, a test, and why hatopo differs there."""

    variants: str
    test: str
    reason: str


def expectations(variant: Variant, path: Path = EXPECTED) -> dict[str, str]:
    """Test and reason, for those lines that speak of this variant."""
    found = (parse(line) for line in path.read_text().splitlines() if line.strip() and line[0] != "#")
    return {one.test: one.reason for one in found if fnmatch.fnmatchcase(variant.label, one.variants)}


def parse(line: str) -> Expectation:
    where, _, reason = line.partition(" # ")
    variants, _, test = where.strip().partition(" ")
    if not (test and reason.strip()):
        raise ValueError(f"not 'variants test # reason': {line!r}")
    return Expectation(variants, test.strip(), reason.strip())


@dataclass(frozen=True)
class Comparison:
    """Which tests pass with redis-py and not through hatopo, and which of those nobody expected."""

    lost: dict[str, Outcome]
    expected: dict[str, str]
    wrongly_expected: list[str]

    @property
    def good(self) -> bool:
        return not self.lost and not self.wrongly_expected


def compare(plain: dict[str, Outcome], ours: dict[str, Outcome], expected: dict[str, str]) -> Comparison:
    if any(outcome.result == "unfinished" for outcome in plain.values()):
        raise ValueError("the run that is to be the measure broke off")
    differing = {
        name: ours.get(name, Outcome("missing"))
        for name, outcome in plain.items()
        if outcome.result == "passed" and ours.get(name, Outcome("missing")).result != "passed"
    }
    return Comparison(
        lost={name: outcome for name, outcome in differing.items() if name not in expected},
        expected={name: expected[name] for name in differing if name in expected},
        wrongly_expected=[name for name in expected if name in ours and ours[name].result == "passed"],
    )
