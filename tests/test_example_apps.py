"""The web applications of the examples, run and asked as a reader would do it, also while their master is lost."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from email.message import Message
from http.cookiejar import CookieJar
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.parse import quote
from urllib.request import HTTPCookieProcessor, ProxyHandler, Request, build_opener

import pytest

import hatopo
from hatopo.testing import SentinelDeployment
from tests.control import eventually

EXAMPLES = Path(__file__).parent.parent / "examples"
APPLICATIONS = ["flask_app.py", "fastapi_app.py"]


@dataclass
class Reply:
    status: int
    found: Any
    nodes: list[str]
    headers: Message


class Application:
    """One of the examples, as a process of its own."""

    def __init__(self, name: str, **environment: str) -> None:
        package = str(Path(hatopo.__file__).parent.parent)
        inherited = {name: value for name, value in os.environ.items() if not name.startswith(("REDIS_", "DEMO_"))}
        environment = {**inherited, "PYTHONPATH": package, "PORT": "0", "DEMO_SPEED": "5", **environment}
        command = [sys.executable, "-W", "error::ResourceWarning", str(EXAMPLES / name)]
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        assert self.process.stdout is not None
        first = self.process.stdout.readline()
        if not first.startswith("Serving on "):
            self.process.kill()
            raise AssertionError(first + self.process.communicate()[0])
        self.url = first.split()[-1]

    def __enter__(self) -> Application:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.returncode is None:  # a test has failed
            self.process.kill()
            print(self.process.communicate()[0])

    def health(self) -> Reply:
        return User(self).ask("GET", "/health")

    def master(self) -> str:
        """Its master, once it has one."""
        return eventually(lambda: str(self._nodes("master")[0]["address"]), what="a master")

    def replicas(self) -> list[str]:
        """The replicas that answer reads."""
        return [node["address"] for node in self._nodes("replica") if not node["refused"]]

    def _nodes(self, role: str) -> list[dict[str, Any]]:
        health = self.health()
        assert health.status == 200, health
        return [node for node in health.found["nodes"] if node["role"] == role]

    def end(self, number: signal.Signals) -> str:
        """Ask it to end; what it has printed since it began to serve."""
        self.process.send_signal(number)
        printed, _ = self.process.communicate(timeout=30)
        assert self.process.returncode == 0, printed
        assert "Traceback" not in printed, printed
        return printed


class User:
    """Somebody with cookies of his own."""

    def __init__(self, application: Application) -> None:
        self._url = application.url
        self._opener = build_opener(ProxyHandler({}), HTTPCookieProcessor(CookieJar()))

    def ask(self, method: str, path: str, body: object = None) -> Reply:
        """One request, and those to which it is redirected."""
        data = None if body is None else str(body).encode()
        request = Request(self._url + path, data, {"Content-Type": "text/plain"}, method=method)
        try:
            answer = self._opener.open(request, timeout=30)
        except HTTPError as error:
            answer = error
        with answer:
            nodes = [node for node in answer.headers["X-Redis-Nodes"].split(", ") if node]
            return Reply(answer.status, json.loads(answer.read()), nodes, answer.headers)


@pytest.fixture(scope="module", params=APPLICATIONS)
def application(request: pytest.FixtureRequest) -> Iterator[Application]:
    with Application(request.param) as application:
        yield application
        application.end(signal.SIGINT)


@pytest.fixture
def user(application: Application) -> User:
    return User(application)


def test_an_item_is_written_and_read(application: Application, user: User) -> None:
    assert user.ask("GET", "/items/none").status == 404
    assert user.ask("PUT", "/items/a", "hello").status == 200
    assert user.ask("POST", f"/items/{quote('ä b?')}", "hi").found == {"key": "ä b?", "value": "hi"}
    assert user.ask("GET", "/items/a").found == {"key": "a", "value": "hello"}


def test_replicas_answer_reads_and_the_master_who_has_written(application: Application) -> None:
    master = application.master()
    eventually(lambda: len(application.replicas()) == 2)
    assert User(application).ask("PUT", "/items/b", "x").nodes == [master]
    readers = [User(application).ask("GET", "/items/b") for _ in range(20)]
    assert master not in {node for reply in readers for node in reply.nodes}
    assert {len(reply.nodes) for reply in readers} == {1}


def test_a_user_reads_what_he_has_written_while_replicas_lag_behind(application: Application) -> None:
    writer, other = User(application), User(application)
    writer.ask("PUT", "/items/c", "old")
    eventually(lambda: len(application.replicas()) == 2)
    eventually(lambda: User(application).ask("GET", "/items/c").found["value"] == "old")
    other.ask("POST", "/demo/lag", 3600)
    try:
        redirected = writer.ask("POST", "/items/c", "new")
        assert redirected.found == {"key": "c", "value": "new"}
        assert redirected.nodes == [application.master()]
        assert writer.ask("GET", "/items/c").found["value"] == "new"
        assert other.ask("GET", "/items/c").found["value"] == "old"
    finally:
        other.ask("POST", "/demo/lag", 0)


def test_many_who_want_the_same_ask_the_database_once(application: Application, user: User) -> None:
    everybody = threading.Barrier(12)

    def get(number: int) -> int:
        everybody.wait(30)
        return User(application).ask("GET", f"/products/{('5', '50')[number % 2]}").status

    with ThreadPoolExecutor(12) as pool:
        assert list(pool.map(get, range(12))) == [200, 404] * 6
    asked = user.ask("GET", "/demo/queries").found
    assert (asked["5"], asked["50"]) == (1, 1)
    assert user.ask("GET", "/products/5").found == {"id": "5", "name": "product 5"}


def test_a_product_that_was_missing_can_be_added(user: User) -> None:
    assert user.ask("GET", "/products/60").status == 404
    user.ask("PUT", "/products/60", "sixty")
    assert user.ask("GET", "/products/60").found == {"id": "60", "name": "sixty"}


class Visitors:
    """Users who write, read that again, and look at things that others have written, until they are told to stop."""

    def __init__(self, application: Application, count: int) -> None:
        self.replies: list[Reply] = []
        self.surprises: list[str] = []
        self.rounds = [0] * count
        self._application = application
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._live, args=(number,)) for number in range(count)]

    def __enter__(self) -> Visitors:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join(60)

    def go_on(self, rounds: int) -> None:
        """Wait until each of them has been round so often from now on."""
        wanted = [done + rounds for done in self.rounds]
        eventually(lambda: all(done >= goal for done, goal in zip(self.rounds, wanted, strict=True)), 60)

    def _live(self, number: int) -> None:
        user, stranger = User(self._application), User(self._application)
        while not self._over.is_set():
            value = str(self.rounds[number])
            written = user.ask("PUT", f"/items/visitor{number}", value)
            read = user.ask("GET", f"/items/visitor{number}")
            if read.found.get("value") != value and read.nodes == written.nodes:  # else it was lost by a failover
                self.surprises.append(f"{value} was written, and then read: {read}")
            self.replies += [written, read, stranger.ask("GET", "/items/a"), stranger.ask("GET", "/products/1")]
            self.rounds[number] += 1


def test_the_master_is_lost_and_nobody_sees_an_error(application: Application, user: User) -> None:
    user.ask("PUT", "/items/a", "hello")
    user.ask("GET", "/products/1")
    old = application.master()
    with Visitors(application, 4) as visitors:
        visitors.go_on(2)
        user.ask("POST", "/demo/failover")
        visitors.go_on(2)
        eventually(lambda: application.master() != old, what="another master")
        eventually(application.replicas, what="a replica that follows the new master")
        visitors.go_on(2)
    assert {reply.status for reply in visitors.replies} == {200}, "a failover is a pause"
    assert visitors.surprises == []
    assert user.ask("GET", "/demo/queries").found["1"] == 1

    def healthy() -> Any:
        health = application.health()
        return (health.status, health.found["status"]) == (200, "ok") and health.found["stats"]

    assert eventually(healthy)["failovers"] > 0
    eventually(lambda: User(application).ask("GET", "/items/a").nodes == application.replicas(), what="reads there")
    user.ask("POST", "/demo/restart")
    eventually(lambda: len(application.health().found["nodes"]) == 3, what="the old master as a replica")


@pytest.mark.parametrize("name", APPLICATIONS)
def test_its_end_waits_for_those_who_are_being_answered(name: str) -> None:
    with Application(name) as application, ThreadPoolExecutor(1) as pool:
        asked = pool.submit(User(application).ask, "GET", "/products/3")
        eventually(lambda: User(application).ask("GET", "/demo/queries").found.get("3"))
        application.end(signal.SIGTERM)
        assert asked.result().found == {"id": "3", "name": "product 3"}


@pytest.mark.parametrize("name", APPLICATIONS)
def test_without_a_master_it_says_so_and_answers_what_it_can(name: str) -> None:
    with SentinelDeployment() as servers:
        sentinels = ",".join(f"{host}:{port}" for host, port in servers.sentinels)
        with Application(name, REDIS_SENTINELS=sentinels, REDIS_SERVICE=servers.name) as application:
            assert User(application).ask("PUT", "/items/a", "hello").status == 200
            assert User(application).ask("GET", "/items/a").status == 200
            for sentinel in servers.sentinel_nodes:
                sentinel.kill()
            servers.kill_master()
            with ThreadPoolExecutor(4) as pool:
                writes = pool.submit(User(application).ask, "PUT", "/items/a", "lost")
                product = pool.submit(User(application).ask, "GET", "/products/1")
                health = pool.submit(application.health)
                item = pool.submit(User(application).ask, "GET", "/items/a")
            assert item.result().found == {"key": "a", "value": "hello"}, "replicas have it"
            assert (writes.result().status, writes.result().headers["Retry-After"]) == (503, "1")
            assert product.result().found == {"id": "1", "name": "product 1"}, "the database has it"
            assert health.result().status == 503
            assert health.result().found["status"] == "no usable master"
            application.end(signal.SIGTERM)
