"""Fixtures for the tests of the embedded servers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.testing.wire import Connection

Dial = Callable[..., Connection]


@pytest.fixture
def dial() -> Iterator[Dial]:
    """Connects to a server, with the protocol wanted; closes what it has opened."""
    with contextlib.ExitStack() as stack:

        def connect(server: Any, protocol: int = 2) -> Connection:
            connection = Connection.to(server.address, protocol)
            stack.callback(connection.close)
            return connection

        yield connect
