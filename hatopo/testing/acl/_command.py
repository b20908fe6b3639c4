"""The ACL command: decides what its subcommands answer, and keeps the log of what was denied.

Changes of users are those of `Accounts`; this only reads the request and words the answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hatopo.testing._reply import OK, ErrorReply, Members, Reply
from hatopo.testing.acl._rules import as_text, describe_channels, describe_commands, describe_keys
from hatopo.testing.commands import CATEGORIES
from hatopo.testing.server._handlers import integer

if TYPE_CHECKING:
    from hatopo.testing.acl._accounts import Accounts, User
    from hatopo.testing.acl._rules import Catalogue, Selector

NO_FILE = (
    "ERR This Redis instance is not configured to use an ACL file. You may want to specify users via the ACL SETUSER "
    "command and then issue a CONFIG REWRITE (assuming you have a Redis configuration file set) in order to store "
    "users in the Redis configuration."
)
MOST_BITS = 4096
MOST_WORDS = {"cat": 3, "genpass": 3, "log": 3}
"""Subcommands of which the table of commands knows no upper limit, though they have one."""


def acl_command(accounts: Accounts, args: Sequence[bytes], asking: User) -> Reply:
    """Answer ACL, the subcommand of which exists and has enough arguments."""
    word = as_text(args[1])
    subcommand = word.lower()
    if len(args) > MOST_WORDS.get(subcommand, len(args)):
        raise ErrorReply(
            f"ERR unknown subcommand or wrong number of arguments for '{word[:128]}'. "
            f"Try {as_text(args[0]).upper()} HELP."
        )
    if subcommand == "whoami":
        return asking.name
    return _SUBCOMMANDS[subcommand](accounts, args[2:])


def _set_user(accounts: Accounts, args: Sequence[bytes]) -> Reply:
    accounts.set_user(as_text(args[0]), [as_text(rule) for rule in args[1:]])
    return OK


def _remove_users(accounts: Accounts, args: Sequence[bytes]) -> Reply:
    return accounts.remove([as_text(name) for name in args])


def _list_lines(accounts: Accounts, args: Sequence[bytes]) -> Reply:
    return accounts.lines()


def _list_names(accounts: Accounts, args: Sequence[bytes]) -> Reply:
    return [user.name for user in accounts.users]


def _get_user(accounts: Accounts, args: Sequence[bytes]) -> Reply:
    user = accounts.get(as_text(args[0]))
    if user is None:
        return None
    rights, catalogue = user.rights, accounts.catalogue
    return {
        "flags": Members(rights.flags),
        "passwords": rights.passwords,
        **_fields(rights.root, catalogue),
        "selectors": [_fields(one, catalogue) for one in rights.selectors],
    }


def _fields(selector: Selector, catalogue: Catalogue) -> dict[Reply, Reply]:
    return {
        "commands": describe_commands(selector, catalogue),
        "keys": describe_keys(selector),
        "channels": describe_channels(selector),
    }


def _categories(accounts: Accounts, args: Sequence[bytes]) -> Reply:
    if not args:
        return CATEGORIES
    category = as_text(args[0])
    if category.lower() not in CATEGORIES:
        raise ErrorReply(f"ERR Unknown category '{category[:128]}'")
    members = accounts.catalogue.members[category.lower()]
    return [name for name in accounts.catalogue.commands if name in members]


def _make_password(accounts: Accounts, args: Sequence[bytes]) -> Reply:
    bits = integer(args[0]) if args else 256
    if not 0 < bits <= MOST_BITS:
        raise ErrorReply(
            "ERR ACL GENPASS argument must be the number of bits for the output password, "
            f"a positive number up to {MOST_BITS}"
        )
    digits = (bits + 3) // 4
    return f"{accounts.rng.getrandbits(4 * digits):0{digits}x}"


def _log(accounts: Accounts, args: Sequence[bytes]) -> Reply:
    if args and args[0].lower() == b"reset":
        accounts.log.clear()
        return OK
    return accounts.log.newest(max(0, integer(args[0])) if args else 10)


def _dry_run(accounts: Accounts, args: Sequence[bytes]) -> Reply:
    user = accounts.get(as_text(args[0]))
    if user is None:
        raise ErrorReply(f"ERR User '{as_text(args[0])}' not found")
    request = args[1:]
    command = accounts.catalogue.lookup(request)
    if command is None:
        raise ErrorReply(f"ERR Command '{as_text(request[0])}' not found")
    if len(request) != command.arity and (command.arity > 0 or len(request) < -command.arity):
        raise ErrorReply(f"ERR wrong number of arguments for '{command.name}' command")
    denied = accounts.why_denied(user, command, request)
    if denied is None:
        return OK
    subject = f"the '{as_text(denied.subject)}'"
    what = f"run {subject} command" if denied.reason == "command" else f"access {subject} {denied.reason}"
    return f"This user has no permissions to {what}"


def _no_file(accounts: Accounts, args: Sequence[bytes]) -> Reply:
    raise ErrorReply(NO_FILE)


_SUBCOMMANDS: dict[str, Callable[[Accounts, Sequence[bytes]], Reply]] = {
    "setuser": _set_user,
    "deluser": _remove_users,
    "getuser": _get_user,
    "list": _list_lines,
    "users": _list_names,
    "cat": _categories,
    "genpass": _make_password,
    "log": _log,
    "dryrun": _dry_run,
    "load": _no_file,
    "save": _no_file,
}


@dataclass(slots=True)
class _Entry:
    """Denials of the same kind, shortly after each other."""

    what: tuple[str, str, str, str]
    at: int
    client: str
    count: int = 1


class DenialLog:
    """What ACL LOG shows; `limit` is acllog-max-len."""

    SAME_WITHIN = 60_000
    LOOKED_AT = 10

    def __init__(self, now: Callable[[], float]) -> None:
        self.limit = 128
        self._now = now
        self._entries: list[_Entry] = []

    def note(self, reason: str, context: str, subject: str, user: str, client: str) -> None:
        """Add an entry, or count it with a recent one that says the same."""
        what, at = (reason, context, subject, user), self._milliseconds()
        entry = _Entry(what, at, client)
        for index, known in enumerate(self._entries[: self.LOOKED_AT]):
            if known.what == what and abs(at - known.at) <= self.SAME_WITHIN:
                entry.count += self._entries.pop(index).count
                break
        self._entries.insert(0, entry)
        del self._entries[self.limit :]

    def clear(self) -> None:
        """Forget all entries."""
        self._entries.clear()

    def newest(self, count: int) -> Reply:
        """The last entries, the newest first."""
        now = self._milliseconds()
        return [
            {
                "count": entry.count,
                **dict(zip(("reason", "context", "object", "username"), entry.what, strict=True)),
                "age-seconds": (now - entry.at) / 1000,
                "client-info": entry.client,
            }
            for entry in self._entries[:count]
        ]

    def _milliseconds(self) -> int:
        return int(self._now() * 1000)
