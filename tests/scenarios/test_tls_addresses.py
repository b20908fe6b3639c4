"""TLS where certificates carry a name and servers announce addresses: which name is checked, and what is dialled."""

from __future__ import annotations

import gc
import socket
from typing import TYPE_CHECKING, Any

import pytest
import redis

import hatopo
from hatopo import events
from hatopo.errors import HandshakeError
from hatopo.testing import Replication, SentinelDeployment
from hatopo.testing.real import tls_supported
from hatopo.testing.world._loop import LOOP
from tests.control import Certificates, eventually
from tests.drivers import Load
from tests.names import Names
from tests.scenarios.support import assert_rode_through, masters_told, told, write_arrives

if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    from hatopo.testing import NodeHandle, SentinelHandle
    from tests.control import Address
    from tests.drivers import WatchingDriver

# Python's ssl module forgets to close a socket whose server is gone before the first byte of TLS.
pytestmark = pytest.mark.filterwarnings("ignore:unclosed <ssl.SSLSocket:ResourceWarning")

NAME, OTHER = "redis.test", "other.test"
"""What certificates carry, and what they do not; both are names of the loopback interface."""
LOOPBACK = "127.0.0.1"
INSIDE = "10.9.0."
"""How addresses begin that only the servers can dial."""
SECRET, WORD = "hunter2", "correct-horse"
NEVER = 600.0
"""Seconds: a test that waits for it fails."""


@pytest.fixture(params=["embedded"])
def backend(request: pytest.FixtureRequest) -> str:
    if request.param == "real":
        request.getfixturevalue("redis_installed")
        if not tls_supported():
            pytest.skip("this redis-server was built without TLS")
    return str(request.param)


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """What ssl forgets is found by no other test."""
    yield
    gc.collect()


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path, NAME, f"readers.{NAME}")


@pytest.fixture(autouse=True)
def dialled(monkeypatch: pytest.MonkeyPatch) -> set[str]:
    """The hosts that were looked up in order to connect: names, and IP addresses, too."""
    found: set[str] = set()
    real = socket.getaddrinfo

    def resolve(host: Any, port: Any, *args: Any, **keywords: Any) -> Any:
        found.add(str(host))
        if str(host).startswith(INSIDE):
            return real(LOOPBACK, 1, *args, **keywords)  # where nobody listens
        return real(LOOPBACK if host in (NAME, OTHER) else host, port, *args, **keywords)

    monkeypatch.setattr(socket, "getaddrinfo", resolve)
    return found


def secured(certificates: Certificates, name: Any = None, sentinel_name: Any = None, **more: Any) -> dict[str, Any]:
    """The options of a client that trusts this authority, and the names that it is to find in certificates."""
    asked = {"sentinel_ssl": True, "sentinel_kwargs": {"tls_server_name": sentinel_name}}
    return trusting(certificates, name, **asked, **more)


def trusting(certificates: Certificates, name: Any = None, **more: Any) -> dict[str, Any]:
    """The same where there are no sentinels."""
    return {"ssl": True, "ssl_ca_certs": str(certificates.ca_file), "tls_server_name": name, **more}


def by_name(addresses: Sequence[Address]) -> list[Address]:
    return [(NAME, port) for _, port in addresses]


def assert_refused(error: Exception, node: NodeHandle | SentinelHandle, *says: str) -> None:
    """Whether an error names the node and the reason, and no password."""
    text = f"{error} {error!r}"
    for part in (f"{node.host}:{node.port}", "certificate was refused", *says):
        assert part in text
    assert SECRET not in text
    assert WORD not in text


def why_not_ready(driver: WatchingDriver, count: int) -> Exception:
    """The error of a client that refuses so many certificates; on a busy machine not all are looked at in time."""

    def found() -> Exception | None:
        with pytest.raises(redis.ConnectionError) as caught:
            driver.wait_ready(0.3)
        return caught.value if str(caught.value).count("certificate was refused") == count else None

    error = eventually(found, 30, "all certificates are refused")
    assert error is not None
    return error


class TestACertificateWithAName:
    """The sentinels announce IP addresses."""

    @pytest.mark.parametrize(
        ("backend", "way"),
        [
            *(("embedded", way) for way in ("name", "seed", "function")),
            pytest.param("real", "seed", marks=pytest.mark.real),
        ],
        indirect=["backend"],
    )
    def test_a_failover_is_followed(
        self,
        driver: WatchingDriver,
        make_set: Callable[..., SentinelDeployment],
        certificates: Certificates,
        dialled: set[str],
        way: str,
    ) -> None:
        deployment = make_set(tls=certificates.files)
        asked: set[Address] = set()

        def name_at(host: str, port: int) -> str:
            asked.add((host, port))
            return NAME

        name = {"name": NAME, "seed": "seed", "function": name_at}[way]
        sentinels = by_name(deployment.sentinels) if way == "seed" else deployment.sentinels
        driver.open_sentinel("mymaster", sentinels, **secured(certificates, name, name))
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            old = deployment.kill_master()
            new = deployment.wait_switched(old)
            load.progress()
        assert_rode_through(load.ledger(new))
        assert driver.master() == new.address
        eventually(lambda: {address for address, _ in masters_told(driver)} == {new.address}, what="it is told")
        assert way != "seed" or NAME in dialled
        assert (asked >= {old.address, new.address, *deployment.sentinels}) == (way == "function")

    def test_the_next_master_must_carry_its_name_too(
        self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment], certificates: Certificates
    ) -> None:
        """It gets neither the password nor a command before it does. Once it does, all is well."""
        deployment = make_set(replicas=1, tls=certificates.files, password=SECRET)
        old, new = deployment.nodes
        names = {old.port: NAME, new.port: OTHER}
        options = secured(certificates, lambda _, port: names[port], NAME, password=SECRET)
        driver.open_sentinel("mymaster", deployment.sentinels, failover_timeout=NEVER, **options)
        driver.call("set", "key", "value")
        old.kill()
        with pytest.raises(HandshakeError) as caught:
            driver.call("set", "key", "value")
        assert_refused(caught.value, new, OTHER)
        assert deployment.wait_switched(old) is new
        names[new.port] = NAME
        assert write_arrives(driver, new, "under the right name")

    def test_a_sentinel_of_another_name_is_left_out(
        self, driver: WatchingDriver, make_set: Callable[..., SentinelDeployment], certificates: Certificates
    ) -> None:
        """The others suffice."""
        deployment = make_set(tls=certificates.files)
        stranger, *others = deployment.sentinels

        def name_at(_: str, port: int) -> str:
            return OTHER if port == stranger[1] else NAME

        driver.open_sentinel("mymaster", deployment.sentinels, **secured(certificates, NAME, name_at))
        driver.call("set", "key", "value")
        eventually(lambda: heard(driver) == {*others}, what="the others are heard")
        old = deployment.kill_master()
        new = deployment.wait_switched(old)
        assert write_arrives(driver, new, "followed")
        assert heard(driver) == {*others}


def heard(driver: WatchingDriver) -> set[Address]:
    return {(found.address.host, found.address.port) for found in told(driver, events.SentinelFound)}


class TestAWrongCertificate:
    """The error comes at once, names the node and the name, and shows nobody's password; nor does any log."""

    @pytest.mark.parametrize("wrong", ["address", "name", "authority"])
    def test_of_a_node(
        self,
        driver: WatchingDriver,
        make_set: Callable[..., SentinelDeployment],
        certificates: Certificates,
        tmp_path: Path,
        caplog: pytest.LogCaptureFixture,
        wrong: str,
    ) -> None:
        deployment = make_set(tls=certificates.files, password=SECRET)
        options = secured(certificates, OTHER if wrong == "name" else None, NAME, password=SECRET)
        if wrong == "authority":
            (tmp_path / "other").mkdir()
            options["ssl_ca_certs"] = str(Certificates(tmp_path / "other", LOOPBACK).ca_file)
            options["sentinel_ssl_ca_certs"] = str(certificates.ca_file)
        driver.open_sentinel("mymaster", deployment.sentinels, failover_timeout=NEVER, **options)
        for _ in range(2):
            with pytest.raises(HandshakeError) as caught:
                driver.call("get", "key")
            reason = {"address": LOOPBACK, "name": OTHER, "authority": "issuer"}[wrong]
            assert_refused(caught.value, deployment.master(), f"{reason}'" if wrong != "authority" else reason)
        assert SECRET not in caplog.text + repr(driver.events)

    def test_of_the_sentinels(
        self,
        driver: WatchingDriver,
        make_set: Callable[..., SentinelDeployment],
        certificates: Certificates,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        deployment = make_set(tls=certificates.files, sentinel_users=[f"user watcher on >{WORD} ~* &* +@all"])
        options = secured(certificates, NAME, OTHER, sentinel_username="watcher", sentinel_password=WORD)
        driver.open_sentinel("mymaster", deployment.sentinels, password=SECRET, **options)
        error = why_not_ready(driver, len(deployment.sentinels))
        assert isinstance(error, hatopo.MasterNotFoundError)
        for sentinel in deployment.sentinel_nodes:
            assert_refused(error, sentinel, OTHER)
        assert WORD not in caplog.text + repr(driver.events)


class HiddenReplication(Replication):
    """Its servers know each other by addresses that nobody else can dial, each with the port where it listens."""

    def _way_to(self, node: NodeHandle) -> Address:
        return node.announced or node.address

    def _start_node(self, master: NodeHandle | None = None) -> NodeHandle:
        host = f"{INSIDE}{len(self.nodes) + 1}"
        self._settings.config["replica-announce-ip"] = host
        node = super()._start_node(master)
        node.announced = self._let_in(node, host)
        return node

    def _let_in(self, member: NodeHandle | SentinelHandle, host: str) -> Address:
        """Let the other servers reach this one there."""
        inside = (host, member.port)
        LOOP.call(lambda: self._world.servers.update({inside: member._server}))
        return inside


class HiddenSet(HiddenReplication, SentinelDeployment):
    """The same with sentinels."""

    def _start_sentinel(self, master: NodeHandle) -> SentinelHandle:
        sentinel = super()._start_sentinel(master)
        sentinel.announce(*self._let_in(sentinel, f"{INSIDE}{len(self._members())}"))
        return sentinel


def outside(way: str) -> Any:
    """What brings a client to the servers, as the option `address_map` takes it."""
    ways: dict[str, Any] = {
        "dictionary": {f"{INSIDE}{number}": NAME for number in range(1, 10)},
        "function": lambda _, port: (NAME, port),
        "seed-host": "seed-host",
    }
    return ways[way]


@pytest.fixture
def hidden(certificates: Certificates, servers: contextlib.ExitStack) -> HiddenSet:
    """A set all of whose addresses are wrong from outside."""
    deployment = HiddenSet(tls=certificates.files, down_after=1.5)
    servers.enter_context(deployment)
    return deployment


@pytest.mark.usefixtures("patient")
class TestAddressesOfAnotherNetwork:
    """Everything that is announced can be dialled only under a name, which is what the certificate carries."""

    def test_without_a_map_nobody_is_reached(
        self, driver: WatchingDriver, hidden: HiddenSet, certificates: Certificates, dialled: set[str]
    ) -> None:
        """Proof of the instrument."""
        options = secured(certificates, NAME, NAME, failover_timeout=2)
        driver.open_sentinel("mymaster", by_name(hidden.sentinels), **options)
        with pytest.raises(redis.ConnectionError, match=rf"{INSIDE}1:{hidden.nodes[0].port} cannot be reached"):
            driver.call("get", "key")
        assert f"{INSIDE}1" in dialled

    @pytest.mark.parametrize("way", ["dictionary", "function", "seed-host"])
    def test_a_failover_is_followed(
        self, driver: WatchingDriver, hidden: HiddenSet, certificates: Certificates, dialled: set[str], way: str
    ) -> None:
        """From one sentinel that was told by name; the others are learned, and listened to."""
        options = secured(certificates, address_map=outside(way), allowed_hosts=[NAME])
        driver.open_sentinel("mymaster", by_name(hidden.sentinels[:1]), **options)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            eventually(lambda: heard(driver) == {*by_name(hidden.sentinels)}, 30, "all are heard")
            old = hidden.kill_master()
            new = hidden.wait_switched(old)
            load.progress()
        assert_rode_through(load.ledger(new))
        assert driver.master() == (NAME, new.port)
        assert {one for one in dialled if one.startswith(INSIDE)} == set()
        eventually(lambda: masters_told(driver), what="it is told")
        (place,) = {change.new for change in told(driver, events.MasterChanged) if change.old is not None}
        assert new.announced is not None
        assert str(place) == f"{NAME}:{new.port} (announced as {new.announced[0]}:{new.port})"


@pytest.fixture
def replication(make_replication: Callable[..., Replication], certificates: Certificates) -> Replication:
    """A master and two replicas whom nobody watches."""
    return make_replication(tls=certificates.files, password=SECRET)


def follow(driver: WatchingDriver, *nodes: Address, **options: Any) -> None:
    """Open a client of these nodes that reads from replicas, and uses it."""
    driver.open_replicated(nodes, read_from="replica_preferred", password=SECRET, **options)
    assert driver.call("set", "key", "value")


def answered(driver: WatchingDriver) -> Address:
    """Who answers a read now."""
    (node,) = driver.read("get", "key").nodes
    return node


def wait_read_from(driver: WatchingDriver, *places: Address) -> None:
    """Return when each of these has answered a read."""
    seen: set[Address] = set()

    def all_have() -> bool:
        seen.add(answered(driver))
        return seen >= {*places}

    eventually(all_have, 20, f"reads from {places}")


@pytest.mark.usefixtures("patient")
class TestNodesThatNobodyWatches:
    """They name each other by IP addresses, or by such as cannot be dialled from here."""

    @pytest.mark.parametrize("way", ["name", "seed", "function"])
    def test_the_certificate_carries_a_name(
        self,
        driver: WatchingDriver,
        replication: Replication,
        certificates: Certificates,
        way: str,
    ) -> None:
        old, new, _ = replication.nodes
        ways: dict[str, Any] = {"name": NAME, "seed": "seed", "function": lambda *_: NAME}
        follow(driver, (NAME, old.port), **trusting(certificates, ways[way]))
        wait_read_from(driver, *(replica.address for replica in replication.replicas()))
        replication.promote(new)
        eventually(lambda: driver.master() == new.address, what="the promotion is followed")
        assert write_arrives(driver, new, "by hand")
        wait_read_from(driver, (NAME, old.port))

    @pytest.mark.parametrize("way", ["dictionary", "function", "seed-host"])
    def test_announced_addresses_are_mapped(
        self, driver: WatchingDriver, certificates: Certificates, dialled: set[str], way: str
    ) -> None:
        options = trusting(certificates, address_map=outside(way), allowed_hosts=[NAME])
        with HiddenReplication(tls=certificates.files, password=SECRET) as deployment:
            old, new, other = deployment.nodes
            follow(driver, (NAME, old.port), **options)
            wait_read_from(driver, (NAME, new.port), (NAME, other.port))
            deployment.promote(new)
            eventually(lambda: driver.master() == (NAME, new.port), what="the promotion is followed")
            assert write_arrives(driver, new, "by hand")
            wait_read_from(driver, (NAME, old.port), (NAME, other.port))
        assert {one for one in dialled if one.startswith(INSIDE)} == set()

    def test_a_replica_of_another_name_gets_no_reads(
        self, driver: WatchingDriver, replication: Replication, certificates: Certificates
    ) -> None:
        """It is told why, until it has the right one."""
        _, stranger, good = replication.nodes
        names = {node.port: NAME for node in replication.nodes}
        options = trusting(certificates, lambda _, port: names[port])
        follow(driver, *(node.address for node in replication.nodes), **options)
        wait_read_from(driver, stranger.address, good.address)
        names[stranger.port] = OTHER
        stranger.disconnect()
        refused = eventually(lambda: driver.nodes()[stranger.address].refused, what="it is noticed")
        assert_refused(Exception(refused), stranger, OTHER)
        assert {answered(driver) for _ in range(10)} == {good.address}
        names[stranger.port] = NAME
        wait_read_from(driver, stranger.address)

    def test_a_wrong_name_is_said(
        self,
        driver: WatchingDriver,
        replication: Replication,
        certificates: Certificates,
        caplog: pytest.LogCaptureFixture,
    ) -> None:
        options = trusting(certificates, OTHER, password=SECRET)
        driver.open_replicated([node.address for node in replication.nodes], **options)
        error = why_not_ready(driver, len(replication.nodes))
        assert isinstance(error, hatopo.MasterNotFoundError)
        for node in replication.nodes:
            assert_refused(error, node, OTHER)
        assert SECRET not in caplog.text + repr(driver.events)

    def test_endpoints_carry_their_own_names(
        self,
        driver: WatchingDriver,
        replication: Replication,
        certificates: Certificates,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        """A reader's name stands for several addresses: each is dialled, and must carry that name."""
        master, *replicas = replication.nodes
        names = Names(monkeypatch)
        try:
            primary = names.point(NAME, master.address)
            readers = names.point(f"readers.{NAME}", *(replica.address for replica in replicas))
            driver.open_replicated(
                primary=primary, readers=[readers], read_from="replica", password=SECRET, **trusting(certificates)
            )
            wait_read_from(driver, *(names.address_of(replica.address) for replica in replicas))
            assert driver.master() == primary
        finally:
            names.close()
