"""Users with no more rights than documented, on data nodes and on sentinels; and with fewer."""

from __future__ import annotations

from contextlib import closing
from typing import TYPE_CHECKING, Any

import pytest

from hatopo import events
from hatopo.topology import CHANNELS
from tests.conftest import eventually
from tests.control import Control, ServerError
from tests.drivers import Load
from tests.scenarios.support import (
    AS_REAL,
    assert_only_ambiguous,
    assert_rode_through,
    change_master,
    denials,
    hears_all,
    masters_told,
    told,
    write_arrives,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from hatopo.testing import SentinelDeployment
    from tests.drivers import WatchingDriver
    from tests.scenarios.support import AnyServer

APPLICATION = "~* &* -@all +@read +@write +@transaction +@scripting +@pubsub +@blocking"
HANDSHAKE = "+auth +hello +ping +select +role +client|setname"
ASKING = (
    "+sentinel|get-master-addr-by-name +sentinel|master +sentinel|replicas +sentinel|sentinels +sentinel|myid "
    "+auth +hello +ping +role +client|setname"
)
LISTENING = "resetchannels +subscribe " + " ".join(f"&{channel}" for channel in CHANNELS)
LOGINS: dict[str, Any] = {
    "username": "app",
    "password": "app-secret",
    "sentinel_username": "watcher",
    "sentinel_password": "watcher-secret",
}


def least(version: tuple[int, ...], without: tuple[str, ...] = ()) -> dict[str, list[str]]:
    """The users of clients, with the documented rights but for some."""
    node = f"{APPLICATION} {HANDSHAKE}"
    sentinel = f"-@all {ASKING} {LISTENING}"
    if version >= (7, 2):
        node += " +client|setinfo"
        sentinel += " +client|setinfo"
    for right in without:
        node, sentinel = (" ".join(one for one in each.split() if one != right) for each in (node, sentinel))
    return {
        "users": [f"user app on >app-secret {node}"],
        "sentinel_users": [f"user watcher on >watcher-secret {sentinel}"],
    }


def may(server: AnyServer, user: str, *command: str) -> bool:
    with closing(Control(server.address)) as control:
        control("AUTH", user, f"{user}-secret")
        try:
            control(*command)
        except ServerError as error:
            if "NOPERM" in str(error):
                return False
            raise
        return True


def denied(deployment: SentinelDeployment) -> set[str]:
    """All that the clients' users were refused."""
    on_nodes = {each for node in deployment.nodes if node.running for each in denials(node, "app")}
    return on_nodes | {each for one in deployment.sentinel_nodes for each in denials(one, "watcher")}


@pytest.fixture(autouse=True)
def new_enough(version: tuple[int, ...]) -> None:
    if version < (7,):
        pytest.skip("rights for subcommands and ACLs of sentinels are younger")


pytestmark = pytest.mark.usefixtures("patient")


class TestLeastRights:
    def test_the_rights_are_few(self, make_set: Callable[..., SentinelDeployment], version: tuple[int, ...]) -> None:
        """Proof of the instrument: the users may do what is listed, and nothing else."""
        deployment = make_set(**least(version))
        node, sentinel = deployment.nodes[0], deployment.sentinel_nodes[0]
        assert may(node, "app", "SET", "key", "value")
        assert not may(node, "app", "INFO")
        assert not may(node, "app", "CONFIG", "GET", "*")
        assert may(sentinel, "watcher", "SENTINEL", "MASTER", "mymaster")
        assert may(sentinel, "watcher", "SUBSCRIBE", "+switch-master")
        assert not may(sentinel, "watcher", "SUBSCRIBE", "anything")
        assert not may(sentinel, "watcher", "SENTINEL", "FAILOVER", "mymaster")
        assert not may(sentinel, "watcher", "INFO")

    @pytest.mark.parametrize("protocol", [2, 3])
    @pytest.mark.parametrize("trouble", ["kill", "planned"])
    def test_they_suffice(
        self,
        driver: WatchingDriver,
        make_set: Callable[..., SentinelDeployment],
        version: tuple[int, ...],
        trouble: str,
        protocol: int,
    ) -> None:
        """Early promotion included; nothing else is even tried, but for the run id in a handshake (INFO)."""
        deployment = make_set(speed=AS_REAL, **least(version))
        kwargs = {} if protocol == 3 else {"sentinel_kwargs": {"protocol": 2}}
        driver.open_sentinel("mymaster", deployment.sentinels, protocol=protocol, **kwargs, **LOGINS)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            eventually(lambda: hears_all(driver, deployment), what="all are heard")
            new = change_master(deployment, trouble)
            load.progress()
        ledger = load.ledger(new)
        if trouble == "kill":
            assert_rode_through(ledger)
        else:
            assert ledger.doubled == []
            assert_only_ambiguous(ledger, outages=1)
        assert write_arrives(driver, new, "with few rights")
        eventually(lambda: masters_told(driver) == [(new.address, True)], what="one change of the master")
        assert denied(deployment) <= {"command info"}

    @pytest.mark.parametrize("trouble", ["kill", "planned"])
    def test_without_subscribe_and_role_the_sentinels_are_asked(
        self,
        driver: WatchingDriver,
        make_set: Callable[..., SentinelDeployment],
        version: tuple[int, ...],
        trouble: str,
    ) -> None:
        deployment = make_set(**least(version, without=("+subscribe", "+role", "+hello")))
        assert not may(deployment.sentinel_nodes[0], "watcher", "SUBSCRIBE", "+switch-master")
        assert not may(deployment.nodes[0], "app", "ROLE")
        driver.open_sentinel("mymaster", deployment.sentinels, **LOGINS)
        with Load(driver, incr=4, get=2, set=2) as load:
            load.progress()
            new = change_master(deployment, trouble)
            eventually(lambda: driver.master() == new.address, 30, "the switch is noticed")
            load.progress()
        ledger = load.ledger(new)
        assert ledger.doubled == []
        assert_only_ambiguous(ledger, outages=1)
        if trouble == "kill":
            assert_rode_through(ledger)
        assert write_arrives(driver, new, "with fewer rights")
        assert told(driver, events.DiscoveryDegraded) == []
