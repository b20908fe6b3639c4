"""Forks with a client that has read from replicas: parent and child go on reading from them, and the child writes.

Arguments: the ports of the master and of its replicas. Says "ok" if both have.
"""

from __future__ import annotations

import os
import signal
import sys
import time
import traceback
import warnings

import hatopo
from hatopo.client import _monitor, _reading

READS = 100


def read(client: hatopo.Redis, replicas: set[int]) -> None:
    """Reads until every replica has answered, which all do before long, and nobody else has."""
    answered: set[int] = set()
    while answered != replicas:
        with hatopo.read_from("replica") as scope:
            for _ in range(READS):
                assert client.get("key") == b"value"
        answered |= {node.port for node in scope.nodes}
        assert answered <= replicas, answered
        time.sleep(0.01)


def main(master: int, *replicas: int) -> None:
    # The very thing that Python 3.12 warns of is under test.
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
    signal.alarm(60)
    _reading.FIRST_LOOK = _monitor.VISIT = _monitor.SHORT_SILENCE = _monitor.LONG_SILENCE = 8.0  # nobody is silent here
    seeds = [("127.0.0.1", port) for port in (master, *replicas)]
    client = hatopo.replicated(seeds, read_from="replica_preferred")
    client.set("key", "value")
    assert client.wait(len(replicas), 5000) == len(replicas)
    read(client, {*replicas})
    pid = os.fork()
    if pid == 0:
        status = 1
        signal.alarm(60)
        try:
            read(client, {*replicas})
            client.set("child", "was here")
            assert len(client.nodes()) == 1 + len(replicas)
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    read(client, {*replicas})
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with {status}"
    read(client, {*replicas})
    client.close()
    print("ok")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
