"""The keywords of `hatopo.sentinel`: who is told what, what contradicts what. Certificates of another name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis
from redis.credentials import CredentialProvider, UsernamePasswordCredentialProvider

import hatopo
from hatopo import Address, OptionError, UnknownOptionError
from hatopo.client._options import Options, read_options
from hatopo.client._sentinel_options import Watching, split_sentinel_options
from hatopo.connection import Connection, SSLConnection, WireOptions
from hatopo.errors import HandshakeError
from hatopo.testing.real import RealNode, tls_supported
from hatopo.topology import AddressMap, AllowedHosts
from tests.control import Certificates

SECRET, OTHER = "hunter2", "correct-horse"
SENTINELS = (Address("s1", 26379), Address("s2", 26379))


def split(**given: Any) -> tuple[Watching, Options]:
    watching, data = split_sentinel_options(given)
    return watching, read_options(data)


def to_sentinels(**given: Any) -> dict[str, Any]:
    return split(**given)[0].connection.connection_kwargs


# ---------------------------------------------------------------- who is told what


def test_no_login_reaches_the_others() -> None:
    watching, data = split(
        username="app", password=SECRET, client_name="me", sentinel_username="watcher", sentinel_password=OTHER
    )
    asked = watching.connection.connection_kwargs
    assert (asked["username"], asked["password"], asked["client_name"]) == ("watcher", OTHER, None)
    assert (data.connection_kwargs["username"], data.connection_kwargs["password"]) == ("app", SECRET)
    assert SECRET not in str(asked)
    assert OTHER not in str(data.connection_kwargs)
    for shown in (watching, data, watching.identity(SENTINELS)):
        assert SECRET not in repr(shown)
        assert OTHER not in repr(shown)


def test_providers_are_kept_apart() -> None:
    mine, theirs = UsernamePasswordCredentialProvider("u", "p"), UsernamePasswordCredentialProvider("s", "q")
    watching, data = split(credential_provider=mine, sentinel_credential_provider=theirs)
    assert watching.connection.connection_kwargs["credential_provider"] is theirs
    assert data.connection_kwargs["credential_provider"] is mine
    assert "credential_provider" not in to_sentinels(credential_provider=mine)


def test_defaults() -> None:
    watching, data = split()
    assert (watching.early_promotion, watching.watch, watching.startup) == (True, True, "lazy")
    assert watching.address_map == data.address_map == AddressMap()
    assert watching.allowed_hosts is data.allowed_hosts is None
    assert data.tls_server_name is None
    assert watching.connection.connection_class is data.connection_class is Connection


def test_what_concerns_both() -> None:
    watching, data = split(
        address_map={"a": "b"}, allowed_hosts=["b"], early_promotion=False, watch=False, startup="fail"
    )
    assert watching.address_map == data.address_map == AddressMap.of({"a": "b"})
    assert watching.allowed_hosts == data.allowed_hosts == AllowedHosts.of(["b"])
    assert (watching.early_promotion, watching.watch, watching.startup) == (False, False, "fail")


def test_the_data_nodes_keywords_are_left() -> None:
    given = {"db": 3, "ssl": True, "single_connection_client": True, "error_arguments": True, "deadline": 2}
    assert split_sentinel_options({**given, "sentinel_ssl": False, "watch": True})[1] == given


def test_sentinel_kwargs_are_redis_pys() -> None:
    asked = to_sentinels(
        sentinel_kwargs={"socket_timeout": 0.1, "password": OTHER, "client_name": "me"}, password=SECRET
    )
    assert (asked["socket_timeout"], asked["password"], asked["client_name"]) == (0.1, OTHER, "me")


def test_sockets_are_set_up_alike_without_sentinel_kwargs() -> None:
    """As by redis-py, but for the timeouts, which bound calls to data nodes."""
    given: dict[str, Any] = {"socket_keepalive": False, "socket_read_size": 7, "socket_timeout": 99}
    asked = to_sentinels(**given)
    assert (asked["socket_keepalive"], asked["socket_read_size"]) == (False, 7)
    assert asked["socket_timeout"] == to_sentinels()["socket_timeout"] != 99
    assert to_sentinels(**given, sentinel_kwargs={})["socket_keepalive"] is True


# ---------------------------------------------------------------- TLS


@pytest.mark.parametrize(
    ("given", "tls"),
    [
        ({"ssl": True}, False),
        ({"ssl": True, "sentinel_ssl": None}, False),
        ({"ssl": True, "sentinel_ssl": False}, False),
        ({"ssl": True, "sentinel_ssl": True}, True),
        ({"sentinel_ssl": True}, True),
        ({"sentinel_kwargs": {"ssl": True}}, True),
    ],
)
def test_sentinels_speak_tls_if_told_so(given: dict[str, Any], tls: bool) -> None:
    watching, data = split(**given)
    assert watching.connection.connection_class is (SSLConnection if tls else Connection)
    assert data.connection_class is (SSLConnection if given.get("ssl") else Connection)


DETAILS: dict[str, Any] = {
    "ssl": True,
    "ssl_ca_certs": "ca.pem",
    "ssl_certfile": "cert.pem",
    "ssl_keyfile": "key.pem",
    "ssl_password": "of the key",
    "ssl_check_hostname": False,
    "ssl_ciphers": "ALL",
}


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"sentinel_ssl": True}, DETAILS),
        ({"sentinel_ssl": True, "sentinel_ssl_check_hostname": True}, {**DETAILS, "ssl_check_hostname": True}),
        ({"sentinel_ssl": True, "sentinel_ssl_cert_reqs": None}, {**DETAILS, "ssl_cert_reqs": None}),
        (
            {"sentinel_ssl": True, "sentinel_ssl_ca_data": "PEM"},
            {**{name: value for name, value in DETAILS.items() if name != "ssl_ca_certs"}, "ssl_ca_data": "PEM"},
        ),
        (
            {"sentinel_ssl": True, "sentinel_ssl_certfile": "both.pem"},
            {
                **{name: value for name, value in DETAILS.items() if name not in ("ssl_keyfile", "ssl_password")},
                "ssl_certfile": "both.pem",
            },
        ),
        (
            {"sentinel_ssl": True, "sentinel_kwargs": {"ssl_ca_certs": "other.pem"}},
            {**DETAILS, "ssl_ca_certs": "other.pem"},
        ),
        ({"sentinel_kwargs": {"ssl": True}}, {}),
        ({"sentinel_ssl": False}, {}),
        ({}, {}),
    ],
)
def test_details_of_tls(given: dict[str, Any], expected: dict[str, Any]) -> None:
    """Sentinels have the data nodes' details, where `sentinel_ssl` asks for TLS and gives none of its own."""
    asked = to_sentinels(**DETAILS, **given)
    found = {name: value for name, value in asked.items() if name.startswith("ssl_")}
    assert found == {name: value for name, value in expected.items() if name != "ssl"}


def test_the_name_in_the_certificates() -> None:
    watching, data = split(ssl=True, sentinel_ssl=True, tls_server_name="redis.internal")
    assert data.tls_server_name == "redis.internal"
    assert watching.connection.tls_server_name is None
    watching, data = split(sentinel_ssl=True, sentinel_kwargs={"tls_server_name": "sentinel.internal"})
    assert data.tls_server_name is None
    assert watching.connection.tls_server_name == "sentinel.internal"


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"sentinel_password": OTHER, "sentinel_credential_provider": CredentialProvider()}, "excludes"),
        ({"sentinel_username": "u", "sentinel_credential_provider": CredentialProvider()}, "excludes"),
        ({"sentinel_password": OTHER, "sentinel_kwargs": {"credential_provider": CredentialProvider()}}, "excludes"),
        ({"sentinel_credential_provider": "vault"}, "sentinel_credential_provider must be"),
        ({"sentinel_password": OTHER, "sentinel_kwargs": {"password": OTHER}}, "sentinel_password= is given, and"),
        ({"sentinel_ssl": True, "sentinel_kwargs": {"ssl": False}}, "sentinel_ssl= is given, and"),
        (
            {"sentinel_ssl": True, "sentinel_ssl_ca_certs": "a", "sentinel_kwargs": {"ssl_ca_certs": "b"}},
            "sentinel_ssl_ca_certs= is given, and",
        ),
        ({"sentinel_ssl_ca_certs": "ca.pem"}, "sentinel_ssl_ca_certs= is given, but not sentinel_ssl=True"),
        ({"sentinel_ssl": "yes"}, "sentinel_ssl must be True or False"),
        ({"sentinel_kwargs": "ssl=true"}, "sentinel_kwargs must be a dictionary"),
        ({"sentinel_kwargs": {"host": "s1"}}, "'host' has no meaning in sentinel_kwargs"),
        ({"sentinel_kwargs": {"unix_socket_path": "/s"}}, "'unix_socket_path' has no meaning in sentinel_kwargs"),
        ({"sentinel_kwargs": {"failover_timeout": 2}}, "'failover_timeout' has no meaning in sentinel_kwargs"),
        ({"sentinel_kwargs": {"socket_timeout": "2"}}, "for the connections to the sentinels: socket_timeout"),
        ({"sentinel_kwargs": {"tls_server_name": "s"}}, "for the connections to the sentinels: tls_server_name"),
        ({"host": "a"}, "the sentinels name the master"),
        ({"port": 6379}, "the sentinels name the master"),
        ({"unix_socket_path": "/s"}, "the sentinels name the master"),
        ({"early_promotion": "no"}, "early_promotion must be True or False"),
        ({"watch": 1}, "watch must be True or False"),
        ({"startup": "eager"}, "'lazy' or 'fail'"),
        ({"address_map": {"a:b": "c"}}, "address_map, entry 'a:b'"),
        ({"allowed_hosts": ["a:1"]}, "allowed_hosts, entry 'a:1'"),
        ({"cache_config": object()}, "client-side caching"),
    ],
)
def test_contradictions_and_wrong_values(given: dict[str, Any], says: str) -> None:
    with pytest.raises(OptionError) as caught:
        split_sentinel_options({"password": SECRET, **given})
    assert says in str(caught.value)
    assert SECRET not in str(caught.value)
    assert OTHER not in str(caught.value)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"sentinel_pasword": SECRET}, "'sentinel_pasword': did you mean 'sentinel_password'"),
        ({"sentinel_ssl_ca_cert": "x"}, "'sentinel_ssl_ca_cert': did you mean 'sentinel_ssl_ca_certs'"),
        ({"early_promotoin": True}, "did you mean 'early_promotion'"),
        ({"socket_timout": 1}, "did you mean 'socket_timeout'"),
        ({"sentinel_kwargs": {"pasword": SECRET}}, "for the connections to the sentinels: .* did you mean 'password'"),
    ],
)
def test_misspelt_names(given: dict[str, Any], says: str) -> None:
    with pytest.raises(UnknownOptionError, match=says) as caught:
        split_sentinel_options(given)
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize("name", ["sentinel_password", "sentinel_ssl", "sentinel_ssl_ca_certs", "watch", "startup"])
def test_other_doors_say_whose_keyword_it_is(name: str) -> None:
    with pytest.raises(UnknownOptionError, match=rf"'{name}': only hatopo\.sentinel"):
        read_options({name: SECRET})


@pytest.mark.parametrize(
    "given",
    [
        {"tls_server_name": "redis.internal"},
        {"tls_server_name": "redis.internal", "ssl": False},
        {"tls_server_name": "redis.internal", "ssl": True, "unix_socket_path": "/s"},
        {"tls_server_name": "redis.internal", "ssl": True, "ssl_validate_ocsp": True},
        {"tls_server_name": "", "ssl": True},
        {"tls_server_name": 7, "ssl": True},
        {"address_map": "nat"},
        {"allowed_hosts": "10.0.0.1"},
    ],
)
def test_wrong_values_for_every_client(given: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=next(iter(given))):
        read_options(given)


# ---------------------------------------------------------------- what makes two watchers the same


class Rotating(CredentialProvider):
    """One object like another."""

    def __eq__(self, other: object) -> bool:
        return True

    def __hash__(self) -> int:
        return 1


def mapped(host: str, port: int) -> tuple[str, int]:
    return host, port


PROVIDER = Rotating()
SAME: list[dict[str, Any]] = [
    {},
    {"sentinel_password": OTHER, "sentinel_username": "u"},
    {"sentinel_credential_provider": PROVIDER},
    {"sentinel_ssl": True, "ssl_ca_certs": "ca.pem", "ssl_check_hostname": False},
    {"sentinel_kwargs": {"socket_timeout": 0.1, "client_name": "me"}},
    {"address_map": {"a": "b", "c": "d"}, "allowed_hosts": ["b", "d"]},
    {"address_map": mapped},
    {"sentinel_kwargs": {"ssl": True, "tls_server_name": "s"}},
]


def test_equal_options_make_equal_identities() -> None:
    def identity(given: dict[str, Any], **data: Any) -> object:
        return split_sentinel_options({**given, **data})[0].identity(SENTINELS)

    for given in SAME:
        assert identity(given) == identity(
            given, password=SECRET, db=3, failover_timeout=2, socket_timeout=1, watch=False
        )
        assert hash(identity(given)) == hash(identity(given, db=3))
    assert len({identity(given) for given in SAME}) == len(SAME)


def test_the_order_of_sentinels_does_not_matter() -> None:
    watching = split()[0]
    assert watching.identity(SENTINELS) == watching.identity(reversed(SENTINELS))
    assert watching.identity(SENTINELS) != watching.identity(SENTINELS[:1])


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ({"sentinel_password": OTHER}, {"sentinel_password": SECRET}),
        ({"sentinel_credential_provider": PROVIDER}, {"sentinel_credential_provider": Rotating()}),
        ({"sentinel_ssl": True}, {"sentinel_ssl": False}),
        ({"address_map": {"a": "b"}}, {"address_map": {"a": "c"}}),
        ({"address_map": mapped}, {"address_map": lambda host, port: (host, port)}),
        ({"allowed_hosts": ["a"]}, {"allowed_hosts": ["b"]}),
        ({"sentinel_kwargs": {"client_name": "1"}}, {"sentinel_kwargs": {"client_name": 1}}),
        ({"sentinel_kwargs": {"encoding": "ascii"}}, {}),
    ],
)
def test_different_options_make_different_identities(one: dict[str, Any], other: dict[str, Any]) -> None:
    assert split_sentinel_options(one)[0].identity(SENTINELS) != split_sentinel_options(other)[0].identity(SENTINELS)


# ---------------------------------------------------------------- the name that a certificate must carry


@pytest.fixture
def certificates(redis_installed: object, tmp_path: Path) -> Certificates:
    if not tls_supported():
        pytest.skip("this redis-server was built without TLS")
    return Certificates(tmp_path, "redis.internal")


@pytest.fixture
def internal(certificates: Certificates) -> Iterator[RealNode]:
    with RealNode(tls=certificates.files) as server:
        yield server


def dial(server: RealNode, certificates: Certificates, name: str | None, **more: Any) -> SSLConnection:
    host, port = server.address
    wire = WireOptions(Address(host, port), server_name=name)
    given = {"host": host, "port": port, "ssl": True, "ssl_ca_certs": str(certificates.ca_file), **more}
    connection = SSLConnection(wire=wire, **read_options(given).connection_kwargs)
    try:
        connection.connect()
    finally:
        assert connection.host == host
    return connection


def test_a_certificate_of_another_name(internal: RealNode, certificates: Certificates) -> None:
    connection = dial(internal, certificates, "redis.internal")
    try:
        assert connection._sock.server_hostname == "redis.internal"
        assert connection._sock.getpeername() == internal.address
        assert connection.call(connection.pack(("PING",))) in ("PONG", b"PONG")
        connection.disconnect()
        connection.connect()
        assert connection.call(connection.pack(("PING",))) in ("PONG", b"PONG")
    finally:
        connection.disconnect()


@pytest.mark.parametrize("name", [None, "", "redis.external", "internal"])
def test_any_other_name_is_refused(internal: RealNode, certificates: Certificates, name: str | None) -> None:
    with pytest.raises(HandshakeError, match="certificate was refused"):
        dial(internal, certificates, name)


def test_without_a_check_the_name_is_only_asked_for(internal: RealNode, certificates: Certificates) -> None:
    connection = dial(internal, certificates, "redis.external", ssl_check_hostname=False)
    assert connection._sock.server_hostname == "redis.external"
    connection.disconnect()


def test_it_is_still_a_redis_connection() -> None:
    assert issubclass(SSLConnection, redis.SSLConnection)
    assert isinstance(hatopo.Redis(ssl=True, tls_server_name="seed", address_map=None, allowed_hosts=None), redis.Redis)
