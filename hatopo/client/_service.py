"""One service that sentinels watch: what they said of it, the view in force, and the clients that follow it.

Brings together what is known (words of sentinels, roles of nodes) and has the pure rooms decide. Rounds of questions
are shared: one at a time for all clients of the process. Never holds its lock while it tells others.
"""

from __future__ import annotations

import logging
import threading
import weakref
from time import monotonic
from typing import TYPE_CHECKING

import redis.exceptions as rx

from hatopo import errors
from hatopo.address import Address
from hatopo.client._asking import Round
from hatopo.client._flight import GAP, SingleFlight
from hatopo.client._nodes import News
from hatopo.client._promotion import Promotion, promoted, role_on
from hatopo.client._threads import start_thread
from hatopo.connection import Wire, survive_fork
from hatopo.events import Cause, DiscoveryDegraded, Event, FailoverStarted, TopologyReset
from hatopo.topology import (
    Answer,
    NotFound,
    Offer,
    RoleReport,
    Sign,
    Topology,
    TopologyView,
    Word,
    backers_of,
    explain,
    vouched,
    weigh,
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
FRESH = 30.0
"""Seconds for which a sentinel's word counts in a majority."""
SIGN_LASTS = 180.0
MAX_HOPS = 2
MAX_TRIED = 3
"""How many clients' logins are tried to ask a node for its role."""


class Service:
    """See the module.

    Args:
        hub: the sentinels.
        name: by which they know it.
    """

    def __init__(self, hub: Hub, name: str) -> None:
        self.hub = hub
        self.name = name
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
        self._words: dict[str, tuple[Answer, float]] = {}  # the last usable word of each sentinel; under _lock
        self._last_word: float | None = None
        self._missing: NotFound | None = None  # what the last round brought instead of a topology
        self._degraded = False
        self._since: float | None = None  # the first sign of the failover that is under way
        self._doubted: Address | None = None  # a master that says that it is none
        self._refused: Address | None = None
        self._warned = False  # a client's patience is too short

    def after_fork(self) -> None:
        """In a forked child nobody asks, waits or attends to a promotion."""
        self._lock = threading.RLock()
        self._flight.after_fork()
        self._probed = float("-inf")
        self._promotion = None

    # ------------------------------------------------------------------ followers

    @property
    def followed(self) -> bool:
        """Whether any client uses it."""
        return len(self._followers) > 0

    def join(self, follower: Deployment) -> None:
        """See `Source`."""
        if follower in self._followers and self.hub.running:
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
                if self._promotion is not None:
                    self._promotion.end()
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

    # ------------------------------------------------------------------ rounds

    def refresh(self, until: float, *, join: bool = False) -> None:
        """See `Source`."""
        gap = WATCHED_GAP if self._news is not None and self.hub.listening else GAP
        if not self._flight.do(lambda: self._round(until), gap) and join:
            self._flight.join(until, lambda: self._news is not None)

    def _round(self, until: float) -> None:
        found = Round(self.hub, self.name).run(until, self._note)
        if isinstance(found, Topology):
            self._missing = None
            self.offer(found, Cause.SENTINELS)
        else:
            if self._missing is None or len(found.answers) >= len(self._missing.answers):
                self._missing = found  # a round that was cut short does not hide what an earlier one has heard
            self._degrade(found)
        self._follow_roles()

    def _degrade(self, found: NotFound) -> None:
        """No sentinel names a master; if none can be asked at all, that is worth saying once."""
        reachable = [answer for answer in found.answers if not answer.error]
        if reachable or self._degraded or len(found.answers) < len(self.hub.addresses()):
            return
        self._degraded = True
        reasons = tuple(answer.error for answer in found.answers)
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
        if answer.report is None:
            return
        with self._lock:
            now = monotonic()
            fresh = [word for word, at in self._words.values() if now - at < FRESH]
        found = weigh(fresh, len(self.hub.addresses()))
        if isinstance(found, Topology) and (found.agreed or self._news is not None):
            self.offer(found, Cause.SENTINELS)

    def _answers(self) -> list[Answer]:
        return [word for word, _ in self._words.values()]

    def _note(self, answer: Answer) -> None:
        if answer.error:
            return
        now = monotonic()
        with self._lock:
            self._last_word = now
            relieved, self._degraded = self._degraded, False
            for who in [who for who, (word, _) in self._words.items() if word.sentinel == answer.sentinel]:
                del self._words[who]  # another sentinel may be at its address by now
            if answer.report is not None:
                self._words[answer.who] = (answer, now)
                self.down_after = answer.report.down_after or self.down_after
            others = self._answers()
        if relieved:
            log.info("%s: the sentinel at %s can be asked again", self.name, answer.sentinel)
        self.hub.note(answer, others)

    def word(self, word: Word, sentinel: Address) -> None:
        """A sentinel has published something about this service; it is asked again in any case."""
        address = None if word.address is None else self.hub.admit(word.address, sentinel)
        if not self._is_over(word.sign, address):
            self._first_sign(f"the sentinel at {sentinel} {_SAYS[word.sign]}")
        if word.sign is Sign.ABORTED:
            self._since = None
            self.withdraw(f"{sentinel} has given the failover up")
        elif word.sign is Sign.CANDIDATE and isinstance(address, Address) and self._believes(address, sentinel):
            self._attend(Promotion(self, address, Cause.EARLY_PROMOTION, sentinel))

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
        if sign not in (Sign.BEGUN, Sign.CANDIDATE, Sign.SWITCHED) or current is None or current.provisional:
            return True
        return (address in _masters(current)) != (sign is Sign.BEGUN)  # the old master's end, or the new one's rise

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
        with self._lock:
            confirmed = self._view.confirmed
            answers = self._answers()
        if confirmed is None or not any(c.address == candidate for s in confirmed.shards for c in s.replicas):
            return False
        claims = {answer.who for answer in answers if answer.sentinel == sentinel}
        alone = len(self.hub.addresses()) == 1
        return alone or self.hub.watching.allowed_hosts is not None or vouched(candidate, answers, besides=claims)

    # ------------------------------------------------------------------ the view

    def offer(self, found: Topology, cause: Cause) -> bool:
        """Puts a view in force and tells the followers, if it may be believed; whether it is in force now."""
        if not self._trusted(found) or not self._confirmed_by_role(found):
            return False
        with self._lock:
            before, epoch = self._news, self._view.confirmed.epoch if self._view.confirmed else 0
            outcome = self._view.offer(found)
            if outcome is Offer.REFUSED:
                return False
            if outcome is Offer.KNOWN or self._view.current is None:
                return True
            cause = Cause.FIRST if before is None else Cause.RESET if outcome is Offer.RESET else cause
            self._tell_later(cause)
            if outcome is Offer.RESET:  # what was said before counts no more
                agreed = {answer.who for answer in backers_of(_masters(found)[0], self._answers())}
                self._words = {who: word for who, word in self._words.items() if who in agreed}
            if not found.provisional and self._promotion is not None:
                self._promotion.end()
        if outcome is Offer.RESET:
            log.warning("%s: a majority of the sentinels names epoch %d after %d", self.name, found.epoch, epoch)
            self.emit(TopologyReset(self.name, epoch, found.epoch))
        self._tell()
        return True

    def _tell_later(self, cause: Cause) -> None:
        """Notes the view in force as what is to be told; under the lock."""
        assert self._view.current is not None
        old, new = None if self._news is None else self._news.topology, self._view.current
        self._version += 1
        self._news = News(self._version, new, cause, self._since)
        if old is not None and (new.epoch != old.epoch or _masters(old) != _masters(new)):
            self._since = None

    def _tell(self) -> None:
        news = self._news
        if news is None:
            return
        for follower in self._all():
            follower.publish(news)
            patience = follower.options.failover_timeout
            if patience < self.down_after and not self._warned:
                self._warned = True
                log.warning(
                    "%s: calls wait %g s for a failover (failover_timeout=, profile=), but the sentinels take a master "
                    "for down only after %g s (down-after-milliseconds): such calls fail",
                    *(self.name, patience, self.down_after),
                )

    def _trusted(self, found: Topology) -> bool:
        """Whether the word of a single sentinel may send us to these masters: only to nodes that others know, too."""
        with self._lock:
            confirmed = self._view.confirmed
            answers = self._answers()
        if confirmed is None or found.provisional or found.agreed or self.hub.watching.allowed_hosts is not None:
            return True
        for master in (shard.master for shard in found.shards):
            if master is None or master.address in _masters(confirmed):
                continue
            backers = {answer.who for answer in backers_of(master.address, answers)}
            if len(backers) < 2 and not vouched(master.address, answers, besides=backers):
                if self._refused != master.address:
                    self._refused = master.address
                    log.warning(
                        "%s: %s as the master is refused: a single sentinel says so (%s), and no other one knows the "
                        "node; if that is right, permit it with allowed_hosts=",
                        *(self.name, master.address, ", ".join(sorted(backers)) or "unknown"),
                    )
                return False
        return True

    def _confirmed_by_role(self, found: Topology) -> bool:
        """Before a lower epoch takes a working master from us, the other node must say that it is one."""
        confirmed = self._view.confirmed
        if confirmed is None or found.provisional or not found.agreed or found.epoch >= confirmed.epoch:
            return True
        new = [address for address in _masters(found) if address not in _masters(confirmed)]
        roles = [self._role_of(address) for address in new]
        return all(role is not None and role.role == "master" for role in roles)

    def withdraw(self, why: str) -> None:
        """Ends a promotion, and the provisional view that it may have brought."""
        with self._lock:
            if self._promotion is not None:
                self._promotion.end()
            if not self._view.withdraw():
                return
            self._tell_later(Cause.WITHDRAWN)
        log.warning("%s: a provisional master falls: %s", self.name, why)
        self._tell()

    def is_provisional(self, address: Address) -> bool:
        """Whether this node is the master of a provisional view that is in force."""
        current = self._view.current
        return current is not None and current.provisional and address in _masters(current)

    # ------------------------------------------------------------------ promotions and roles

    def _attend(self, promotion: Promotion) -> None:
        with self._lock:
            running = self._promotion
            if running is not None and not running.over:
                if running.address == promotion.address:
                    return
                running.end()
            confirmed = self._view.confirmed
            if confirmed is None or promotion.address in _masters(confirmed):
                return
            self._promotion = promotion
        promotion.start()

    def follow(self, promotion: Promotion) -> bool:
        """Puts a provisional view in force: the candidate says that it is the master."""
        with self._lock:
            confirmed = self._view.confirmed
            node = None if confirmed is None else confirmed.node_at(promotion.address)
            if promotion.over or confirmed is None or node is None or promotion is not self._promotion:
                return False
            found = confirmed.led_by(promoted(node))
        return found.provisional and self.offer(found, promotion.cause)

    def demoted(self, address: Address) -> None:
        """See `Source`."""
        if self.is_provisional(address):
            self.withdraw(f"{address} says that it is no master")
            return
        self._doubted = address

    def _follow_roles(self) -> None:
        """A master that says that it is a replica is asked of whom, and whether that one is the master."""
        address, self._doubted = self._doubted, None
        confirmed = self._view.confirmed
        if address is None or confirmed is None or address not in _masters(confirmed):
            return
        seen = [address]
        for _ in range(MAX_HOPS):
            role = self._role_of(seen[-1])
            if role is None or role.role != "replica" or role.master is None:
                break
            target = self.hub.admit(role.master, seen[-1])
            if not isinstance(target, Address) or confirmed.node_at(target) is None or target in seen:
                return
            seen.append(target)
        role = self._role_of(seen[-1]) if len(seen) > 1 else None
        if role is None or role.role != "master":
            return
        self._first_sign(f"{address} says that it is a replica of {seen[-1]}")
        promotion = Promotion(self, seen[-1], Cause.ROLES)
        with self._lock:
            self._promotion = promotion
        if self.follow(promotion):
            promotion.guard()

    def master_agrees(self, address: Address) -> bool:
        """Whether the master that the sentinels name says itself that it is a replica of the node at `address`."""
        confirmed = self._view.confirmed
        if confirmed is None:
            return False
        for master in _masters(confirmed):
            role = self._role_of(master)
            if role is not None and role.role == "replica" and role.master is not None:
                return self.hub.admit(role.master, master) == address
        return False

    def dial(self, address: Address) -> Wire | None:
        """A connection to a node, made as one of the followers would; None if there is none.

        Raises:
            redis.RedisError: none of them can reach the node.
        """
        failure: rx.RedisError | None = None
        for follower in self._all()[:MAX_TRIED]:
            wire = follower.make_wire(address)
            try:
                wire.connect()
            except rx.RedisError as error:
                failure = error
                if isinstance(error, errors.DialError):
                    break  # whoever asks, it does not answer
            else:
                return wire
        if failure is not None:
            raise failure
        return None

    def _role_of(self, address: Address) -> RoleReport | None:
        wire = None
        try:
            wire = self.dial(address)
            return None if wire is None else role_on(wire)
        except (rx.RedisError, OSError):
            return None
        finally:
            if wire is not None:
                wire.disconnect()


_SAYS = {
    Sign.BEGUN: "has announced a failover",
    Sign.CANDIDATE: "has selected a replica",
    Sign.SWITCHED: "has switched to another master",
}


def _masters(topology: Topology) -> tuple[Address, ...]:
    return tuple(shard.master.address for shard in topology.shards if shard.master is not None)
