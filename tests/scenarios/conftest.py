"""The drivers on which every scenario runs."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from tests.drivers import SyncDriver

if TYPE_CHECKING:
    from collections.abc import Iterator

    from tests.drivers import WatchingDriver


@pytest.fixture(params=[SyncDriver])
def driver(request: pytest.FixtureRequest) -> Iterator[WatchingDriver]:
    chosen: WatchingDriver = request.param()
    yield chosen
    chosen.close()
