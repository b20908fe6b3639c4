"""What the client tests have in common as fixtures."""

from __future__ import annotations

import pytest

from hatopo.client import _asking, _hub, _listening, _monitor, _roles
from hatopo.topology import _discover


@pytest.fixture
def patient(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks sentinels or nodes waits for their answers, however busy the machine is."""
    for module, name in (
        *((_asking, "QUERY_TIMEOUT"), (_hub, "QUERY_TIMEOUT"), (_listening, "QUERY_TIMEOUT")),
        *((_listening, "PATIENCE"), (_roles, "PATIENCE"), (_roles, "DIAL_PATIENCE"), (_discover, "GRACE")),
    ):
        monkeypatch.setattr(module, name, 10.0)


@pytest.fixture
def unsuspicious(monkeypatch: pytest.MonkeyPatch) -> None:
    """No node is silent in the monitor's eyes because the machine is busy."""
    for name in ("SHORT_SILENCE", "LONG_SILENCE", "VISIT"):
        monkeypatch.setattr(_monitor, name, 10.0)
