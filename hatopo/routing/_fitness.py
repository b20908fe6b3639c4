"""Which nodes can answer reads: what they say when they are asked, and what calls have met.

Decides why a node gets no reads, and which nodes have just failed. Must not know who asks, when, or on what
connection; its owner locks it. The rules for a replica are those of Redis: it serves data while its link to the master
is down, and old or no data while it is being synchronised (replication.c), so that an answer alone proves nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import redis.exceptions as rx

from hatopo.address import Address
from hatopo.errors import clip
from hatopo.routing._read_from import NodeStatus
from hatopo.topology import RoleReport, Statement, Topology, parse_info, parse_role

SLOWER, FASTER = 0.2, 0.6
"""The weight of the newest latency in the moving average: who has answered quickly is near, who was late may just have
been busy."""
HOPS = 3
"""How many replicas may stand between a replica and its master."""
MAX_FORMER = 1000
LINKED = "connected"
SYNCING = frozenset({"sync", "wait_bgsave", "send_bulk"})
"""States of a replica's link (ROLE) while it takes over the data of its master."""


@dataclass(frozen=True, slots=True)
class Checkup:
    """What a node said when it was asked how it is: to PING, and to ROLE or INFO replication, in one write.

    Attributes:
        number: of the round; nodes with the same one were asked at the same moment.
        error: why there is no answer, or "".
        silent: no answer yet, and no other reason to think that none will come.
        turned_away: it has refused the login.
        refusal: the error with which it refuses commands (LOADING, MASTERDOWN, BUSY), or "".
        role: what it says that it is, or said last if it is silent, or None where it does not tell. Its master is as
            it is dialled.
        latency: seconds until the answer, or None.
        zone: its availability zone, or "".
        run_id: its identity, or "" where it does not tell.
        peer: the IP address and port at which it was reached.
    """

    number: int
    error: str = ""
    silent: bool = False
    turned_away: bool = False
    refusal: str = ""
    role: RoleReport | None = None
    latency: float | None = None
    zone: str = ""
    run_id: str = ""
    peer: Address | None = None

    @property
    def statement(self) -> Statement | None:
        """What the node said of itself; None: nothing."""
        return None if self.role is None else Statement(self.role, self.run_id, self.peer)

    @property
    def ominous(self) -> bool:
        """Whether it speaks against reading there by itself."""
        return bool(self.error or self.refusal) or (
            self.role is not None and self.role.role == "replica" and self.role.link != LINKED
        )


def read_checkup(number: int, ping: object, report: object, latency: float) -> Checkup:
    """What the replies to PING and to ROLE (or INFO replication) say."""
    refusal = ""
    if isinstance(ping, Exception) and not isinstance(ping, (rx.NoPermissionError, rx.AuthenticationError)):
        refusal = clip(ping)
    return Checkup(number, refusal=refusal, role=_role(report), latency=latency)


def _role(report: object) -> RoleReport | None:
    if isinstance(report, (list, tuple)):
        return parse_role(report)
    info = parse_info(report) if isinstance(report, (bytes, str)) else None
    if info is None or not info.role:
        return None
    link = "" if info.role == "master" else LINKED if info.link_up else "sync" if info.syncing else "connect"
    offset = info.offset if info.role == "master" else info.replica_offset
    return RoleReport(info.role, info.master, link, offset, info.replicas)


@dataclass(slots=True)
class _Ward:
    """A node in use.

    Attributes:
        master: of its shard, or None; its own address if it is that.
        peer: where it was reached, if it is dialled by name.
        flagged: what those who know the deployment hold against it.
        failed: how a call has failed there since it was last asked; `barred`: and so would any other.
        cut_off: its link to its master is down, though the master is up: it falls behind.
        led: it was the master, and has not said since that it is none.
    """

    address: Address
    master: Address | None = None
    peer: Address | None = None
    flagged: str = ""
    checkup: Checkup | None = None
    latency: float | None = None
    lag: int | None = None
    failed: str = ""
    barred: bool = False
    cut_off: bool = False
    led: bool = False

    @property
    def names(self) -> set[Address]:
        """The addresses by which others may name it."""
        return {self.address} if self.peer is None else {self.address, self.peer}


class Health:
    """The nodes of a deployment in use, and how they are.

    Args:
        max_lag: how many bytes a replica may be behind its master, or None.
    """

    def __init__(self, max_lag: int | None = None) -> None:
        self._max_lag = max_lag
        self._wards: dict[Address, _Ward] = {}
        self._by_name = False
        self._former: set[Address] = set()  # masters that are none any more

    def adopt(self, topology: Topology | None) -> None:
        """These are the nodes in use from now on; what is known of those that stay is kept."""
        before, self._wards = self._wards, {}
        if topology is None:
            self._former = set()
            return
        self._by_name = topology.by_name
        for shard in topology.shards:
            master = None if shard.master is None else shard.master.address
            for node in ([] if shard.master is None else [shard.master]) + list(shard.replicas):
                ward = before.get(node.address) or _Ward(node.address)
                if ward.master != master:
                    ward.lag, ward.cut_off = None, False
                    ward.led = ward.led or ward.master == ward.address
                    self._former |= ward.names if ward.master == ward.address else set()
                ward.master, ward.flagged = master, "" if node.address == master else node.flagged
                self._wards[node.address] = ward
        gone = [ward for address, ward in before.items() if address not in self._wards]
        self._former |= {name for ward in gone if ward.master == ward.address for name in ward.names}
        self._former -= {name for ward in self._wards.values() for name in ward.names}
        if len(self._former) > MAX_FORMER:
            self._former.clear()

    def forget(self) -> None:
        """Nobody asks any more: what was heard grows old."""
        for ward in self._wards.values():
            ward.checkup, ward.failed, ward.barred, ward.lag, ward.cut_off = None, "", False, None, False

    def heard(self, address: Address, checkup: Checkup) -> bool:
        """A node has answered, or not; whether that changes who gets reads."""
        ward = self._wards.get(address)
        if ward is None:
            return False
        before = self._states(ward.master)
        last = ward.checkup
        if checkup.silent and last is not None:
            checkup = _still(last, checkup)
        ward.checkup = checkup
        ward.peer = checkup.peer or ward.peer
        ward.led = ward.led and (checkup.role is None or checkup.role.role == "master")
        if not checkup.error:
            ward.failed, ward.barred = "", False
            late = last is not None and bool(last.error)  # how long it has stood still says nothing of its distance
            if checkup.latency is not None and not late:
                old = checkup.latency if ward.latency is None else ward.latency
                weight = SLOWER if checkup.latency > old else FASTER
                ward.latency = old + weight * (checkup.latency - old)
        self._compare(ward.master, checkup.number)
        return before != self._states(ward.master)

    def _states(self, master: Address | None) -> list[tuple[str, bool]]:
        return [self._state(ward) for ward in self._wards.values() if ward.master == master]

    def failed(self, address: Address, why: str, *, barred: bool) -> bool:
        """A call has failed at a node; `barred`: every other one would. Whether that changes who gets reads."""
        ward = self._wards.get(address)
        if ward is None or (ward.failed and ward.barred >= barred):
            return False
        ward.failed, ward.barred = why, barred
        return True

    def _compare(self, master: Address | None, number: int) -> None:
        """Compares replicas with their master, where both were asked at the same moment.

        Otherwise what was written in between would count as lag, and a link that went down with the master as the
        replica's fault: while the master is down, nobody has newer data than its replicas.
        """
        lead = None if master is None else self._wards.get(master)
        if lead is None or lead.checkup is None or lead.checkup.number != number:
            return
        up = not lead.checkup.error and (lead.checkup.role is None or lead.checkup.role.role == "master")
        for ward in self._wards.values():
            checkup = ward.checkup
            if ward.master != master or ward is lead or checkup is None or checkup.number != number:
                continue
            if checkup.role is None or checkup.error:
                continue
            if up:
                ward.cut_off = checkup.role.link != LINKED
            if up and checkup.role.offset >= 0 and lead.checkup.role is not None:
                ward.lag = max(0, lead.checkup.role.offset - checkup.role.offset)

    def unseen(self) -> tuple[Address, ...]:
        """Those of whom the first answers are still to come."""
        return tuple(address for address, ward in self._wards.items() if self._is_unseen(ward))

    def _is_unseen(self, ward: _Ward) -> bool:
        if ward.checkup is None:
            return True
        if self._max_lag is None or ward.lag is not None or ward.checkup.error:
            return False
        lead = self._lead(ward)
        return lead is not None and (lead.checkup is None or lead.checkup.number < ward.checkup.number)

    def _lead(self, ward: _Ward) -> _Ward | None:
        """The master of a replica."""
        return None if ward.master in (None, ward.address) else self._wards.get(ward.master)

    def statuses(self, addresses: Iterable[Address] | None = None) -> tuple[NodeStatus, ...]:
        """What is known of these nodes, or of all."""
        wanted = self._wards if addresses is None else addresses
        return tuple(self._status(self._wards[address]) for address in wanted if address in self._wards)

    def why_doubtful(self, address: Address) -> str:
        """How a node has just failed."""
        ward = self._wards.get(address)
        error = "" if ward is None or ward.checkup is None else ward.checkup.error
        return error or (ward.failed if ward is not None else "")

    def role_of(self, address: Address) -> RoleReport | None:
        """What a node says that it is, if it was asked and has told."""
        ward = self._wards.get(address)
        return None if ward is None or ward.checkup is None else ward.checkup.role

    def astray(self, address: Address, before: RoleReport | None) -> str | None:
        """Why the data of a replica are others than before; None: it has not been asked yet.

        One that still follows whom it followed has the same data, also after a failover that it has not heard of.
        """
        ward = self._wards.get(address)
        if ward is None or ward.checkup is None:
            return None
        role = ward.checkup.role
        if role is None or (
            before is not None and (role.role, role.master) == (before.role, before.master) and role.link not in SYNCING
        ):
            return ""
        return ward.flagged or self._astray(ward, role)

    def _status(self, ward: _Ward) -> NodeStatus:
        refused, doubtful = self._state(ward)
        return NodeStatus(
            ward.address,
            "master" if ward.master == ward.address else "replica",
            refused,
            doubtful,
            "" if ward.checkup is None else ward.checkup.zone,
            ward.latency,
            ward.lag,
        )

    def _state(self, ward: _Ward) -> tuple[str, bool]:
        """Why a node is refused, and whether it has just failed."""
        checkup = ward.checkup
        if checkup is None:
            return "it has not been asked yet how it is", False
        doubtful = checkup.silent or bool(ward.failed)
        if ward.flagged:
            return ward.flagged, doubtful
        if checkup.error and not checkup.silent:
            return checkup.error, doubtful
        if checkup.refusal or ward.barred:
            return checkup.refusal or ward.failed, doubtful
        return self._wrong_role(ward, checkup.role), doubtful

    def _wrong_role(self, ward: _Ward, role: RoleReport | None) -> str:
        """What speaks against a node by its own word about its replication."""
        if role is None:
            return "" if ward.master == ward.address else self._behind(ward)
        if ward.master == ward.address:
            return "" if role.role == "master" or self._by_name else f"it says that it is a {role.role}"
        astray = self._astray(ward, role)
        if astray or role.role != "replica":
            return astray
        if role.link != LINKED and ward.cut_off:
            return f"its link to its master is down ({clip(role.link, 20)})"
        return self._behind(ward)

    def _astray(self, ward: _Ward, role: RoleReport) -> str:
        """Why a replica holds, or will hold, other data than its master."""
        if role.role != "replica":
            return "" if self._by_name else f"it says that it is a {role.role}"
        if role.link in SYNCING:
            return "it is being synchronised with its master"
        if not self._leads_to_the_master(ward, role.master, HOPS):
            return f"it follows {role.master}, which is not the master any more"
        return ""

    def _behind(self, ward: _Ward) -> str:
        """What speaks against a replica by what it has not replicated yet."""
        if self._max_lag is None:
            return ""
        if ward.lag is not None:
            more = ward.lag > self._max_lag
            return f"it is {ward.lag} bytes behind its master (max_lag: {self._max_lag})" if more else ""
        lead = self._lead(ward)
        up = lead is not None and (lead.checkup is None or not lead.checkup.error)
        return "how far it is behind its master is not known (yet)" if up else ""

    def _leads_to_the_master(self, ward: _Ward, source: Address | None, hops: int) -> bool:
        """Whether a replica gets the master's data from `source`; by an address that we do not know it may."""
        through = next((one for one in self._wards.values() if source in one.names), None)
        if source is None or source == ward.master or (through is not None and through.address == ward.master):
            return True
        if through is None:
            return source not in self._former
        said = None if through.checkup is None else through.checkup.role
        if said is None or hops == 0:
            return through.checkup is not None and hops > 0 and not through.led
        return said.role == "replica" and self._leads_to_the_master(through, said.master, hops - 1)


def _still(last: Checkup, silence: Checkup) -> Checkup:
    """What is known of a node that says nothing for a moment: what it has said holds, and so does that it was away."""
    if last.error and not last.silent:
        return replace(last, number=silence.number)
    return replace(last, number=silence.number, error=silence.error, silent=True, latency=None)


def as_dialled(checkup: Checkup, admit: Callable[[Address], Address | None]) -> Checkup:
    """The same, with the addresses that the node announces as they are dialled; the rest is left out."""
    role = checkup.role
    if role is None or (role.master is None and not role.replicas):
        return checkup
    replicas = [admit(replica) for replica in role.replicas]
    master = None if role.master is None else admit(role.master)
    return replace(checkup, role=replace(role, master=master, replicas=tuple(one for one in replicas if one)))
