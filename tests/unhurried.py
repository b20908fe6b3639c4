"""A plugin for the pytest of examples: sentinels to whom a busy machine does not look like a dead master."""

from __future__ import annotations

import pytest


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        item.add_marker(pytest.mark.hatopo(down_after=3.0))
