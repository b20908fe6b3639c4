"""Forks while threads of the parent are in the middle of calls; parent and children share one client.

Prints "ok" if every child opened a connection of its own and the parent kept its own, all with right values.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import signal
import sys
import threading
import traceback
import warnings

import hatopo

CHILDREN, THREADS = 10, 4


def child(client: hatopo.Redis, inherited: set[int]) -> None:
    """Ends the process: 0 if all is well."""
    signal.alarm(20)  # a lock that was held during the fork would hang it for ever
    status = 1
    try:
        mine = client.client_id()
        assert mine not in inherited, f"connection {mine} is the parent's"
        for number in range(50):
            key = f"{os.getpid()}-{number}"
            assert client.set(key, key) is True
            assert client.get(key) == key.encode()
        assert client.client_id() == mine
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def keep_busy(client: hatopo.Redis, stop: threading.Event, failed: list[str], name: str) -> None:
    """Counts, because a call that is not repeated shows a connection that somebody else has ended."""
    try:
        for number in itertools.count(1):
            assert client.incr(name) == number
            if stop.is_set():
                return
    except BaseException as error:
        failed.append(repr(error))


def main(port: int) -> None:
    # The very thing that Python 3.12 warns of is under test.
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
    client = hatopo.standalone("127.0.0.1", port, client_name="forking")
    stop, failed = threading.Event(), list[str]()
    threads = [
        threading.Thread(target=keep_busy, args=(client, stop, failed, f"thread{number}")) for number in range(THREADS)
    ]
    with contextlib.ExitStack() as stack:
        for thread in threads:
            thread.start()
            stack.callback(thread.join)
        stack.callback(stop.set)
        for _ in range(CHILDREN):
            fork_one(client)
    before = client.client_id()
    fork_one(client)
    assert client.client_id() == before, "the parent lost its connection"
    assert not failed, failed
    client.close()
    print("ok")


def fork_one(client: hatopo.Redis) -> None:
    inherited = {int(entry["id"]) for entry in client.client_list() if entry["name"] == "forking"}
    pid = os.fork()
    if pid == 0:
        child(client, inherited)
    for number in range(20):
        assert client.set("parent", number) is True
        assert client.get("parent") == b"%d" % number
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"a child ended with {status}"


if __name__ == "__main__":
    main(int(sys.argv[1]))
