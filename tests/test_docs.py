"""What the documentation lists is what the code does."""

from __future__ import annotations

import re
from pathlib import Path

from hatopo import events
from hatopo.topology import CHANNELS

DOCS = Path(__file__).resolve().parents[1] / "docs"


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
    for page in [*DOCS.rglob("*.md"), DOCS.parent / "README.md"]:
        for target in re.findall(r"\]\(([^)#:]+\.md)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"
