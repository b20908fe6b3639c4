"""SCAN and its like, from the beginning to the end on one node.

A cursor means something to the process that gave it, and to no other: asked elsewhere, elements are left out without a
word. So an iterator keeps to one node, and begins again on another one if that is lost, is another process than before,
changes its role or takes over other data, as far as that is seen. Elements may come twice then; none that was there all
the time is left out. What is behind a name is looked at only by the connection that the iterator keeps.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from time import monotonic
from typing import TYPE_CHECKING, Any

import redis.exceptions as rx

from hatopo import errors
from hatopo.client._calls import Borrow, Call
from hatopo.client._scopes import end_of
from hatopo.client._terms import Pin
from hatopo.connection import Wire
from hatopo.routing import node_is_busy

if TYPE_CHECKING:
    from hatopo.address import Address
    from hatopo.client._deployment import Deployment
    from hatopo.client._redis import Redis

_REFUSALS = (rx.BusyLoadingError, rx.MasterDownError, rx.ReadOnlyError)
_LOST = (rx.ConnectionError, rx.TimeoutError, rx.ResponseError)


def iterate(client: Redis, method: Callable[..., Any], args: tuple[Any, ...], options: dict[str, Any]) -> Iterator[Any]:
    """The elements that `method`, an iterator of redis-py's, finds on one node.

    Args:
        client: on whose behalf.
        method: `redis.Redis.scan_iter` or its like.
        args: its arguments.
        options: likewise.

    Raises:
        NoSuitableNodeError: no node may be asked, and the policy does not permit the master.
        redis.RedisError: no node that the policy permits could be asked for as long as `failover_timeout`.
    """
    deployment, terms = client._deployment, client._terms
    topology = deployment.topology
    several = topology is not None and len(topology.shards) > 1  # then a cursor's node goes by its key
    if deployment.is_alone or several or client.connection is not None:
        yield from method(client, *args, **options)
        return
    failed: set[Address] = set()
    end = float("inf")  # until when to go on after a failure
    while True:
        pin = _pin(client, failed, min(end, monotonic() + terms.failover_timeout))
        clone = client.using()
        held = _Held(deployment, pin) if deployment.topology is not None and deployment.topology.by_name else None
        clone._warm, clone._terms = True, replace(terms, pin=replace(pin, lender=held))
        elements = _until_the_end(method(clone, *args, **options), held)
        while True:
            try:
                element = next(elements)
            except StopIteration:
                return
            except _LOST as error:
                if isinstance(error, rx.ResponseError) and not isinstance(error, _REFUSALS) and not node_is_busy(error):
                    raise
                now = monotonic()
                end = min(end, now + terms.failover_timeout)
                hurried = terms.deadline is not None and isinstance(error, rx.TimeoutError)
                if hurried or now >= min(end, end_of(None)):
                    raise  # the caller's own time is up, or our patience is
                failed.add(pin.node)
                break
            yield element
            failed, end = set(), float("inf")


def _until_the_end(elements: Iterator[Any], held: _Held | None) -> Iterator[Any]:
    """The same elements; what is held is given back with the last of them, or where nobody wants the rest."""
    try:
        yield from elements
    finally:
        if held is not None:
            held.release()


class _Held:
    """Lends one connection all the time."""

    def __init__(self, deployment: Deployment, pin: Pin) -> None:
        self._deployment = deployment
        self._pin = pin
        self._connection: Wire | None = None

    def lend(self, call: Call, until: float) -> Wire:
        """The connection: a new one for the first call, none after that has ended."""
        connection = self._connection
        if connection is None:
            connection = self._connection = self._deployment.lend_pinned(self._pin, until)
        elif not connection.is_connected or not connection.clean():
            node = self._pin.node
            raise errors.RetiredError(f"the connection to {node} has ended, and its cursor with it", node)
        return connection

    def give_back(self, connection: Wire, *, check: bool = False) -> None:
        """Not yet."""

    def discard(self, connection: Wire) -> None:
        """It has failed; `release` takes it back."""
        connection.disconnect()

    def release(self) -> None:
        """Nobody wants more."""
        if self._connection is not None:
            self._deployment.give_back(self._connection, check=True)


def _pin(client: Redis, failed: set[Address], until: float) -> Pin:
    """The node to ask, another one than those that have failed if there is one; a master is waited for.

    Raises:
        redis.RedisError: no node may be asked.
    """
    deployment, policy = client._deployment, client._terms.policy()
    topology = deployment.found(until)
    if topology is not None and not policy.only_master:
        found = deployment.reading.choose(policy, topology, failed, until)
        if found is None:
            raise deployment.reading.none("SCAN", policy, topology)
        if found not in topology.masters:
            return Pin(found, is_master=False, role=deployment.reading.role_of(found))
    terms = replace(client._terms, failover_timeout=max(until - monotonic(), 0.0))
    deployment.run(Borrow(), terms, end_of(terms.deadline))  # rides through a failover
    master = next(iter(deployment.topology.masters if deployment.topology is not None else ()), None)
    if master is None:
        raise errors.MasterNotFoundError("no master is known")
    return Pin(master, is_master=True)
