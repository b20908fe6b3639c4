"""Plays the conversations of the corpus against a server and writes down what it heard, so that two can be compared.

Nothing here knows what a right answer is: a real server says it. What cannot be the same twice is masked: ports, the
values that a line captures with `{as ...}`, and what a line itself says that it does not compare.
tests/testing/corpus/__init__.py describes the notation.

Every server is reached over bare sockets, also the embedded one, and is brought back to its first state by commands.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from itertools import chain
from time import monotonic

from hatopo.testing import Node, Replication
from hatopo.testing.real import RealNode
from tests.control import Address, eventually
from tests.testing.corpus import Conversation, Step, conversations
from tests.testing.wire import CLOSED, MASKS, SILENCE, Connection, Wire, named, request

__all__ = ["Difference", "Heard", "Subject", "compare", "differences", "start_embedded", "start_real"]


TURNS = 4
STALL = 0.15
"""Seconds from one reply to the next after which replies that tell of time may be other ones."""
PLAYS = 2


@dataclass
class Subject:
    """A node, or a master and its replica, with a control connection to each."""

    addresses: tuple[Address, ...]
    _controls: dict[int, Connection] = field(default_factory=dict)
    _settings: dict[int, dict[bytes, bytes]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for index in range(len(self.addresses)):
            said = self.control(index, "CONFIG", "GET", "*").body or ()
            assert isinstance(said, tuple)
            flat = [part.body if isinstance(part.body, bytes) else b"" for part in said]
            self._settings[index] = dict(zip(flat[::2], flat[1::2], strict=True))

    def control(self, index: int, *words: str | bytes | int) -> Wire:
        """Ask node `index` over its control connection, made anew where a conversation has had it closed."""
        data = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        if index in self._controls:
            said = self._controls[index].ask(*data)
            if said not in (CLOSED, SILENCE):
                return said
            self._controls[index].close()
        self._controls[index] = Connection.to(self.addresses[index])
        return self._controls[index].ask(*data)

    def barrier(self) -> None:
        """Return when the nodes have done all that was sent to them before, and have sent what it yielded.

        One PING is not enough for a server that needs several turns of its loop to take in a connection, or to end one.
        """
        for index in range(len(self.addresses)):
            for _ in range(TURNS):
                self.control(index, "PING")

    def fields(self, index: int) -> dict[str, str]:
        said = self.control(index, "INFO", "replication").body
        text = said.decode() if isinstance(said, bytes) else ""
        return dict(line.split(":", 1) for line in text.splitlines() if ":" in line)

    def synced(self) -> bool:
        """Whether the replica follows the master, and has all that the master has sent."""
        master, replica = self.fields(0), self.fields(1)
        return (
            replica.get("master_link_status") == "up"
            and replica.get("master_port") == str(self.addresses[0][1])
            and master.get("slave0", "").startswith("ip=")
            and "state=online" in master["slave0"]
            and replica.get("slave_repl_offset") == master.get("master_repl_offset")
        )

    def promoted(self) -> bool:
        """Whether the replica has become the master, which follows it now."""
        return self.fields(1).get("role") == "master" and self.fields(0).get("master_link_status") == "up"

    def pair_up(self) -> None:
        """Make the second node a replica of the first, and wait until it follows."""
        if self.fields(0).get("role") != "master":
            self.control(0, "REPLICAOF", "NO", "ONE")
        if self.fields(1).get("master_port") != str(self.addresses[0][1]):
            self.control(1, "REPLICAOF", *self.addresses[0])
        eventually(self.synced, what="the replica follows")

    def reset(self, conversation: Conversation) -> None:
        """Undo what a conversation did: data, scripts, pauses, settings, users, roles."""
        for index in range(len(self.addresses)):
            self.control(index, "CLIENT", "UNPAUSE")
            for name in conversation.settings:
                said = self._settings[index].get(name.encode())
                if said is not None:
                    self.control(index, "CONFIG", "SET", name, said)
            if conversation.uses("ACL"):
                self._reset_users(index)
        if len(self.addresses) > 1:
            self.pair_up()
        elif conversation.uses("REPLICAOF"):
            self.control(0, "REPLICAOF", "NO", "ONE")
        self.control(0, "FLUSHALL")
        for index in range(len(self.addresses)):
            self.control(index, "SCRIPT", "FLUSH")
        if len(self.addresses) > 1:
            eventually(self.synced, what="the replica is as empty as the master")

    def _reset_users(self, index: int) -> None:
        users = self.control(index, "ACL", "USERS").body
        for user in users if isinstance(users, tuple) else ():
            if isinstance(user.body, bytes) and user.body != b"default":
                self.control(index, "ACL", "DELUSER", user.body)

    def close(self) -> None:
        for control in self._controls.values():
            control.close()


# --- the play


@dataclass(frozen=True, slots=True)
class Heard:
    """What a step of a conversation was answered."""

    step: str
    said: str
    seconds: float = field(default=0.0, compare=False)
    """Since what was heard before."""


@dataclass(frozen=True, slots=True)
class Difference:
    """Where two servers part."""

    step: str
    real: str
    other: str

    def __str__(self) -> str:
        return f"{self.step}\n    real:     {self.real}\n    embedded: {self.other}"


class _Play:
    """One run of one conversation."""

    def __init__(self, subject: Subject, protocol: int) -> None:
        self._subject = subject
        self._protocol = protocol
        self._connections: dict[str, Connection] = {}
        self._ports: dict[str, int] = {}
        self._captured: dict[str, bytes] = {}

    def _connection(self, name: str) -> Connection:
        """Made at its first mention; those called `replica...` are of the second node."""
        if name not in self._connections:
            address = self._subject.addresses[1 if name.startswith("replica") else 0]
            self._connections[name] = Connection.to(address, self._protocol)
            self._ports[name] = self._connections[name].port
        return self._connections[name]

    def _names(self) -> dict[bytes, bytes]:
        names = {value: b"<" + name.encode() + b">" for name, value in self._captured.items() if len(value) >= 5}
        for index, address in enumerate(self._subject.addresses):
            names[str(address[1]).encode()] = (b"<port>", b"<replica-port>")[index]
        for name in self._connections:
            names[str(self._ports[name]).encode()] = b"<port-of-%b>" % name.encode()
        return names

    def _fill(self, words: Sequence[bytes]) -> list[bytes]:
        known = {
            **self._captured,
            "host": self._subject.addresses[0][0].encode(),
            "port": str(self._subject.addresses[0][1]).encode(),
            "replica-port": str(self._subject.addresses[-1][1]).encode(),
        }
        return [
            re.sub(rb"\$\{([\w-]+)\}", lambda found: known.get(found[1].decode(), found[0]), word) for word in words
        ]

    def step(self, step: Step) -> Heard | None:
        if step.op == "--":
            check = self._subject.promoted if "promoted" in step.text else self._subject.synced
            eventually(check, what=step.text)
            return None
        connection = self._connection(step.connection)
        if step.op == "close":
            connection.close()
            self._subject.barrier()
            return None
        if step.words:
            words = self._fill(step.words)
            connection.send(b"".join(words) if "raw" in step.marks else request(words))
        if step.op == "send":
            self._subject.barrier()
            return None
        if step.op == "nothing":
            self._subject.barrier()
            return Heard(step.text, " ".join(str(self._compared(value, step)) for value in connection.rest()))
        return Heard(step.text, str(self._compared(connection.read(), step)))

    def _compared(self, value: Wire, step: Step) -> Wire:
        for mark, words in step.marks.items():
            if mark == "as" and isinstance(value.body, bytes) and value.kind in "$:+":
                self._captured[words[0]] = value.body
                value = Wire(value.kind, b"<" + words[0].encode() + b">")
        value = named(value, self._names())
        for mark, words in step.marks.items():
            if mark in MASKS and value.kind != "-":
                value = MASKS[mark](value, words)
        return value

    def leftovers(self) -> Iterator[Heard]:
        """What came and nobody read."""
        self._subject.barrier()
        for name, connection in self._connections.items():
            rest = " ".join(str(named(value, self._names())) for value in connection.rest())
            if rest:
                yield Heard(f"at the end, {name}", rest)

    def close(self) -> None:
        for connection in self._connections.values():
            connection.close()
        self._subject.barrier()


def play(conversation: Conversation, subject: Subject, protocol: int) -> list[Heard]:
    """All that was heard in a conversation, and at its end; the subject is left as it was found."""
    run, heard, last = _Play(subject, protocol), list[Heard](), monotonic()
    try:
        for step in conversation.steps:
            if (said := run.step(step)) is not None:
                heard.append(replace(said, seconds=monotonic() - last))
                last = monotonic()
        return [*heard, *run.leftovers()]
    finally:
        run.close()
        subject.reset(conversation)


def differences(real: Sequence[Heard], other: Sequence[Heard]) -> list[Difference]:
    """Where the two transcripts of one conversation part, step by step; a repeated step is numbered."""

    def numbered(heard: Sequence[Heard]) -> dict[str, str]:
        result: dict[str, str] = {}
        for one in heard:
            step, count = one.step, 1
            while step in result:
                count += 1
                step = f"{one.step}  ({count})"
            result[step] = one.said
        return result

    left, right = numbered(real), numbered(other)
    steps = [*left, *(step for step in right if step not in left)]
    found = [Difference(step, left.get(step, ""), right.get(step, "")) for step in steps]
    return [one for one in found if one.real != one.other]


def compare(conversation: Conversation, real: Subject, other: Subject, protocol: int) -> list[Difference]:
    """Where two servers part in a conversation; it is played again if the machine may have stood still meanwhile."""
    for _ in range(PLAYS):
        heard = [play(conversation, subject, protocol) for subject in (real, other)]
        found = differences(*heard)
        if not found or all(one.seconds < STALL for one in chain(*heard)):
            break
    return found


# --- servers to play against

SETTINGS = {"enable-debug-command": "yes", "enable-module-command": "yes", "save": "", "appendonly": "no"}
"""What all servers have."""
REAL = {**SETTINGS, "repl-diskless-load": "swapdb", "hz": "100"}
"""What makes real ones faster."""


@contextmanager
def start_real(nodes: int) -> Iterator[Subject]:
    """One real server, or with `nodes` 2 a master and its replica."""
    with ExitStack() as stack:
        servers = [stack.enter_context(RealNode(config=REAL)) for _ in range(nodes)]
        subject = Subject(tuple(server.address for server in servers))
        stack.callback(subject.close)
        if nodes > 1:
            subject.pair_up()
        yield subject


@contextmanager
def start_embedded(nodes: int) -> Iterator[Subject]:
    """The same of embedded servers."""
    with ExitStack() as stack:
        if nodes == 1:
            started = [stack.enter_context(Node(config=SETTINGS)).address]
        else:
            started = [node.address for node in stack.enter_context(Replication(nodes - 1, config=SETTINGS)).nodes]
        subject = Subject(tuple(started))
        stack.callback(subject.close)
        yield subject


def main(part: str = "") -> None:
    """Print the differences in all conversations whose file or name has `part` in it."""
    for nodes in (1, 2):
        chosen = [one for one in conversations() if one.pair == (nodes == 2) and part in str(one)]
        if not chosen:
            continue
        with start_real(nodes) as real, start_embedded(nodes) as embedded:
            for conversation in chosen:
                for protocol in conversation.protocols:
                    if found := compare(conversation, real, embedded, protocol):
                        print(f"== {conversation} [resp{protocol}]", *found, sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
