"""Embedded servers and processes have one surface: whoever writes a test for one has written it for the other."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

from hatopo.testing import (
    Node,
    NodeHandle,
    RealNode,
    RealReplication,
    RealSentinelDeployment,
    Replication,
    SentinelDeployment,
    SentinelHandle,
)
from hatopo.testing.real import RealSentinel

PAIRS = [
    (Node, RealNode),
    (NodeHandle, RealNode),
    (Replication, RealReplication),
    (SentinelDeployment, RealSentinelDeployment),
    (SentinelHandle, RealSentinel),
]
ALONE = {"close", "wait_until"}
"""A process that is no member of a deployment has a life of its own; embedded, only a `Node` has."""
ONLY_REAL = {
    NodeHandle: ALONE | {"log", "begin_as_replica"},
    SentinelHandle: ALONE | {"log"},
    Node: {"log", "begin_as_replica"},
}
"""`log`: embedded servers write none; `begin_as_replica`: for the deployment, before the process is there."""
each_pair = pytest.mark.parametrize(("embedded", "real"), PAIRS, ids=lambda kind: kind.__name__)


def public(kind: type) -> dict[str, Any]:
    return {name: inspect.getattr_static(kind, name) for name in dir(kind) if not name.startswith("_")}


def arguments(function: Any) -> list[tuple[str, Any, Any]]:
    """Their names, kinds and defaults."""
    return [(one.name, one.kind, one.default) for one in inspect.signature(function).parameters.values()]


@each_pair
def test_they_have_the_same_names(embedded: type, real: type) -> None:
    assert public(real).keys() - public(embedded).keys() == ONLY_REAL.get(embedded, set())
    assert public(embedded).keys() - public(real).keys() == set()


@each_pair
def test_their_methods_have_the_same_arguments(embedded: type, real: type) -> None:
    compared = 0
    for name, one in public(embedded).items():
        other = public(real)[name]
        if not inspect.isfunction(one):
            continue
        assert inspect.isfunction(other), name
        assert arguments(one) == arguments(other), name
        compared += 1
    assert compared > 10


@pytest.mark.parametrize(("embedded", "real"), [PAIRS[0], *PAIRS[2:4]], ids=lambda kind: kind.__name__)
def test_they_are_made_with_the_same_arguments(embedded: type, real: type) -> None:
    assert arguments(embedded) == arguments(real)
