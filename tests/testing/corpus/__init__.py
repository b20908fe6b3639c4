r"""The corpus: conversations with a server, read from the text files of this directory. Knows no right answers.

    == a name [pair] [resp2]    starts a conversation. With [pair] it is about a master and its replica; with [resp2]
                                (or [resp3]) it is held in that protocol alone
    SET k "a b\r\n"             connection `a` sends this and reads one reply. Quotes are those of redis-cli; (x*70)
                                is 70 times x, (1..9) the numbers from 1 to 9 as words of their own
    b> GET k                    connection `b` does. Connections whose name starts with `replica` are of the replica
    b>> BLPOP k 0               b sends and does not read; what follows is said when the server has read it
    b<                          b reads one more reply or message
    b<nothing                   what b has already got by now, usually nothing
    b|close                     b hangs up
    -- synced                   waits until the replica has all that the master has sent
    -- promoted                 waits until they have changed places
    # ...                       a remark

Marks before the command say what is compared of the reply. An error is always compared as a whole.

    {as name}                   the value is kept for ${name} in later lines, and masked wherever it appears. There are
                                ${host}, ${port} and ${replica-port} from the beginning
    {raw}                       the words are sent as they stand, not as an array
    {shape}                     kinds and sizes of arrays alone;  {kind} the outermost kind alone
    {sorted}                    in any order, at any depth
    {at 1.2} {after idle}       all but what is at these places (* is any), or follows one of these words
    {info} {clients}            INFO: names and order of fields; CLIENT LIST: names of fields, and what cannot vary
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

__all__ = ["Conversation", "Step", "conversations", "parse"]

HERE = Path(__file__).parent
_LINE = re.compile(
    r"(?:(?P<connection>[a-z][a-z0-9.]*)(?P<op>>>|>|<nothing|<|\|close))?\s*(?P<marks>(?:\{[^}]*\}\s*)*)(?P<rest>.*)"
)
_OPS = {None: "ask", ">": "ask", ">>": "send", "<": "read", "<nothing": "nothing", "|close": "close"}
_WORD = re.compile(r'"(?P<double>(?:\\.|[^"\\])*)"|\'(?P<single>[^\']*)\'|(?P<bare>\S+)')
_MARKS = {"as", "raw", "shape", "kind", "sorted", "at", "after", "info", "clients"}


@dataclass(frozen=True, slots=True)
class Step:
    """A line of a conversation: who does what (ask, send, read, nothing, close, --), in what words."""

    text: str
    op: str
    connection: str = ""
    words: tuple[bytes, ...] = ()
    marks: dict[str, tuple[str, ...]] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Conversation:
    """Steps of one or more connections with a node, or with a master and its replica."""

    name: str
    file: str
    pair: bool
    protocols: tuple[int, ...]
    steps: tuple[Step, ...]

    def __str__(self) -> str:
        return f"{self.file}: {self.name}"

    def uses(self, command: str) -> bool:
        return any(step.words and step.words[0].upper() == command.encode() for step in self.steps)

    @property
    def commands(self) -> list[tuple[bytes, ...]]:
        return [step.words for step in self.steps if step.words]

    @property
    def settings(self) -> set[str]:
        """What it changes by CONFIG SET."""
        return {
            name.decode().lower()
            for words in self.commands
            if [word.upper() for word in words[:2]] == [b"CONFIG", b"SET"]
            for name in words[2::2]
        }


def conversations() -> list[Conversation]:
    """All of the corpus, in the order of files and lines."""
    return [one for path in sorted(HERE.glob("*.txt")) for one in parse(path.read_text(), path.stem)]


def parse(text: str, file: str) -> Iterator[Conversation]:
    """The conversations of one file."""
    head, steps = "", list[Step]()
    for line in [*text.splitlines(), "== "]:
        line = line.strip()
        if line.startswith("=="):
            if head:
                yield _conversation(head, file, steps)
            head, steps = line[2:].strip(), []
        elif line and not line.startswith("#"):
            steps.append(_step(line))


def _conversation(head: str, file: str, steps: list[Step]) -> Conversation:
    options = re.findall(r"\[(\w+)\]", head)
    protocols = tuple(number for number in (2, 3) if f"resp{number}" in options)
    name = head.partition(" [")[0]
    return Conversation(name, file, "pair" in options, protocols or (2, 3), tuple(steps))


def _step(line: str) -> Step:
    if line.startswith("--"):
        return Step(line, "--")
    found = _LINE.fullmatch(line)
    assert found is not None, line
    marks = {mark.split()[0]: tuple(mark.split()[1:]) for mark in re.findall(r"\{([^}]*)\}", found["marks"])}
    assert marks.keys() <= _MARKS, line
    assert len(marks) == found["marks"].count("{"), line
    return Step(line, _OPS[found["op"]], found["connection"] or "a", tuple(_words(found["rest"])), marks)


def _words(text: str) -> Iterator[bytes]:
    for found in _WORD.finditer(text):
        if found["double"] is not None:
            yield found["double"].encode().decode("unicode_escape").encode("latin-1")
        elif found["single"] is not None:
            yield found["single"].encode()
        elif many := re.fullmatch(r"\((.+)\*(\d+)\)", found["bare"]):
            yield many[1].encode() * int(many[2])
        elif numbers := re.fullmatch(r"\((\d+)\.\.(\d+)\)", found["bare"]):
            yield from (str(number).encode() for number in range(int(numbers[1]), int(numbers[2]) + 1))
        else:
            yield found["bare"].encode()
