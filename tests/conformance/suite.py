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
from typing import TYPE_CHECKING, Any, TypeAlias

from hatopo.testing.real import RealNode, RealSentinelDeployment
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


THROUGH = ("standalone", "sentinel", "replicated")
"""The kinds of deployments: a server by its URL, one that sentinels name, one that says itself that it is a master."""


class NoTests(Exception):
    """redis-py's tests cannot be had: no network, or no such version."""


@dataclass(frozen=True)
class Variant:
    """One way to run the suite; `label` is what expected_failures.txt calls it."""

    version: str
    protocol: str = "default"
    pooled: bool = False
    through: str = "standalone"
    read_from: str = ""

    @property
    def label(self) -> str:
        through = f"{self.through}+{self.read_from}" if self.read_from else self.through
        return f"{self.version}/{self.protocol}/{'pooled' if self.pooled else 'single'}/{through}"


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


Servers: TypeAlias = RealNode | RealSentinelDeployment


@dataclass
class Run:
    """A run under way: the process, its servers, and where its outcomes will be."""

    process: subprocess.Popen[bytes]
    servers: Servers
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
        self.servers.close()
        shutil.rmtree(self.scratch, ignore_errors=True)


def start(client: str, variant: Variant, tests: Sequence[str] = FILES) -> Run:
    """Start the tests through "plain" redis-py or "hatopo", against fresh servers.

    redis-py is given the server itself, whatever hatopo goes through: what passes with it there is the measure.
    """
    home = fetch(variant.version)
    scratch = Path(tempfile.mkdtemp(prefix="hatopo-conformance-"))
    where = importlib.util.find_spec("hatopo")
    assert where is not None
    assert where.origin is not None
    servers, chosen = stage(client, variant)
    plugin = [str(HERE / "inside.py"), json.dumps(chosen), str(Path(where.origin).parent.parent)]
    command = [sys.executable, *plugin, str(scratch / "outcomes"), *options(variant, home, scratch, servers), *tests]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    with (scratch / "output").open("wb") as output:
        process = subprocess.Popen(command, stdout=output, stderr=output, cwd=home, env=environment)
    return Run(process, servers, scratch)


def stage(client: str, variant: Variant) -> tuple[Servers, dict[str, Any]]:
    """Start what the tests run against, and say how they are to connect."""
    chosen = {"client": client, "single": not variant.pooled, "through": variant.through, "options": {}}
    if variant.read_from:
        chosen["options"] = {"read_from": variant.read_from}
    if variant.through != "sentinel":
        server = RealNode(config=PLAIN)
        server.start()
        return server, chosen
    deployment = RealSentinelDeployment(replicas=0, config=PLAIN)
    deployment.start()
    return deployment, {**chosen, "service": deployment.name, "sentinels": deployment.sentinels}


def options(variant: Variant, home: Path, scratch: Path, servers: Servers) -> list[str]:
    """What pytest is told."""
    configuration = scratch / "pytest.ini"
    configuration.write_text(CONFIGURATION)
    server = servers if isinstance(servers, RealNode) else servers.nodes[0]
    url = f"redis://localhost:{server.port}"
    # Other styles parse the source with `ast`, which CPython 3.11 cannot do while a test's left-over thread runs.
    given = [*SELECTION, "-q", "--tb=native", "-p", "no:cacheprovider", "-c", str(configuration)]
    given += [f"--rootdir={home}", f"--redis-url={url}/0", f"--redis-mod-url={url}"]
    return given if variant.protocol == "default" else [*given, f"--protocol={variant.protocol}"]


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
