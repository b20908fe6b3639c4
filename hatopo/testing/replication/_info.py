"""What a node says of its replication: the section of INFO, and ROLE. Decides nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hatopo.testing._reply import Reply
    from hatopo.testing.node._node import DataNode


def info(node: DataNode) -> list[str]:
    """The lines of INFO replication, without the headline."""
    replication = node.replication
    history, followers, now, config = replication.history, replication.followers, node.world.now, node.config
    lines = [f"role:{'slave' if replication.is_replica else 'master'}"]
    if replication.is_replica:
        lines += _about_master(node)
    lines.append(f"connected_slaves:{len(followers)}")
    if config.min_replicas_to_write and config.min_replicas_max_lag:
        lines.append(f"min_slaves_good_slaves:{followers.good(config.min_replicas_max_lag)}")
    for number, one in enumerate(followers):
        ip, port = one.address
        lines.append(f"slave{number}:ip={ip},port={port},state={one.state},offset={one.acked},lag={one.lag(now)}")
    return [
        *lines,
        f"master_failover_state:{replication.failover.state or 'no-failover'}",
        f"master_replid:{history.id}",
        f"master_replid2:{history.second_id}",
        f"master_repl_offset:{history.offset}",
        f"second_repl_offset:{history.second_offset}",
        f"repl_backlog_active:{int(history.active)}",
        f"repl_backlog_size:{config.get('repl-backlog-size')}",
        f"repl_backlog_first_byte_offset:{history.first}",
        f"repl_backlog_histlen:{history.length}",
    ]


def _about_master(node: DataNode) -> list[str]:
    """What a replica says of its link."""
    replication, upstream, now = node.replication, node.replication.upstream, int(node.world.now)
    assert upstream.address is not None
    host, port = upstream.address
    up, syncing = replication.link_up, upstream.state == "sync"
    known = upstream.known and (up or not node.loading)  # while it reads its data, it does not know how far they go
    lines = [
        f"master_host:{host}",
        f"master_port:{port}",
        f"master_link_status:{'up' if up else 'down'}",
        f"master_last_io_seconds_ago:{now - int(upstream.last_io) if up else -1}",
        f"master_sync_in_progress:{int(syncing)}",
        f"slave_read_repl_offset:{upstream.received if known else 1}",
        f"slave_repl_offset:{replication.history.offset if known else 1}",
    ]
    if syncing:
        lines += [
            "master_sync_total_bytes:0",
            "master_sync_read_bytes:0",
            "master_sync_left_bytes:0",
            "master_sync_perc:0.00",
            f"master_sync_last_io_seconds_ago:{now - int(upstream.heard)}",
        ]
    if not up:
        down = upstream.down_since
        lines.append(f"master_link_down_since_seconds:{-1 if down is None else now - int(down)}")
    return [
        *lines,
        f"slave_priority:{node.config.replica_priority}",
        f"slave_read_only:{int(node.config.replica_read_only)}",
        f"replica_announced:{int(node.config.replica_announced)}",
    ]


def role(node: DataNode) -> Reply:
    """What ROLE answers."""
    replication, upstream = node.replication, node.replication.upstream
    if upstream.address is None:
        followers: list[Reply] = [
            [one.address[0], str(one.address[1]), str(one.acked)] for one in replication.followers.online()
        ]
        return ["master", replication.history.offset, followers]
    host, port = upstream.address
    offset = replication.history.offset if replication.link_up else -1
    return ["slave", host, port, upstream.state, offset]
