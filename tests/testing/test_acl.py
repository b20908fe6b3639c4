"""Users and rights of the embedded server: what a real server 7.0 says to the same rules, and what must always hold."""

from __future__ import annotations

import random
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import hiredis
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hatopo.testing._reply import ErrorReply, encode
from hatopo.testing.acl._accounts import Accounts, Denied, User
from hatopo.testing.acl._rules import Catalogue, Rights, describe, with_rule, with_rules
from hatopo.testing.commands import SENTINEL_TABLE, TABLE, find_keys, lookup
from tests.control import Control, ServerError
from tests.servers import Server

CATALOGUE = Catalogue(TABLE)
Answer = Callable[..., Any]


class Clock:
    def __init__(self) -> None:
        self.time = 1_700_000_000.0

    def __call__(self) -> float:
        return self.time


def make_accounts(clock: Clock | None = None) -> Accounts:
    return Accounts(TABLE, random.Random(1), clock or Clock())


def words_of(request: Sequence[str | bytes]) -> list[bytes]:
    return [word if isinstance(word, bytes) else word.encode() for word in request]


def embedded(accounts: Accounts, asking: User | None = None) -> Answer:
    """Asks `accounts` as a server would do it for a RESP2 client; what it answers reads like that of `real`."""

    def ask(*request: str | bytes) -> Any:
        args = words_of(request)
        try:
            lookup(args)
            reply = accounts.execute(args, asking or accounts.default)
        except ErrorReply as error:
            return f"-{error.text}"
        reader = hiredis.Reader(encoding="utf-8", errors="surrogateescape")
        reader.feed(encode(reply))
        return reader.gets()

    return ask


def real(control: Control) -> Answer:
    def ask(*request: str | bytes) -> Any:
        try:
            return control(*request)
        except ServerError as error:
            return f"-{error}"

    return ask


def ordered(answer: Any) -> Any:
    """An answer in which single commands stand in the order of the alphabet: a real server has any order."""
    if isinstance(answer, list):
        return [ordered(part) for part in answer]
    if not isinstance(answer, str):
        return answer
    runs = re.split(r"((?:[+-][a-z][^ )]*(?: |(?=\)|$)))+)", answer)
    return "".join(" ".join(sorted(run.split())) if index % 2 else run.strip() for index, run in enumerate(runs))


@pytest.fixture(scope="module")
def server70(redis_installed: tuple[int, ...]) -> Iterator[Server]:
    if redis_installed[:2] != (7, 0):
        pytest.skip("the embedded server imitates 7.0")
    with Server() as server:
        yield server


@pytest.fixture(scope="module")
def control70(server70: Server) -> Iterator[Control]:
    with server70.control() as control:
        yield control


def forget_users(ask: Answer) -> None:
    for name in ask("ACL", "USERS"):
        if name != "default":
            ask("ACL", "DELUSER", name)
    ask("ACL", "LOG", "RESET")


def both(control: Control) -> tuple[Answer, Answer]:
    asked = real(control)
    forget_users(asked)
    return asked, embedded(make_accounts())


def split_rules(line: str) -> list[str]:
    return re.findall(r"\([^)]*\)|[^ ]+", line)


HASH = "148de9c5a7a44d19e56cd9ae1a554bf67847afb0c58f6e12fa29ac7ddfca9940"  # of "p"
RULES = [
    *("on", "off", "OFF", "nopass", "resetpass", ">p", ">q", "<p", "<other", f"#{HASH}", f"!{HASH}", "#12", "!x"),
    *(f"#{HASH.upper()}", "reset", "sanitize-payload", "skip-sanitize-payload", "", "foo", "ONN", "+", "-", "(", ")"),
    *("~*", "allkeys", "resetkeys", "~a*", "~b", "%R~a*", "%W~a*", "%rw~c", "%RW~*", "%WR~d", "%RR~a", "%X~a", "%R"),
    *("~a b", "~", "~a\tb", "%R~x y", "&a", "&b*", "&*", "allchannels", "resetchannels", "&a b", "&", "+@all"),
    *("-@all", "allcommands", "NoCommands", "+get", "-get", "+GET", "-set", "+nope", "-nope", "+@read", "-@read"),
    *("+@Write", "-@write", "+@nope", "-@", "+@dangerous", "-@dangerous", "+@admin", "-@connection", "+@fast"),
    *("+@pubsub", "-@slow", "+@keyspace", "-@scripting", "+config", "-config", "+config|get", "-config|set"),
    *("+config|", "+config|nope", "+config|get|x", "+client|list", "-client|kill", "+select", "+select|0"),
    *("+select|1", "+SELECT|A", "+select|a", "-select|0", "+select|", "+select|a|b", "-select", "+nope|x", "()"),
    *("(+get ~x)", "(%R~y* +@read -get)", "(&c +publish)", "(+nope)", "(on)", "(+select|2)", "clearselectors"),
    *("(~* &* +@all)", "(+set", "~k", "+hset)", "(+@all -@hash -debug)", "-acl", "+acl|whoami", "(~x", "+get)"),
    *("+get|key",),
]
REQUESTS = [
    *("get a1", "get b", "get x", "set a1 v", "set c v get", "getset a v", "mget a1 b", "mget a b k", "copy a b"),
    *("config get x", "config set x y", "config", "config nope", "client list", "select 0", "select 1", "select A"),
    *("publish a m", "publish b1 m", "spublish c m", "subscribe a b", "subscribe a zz", "psubscribe b*"),
    *("psubscribe b1", "ssubscribe q", "unsubscribe a", "punsubscribe zz", "auth x", "hello", "quit", "reset", "ping"),
    *("acl whoami", "eval s 1 a1", "eval s 0", "eval s 2 a1 zz", "eval s x", "sort a by z", "sort a store b"),
    *("xread streams a1 b 0 0", "bitfield a get u8 0", "bitfield zz set u8 0 1", "zunionstore a 2 a1 zz", "dbsize"),
    *("flushall", "get", "nope x", "CONFIG GET", "hset x f v", "hset k f v", "object encoding a1", "debug sleep 0"),
    *("georadius a 1 1 1 m store zz",),
]


@given(single=st.lists(st.sampled_from(RULES), max_size=12), joint=st.lists(st.sampled_from(RULES), max_size=3))
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_rules_mean_what_they_mean_to_a_real_server(control70: Control, single: list[str], joint: list[str]) -> None:
    asked, answered = both(control70)
    for rules in (*([rule] for rule in single), joint):
        request = ("ACL", "SETUSER", "u", *rules)
        assert answered(*request) == asked(*request)
    for line in ("ACL GETUSER u", "ACL LIST", "ACL USERS"):
        assert ordered(answered(*line.split())) == ordered(asked(*line.split()))


CLAIMS = [rule for rule in RULES if rule[:1] in "+-(~%&" and rule not in ("-@all", "NoCommands", "resetkeys")]


@given(
    rules=st.lists(st.sampled_from(CLAIMS), min_size=1, max_size=8),
    requests=st.lists(st.sampled_from(REQUESTS), min_size=1, max_size=20),
)
@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_dry_runs_end_as_on_a_real_server(control70: Control, rules: list[str], requests: list[str]) -> None:
    asked, answered = both(control70)
    for rule in rules:
        request = ("ACL", "SETUSER", "u", rule)
        assert answered(*request) == asked(*request)
    for line in requests:
        words = ("ACL", "DRYRUN", "u", *line.split())
        assert answered(*words) == asked(*words), (rules, line)


SEQUENCES = [
    "+select|0 +select|1 -select",
    "+select|0 +select -select",
    "+select|0 +@connection -@connection",
    "+select|0 +get|x -@string",
    "%R~a %W~a",
    "nopass >p >q <p nopass",
    "%W~a1 %R~a1 +@all",
    "~a %R~a +@all",
    "~* +config",
    "~* +config -config|set",
    "~* +@all -config +config|get",
    "~* -@all +@admin -@dangerous",
    "+@all -@hash -set +hset -client|list",
    "+@read -get +get -keys",
    "~a* &a +@all (~b &b* +@all) (%R~c +@read)",
    "~a1 +mget (~b +mget) (~k +mget)",
    "&a +publish (&b1 +publish) (+@all)",
]


@pytest.mark.parametrize("rules", SEQUENCES)
def test_what_is_known_to_be_hard_is_as_on_a_real_server(control70: Control, rules: str) -> None:
    asked, answered = both(control70)
    for rule in split_rules(rules):
        for request in (("ACL", "SETUSER", "u", rule), ("ACL", "LIST")):
            assert ordered(answered(*request)) == ordered(asked(*request))
    for line in REQUESTS:
        words = ("ACL", "DRYRUN", "u", *line.split())
        assert answered(*words) == asked(*words), line


@pytest.mark.parametrize("sign", ["+", "-"])
def test_a_category_is_named_where_more_than_half_of_it_is_meant(control70: Control, sign: str) -> None:
    asked, answered = both(control70)
    for category in CATALOGUE.members:
        names = sorted(CATALOGUE.members[category])
        for count in (len(names) // 2, len(names) // 2 + 1):
            rules = ["reset", "-@all" if sign == "+" else "+@all", *(sign + name for name in names[:count])]
            for request in (("ACL", "SETUSER", "u", *rules), ("ACL", "LIST")):
                assert ordered(answered(*request)) == ordered(asked(*request))


def test_answers_are_those_of_a_real_server(control70: Control) -> None:
    asked, answered = both(control70)
    lines = [
        *("ACL WHOAMI", "ACL USERS", "ACL LIST", "ACL GETUSER default", "ACL GETUSER nobody", "ACL CAT"),
        *("ACL CAT nope", "ACL CAT read x", "ACL LOG", "ACL LOG x", "ACL LOG 1 2", "ACL LOG -1", "acl log 1 2"),
        *("ACL GENPASS 0", "ACL GENPASS 4097", "ACL GENPASS x", "ACL GENPASS 1 2", "ACL LOAD", "ACL SAVE"),
        *("ACL LOAD x", "ACL DELUSER default", "ACL DELUSER nobody", "ACL DELUSER nobody default", "ACL SETUSER"),
        *("ACL nope", "ACL", "ACL SETUSER a", "ACL SETUSER B on >x ~k", "ACL SETUSER b (+get ~x )", "ACL USERS"),
        *("ACL LIST", "ACL WHOAMI x", "ACL LOAD x", "ACL WHOAMI x", "ACL DRYRUN nobody get x", "ACL DRYRUN a"),
        *("ACL DRYRUN a nope", "ACL DRYRUN a get", "ACL DRYRUN a get x", "ACL DELUSER a a B", "ACL USERS"),
        *("ACL LOG RESET", "ACL DRYRUN b acl|list x", "ACL DRYRUN default get x"),
    ]
    for line in lines:
        assert ordered(answered(*line.split())) == ordered(asked(*line.split())), line
    request = ("ACL", "SETUSER", "with spaces")
    assert answered(*request) == asked(*request)
    for bits, digits in ((1, 1), (5, 2), (256, 64), (4096, 1024)):
        found = [ask("ACL", "GENPASS", str(bits)) for ask in (asked, answered)]
        assert [bool(re.fullmatch("[0-9a-f]+", one)) and len(one) for one in found] == [digits, digits]


@pytest.mark.parametrize("category", sorted(TABLE["get"].categories | {"admin", "dangerous", "PubSub", "connection"}))
def test_categories_have_the_same_members(control70: Control, category: str) -> None:
    asked, answered = both(control70)
    assert sorted(answered("ACL", "CAT", category)) == sorted(asked("ACL", "CAT", category)) != []


DENIALS = [
    ("+get", "get x"),
    ("~a +get", "get x"),
    ("+@all", "mget a b"),
    ("~a +@all", "mget a b"),
    ("-@all", "config get x"),
    ("+config|set", "CONFIG get x"),
    ("+select|1", "select 0"),
    ("+publish &a", "publish b m"),
    ("+publish", "publish b m"),
    ("+@pubsub &a*", "psubscribe a*b"),
    ("+@pubsub &a*", "subscribe a1 b"),
    ("+@pubsub &a*", "ssubscribe b"),
    ("%R~a +@all", "set a v"),
    ("%W~a +@all", "get a"),
    ("%W~a +@all", "set a v get"),
    ("~a +get (~b +set) (~c +mget)", "mget b c"),
    ("~a +get (&x +publish)", "publish z m"),
]


@pytest.mark.parametrize(("rules", "line"), DENIALS)
def test_denials_are_worded_and_logged_as_by_a_real_server(
    server70: Server, control70: Control, rules: str, line: str
) -> None:
    accounts = make_accounts()
    asked, answered = real(control70), embedded(accounts)
    forget_users(asked)
    request = ("ACL", "SETUSER", "u", "on", "nopass", *rules.split())
    assert answered(*request) == asked(*request) == "OK"
    user = accounts.get("u")
    assert user is not None
    args = words_of(line.split())
    denied = accounts.why_denied(user, lookup(args), args)
    assert denied is not None
    accounts.note_denied(user, denied, "client")
    with server70.control() as client:
        client("AUTH", "u", "x")
        assert real(client)(*line.split()) == f"-{denied.text}"
    (mine,), (other,) = answered("ACL", "LOG"), asked("ACL", "LOG")
    assert mine[:10] == other[:10]
    assert (mine[10], mine[12:]) == (other[10], ["client-info", "client"])


@pytest.mark.parametrize(
    ("rule", "line"), [("-get", "get a"), ("resetkeys", "get a"), ("resetchannels", "publish a m")]
)
def test_scripts_and_transactions_have_words_of_their_own(
    server70: Server, control70: Control, rule: str, line: str
) -> None:
    accounts = make_accounts()
    asks = real(control70), embedded(accounts)
    forget_users(asks[0])
    with server70.control() as client:
        for ask in asks:
            ask("ACL", "SETUSER", "u", "on", "nopass", "allkeys", "allchannels", "+@all")
        assert [client("AUTH", "u", "x"), client("MULTI"), client(*line.split())] == ["OK", "OK", "QUEUED"]
        for ask in asks:
            ask("ACL", "SETUSER", "u", rule)
        user, args = accounts.get("u"), words_of(line.split())
        assert user is not None
        denied = accounts.why_denied(user, lookup(args), args)
        assert isinstance(denied, Denied)
        assert denied.at_exec in str(real(client)("EXEC"))
        script = "return redis.pcall(unpack(ARGV))"
        assert real(client)("EVAL", script, "0", *line.split()) == f"-{denied.in_script}"


FILES = [
    "user u on nopass ~* +get\n\nuser v\n  user w  on  (+get ~x) \r\n",
    "user default on >p +@all\nuser u on",
    "default on",
    "user",
    "user u on\nuser u off",
    "user u on +nope +foo\nuser v ~* ~a #x +bar -@baz",
    "user a\tb on",
    "# comment\nuser u +config|get|x",
]


@pytest.mark.parametrize("content", FILES)
def test_files_are_read_as_by_a_real_server(redis_installed: tuple[int, ...], tmp_path: Path, content: str) -> None:
    if redis_installed[:2] != (7, 0):
        pytest.skip("the embedded server imitates 7.0")
    path = tmp_path / "users.acl"
    path.write_text("user default on nopass ~* &* +@all\nuser old on")
    accounts = make_accounts()
    accounts.load(path.read_text().splitlines())
    with Server(aclfile=str(path)) as server, server.control() as control:
        path.write_text(content)
        asked, answered = real(control), embedded(accounts)
        outcome = asked("ACL", "LOAD")
        try:
            accounts.load(content.split("\n"), str(path))
            mine = "OK"
        except ErrorReply as error:
            mine = f"-{error.text}"
        assert mine == outcome
        if outcome != "OK":
            assert answered("ACL", "USERS") == ["default", "old"]
        assert ordered(answered("ACL", "LIST")) == ordered(asked("ACL", "LIST"))


# What must always hold


def after(rules: Sequence[str]) -> Rights:
    """The rights after those of the rules that can be applied."""
    rights = Rights()
    for rule in rules:
        try:
            rights = with_rules(rights, [rule], CATALOGUE)
        except ErrorReply:
            continue
    return rights


DESCRIBED = [rule for rule in RULES if rule != "%RW~*"]
"""Without the rule that a real server describes as ~*, which is more than one pattern among others."""


@given(st.lists(st.sampled_from(DESCRIBED), max_size=12))
@settings(deadline=None)
def test_a_description_leads_to_the_same_rights(rules: list[str]) -> None:
    rights = after(rules)
    again = with_rules(Rights(), split_rules(describe(rights, CATALOGUE)), CATALOGUE)
    assert describe(again, CATALOGUE) == describe(rights, CATALOGUE)
    for one, other in zip(rights.all_selectors, again.all_selectors, strict=True):
        assert (one.commands, one.future) == (other.commands, other.future)
        assert (one.all_keys, one.keys) == (other.all_keys, other.keys)
        assert (one.all_channels, one.channels) == (other.all_channels, other.channels)
    assert (again.enabled, again.nopass, again.passwords) == (rights.enabled, rights.nopass, rights.passwords)


@given(st.lists(st.sampled_from([*RULES, "~*", "&*", "+@all"]), max_size=12), st.sampled_from(REQUESTS))
@settings(deadline=None)
def test_who_may_do_everything_is_never_denied_anything(rules: list[str], line: str) -> None:
    accounts = make_accounts()
    user = User("u", after(rules), CATALOGUE)
    twin = User("u", with_rule(after(rules), "(~x)", CATALOGUE), CATALOGUE)
    assert twin.all_powerful == user.all_powerful
    args = words_of(line.split())
    command = CATALOGUE.lookup(args)
    if command is None or not user.all_powerful:
        return
    user.all_powerful = False  # so that it is looked at
    assert accounts.why_denied(user, command, args, find_keys(command, args)) is None


def test_all_powerful_follows_the_rights() -> None:
    accounts = make_accounts()
    assert accounts.default.all_powerful
    for rules, expected in ((["-get"], False), (["+get"], True), (["resetkeys"], False), (["(~* &* +@all)"], True)):
        accounts.set_user("default", rules)
        assert accounts.default.all_powerful is expected, rules


@given(st.lists(st.sampled_from(RULES), max_size=6))
@settings(deadline=None)
def test_rules_are_all_applied_or_none(rules: list[str]) -> None:
    accounts = make_accounts()
    accounts.set_user("u", ["on", "~a", "&a", "+@read", ">p"])
    before = accounts.lines()
    with pytest.raises(ErrorReply, match=r"Error in ACL SETUSER modifier|Unmatched"):
        accounts.set_user("u", [*rules, "wrong"])
    assert accounts.lines() == before


def test_login() -> None:
    accounts = make_accounts()
    accounts.set_user("u", ["on", ">first!", ">second"])
    accounts.set_user("idle", ["nopass"])
    assert accounts.authenticate("u", "first!") is accounts.authenticate("u", "second") is accounts.get("u")
    assert accounts.authenticate("u", "third") is None
    assert accounts.authenticate("nobody", "first!") is None
    assert accounts.authenticate("idle", "") is None
    assert accounts.authenticate("default", "anything") is accounts.default
    assert "first!" not in repr([user.rights for user in accounts.users])


def test_requirepass_is_the_password_of_the_default_user() -> None:
    accounts = make_accounts()
    accounts.set_user("default", [">old"])
    accounts.set_password("new")
    assert accounts.authenticate("default", "old") is None
    assert accounts.authenticate("default", "new") is accounts.default
    accounts.set_password("")
    assert accounts.default.nopass
    assert accounts.default.passwords == ()


def test_the_server_is_told_whose_sessions_to_look_at() -> None:
    accounts = make_accounts()
    told: list[list[tuple[str, bool]]] = []
    accounts.on_users_changed = lambda users: told.append([(user.name, user.removed) for user in users])
    accounts.set_user("u", ["on", "&a", "&b*"])
    user = accounts.get("u")
    assert user is not None
    assert [user.may_hear(b"a"), user.may_hear(b"bc"), user.may_hear(b"c")] == [True, True, False]
    assert [user.may_hear(b"b*", pattern=True), user.may_hear(b"bc*", pattern=True)] == [True, False]
    accounts.set_user("u", ["resetchannels"])
    assert not user.may_hear(b"a")
    with pytest.raises(ErrorReply):
        accounts.set_user("u", ["wrong"])
    accounts.remove(["u", "nobody"])
    accounts.set_user("u", [])
    assert accounts.get("u") is not user
    accounts.load(["user default on", "user u on"])
    assert told == [[("u", False)], [("u", True)], [("default", False), ("u", True)]]
    assert not accounts.default.all_powerful


def test_the_log_counts_what_repeats_and_forgets_what_is_old() -> None:
    clock = Clock()
    accounts = make_accounts(clock)
    answered = embedded(accounts)
    for name in ("a", "b", "a"):
        accounts.note_failed_login(name, f"client of {name}", "HELLO")
        clock.time += 1.5
    newest, older = answered("ACL", "LOG")
    assert newest == [
        *("count", 2, "reason", "auth", "context", "toplevel", "object", "HELLO", "username", "a"),
        *("age-seconds", "1.5", "client-info", "client of a"),
    ]
    assert older[:2] == ["count", 1]
    clock.time += 60
    accounts.note_failed_login("a", "", "HELLO")
    assert [entry[1] for entry in answered("ACL", "LOG")] == [1, 2, 1]
    assert len(answered("ACL", "LOG", "2")) == 2
    for number in range(200):
        accounts.note_failed_login(str(number), "")
    assert len(answered("ACL", "LOG", "1000")) == accounts.log.limit
    assert len(answered("ACL", "LOG")) == 10
    assert answered("ACL", "LOG", "reset") == "OK"
    assert answered("ACL", "LOG") == []


def test_sort_may_read_other_keys_with_a_right_to_all() -> None:
    accounts = make_accounts()
    args = words_of(("SORT", "a", "BY", "w_*"))
    for rules, expected in (
        (["~a", "+sort"], False),
        (["~*", "+sort"], True),
        (["~a", "%R~*", "+sort"], True),
        (["~a", "%W~*", "+sort"], False),
        (["~*", "+get"], False),
        (["~a", "+sort", "(%R~*)"], False),
    ):
        user = User("u", with_rules(Rights(), rules, CATALOGUE), CATALOGUE)
        assert accounts.may_read_all(user, lookup(args), args) is expected, rules


def test_a_sentinel_knows_the_commands_of_sentinels() -> None:
    accounts = Accounts(SENTINEL_TABLE, random.Random(1), Clock())
    accounts.set_user("s", ["on", "+sentinel|masters", "+publish", "&*"])
    user = accounts.get("s")
    assert user is not None
    allowed, forbidden = words_of(("SENTINEL", "masters")), words_of(("SENTINEL", "reset", "*"))
    assert accounts.why_denied(user, lookup(allowed, SENTINEL_TABLE), allowed) is None
    assert accounts.why_denied(user, lookup(forbidden, SENTINEL_TABLE), forbidden) is not None
    with pytest.raises(ErrorReply, match="Unknown command"):
        accounts.set_user("s", ["+get"])
