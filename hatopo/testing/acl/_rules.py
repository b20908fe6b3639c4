"""The rules of the ACL: decides what a rule means for what a user may do, and which rules describe that.

`Rights` are frozen; rules make new ones of them. Knows no users, no sessions and no files.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from hatopo.testing._reply import ErrorReply
from hatopo.testing.commands import CATEGORIES

if TYPE_CHECKING:
    from hatopo.testing.commands import Command

SYNTAX = "Syntax error"
UNKNOWN = "Unknown command or category name in ACL"
AFTER_ALL = (
    "Adding a pattern after the * pattern (or the 'all{0}' flag) is not valid and does not have any effect. "
    "Try 'reset{0}' to start with an empty list of {1}"
)
NO_SUCH_PASSWORD = "The password you are trying to remove from the user does not exist"
BAD_HASH = "The password hash must be exactly 64 characters and contain only lowercase hexadecimal characters"
NO_FIRST_ARG = "Allowing first-arg of a subcommand is not supported"


class RuleError(Exception):
    """A rule that cannot be applied, and why, in the words of the real server."""


# The commands that rules can name


class Catalogue:
    """A table of commands as rules see it: every command and subcommand by its full name, and the categories."""

    def __init__(self, table: Mapping[str, Command]) -> None:
        self.commands: dict[str, Command] = {}
        """In alphabetical order, each subcommand after its container."""
        for command in sorted(table.values(), key=lambda one: one.name):
            subcommands = sorted(command.subcommands.values(), key=lambda one: one.name)
            self.commands.update((one.name, one) for one in (command, *subcommands))
        self.everything = frozenset(self.commands)
        self.members = {
            category: frozenset(name for name, one in self.commands.items() if category in one.categories)
            for category in CATEGORIES
        }
        self.reach = {category: self.family(*members) for category, members in self.members.items()}
        """What a rule about a category changes: its members, and all subcommands of those that are containers."""

    def family(self, *names: str) -> frozenset[str]:
        """The commands, and their subcommands."""
        found = [one.name for name in names for one in self.commands[name].subcommands.values()]
        return frozenset([*names, *found])

    def lookup(self, args: Sequence[bytes]) -> Command | None:
        """The command that these words would run."""
        name = args[0].decode("latin-1").lower()
        command = self.commands.get(name) if "|" not in name else None
        if command is not None and command.subcommands and len(args) > 1:
            return self.commands.get(f"{name}|{args[1].decode('latin-1').lower()}")
        return command


# What a user may do


@dataclass(frozen=True, slots=True)
class KeyPattern:
    """Keys that may be named, and for what."""

    pattern: bytes
    read: bool = True
    write: bool = True

    def __str__(self) -> str:
        sign = "~" if self.read and self.write else "%R~" if self.read else "%W~"
        return sign + as_text(self.pattern)


@dataclass(frozen=True, slots=True)
class Selector:
    """One set of rights; a command needs a selector that allows all of it."""

    commands: frozenset[str] = frozenset()
    future: bool = False
    """Begun with +@all: described by what is missing, and not by what there is."""
    first_args: tuple[tuple[str, str], ...] = ()
    """Commands that are allowed with this first argument alone."""
    keys: tuple[KeyPattern, ...] = ()
    all_keys: bool = False
    channels: tuple[bytes, ...] = ()
    all_channels: bool = False


@dataclass(frozen=True, slots=True)
class Rights:
    """All that rules say about a user. Passwords are kept as SHA-256 alone."""

    enabled: bool = False
    nopass: bool = False
    sanitize: str = ""
    passwords: tuple[str, ...] = ()
    root: Selector = Selector()
    selectors: tuple[Selector, ...] = ()

    @property
    def flags(self) -> list[str]:
        """What ACL GETUSER calls flags."""
        words = ["on" if self.enabled else "off", "nopass" if self.nopass else "", self.sanitize]
        return [word for word in words if word]

    @property
    def all_selectors(self) -> tuple[Selector, ...]:
        """The rights outside of parentheses, and those in them."""
        return (self.root, *self.selectors)


# Rules


def with_rules(rights: Rights, words: Sequence[str], catalogue: Catalogue) -> Rights:
    """The rights after all these rules; ErrorReply, as ACL SETUSER words it, after none of them."""
    for rule in join_selectors(words):
        try:
            rights = with_rule(rights, rule, catalogue)
        except RuleError as error:
            raise ErrorReply(f"ERR Error in ACL SETUSER modifier '{rule}': {error}") from None
    return rights


def join_selectors(words: Sequence[str]) -> list[str]:
    """The rules, those of a selector in one: its parentheses may have been split at the spaces."""
    found: list[str] = []
    opened: list[str] = []
    for word in words:
        if word.startswith("(") and not word.endswith(")"):
            opened = [word]
        elif opened:
            opened.append(word)
            if word.endswith(")"):
                found.append(" ".join(opened))
                opened = []
        else:
            found.append(word)
    if opened:
        raise ErrorReply(f"ERR Unmatched parenthesis in acl selector starting at '{opened[0]}'.")
    return found


def with_rule(rights: Rights, rule: str, catalogue: Catalogue) -> Rights:
    """The rights after one rule; RuleError if it cannot be applied."""
    match rule.lower():
        case "":
            return rights
        case "on" | "off" as state:
            return replace(rights, enabled=state == "on")
        case "sanitize-payload" | "skip-sanitize-payload" as state:
            return replace(rights, sanitize=state)
        case "nopass" | "resetpass" as state:
            return replace(rights, nopass=state == "nopass", passwords=())
        case "clearselectors":
            return replace(rights, selectors=())
        case "reset":
            return Rights(sanitize="sanitize-payload")
    if rule[0] in "><#!":
        return _with_password(rights, rule[0], rule[1:])
    if rule[0] == "(" and rule[-1] == ")":
        selector = Selector()
        for part in re.findall(r"\S+", rule[1:-1], re.ASCII):
            selector = with_selector_rule(selector, part, catalogue)
        return replace(rights, selectors=(*rights.selectors, selector))
    return replace(rights, root=with_selector_rule(rights.root, rule, catalogue))


def with_selector_rule(selector: Selector, rule: str, catalogue: Catalogue) -> Selector:
    """The selector after one rule about commands, keys or channels; RuleError if it cannot be applied."""
    match rule.lower():
        case "allkeys" | "~*":
            return replace(selector, all_keys=True, keys=())
        case "resetkeys":
            return replace(selector, all_keys=False, keys=())
        case "allchannels" | "&*":
            return replace(selector, all_channels=True, channels=())
        case "resetchannels":
            return replace(selector, all_channels=False, channels=())
        case "allcommands" | "+@all":
            return replace(selector, commands=catalogue.everything, future=True, first_args=())
        case "nocommands" | "-@all":
            return replace(selector, commands=frozenset(), future=False, first_args=())
    if rule[0] in "~%":
        return _with_keys(selector, rule)
    if rule[0] == "&":
        return _with_channel(selector, rule[1:])
    if rule[0] in "+-":
        return _with_commands(selector, rule, catalogue)
    raise RuleError(SYNTAX)


def _with_password(rights: Rights, sign: str, word: str) -> Rights:
    if sign in "><":
        word = hash_of(word)
    elif not re.fullmatch("[0-9a-f]{64}", word):
        raise RuleError(BAD_HASH)
    others = tuple(one for one in rights.passwords if one != word)
    known = len(others) < len(rights.passwords)
    if sign in ">#":
        return replace(rights, nopass=False, passwords=rights.passwords if known else (*others, word))
    if not known:
        raise RuleError(NO_SUCH_PASSWORD)
    return replace(rights, passwords=others)


def _with_keys(selector: Selector, rule: str) -> Selector:
    if selector.all_keys:
        raise RuleError(AFTER_ALL.format("keys", "patterns"))
    found = re.fullmatch(r"(?:~|%(r|w|rw|wr)(?:~|$))(.*)", rule, re.IGNORECASE | re.DOTALL)
    if found is None or has_spaces(found[2]):
        raise RuleError(SYNTAX)
    pattern, uses = as_bytes(found[2]), (found[1] or "rw").lower()
    new = KeyPattern(pattern, "r" in uses, "w" in uses)
    if all(one.pattern != pattern for one in selector.keys):
        return replace(selector, keys=(*selector.keys, new))
    wider = (
        KeyPattern(pattern, one.read or new.read, one.write or new.write) if one.pattern == pattern else one
        for one in selector.keys
    )
    return replace(selector, keys=tuple(wider))


def _with_channel(selector: Selector, word: str) -> Selector:
    if selector.all_channels:
        raise RuleError(AFTER_ALL.format("channels", "channels"))
    if has_spaces(word):
        raise RuleError(SYNTAX)
    pattern = as_bytes(word)
    return selector if pattern in selector.channels else replace(selector, channels=(*selector.channels, pattern))


def _with_commands(selector: Selector, rule: str, catalogue: Catalogue) -> Selector:
    allow, name = rule[0] == "+", rule[1:].lower()
    if name.startswith("@"):
        if name[1:] not in CATEGORIES:
            raise RuleError(UNKNOWN)
        return _with_names(selector, catalogue.reach[name[1:]], catalogue.reach[name[1:]], allow)
    if allow and "|" in name:
        container, _, last = name.rpartition("|")
        command = catalogue.commands.get(container)
        if command is None:
            raise RuleError(UNKNOWN)
        if "|" in container:
            raise RuleError(NO_FIRST_ARG)
        if not last:
            raise RuleError(SYNTAX)
        if not command.subcommands:
            return _with_first_arg(selector, container, rule.rpartition("|")[2])
    if name not in catalogue.commands:
        raise RuleError(UNKNOWN)
    return _with_names(selector, catalogue.family(name), frozenset([name]), allow)


def _with_names(selector: Selector, names: frozenset[str], cleared: frozenset[str], allow: bool) -> Selector:
    commands = selector.commands | names if allow else selector.commands - names
    first_args = tuple(one for one in selector.first_args if one[0] not in cleared)
    return replace(selector, commands=commands, first_args=first_args)


def _with_first_arg(selector: Selector, command: str, word: str) -> Selector:
    if (command, word.lower()) in ((name, arg.lower()) for name, arg in selector.first_args):
        return selector
    return replace(selector, first_args=(*selector.first_args, (command, word)))


def has_spaces(word: str) -> bool:
    """Whether a name or pattern has what neither may have: spaces or null characters."""
    return re.search(r"[\s\0]", word, re.ASCII) is not None


def hash_of(password: str) -> str:
    """What is kept of a password."""
    return hashlib.sha256(as_bytes(password)).hexdigest()


def as_bytes(word: str) -> bytes:
    """What stood on the wire."""
    return word.encode("utf-8", "surrogateescape")


def as_text(word: bytes) -> str:
    """A word of the wire, also if it is no UTF-8."""
    return word.decode("utf-8", "surrogateescape")


# Rules that would lead to given rights


def describe(rights: Rights, catalogue: Catalogue) -> str:
    """Rules that lead to these rights, as ACL LIST shows them."""
    words = [*rights.flags, *(f"#{one}" for one in rights.passwords), _describe_selector(rights.root, catalogue)]
    words += [f"({_describe_selector(one, catalogue)})" for one in rights.selectors]
    return " ".join(words)


def _describe_selector(selector: Selector, catalogue: Catalogue) -> str:
    channels = describe_channels(selector)
    words = [
        describe_keys(selector),
        channels if selector.all_channels else f"resetchannels {channels}".strip(),
        describe_commands(selector, catalogue),
    ]
    return " ".join(word for word in words if word)


def describe_keys(selector: Selector) -> str:
    """The rules about keys."""
    return "~*" if selector.all_keys else " ".join(str(one) for one in selector.keys)


def describe_channels(selector: Selector) -> str:
    """The rules about channels."""
    return "&*" if selector.all_channels else " ".join(f"&{as_text(one)}" for one in selector.channels)


def describe_commands(selector: Selector, catalogue: Catalogue) -> str:
    """The rules about commands: the categories that fit best, then what they have wrong, command by command.

    The real server walks the commands in the order of a hash table that differs from start to start; here it is the
    alphabet's.
    """
    sign, start = ("-", "+@all") if selector.future else ("+", "-@all")
    words = [start]
    reached = catalogue.everything if selector.future else frozenset()
    for category in _best_categories(selector, catalogue):
        words.append(f"{sign}@{category}")
        reached = reached - catalogue.reach[category] if selector.future else reached | catalogue.reach[category]
    for name in catalogue.commands:
        allowed = name in selector.commands
        if allowed != (name in reached):
            words.append(f"{'+' if allowed else '-'}{name}")
            family = catalogue.family(name)
            reached = reached | family if allowed else reached - family
        if not allowed:
            words += [f"+{name}|{arg}" for command, arg in selector.first_args if command == name]
    return " ".join(words)


def _best_categories(selector: Selector, catalogue: Catalogue) -> Iterable[str]:
    """The categories of which more than half is to be named, each time that which has least to be put right after."""
    rest = catalogue.everything - selector.commands if selector.future else selector.commands
    left = list(CATEGORIES)
    while True:
        sizes = {one: (len(catalogue.members[one]), len(catalogue.members[one] & rest)) for one in left}
        fitting = [one for one, (size, same) in sizes.items() if same > size - same]
        if not fitting:
            return
        best = min(fitting, key=lambda one: (sizes[one][0] - sizes[one][1], -sizes[one][1]))
        yield best
        left.remove(best)
        rest = rest - catalogue.reach[best]
