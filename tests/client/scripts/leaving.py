"""Ends without closing its client: while it is idle, pinned, or waiting in a daemon thread for ever."""

from __future__ import annotations

import sys
import threading

import hatopo


def wait_for_ever(client: hatopo.Redis) -> None:
    client.blpop("a-queue-that-stays-empty", 0)


def main(port: int, how: str) -> None:
    client = hatopo.standalone("127.0.0.1", port, client_name="leaving")
    client.set("key", "value")
    if how == "blocked":
        threading.Thread(target=wait_for_ever, args=(client,), daemon=True).start()
        while not any(entry["cmd"] == "blpop" for entry in client.client_list()):
            pass
    elif how == "pinned":
        main.pinned = client.client()  # type: ignore[attr-defined]
        main.pinned.get("key")  # type: ignore[attr-defined]
        main.pubsub = client.pubsub()  # type: ignore[attr-defined]
        main.pubsub.subscribe("channel")  # type: ignore[attr-defined]
    print("ok")


if __name__ == "__main__":
    main(int(sys.argv[1]), sys.argv[2])
