"""Runs redis-py's tests in a process of their own, with the client under test put in the place of redis-py's.

A script, started by suite.py in the directory that holds redis-py's `tests` package, as
`inside.py CHOSEN WHERE-HATOPO-IS REPORT PYTEST-OPTIONS...`. CHOSEN is JSON: the client ("plain" or "hatopo"), whether
it has a single connection, through which kind of deployment it connects, with which options. Every client of those
tests comes from `_get_client` of their conftest, which is replaced before the test modules import it. Outcomes go to
REPORT as they come, a line of JSON each: [node id, outcome, text of the failure]; the last line about a test holds.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import pytest
import redis
from redis.backoff import NoBackoff
from redis.connection import parse_url
from redis.retry import Retry

if TYPE_CHECKING:
    from collections.abc import Callable, Generator


class Stand:
    """A pytest plugin: puts the client in place, and records what became of every test."""

    def __init__(self, chosen: dict[str, Any], report: Path) -> None:
        self._hatopo = importlib.import_module("hatopo") if chosen["client"] == "hatopo" else None
        self._chosen = chosen
        # One more client through Sentinel is open all the time, as in an application: were each test's the first of its
        # sentinels, it would find out everything anew.
        self._companion: Any = None
        self._report = report
        self._failed: set[str] = set()

    @pytest.hookimpl(trylast=True)
    def pytest_configure(self, config: pytest.Config) -> None:
        theirs: Any = importlib.import_module("tests.conftest")
        original = theirs._get_client

        def get_client(
            cls: Any, request: Any, single_connection_client: bool = True, *args: Any, **keywords: Any
        ) -> Any:
            single = single_connection_client and self._chosen["single"]
            # Clusters, TLS and deployments of their own are no part of this run: they stay redis-py's.
            if self._hatopo is None or cls is not redis.Redis or keywords.get("ssl"):
                return original(cls, request, single, *args, **keywords)
            return self._get_client(request, single, *args, **keywords)

        theirs._get_client = get_client

    def _get_client(
        self, request: Any, single: bool, flushdb: bool = True, from_url: str | None = None, **keywords: Any
    ) -> Any:
        url = from_url or request.config.getoption("--redis-url")
        if protocol := request.config.getoption("--protocol"):
            keywords.setdefault("protocol", int(protocol))
        # As redis-py's fixture has it: its pool is built without a retry, and its errors show arguments.
        keywords = {"retry": Retry(NoBackoff(), 0), "error_arguments": True, **keywords}
        client = self.open(url, single_connection_client=single, **keywords)

        def teardown() -> None:
            if flushdb:
                again_if_disconnected(client.flushdb)
            client.close()
            client.connection_pool.disconnect()

        request.addfinalizer(teardown)
        return client

    def open(self, url: str, **keywords: Any) -> Any:
        """A client of the server there, through what was chosen; keywords override the URL, as in their fixture."""
        assert self._hatopo is not None
        keywords |= self._chosen["options"]
        if self._chosen["through"] == "standalone":
            if "db" in keywords:  # in redis-py's from_url the URL wins
                url = urlsplit(url)._replace(path="").geturl()
            return self._hatopo.from_url(url, **keywords)
        named = parse_url(url)
        server = f"{named.pop('host')}:{named.pop('port')}"
        keywords = {**named, **keywords}
        if self._chosen["through"] == "replicated":
            return self._hatopo.replicated([server], **keywords)
        deployment = self._chosen["service"], [tuple(one) for one in self._chosen["sentinels"]]
        if self._companion is None:
            self._companion = self._hatopo.sentinel(*deployment)
            self._companion.wait_ready(10)
        return self._hatopo.sentinel(*deployment, **keywords)

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self._record(report.nodeid, "error", report.longreprtext)

    def pytest_unconfigure(self) -> None:
        if self._companion is not None:
            self._companion.close()

    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        for item in items:
            if mark := item.get_closest_marker("timeout"):  # method="thread" would end the whole run
                item.add_marker(pytest.mark.timeout(*mark.args, method="signal"), append=False)

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self) -> Generator[None, None, None]:
        try:
            return (yield)
        except (KeyboardInterrupt, SystemExit) as error:  # from the test: the tests after it go on
            pytest.fail(f"{error!r} came out of the test")

    def pytest_runtest_logstart(self, nodeid: str) -> None:
        self._record(nodeid, "unfinished")

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.nodeid in self._failed:
            return
        if report.failed:
            self._failed.add(report.nodeid)
            self._record(report.nodeid, "failed" if report.when == "call" else "error", report.longreprtext)
        elif report.skipped or report.when == "call":
            self._record(report.nodeid, report.outcome)

    def _record(self, test: str, outcome: str, text: str = "") -> None:
        with self._report.open("a") as report:
            theirs = text.find(f'  File "{Path.cwd()}')  # the frames before are pytest's
            report.write(json.dumps([test, outcome, text[max(theirs, 0) :]]) + "\n")


def again_if_disconnected(call: Callable[[], object]) -> None:
    """Tests kill the connections of their clients; what they are told then is not theirs to judge here."""
    try:
        call()
    except redis.ConnectionError:
        call()


def main() -> int:
    chosen, home, report, *options = sys.argv[1:]
    # The directory of this script must not offer its modules to them. (That of hatopo may hold a `tests`: pytest puts
    # theirs before it.)
    sys.path[0] = home
    return int(pytest.main(options, plugins=[Stand(json.loads(chosen), Path(report))]))


if __name__ == "__main__":
    status = main()
    sys.stdout.flush()
    os._exit(status)  # a test that failed may have left a thread that waits for ever
