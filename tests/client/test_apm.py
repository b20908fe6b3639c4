"""A tracing tool that patches redis-py sees each command of hatopo once, whenever it was switched on."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from tests.client.support import run_script

if TYPE_CHECKING:
    from hatopo.testing.real import RealNode

pytest.importorskip("opentelemetry.instrumentation.redis")

PINNED = ["GET"]
EXPECTED = ["SET", "GET", "CONFIG GET", "BLPOP", "GET INCRBY", "WATCH", "GET", "SET", *PINNED]


@pytest.mark.parametrize("order", ["instrumented-first", "imported-first"])
def test_every_command_is_one_span(server: RealNode, order: str) -> None:
    """In an interpreter of its own, because patches are for all."""
    spans = json.loads(run_script("traced", server.port, order, says=None))
    assert spans == {"seen": EXPECTED, "after": []}


def test_an_instrumented_client_is_traced_and_no_other(server: RealNode) -> None:
    """What `client()` makes is another client."""
    spans = json.loads(run_script("traced", server.port, "one-client", says=None))
    assert spans == {"seen": EXPECTED[: -len(PINNED)], "after": []}
