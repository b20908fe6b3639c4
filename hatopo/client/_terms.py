"""What a client, a clone or a scope wants of its calls."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hatopo.address import Address
from hatopo.client._scopes import SCOPE, Scope
from hatopo.routing import Policies, ReadFrom
from hatopo.topology import RoleReport

if TYPE_CHECKING:
    from hatopo.client._deployment import Lender


@dataclass(slots=True)
class Pin:
    """The one node that calls must go to.

    Attributes:
        node: it.
        is_master: whether it is to be the master, or a replica.
        role: what the replica said of its replication when it was chosen.
        run_id: the process that was met there first; "" before, or if it tells none.
        lender: who has the one connection that they must take, where the node is known by name: behind that there may
            be several processes.
    """

    node: Address
    is_master: bool
    role: RoleReport | None = None
    run_id: str = ""
    lender: Lender | None = None


@dataclass(frozen=True, slots=True)
class Terms:
    """What a client, a clone or a scope wants of its calls. Seconds; `deadline` is per call."""

    policies: Policies
    failover_timeout: float
    deadline: float | None = None
    retries: int | None = None
    read_from: ReadFrom = ReadFrom.MASTER
    pin: Pin | None = None
    insists: bool = False  # `read_from` was chosen for these calls, not for the client: scopes do not change it

    def policy_in(self, scope: Scope | None) -> ReadFrom:
        """The policy for a read that is made in this scope."""
        if scope is None or self.insists:
            return self.read_from
        return scope.policy() or self.read_from

    def policy(self) -> ReadFrom:
        """The policy for a read that is made now."""
        return self.policy_in(SCOPE.get())
