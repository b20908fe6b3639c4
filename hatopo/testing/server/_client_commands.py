"""CLIENT: what clients are connected, how they are shown, and how one of them ends, holds back or wakes others.

Serves data nodes and sentinels: it knows sessions, and nothing of data. Tracking of keys does not exist; switching it
on is refused, for a client would believe what it has cached.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from hatopo.testing._reply import NO_REPLY, OK, ErrorReply, Members, Reply, Text
from hatopo.testing.node._config import SYNTAX_ERROR
from hatopo.testing.server._greeting import checked_name
from hatopo.testing.server._handlers import Handlers, integer, text

if TYPE_CHECKING:
    from hatopo.testing.server._server import Server
    from hatopo.testing.server._session import Session

commands = Handlers()

UNBLOCKED = "UNBLOCKED client unblocked via CLIENT UNBLOCK"
NO_TRACKING = "ERR the embedded server does not track keys: CLIENT TRACKING cannot be switched on"
NOT_TRACKING = (
    "ERR CLIENT CACHING can be called only when the client is in tracking mode with OPTIN or OPTOUT mode enabled"
)
TYPES = {"normal": "normal", "slave": "replica", "replica": "replica", "pubsub": "pubsub", "master": "master"}


def address_of(session: Session) -> str:
    """Where a client connects from, as CLIENT KILL spells it."""
    return f"{session.address[0]}:{session.address[1]}"


def flags_of(session: Session) -> str:
    """The letters that say what state a client is in."""
    monitors = session in session.server.monitors
    states = (
        ("O", monitors),
        ("S", session.kind == "replica"),
        ("M", session.kind == "master"),
        ("P", session.subscriptions > 0),
        ("x", session.queue is not None),
        ("b", session.blocked is not None),
        ("d", session.watch_failed),
        ("c", session.closing),
        ("e", "no-evict" in session.extras),
    )
    return "".join(sign for sign, holds in states if holds) or "N"


def describe(session: Session, asking: Session | None = None) -> str:
    """A line of CLIENT LIST, without its end; `asking` is the client that wants to know, which has just written."""
    now, server = session.server.world.data_now, session.server
    channels = session.channels
    fields: dict[str, Any] = {
        "id": session.id,
        "addr": address_of(session),
        "laddr": f"{server.address[0]}:{server.address[1]}",
        "fd": session.id + 7,
        "name": text(session.name),
        "age": int(now - session.created),
        "idle": int(now - session.active),
        "flags": flags_of(session),
        "db": session.engine.db if session.engine is not None else 0,
        "sub": len(channels["subscribe"]),
        "psub": len(channels["psubscribe"]),
        "ssub": len(channels["ssubscribe"]),
        "multi": -1 if session.queue is None else len(session.queue),
        "qbuf": 26 if session is asking else 0,
        "qbuf-free": 20448 if session is asking else 0,
        "argv-mem": 10 if session is asking else 0,
        "multi-mem": sum(len(word) for _, args in session.queue or () for word in args),
        "rbs": 1024,
        "rbp": 0,
        "obl": 0,
        "oll": 0,
        "omem": 0,
        "tot-mem": 22298 if session is asking else 1800,
        "events": "r",
        "cmd": session.last_command,
        "user": session.user.name if session.user is not None else "default",
        "redir": -1,
        "resp": session.protocol,
    }
    return " ".join(f"{name}={value}" for name, value in fields.items())


def listing(sessions: list[Session], asking: Session) -> Text:
    """Lines of CLIENT LIST."""
    return Text("".join(f"{describe(session, asking)}\n" for session in sessions))


def type_named(word: bytes) -> str:
    """The type of clients that a word means."""
    try:
        return TYPES[text(word).lower()]
    except KeyError:
        raise ErrorReply(f"ERR Unknown client type '{text(word)}'") from None


def wrong_form(args: list[bytes]) -> ErrorReply:
    """The error for words that no form of a subcommand has."""
    container = text(args[0]).upper()
    return ErrorReply(
        f"ERR unknown subcommand or wrong number of arguments for '{text(args[1])[:128]}'. Try {container} HELP."
    )


@commands("client|id")
def client_id(server: Server, session: Session, args: list[bytes]) -> Reply:
    return session.id


@commands("client|info")
def client_info(server: Server, session: Session, args: list[bytes]) -> Reply:
    return listing([session], session)


@commands("client|list")
def client_list(server: Server, session: Session, args: list[bytes]) -> Reply:
    option = args[2].lower() if len(args) > 2 else b""
    found = [*server.sessions.values()]
    if option == b"type" and len(args) == 4:
        wanted = type_named(args[3])
        found = [one for one in found if one.type_name == wanted]
    elif option == b"id" and len(args) > 3:
        numbers = [integer(word, "ERR Invalid client ID") for word in args[3:]]
        found = [server.sessions[number] for number in numbers if number in server.sessions]
    elif len(args) > 2:
        raise ErrorReply(SYNTAX_ERROR)
    return listing(found, session)


@commands("client|getname")
def client_getname(server: Server, session: Session, args: list[bytes]) -> Reply:
    return session.name or None


@commands("client|setname")
def client_setname(server: Server, session: Session, args: list[bytes]) -> Reply:
    session.name = checked_name(args[2])
    return OK


def _kill_filters(server: Server, args: list[bytes]) -> dict[str, Any]:
    """What CLIENT KILL is told of its victims; ErrorReply where it makes no sense."""
    filters: dict[str, Any] = {"skipme": True}
    for word, value in zip(args[::2], args[1::2], strict=False):
        option = text(word).lower()
        if option == "id":
            filters["id"] = integer(value, "ERR client-id should be greater than 0")
            if filters["id"] < 1:
                raise ErrorReply("ERR client-id should be greater than 0")
        elif option == "type":
            filters["type"] = type_named(value)
        elif option in ("addr", "laddr"):
            filters[option] = text(value)
        elif option == "user":
            if server.accounts.get(text(value)) is None:
                raise ErrorReply(f"ERR No such user '{text(value)}'")
            filters["user"] = text(value)
        elif option == "skipme" and value.lower() in (b"yes", b"no"):
            filters["skipme"] = value.lower() == b"yes"
        else:
            raise ErrorReply(SYNTAX_ERROR)
    if len(args) % 2:
        raise ErrorReply(SYNTAX_ERROR)
    return filters


def _fits(server: Server, session: Session, filters: dict[str, Any]) -> bool:
    traits = {
        "id": session.id,
        "type": session.type_name,
        "addr": address_of(session),
        "laddr": f"{server.address[0]}:{server.address[1]}",
        "user": session.user.name if session.user is not None else "default",
    }
    return all(traits[name] == wanted for name, wanted in filters.items() if name != "skipme")


@commands("client|kill")
def client_kill(server: Any, session: Session, args: list[bytes]) -> Reply:
    old_form = len(args) == 3
    filters = {"skipme": False, "addr": text(args[2])} if old_form else _kill_filters(server, args[2:])
    killed = 0
    for one in [*server.sessions.values()]:
        if not _fits(server, one, filters) or (one is session and filters["skipme"]):
            continue
        killed += 1
        if one is session:
            session.closing = True
        else:
            one.close("killed by CLIENT KILL")
    if filters == {"skipme": True, "type": "master"} and hasattr(server, "replication"):
        killed += server.replication.break_link()  # a replica's link to its master is no session of its own
    if not old_form:
        return killed
    if not killed:
        raise ErrorReply("ERR No such client")
    return OK


@commands("client|pause")
def client_pause(server: Server, session: Session, args: list[bytes]) -> Reply:
    if len(args) > 4:
        raise wrong_form(args)
    mode = args[3].lower() if len(args) == 4 else b"all"
    if mode not in (b"write", b"all"):
        raise ErrorReply("ERR CLIENT PAUSE mode must be WRITE or ALL")
    milliseconds = integer(args[2], "ERR timeout is not an integer or out of range")
    if milliseconds < 0:
        raise ErrorReply("ERR timeout is negative")
    server.pause_clients(milliseconds / 1000, everything=mode == b"all")
    return OK


@commands("client|unpause")
def client_unpause(server: Server, session: Session, args: list[bytes]) -> Reply:
    server.unpause_clients()
    return OK


@commands("client|unblock")
def client_unblock(server: Any, session: Session, args: list[bytes]) -> Reply:
    if len(args) > 4:
        raise wrong_form(args)
    reason = args[3].lower() if len(args) == 4 else b"timeout"
    if reason not in (b"timeout", b"error"):
        raise ErrorReply("ERR CLIENT UNBLOCK reason should be TIMEOUT or ERROR")
    target = server.sessions.get(integer(args[2]))
    if target is None or target.blocked is None:
        return 0
    reply = target.blocked.expired() if reason == b"timeout" else ErrorReply(UNBLOCKED)
    if isinstance(reply, ErrorReply):
        server.count_error(reply)
    server.waiters.unblock(target, reply)
    return 1


@commands("client|reply")
def client_reply(server: Server, session: Session, args: list[bytes]) -> Reply:
    mode = args[2].lower()
    if mode == b"on":
        session.replies, session.skipping = True, 0
    elif mode == b"off":
        session.replies = False
    elif mode == b"skip":
        session.skipping = 2 if session.replies else 0
    else:
        raise ErrorReply(SYNTAX_ERROR)
    session.update_guard()
    return OK if mode == b"on" else NO_REPLY


@commands("client|no-evict")
def client_no_evict(server: Server, session: Session, args: list[bytes]) -> Reply:
    mode = args[2].lower()
    if mode not in (b"on", b"off"):
        raise ErrorReply(SYNTAX_ERROR)
    session.extras.pop("no-evict", None)
    if mode == b"on":
        session.extras["no-evict"] = True
    return OK


@commands("client|tracking")
def client_tracking(server: Server, session: Session, args: list[bytes]) -> Reply:
    if args[2].lower() not in (b"on", b"off"):
        raise ErrorReply(SYNTAX_ERROR)
    if args[2].lower() == b"on":
        raise ErrorReply(NO_TRACKING)
    return OK


@commands("client|trackinginfo")
def client_trackinginfo(server: Server, session: Session, args: list[bytes]) -> Reply:
    return {"flags": Members(["off"]), "redirect": -1, "prefixes": []}


@commands("client|caching")
def client_caching(server: Server, session: Session, args: list[bytes]) -> Reply:
    raise ErrorReply(NOT_TRACKING)


@commands("client|getredir")
def client_getredir(server: Server, session: Session, args: list[bytes]) -> Reply:
    return -1
