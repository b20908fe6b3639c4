"""Fixtures for the tests of the embedded servers."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import redis
from redis.backoff import NoBackoff
from redis.retry import Retry

from hatopo.testing import ManualClock, Node, NodeHandle, Replication
from tests.testing.wire import Connection

Dial = Callable[..., Connection]
MakeClient = Callable[..., Any]


@pytest.fixture
def dial() -> Iterator[Dial]:
    """Connects to a server, with the protocol wanted; closes what it has opened."""
    with contextlib.ExitStack() as stack:

        def connect(server: Any, protocol: int = 2) -> Connection:
            connection = Connection.to(server.address, protocol)
            stack.callback(connection.close)
            return connection

        yield connect


@pytest.fixture
def node() -> Iterator[Node]:
    """A server of the test's own, by the wall's clock."""
    with Node() as one:
        yield one


@pytest.fixture
def clock() -> ManualClock:
    """Time that passes when the test says so."""
    return ManualClock()


@pytest.fixture
def manual(clock: ManualClock) -> Iterator[Node]:
    """A server of the test's own, by the clock of the test."""
    with Node(clock=clock) as one:
        yield one


@pytest.fixture
def pair() -> Iterator[Replication]:
    """A master with one replica."""
    with Replication(1) as deployment:
        yield deployment


@pytest.fixture
def make_client() -> Iterator[MakeClient]:
    """Makes clients of redis-py that try once; closes them."""
    made: list[Any] = []

    def make(server: NodeHandle, **options: Any) -> Any:
        options = {"retry": Retry(NoBackoff(), 0), "socket_timeout": 5, **options}
        made.append(redis.Redis(server.host, server.port, **options))
        return made[-1]

    yield make
    for client in made:
        client.close()
