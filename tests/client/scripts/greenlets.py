"""100 greenlets share a client, one of them waiting in BLPOP. Run by `python -m gevent.monkey`."""

from __future__ import annotations

import sys

import gevent
from gevent import monkey

import hatopo


def work(client: hatopo.Redis, name: str) -> None:
    for number in range(20):
        value = f"{name}-{number}".encode()
        assert client.set(name, value) is True
        assert client.get(name) == value
        pipeline = client.pipeline(transaction=False)
        pipeline.get(name)
        pipeline.echo(name)
        assert pipeline.execute() == [value, name.encode()]


def main(port: int) -> None:
    assert monkey.is_module_patched("socket")
    client = hatopo.standalone("127.0.0.1", port)
    waiter = gevent.spawn(client.blpop, "queue", 300)
    workers = [gevent.spawn(work, client, f"greenlet{number}") for number in range(100)]
    gevent.joinall(workers, timeout=85, raise_error=True)
    assert all(worker.successful() for worker in workers)
    assert not waiter.ready(), waiter.get()
    client.rpush("queue", "done")
    assert list(waiter.get(timeout=30)) == [b"queue", b"done"]
    try:
        with gevent.Timeout(0.02):
            client.blpop("queue", 30)
    except gevent.Timeout:
        pass
    client.rpush("queue", "kept")
    assert client.get("greenlet1") == b"greenlet1-19"
    client.close()
    print("ok")


if __name__ == "__main__":
    main(int(sys.argv[1]))
