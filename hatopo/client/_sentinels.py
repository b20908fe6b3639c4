"""Asking the sentinels: all at once, each with its own time, the answers as they come.

Carries out what `topology.discover_master` wants. A thread per question, so that a frozen sentinel costs
nothing; where threads cannot be started the sentinels are asked one after another.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from hatopo import errors
from hatopo.address import Address
from hatopo.connection import Patience, Wire
from hatopo.topology import Answer, NotFound, Topology, discover_master, parse_master, parse_names

log = logging.getLogger("hatopo.sentinel")

QUERY_TIMEOUT = 0.5
"""Seconds that one sentinel may take, its connection included."""


class SentinelSource:
    """Finds the master of a service.

    Args:
        service: its name.
        sentinels: where to ask.
        make: makes an unconnected connection to one of them.
    """

    def __init__(self, service: str, sentinels: Sequence[Address], make: Callable[[Address], Wire]) -> None:
        self._service = service
        self._sentinels = tuple(sentinels)
        self._make = make

    def find(self, until: float) -> Topology | NotFound:
        """One round of questions; returns within twice `QUERY_TIMEOUT`, at `until` at the latest."""
        answers: queue.SimpleQueue[Answer] = queue.SimpleQueue()
        late = self._ask_all(answers.put)
        discovery = discover_master(self._sentinels)
        end = min(until, monotonic() + 2 * QUERY_TIMEOUT)
        try:
            listen = next(discovery)
            while True:
                if late:
                    answers.put(self._ask(late.pop(0)))
                left = end - monotonic()
                patience = left if listen.seconds is None else min(left, listen.seconds)
                try:
                    answer = answers.get(timeout=max(patience, 0.001))
                except queue.Empty:
                    answer = None
                listen = discovery.send(answer)
        except StopIteration as done:
            found: Topology | NotFound = done.value
            return found

    def _ask_all(self, put: Callable[[Answer], None]) -> list[Address]:
        """Starts a thread for each sentinel; returns those for which none could be started."""
        for index, sentinel in enumerate(self._sentinels):
            thread = threading.Thread(target=lambda s=sentinel: put(self._ask(s)), name="hatopo-ask", daemon=True)
            try:
                thread.start()
            except RuntimeError:  # no more threads, or the interpreter is going down
                return list(self._sentinels[index:])
        return []

    def _ask(self, sentinel: Address) -> Answer:
        connection = self._make(sentinel)
        try:
            return self._question(connection, sentinel)
        except Exception as error:  # whatever it is, this sentinel has no answer
            return Answer(sentinel, error=errors.clip(error))
        finally:
            connection.disconnect()

    def _question(self, connection: Wire, sentinel: Address) -> Answer:
        patience = Patience(QUERY_TIMEOUT, monotonic() + QUERY_TIMEOUT)
        connection.connect()
        questions = [("SENTINEL MASTER", self._service), ("SENTINEL GET-MASTER-ADDR-BY-NAME", self._service)]
        connection.send(b"".join(connection.pack(question) for question in questions), patience)
        replies: list[Any] = []
        connection.read_into(replies, len(questions), patience)
        state, endpoint = replies
        if isinstance(state, Exception):
            if "No such master" not in str(state):
                return Answer(sentinel, error=errors.clip(state))
            connection.send(connection.pack(("SENTINEL MASTERS",)), patience)
            return Answer(sentinel, names=parse_names(connection.read(patience)))
        report = parse_master(state, None if isinstance(endpoint, Exception) else endpoint)
        return Answer(sentinel, report=report, error="" if report else "the reply makes no sense")

    def explain(self, found: NotFound) -> errors.MasterNotFoundError:
        """Says what each sentinel said."""
        said = {answer.sentinel: answer for answer in found.answers}
        parts = []
        for sentinel in self._sentinels:
            answer = said.get(sentinel)
            if answer is None:
                parts.append(f"{sentinel} did not answer in time")
            elif answer.error:
                parts.append(answer.error if str(sentinel) in answer.error else f"{sentinel}: {answer.error}")
            else:
                known = ", ".join(map(repr, answer.names)) or "no service at all"
                parts.append(f"{sentinel} watches {known}")
        ignorant = [answer for answer in found.answers if not answer.error and answer.report is None]
        if len(ignorant) == len(self._sentinels):
            return errors.ServiceUnknownError(f"no sentinel watches a service {self._service!r}: {'; '.join(parts)}")
        return errors.MasterNotFoundError(f"no sentinel names a master of {self._service!r}: {'; '.join(parts)}")
