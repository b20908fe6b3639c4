"""A module-level client and processes that multiprocessing spawns: each opens connections of its own."""

from __future__ import annotations

import multiprocessing
import os
import sys

import hatopo

client = hatopo.standalone("127.0.0.1", int(os.environ["TEST_PORT"]))


def work(number: int) -> tuple[int, int, object]:
    key = f"spawned{number}"
    client.set(key, key)
    return os.getpid(), client.client_id(), client.get(key)


def main() -> None:
    mine = client.client_id()
    with multiprocessing.get_context("spawn").Pool(2) as pool:
        done = pool.map(work, range(20), chunksize=1)
        pool.close()
        pool.join()
    assert [value for _, _, value in done] == [f"spawned{number}".encode() for number in range(20)]
    connections = {(pid, connection) for pid, connection, _ in done}
    assert len(connections) == len({pid for pid, _ in connections}), connections
    assert mine not in {connection for _, connection in connections}
    assert client.client_id() == mine
    print("ok")


if __name__ == "__main__":
    main()
    sys.exit(0)
