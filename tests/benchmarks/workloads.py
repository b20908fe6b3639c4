"""What is measured: each workload takes a client and a number of operations, and returns how many it made.

The floor is the least that Python can do: a socket, hiredis and no features, one connection for each thread.
"""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING, Any

import hiredis

if TYPE_CHECKING:
    from collections.abc import Callable

KEYS = [f"user:{number}:profile" for number in range(100)]
VALUE = "v" * 64
BATCH = 100


class Floor:
    """GET, SET, INCR and batches of GET over a bare socket."""

    def __init__(self, host: str, port: int) -> None:
        self._address = (host, port)
        self._local = threading.local()
        self._sockets: list[socket.socket] = []

    def _line(self) -> tuple[socket.socket, Any]:
        try:
            return self._local.line  # type: ignore[no-any-return]
        except AttributeError:
            sock = socket.create_connection(self._address, timeout=5)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._sockets.append(sock)
            self._local.line = line = (sock, hiredis.Reader())
            return line

    def call(self, words: tuple[Any, ...]) -> Any:
        sock, reader = self._line()
        sock.sendall(hiredis.pack_command(words))
        reader.feed(sock.recv(65536))
        return reader.gets()

    def get(self, key: str) -> Any:
        return self.call(("GET", key))

    def set(self, key: str, value: str) -> Any:
        return self.call(("SET", key, value))

    def incr(self, key: str) -> Any:
        return self.call(("INCR", key))

    def batch(self, keys: list[str]) -> list[Any]:
        sock, reader = self._line()
        pack: Any = hiredis.pack_command
        sock.sendall(b"".join([pack(("GET", key)) for key in keys]))
        replies: list[Any] = []
        while len(replies) < len(keys):
            reader.feed(sock.recv(65536))
            while (reply := reader.gets()) is not False:
                replies.append(reply)
        return replies

    def close(self) -> None:
        for sock in self._sockets:
            sock.close()


def get(client: Any, n: int) -> int:
    call = client.get
    for number in range(n):
        call(KEYS[number % len(KEYS)])
    return n


def set_(client: Any, n: int) -> int:
    call = client.set
    for number in range(n):
        call(KEYS[number % len(KEYS)], VALUE)
    return n


def incr(client: Any, n: int) -> int:
    call = client.incr
    for _ in range(n):
        call("counter")
    return n


def batches(client: Any, n: int) -> int:
    rounds = max(1, n // 20)  # a batch is cheap for each command, so there are five times as many
    for _ in range(rounds):
        if isinstance(client, Floor):
            client.batch(KEYS)
            continue
        pipeline = client.pipeline(transaction=False)
        for key in KEYS:
            pipeline.get(key)
        pipeline.execute()
    return rounds * BATCH


def in_threads(count: int) -> Callable[[Any, int], int]:
    def work(client: Any, n: int) -> int:
        each = max(1, 2 * n // count)
        threads = [threading.Thread(target=get, args=(client, each)) for _ in range(count)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        return each * count

    return work


WORKLOADS: dict[str, Callable[[Any, int], int]] = {
    "GET, one after another": get,
    "SET, one after another": set_,
    "INCR, one after another": incr,
    "pipeline of 100": batches,
    "GET, 8 threads": in_threads(8),
    "GET, 64 threads": in_threads(64),
}
