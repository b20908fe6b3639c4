"""HELP of the embedded servers: it names the subcommands, and says no more."""

from __future__ import annotations

import pytest

from hatopo.testing import Node
from hatopo.testing.commands import SENTINEL_TABLE, TABLE
from hatopo.testing.server._help import commands
from tests.testing.conftest import Dial

CONTAINERS = sorted(name for name in TABLE if "help" in TABLE[name].subcommands and name != "function")


def test_every_container_of_both_kinds_of_server_has_it() -> None:
    assert {f"{name}|help" for name in (*CONTAINERS, "sentinel")} == commands.keys()
    assert "help" in SENTINEL_TABLE["sentinel"].subcommands


@pytest.mark.parametrize("container", CONTAINERS)
def test_help_names_the_subcommands(container: str, dial: Dial) -> None:
    with Node() as node:
        said = dial(node).ask(container.encode(), b"HELP").body
        assert isinstance(said, tuple)
        head, *names = [line.body for line in said]
        assert container.upper().encode() in (head if isinstance(head, bytes) else b"")
        assert names == sorted(name.upper().encode() for name in TABLE[container].subcommands)
        assert dial(node).ask(b"EVAL", b"return #redis.call(unpack(ARGV))", b"0", b"XINFO", b"HELP").body == b"5"
