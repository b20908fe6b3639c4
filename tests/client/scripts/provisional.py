"""Forks while a provisional view is in force, which the sentinels never confirm.

Prints "ok" if the child goes back to the master that the sentinels name, by itself, once it has used the client.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import traceback
import warnings
from typing import NoReturn

import hatopo
from hatopo.client import _promotion
from tests.control import eventually
from tests.fakesentinels import Endpoint, World, master_of


def child(client: hatopo.Redis, confirmed: Endpoint) -> NoReturn:
    """Ends the process: 0 if all is well."""
    signal.alarm(30)
    status = 1
    try:
        client.get("k")
        eventually(lambda: master_of(client) == confirmed)
        assert client.set("k", "of the child") is True
        status = 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(status)


def main() -> None:
    # The very thing that Python 3.12 warns of is under test.
    warnings.filterwarnings("ignore", message=".*multi-threaded.*fork", category=DeprecationWarning)
    logging.getLogger("hatopo").addHandler(logging.NullHandler())
    _promotion.CONFIRM_GRACE = 3.0
    with World(down_after=100) as world:
        a, b = world.nodes
        client = world.listening_client()
        b.follow(None)
        world.select(b, by=world.sentinels[0])
        eventually(lambda: master_of(client) == b.address)
        pid = os.fork()
        if pid == 0:
            child(client, a.address)
        _, status = os.waitpid(pid, 0)
        assert status == 0, f"the child ended with {status}"
        eventually(lambda: a.data[b"k"] == b"of the child")
    print("ok")


if __name__ == "__main__":
    main()
