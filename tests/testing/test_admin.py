"""Administration of the embedded server: CLIENT, CONFIG, INFO, DEBUG, and their effects on a node and its clients."""

from __future__ import annotations

import asyncio
import json
import shlex
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from hatopo.testing._reply import ErrorReply
from hatopo.testing.commands import SENTINEL_TABLE
from hatopo.testing.node import _admin, _info
from hatopo.testing.node._config import ROOM
from hatopo.testing.node._node import DataNode
from hatopo.testing.server import _client_commands, _monitors
from hatopo.testing.server._handlers import Handlers
from hatopo.testing.server._server import Server
from hatopo.testing.world._clock import ManualClock
from hatopo.testing.world._loop import LOOP
from hatopo.testing.world._world import World
from tests.servers import PLAIN, RealNode, eventually
from tests.testing.wire import CLOSED, Connection, Wire
from tests.tools.generate_testing_admin import fresh_server, parameters

ALLOWED = {"enable-debug-command": "yes", "enable-module-command": "yes", "save": ""}
START = 1_700_000_000.0


class Client(Connection):
    """A bare connection that is asked in lines."""

    def __call__(self, line: str) -> str:
        return str(self.ask(*words_of(line)))

    def told(self) -> str:
        return str(self.read())

    def text(self, line: str) -> str:
        body = self.ask(*words_of(line)).body
        assert isinstance(body, bytes)
        return body.decode().removeprefix("txt:")


def words_of(line: str) -> list[bytes]:
    return [word.encode() for word in shlex.split(line)]


def fields(line: str) -> dict[str, str]:
    pairs = (part.partition("=") for part in line.strip().split(" "))
    return {name: value for name, _, value in pairs}


class Place:
    """A world in which nothing happens by itself, its servers, and clients of them."""

    def __init__(self) -> None:
        self.clock = ManualClock(START)
        self.world = World(self.clock, seed=1)
        self.servers: list[Server] = []
        self.clients: list[Client] = []

    def start(self, server: Server) -> None:
        LOOP.call(server.bind)
        self.servers.append(server)
        LOOP.wait(server.start())

    def node(self, **config: str) -> DataNode:
        given = {**ALLOWED, **{name.replace("_", "-"): value for name, value in config.items()}}
        node = LOOP.call(lambda: DataNode(self.world, config=given))
        self.start(node)
        return node

    def client(self, server: Server, protocol: int = 2) -> Client:
        client = Client.to(server.address, protocol)
        assert isinstance(client, Client)
        self.clients.append(client)
        return client

    async def end(self) -> None:
        for server in self.servers:
            server.close()
        self.world.close()
        for _ in range(3):
            await asyncio.sleep(0)


@pytest.fixture
def place() -> Iterator[Place]:
    LOOP.acquire()
    place = Place()
    try:
        yield place
    finally:
        for client in place.clients:
            client.close()
        LOOP.wait(place.end())
        LOOP.release()


@pytest.fixture
def node(place: Place) -> DataNode:
    return place.node()


@pytest.fixture
def client(place: Place, node: DataNode) -> Client:
    return place.client(node)


@pytest.fixture(scope="module")
def real_node(redis_installed: tuple[int, ...]) -> Iterator[RealNode]:
    if redis_installed[:2] != (7, 0):
        pytest.skip("the embedded server answers like Redis 7.0")
    with RealNode(config={**PLAIN, **ALLOWED}) as server:
        yield server


def on_loop(check: Callable[[], object]) -> Callable[[], object]:
    return lambda: LOOP.call(check)


# --- CLIENT


def test_a_line_of_client_list_says_what_a_client_is_doing(place: Place, node: DataNode, client: Client) -> None:
    subscriber, queueing, waiting, watching = (place.client(node) for _ in range(4))
    subscriber("SUBSCRIBE ch")
    queueing("SELECT 3")
    queueing("MULTI")
    queueing("PING")
    waiting.send(b"BLPOP nothing 0\r\n")
    watching("MONITOR")
    client("CLIENT SETNAME me")
    client("CLIENT NO-EVICT ON")
    eventually(on_loop(lambda: any(one.blocked for one in node.sessions.values())), what="one is blocked")
    place.clock.advance(12.5)
    lines = [fields(line) for line in client.text("CLIENT LIST").splitlines()]
    assert [line["flags"] for line in lines] == ["e", "P", "x", "b", "O"]
    assert [line["sub"] for line in lines] == ["0", "1", "0", "0", "0"]
    assert [line["multi"] for line in lines] == ["-1", "-1", "1", "-1", "-1"]
    assert lines[2]["db"] == "3"
    assert [line["age"] for line in lines] == ["12"] * 5
    assert [line["idle"] for line in lines] == ["0", "12", "12", "12", "12"]
    assert (lines[0]["name"], lines[0]["cmd"], lines[3]["cmd"]) == ("me", "client|list", "blpop")
    assert [line["addr"] for line in lines][1:] == [
        f"127.0.0.1:{one.port}" for one in (subscriber, queueing, waiting, watching)
    ]


@pytest.mark.parametrize(
    ("filters", "killed"),
    [
        ("TYPE pubsub", {"sub"}),
        ("TYPE NORMAL", {"other"}),
        ("TYPE normal SKIPME no", {"other", "asking"}),
        ("TYPE replica", set()),
        ("TYPE master", set()),
        ("USER default", {"sub", "other"}),
        ("ID {other}", {"other"}),
        ("ID {asking}", set()),
        ("ID {asking} SKIPME no", {"asking"}),
        ("ADDR {address}", {"other"}),
        ("ADDR {address} TYPE pubsub", set()),
        ("LADDR {own} SKIPME yes", {"sub", "other"}),
    ],
)
def test_client_kill_closes_those_that_fit(
    place: Place, node: DataNode, client: Client, filters: str, killed: set[str]
) -> None:
    clients = {"asking": client, "sub": place.client(node), "other": place.client(node)}
    numbers = {name: one("CLIENT ID").removeprefix(":") for name, one in clients.items()}
    clients["sub"]("SUBSCRIBE ch")
    filled = filters.format(**numbers, address=f"127.0.0.1:{clients['other'].port}", own=f"127.0.0.1:{node.address[1]}")
    assert client(f"CLIENT KILL {filled}") == f":{len(killed)}"
    ended = {name for name, one in clients.items() if one("PING") == str(CLOSED)}
    assert ended == killed


def test_the_old_form_of_client_kill_takes_an_address(place: Place, node: DataNode, client: Client) -> None:
    other = place.client(node)
    other("PING")
    assert client(f"CLIENT KILL 127.0.0.1:{other.port}") == "+OK"
    assert other.read() == CLOSED
    assert client(f"CLIENT KILL 127.0.0.1:{other.port}") == "-ERR No such client"
    assert client(f"CLIENT KILL 127.0.0.1:{client.port}") == "+OK"
    assert client.read() == CLOSED


def test_a_pause_of_writes_ends_with_its_time_or_by_command(place: Place, node: DataNode, client: Client) -> None:
    writer = place.client(node)
    for end in (lambda: place.clock.advance(5), lambda: client("CLIENT UNPAUSE")):
        client("DEL k")
        assert client("CLIENT PAUSE 5000 WRITE") == "+OK"
        writer.send(b"SET k v\r\n")
        eventually(on_loop(lambda: node._paused_sessions), what="the write is held back")
        assert client("GET k") == "$nil"
        assert writer.rest() == ()
        end()
        assert writer.told() == "+OK"


@pytest.mark.parametrize(
    ("reason", "answer"),
    [
        ("", "*nil"),
        ("TIMEOUT", "*nil"),
        ("ERROR", "-UNBLOCKED client unblocked via CLIENT UNBLOCK"),
    ],
)
def test_client_unblock_ends_a_wait(place: Place, node: DataNode, client: Client, reason: str, answer: str) -> None:
    waiting = place.client(node)
    number = waiting("CLIENT ID").removeprefix(":")
    assert client(f"CLIENT UNBLOCK {number} {reason}") == ":0"
    waiting.send(b"BLPOP nothing 0\r\n")
    eventually(on_loop(lambda: any(one.blocked for one in node.sessions.values())), what="it is blocked")
    assert client(f"CLIENT UNBLOCK {number} {reason}") == ":1"
    assert waiting.told() == answer
    assert waiting("PING") == "+PONG"


def test_client_commands_need_no_data(place: Place) -> None:
    class Sentinel(Server):
        mode, table = "sentinel", SENTINEL_TABLE
        handlers = Handlers(_client_commands.commands)

    sentinel = Sentinel(place.world)
    place.start(sentinel)
    one, other = place.client(sentinel), place.client(sentinel)
    other("CLIENT SETNAME you")
    lines = [fields(line) for line in one.text("CLIENT LIST").splitlines()]
    assert [(line["name"], line["db"]) for line in lines] == [("", "0"), ("you", "0")]
    assert one("CLIENT KILL TYPE normal") == ":1"
    assert one("CLIENT KILL TYPE master") == ":0"
    assert other.read() == CLOSED
    report = _info.sentinel_report(lambda _: ["sentinel_masters:0"]).of(sentinel)
    titles = [line for line in report.splitlines() if line.startswith("#")]
    assert titles == ["# Server", "# Clients", "# Stats", "# CPU", "# Sentinel"]


# --- CONFIG


def test_config_set_changes_all_or_nothing(client: Client) -> None:
    assert client("CONFIG SET timeout 7 maxmemory nonsense").startswith("-ERR CONFIG SET failed (possibly related to")
    assert client("CONFIG GET timeout maxmemory") == '*[$"timeout" $"0" $"maxmemory" $"0"]'
    assert client("CONFIG SET timeout 7 maxmemory 1mb") == "+OK"
    assert client("CONFIG GET timeout maxmemory") == '*[$"timeout" $"7" $"maxmemory" $"1048576"]'


def test_old_names_are_the_same_parameters(node: DataNode, client: Client) -> None:
    assert client("CONFIG SET slave-read-only no min-slaves-to-write 2") == "+OK"
    assert client("CONFIG GET replica-read-only") == '*[$"replica-read-only" $"no"]'
    assert not node.config.replica_read_only
    assert node.config.min_replicas_to_write == node.config.number("min-slaves-to-write") == 2


def test_guards_of_the_write_path_follow_the_configuration(client: Client) -> None:
    assert client("SET k v") == "+OK"
    assert client("CONFIG SET min-replicas-to-write 1") == "+OK"
    assert client("SET k w") == "-NOREPLICAS Not enough good replicas to write."
    assert client("CONFIG SET min-replicas-to-write 0") == "+OK"
    assert client("SET k w") == "+OK"


def test_a_password_is_asked_of_whoever_connects_then(place: Place, node: DataNode, client: Client) -> None:
    assert client("CONFIG SET requirepass secret") == "+OK"
    assert client("PING") == "+PONG"
    later = place.client(node)
    assert later("PING") == "-NOAUTH Authentication required."
    assert later("AUTH secret") == "+OK"
    assert client("CONFIG SET requirepass ''") == "+OK"
    assert place.client(node)("PING") == "+PONG"


def test_a_client_too_many_is_turned_away(place: Place, node: DataNode, client: Client) -> None:
    late = place.client(node)
    assert late("PING") == "+PONG"
    assert client("CONFIG SET maxclients 1") == "+OK"
    LOOP.call(lambda: node.config.admit(node.sessions[max(node.sessions)]))
    assert late.told() == "-ERR max number of clients reached"
    assert late.read() == CLOSED
    assert "rejected_connections:1" in client.text("INFO stats")


def test_idle_clients_are_closed_but_not_those_that_wait(place: Place, node: DataNode, client: Client) -> None:
    subscriber, waiting, lazy = place.client(node), place.client(node), place.client(node)
    subscriber("SUBSCRIBE ch")
    waiting.send(b"BLPOP nothing 0\r\n")
    lazy("PING")
    eventually(on_loop(lambda: any(one.blocked for one in node.sessions.values())), what="one is blocked")
    assert client("CONFIG SET timeout 10") == "+OK"
    place.clock.advance(9)
    assert client("PING") == "+PONG"
    assert lazy.rest() == ()
    place.clock.advance(5)
    assert lazy.read() == CLOSED
    assert client("PING") == "+PONG"
    assert client("RPUSH nothing x") == ":1"
    assert waiting.told() == '*[$"nothing" $"x"]'
    assert client("PUBLISH ch m") == ":1"


def test_the_file_may_set_what_config_set_may_not(place: Place) -> None:
    node = place.node(databases="2", notify_keyspace_events="KEA")
    client = place.client(node)
    assert client("CONFIG SET databases 4").endswith("- can't set immutable config")
    assert client("SELECT 1") == "+OK"
    assert client("SELECT 2") == "-ERR DB index is out of range"
    assert client("CONFIG GET notify*") == '*[$"notify-keyspace-events" $"AKE"]'
    for wrong in ({"databases": "many"}, {"no_such": "x"}):
        with pytest.raises(ErrorReply):
            place.node(**wrong)


def test_a_restart_keeps_what_was_rewritten(place: Place) -> None:
    node = place.node(hz="20")
    client = place.client(node)
    assert client("CONFIG SET timeout 30") == "+OK"
    assert client("CONFIG REWRITE") == "+OK"
    assert client("CONFIG SET timeout 60 hz 30 maxclients 5") == "+OK"
    LOOP.call(node.config.restarted)
    assert client("CONFIG GET timeout hz maxclients") == '*[$"timeout" $"30" $"hz" $"20" $"maxclients" $"10000"]'
    assert node.config.maxclients == 10000


# --- INFO


def test_info_tells_what_the_node_knows(place: Place, node: DataNode, client: Client) -> None:
    client("SET a 1")
    client("SET b 1 EX 100")
    client("LPUSH a x")
    place.clock.advance(86400 + 5)
    assert "db0:keys=1,expires=0,avg_ttl=0" in client.text("INFO keyspace")
    assert client.text("INFO errorstats").splitlines() == ["# Errorstats", "errorstat_WRONGTYPE:count=1"]
    server = client.text("INFO server").splitlines()
    assert {f"run_id:{node.run_id}", f"tcp_port:{node.address[1]}", "uptime_in_seconds:86405"} <= {*server}
    client("CONFIG RESETSTAT")
    assert client.text("INFO errorstats").splitlines() == ["# Errorstats"]


def test_nobody_is_hurt_by_a_signal_to_the_process_of_a_node(client: Client) -> None:
    line = next(line for line in client.text("INFO server").splitlines() if line.startswith("process_id:"))
    assert int(line.partition(":")[2]) > 2**22  # the highest number that Linux gives to a process


def test_memory_runs_out_only_where_there_is_a_limit(node: DataNode, client: Client) -> None:
    assert not LOOP.call(lambda: _info.out_of_memory(node))
    client("CONFIG SET maxmemory 1")
    assert LOOP.call(lambda: _info.out_of_memory(node))
    client("CONFIG SET maxmemory-policy allkeys-lru")
    assert not LOOP.call(lambda: _info.out_of_memory(node))


def sections(report: str) -> dict[str, list[str]]:
    """The names of the fields, by section, both in their order."""
    found: dict[str, list[str]] = {}
    for line in report.splitlines():
        if line.startswith("# "):
            found[line] = []
        elif line:
            found[[*found][-1]].append(line.partition(":")[0])
    return found


@pytest.mark.parametrize("words", ["", "all", "everything", "default", "server cpu", "commandstats", "module_list x"])
def test_sections_and_fields_are_those_of_a_real_server(words: str, client: Client, real_node: RealNode) -> None:
    real = Client.to((real_node.host, real_node.port))
    assert isinstance(real, Client)
    assert real("CONFIG RESETSTAT") == client("CONFIG RESETSTAT") == "+OK"
    left_out = ("# Commandstats", "# Latencystats", "# Errorstats")
    expected, found = (
        {
            title: names if title not in left_out else None
            for title, names in sections(one.text(f"INFO {words}")).items()
        }
        for one in (real, client)
    )
    real.close()
    assert [*found] == [*expected]
    assert found == expected


# --- databases, DEBUG, MONITOR, SLOWLOG, SHUTDOWN


def test_swapdb_concerns_who_watches_and_who_waits(place: Place, node: DataNode, client: Client) -> None:
    watching, waiting = place.client(node), place.client(node)
    client("SELECT 1")
    client("RPUSH list x")
    watching("WATCH list")
    watching("MULTI")
    waiting.send(b"BLPOP list 0\r\n")
    eventually(on_loop(lambda: any(one.blocked for one in node.sessions.values())), what="one is blocked")
    assert client("SWAPDB 0 1") == "+OK"
    assert waiting.told() == '*[$"list" $"x"]'
    assert watching("EXEC") == "*nil"
    assert client("DBSIZE") == ":0"


def test_debug_sleep_stops_the_node_for_its_time(place: Place, node: DataNode, client: Client) -> None:
    other = place.client(node)
    assert other("PING") == "+PONG"
    client.send(b"DEBUG SLEEP 10\r\nECHO after\r\n")
    eventually(lambda: node.paused, what="the node stands still")
    other.send(b"PING\r\n")
    place.clock.advance(9.9)
    assert client.rest() == other.rest() == ()
    place.clock.advance(0.2)
    assert other.told() == "+PONG"
    assert [client.told(), client.told()] == ["+OK", '$"after"']
    assert other("SLOWLOG LEN") == ":1"


def test_debug_is_forbidden_unless_the_file_allows_it(place: Place) -> None:
    client = place.client(place.node(enable_debug_command="no"))
    assert client("DEBUG SLEEP 1").startswith("-ERR DEBUG command not allowed. If the enable-debug-command option")


def test_monitors_see_data_commands_quoted(place: Place, node: DataNode, client: Client) -> None:
    monitor = place.client(node)
    assert monitor("MONITOR") == "+OK"
    client("CLIENT ID")
    session = next(one for one in node.sessions.values() if one.address[1] == client.port)
    words = [b"set", b'a "b"\\\n\x00', "ü".encode()]

    def feed() -> None:
        _monitors.feed_monitors(node, session, [b"SAVE"])
        _monitors.feed_monitors(node, session, words)
        _monitors.feed_monitors(node, session, [b"GET", b"k"], script=True)

    LOOP.call(feed)
    source = f"127.0.0.1:{client.port}"
    assert monitor.told() == f'+1700000000.000000 [0 {source}] "CLIENT" "ID"'
    assert monitor.told() == f'+1700000000.000000 [0 {source}] "set" "a \\"b\\"\\\\\\n\\x00" "\\xc3\\xbc"'
    assert monitor.told() == '+1700000000.000000 [0 lua] "GET" "k"'


def test_the_slow_log_keeps_the_last_ones(place: Place, node: DataNode, client: Client) -> None:
    client("CONFIG SET slowlog-log-slower-than 100 slowlog-max-len 2")
    session = next(iter(node.sessions.values()))

    def run() -> None:
        for number in range(4):
            _admin.note_slow(node, session, [b"SET", b"k%d" % number, b"x" * 130], 99 + number)
        _admin.note_slow(node, session, [b"DEL", *[b"k"] * 40], 100)

    LOOP.call(run)
    assert client("SLOWLOG LEN") == ":2"
    shown = " ".join(['$"DEL"', *['$"k"'] * 30, '$"... (10 more arguments)"'])
    assert client("SLOWLOG GET 1").startswith(f"*[*[:3 :1700000000 :100 *[{shown}]")
    assert f'$"k3" $"{"x" * 128}... (2 more bytes)"' in client("SLOWLOG GET")
    assert client("SLOWLOG RESET") == "+OK"
    assert client("SLOWLOG LEN") == ":0"


@pytest.mark.parametrize("words", ["", "NOSAVE", "SAVE NOW FORCE"])
def test_shutdown_ends_the_node_without_a_reply(words: str, place: Place, node: DataNode, client: Client) -> None:
    other = place.client(node)
    other("PING")
    assert client(f"SHUTDOWN {words}") == str(CLOSED)
    assert other.read() == CLOSED
    assert not node.running


# --- the same as a real server

REQUESTS = Path(__file__).with_name("admin_requests.txt")
"""One to a line, in an order in which each finds what it needs."""


@pytest.mark.parametrize("protocol", [2, 3])
def test_requests_are_answered_as_by_a_real_server(
    protocol: int, place: Place, node: DataNode, real_node: RealNode
) -> None:
    client = place.client(node, protocol)
    lines = REQUESTS.read_text().splitlines()
    real = Connection.to((real_node.host, real_node.port), protocol)
    expected = [real.ask(*words_of(line)) for line in lines]
    real.close()
    found = [client.ask(*words_of(line)) for line in lines]
    assert not any(CLOSED in (one, other) for one, other in zip(expected, found, strict=True))
    different: list[tuple[str, Wire, Wire]] = [
        (line, one, other) for line, one, other in zip(lines, expected, found, strict=True) if one != other
    ]
    assert not different


def test_the_parameters_are_those_of_a_real_server(redis_installed: tuple[int, ...]) -> None:
    if redis_installed != (7, 0, 15):
        pytest.skip("the parameters are recorded of 7.0.15")
    recorded = json.loads((ROOM / "_config.json").read_text())
    del recorded["about"]
    with fresh_server() as asked:
        told = json.loads(json.dumps(parameters(asked)))
    told["parameters"].pop("maxclients"), recorded["parameters"].pop("maxclients")  # as many as files may be open
    assert told == recorded
