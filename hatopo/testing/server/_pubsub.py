"""Publish and subscribe: the commands. Who hears what is kept by the server; how a replica hears it, by the node."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatopo.testing._glob import matches
from hatopo.testing._reply import NO_REPLY, Reply
from hatopo.testing.server._client_commands import wrong_form
from hatopo.testing.server._handlers import Handlers

if TYPE_CHECKING:
    from hatopo.testing.server._server import Server
    from hatopo.testing.server._session import Session

commands = Handlers()


def _count(session: Session, command: str) -> int:
    """What a confirmation counts: channels and patterns together, channels of shards apart."""
    if command == "ssubscribe":
        return len(session.channels[command])
    return len(session.channels["subscribe"]) + len(session.channels["psubscribe"])


@commands("subscribe", "psubscribe", "ssubscribe")
def subscribe(server: Server, session: Session, args: list[bytes]) -> Reply:
    name = args[0].decode().lower()
    for channel in args[1:]:
        server.channels.subscribe(session, name, channel)
        session.push(name.encode(), channel, _count(session, name))
    session.update_guard()
    return NO_REPLY


@commands("unsubscribe", "punsubscribe", "sunsubscribe")
def unsubscribe(server: Server, session: Session, args: list[bytes]) -> Reply:
    name = args[0].decode().lower()
    command = name.replace("unsub", "sub", 1)
    channels: list[bytes | None] = [*(args[1:] or sorted(session.channels[command]))]
    for channel in channels or [None]:
        if channel is not None:
            server.channels.unsubscribe(session, command, channel)
        session.push(name.encode(), channel, _count(session, command))
    session.update_guard()
    return NO_REPLY


@commands("publish")
def publish(server: Server, session: Session, args: list[bytes]) -> Reply:
    return server.publish_from(session, args[1], args[2], "message")


@commands("spublish")
def spublish(server: Server, session: Session, args: list[bytes]) -> Reply:
    return server.publish_from(session, args[1], args[2], "smessage")


@commands("pubsub|channels", "pubsub|shardchannels")
def channels(server: Server, session: Session, args: list[bytes]) -> Reply:
    if len(args) > 3:
        raise wrong_form(args)
    kind = "ssubscribe" if args[1].lower().startswith(b"shard") else "subscribe"
    found = [*server.channels[kind]]
    return [one for one in found if len(args) < 3 or matches(args[2], one)]


@commands("pubsub|numsub", "pubsub|shardnumsub")
def numsub(server: Server, session: Session, args: list[bytes]) -> Reply:
    kind = "ssubscribe" if args[1].lower().startswith(b"shard") else "subscribe"
    reply: list[Reply] = []
    for channel in args[2:]:
        reply += [channel, len(server.channels[kind].get(channel, ()))]
    return reply


@commands("pubsub|numpat")
def numpat(server: Server, session: Session, args: list[bytes]) -> Reply:
    return len(server.channels["psubscribe"])
