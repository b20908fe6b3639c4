"""What the documentation lists is what the code does."""

from __future__ import annotations

import re
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

import hatopo.testing
from hatopo import events
from hatopo.testing import NodeHandle, SentinelDeployment, SentinelHandle
from hatopo.testing.real import RealNode, RealSentinel, RealSentinelDeployment
from hatopo.topology import CHANNELS

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [*sorted(DOCS.rglob("*.md")), ROOT / "README.md"]


def blocks(page: Path, language: str) -> list[str]:
    """The blocks of code on a page, without the indentation of a list that they stand in."""
    found = re.findall(rf"^( *)```{language}\n(.*?)^\1```$", page.read_text(), re.MULTILINE | re.DOTALL)
    return [textwrap.dedent(code) for _, code in found]


def rows(page: Path) -> list[list[str]]:
    """The cells of all tables on a page."""
    lines = [line for line in page.read_text().splitlines() if line.startswith("|") and not line.startswith("|---")]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def heading(line: str) -> str:
    """The anchor of a heading."""
    return re.sub(r"[^a-z0-9 _-]", "", line.lstrip("# ").lower()).replace(" ", "-")


def test_the_least_rights_name_every_channel() -> None:
    listed = set(re.findall(r"&([+-][a-z-]+)", (DOCS / "howto" / "sentinel.md").read_text()))
    assert listed == set(CHANNELS)


def test_every_event_is_documented() -> None:
    text = (DOCS / "reference" / "events.md").read_text()
    kinds = [kind for kind in vars(events).values() if isinstance(kind, type) and issubclass(kind, events.Event)]
    assert len(kinds) > 10
    for kind in kinds:
        assert kind is events.Event or f"`{kind.__name__}`" in text, kind
    assert all(f"`{cause.name}`" in text for cause in events.Cause)


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+\.(?:md|py))", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_links_into_a_page_lead_to_a_heading() -> None:
    links = [
        (page, target, anchor)
        for page in PAGES
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]+)\)", page.read_text())
    ]
    assert len(links) > 5
    for page, target, anchor in links:
        text = (page.parent / target if target else page).read_text()
        assert anchor in {heading(line) for line in text.splitlines() if line.startswith("#")}, f"{page.name}: {anchor}"


@pytest.mark.parametrize("page", PAGES, ids=[page.name for page in PAGES])
def test_code_is_python(page: Path) -> None:
    for code in blocks(page, "python"):
        compile(code, str(page), "exec")


def test_the_tutorial_shows_the_example_and_all_of_it() -> None:
    example = (ROOT / "examples" / "test_failover.py").read_text()
    shown = blocks(DOCS / "tutorial" / "test-your-failover.md", "python")
    assert len(shown) == 8
    for code in shown:
        assert code in example, code
    docstring, _, rest = example.partition("from __future__")
    assert docstring.count('"""') == 2
    assert "\n\n\n".join(code.rstrip("\n") for code in shown) + "\n" == "from __future__" + rest


def test_the_example_of_the_readme_passes() -> None:
    (code,) = [code for code in blocks(ROOT / "README.md", "python") if "hatopo_sentinel" in code]
    names: dict[str, object] = {"hatopo": hatopo}
    exec(code, names)
    test = names["test_the_master_is_killed"]
    assert callable(test)
    with SentinelDeployment() as deployment:
        test(deployment)


FAULTS = DOCS / "reference" / "faults.md"
HANDLES = {"nodes": (NodeHandle, RealNode), "sentinels": (SentinelHandle, RealSentinel)}
EVERYDAY = {
    *("address", "host", "port", "name", "running", "paused", "awake", "announced", "execute", "control", "start"),
    *("role", "url", "configure", "replicate"),
}
"""What handles have that is no fault."""


def public(kind: type) -> set[str]:
    return {name for name in dir(kind) if not name.startswith("_")} - EVERYDAY


def test_every_fault_is_documented_for_whom_it_is() -> None:
    listed = [row for row in rows(FAULTS) if row[0].startswith("`")]
    faults = {kind: {name for row in listed if kind in row[1] for name in names_in(row[0])} for kind in HANDLES}
    assert faults == {kind: public(embedded) for kind, (embedded, _) in HANDLES.items()}
    deployment = {name for row in listed if row[1] == "the deployment" for name in names_in(row[0])}
    assert all(hasattr(SentinelDeployment, name) and hasattr(RealSentinelDeployment, name) for name in deployment)


def names_in(cell: str) -> list[str]:
    return re.findall(r"`(\w+)`", cell)


def test_what_processes_cannot_do_is_documented() -> None:
    listed = [row for row in rows(FAULTS) if row[0].startswith("`") and row[1] != "the deployment"]
    assert len(listed) > 10
    for faults, kinds, embedded, real in listed:
        assert embedded == "yes"
        for name in names_in(faults):
            for kind in kinds.split(", "):
                where = getattr(HANDLES[kind][1], name).__module__
                assert where.endswith("_unsupported") == (real == "no"), (name, kind)


def test_every_fault_has_a_paragraph_and_an_example() -> None:
    text = FAULTS.read_text()
    examples = "\n".join(blocks(FAULTS, "python"))
    described = re.findall(r"\*\*`(\w+)\(", text)
    assert {name for row in rows(FAULTS) for name in names_in(row[0])} == set(described)
    for name in set(described) - {"resume", "heal"}:
        assert f".{name}(" in examples, name


@pytest.mark.parametrize("code", blocks(FAULTS, "python"), ids=lambda code: code.split("(")[0])
def test_the_examples_of_faults_run(code: str) -> None:
    with SentinelDeployment() as deployment:
        exec(code, {"d": deployment})


def test_every_name_of_the_servers_for_tests_is_documented() -> None:
    text = (DOCS / "reference" / "testing.md").read_text() + FAULTS.read_text()
    for name in {*hatopo.testing.__all__} - {"Clock"}:  # what the three clocks have in common
        assert f"`{name}" in text, name
    for name in public(SentinelDeployment) - {"start", "close", "clock"}:
        assert re.search(rf"`(d\.)?{name}\b", text), name
    plugin = (ROOT / "hatopo" / "testing" / "plugin.py").read_text()
    fixtures = re.findall(r"@pytest\.fixture\ndef (\w+)", plugin)
    assert len(fixtures) == 4
    assert all(f"`{fixture}`" in text for fixture in fixtures)


@pytest.mark.parametrize("kind", ["sentinel", "replication", "node"])
def test_every_option_of_the_command_is_documented(kind: str) -> None:
    command = [sys.executable, "-m", "hatopo.testing", kind, "--help"]
    said = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    options = set(re.findall(r"(--[a-z-]+)", said)) - {"--help"}
    listed = {
        name for row in rows(DOCS / "howto" / "run-a-local-sentinel.md") for name in re.findall(r"`(--\S+)`", row[0])
    }
    assert options <= listed
    assert kind != "sentinel" or options == listed
