"""What the client tests share: a client of a scripted server, ways to call it, and programs run beside a test."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hatopo
from tests.control import eventually
from tests.faulty import FaultyServer
from tests.tinyredis import encode

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
COUNT = "INCRBY"  # what redis-py's `incr()` sends


@contextlib.contextmanager
def client_of(fake: FaultyServer, **options: Any) -> Iterator[hatopo.Redis]:
    """A client of the scripted server, closed afterwards; options as of `hatopo.standalone`."""
    options = {"socket_timeout": 5.0, "failover_timeout": 5.0, **options}
    client = hatopo.standalone("127.0.0.1", fake.port, **options)
    try:
        yield client
    finally:
        client.close()


def value_of(key: str) -> bytes:
    """The value that a test stores under a key, so that a reply betrays whose it is."""
    return f"the value of {key}".encode()


def reply_size(says: Any, **options: Any) -> int:
    """The bytes of a reply in the protocol that a client with these options speaks."""
    with FaultyServer() as fake, client_of(fake, **options) as client:
        client.ping()
        return len(encode(says, 3 if fake.executed["HELLO"] else 2))


def batch(client: hatopo.Redis, transaction: bool = False) -> Any:
    """A pipeline, untyped: redis-py's annotations know nothing of chained calls."""
    return client.pipeline(transaction=transaction)


def execute(client: hatopo.Redis, *words: str | int) -> Any:
    """A command by its words."""
    untyped: Any = client
    return untyped.execute_command(*words)


def wait_until_fit(client: hatopo.Redis, count: int) -> None:
    """Returns when the client takes its `count` nodes for fit: before that it may read where the policy would not."""
    client.using(read_from="replica_preferred").get("k")  # from now on they are asked
    eventually(lambda: [bool(one.refused) for one in client.nodes()] == [False] * count)


def run_script(
    script: str, *args: object, launcher: tuple[str, ...] = (), port: int = 0, says: str | None = "ok\n"
) -> str:
    """Runs a program of tests/client/scripts, which must say just this (None: anything) and nothing on stderr."""
    path = ROOT / "tests" / "client" / "scripts" / f"{script}.py"
    ended = subprocess.run(
        [sys.executable, *launcher, str(path), *map(str, args)],
        env={**os.environ, "PYTHONPATH": str(ROOT), "TEST_PORT": str(port)},
        capture_output=True,
        text=True,
        timeout=110,
        check=False,
    )
    said = ended.stdout if says is None else says
    ending = f"{script} ended with {ended.returncode}\n{ended.stdout}{ended.stderr}"
    assert (ended.stdout, ended.stderr, ended.returncode) == (said, "", 0), ending
    return ended.stdout
