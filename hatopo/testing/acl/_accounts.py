"""Users: decides who logs in, and what a user may do; knows no session, reads no file, and asks no clock of its own.

A `User` is what sessions hold: it always has the rights in force. What rules mean is decided in `_acl_rules`; the
subcommands of ACL are in `_acl_command`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING

from hatopo.testing._glob import matches
from hatopo.testing._reply import ErrorReply, Reply
from hatopo.testing.acl._command import DenialLog, acl_command
from hatopo.testing.acl._rules import (
    UNKNOWN,
    Catalogue,
    Rights,
    RuleError,
    Selector,
    as_text,
    describe,
    has_spaces,
    hash_of,
    join_selectors,
    with_rule,
    with_rules,
)
from hatopo.testing.commands import find_keys

if TYPE_CHECKING:
    import random

    from hatopo.testing.commands import Command, Key

__all__ = ["Accounts", "Denied", "User", "check"]

SUBSCRIBING = {"subscribe": False, "ssubscribe": False, "psubscribe": True}
"""Commands that hear channels, and whether these are patterns."""
PUBLISHING = {"publish", "spublish"}
WRITING = {"insert", "delete", "update"}
REASONS = ("command", "key", "channel")


class Denied(ErrorReply):
    """NOPERM; `reason` and `subject` are what ACL LOG says of it."""

    def __init__(self, reason: str, command: str, subject: bytes) -> None:
        forbidden = {
            "command": f"run the '{command}' command",
            "key": "access one of the keys used as arguments",
            "channel": "access one of the channels used as arguments",
        }
        super().__init__(f"NOPERM this user has no permissions to {forbidden[reason]}")
        self.reason = reason
        self.command = command
        self.subject = subject

    @property
    def in_script(self) -> str:
        """What a script is told."""
        forbidden = {
            "command": "run this command or subcommand",
            "key": "access at least one of the keys mentioned in the command arguments",
            "channel": "publish to the channel mentioned in the command",
        }
        return f"ERR The user executing the script can't {forbidden[self.reason]}"

    @property
    def at_exec(self) -> str:
        """What stands in the answer of EXEC for a command that had been allowed when it was queued."""
        forbidden = {
            "command": "execute the command or subcommand",
            "key": "touch the specified keys",
            "channel": "access one of the channels used as arguments",
        }
        return (
            "NOPERM ACLs rules changed between the moment the transaction was accumulated and the EXEC call. "
            f"This command is no longer allowed for the following reason: no permission to {forbidden[self.reason]}"
        )


def check(rights: Rights, command: Command, args: Sequence[bytes], keys: Sequence[Key]) -> Denied | None:
    """Why a command is forbidden; None: some selector allows it.

    Of the reasons of several selectors the one that came closest counts, and of its keys or channels the last.
    """
    worst = (0, 0)
    for selector in rights.all_selectors:
        found = _refusal(selector, command, args, keys)
        if found is None:
            return None
        worst = max(worst, found)
    reason = REASONS[worst[0]]
    return Denied(reason, command.name, args[worst[1]] if worst[0] else command.name.encode())


def _refusal(
    selector: Selector, command: Command, args: Sequence[bytes], keys: Sequence[Key]
) -> tuple[int, int] | None:
    """What a selector forbids: the index of the reason, and that of the argument."""
    if command.name not in selector.commands and "no_auth" not in command.flags:
        first = as_text(args[1]).lower() if len(args) > 1 else None
        if all((name, arg.lower()) != (command.name, first) for name, arg in selector.first_args):
            return (0, 0)
    for key in keys:
        if not _may_use(selector, args[key.index], key.flags):
            return (1, key.index)
    channels = range(0)
    if command.name in SUBSCRIBING or command.name in PUBLISHING:
        channels = range(1, len(args) if command.name in SUBSCRIBING else 2)
    for index in channels:
        if not _may_hear(selector, args[index], SUBSCRIBING.get(command.name, False)):
            return (2, index)
    return None


def _may_use(selector: Selector, key: bytes, flags: Iterable[str]) -> bool:
    if selector.all_keys:
        return True
    reads, writes = "access" in flags, not WRITING.isdisjoint(flags)
    return any(
        (one.read or not reads) and (one.write or not writes) and matches(one.pattern, key) for one in selector.keys
    )


def _may_hear(selector: Selector, channel: bytes, pattern: bool) -> bool:
    if selector.all_channels:
        return True
    return channel in selector.channels if pattern else any(matches(one, channel) for one in selector.channels)


# Users


class User:
    """One user, the same object for as long as it exists, also while it is logged in and its rights change.

    `all_powerful`: nothing is forbidden, so that nothing need be checked. `removed`: it exists no longer; who is
    logged in as it is to be disconnected.
    """

    __slots__ = ("all_powerful", "name", "removed", "rights")

    def __init__(self, name: str, rights: Rights, catalogue: Catalogue) -> None:
        self.name = name
        self.removed = False
        self.give(rights, catalogue)

    def give(self, rights: Rights, catalogue: Catalogue) -> None:
        """Replace the rights."""
        self.rights = rights
        self.all_powerful = any(
            one.all_keys and one.all_channels and one.commands >= catalogue.everything for one in rights.all_selectors
        )

    @property
    def enabled(self) -> bool:
        """Whether it can log in."""
        return self.rights.enabled

    @property
    def nopass(self) -> bool:
        """Whether any password is right."""
        return self.rights.nopass

    @property
    def passwords(self) -> tuple[str, ...]:
        """The hashes of its passwords."""
        return self.rights.passwords

    def may_hear(self, channel: bytes, *, pattern: bool = False) -> bool:
        """Whether a subscription may stay; the real server disconnects users whose subscriptions it has forbidden."""
        return any(_may_hear(one, channel, pattern) for one in self.rights.all_selectors)


EVERYTHING = ("on", "nopass", "~*", "&*", "+@all")
"""What the default user may do, unless told otherwise."""


class Accounts:
    """The users of one server.

    `on_users_changed` is called with the users whose rights have changed or who are `removed`, after the change; the
    server then closes sessions of removed users, and sessions with subscriptions that they may no longer have.
    """

    def __init__(self, table: Mapping[str, Command], rng: random.Random, now: Callable[[], float]) -> None:
        self.catalogue = Catalogue(table)
        self.rng = rng
        self.now = now
        self.log = DenialLog(now)
        self.default = User("default", self._unlimited(), self.catalogue)
        self.on_users_changed: Callable[[Sequence[User]], None] = lambda users: None
        self._users = {"default": self.default}
        self._configured: tuple[str, ...] = ()
        """The lines that were loaded last: the users whom a restart leaves."""

    def _unlimited(self) -> Rights:
        return with_rules(Rights(), EVERYTHING, self.catalogue)

    @property
    def users(self) -> list[User]:
        """All users by name."""
        return [self._users[name] for name in sorted(self._users, key=lambda one: one.encode(errors="surrogateescape"))]

    @property
    def newcomer(self) -> User | None:
        """Who a client is before it has logged in; None: nobody."""
        return self.default if self.default.nopass and self.default.enabled else None

    def get(self, name: str) -> User | None:
        """The user of this name."""
        return self._users.get(name)

    def authenticate(self, name: str, password: str) -> User | None:
        """The user, or None if there is none that can log in so."""
        user = self._users.get(name)
        if user is None or not user.enabled:
            return None
        return user if user.nopass or hash_of(password) in user.passwords else None

    def why_denied(
        self, user: User, command: Command, args: Sequence[bytes], keys: Sequence[Key] | None = None
    ) -> Denied | None:
        """What forbids a user to run this, as an error to raise and to note; None: nothing does."""
        if user.all_powerful:
            return None
        return check(user.rights, command, args, find_keys(command, args) if keys is None else keys)

    def may_read_all(self, user: User, command: Command, args: Sequence[bytes]) -> bool:
        """Whether a command may also read keys that it does not name, as SORT with BY and GET does."""
        keys = find_keys(command, args)
        return any(
            _refusal(one, command, args, keys) is None
            and (one.all_keys or any(key.read and key.pattern == b"*" for key in one.keys))
            for one in user.rights.all_selectors
        )

    def note_denied(self, user: User, denied: Denied, client: str, context: str = "toplevel") -> None:
        """Make an entry in ACL LOG; `context` is "toplevel", "multi" or "lua", `client` a line of CLIENT LIST."""
        self.log.note(denied.reason, context, as_text(denied.subject), user.name, client)

    def note_failed_login(self, name: str, client: str, command: str = "AUTH", context: str = "toplevel") -> None:
        """Make an entry in ACL LOG; `command` is the first word of the request, as it was sent."""
        self.log.note("auth", context, command, name, client)

    def execute(self, args: Sequence[bytes], asking: User) -> Reply:
        """The ACL command, existence and arity of which have been checked."""
        return acl_command(self, args, asking)

    # Changes

    def set_user(self, name: str, rules: Sequence[str]) -> None:
        """Apply rules to a user, who may be new; ErrorReply, and no change, if one of them is wrong."""
        if has_spaces(name):
            raise ErrorReply("ERR Usernames can't contain spaces or null characters")
        user = self._users.get(name)
        rights = with_rules(user.rights if user else Rights(), rules, self.catalogue)
        if user is None:
            self._users[name] = User(name, rights, self.catalogue)
        else:
            user.give(rights, self.catalogue)
            self.on_users_changed([user])

    def set_password(self, password: str) -> None:
        """What requirepass sets: the one password of the default user; an empty one means that it needs none."""
        rules = ["resetpass", f">{password}" if password else "nopass"]
        self.set_user("default", rules)

    def remove(self, names: Sequence[str]) -> int:
        """Remove users, and return how many there were."""
        if "default" in names:
            raise ErrorReply("ERR The 'default' user cannot be removed")
        found = [user for name in names if (user := self._users.pop(name, None)) is not None]
        self._part_with(found)
        return len(found)

    def _part_with(self, users: Sequence[User], changed: Sequence[User] = ()) -> None:
        for user in users:
            user.removed = True
        if users or changed:
            self.on_users_changed([*changed, *users])

    def lines(self) -> list[str]:
        """The users as lines of an ACL file."""
        return [f"user {user.name} {describe(user.rights, self.catalogue)}" for user in self.users]

    def load(self, lines: Iterable[str], file: str = "users.acl") -> None:
        """Replace all users by those of an ACL file; ErrorReply, and no change, if a line is wrong.

        As with ACL LOAD, all users but `default` are other users afterwards, even if they have the same names.
        """
        found: dict[str, Rights] = {}
        errors: list[str] = []
        lines = tuple(lines)
        for number, line in enumerate(lines, 1):
            words = line.strip(" \t\r\n").split(" ")
            if words != [""]:
                errors += self._load_line(words, found, f"{file}:{number}")
        if errors:
            no_change = "WARNING: ACL errors detected, no change to the previously active ACL rules was performed"
            raise ErrorReply(f"ERR {''.join(errors)}{no_change}")
        removed = [user for user in self._users.values() if user is not self.default]
        self.default.give(found.get("default") or self._unlimited(), self.catalogue)
        self._users = {name: User(name, rights, self.catalogue) for name, rights in found.items()}
        self._users["default"] = self.default
        self._configured = lines
        self._part_with(removed, [self.default])

    def restarted(self, password: str) -> None:
        """The server begins again: what users did to users is gone, `load` and requirepass are not."""
        lines = self._configured
        self.load([])
        if password:
            self.set_password(password)
        if lines:
            self.load(lines)
        self.log.clear()

    def _load_line(self, words: Sequence[str], found: dict[str, Rights], place: str) -> list[str]:
        """Add the user of one line to those that are found; what is wrong with it."""
        if words[0] != "user" or len(words) < 2:
            return [f"{place} should start with user keyword followed by the username. "]
        name = words[1]
        if has_spaces(name):
            return [f"'{place}: username '{name}' contains invalid characters. "]
        if name in found:
            return [f"WARNING: Duplicate user '{name}' found on line {place.rpartition(':')[2]}. "]
        found[name] = Rights()
        try:
            rules = join_selectors(words[2:])
        except ErrorReply:
            return [f"{place}: Unmatched parenthesis in selector definition."]
        errors: list[str] = []
        formal = False  # of errors that are not about the name of a command, the first alone is told
        for rule in rules:
            try:
                found[name] = with_rule(found[name], rule.strip("\t\r\n"), self.catalogue)
            except RuleError as error:
                unknown = str(error) == UNKNOWN
                what = f"Error in applying operation '{rule}': " if unknown else ""
                if unknown or not formal:
                    errors.append(f"{place}: {what}{error}. ")
                formal = formal or not unknown
        return errors
