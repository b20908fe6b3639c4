"""One service that sentinels watch: what they said of it, the view in force, and the clients that follow it.

Brings together what is known (words of sentinels, roles of nodes) and has the pure rooms decide. Rounds of questions
are shared: one at a time for all clients of the process. Never holds its lock while it asks or tells others.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterator, Mapping
from time import monotonic
from typing import TYPE_CHECKING

from hatopo import errors
from hatopo.address import Address
from hatopo.client._asking import Round
from hatopo.client._flight import GAP, SingleFlight
from hatopo.client._nodes import News
from hatopo.client._promotion import Promotion
from hatopo.client._roles import Roles
from hatopo.client._threads import start_thread
from hatopo.connection import Wire, survive_fork
from hatopo.events import Cause, DiscoveryDegraded, Event, FailoverStarted, TopologyReset
from hatopo.routing import Checkup
from hatopo.topology import (
    Answer,
    Census,
    Council,
    Node,
    NotFound,
    Offer,
    Sign,
    Topology,
    TopologyView,
    Verdict,
    Word,
    explain,
)

if TYPE_CHECKING:
    from hatopo.client._deployment import Deployment
    from hatopo.client._hub import Hub

log = logging.getLogger("hatopo.sentinel")

WATCHED_GAP = 0.25
"""Seconds between two rounds of questions while events are heard as well."""
SILENCE_GAP, CALM_GAP = 1.0, 10.0
"""Seconds between two rounds that a node's silence asked for; the second where the silence was expected."""
PROBE_PATIENCE = 1.5
SIGN_LASTS = 60.0
MAX_LOGINS = 3
"""How many clients' logins are tried to ask a node for its role."""
_SAYS = {
    Sign.BEGUN: "has announced a failover",
    Sign.CANDIDATE: "has selected a replica",
    Sign.SWITCHED: "has switched to another master",
}


class Service:
    """See the module.

    Args:
        hub: the sentinels.
        name: by which they know it.
    """

    def __init__(self, hub: Hub, name: str) -> None:
        self.hub = hub
        self.name = name
        self.asking: set[Address] = set()  # sentinels that a round has asked and that have not answered yet
        self._roles = Roles(self)
        self._followers: weakref.WeakSet[Deployment] = weakref.WeakSet()
        self._flight = SingleFlight()  # of rounds of questions
        self._version = 0
        self._promotion: Promotion | None = None
        self._forget()
        self.after_fork()
        survive_fork(self)

    def _forget(self) -> None:
        """Nobody follows it: what is known grows old unseen."""
        self.down_after = 0.0  # seconds after which the sentinels take a silent master for down
        self._view = TopologyView()  # offered to under _lock
        self._news: News | None = None  # what was told last; under _lock
        self._council = Council()  # under _lock
        self._census = Census()  # under _lock
        self._guests: tuple[Node, ...] = ()  # replicas that only their master knows; under _lock
        self._last_word: float | None = None
        self._missing: NotFound | None = None  # what the last round brought instead of a topology
        self._degraded = False
        self._since: float | None = None  # the first sign of the failover that is under way
        self._doubted: Address | None = None  # a master that says that it is none
        self._refused: set[tuple[Address, str]] = set()  # what was said of lone voices
        self._warned = False  # a client's patience is too short

    def after_fork(self) -> None:
        """In a forked child nobody asks, waits or attends to a promotion."""
        self._lock = threading.RLock()
        self._flight.after_fork()
        self.asking = set()
        self._probed = float("-inf")
        self._promotion = None
        self._view.withdraw()
        self._note_news(Cause.WITHDRAWN)

    # ------------------------------------------------------------------ followers

    @property
    def followed(self) -> bool:
        """Whether any client uses it."""
        return len(self._followers) > 0

    def join(self, follower: Deployment) -> None:
        """See `Source`."""
        if follower in self._followers and self.hub.running and follower.version == self._version:
            return
        with self._lock:
            self._followers.add(follower)
            news = self._news
        if news is not None:
            follower.publish(news)
        self.hub.start()

    def leave(self, follower: Deployment) -> None:
        """See `Source`."""
        with self._lock:
            self._followers.discard(follower)
            if not self._followers:
                self._end_promotion()
                self._forget()
        self.hub.stop_if_unused()

    def _all(self) -> list[Deployment]:
        with self._lock:
            return list(self._followers)

    def emit(self, event: Event) -> None:
        """Tells all followers of an event."""
        for follower in self._all():
            follower.emit(event)

    def last_word(self) -> float | None:
        """See `Source`."""
        return self._last_word

    def absent(self) -> Mapping[Address, str]:
        """See `Source`: sentinels tell of all."""
        return {}

    # ------------------------------------------------------------------ replicas that no sentinel knows yet

    keeps_watch = False
    may_grow = True

    def watched(self) -> tuple[Address, ...]:
        """See `Source`."""
        return self._census.invited

    def expects_more(self) -> bool:
        """See `Source`."""
        return self._census.expects_more

    def checked(self, follower: Deployment, address: Address, checkup: Checkup) -> None:
        """See `Source`."""
        if not checkup.silent:
            with self._lock:
                self._census.note(address, checkup.statement)

    def looked(self, follower: Deployment) -> None:
        """See `Source`. Sentinels hear of a new replica within ten seconds; its master names it at once."""
        with self._lock:
            current = self._view.current
            if current is None:
                return
            known = [node.address for node in current.nodes]
            self._census.invite(known)
            self._guests = self._census.joined(known, current.masters)
            self._note_news(Cause.ROLES)
            flagged = any(node.flagged for node in current.nodes)
        self._tell()
        if flagged and not self.hub.listening:
            self.refresh(float("inf"))  # nobody else would tell that a replica is up again

    # ------------------------------------------------------------------ rounds

    def refresh(self, until: float, *, join: bool = False) -> None:
        """See `Source`."""
        gap = WATCHED_GAP if self._news is not None and self.hub.listening else GAP
        if not self._flight.do(lambda: self._round(until), gap) and join:
            self._flight.join(until, lambda: self._news is not None)

    def _round(self, until: float) -> None:
        found = Round(self.hub, self.name, self.asking).run(until, self._note)
        if isinstance(found, Topology):
            self._missing = None
            self._judge(until)
        else:
            if self._missing is None or len(found.answers) >= len(self._missing.answers):
                self._missing = found  # a round that was cut short does not hide what an earlier one has heard
            self._degrade(found)
        self._follow_roles(until)

    def _degrade(self, found: NotFound) -> None:
        """No sentinel names a master; if none can be asked at all, that is worth saying once."""
        reasons = tuple(answer.error for answer in found.answers)
        if self._degraded or not reasons or not all(reasons):
            return
        self._degraded = True
        log.warning("%s: no sentinel can be asked; the last known master is kept: %s", self.name, "; ".join(reasons))
        self.emit(DiscoveryDegraded(self.name, reasons))

    def why_unknown(self) -> errors.MasterNotFoundError:
        """See `Source`."""
        if self._missing is None:
            return errors.MasterNotFoundError(f"no master of {self.name!r} is known yet: it is being looked for")
        message, unknown = explain(self.name, self.hub.addresses(), self._missing.answers)
        return errors.ServiceUnknownError(message) if unknown else errors.MasterNotFoundError(message)

    def silent(self, follower: Deployment, address: Address, calm: bool, until: float) -> None:
        """See `Source`."""
        now = monotonic()
        with self._lock:
            if now - self._probed < (CALM_GAP if calm else SILENCE_GAP) or (calm and self.hub.listening):
                return
            self._probed = now

        def look() -> None:
            self.refresh(float("inf"))
            follower.probe(address, monotonic() + PROBE_PATIENCE)

        if not self.hub.listening or not start_thread("hatopo-probe", look):
            self.refresh(until)

    # ------------------------------------------------------------------ words

    def heard(self, answer: Answer) -> None:
        """A sentinel has answered outside of a round."""
        self._note(answer)
        if answer.report is not None:
            self._judge(float("inf"), agreed=self._news is None)

    def _note(self, answer: Answer) -> None:
        if answer.error:
            return
        now = monotonic()
        with self._lock:
            if not self._followers:
                return  # a round that has outlived them
            self._last_word = now
            relieved, self._degraded = self._degraded, False
            self._council.note(answer, now)
            if answer.report is not None:
                self.down_after = answer.report.down_after or self.down_after
        if relieved:
            log.info("%s: the sentinel at %s can be asked again", self.name, answer.sentinel)
        self.hub.note(answer)

    def answers(self) -> list[Answer]:
        """What the sentinels said last."""
        with self._lock:
            return self._council.answers(monotonic())

    def _judge(self, until: float, *, agreed: bool = False) -> None:
        """Puts in force what the words amount to; `agreed`: only if a majority says it."""
        asked, permitted = len(self.hub.addresses()), self.hub.watching.allowed_hosts is not None
        with self._lock:
            verdict = self._council.judge(asked, self._view.confirmed, monotonic(), permitted=permitted)
        self._tell_refused(verdict)
        found = verdict.found
        if isinstance(found, Topology) and (found.agreed or not agreed):
            self.offer(found, Cause.SENTINELS, until)
        if verdict.majority is not None:
            self.offer(verdict.majority, Cause.SENTINELS, until)

    def _tell_refused(self, verdict: Verdict) -> None:
        for master, sentinel in verdict.refused:
            if (master, sentinel) not in self._refused:
                self._refused.add((master, sentinel))
                log.warning(
                    "%s: %s is refused as the master: only the sentinel at %s says so, and no other one knows "
                    "the node; if that is right, permit it with allowed_hosts=",
                    *(self.name, master, sentinel),
                )

    def word(self, word: Word, sentinel: Address) -> None:
        """A sentinel has published something about this service; it is asked again in any case."""
        address = None if word.address is None else self.hub.admit(word.address, sentinel)
        if not self._is_over(word.sign, address):
            self._first_sign(f"the sentinel at {sentinel} {_SAYS[word.sign]}")
        if word.sign is Sign.CANDIDATE and isinstance(address, Address) and self._believes(address, sentinel):
            self._attend(Promotion(self, address, Cause.EARLY_PROMOTION, sentinel))
        promotion = self._promotion
        if word.sign is Sign.ABORTED and (promotion is None or promotion.sentinel == sentinel):
            self._since = None
            self.withdraw(f"the sentinel at {sentinel} has given the failover up")

    def lost(self, sentinel: Address) -> None:
        """A sentinel is not heard any more."""
        promotion = self._promotion
        if promotion is not None and promotion.sentinel == sentinel:
            promotion.hurry()
        if not self.hub.listening:
            self._flight.insist(lambda: self._round(float("inf")))

    def _is_over(self, sign: Sign, address: object) -> bool:
        """Whether a sentinel tells of no failover, or of one that we have followed already."""
        current = self._view.current
        if sign not in _SAYS or current is None or current.provisional:
            return True
        return (address in current.masters) != (sign is Sign.BEGUN)  # the old master's end, or the new one's rise

    def _first_sign(self, sign: str) -> None:
        now = monotonic()
        with self._lock:
            if self._since is not None and now - self._since < SIGN_LASTS:
                return
            self._since = now
        self.emit(FailoverStarted(self.name, sign))

    def _believes(self, candidate: Address, sentinel: Address) -> bool:
        """Whether to follow a candidate early: it is a replica by the word of somebody else than who names it."""
        if not self.hub.watching.early_promotion:
            return False
        alone = len(self.hub.addresses()) == 1 or self.hub.watching.allowed_hosts is not None
        with self._lock:
            confirmed = self._view.confirmed
            replica = confirmed is not None and confirmed.node_at(candidate) is not None
            return replica and (alone or self._council.vouches(candidate, sentinel, monotonic()))

    # ------------------------------------------------------------------ the view

    def offer(self, found: Topology, cause: Cause, until: float = float("inf")) -> None:
        """Puts a view in force and tells the followers, if the laws and the nodes allow it."""
        refuted = self._refuted(found, until)
        if refuted is None:
            return
        with self._lock:
            confirmed, now = self._view.confirmed, monotonic()
            lower = not found.provisional and confirmed is not None and found.epoch < confirmed.epoch
            if not self._followers or (lower and not self._council.dissent(found, now) <= refuted):
                return  # nobody follows any more, or somebody has heard of a newer one meanwhile
            outcome = self._view.offer(found)
            if outcome is Offer.RESET:
                self._council.outvote(found, now)
            if outcome in (Offer.TAKEN, Offer.RESET) and not found.provisional:
                self._end_promotion()
            self._note_news(Cause.RESET if outcome is Offer.RESET else cause)
        if outcome is Offer.RESET and confirmed is not None:
            log.warning("%s: a majority names epoch %d after %d", self.name, found.epoch, confirmed.epoch)
            self.emit(TopologyReset(self.name, confirmed.epoch, found.epoch))
        self._tell()

    def _refuted(self, found: Topology, until: float) -> frozenset[Address] | None:
        """Before a majority takes a newer master from us, the nodes are asked: those of the newer that are no masters.

        None if the majority only lags behind: a newer one says that it is a master, or the one that it names does not.
        """
        with self._lock:
            confirmed = self._view.confirmed
            newer = self._council.dissent(found, monotonic())
        if confirmed is None or found.provisional or found.epoch >= confirmed.epoch:
            return frozenset()
        if not found.agreed or (newer and found.masters == confirmed.masters):
            return None
        named = [address for address in found.masters if address not in confirmed.masters]
        if any(self._roles.masters([one], until) for one in newer) or not self._roles.masters(named, until):
            return None
        return newer

    def _note_news(self, cause: Cause) -> None:
        """Notes the view in force as what is to be told, if it is another one; under the lock."""
        view, old = self._view.current, None if self._news is None else self._news.topology
        if view is None or (view := view.with_replicas(self._guests)) == old:
            return
        self._version += 1
        self._news = News(self._version, view, Cause.FIRST if old is None else cause, self._since)
        if old is not None and (view.epoch != old.epoch or view.masters != old.masters):
            self._since = None

    def _tell(self) -> None:
        news = self._news
        if news is None:
            return
        for follower in self._all():
            if follower.version < news.version:
                follower.publish(news)
            patience = follower.options.failover_timeout
            if patience < self.down_after and not self._warned:
                self._warned = True
                log.warning(
                    "%s: calls wait %g s for a failover (failover_timeout=, profile=), but the sentinels take a master "
                    "for down only after %g s (down-after-milliseconds): such calls fail",
                    *(self.name, patience, self.down_after),
                )

    def withdraw(self, why: str) -> None:
        """Ends a promotion, and the provisional view that it may have brought."""
        with self._lock:
            self._end_promotion()
            if not self._view.withdraw():
                return
            self._note_news(Cause.WITHDRAWN)
        log.warning("%s: a provisional master falls: %s", self.name, why)
        self._tell()

    def is_provisional(self, address: Address) -> bool:
        """Whether this node is the master of a provisional view that is in force."""
        current = self._view.current
        return current is not None and current.provisional and address in current.masters

    # ------------------------------------------------------------------ promotions and roles

    def _end_promotion(self) -> None:
        promotion, self._promotion = self._promotion, None
        if promotion is not None:
            promotion.end()

    def _attend(self, promotion: Promotion) -> None:
        """Follows a candidate as soon as it is the master."""
        with self._lock:
            running, confirmed = self._promotion, self._view.confirmed
            if running is not None and not running.over and running.address == promotion.address:
                return
            if confirmed is None or promotion.address in confirmed.masters:
                return
            self._end_promotion()
            self._promotion = promotion
        if not promotion.start():
            promotion.end()

    def attends(self, promotion: Promotion) -> bool:
        """Whether a promotion is the one that attends to the view in force."""
        return promotion is self._promotion

    def follow(self, promotion: Promotion) -> bool:
        """Puts a provisional view in force: the candidate says that it is the master. Whether it is in force."""
        with self._lock:
            confirmed = self._view.confirmed
            if promotion.over or promotion is not self._promotion or confirmed is None:
                return False
            if confirmed.node_at(promotion.address) is None:
                return False
            found = confirmed.led_by(Node(promotion.address))  # it was named just now, whatever its run id
        self.offer(found, promotion.cause)
        return self.is_provisional(promotion.address)

    def demoted(self, address: Address) -> None:
        """See `Source`."""
        if self.is_provisional(address):
            self.withdraw(f"{address} says that it is no master")
        else:
            self._doubted = address

    def _follow_roles(self, until: float) -> None:
        """A master that says that it is a replica is asked of whom, and whether that one is the master."""
        address, self._doubted = self._doubted, None
        confirmed = self._view.confirmed
        if address is None or confirmed is None or address not in confirmed.masters:
            return
        target = self._roles.leads_to(address, until)
        if target is None or self.is_provisional(target):
            return
        self._first_sign(f"{address} says that it is a replica of {target}")
        promotion = Promotion(self, target, Cause.ROLES)
        with self._lock:
            self._end_promotion()
            self._promotion = promotion
        if not self.follow(promotion) or not promotion.guard():
            promotion.end()  # without a thread the view stands until the sentinels name another master

    def master_agrees(self, address: Address) -> bool:
        """Whether the master that the sentinels name says itself that it is behind the node at `address`."""
        confirmed = self._view.confirmed
        return confirmed is not None and any(self._roles.leads_to(one) == address for one in confirmed.masters)

    def dial(self, address: Address) -> Wire | None:
        """A connection to a node, made as one of the followers would; None if there is none.

        Raises:
            redis.RedisError: none of them can reach the node.
        """
        return self._roles.dial(address)

    def wires(self, address: Address) -> Iterator[Wire]:
        """Unconnected connections to a node, as several followers would make them."""
        return (follower.make_wire(address) for follower in self._all()[:MAX_LOGINS])

    def known(self, announced: Address, said_by: Address) -> Address | None:
        """Where a node is dialled that another one announced; None if it is not one of the service's."""
        address, confirmed = self.hub.admit(announced, said_by), self._view.confirmed
        if isinstance(address, Address) and confirmed is not None and confirmed.node_at(address) is not None:
            return address
        return None
