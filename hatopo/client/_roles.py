"""Asking nodes for their role, on connections of their own. Decides nothing about what follows from it."""

from __future__ import annotations

import weakref
from collections.abc import Iterable
from time import monotonic
from typing import Protocol

import redis.exceptions as rx

from hatopo import errors
from hatopo.address import Address
from hatopo.connection import Patience, Wire
from hatopo.topology import RoleReport, parse_hello, parse_role

PATIENCE = 0.5
"""Seconds for an answer."""
DIAL_PATIENCE = 1.0
REFUSAL_LASTS = 1.0
"""Seconds for which a node that has refused the login is not asked again: several want to know, and there are locks
that count attempts."""
MAX_HOPS = 2


class Asker(Protocol):
    """On whose behalf nodes are asked."""

    def wires(self, address: Address) -> Iterable[Wire]:
        """Unconnected connections to a node, with the logins of several clients: one of them will do."""

    def known(self, announced: Address, said_by: Address) -> Address | None:
        """Where a node is dialled that another one announced; None if it must not be."""


class Roles:
    """See the module.

    Args:
        asker: for whom; held weakly, because it holds us.
    """

    def __init__(self, asker: Asker) -> None:
        self._asker = weakref.ref(asker)
        self._refused: dict[Address, tuple[float, str]] = {}  # who has refused last, until when, why

    def dial(self, address: Address, until: float = float("inf")) -> Wire | None:
        """A connection to a node; None if there is nobody whose login could be used.

        Raises:
            redis.AuthenticationError: it refuses the login, or has done so a moment ago.
            redis.RedisError: nobody can reach the node.
        """
        lasts, why = self._refused.get(address, (0.0, ""))
        if monotonic() < lasts:
            raise errors.LoginError(why, address)
        failure: rx.RedisError | None = None
        asker = self._asker()
        for wire in () if asker is None else asker.wires(address):
            wire.dial_by = min(until, monotonic() + DIAL_PATIENCE)
            try:
                wire.connect()
            except rx.RedisError as error:
                failure = error
                if isinstance(error, errors.DialError):
                    break  # whoever asks, it does not answer
            else:
                return wire
        if isinstance(failure, rx.AuthenticationError):
            self._refused = {address: (monotonic() + REFUSAL_LASTS, str(failure))}
        if failure is not None:
            raise failure
        return None

    def of(self, address: Address, until: float = float("inf")) -> RoleReport | None:
        """What a node says that it is; None if it does not tell."""
        wire = None
        try:
            wire = self.dial(address, until)
            return None if wire is None else role_on(wire, until)
        except Exception:  # credential providers and name functions are the user's: whatever it is, nobody told
            return None
        finally:
            if wire is not None:
                wire.disconnect()

    def masters(self, addresses: Iterable[Address], until: float = float("inf")) -> bool:
        """Whether all of these nodes say that they are masters."""
        return all(_says(self.of(address, until), "master") for address in addresses)

    def leads_to(self, address: Address, until: float = float("inf")) -> Address | None:
        """From a node that says that it is a replica to the master behind it, at most `MAX_HOPS` further."""
        seen = [address]
        for _ in range(MAX_HOPS + 1):
            role = self.of(seen[-1], until)
            if _says(role, "master"):
                return seen[-1] if len(seen) > 1 else None
            if role is None or role.master is None:
                return None
            asker = self._asker()
            target = None if asker is None else asker.known(role.master, seen[-1])
            if target is None or target in seen:
                return None
            seen.append(target)
        return None


def role_on(wire: Wire, until: float = float("inf")) -> RoleReport | None:
    """What the node at the other end says that it is, by ROLE or, where that is not permitted, HELLO.

    Raises:
        NodeError: the connection has ended.
    """
    patience = Patience(PATIENCE, min(until, monotonic() + PATIENCE))
    wire.send(wire.pack(("ROLE",)), patience)
    reply = wire.read(patience)
    if not isinstance(reply, Exception):
        return parse_role(reply)
    wire.send(wire.pack(("HELLO",)), patience)
    return parse_hello(wire.read(patience))


def _says(role: RoleReport | None, what: str) -> bool:
    return role is not None and role.role == what
