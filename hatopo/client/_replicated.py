"""A master and its replicas without anybody who watches them: by their own word, or by the names of their endpoints.

Two sources of a deployment's topology. `RoleSource` follows the roles of nodes, which the monitor asks for as long as
anybody uses the deployment; who is the master is decided in `topology`. `NameSource` believes names: a service behind
them moves its roles by DNS. Each belongs to one deployment, which it holds weakly.
"""

from __future__ import annotations

import logging
import threading
import weakref
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING

from hatopo import errors
from hatopo.address import Address
from hatopo.client._asking import addresses_of
from hatopo.client._nodes import News
from hatopo.client._threads import start_thread
from hatopo.connection import Waiters, survive_fork
from hatopo.events import Cause, FailoverStarted, SeveralMasters
from hatopo.routing import Checkup
from hatopo.topology import Census, Node, Offer, Shard, Topology, TopologyView, describe, elect

if TYPE_CHECKING:
    from hatopo.client._deployment import Deployment

log = logging.getLogger("hatopo.topology")

FIRST_ROUNDS = 2.0
"""Seconds that the first call waits for the nodes to say who is the master."""
RESOLVE_GAP = 5.0
"""Seconds between two look-ups of the names of readers, while they are read from."""


class _Own:
    """What the sources of one deployment have in common.

    Args:
        name: of the deployment, for messages and events.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._follower: weakref.ref[Deployment] | None = None
        self._news: News | None = None  # what was told last; under _lock
        self._version = 0
        self.after_fork()
        survive_fork(self)

    def after_fork(self) -> None:
        """In a forked child nobody waits."""
        self._lock = threading.RLock()
        self._sleepers = Waiters()

    def _deployment(self) -> Deployment | None:
        return None if self._follower is None else self._follower()

    def join(self, follower: Deployment) -> None:
        """See `Source`."""
        if self._follower is None:
            self._follower = weakref.ref(follower)
        self._tell(follower)

    def leave(self, follower: Deployment) -> None:
        """See `Source`."""
        self._follower = None

    def _put(self, found: Topology, cause: Cause, since: float | None = None) -> None:
        """Notes what is to be told, if it is another view; under the lock."""
        if self._news is None or found != self._news.topology:
            self._version += 1
            self._news = News(self._version, found, Cause.FIRST if self._news is None else cause, since)

    def _tell(self, follower: Deployment | None) -> None:
        news = self._news
        if follower is not None and news is not None and follower.version < news.version:
            follower.publish(news)


class RoleSource(_Own):
    """See the module.

    Args:
        name: of the deployment, for messages and events.
        seeds: the nodes that the user has listed; asked for ever.
    """

    may_grow = True

    def __init__(self, name: str, seeds: Sequence[Address]) -> None:
        super().__init__(name)
        self._seeds = tuple(seeds)
        self._forget()

    def _forget(self) -> None:
        self._view = TopologyView()  # offered to under _lock
        self._census = Census()  # under _lock
        self._members = dict.fromkeys(self._seeds)  # who belongs, or has belonged and answers; under _lock
        self._unheard: dict[Address, str] = {}  # why nodes do not answer; under _lock
        self._refusers: set[Address] = set()  # those of them who refuse the login; under _lock
        self._rounds = 0
        self._others: tuple[Address, ...] = ()  # who says that it is the master, and is not, or not for sure
        self._last_word: float | None = None
        self._since: float | None = None  # the first sign of another master
        self._news = None

    def join(self, follower: Deployment) -> None:
        """See `Source`."""
        super().join(follower)
        follower.reading.watch()

    def leave(self, follower: Deployment) -> None:
        """See `Source`."""
        super().leave(follower)
        with self._lock:
            self._forget()

    @property
    def keeps_watch(self) -> bool:
        """See `Source`: nobody else tells of another master."""
        return self._follower is not None

    def watched(self) -> Iterable[Address]:
        """See `Source`."""
        return (*self._members, *self._census.invited)

    def expects_more(self) -> bool:
        """See `Source`."""
        return self._census.expects_more

    def refresh(self, until: float, *, join: bool = False) -> None:
        """See `Source`."""
        follower = self._deployment()
        if follower is None:
            return
        rounds = self._rounds
        follower.reading.ask_now()
        end = min(until, monotonic() + FIRST_ROUNDS)

        def ready() -> bool:
            view = self._view.current
            return (view is not None and view.complete) or self._rounds > rounds + 1

        while join and not ready() and monotonic() < end:
            self._sleepers.sleep(end - monotonic(), ready)

    def checked(self, follower: Deployment, address: Address, checkup: Checkup) -> None:
        """See `Source`."""
        if checkup.silent:
            return
        said = checkup.statement
        with self._lock:
            if self._follower is None:
                return  # the client was closed meanwhile
            self._census.note(address, said)
            self._refusers.discard(address)
            if checkup.turned_away:
                self._refusers.add(address)
            if said is None:
                self._unheard[address] = checkup.error or "it does not tell its role (+role or +info permits it)"
            else:
                self._unheard.pop(address, None)
                self._last_word = monotonic()

    def looked(self, follower: Deployment) -> None:
        """See `Source`: all have spoken, or had the time for it."""
        with self._lock:
            if self._follower is None:
                return
            last, census = self._view.current, self._census
            node = None if last is None else last.shards[0].master
            current = None if node is None else node.address
            gone = census.gone(self._seeds)
            self._members = dict.fromkeys(one for one in self._members if one not in gone)
            said, names = census.voters(self._members, current), census.names
            election = elect(said, current, self._seeds, names, pending=not census.has_heard(self._seeds))
            found = describe(said, election, last, names, gone)
            census.invite(self._members)
            found = found.with_replicas(census.joined(self._members, found.masters))
            self._unheard = {one: why for one, why in self._unheard.items() if one in self._members}
            self._refusers &= self._members.keys()
            self._members |= dict.fromkeys(one.address for one in found.nodes)
            self._rounds += 1
            if said and self._view.offer(found) is not Offer.REFUSED:
                self._put(found, Cause.ROLES, self._since)
                if found.masters != (current,):
                    self._since = None
            others, self._others = self._others, election.others
        self._tell(self._deployment())
        if self._census.expects_more:
            follower.reading.ask_now()
        if election.master is not None and election.others and set(election.others) != set(others):
            listed = ", ".join(map(str, election.others))
            log.warning("%s: %s is used as the master, but %s say so, too", self.name, election.master, listed)
            follower.emit(SeveralMasters(self.name, election.master, election.others))
        self._sleepers.wake_all()

    def silent(self, follower: Deployment, address: Address, calm: bool, until: float) -> None:
        """See `Source`: the monitor has been told already."""

    def demoted(self, address: Address) -> None:
        """See `Source`."""
        follower = self._deployment()
        with self._lock:
            first, self._since = self._since is None, self._since or monotonic()
        if follower is not None:
            if first:
                follower.emit(FailoverStarted(self.name, f"{address} says that it is a replica"))
            follower.reading.ask_now()

    def absent(self) -> Mapping[Address, str]:
        """See `Source`."""
        with self._lock:
            if self._follower is None:
                return {}
            nodes = () if self._view.current is None else self._view.current.nodes
            inside = {node.address for node in nodes}
            ids = {node.id for node in nodes}
            twice = {address for address, said in self._census.said.items() if said.run_id and said.run_id in ids}
            return {address: self._says(address) for address in self._members if address not in inside | twice}

    def _says(self, address: Address) -> str:
        """What a node says that it is, or why it does not; under the lock."""
        said = self._census.said.get(address)
        if said is None:
            return self._unheard.get(address, "it has not been asked yet")
        return f"it says that it is a {said.role.role}"

    def why_unknown(self) -> errors.MasterNotFoundError | errors.LoginError:
        """See `Source`: where all that are listed refuse the login, there is nothing to wait for."""
        with self._lock:
            if self._refusers.issuperset(self._seeds):
                return errors.LoginError(self._unheard[self._seeds[0]], self._seeds[0])
            parts = [errors.about(address, why) for address, why in self._unheard.items()]
            said = {address: statement.role for address, statement in self._census.said.items()}
            several = self._others
        for address, role in said.items():
            of = "" if role.master is None else f" of {role.master}"
            parts.append(f"{address} says that it is a {role.role}{of}")
        told = "; ".join(parts) or "none has answered yet"
        if not several:
            return errors.MasterNotFoundError(f"no node of {self.name} says that it is the master: {told}")
        return errors.MasterNotFoundError(
            f"it is not decided which node of {self.name} is the master: {told}. It is the one that most replicas "
            "follow (REPLICAOF); address_map= says where one node is known by two addresses"
        )

    def last_word(self) -> float | None:
        """See `Source`."""
        return self._last_word


class NameSource(_Own):
    """See the module.

    Args:
        name: of the deployment, for messages and events.
        primary: the name behind which the master is; looked up at every connect.
        readers: names behind which replicas are; one that stands for several addresses is several nodes.
    """

    keeps_watch = False
    may_grow = False

    def __init__(self, name: str, primary: Address, readers: Sequence[Address]) -> None:
        super().__init__(name)
        self._primary = primary
        self._behind: dict[Address, tuple[Address, ...]] = dict.fromkeys(readers, ())  # under _lock
        self._resolved = float("-inf")
        self._put(self._topology(), Cause.FIRST)

    def _topology(self) -> Topology:
        nodes: dict[Address, Node] = {}
        for reader, addresses in self._behind.items():
            for address in addresses:
                nodes[address] = Node(address, name=reader.host)
            if not addresses:
                nodes[reader] = Node(reader)
        nodes.pop(self._primary, None)
        shard = Shard(Node(self._primary), tuple(nodes.values()))
        return Topology((shard,), roles_matter=True, by_name=True)

    def refresh(self, until: float, *, join: bool = False) -> None:
        """See `Source`: each dial looks its name up anyway."""

    def watched(self) -> Iterable[Address]:
        """See `Source`."""
        return ()

    def expects_more(self) -> bool:
        """See `Source`."""
        return False

    def checked(self, follower: Deployment, address: Address, checkup: Checkup) -> None:
        """See `Source`."""

    def looked(self, follower: Deployment) -> None:
        """See `Source`: the readers' names are looked up now and then, on a thread of its own: DNS may hang."""
        now = monotonic()
        if now - self._resolved >= RESOLVE_GAP:
            self._resolved = now
            if not start_thread("hatopo-resolve", self._resolve):
                self._resolve()

    def _resolve(self) -> None:
        for reader in list(self._behind):
            found = addresses_of(reader)
            if found is None:
                continue  # what was known holds
            with self._lock:
                self._behind[reader] = found if len(found) > 1 else ()
        with self._lock:
            self._put(self._topology(), Cause.NAMES)
        self._tell(self._deployment())

    def silent(self, follower: Deployment, address: Address, calm: bool, until: float) -> None:
        """See `Source`."""

    def demoted(self, address: Address) -> None:
        """See `Source`: the name still leads to the former master; it is dialled again until it does not."""

    def absent(self) -> Mapping[Address, str]:
        """See `Source`."""
        return {}

    def why_unknown(self) -> errors.MasterNotFoundError:
        """See `Source`."""
        return errors.MasterNotFoundError(f"no master is known behind {self._primary}")

    def last_word(self) -> float | None:
        """See `Source`."""
        return None
