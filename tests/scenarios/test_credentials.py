"""Passwords that change while clients are at work: at the data nodes, and at the sentinels."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING, Any

import pytest
import redis
from redis.credentials import CredentialProvider

from hatopo import events
from tests.control import eventually
from tests.drivers import Load
from tests.scenarios.reading import addresses, take_over, wait_read_from
from tests.scenarios.support import (
    HOURS,
    SLOW,
    assert_only_ambiguous,
    assert_rode_through,
    denials,
    hears_all,
    told,
    write_arrives,
)
from tests.scenarios.test_rights import LOGINS, least

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from hatopo.testing import NodeHandle, Replication, SentinelDeployment, SentinelHandle
    from tests.drivers import WatchingDriver
    from tests.scenarios.support import AnyServer

FIRST, SECOND, WATCHERS = "app-secret", "hunter2", "watcher-secret"
NEVER = 600.0
"""Seconds: a test that waits for it fails."""
SHORT = 0.05
"""Seconds that a connection is used, so that new ones are made all the time."""

on_both = pytest.mark.parametrize(
    ("backend", "protocol"),
    [("embedded", 3), ("embedded", 2), pytest.param("real", 3, marks=pytest.mark.real)],
    indirect=["backend"],
)


@pytest.fixture(autouse=True)
def new_enough(version: tuple[int, ...]) -> None:
    if version < (7,):
        pytest.skip("rights for subcommands and ACLs of sentinels are younger")


@pytest.fixture(params=["embedded"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "real":
        request.getfixturevalue("redis_installed")
    return str(request.param)


class Vault(CredentialProvider):
    """Hands out the password that it holds; after a change it may be late, as a cache is."""

    def __init__(self, user: str, password: str) -> None:
        self.asked = 0
        self.late = 0
        """How often it hands out the former one."""
        self.askers: Counter[str] = Counter()
        """How often each thread has asked, by its name."""
        self._user, self._password, self._former = user, password, ""
        self._lock = threading.Lock()

    def change(self, password: str) -> None:
        self._former, self._password = self._password, password

    def get_credentials(self) -> tuple[str, str]:
        with self._lock:
            self.asked += 1
            self.askers[threading.current_thread().name] += 1
            if self.late:
                self.late -= 1
                return self._user, self._former
            return self._user, self._password


def learn(servers: Iterable[AnyServer], user: str, password: str) -> None:
    """One more password lets this user in."""
    for server in servers:
        server.execute("ACL", "SETUSER", user, f">{password}")


def unlearn(servers: Iterable[AnyServer], user: str, password: str) -> None:
    """A password lets this user in no more; who is in stays."""
    for server in servers:
        server.execute("ACL", "SETUSER", user, f"<{password}")


def refusals(server: AnyServer, user: str) -> int:
    """How often this user was refused because of the password."""
    entries: list[list[Any]] = server.execute("ACL", "LOG", 100)
    found = [dict(zip(entry[::2], entry[1::2], strict=True)) for entry in entries]
    return sum(int(one["count"]) for one in found if one["reason"] == "auth" and one["username"] == user)


def assert_no_password(*shown: object) -> None:
    text = " ".join(f"{one} {one!r}" for one in shown)
    assert [word for word in (FIRST, SECOND, WATCHERS) if word in text] == []


pytestmark = pytest.mark.usefixtures("patient")


class TestAProviderAtTheNodes:
    @on_both
    def test_no_call_fails(
        self,
        driver: WatchingDriver,
        make_set: Callable[..., SentinelDeployment],
        version: tuple[int, ...],
        protocol: int,
    ) -> None:
        """The new password first lets in as well, then alone. A provider that is late is asked once more."""
        deployment = make_set(**least(version))
        master, vault = deployment.master(), Vault("app", FIRST)
        driver.open_sentinel(
            "mymaster", deployment.sentinels, max_connection_age=SHORT, protocol=protocol, **using(vault)
        )
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            learn(deployment.nodes, "app", SECOND)
            load.progress()
            vault.change(SECOND)
            load.progress()
            unlearn(deployment.nodes, "app", FIRST)
            for _ in range(3):
                vault.late = 1
                eventually(lambda: not vault.late, what="it was asked")
                load.progress()
        assert_rode_through(load.ledger(master), outages=0)
        assert refusals(master, "app") == 3
        assert {*denials(master, "app")} <= {"command info", "auth AUTH", "auth HELLO"}

    @on_both
    def test_a_failover_to_a_node_that_was_changed_before(
        self,
        driver: WatchingDriver,
        make_set: Callable[..., SentinelDeployment],
        version: tuple[int, ...],
        protocol: int,
    ) -> None:
        """The old master still took the former password, which a provider that is late hands out first."""
        deployment = make_set(down_after=HOURS, **least(version))
        old, vault = deployment.master(), Vault("app", FIRST)
        driver.open_sentinel("mymaster", deployment.sentinels, protocol=protocol, **using(vault))
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            learn(deployment.nodes, "app", SECOND)
            unlearn(deployment.replicas(), "app", FIRST)
            vault.change(SECOND)
            old.kill()
            eventually(lambda: told(driver, events.NodeDown), what="nobody logs in there any more")
            vault.late = 1
            deployment.set(down_after_milliseconds=1500)  # only now may the sentinels notice
            new = deployment.wait_switched(old)
            load.progress()
        assert_rode_through(load.ledger(new))
        assert driver.master() == new.address
        assert refusals(new, "app") == 1

    def test_one_that_is_late_for_longer_fails_a_call_and_then_no_other(
        self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment], version: tuple[int, ...]
    ) -> None:
        """It is asked once more, and no third time."""
        deployment = make_set(**least(version))
        vault = Vault("app", FIRST)
        driver.open_sentinel("mymaster", deployment.sentinels, failover_timeout=NEVER, **using(vault))
        driver.call("set", "key", "value")
        vault.change(SECOND)
        rotate(deployment.nodes)
        asked, vault.late = vault.asked, 3
        with pytest.raises(redis.AuthenticationError):
            driver.call("get", "key")
        assert vault.asked == asked + 2
        assert driver.call("get", "key") == b"value"
        assert refusals(deployment.master(), "app") == 3


def using(vault: Vault) -> dict[str, Any]:
    """The login of a client: the provider's at the nodes, the usual one at the sentinels."""
    usual = {name: value for name, value in LOGINS.items() if name.startswith("sentinel_")}
    return {**usual, "credential_provider": vault}


def rotate(nodes: Iterable[NodeHandle]) -> None:
    """At once, and whoever is in has to come again."""
    for node in nodes:
        learn([node], "app", SECOND)
        unlearn([node], "app", FIRST)
        node.disconnect()


class TestAPasswordThatIsNoLongerRight:
    """Nobody could know a better one: an error says so, at once and without the password, and servers are spared."""

    @pytest.mark.parametrize("reader", [False, True])
    def test_each_call_tries_it_once(
        self,
        driver: WatchingDriver,
        make_set: Callable[..., SentinelDeployment],
        version: tuple[int, ...],
        caplog: pytest.LogCaptureFixture,
        reader: bool,
    ) -> None:
        deployment = make_set(**least(version))
        master = deployment.master()
        driver.open_sentinel("mymaster", deployment.sentinels, failover_timeout=NEVER, **LOGINS)
        driver.call("set", "key", "value")
        rotate(deployment.nodes)
        for call in range(1, 6):
            with pytest.raises(redis.AuthenticationError) as caught:
                driver.call("get", "key") if reader else driver.call("incr", "counter")
            assert f"{master.host}:{master.port} refused the login" in str(caught.value)
            assert "password=" in str(caught.value)
            assert_no_password(caught.value, caught.value.__cause__, driver.events, caplog.text)
            assert refusals(master, "app") == call
        assert [refusals(replica, "app") for replica in deployment.replicas()] == [0, 0]
        learn(deployment.nodes, "app", FIRST)
        assert write_arrives(driver, master, "with the right one")
        assert told(driver, events.NodeDown) == []

    def test_a_failover_makes_it_no_worse(
        self,
        driver: WatchingDriver,
        make_set: Callable[..., SentinelDeployment],
        version: tuple[int, ...],
    ) -> None:
        """Who is promoted takes another password than the master did. There are locks that count attempts."""
        deployment = make_set(speed=SLOW, replicas=1, **least(version))
        old, new = deployment.nodes
        driver.open_sentinel("mymaster", deployment.sentinels, **LOGINS)
        driver.call("set", "key", "value")
        eventually(lambda: hears_all(driver, deployment), what="all are heard")
        learn([new], "app", SECOND)
        unlearn([new], "app", FIRST)
        old.kill()
        with pytest.raises(redis.AuthenticationError) as caught:
            driver.call("get", "key")
        assert f"{new.host}:{new.port} refused the login" in str(caught.value)
        assert_no_password(caught.value, driver.events)
        assert deployment.wait_switched(old) is new
        assert refusals(new, "app") <= 5
        learn([new], "app", FIRST)
        assert write_arrives(driver, new, "with the right one")


def open_with_a_vault(driver: WatchingDriver, deployment: SentinelDeployment) -> Vault:
    """The provider whom the client asks for its login at the sentinels."""
    vault = Vault("watcher", WATCHERS)
    nodes = {name: value for name, value in LOGINS.items() if not name.startswith("sentinel_")}
    driver.open_sentinel("mymaster", deployment.sentinels, sentinel_credential_provider=vault, **nodes)
    return vault


class TestTheSentinels:
    """They may change their own passwords, and then change the master."""

    @pytest.mark.parametrize("backend", ["embedded", pytest.param("real", marks=pytest.mark.real)], indirect=True)
    def test_a_provider_brings_the_listeners_back(
        self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment], version: tuple[int, ...]
    ) -> None:
        """One after another, while nobody notices; then a failover is followed as ever."""
        deployment = make_set(**least(version))
        vault = open_with_a_vault(driver, deployment)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            eventually(lambda: hears_all(driver, deployment), what="all are heard")
            learn(deployment.sentinel_nodes, "watcher", SECOND)
            vault.change(SECOND)
            unlearn(deployment.sentinel_nodes, "watcher", WATCHERS)
            vault.late = 1
            for sentinel in deployment.sentinel_nodes:
                heard_again(driver, sentinel)
            assert vault.late == 0
            old = deployment.kill_master()
            new = deployment.wait_switched(old)
            load.progress()
        assert_rode_through(load.ledger(new))
        assert driver.master() == new.address
        assert sum(refusals(sentinel, "watcher") for sentinel in deployment.sentinel_nodes) == 1

    def test_a_provider_may_be_late_for_long(
        self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment], version: tuple[int, ...]
    ) -> None:
        """Those who listen ask it again and again, and are back when it hands out the new password."""
        deployment = make_set(**least(version))
        vault = open_with_a_vault(driver, deployment)
        driver.call("set", "key", "value")
        eventually(lambda: hears_all(driver, deployment), what="all are heard")
        learn(deployment.sentinel_nodes, "watcher", SECOND)
        unlearn(deployment.sentinel_nodes, "watcher", WATCHERS)
        vault.change(SECOND)
        vault.late = 10_000
        before = {one: heard(driver, one) for one in deployment.sentinel_nodes}
        vault.askers.clear()
        for sentinel in deployment.sentinel_nodes:
            assert sentinel.disconnect("pubsub") >= 1
        listeners = [f"hatopo-sentinel-{host}:{port}" for host, port in deployment.sentinels]
        eventually(lambda: all(vault.askers[one] >= 4 for one in listeners), 20, "each has tried twice")
        assert driver.call("get", "key") == b"value"
        vault.late = 0
        eventually(lambda: all(heard(driver, one) > count for one, count in before.items()), 20, "all are heard again")
        old = deployment.kill_master()
        assert write_arrives(driver, deployment.wait_switched(old), "followed")

    def test_a_password_that_is_no_longer_right_costs_no_call(
        self,
        driver: WatchingDriver,
        make_set: Callable[..., SentinelDeployment],
        version: tuple[int, ...],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """The last known master is used, and it is told why. When the password is right again, so is everything."""
        deployment = make_set(**least(version))
        sentinels = deployment.sentinel_nodes
        driver.open_sentinel("mymaster", deployment.sentinels, **LOGINS)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            eventually(lambda: hears_all(driver, deployment), what="all are heard")
            learn(sentinels, "watcher", SECOND)
            unlearn(sentinels, "watcher", WATCHERS)
            for sentinel in sentinels:
                sentinel.disconnect("all")
            (degraded,) = eventually(lambda: told(driver, events.DiscoveryDegraded), what="it is told")
            load.progress()
            assert all("refused the login" in reason for reason in degraded.reasons)
            assert max(refusals(sentinel, "watcher") for sentinel in sentinels) < 20
            assert_no_password(driver.events, caplog.text)
            before = [heard(driver, sentinel) for sentinel in sentinels]
            learn(sentinels, "watcher", WATCHERS)
            eventually(
                lambda: all(heard(driver, one) > count for one, count in zip(sentinels, before, strict=True)),
                30,
                "all are heard again",
            )
            old = deployment.kill_master()
            new = deployment.wait_switched(old)
            load.progress()
        assert_rode_through(load.ledger(new))


def heard_again(driver: WatchingDriver, sentinel: SentinelHandle) -> None:
    """Cut the client off from a sentinel; returns when it is heard again."""
    before = heard(driver, sentinel)
    assert sentinel.disconnect("pubsub") >= 1
    eventually(lambda: heard(driver, sentinel) > before, what="it is heard again")


def heard(driver: WatchingDriver, sentinel: AnyServer) -> int:
    """How often a sentinel was found to be heard."""
    return sum((one.address.host, one.address.port) == sentinel.address for one in told(driver, events.SentinelFound))


class TestNodesThatNobodyWatches:
    """The nodes are asked for their roles with the same login that calls have."""

    def test_no_call_fails(
        self, driver: WatchingDriver, make_replication: Callable[..., Replication], version: tuple[int, ...]
    ) -> None:
        """While the password changes, and while one that takes the new one alone becomes the master."""
        deployment = make_replication(users=least(version)["users"])
        old, new, other = deployment.nodes
        vault = Vault("app", FIRST)
        driver.open_replicated(
            addresses(deployment), read_from="replica_preferred", max_connection_age=SHORT, credential_provider=vault
        )
        with Load(driver, incr=2, set=2, replica_preferred=2) as load:
            wait_read_from(load, new, other)
            learn(deployment.nodes, "app", SECOND)
            vault.change(SECOND)
            wait_read_from(load, new, other)  # who had fetched the former one has logged in with it
            load.progress()
            unlearn([new], "app", FIRST)
            discarded = take_over(new, old, [other], Load.KEY)
            unlearn([old, other], "app", FIRST)
            for _ in range(3):
                vault.late = 1
                eventually(lambda: not vault.late, what="it was asked")
                load.progress()
            wait_read_from(load, old, other)
        ledger = load.ledger(new)
        assert_only_ambiguous(ledger, outages=0)
        assert ledger.doubled == []
        assert {*ledger.lost} <= discarded
        assert driver.master() == new.address
        assert sum(refusals(node, "app") for node in deployment.nodes) == 3

    def test_a_password_that_is_no_longer_right_is_said(
        self,
        driver: WatchingDriver,
        make_replication: Callable[..., Replication],
        version: tuple[int, ...],
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        """By calls and by `nodes()`; when it is right again, all nodes are used as before."""
        deployment = make_replication(users=least(version)["users"])
        master, *replicas = deployment.nodes
        options = {"read_from": "replica_preferred", "username": "app", "password": FIRST}
        driver.open_replicated(addresses(deployment), failover_timeout=NEVER, **options)
        with Load(driver, set=1, replica_preferred=1) as load:
            wait_read_from(load, *replicas)
        rotate(deployment.nodes)
        for command in ("get", "incr"):
            with pytest.raises(redis.AuthenticationError) as caught:
                driver.call(command, "key")
            assert "refused the login" in str(caught.value)
            assert_no_password(caught.value, driver.events, caplog.text)
        eventually(lambda: all(refused(driver, node) for node in deployment.nodes), what="it is noticed")
        assert_no_password(driver.nodes())
        learn(deployment.nodes, "app", FIRST)
        with Load(driver, set=1, replica_preferred=1) as load:
            wait_read_from(load, *replicas)
        assert load.ledger(master).other_errors == []


def refused(driver: WatchingDriver, node: NodeHandle) -> bool:
    return f"{node.host}:{node.port} refused the login" in driver.nodes()[node.address].refused
