"""What a sentinel says of itself: INFO."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from hatopo.testing.sentinel._server import SentinelServer

SECTIONS: Final = ("server", "clients", "stats", "cpu", "sentinel")


def info(sentinel: SentinelServer, wanted: Sequence[str]) -> str:
    """INFO, or some of its sections."""
    everything = not wanted or not {"all", "everything", "default"}.isdisjoint(wanted)
    parts = []
    for section in SECTIONS:
        if everything or section in wanted:
            lines = [f"# {'CPU' if section == 'cpu' else section.capitalize()}", *_WRITERS[section](sentinel)]
            parts.append("".join(f"{line}\r\n" for line in lines))
    return "\r\n".join(parts)


def _lines(fields: Mapping[str, object]) -> list[str]:
    return [f"{name}:{value}" for name, value in fields.items()]


def _server(sentinel: SentinelServer) -> list[str]:
    uptime = int(sentinel.world.now - sentinel.started_at)
    return _lines(
        {
            "redis_version": sentinel.version,
            "redis_git_sha1": "00000000",
            "redis_git_dirty": 0,
            "redis_build_id": "0",
            "redis_mode": sentinel.mode,
            "os": "Linux",
            "arch_bits": 64,
            "monotonic_clock": "POSIX clock_gettime",
            "multiplexing_api": "epoll",
            "atomicvar_api": "c11-builtin",
            "gcc_version": "0.0.0",
            "process_id": os.getpid(),
            "process_supervised": "no",
            "run_id": sentinel.run_id,
            "tcp_port": sentinel.address[1],
            "server_time_usec": int(sentinel.world.now * 1_000_000),
            "uptime_in_seconds": uptime,
            "uptime_in_days": uptime // 86_400,
            "hz": 10,
            "configured_hz": 10,
            "lru_clock": int(sentinel.world.now) & 0xFFFFFF,
            "executable": "redis-sentinel",
            "config_file": "sentinel.conf",
            "io_threads_active": 0,
        }
    )


def _clients(sentinel: SentinelServer) -> list[str]:
    return _lines(
        {
            "connected_clients": len(sentinel.sessions),
            "cluster_connections": 0,
            "maxclients": 10_000,
            "client_recent_max_input_buffer": 0,
            "client_recent_max_output_buffer": 0,
            "blocked_clients": 0,
            "tracking_clients": 0,
            "clients_in_timeout_table": 0,
        }
    )


def _stats(sentinel: SentinelServer) -> list[str]:
    counted = ("total_connections_received", "total_commands_processed")
    fields: dict[str, object] = {name: sentinel.stats[name] for name in counted}
    fields["pubsub_channels"] = len(sentinel.channels["subscribe"])
    fields["pubsub_patterns"] = len(sentinel.channels["psubscribe"])
    fields["pubsubshard_channels"] = len(sentinel.channels["ssubscribe"])
    fields["total_error_replies"] = sentinel.stats["total_error_replies"]
    return _lines(fields)


def _cpu(sentinel: SentinelServer) -> list[str]:
    names = ("sys", "user", "sys_children", "user_children", "sys_main_thread", "user_main_thread")
    return [f"used_cpu_{name}:0.000000" for name in names]


def _sentinel(sentinel: SentinelServer) -> list[str]:
    failures = sum(
        bit for bit, name in ((1, "crash-after-election"), (2, "crash-after-promotion")) if name in sentinel.failures
    )
    tilt_for = (sentinel.moment - sentinel.tilt_since) // 1000 if sentinel.tilt else -1
    fields: dict[str, object] = {
        "sentinel_masters": len(sentinel.masters),
        "sentinel_tilt": int(sentinel.tilt),
        "sentinel_tilt_since_seconds": tilt_for,
        "sentinel_running_scripts": 0,
        "sentinel_scripts_queue_length": 0,
        "sentinel_simulate_failure_flags": failures,
    }
    for number, master in enumerate(sentinel.masters.values()):
        status = "odown" if master.o_down else "sdown" if master.s_down else "ok"
        host, port = sentinel.shown_address(master)
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        fields[f"master{number}"] = (
            f"name={master.name},status={status},address={shown},"
            f"slaves={len(master.replicas)},sentinels={len(master.sentinels) + 1}"
        )
    return _lines(fields)


_WRITERS = {"server": _server, "clients": _clients, "stats": _stats, "cpu": _cpu, "sentinel": _sentinel}
