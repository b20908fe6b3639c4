"""The rules of the house that can be checked by reading: who imports whom, what pure rooms may not touch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import hatopo

ROOT = Path(hatopo.__file__).parent
FILES = sorted(ROOT.rglob("*.py"))
ROOMS = {
    "topology": {"topology", "leaf"},
    "routing": {"routing", "topology", "leaf"},
    "connection": {"connection", "leaf"},
    "client": {"client", "connection", "routing", "topology", "events", "leaf"},
    "events": {"topology", "leaf"},
    "leaf": {"leaf"},
    "door": {"client", "routing", "events", "leaf"},
    "contrib": {"contrib", "client", "events", "leaf"},
    "testing": {"testing"},
    "cli": {"cli", "testing", "door", "events", "leaf"},
}
"""Which rooms a file of each room may import. Leaves are the modules at the top; the door is `__init__`."""
IMPURE = {"asyncio", "anyio", "trio", "socket", "select", "ssl", "threading", "time", "random", "logging"}
ALLOWED_IN_PURE = {("random", "Random")}
"""A generator of random numbers is an argument of decisions, so its type may be named."""


def room_of(path: Path) -> str:
    parts = path.relative_to(ROOT).parts
    if len(parts) > 1:
        return parts[0]
    return {"__init__.py": "door", "events.py": "events"}.get(parts[0], "leaf")


def imports(path: Path) -> Iterator[tuple[str, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from ((alias.name, "") for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ((node.module or "", alias.name) for alias in node.names)


def names(paths: list[Path]) -> list[str]:
    return [str(path.relative_to(ROOT)) for path in paths]


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_imports_point_one_way(path: Path) -> None:
    room = room_of(path)
    for module, name in imports(path):
        if module.partition(".")[0] != "hatopo":
            continue
        target = ROOT.joinpath(*module.split(".")[1:])
        if module == "hatopo":
            target = target / name
        other = room_of(target / "x.py") if target.is_dir() else room_of(target.with_suffix(".py"))
        assert other in ROOMS[room], f"{path.name} of {room} imports {module}"
        behind_door = module.count(".") > 1 or (module.count(".") == 1 and name.startswith("_"))
        assert other == room or not behind_door, f"{path.name} reaches past the door: {module}"


PURE = [path for path in FILES if room_of(path) in ("topology", "routing")]


@pytest.mark.parametrize("path", PURE, ids=names(PURE))
def test_pure_rooms_decide_and_do_nothing(path: Path) -> None:
    tree = ast.parse(path.read_text())
    colour = [node for node in ast.walk(tree) if isinstance(node, (ast.AsyncFunctionDef, ast.Await))]
    assert not colour
    for module, name in imports(path):
        assert module.partition(".")[0] not in IMPURE or (module, name) in ALLOWED_IN_PURE, module


@pytest.mark.parametrize("path", FILES, ids=names(FILES))
def test_a_file_says_what_it_is_for_and_stays_readable(path: Path) -> None:
    text = path.read_text()
    tree = ast.parse(text)
    assert ast.get_docstring(tree)
    assert text.count("\n") <= 500
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef):
            assert (node.end_lineno or 0) - node.lineno < 60, node.name


def test_public_names_are_few_and_true() -> None:
    assert len(hatopo.__all__) <= 30
    assert hatopo.__all__ == sorted(hatopo.__all__)
    for name in hatopo.__all__:
        public = getattr(hatopo, name)
        if isinstance(public, type) and issubclass(public, Exception):
            assert public.__module__ == "hatopo"
