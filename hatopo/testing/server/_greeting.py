"""What a connection says of itself: PING, HELLO, AUTH, SELECT, RESET, QUIT."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hatopo.testing._reply import OK, ErrorReply, Reply, Status
from hatopo.testing.server._handlers import Handlers, integer, text

if TYPE_CHECKING:
    from hatopo.testing.server._server import Server
    from hatopo.testing.server._session import Session

commands = Handlers()

WRONG_PASSWORD = "WRONGPASS invalid username-password pair or user is disabled."
NO_PASSWORD_SET = (
    "ERR AUTH <password> called without any password configured for the default user. "
    "Are you sure your configuration is correct?"
)
HELLO_FIRST = (
    "NOAUTH HELLO must be called with the client already authenticated, otherwise the HELLO AUTH <user> <pass> "
    "option can be used to authenticate the client and select the RESP protocol version at the same time"
)


@commands("ping")
def ping(server: Server, session: Session, args: list[bytes]) -> Reply:
    if len(args) > 2:
        raise ErrorReply("ERR wrong number of arguments for 'ping' command")
    if session.subscriptions and session.protocol == 2:
        return [b"pong", args[1] if len(args) == 2 else b""]
    return args[1] if len(args) == 2 else Status("PONG")


@commands("echo")
def echo(server: Server, session: Session, args: list[bytes]) -> Reply:
    return args[1]


@commands("quit")
def leave(server: Server, session: Session, args: list[bytes]) -> Reply:
    session.closing = True
    return OK


def log_in(server: Server, session: Session, name: bytes, password: bytes, said: bytes) -> None:
    """Make the session that of a user; ErrorReply where name or password are wrong."""
    user = server.accounts.authenticate(text(name), text(password))
    if user is None:
        server.accounts.note_failed_login(text(name), server.describe(session), text(said))
        raise ErrorReply(WRONG_PASSWORD)
    session.user = user
    session.update_guard()


@commands("auth")
def auth(server: Server, session: Session, args: list[bytes]) -> Reply:
    if len(args) > 3:
        raise ErrorReply("ERR syntax error")
    if len(args) == 2 and server.accounts.default.nopass:
        raise ErrorReply(NO_PASSWORD_SET)
    name = args[1] if len(args) == 3 else b"default"
    log_in(server, session, name, args[-1], args[0])
    return OK


@commands("hello")
def hello(server: Server, session: Session, args: list[bytes]) -> Reply:
    protocol = session.protocol
    if len(args) > 1:
        protocol = integer(args[1], "ERR Protocol version is not an integer or out of range")
        if protocol not in (2, 3):
            raise ErrorReply("NOPROTO unsupported protocol version")
    rest, login, name = [*args[2:]], None, None
    while rest:
        word = rest.pop(0)
        option = word.lower()
        if option == b"auth" and len(rest) >= 2:
            login = (rest.pop(0), rest.pop(0))
        elif option == b"setname" and rest:
            name = checked_name(rest.pop(0))
        else:
            raise ErrorReply(f"ERR Syntax error in HELLO option '{text(word)}'")
    if login is not None:
        log_in(server, session, *login, args[0])
    if session.user is None:
        raise ErrorReply(HELLO_FIRST)
    if name is not None:
        session.name = name
    session.protocol = protocol
    if session.engine is not None:
        session.engine.protocol = protocol
    session.update_guard()
    found: dict[Reply, Reply] = {
        "server": "redis",
        "version": server.version,
        "proto": protocol,
        "id": session.id,
        "mode": server.mode,
    }
    if server.mode != "sentinel":
        found["role"] = server.role_name()
    return {**found, "modules": []}


def checked_name(name: bytes) -> bytes:
    """A client's name, which has no spaces."""
    if any(sign < 33 or sign > 126 for sign in name):
        raise ErrorReply("ERR Client names cannot contain spaces, newlines or special characters.")
    return name


@commands("reset")
def reset(server: Server, session: Session, args: list[bytes]) -> Reply:
    server.reset_session(session)
    return Status("RESET")


@commands("command", "command|count", "command|info", "command|docs", "command|list")
@commands("command|getkeys", "command|getkeysandflags")
def command(server: Server, session: Session, args: list[bytes]) -> Reply:
    return server.describe_commands(args)


@commands("acl|setuser", "acl|getuser", "acl|deluser", "acl|list", "acl|users", "acl|whoami", "acl|cat")
@commands("acl|genpass", "acl|log", "acl|dryrun", "acl|load", "acl|save")
def acl(server: Server, session: Session, args: list[bytes]) -> Reply:
    assert session.user is not None
    return server.accounts.execute(args, session.user)
