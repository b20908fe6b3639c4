"""What sentinels and data nodes say, read from replies recorded from real servers, and from nonsense.

The recordings are written by tests/tools/record_replies.py. What is expected is computed from the topology that a
recording states of itself, never from the replies under test.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hatopo import Address
from hatopo.topology import (
    CHANNELS,
    InfoReport,
    MasterReport,
    ReplicaReport,
    RoleReport,
    SentinelReport,
    Sign,
    Word,
    parse_hello,
    parse_info,
    parse_master,
    parse_names,
    parse_replicas,
    parse_role,
    parse_sentinels,
    parse_word,
)

FILES = sorted((Path(__file__).parent / "recorded").glob("*.json"))


def wire(value: Any, binary: bool) -> Any:
    """A recorded reply as a connection hands it out: bytes, or text where replies are decoded."""
    if isinstance(value, str):
        return value.encode() if binary else value
    if isinstance(value, list):
        return [wire(one, binary) for one in value]
    if isinstance(value, dict):
        if "!error" in value:
            return Exception(value["!error"])
        return {wire(key, binary): wire(one, binary) for key, one in value.items()}
    return value


@dataclass(frozen=True)
class Recording:
    """The replies of one server version under one protocol."""

    content: dict[str, Any]
    protocol: int
    binary: bool

    def raw(self, node: str, command: str, when: str = "calm") -> Any:
        """The one reply to a command as recorded, where SERVICE stands for the service's name."""
        asked = (when, self.protocol, node, command.replace("SERVICE", self.content["service"]))
        rows = self.content["replies"]
        (row,) = (row for row in rows if (row["when"], row["protocol"], row["node"], row["command"]) == asked)
        return row["reply"]

    def reply(self, node: str, command: str, when: str = "calm") -> Any:
        """The same as a connection hands it out."""
        return wire(self.raw(node, command, when), self.binary)

    def words(self, what: str) -> list[tuple[Any, list[Word | None]]]:
        """For each sentinel, the row and what was published, as parsed."""
        rows = [row for row in self.content["events"] if (row["what"], row["protocol"]) == (what, self.protocol)]
        return [(row, [parse_word(*wire(pair, self.binary)) for pair in row["words"]]) for row in rows]

    def address(self, node: str) -> Address:
        return Address(*self.content["nodes"][node])

    def told(self, node: str, section: str, name: str) -> str:
        """A line of INFO as the node wrote it."""
        lines = self.raw(node, f"INFO {section}").splitlines()
        (found,) = (line.partition(":")[2] for line in lines if line.startswith(f"{name}:"))
        return str(found)

    def run_id(self, node: str) -> str:
        return self.told(node, "server", "run_id")


@pytest.fixture(params=FILES, ids=[path.stem for path in FILES])
def content(request: pytest.FixtureRequest) -> Any:
    return json.loads(request.param.read_text())


@pytest.fixture(params=[2, 3], ids=["RESP2", "RESP3"])
def protocol(request: pytest.FixtureRequest) -> Any:
    return request.param


@pytest.fixture(params=[True, False], ids=["bytes", "text"])
def recording(content: dict[str, Any], protocol: int, request: pytest.FixtureRequest) -> Recording:
    return Recording(content, protocol, request.param)


def test_old_and_new_servers_are_recorded() -> None:
    recorded = {(json.loads(path.read_text())["server"], path.stem.partition("-")[2][:2]) for path in FILES}
    assert recorded >= {("redis", "6."), ("redis", "7."), ("valkey", "8.")}


def test_recordings_tell_nothing_about_a_machine() -> None:
    for path in FILES:
        content = path.read_text()
        assert not any(word in content for word in ("/tmp", "/home", "/usr", "config_file", "executable", "gcc"))


# ---------------------------------------------------------------- what sentinels say


def test_the_master_of_a_service(recording: Recording) -> None:
    state = recording.reply("sentinel", "SENTINEL MASTER SERVICE")
    endpoint = recording.reply("sentinel", "SENTINEL GET-MASTER-ADDR-BY-NAME SERVICE")
    assert parse_master(state, endpoint) == MasterReport(
        recording.address("master"),
        recording.run_id("master"),
        epoch=0,
        down_after=recording.content["down_after"],
        flags=frozenset({"master"}),
        quorum=recording.content["quorum"],
    )


def test_the_master_after_two_failovers(recording: Recording) -> None:
    state = recording.reply("sentinel", "SENTINEL MASTER SERVICE", "killed")
    endpoint = recording.reply("sentinel", "SENTINEL GET-MASTER-ADDR-BY-NAME SERVICE", "killed")
    report = parse_master(state, endpoint)
    assert report is not None
    assert report.address == recording.address("survivor")
    assert report.epoch >= 2
    assert not report.promoting


def test_the_names_of_services(recording: Recording) -> None:
    assert parse_names(recording.reply("sentinel", "SENTINEL MASTERS")) == (recording.content["service"],)


def test_replicas(recording: Recording) -> None:
    (entry,) = Recording(recording.content, 3, False).raw("sentinel", "SENTINEL REPLICAS SERVICE")
    (report,) = parse_replicas(recording.reply("sentinel", "SENTINEL REPLICAS SERVICE"))
    assert report == ReplicaReport(
        recording.address("replica"),
        recording.run_id("replica"),
        frozenset({"slave"}),
        link_up=True,
        priority=100,
        offset=int(entry["slave-repl-offset"]),
        master=recording.address("master"),
    )
    assert report.offset > 0


def test_a_dead_replica_is_told_by_its_flags(recording: Recording) -> None:
    (report,) = parse_replicas(recording.reply("sentinel", "SENTINEL REPLICAS SERVICE", "killed"))
    assert report.address != recording.address("survivor")
    assert report.flags >= {"slave", "s_down", "disconnected"}


def test_sentinels(recording: Recording) -> None:
    (report,) = parse_sentinels(recording.reply("sentinel", "SENTINEL SENTINELS SERVICE"))
    other = Address(*recording.content["nodes"]["sentinels"][1])
    assert report == SentinelReport(other, report.id, frozenset({"sentinel"}))
    myid = recording.raw("sentinel", "SENTINEL MYID")
    assert len(report.id) == len(myid) == 40
    assert report.id != myid


def test_a_service_that_nobody_watches(recording: Recording) -> None:
    state, endpoint, replicas, sentinels = (
        recording.reply("sentinel", f"SENTINEL {what} unknown")
        for what in ("MASTER", "GET-MASTER-ADDR-BY-NAME", "REPLICAS", "SENTINELS")
    )
    assert isinstance(state, Exception)
    assert "No such master" in str(state)
    assert parse_master(state, endpoint) is None
    assert parse_replicas(replicas) == ()
    assert parse_sentinels(sentinels) == ()


# ---------------------------------------------------------------- what nodes say


def test_role(recording: Recording) -> None:
    sent, got = recording.raw("master", "ROLE")[1], recording.raw("replica", "ROLE")[4]
    master = RoleReport("master", offset=sent, replicas=(recording.address("replica"),))
    assert parse_role(recording.reply("master", "ROLE")) == master
    replica = RoleReport("replica", recording.address("master"), "connected", got)
    assert parse_role(recording.reply("replica", "ROLE")) == replica
    assert parse_role(recording.reply("sentinel", "ROLE")) == RoleReport("sentinel")


def test_role_of_a_master_without_replicas(recording: Recording) -> None:
    report = parse_role(recording.reply("master", "ROLE", "killed"))
    assert report is not None
    assert (report.role, report.master, report.replicas) == ("master", None, ())


@pytest.mark.parametrize("node", ["master", "replica", "sentinel"])
def test_hello(recording: Recording, node: str) -> None:
    assert parse_hello(recording.reply(node, "HELLO")) == RoleReport(node)


@pytest.mark.parametrize("node", ["master", "replica", "sentinel"])
def test_info_server(recording: Recording, node: str) -> None:
    report = parse_info(recording.reply(node, "INFO server"))
    assert report is not None
    assert (report.server, report.version) == (recording.content["server"], recording.content["version"])
    assert report.run_id == recording.run_id(node)
    assert report.role == ("sentinel" if node == "sentinel" else "")


def test_info_replication(recording: Recording) -> None:
    sent = int(recording.told("master", "replication", "master_repl_offset"))
    found = parse_info(recording.reply("master", "INFO replication"))
    assert found == InfoReport(role="master", offset=sent, replicas=(recording.address("replica"),))
    assert parse_info(recording.reply("replica", "INFO replication")) == InfoReport(
        role="replica",
        master=recording.address("master"),
        link_up=True,
        offset=int(recording.told("replica", "replication", "master_repl_offset")),
        replica_offset=int(recording.told("replica", "replication", "slave_repl_offset")),
    )


def test_info_of_several_sections(recording: Recording) -> None:
    parts = [recording.reply("replica", f"INFO {section}") for section in ("server", "replication", "persistence")]
    report = parse_info((b"\r\n" if recording.binary else "\r\n").join(parts))
    assert report is not None
    assert report.role == "replica"
    assert report.run_id == recording.run_id("replica")
    assert not report.loading


def test_a_server_that_loads_its_data(recording: Recording) -> None:
    said = recording.reply("master", "INFO persistence")
    before, after = (b"\nloading:0", b"\nloading:1") if recording.binary else ("\nloading:0", "\nloading:1")
    assert said.count(before) == 1
    idle, busy = parse_info(said), parse_info(said.replace(before, after))
    assert idle is not None
    assert not idle.loading
    assert busy is not None
    assert busy.loading


# ---------------------------------------------------------------- what sentinels publish


@pytest.mark.parametrize("what", ["failover", "kill"])
def test_every_word_of_a_failover_is_understood(recording: Recording, what: str) -> None:
    heard = recording.words(what)
    assert len(heard) == 2
    for row, words in heard:
        old, new = Address(*row["old"]), Address(*row["new"])
        assert all(word is not None and word.service == recording.content["service"] for word in words)
        assert [word.address for word in words if word and word.sign is Sign.SWITCHED] == [new]
        assert old != new


@pytest.mark.parametrize("what", ["failover", "kill"])
def test_the_leader_names_the_candidate_before_it_switches(recording: Recording, what: str) -> None:
    leaders = 0
    for row, words in recording.words(what):
        signs = [word.sign for word in words if word is not None]
        if Sign.CANDIDATE not in signs:
            continue
        leaders += 1
        assert signs.index(Sign.BEGUN) < signs.index(Sign.CANDIDATE) < signs.index(Sign.SWITCHED)
        named = {word.address for word in words if word is not None and word.sign is Sign.CANDIDATE}
        assert named == {Address(*row["new"])}
    assert leaders == 1


def test_a_dead_master_is_announced_by_those_who_miss_it(recording: Recording) -> None:
    for _, words in recording.words("kill"):
        signs = [word.sign for word in words if word is not None]
        assert signs[0] is Sign.CHANGED  # +sdown
        assert signs.index(Sign.CHANGED) < signs.index(Sign.SWITCHED)


HERE = Address("10.0.0.1", 6379)
REPLICA = "slave 10.0.0.1:6379 10.0.0.1 6379 @ mymaster 10.0.0.2 6379"
MASTER = "master mymaster 10.0.0.1 6379"
SENTINEL = f"sentinel {40 * 'a'} 10.0.0.3 26379 @ mymaster 10.0.0.2 6379"

PUBLISHED = [
    ("+switch-master", "mymaster 10.0.0.2 6379 10.0.0.1 6379", Sign.SWITCHED, HERE),
    ("+switch-master", "mymaster  6379 10.0.0.1 6379", Sign.SWITCHED, HERE),  # the old host was never resolved
    ("+switch-master", "mymaster ::2 6379 ::1 6379", Sign.SWITCHED, Address("::1", 6379)),
    ("+switch-master", "mymaster a.test 6379 b.test 6379", Sign.SWITCHED, Address("b.test", 6379)),
    ("+selected-slave", REPLICA, Sign.CANDIDATE, HERE),
    ("+promoted-slave", REPLICA, Sign.CANDIDATE, HERE),
    ("+promoted-slave", "slave [::1]:7 ::1 7 @ mymaster ::2 7", Sign.CANDIDATE, Address("::1", 7)),
    ("-failover-abort-not-elected", MASTER, Sign.ABORTED, None),
    ("-failover-abort-no-good-slave", MASTER, Sign.ABORTED, None),
    ("-failover-abort-slave-timeout", MASTER, Sign.ABORTED, None),
    ("+try-failover", MASTER, Sign.BEGUN, Address("10.0.0.1", 6379)),
    ("+odown", f"{MASTER} #quorum 2/2", Sign.BEGUN, Address("10.0.0.1", 6379)),
    ("+sdown", "master mymaster  6379", Sign.CHANGED, None),
    ("+monitor", f"{MASTER} quorum 2", Sign.CHANGED, None),
    ("+sentinel-address-switch", f"{MASTER} ip 10.0.0.9 port 26379 for {40 * 'a'}", Sign.CHANGED, None),
    ("+role-change", f"{REPLICA} new reported role is slave", Sign.CHANGED, None),
    ("-role-change", f"{REPLICA} new reported role is slave", Sign.CHANGED, None),
    *((name, MASTER, Sign.CHANGED, None) for name in ("-odown", "+reset-master", "-monitor", "+reboot", "+sdown")),
    *((name, REPLICA, Sign.CHANGED, None) for name in ("+slave", "+reboot", "+convert-to-slave", "+sdown")),
    *((name, SENTINEL, Sign.CHANGED, None) for name in ("+sentinel", "+config-update-from", "-sdown")),
]


@pytest.mark.parametrize("binary", [True, False])
@pytest.mark.parametrize(("channel", "payload", "sign", "address"), PUBLISHED)
def test_the_words_of_sentinels(channel: str, payload: str, sign: Sign, address: Address | None, binary: bool) -> None:
    heard = parse_word(wire(channel, binary), wire(payload, binary))
    assert heard == Word(sign, "mymaster", address)
    other = parse_word(wire(channel, binary), wire(payload.replace("mymaster", "mymaster2"), binary))
    assert other == Word(sign, "mymaster2", address)


def test_the_list_of_words_is_complete() -> None:
    assert {channel for channel, *_ in PUBLISHED} == set(CHANNELS)
    assert len(set(CHANNELS)) == len(CHANNELS)


@pytest.mark.parametrize(
    ("channel", "payload"),
    [
        *(("+switch-master", f"mymaster 10.0.0.2 6379 {new}") for new in ("10.0.0.1", "10.0.0.1 0", "10.0.0.1 65536")),
        *(("+switch-master", f"mymaster 10.0.0.2 6379 {new}") for new in ("? 6379", " 6379", "b.test six")),
        ("+switch-master", "my master 10.0.0.2 6379 10.0.0.1 6379"),
        ("+switch-master", " 10.0.0.2 6379 10.0.0.1 6379"),
        ("+odown", "master my master 10.0.0.1 6379"),
        ("+odown", REPLICA),
        ("+try-failover", "master mymaster 10.0.0.1"),
        ("+try-failover", "master  10.0.0.1 6379"),
        ("+selected-slave", "slave 10.0.0.1:6379 10.0.0.1 6379"),
        ("+selected-slave", "slave 10.0.0.1:6379 10.0.0.1 6379 @ mymaster"),
        ("+selected-slave", "slave 10.0.0.1:6379 10.0.0.1 6379 # mymaster 10.0.0.2 6379"),
        ("+selected-slave", "slave ?:0 ? 0 @ mymaster 10.0.0.2 6379"),
        ("+selected-slave", MASTER),
        ("+switch-master", "mymaster 10.0.0.2 old 10.0.0.1 6379"),
        ("+switch-master", "mymaster 10.0.0.2 6379 10.0.0.1 6379 7"),
        ("+sdown", "unknown 10.0.0.1:6379 10.0.0.1 6379 @ mymaster 10.0.0.2 6379"),
        ("+sdown", "slave 10.0.0.1:6379 10.0.0.1 6379 @ mymaster 10.0.0.2 port"),
        ("+sdown", ""),
        ("+tilt", "#tilt mode entered"),
        ("+new-epoch", "7"),
        ("__sentinel__:hello", MASTER),
        ("", MASTER),
    ],
)
def test_what_is_no_word(channel: str, payload: str) -> None:
    assert parse_word(channel, payload) is None
    assert parse_word(channel.encode(), payload.encode()) is None


# ---------------------------------------------------------------- what is told badly

ENTRY = {
    "name": "10.0.0.1:6379", "ip": "10.0.0.1", "port": "6379", "runid": "a1b2", "flags": "slave",
    "master-link-status": "ok", "master-host": "10.0.0.2", "master-port": "6379", "slave-priority": "0",
    "slave-repl-offset": "12",
}  # fmt: skip


def test_numbers_that_no_server_counts_to_are_none() -> None:
    huge = dict.fromkeys(("down-after-milliseconds", "quorum", "config-epoch"), "9" * 400)
    assert parse_master({**ENTRY, **huge}, None) == MasterReport(HERE, "a1b2", 0, flags=frozenset({"slave"}))


def test_a_replica_that_has_told_little_yet() -> None:
    late = ENTRY | {"runid": "", "master-link-status": "err", "master-host": "?", "master-port": "0"}
    assert parse_replicas([ENTRY, late]) == (
        ReplicaReport(HERE, "a1b2", frozenset({"slave"}), True, 0, 12, Address("10.0.0.2", 6379)),
        ReplicaReport(HERE, "", frozenset({"slave"}), False, 0, 12, None),
    )
    bare = ReplicaReport(HERE, "", frozenset(), None, 100, 0, None)
    assert parse_replicas([["ip", "10.0.0.1", "port", 6379]]) == (bare,)


@pytest.mark.parametrize(
    "wrong",
    [
        *({"port": port} for port in ("0", "65536", "-1", "6_379", True, None)),
        *({"ip": host} for host in ("?", "", " ", None, 127, ["10.0.0.1"])),
    ],
    ids=str,
)
def test_an_entry_without_an_address_is_left_out(wrong: dict[str, object]) -> None:
    bad = ENTRY | wrong
    odd = ["ip", "10.0.0.1", "port"]
    assert [one.address for one in parse_replicas([bad, odd, ENTRY])] == [HERE]
    assert [one.address for one in parse_sentinels([bad, odd, ENTRY])] == [HERE]
    assert parse_master(bad, None) is None
    assert parse_master(None, [bad["ip"], bad["port"]]) is None


@pytest.mark.parametrize(
    "reply",
    [
        *(None, 7, "master", [], {}, ConnectionError("master")),
        *(["master"], ["master", 1], ["master", 1, None], ["slave", "10.0.0.1"], ["guest", 1, []], [["master"], 1, []]),
    ],
    ids=repr,
)
def test_what_is_no_role(reply: object) -> None:
    assert parse_role(reply) is None
    assert parse_hello(reply) is None


def test_a_role_with_addresses_that_are_none() -> None:
    assert parse_role(["slave", "?", 0, "connect", -1]) == RoleReport("replica", None, "connect", -1)
    listed = [["10.0.0.1", "6379", "1"], ["10.0.0.2", "0", "1"], [], None, ["", "6379", "1"]]
    assert parse_role(["master", 5, listed]) == RoleReport("master", offset=5, replicas=(HERE,))


@pytest.mark.parametrize(
    "reply", [None, "", b"", "# Server\r\n", "nonsense", ["role:master"], Exception("role:master"), 7]
)
def test_what_is_no_info(reply: object) -> None:
    assert parse_info(reply) is None


def test_a_lost_link_is_told_by_info() -> None:
    report = parse_info("role:slave\r\nmaster_host:?\r\nmaster_port:0\r\nmaster_link_status:down\r\n")
    assert report == InfoReport(role="replica", link_up=False)


WORDS = [
    *("role", "master", "slave", "replica", "sentinel", "mode", "name", "ip", "port", "runid", "flags", "ok"),
    *("6379", "0", "?", "10.0.0.1", "config-epoch", "quorum", "down-after-milliseconds", "master-link-status"),
    *("master-host", "master-port", "slave-priority", "slave-repl-offset"),
]
scalar = (
    st.sampled_from([*WORDS, *(word.encode() for word in WORDS), ENTRY])
    | st.none() | st.booleans() | st.integers() | st.floats() | st.binary() | st.text()
    | st.sampled_from([10**400, "9" * 5000, "9" * 400, -(10**400), Exception("no"), ConnectionError(), object()])
)  # fmt: skip
junk = st.recursive(
    scalar,
    lambda inner: (
        st.lists(inner)
        | st.tuples(inner, inner)
        | st.dictionaries(st.sampled_from(WORDS) | st.text() | st.binary(), inner)
    ),
)


def is_sound(address: Address | None) -> bool:
    return address is None or (1 <= address.port <= 65535 and address.host not in ("", "?"))


@given(junk, junk)
def test_nonsense_from_sentinels_is_no_answer(one: object, other: object) -> None:
    report = parse_master(one, other)
    assert report is None or (is_sound(report.address) and report.down_after < 2**63)
    for replica in parse_replicas(one):
        assert is_sound(replica.address)
        assert is_sound(replica.master)
    assert all(is_sound(sentinel.address) for sentinel in parse_sentinels(one))
    assert all(parse_names(one))


@given(junk)
def test_nonsense_from_nodes_is_no_answer(reply: object) -> None:
    for report in (parse_role(reply), parse_hello(reply)):
        assert report is None or report.role in ("master", "replica", "sentinel")
        assert report is None or all(is_sound(address) for address in (report.master, *report.replicas))
    info = parse_info(reply)
    assert info is None or info.role in ("", "master", "replica", "sentinel")


LINES = ["role", "master_host", "master_port", "master_link_status", "loading", "run_id", "redis_version", "redis_mode"]


@given(st.lists(st.tuples(st.sampled_from(LINES), st.sampled_from(WORDS) | st.text())), st.booleans())
def test_nonsense_in_info_is_no_answer(lines: list[tuple[str, str]], binary: bool) -> None:
    text = "\r\n".join(f"{name}:{value}" for name, value in lines)
    report = parse_info(text.encode() if binary else text)
    assert report is None or (is_sound(report.master) and report.role in ("", "master", "replica", "sentinel"))


PARTS = ["master", "slave", "sentinel", "mymaster", "mymaster2", "10.0.0.1", "6379", "0", "@", "", "?", "#quorum"]
payloads = st.lists(st.sampled_from(PARTS), max_size=10).map(" ".join) | st.text() | st.binary() | junk


@given(st.sampled_from(CHANNELS) | junk, payloads)
def test_nonsense_that_is_published_is_no_word(channel: object, payload: object) -> None:
    word = parse_word(channel, payload)
    if word is None:
        return
    assert word.service
    assert " " not in word.service
    assert is_sound(word.address)
    assert (word.address is not None) == (word.sign in (Sign.SWITCHED, Sign.CANDIDATE))
