"""URLs: what their parts mean, and that no message about one holds a piece of a password."""

from __future__ import annotations

import traceback
from typing import Any
from urllib.parse import quote

import pytest
import redis
from hypothesis import given
from hypothesis import strategies as st

import hatopo
from hatopo import Address, OptionError, UnknownOptionError
from hatopo.client._sentinel_options import split_sentinel_options
from hatopo.client._urls import SentinelUrl, is_sentinel_url, read_sentinel_url, read_url

SECRET = "hunter2"
S1, S2, S3 = Address("s1", 26379), Address("s2", 26380), Address("::1", 26379)


def read(url: str, **given: Any) -> SentinelUrl:
    return read_sentinel_url(url, given)


# ---------------------------------------------------------------- the parts


def test_a_whole_url() -> None:
    found = read(
        "redis+sentinel://app:p%40ss@s1:26379,s2:26380,[::1]/mymaster/3"
        "?sentinel_username=watcher&sentinel_password=hunter2&failover_timeout=2&early_promotion=false&watch=no"
        "&startup=fail&address_map=seed-host&allowed_hosts=10.0.0.0/8,.example.com&socket_timeout=0.5&protocol=3"
        "&max_waiting=7&deadline=none&error_arguments=true&sentinel_ssl=on&sentinel_ssl_check_hostname=false"
    )
    assert found.service == "mymaster"
    assert found.sentinels == (S1, S2, S3)
    assert str(found.options.pop("protocol")) == "3"
    assert found.options == {
        "username": "app",
        "password": "p@ss",
        "db": 3,
        "sentinel_username": "watcher",
        "sentinel_password": SECRET,
        "failover_timeout": 2.0,
        "early_promotion": False,
        "watch": False,
        "startup": "fail",
        "address_map": "seed-host",
        "allowed_hosts": ["10.0.0.0/8", ".example.com"],
        "socket_timeout": 0.5,
        "max_waiting": 7,
        "deadline": None,
        "error_arguments": True,
        "sentinel_ssl": True,
        "sentinel_ssl_check_hostname": False,
    }
    watching, data = split_sentinel_options(found.options)
    assert watching.early_promotion is False
    assert data["password"] == "p@ss"
    assert SECRET not in repr(found)
    assert "p@ss" not in repr(found)


@pytest.mark.parametrize(
    ("place", "service", "db"),
    [
        ("/mymaster", "mymaster", None),
        ("/mymaster/", "mymaster", None),
        ("/mymaster/0", "mymaster", 0),
        ("/my%2Fmaster%3F/15", "my/master?", 15),
        ("/7/1", "7", 1),
        ("?service=mymaster", "mymaster", None),
        ("/?service=mymaster", "mymaster", None),
        ("/4?service=mymaster", "mymaster", 4),
        ("/4?master_name=mymaster", "mymaster", 4),
        ("/4#mymaster", "mymaster", 4),
        ("#my%20master", "my master", None),
        ("/mymaster/4#mymaster", "mymaster", 4),
        ("/mymaster?service=mymaster&master_name=mymaster", "mymaster", None),
        ("?service=7", "7", None),
        ("/mymaster/4?db=5", "mymaster", 5),
        ("/mymaster?db=5", "mymaster", 5),
    ],
)
def test_service_and_database(place: str, service: str, db: int | None) -> None:
    found = read(f"redis+sentinel://s1{place}")
    assert found.service == service
    assert found.options == ({} if db is None else {"db": db})


@pytest.mark.parametrize(
    ("hosts", "sentinels"),
    [
        ("s1", [S1]),
        ("s1:26379", [S1]),
        ("s1,s2:26380", [S1, S2]),
        ("[::1]:26379,[::1]", [S3]),
        ("s1,[::1]:7,s2:26380", [S1, Address("::1", 7), S2]),
    ],
)
def test_sentinels(hosts: str, sentinels: list[Address]) -> None:
    for login in ("", "user:pw@", ":pw@", "user@"):
        assert read(f"sentinel://{login}{hosts}/mymaster").sentinels == tuple(sentinels)


@pytest.mark.parametrize(
    ("login", "expected"),
    [
        ("u:p@", {"username": "u", "password": "p"}),
        (":p@", {"password": "p"}),
        ("u@", {"username": "u"}),
        ("u:a:b@", {"username": "u", "password": "a:b"}),
        ("u:a@b@", {"username": "u", "password": "a@b"}),
        ("", {}),
    ],
)
def test_logins(login: str, expected: dict[str, str]) -> None:
    assert read(f"sentinel://{login}s1/mymaster").options == expected


@given(st.text(min_size=1), st.text(min_size=1), st.text(min_size=1))
def test_percent_encoding(user: str, password: str, service: str) -> None:
    user, password, service = (each.encode("utf-8", "replace").decode() for each in (user, password, service))
    encoded = [quote(each, safe="") for each in (user, password, service)]
    found = read("redis+sentinel://{}:{}@s1,s2:26380/{}/1".format(*encoded))
    assert found == SentinelUrl(service, (S1, S2), {"username": user, "password": password, "db": 1})


@pytest.mark.parametrize(
    ("scheme", "tls"),
    [
        ("redis+sentinel", False),
        ("rediss+sentinel", True),
        ("sentinel", False),
        ("valkey+sentinel", False),
        ("valkeys+sentinel", True),
        ("redis-sentinel", False),
        ("rediss-sentinel", True),
        ("REDIS+Sentinel", False),
    ],
)
def test_schemes(scheme: str, tls: bool) -> None:
    url = f"{scheme}://s1/mymaster"
    assert is_sentinel_url(url)
    assert read(url).options == ({"ssl": True, "sentinel_ssl": True} if tls else {})
    with pytest.raises(OptionError, match=r"hatopo\.from_url"):
        read_url(url, {})


@pytest.mark.parametrize(
    "url", ["redis://s1", "unix:///s", "sentinel", "s1:26379", "redis+sentinel:/s1", "", None, 7, b"sentinel://"]
)
def test_other_schemes(url: Any) -> None:
    assert not is_sentinel_url(url)
    with pytest.raises(OptionError):
        read_sentinel_url(url, {})


def test_the_url_wins_over_keywords() -> None:
    found = read("redis+sentinel://u:p@s1/mymaster/3?watch=true", db=1, password="other", watch=False, client_name="me")
    assert found.options == {"username": "u", "password": "p", "db": 3, "watch": True, "client_name": "me"}


def test_tls_at_the_sentinels_may_be_chosen_apart() -> None:
    found = read("rediss+sentinel://s1/mymaster?sentinel_ssl=false")
    assert found.options == {"ssl": True, "sentinel_ssl": False}
    more = {"ssl": True, "ssl_ca_certs": "ca.pem"}
    found = read("rediss+sentinel://s1/mymaster", sentinel_kwargs=more)
    assert found.options == {"ssl": True, "sentinel_kwargs": more}
    found = read("rediss+sentinel://s1/mymaster?tls_server_name=redis.internal", sentinel_kwargs={"username": "u"})
    assert found.options["sentinel_ssl"] is True
    assert found.options["tls_server_name"] == "redis.internal"


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize(
    ("url", "says"),
    [
        ("sentinel://s1", "names no service: redis+sentinel://"),
        ("sentinel://s1/", "names no service: redis+sentinel://"),
        ("sentinel://s1/0", "only a database"),
        ("sentinel://s1?service=", "names no service"),
        ("sentinel://s1/a?service=b", "more than one service"),
        ("sentinel://s1?service=a&master_name=b", "more than one service"),
        ("sentinel://s1/a#b", "more than one service"),
        ("sentinel://s1/a/b", "/service/database"),
        ("sentinel://s1/a/0/1", "/service/database"),
        ("sentinel:///mymaster", "names no sentinel"),
        ("sentinel://u:p@/mymaster", "names no sentinel"),
        ("sentinel://s1,,s2/mymaster", "sentinel number 2"),
        ("sentinel://s1:x/mymaster", "sentinel number 1"),
        ("sentinel://s1:0/mymaster", "sentinel number 1"),
        ("sentinel://s1,[::1/mymaster", "sentinel number 2"),
        ("sentinel://:a@s1,:a@s2/mymaster", "one login"),
        ("sentinel://s1/mymaster?watch=maybe", "watch"),
        ("sentinel://s1/mymaster?failover_timeout=soon", "failover_timeout"),
        ("sentinel://s1/mymaster?socket_timeout=soon", "socket_timeout"),
        ("sentinel://s1/mymaster?db=one", "db"),
        ("sentinel://s1/mymaster?sentinel_ssl_check_hostname=&early_promotion=2", "early_promotion"),
        ("sentinel://s1/mymaster?cache=1", "client-side caching"),
        ("http://s1/mymaster", "'http'"),
        ("redis+sentinels://s1/mymaster", "redis+sentinel://"),
    ],
)
def test_wrong_urls(url: str, says: str) -> None:
    with pytest.raises(OptionError) as caught:
        read(url)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("sentinel_pasword", "sentinel_password"),
        ("early_promotoin", "early_promotion"),
        ("failover_timeot", "failover_timeout"),
        ("socket_timout", "socket_timeout"),
        ("sentinel_ssl_ca_cert", "sentinel_ssl_ca_certs"),
        ("servce", "service"),
    ],
)
def test_misspelt_parameters(name: str, meant: str) -> None:
    with pytest.raises(UnknownOptionError, match=f"{name!r}: did you mean {meant!r}"):
        read(f"sentinel://s1/mymaster?{name}=1")


def test_parameters_for_sentinel_alone() -> None:
    with pytest.raises(UnknownOptionError, match=r"'sentinel_password': only hatopo\.sentinel"):
        read_url("redis://s1?sentinel_password=hunter2", {})


def refused(url: str) -> Exception | None:
    """What reading the URL, and checking what it says, ends with."""
    try:
        if is_sentinel_url(url):
            split_sentinel_options(read_sentinel_url(url, {}).options)
        else:
            hatopo.Redis(**read_url(url, {}))
    except (OptionError, redis.DataError) as error:
        return error
    return None


REST = {
    "redis": ["s1:x/0", "s1:99999", "s1/one", "s1?failover_timeout=x", "s1?failover_timeot=1", "[s1/0", "s1?nobody=1"],
    "sentinel": ["s1", "s1:x/my", "s1/my/x", "s1,[::1/my", "/my", "s1/my?watch=x", "s1/my?nobody=1", "s1/my?watc=1"],
}


@pytest.mark.parametrize("scheme", ["redis", "rediss", "sentinel", "rediss+sentinel", "http", "redis+sentinels", ""])
def test_no_message_holds_a_password(scheme: str) -> None:
    rests = REST["sentinel" if "sentinel" in scheme else "redis"]
    for rest in rests:
        for login in (f"app:{SECRET}@", f":{SECRET}@", f"app:p[{SECRET}@", f"app:\u2100{SECRET}@", f"app:{SECRET}%zz@"):
            url = f"{scheme}://{login}{rest}" if scheme else f"{login}{rest}"
            error = refused(url)
            assert error is not None, url
            assert SECRET not in "".join(traceback.format_exception(error)), url
            assert SECRET not in str(error.__context__), url


@pytest.mark.parametrize("character", "/?#&@,:[]%= +;")
@pytest.mark.parametrize("user", ["", "app", "26379", "1"])
@pytest.mark.parametrize("start", ["", "12", "12?watch=", "x&"])
@pytest.mark.parametrize(
    "form", ["redis://{}@s1:6379/0", "sentinel://{}@s1:26379/my/0", "sentinel://{}@s1,s2/my?watch=1"]
)
def test_no_message_holds_a_piece_of_a_password_that_was_not_encoded(
    character: str, user: str, start: str, form: str
) -> None:
    error = refused(form.format(f"{user}:{start}{character}{SECRET}"))
    assert error is not None or character not in "/?#"
    if error is not None:
        assert SECRET not in str(error)
        assert SECRET not in str(error.__context__)


@pytest.mark.parametrize(
    "base", ["redis://s1?password=", "sentinel://s1/my?sentinel_password=", "sentinel://s1/my?password="]
)
@pytest.mark.parametrize("value", [f"a&{SECRET}", f"a&{SECRET}=b", f"a#{SECRET}@x", f"a&b@{SECRET}=1"])
def test_no_message_holds_a_piece_of_a_password_in_a_parameter(base: str, value: str) -> None:
    error = refused(base + value)
    if "&" in value:
        assert error is not None
    assert SECRET not in str(error)


@pytest.mark.parametrize(
    "url", [f"redis://app:{SECRET}", f"sentinel://app:{SECRET}", f"sentinel://app:{SECRET}/my", f"app:{SECRET}@s1"]
)
def test_no_message_holds_a_password_without_its_host(url: str) -> None:
    error = refused(url)
    assert error is not None
    assert SECRET not in str(error)
