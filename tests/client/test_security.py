"""TLS, users and credentials on real servers: what is refused is refused at once, and says what to change."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.credentials import CredentialProvider

import hatopo
from hatopo.errors import HandshakeError
from hatopo.testing.real import RealNode, tls_supported
from tests.control import Certificates

SECRET = "hunter2"


@pytest.fixture
def certificates(redis_installed: object, tmp_path: Path) -> Certificates:
    if not tls_supported():
        pytest.skip("this redis-server was built without TLS")
    return Certificates(tmp_path, "localhost")


@pytest.fixture
def tls_server(certificates: Certificates) -> Iterator[RealNode]:
    with RealNode(tls=certificates.files) as server:
        yield server


def test_tls(tls_server: RealNode, certificates: Certificates) -> None:
    _, port = tls_server.address
    with hatopo.standalone("localhost", port, ssl=True, ssl_ca_certs=str(certificates.ca_file)) as r:
        assert r.set("k", "v" * 100_000)
        assert r.get("k") == b"v" * 100_000
        pipe: Any = r.pipeline(transaction=False)
        for number in range(5000):
            pipe.echo(f"{number}" * 50)
        assert pipe.execute() == [f"{number}".encode() * 50 for number in range(5000)]
        with r.pubsub() as subscriber:
            subscriber.subscribe("c")
            assert subscriber.get_message(timeout=5)["type"] == "subscribe"
    url = f"rediss://localhost:{port}?ssl_ca_certs={certificates.ca_file}"
    with hatopo.from_url(url) as r:
        assert r.ping()


def dials(server: RealNode) -> int:
    line = str(server.execute("INFO", "stats")).partition("total_connections_received:")[2]
    return int(line.split()[0])


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_a_wrong_certificate_is_refused_once(tls_server: RealNode, host: str, certificates: Certificates) -> None:
    """The certificate names "localhost" only; its authority is known only to who is given it."""
    _, port = tls_server.address
    trusted = str(certificates.ca_file) if host == "127.0.0.1" else None
    before = dials(tls_server)
    with hatopo.standalone(host, port, ssl=True, ssl_ca_certs=trusted) as r, pytest.raises(HandshakeError) as caught:
        r.get("k")
    assert f"{host}:{port}" in str(caught.value)
    assert "certificate" in str(caught.value)
    assert isinstance(caught.value, redis.ConnectionError)
    assert dials(tls_server) - before <= 2  # this one, and the one that counts


def test_tls_to_a_port_without_it_ends_with_the_dial(server: RealNode) -> None:
    with hatopo.standalone(*server.address, ssl=True, socket_connect_timeout=0.05, failover_timeout=0.1) as r:
        with pytest.raises(redis.ConnectionError):
            r.get("k")


@pytest.fixture
def guarded(own_server: RealNode) -> RealNode:
    """A server with a user "app" who may do nothing but GET, SET and INCR."""
    rules = [f">{SECRET}", "~*", "&*", "-@all", "+get", "+set", "+incrby", "+multi", "+exec", "on"]
    own_server.execute("ACL", "SETUSER", "app", *rules)
    return own_server


@pytest.mark.parametrize("protocol", [None, 2, 3])
def test_a_user_with_least_privilege(guarded: RealNode, protocol: int | None) -> None:
    """Neither INFO, ROLE, COMMAND, CLIENT nor PING are needed."""
    with hatopo.standalone(
        *guarded.address, username="app", password=SECRET, protocol=protocol, client_name="me", ping_after=0
    ) as r:
        assert r.set("k", 1)
        assert r.incr("k") == 2
        pipe: Any = r.pipeline()
        assert pipe.get("k").execute() == [b"2"]
        idle = r.connection_pool._get_free_connections()
        for connection in idle:
            connection.check_at = 1.0  # long idle: it is asked for a PING, which is forbidden
        assert r.get("k") == b"2"
        with pytest.raises(redis.exceptions.NoPermissionError):
            r.info()


def test_a_wrong_password_is_tried_once(guarded: RealNode) -> None:
    guarded.execute("ACL", "LOG", "RESET")
    with hatopo.standalone(*guarded.address, username="app", password=f"not {SECRET}") as r:
        with pytest.raises(redis.AuthenticationError) as caught:
            r.get("k")
    assert "password=" in str(caught.value)
    assert SECRET not in repr(caught.value) + str(caught.value)
    log = guarded.execute("ACL", "LOG")
    assert len(log) == 1
    fields = dict(zip(log[0][::2], log[0][1::2], strict=True))
    assert int(fields["count"]) == 1


def test_a_missing_password_says_so(own_server: RealNode) -> None:
    with RealNode(password=SECRET) as server, hatopo.standalone(*server.address) as r:
        with pytest.raises(redis.AuthenticationError, match="password="):
            r.get("k")


class Rotating(CredentialProvider):
    """Hands out what a vault holds now."""

    def __init__(self, *passwords: str) -> None:
        self.passwords = list(passwords)
        self.asked = 0

    def get_credentials(self) -> tuple[str, str]:
        self.asked += 1
        return "app", self.passwords[min(self.asked, len(self.passwords)) - 1]


def test_a_provider_is_asked_once_more(guarded: RealNode) -> None:
    provider = Rotating("expired", SECRET)
    with hatopo.standalone(*guarded.address, credential_provider=provider) as r:
        assert r.set("k", 1)
    assert provider.asked == 2
    provider = Rotating("expired", "wrong")
    with hatopo.standalone(*guarded.address, credential_provider=provider) as r:
        with pytest.raises(redis.AuthenticationError):
            r.get("k")
    assert provider.asked == 2


def test_new_credentials_replace_live_connections(guarded: RealNode) -> None:
    """What a streaming provider calls when its token was renewed."""
    guarded.execute("ACL", "SETUSER", "app", "+client|id")
    provider = Rotating(SECRET)
    with hatopo.standalone(*guarded.address, credential_provider=provider) as r:
        before = r.client_id()
        assert r.client_id() == before
        r.connection_pool.re_auth_callback(object())
        assert r.client_id() != before
    assert provider.asked == 2


def test_a_password_that_frameworks_write_into_the_pool_counts(guarded: RealNode) -> None:
    with hatopo.standalone(*guarded.address, username="app", password="wrong") as r:
        r.connection_pool.connection_kwargs["password"] = SECRET
        r.connection_pool.reset()
        assert r.set("k", 1)
