"""Which announced addresses are dialled, where, and under which name."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_network
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from hatopo import Address, OptionError
from hatopo.topology import AddressMap, AllowedHosts, check_server_name, server_name_for, why_refused

SEED = Address("sentinel.example.com", 26379)
INNER = Address("10.0.0.5", 6379)

ports = st.integers(1, 65535)
names = st.from_regex(r"[a-z][a-z0-9-]{0,8}(\.[a-z][a-z0-9-]{0,8}){0,2}", fullmatch=True)
ips = st.ip_addresses().map(str)
addresses = st.builds(Address, st.one_of(names, ips), ports)


def allowed(*entries: Any) -> AllowedHosts:
    found = AllowedHosts.of(entries)
    assert found is not None
    return found


# ---------------------------------------------------------------- addresses that know what they are called


def test_a_mapped_address_names_both() -> None:
    mapped = INNER.mapped("127.0.0.1", 17000)
    assert str(mapped) == "127.0.0.1:17000 (announced as 10.0.0.5:6379)"
    assert str(Address("::1", 6379).mapped("nat", 6379)) == "nat:6379 (announced as [::1]:6379)"
    assert mapped.mapped("nat", 1).announced == "10.0.0.5:6379"
    assert INNER.mapped("10.0.0.5", 6379) is INNER


@given(addresses, addresses)
def test_what_it_is_called_is_no_part_of_an_address(announced: Address, target: Address) -> None:
    mapped = announced.mapped(target.host, target.port)
    assert mapped == target
    assert hash(mapped) == hash(target)
    assert not mapped < target
    assert not target < mapped
    assert {target: 1}[mapped] == 1


# ---------------------------------------------------------------- the map


@pytest.mark.parametrize(
    ("entries", "announced", "dialled"),
    [
        ({"10.0.0.5:6379": "127.0.0.1:17000"}, "10.0.0.5:6379", "127.0.0.1:17000"),
        ({("10.0.0.5", 6379): ("127.0.0.1", 17000)}, "10.0.0.5:6379", "127.0.0.1:17000"),
        ({INNER: Address("nat", 1)}, "10.0.0.5:6379", "nat:1"),
        ({"10.0.0.5:6379": "nat"}, "10.0.0.5:6379", "nat:6379"),
        ({"10.0.0.5": "nat"}, "10.0.0.5:7000", "nat:7000"),
        ({"10.0.0.5": "nat:1"}, "10.0.0.5:7000", "nat:1"),
        ({"10.0.0.5": "nat:1", "10.0.0.5:7000": "nat:2"}, "10.0.0.5:7000", "nat:2"),
        ({"10.0.0.5": "nat"}, "::ffff:10.0.0.5", "nat:6379"),
        ({"Redis-1.Internal.": "nat"}, "redis-1.internal", "nat:6379"),
        ({"[2001:db8:0::1]:6379": "[::1]:7000"}, "[2001:db8::1]:6379", "[::1]:7000"),
        ({"10.0.0.5:6379": "nat"}, "10.0.0.5:6380", "10.0.0.5:6380"),
        ({"10.0.0.6": "nat"}, "10.0.0.5", "10.0.0.5:6379"),
    ],
)
def test_a_dictionary(entries: Any, announced: str, dialled: str) -> None:
    given_name = Address.parse(announced, 6379)
    found = AddressMap.of(entries).of_announced(given_name, SEED)
    assert found == Address.parse(dialled, 6379)
    assert found.announced == ("" if found == given_name else str(given_name))


def test_a_function() -> None:
    asked = []

    def function(host: str, port: int) -> tuple[str, int]:
        asked.append((host, port))
        return "nat", port + 1

    assert AddressMap.of(function).of_announced(INNER, SEED) == Address("nat", 6380)
    assert asked == [("10.0.0.5", 6379)]
    assert AddressMap.of(lambda host, port: f"{host}.nat:{port}").of_announced(INNER, SEED).host == "10.0.0.5.nat"
    assert AddressMap.of(lambda host, port: "nat").of_announced(INNER, SEED) == Address("nat", 6379)


@pytest.mark.parametrize("answer", [None, "", "nat:x", ("nat",), ("nat", 0), 7, "a:0"])
def test_a_function_that_returns_nonsense(answer: Any) -> None:
    with pytest.raises(OptionError, match=r"address_map returned .* for 10.0.0.5:6379"):
        AddressMap.of(lambda host, port: answer).of_announced(INNER, SEED)


def test_a_function_that_raises() -> None:
    def function(host: str, port: int) -> str:
        raise KeyError(host)

    with pytest.raises(OptionError, match=r"address_map raised KeyError .* for 10.0.0.5:6379") as caught:
        AddressMap.of(function).of_announced(INNER, SEED)
    assert isinstance(caught.value.__cause__, KeyError)


@given(addresses, addresses)
def test_seed_host_keeps_the_port(announced: Address, seed: Address) -> None:
    assert AddressMap.of("seed-host").of_announced(announced, seed) == Address(seed.host, announced.port)


@given(addresses, addresses, addresses)
def test_what_the_map_does_not_name_stays(announced: Address, other: Address, target: Address) -> None:
    assume(announced.port != other.port)
    assert AddressMap.of({other: target}).of_announced(announced, SEED) is announced
    assert AddressMap.of(None).of_announced(announced, SEED) is announced


@given(addresses, addresses)
def test_what_the_map_names_is_dialled_there(announced: Address, target: Address) -> None:
    assert AddressMap.of({announced: target}).of_announced(announced, SEED) == target


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"10.0.0.5:x": "nat"}, "'10.0.0.5:x'"),
        ({"10.0.0.5:0": "nat"}, "'10.0.0.5:0'"),
        ({"10.0.0.5": "nat:70000"}, "'10.0.0.5'"),
        ({"10.0.0.5": ""}, "'10.0.0.5'"),
        ({"10.0.0.5": None}, "'10.0.0.5'"),
        ({5: "nat"}, "entry 5"),
        ({("10.0.0.5",): "nat"}, "entry"),
        ({("10.0.0.5", None): "nat"}, "entry"),
        ({"[::1": "nat"}, r"'\[::1'"),
        ({"DB:1": "a", "db:1": "b"}, "mapped twice"),
        ("seed", "'seed-host'"),
        (7, "'seed-host'"),
        ([("a", "b")], "'seed-host'"),
    ],
)
def test_wrong_maps(wrong: Any, says: str) -> None:
    with pytest.raises(OptionError, match=f"address_map.*{says}"):
        AddressMap.of(wrong)


def test_maps_are_values() -> None:
    assert AddressMap.of({"a": "b", "c": "d"}) == AddressMap.of({"c": "d", "A": "b"})
    assert AddressMap.of({"a": "b"}) != AddressMap.of({"a": "c"})
    assert AddressMap.of(AddressMap.of("seed-host")) == AddressMap.of("seed-host")


# ---------------------------------------------------------------- the hosts that are allowed


@pytest.mark.parametrize(
    ("entry", "inside", "outside"),
    [
        ("10.0.0.5", ["10.0.0.5", "::ffff:10.0.0.5"], ["10.0.0.6", "db", "2001:db8::5"]),
        ("10.0.0.0/8", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.0", "::ffff:11.0.0.0", "::10.1.2.3"]),
        ("::ffff:10.0.0.0/104", ["10.1.2.3", "::ffff:10.1.2.3"], ["11.0.0.0"]),
        ("2001:db8::/32", ["2001:db8::1", "2001:0DB8:0::1"], ["2001:db9::1", "10.0.0.5"]),
        ("::/0", ["2001:db8::1"], ["10.0.0.5", "::ffff:10.0.0.5"]),
        (IPv4Address("10.0.0.5"), ["10.0.0.5"], ["10.0.0.6"]),
        (ip_network("10.0.0.0/8"), ["10.0.0.5"], ["11.0.0.6"]),
        ("db-1", ["db-1", "DB-1", "db-1."], ["db-10", "db-1.example.com", "10.0.0.5"]),
        (
            ".Example.com",
            ["a.example.com", "A.b.example.com."],
            ["example.com", "badexample.com", "example.com.evil.org"],
        ),
        ("*.example.com", ["a.example.com", "b.a.example.com"], ["example.com", "a.example.org"]),
    ],
)
def test_allowed_hosts(entry: Any, inside: list[str], outside: list[str]) -> None:
    hosts = allowed(entry, "another.name")
    for host in inside:
        assert hosts.permits(Address(host, 6379)), host
        assert why_refused(Address(host, 6379), hosts) == ""
    for host in outside:
        assert not hosts.permits(Address(host, 6379)), host
        assert "allowed_hosts" in why_refused(Address(host, 6379), hosts)


@pytest.mark.parametrize(
    "wrong",
    [
        "",
        " ",
        "10.0.0.5:6379",
        "10.0.0.5/8",
        "10.0.0.256",
        "10.0.0",
        "0x7f000001",
        "a b",
        "*",
        ".",
        "*example.com",
        "a.*.com",
        "http://db",
        "db/1",
        "\uff44\uff42",
        "10.0.0.0/33",
        "[::1]",
        None,
        5,
        ("db", 6379),
        "..com",
        "a..b",
    ],
)
def test_wrong_allowed_hosts(wrong: Any) -> None:
    with pytest.raises(OptionError) as caught:
        AllowedHosts.of(["10.0.0.1", wrong])
    assert repr(wrong) in str(caught.value)
    assert "allowed_hosts" in str(caught.value)


@pytest.mark.parametrize("wrong", ["10.0.0.0/8", b"10.0.0.1", 7, [], ()])
def test_allowed_hosts_are_a_list(wrong: Any) -> None:
    with pytest.raises(OptionError, match="allowed_hosts"):
        AllowedHosts.of(wrong)


def test_no_list_allows_all() -> None:
    assert AllowedHosts.of(None) is None
    assert why_refused(INNER, None) == ""
    assert allowed("db", ".example.com") == allowed(".example.com", "DB", "db")


@given(st.ip_addresses(v=4), st.integers(0, 32), st.ip_addresses(v=4))
def test_networks_hold_what_ipaddress_says(base: IPv4Address, length: int, ip: IPv4Address) -> None:
    network = ip_network((base, length), strict=False)
    assert allowed(str(network)).permits(Address(str(ip), 6379)) == (ip in network)
    assert allowed(str(network)).permits(Address(f"::ffff:{ip}", 6379)) == (ip in network)


# ---------------------------------------------------------------- what is never dialled


@pytest.mark.parametrize(
    ("host", "says"),
    [
        ("169.254.169.254", "link-local"),
        ("fe80::1", "link-local"),
        ("FE80::1%eth0", "link-local"),
        ("febf::1", "link-local"),
        ("::ffff:169.254.169.254", "link-local"),
        ("::FFFF:a9fe:a9fe", "link-local"),
        ("224.0.0.1", "multicast"),
        ("ff02::1", "multicast"),
        ("::ffff:239.1.1.1", "multicast"),
        ("0.0.0.0", "unspecified"),
        ("::", "unspecified"),
        ("0::0", "unspecified"),
        ("::ffff:0.0.0.0", "unspecified"),
        ("2852039166", "neither"),  # 169.254.169.254 to a resolver
        ("169.254.43518", "neither"),
        ("0xa9.0xfe.0xa9.0xfe", "neither"),
        ("0251.0376.0251.0376", "neither"),
        ("169.254.169.254.", "neither"),
        ("0", "neither"),
        ("\uff11\uff16\uff19.254.169.254", "neither"),
        ("169\u3002254\u3002169\u3002254", "neither"),
        ("", "neither"),
        ("a b", "neither"),
        ("a\r\nb", "neither"),
        ("/tmp/redis.sock", "neither"),
    ],
)
def test_never_dialled(host: str, says: str) -> None:
    everything = allowed("0.0.0.0/0", "::/0", *([] if says == "neither" else ["db"]))
    for hosts in (None, everything):
        reason = why_refused(Address(host, 6379), hosts)
        assert says in reason
        assert "allowed_hosts" not in reason
        assert "\n" not in reason


def test_port_0_is_never_dialled() -> None:
    assert "port 0" in why_refused(Address("10.0.0.5", 0), None)
    assert "port 0" in why_refused(Address("10.0.0.5", 0), allowed("10.0.0.5"))


@pytest.mark.parametrize(
    "host", ["127.0.0.1", "::1", "10.0.0.5", "redis_1", "a.example.com.", "xn--bcher-kva.example", "db4"]
)
def test_what_nodes_have_is_dialled(host: str) -> None:
    assert why_refused(Address(host, 6379), None) == ""


@given(st.one_of(st.ip_addresses(v=4), st.ip_addresses(v=4, network="169.254.0.0/16")))
def test_an_address_that_ipv6_carries_is_judged_as_itself(ip: IPv4Address) -> None:
    carried = f"::ffff:{ip}"
    assert bool(why_refused(Address(str(ip), 1), None)) == bool(why_refused(Address(carried, 1), None))
    assert bool(why_refused(Address(carried, 1), None)) == (ip.is_link_local or ip.is_multicast or ip.is_unspecified)


@given(st.ip_addresses(v=6, network="fe80::/10"))
def test_no_link_local_address_is_dialled(ip: IPv6Address) -> None:
    assert "link-local" in why_refused(Address(ip.exploded, 6379), allowed("::/0"))


def test_the_reason_names_both_addresses() -> None:
    mapped = AddressMap.of({"10.0.0.5": "169.254.0.1"}).of_announced(INNER, SEED)
    assert "169.254.0.1:6379 (announced as 10.0.0.5:6379)" in why_refused(mapped, None)


# ---------------------------------------------------------------- names in certificates


def test_server_names() -> None:
    assert server_name_for(None, INNER, SEED) is None
    assert server_name_for("redis.internal", INNER, SEED) == "redis.internal"
    assert server_name_for("seed", INNER, SEED) == "sentinel.example.com"
    assert server_name_for("seed", INNER, None) is None
    assert server_name_for(lambda host, port: f"{host}-{port}.internal", INNER, SEED) == "10.0.0.5-6379.internal"


@pytest.mark.parametrize("answer", [None, "", 7])
def test_a_function_that_returns_no_name(answer: Any) -> None:
    with pytest.raises(OptionError, match=r"tls_server_name returned .* for 10.0.0.5:6379"):
        server_name_for(lambda host, port: answer, INNER, SEED)


def test_a_function_of_names_that_raises() -> None:
    names_by_ip: dict[str, str] = {}
    with pytest.raises(OptionError, match=r"tls_server_name raised KeyError .* for 10.0.0.5:6379"):
        server_name_for(lambda host, port: names_by_ip[host], INNER, SEED)


@pytest.mark.parametrize("wrong", ["", " ", 7, ["a"], b"a", True])
def test_wrong_server_names(wrong: Any) -> None:
    with pytest.raises(OptionError, match="tls_server_name"):
        check_server_name(wrong)
