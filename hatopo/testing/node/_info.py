"""INFO: sections and fields as a real 7.0.15 has them, in its order.

Decides how a report is put together, for data nodes and for sentinels; a field that nobody here knows has the value
that it had in a real server that nobody had used. What replication says of itself is its own business.
"""

from __future__ import annotations

import functools
import json
import os
import platform
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from hatopo.testing._reply import Reply, Text
from hatopo.testing.node._config import ROOM
from hatopo.testing.server._handlers import Handlers, text

if TYPE_CHECKING:
    from collections.abc import Iterable

    from hatopo.testing.server._server import Server
    from hatopo.testing.server._session import Session

commands = Handlers()

Section = Callable[[Any], "Iterable[str]"]
NO_SUCH_PROCESS = 4_194_304
"""The first number that no process has: a node has one behind it, so that a signal to it reaches nobody."""
BYTES_PER_KEY = 96


class Report:
    """What INFO of a kind of server says.

    Args:
        sections: the lines of each section, by its title, in their order.
        detailed: titles that are only shown on demand.
    """

    def __init__(self, sections: Mapping[str, Section], detailed: Sequence[str] = ()) -> None:
        self._sections = dict(sections)
        self._detailed = {title.lower() for title in detailed}

    def of(self, server: Server, words: Sequence[bytes] = ()) -> str:
        """The report, with the sections that are asked for: by name, `default`, `all` or `everything`."""
        asked = {text(word).lower() for word in words} or {"default"}
        parts = [
            "".join(f"{line}\r\n" for line in (f"# {title}", *lines(server)))
            for title, lines in self._sections.items()
            if self._is_shown(title.lower(), asked)
        ]
        return "\r\n".join(parts)

    def _is_shown(self, title: str, asked: set[str]) -> bool:
        if title in asked or asked & {"all", "everything"} or (title == "modules" and "module_list" in asked):
            return True
        return "default" in asked and title not in self._detailed


@functools.cache
def _recorded() -> Mapping[str, Sequence[tuple[str, str]]]:
    told: Mapping[str, Sequence[tuple[str, str]]] = json.loads((ROOM / "_admin.json").read_text())["info"]
    return told


def _filled(section: str, **known: object) -> list[str]:
    """The fields of a section, with these values for those that are recorded."""
    return [f"{name}:{known.get(name, value)}" for name, value in _recorded()[section]]


def _setting(server: Any, name: str, default: str) -> str:
    """A parameter; a sentinel has none."""
    config = getattr(server, "config", None)
    return config.get(name) if config is not None else default


def server_section(server: Server) -> list[str]:
    system, up = platform.uname(), int(server.world.now - server.started_at)
    hz = _setting(server, "hz", "10")
    return _filled(
        "server",
        redis_version=server.version,
        redis_mode=server.mode,
        os=f"{system.system} {system.release} {system.machine}",
        process_id=NO_SUCH_PROCESS + server.address[1],
        run_id=server.run_id,
        tcp_port=server.address[1],
        server_time_usec=int(server.world.now * 1_000_000),
        uptime_in_seconds=up,
        uptime_in_days=up // 86400,
        hz=hz,
        configured_hz=hz,
        lru_clock=int(server.world.now) & 0xFFFFFF,
    )


def clients_section(server: Server) -> list[str]:
    sessions = server.sessions.values()
    blocked = [session.blocked for session in sessions if session.blocked is not None]
    return _filled(
        "clients",
        connected_clients=sum(session.kind != "replica" for session in sessions),
        maxclients=_setting(server, "maxclients", "10000"),
        blocked_clients=len(blocked),
        clients_in_timeout_table=sum(one.timer is not None for one in blocked),
    )


def readable(size: int) -> str:
    """A number of bytes for people: 1.50M."""
    if size < 1024:
        return f"{size}B"
    power = min((size.bit_length() - 1) // 10, 6)
    return f"{size / (1 << 10 * power):.2f}{' KMGTPE'[power]}"


def used_memory(node: Any) -> int:
    """What the data of a node might need in a real server."""
    recorded = dict(_recorded()["memory"])
    keys: int = sum(count for count, _ in node.keyspace.sizes().values())
    return int(recorded["used_memory"]) + BYTES_PER_KEY * keys


def out_of_memory(node: Any) -> bool:
    """Whether commands that need memory are refused; nothing is ever evicted."""
    limit: int = node.config.maxmemory
    return 0 < limit < used_memory(node) and node.config.get("maxmemory-policy") == "noeviction"


def memory_section(node: Any) -> list[str]:
    used, limit = used_memory(node), node.config.maxmemory
    node.stats["used_memory_peak"] = peak = max(node.stats["used_memory_peak"], used)
    return _filled(
        "memory",
        used_memory=used,
        used_memory_human=readable(used),
        used_memory_peak=peak,
        used_memory_peak_human=readable(peak),
        used_memory_peak_perc=f"{100 * used / peak:.2f}%",
        maxmemory=limit,
        maxmemory_human=readable(limit),
        maxmemory_policy=node.config.get("maxmemory-policy"),
    )


def persistence_section(node: Any) -> list[str]:
    lines = _filled(
        "persistence",
        loading=int(node.loading),
        rdb_last_save_time=int(node.config.saved_at),
        rdb_saves=node.config.saves,
        aof_enabled=int(node.config.flag("appendonly")),
    )
    if node.loading:
        started = int(node.started_at)
        lines += [f"loading_start_time:{started}", "loading_total_bytes:1", "loading_rdb_used_mem:1"]
        lines += ["loading_loaded_bytes:0", "loading_loaded_perc:0.00", "loading_eta_seconds:1"]
    return lines


def stats_section(server: Server) -> list[str]:
    known: dict[str, object] = {name: 0 for name, value in _recorded()["stats"] if value.isdigit()}
    known |= {name: value for name, value in server.stats.items() if name in known}
    known |= {
        "pubsub_channels": len(server.channels["subscribe"]),
        "pubsub_patterns": len(server.channels["psubscribe"]),
        "pubsubshard_channels": len(server.channels["ssubscribe"]),
    }
    return _filled("stats", **known)


def replication_section(node: Any) -> list[str]:
    lines: list[str] = node.replication.info()
    return lines


def cpu_section(server: Server) -> list[str]:
    times = os.times()
    user, system = f"{times.user:.6f}", f"{times.system:.6f}"
    return _filled(
        "cpu",
        used_cpu_sys=system,
        used_cpu_user=user,
        used_cpu_sys_main_thread=system,
        used_cpu_user_main_thread=user,
    )


def modules_section(server: Server) -> list[str]:
    return []


def _counted(server: Server, what: str) -> Mapping[str, int]:
    """How often commands were called, rejected or failed, by their names, where the server counts that."""
    counted: Mapping[str, int] = getattr(server, what, {})
    return counted


def commandstats_section(server: Server) -> list[str]:
    calls, rejected, failed = (_counted(server, what) for what in ("calls", "rejected_calls", "failed_calls"))
    lines = []
    for name in sorted({*calls, *rejected}):
        count = calls.get(name, 0)
        lines.append(
            f"cmdstat_{name}:calls={count},usec={count},usec_per_call={min(count, 1)}.00,"
            f"rejected_calls={rejected.get(name, 0)},failed_calls={failed.get(name, 0)}"
        )
    return lines


def errorstats_section(server: Server) -> list[str]:
    return [f"errorstat_{code}:count={count}" for code, count in sorted(server.errors.items())]


def latencystats_section(server: Server) -> list[str]:
    times = "p50=1.003,p99=1.003,p99.9=1.003"
    return [f"latency_percentiles_usec_{name}:{times}" for name in sorted(_counted(server, "calls"))]


def cluster_section(server: Server) -> list[str]:
    return _filled("cluster", cluster_enabled=int(server.mode == "cluster"))


def keyspace_section(node: Any) -> list[str]:
    sizes = sorted(node.keyspace.sizes().items())
    return [f"db{number}:keys={keys},expires={expiring},avg_ttl=0" for number, (keys, expiring) in sizes]


NODE_REPORT = Report(
    {
        "Server": server_section,
        "Clients": clients_section,
        "Memory": memory_section,
        "Persistence": persistence_section,
        "Stats": stats_section,
        "Replication": replication_section,
        "CPU": cpu_section,
        "Modules": modules_section,
        "Commandstats": commandstats_section,
        "Errorstats": errorstats_section,
        "Latencystats": latencystats_section,
        "Cluster": cluster_section,
        "Keyspace": keyspace_section,
    },
    detailed=("commandstats", "latencystats"),
)


def sentinel_report(sentinel_section: Section) -> Report:
    """What INFO of a sentinel says, whose own section is given; the answer is a plain string under both protocols."""
    return Report(
        {
            "Server": server_section,
            "Clients": clients_section,
            "Stats": stats_section,
            "CPU": cpu_section,
            "Sentinel": sentinel_section,
        }
    )


@commands("info")
def info(node: Server, session: Session, args: list[bytes]) -> Reply:
    return Text(NODE_REPORT.of(node, args[1:]))
