"""Forks with a client that was used before, and counts in both processes until the key "end" appears.

Says "forked", then "parent followed", and "ok" once the child has seen the key, too. The test changes the master in
between and writes the key to the new one only.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
import warnings

import hatopo


def follow(client: hatopo.Redis, name: str) -> None:
    """Counts until the key is there; an increment may have been executed or not when the master changes."""
    while not client.exists("end"):
        with contextlib.suppress(hatopo.AmbiguousResultError):
            client.incr(name)
        time.sleep(0.005)
    client.incr(name)


def main(sentinels: list[str]) -> None:
    # The very thing that Python 3.12 warns of is under test.
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
    signal.alarm(100)
    client = hatopo.sentinel("mymaster", sentinels)
    client.incr("parent")
    pid = os.fork()
    if pid == 0:
        status = 1
        signal.alarm(100)
        try:
            follow(client, "child")
            status = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stderr.flush()
            os._exit(status)
    print("forked", flush=True)
    follow(client, "parent")
    print("parent followed", flush=True)
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child ended with {status}"
    client.close()
    print("ok", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
