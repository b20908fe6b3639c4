"""What a sentinel says of itself: its own section of INFO; the others are those of every server."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from hatopo.testing.node._info import sentinel_report

if TYPE_CHECKING:
    from hatopo.testing.sentinel._server import SentinelServer


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
    return [f"{name}:{value}" for name, value in fields.items()]


REPORT: Final = sentinel_report(_sentinel)
