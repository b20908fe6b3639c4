"""The middlewares of hatopo.contrib.web: plain applications, driven as servers would drive them."""

from __future__ import annotations

import ast
import io
import sys
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, MutableMapping
from contextvars import ContextVar, copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias
from wsgiref.handlers import SimpleHandler
from wsgiref.util import FileWrapper, setup_testing_defaults
from wsgiref.validate import validator

import anyio
import anyio.to_thread
import pytest

import hatopo
from hatopo.client import Scope
from hatopo.client._scopes import SCOPE
from hatopo.contrib import web
from hatopo.contrib.web import ASGIMiddleware, WSGIMiddleware
from hatopo.routing import ReadFrom
from hatopo.testing import Replication
from tests.client.support import wait_until_fit

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

COOKIE = "fresh=1; Max-Age=10; Path=/; HttpOnly; SameSite=Lax"
Message: TypeAlias = "MutableMapping[str, object]"


def pinned() -> bool:
    """Whether a read that is made now would go to the master, whatever its client's policy."""
    scope = SCOPE.get()
    return scope is not None and scope.policy() == ReadFrom.MASTER


def current() -> Scope:
    scope = SCOPE.get()
    assert scope is not None
    return scope


@dataclass
class Answer:
    status: str
    headers: list[tuple[str, str]]
    body: bytes

    @property
    def cookies(self) -> list[str]:
        return [value for name, value in self.headers if name.lower() == "set-cookie"]


def ask(app: WSGIApplication, method: str = "GET", cookie: str = "", scheme: str = "http") -> Answer:
    """Let wsgiref's server answer one request; both sides of the middleware are held to PEP 3333."""
    environ: dict[str, Any] = {"REQUEST_METHOD": method, "QUERY_STRING": ""}
    if scheme == "https":
        environ["HTTPS"] = "on"
    setup_testing_defaults(environ)
    if cookie:
        environ["HTTP_COOKIE"] = cookie
    sent, errors = io.BytesIO(), io.StringIO()
    handler = SimpleHandler(io.BytesIO(), sent, errors, environ, multithread=True, multiprocess=False)
    handler.os_environ = {}
    handler.run(app)
    assert "Traceback" not in errors.getvalue(), errors.getvalue()
    assert SCOPE.get() is None, "something has leaked into the server's thread"
    head, _, body = sent.getvalue().partition(b"\r\n\r\n")
    status, *lines = head.decode().split("\r\n")
    pairs = [line.partition(": ") for line in lines]
    return Answer(status.partition(" ")[2], [(name, value) for name, _, value in pairs], body)


PLAIN = [("Content-Type", "text/plain")]


def writing(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Writes, then answers."""
    environ["hatopo.scope"].note_write()
    start_response("200 OK", [*PLAIN, ("Set-Cookie", "session=7")])
    return [b"done"]


def reading(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
    """Says what its reads are like."""
    start_response("200 OK", PLAIN)
    return [b"master" if pinned() else b"anybody"]


# ---------------------------------------------------------------------- WSGI: the stretch


def test_the_scope_is_there_in_the_call_the_iteration_and_the_close() -> None:
    seen: list[object] = []

    class Body:
        def __init__(self, scope: Scope) -> None:
            self.scope = scope
            self.left = 2

        def __iter__(self) -> Iterator[bytes]:
            seen.append(("iter", SCOPE.get() is self.scope))
            return self

        def __next__(self) -> bytes:
            if not self.left:
                raise StopIteration
            self.left -= 1
            seen.append(("next", SCOPE.get() is self.scope))
            return b"x"

        def close(self) -> None:
            seen.append(("close", SCOPE.get() is self.scope))

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        seen.append(("call", SCOPE.get() is environ["hatopo.scope"]))
        return Body(environ["hatopo.scope"])

    assert ask(WSGIMiddleware(app)).body == b"xx"
    assert seen == [(step, True) for step in ("call", "iter", "next", "next", "close")]


def test_reads_are_pinned_from_the_first_write_on() -> None:
    seen = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        seen.append(pinned())
        yield b"x"
        current().note_write()
        seen.append(pinned())
        yield b"y"
        seen.append(pinned())

    ask(validator(WSGIMiddleware(validator(app))))
    assert seen == [False, True, True]


def test_what_a_framework_keeps_in_context_variables_is_left_alone() -> None:
    """Django keeps the connections of its caches there, from one request to the next."""
    variable: ContextVar[str] = ContextVar("variable", default="outer")
    seen = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        variable.set("inner")
        yield b"x"
        seen.append(variable.get())

    def asked() -> str:
        ask(WSGIMiddleware(app))
        assert SCOPE.get() is None
        return variable.get()

    assert copy_context().run(asked) == "inner"
    assert seen == ["inner"]


def test_a_scope_of_the_applications_lasts_over_the_pieces_of_its_answer() -> None:
    """Wherever the server runs its steps; around them there is none."""
    seen = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        with hatopo.read_from("nearest") as inner:
            yield b"x"
            seen.append(current() is inner)
            yield b"y"
        seen.append(current() is environ["hatopo.scope"])
        yield b"z"

    body = iter(WSGIMiddleware(app)({"REQUEST_METHOD": "GET"}, lambda *_: lambda _: None))
    pieces = []
    for _ in range(3):
        pieces.append(copy_context().run(next, body))
        assert SCOPE.get() is None
    assert (pieces, seen) == ([b"x", b"y", b"z"], [True, True])


def test_a_scope_that_is_closed_in_another_one_leaves_that_alone() -> None:
    """A generator of a request before, which the garbage collector has found now."""

    def pieces() -> Iterator[int]:
        with hatopo.read_from("nearest"):
            yield 1

    abandoned = pieces()
    copy_context().run(next, abandoned)
    with hatopo.read_from("master") as mine:
        abandoned.close()  # type: ignore[attr-defined]
        assert current() is mine
    left = pieces()
    with hatopo.read_from("master"):
        next(left)
    assert SCOPE.get() is None, "one that is not closed ends with those around it"


def test_requests_that_are_answered_at_the_same_time_do_not_see_each_other() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"begun"
        if environ["REQUEST_METHOD"] == "POST":
            current().note_write()
        yield b""
        yield b"master" if pinned() else b"anybody"

    def begin(method: str) -> Iterator[bytes]:
        environ: dict[str, Any] = {"REQUEST_METHOD": method}
        setup_testing_defaults(environ)
        return iter(WSGIMiddleware(app)(environ, lambda *_: lambda _: None))

    writer, reader = begin("POST"), begin("GET")  # both in this thread
    for _ in range(2):
        next(writer), next(reader)
    assert (next(writer), next(reader)) == (b"master", b"anybody")


def test_an_error_of_the_application_reaches_the_server() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        current().note_write()
        raise LookupError("lost")

    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)
    started: list[str] = []
    with pytest.raises(LookupError):
        WSGIMiddleware(app)(environ, lambda *_: started.append("started") or (lambda _: None))  # type: ignore[func-returns-value]
    assert started == [], "the server can still send an error page"
    assert SCOPE.get() is None


def test_an_answer_that_is_abandoned_leaves_nothing() -> None:
    environ: dict[str, Any] = {}
    setup_testing_defaults(environ)

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"x"

    def serve() -> None:
        assert next(iter(WSGIMiddleware(app)(environ, lambda *_: lambda _: None))) == b"x"

    copy_context().run(serve)  # neither exhausted nor closed: an error in its end would fail this test
    assert SCOPE.get() is None


# ---------------------------------------------------------------------- WSGI: what servers see


def test_a_list_and_a_file_are_passed_on_as_they_are() -> None:
    answer, file = [b"whole"], FileWrapper(io.BytesIO(b"file"))
    environ: dict[str, Any] = {"wsgi.file_wrapper": FileWrapper}
    setup_testing_defaults(environ)
    started: list[str] = []
    for body in (answer, file):

        def app(
            environ: WSGIEnvironment, start_response: StartResponse, body: Iterable[bytes] = body
        ) -> Iterable[bytes]:
            start_response("200 OK", PLAIN)
            return body

        def start_response(status: str, *_: object) -> Callable[[bytes], object]:
            started.append(status)
            return lambda _: None

        assert WSGIMiddleware(app)(environ, start_response) is body
    assert started == ["200 OK"] * 2


def test_headers_go_out_where_the_body_is_empty() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("204 No Content", [])
        current().note_write()
        yield from ()

    answer = ask(WSGIMiddleware(app, cookie="fresh"), "PUT")
    assert answer.status == "204 No Content"
    assert answer.cookies == [COOKIE]


def test_an_application_may_change_its_mind_until_something_is_sent() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        try:
            raise LookupError("lost")
        except LookupError:
            start_response("404 Not Found", PLAIN, sys.exc_info())
        return [b"sorry"]

    answer = ask(validator(WSGIMiddleware(validator(app), cookie="fresh")))
    assert (answer.status, answer.body) == ("404 Not Found", b"sorry")


def test_an_application_that_changes_its_mind_too_late_meets_its_error() -> None:
    met = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"half"
        try:
            raise LookupError("lost")
        except LookupError:
            try:
                start_response("500 Oops", PLAIN, sys.exc_info())
            except LookupError as error:
                met.append(str(error))

    assert ask(WSGIMiddleware(app)).body == b"half"
    assert len(met) == 1
    assert "lost" in met[0]


def test_starting_twice_is_an_error() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        start_response("200 OK", PLAIN)
        with pytest.raises(AssertionError, match="twice"):
            start_response("200 OK", PLAIN)
        return [b"x"]

    assert ask(WSGIMiddleware(app)).body == b"x"


def test_the_old_write_hands_the_headers_over() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        write = start_response("200 OK", PLAIN)
        current().note_write()
        write(b"a")
        write(b"b")
        return [b"c"]

    answer = ask(validator(WSGIMiddleware(validator(app), cookie="fresh")), "POST")
    assert answer.body == b"abc"
    assert answer.cookies == [COOKIE]


# ---------------------------------------------------------------------- WSGI: the cookie


def test_who_has_written_is_given_the_cookie_besides_the_headers_of_the_application() -> None:
    answer = ask(validator(WSGIMiddleware(validator(writing), cookie="fresh")), "POST")
    assert answer.cookies == ["session=7", COOKIE]
    assert answer.body == b"done"
    assert ("Content-Type", "text/plain") in answer.headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
def test_methods_that_change_something_set_it(method: str) -> None:
    assert COOKIE in ask(WSGIMiddleware(writing, cookie="fresh"), method).cookies


def test_a_get_that_fills_a_cache_sets_none() -> None:
    assert ask(WSGIMiddleware(writing, cookie="fresh"), "GET").cookies == ["session=7"]


def test_other_methods_may_be_chosen() -> None:
    app = WSGIMiddleware(writing, cookie="fresh", cookie_methods=["get"])
    assert COOKIE in ask(app, "GET").cookies
    assert COOKIE not in ask(app, "POST").cookies


def test_who_has_only_read_is_given_none() -> None:
    assert ask(WSGIMiddleware(reading, cookie="fresh"), "POST").cookies == []


def test_without_a_name_there_is_no_cookie() -> None:
    assert ask(WSGIMiddleware(writing), "POST").cookies == ["session=7"]
    assert ask(WSGIMiddleware(reading), cookie="None=1").body == b"anybody"


def test_over_https_the_cookie_is_secure() -> None:
    assert f"{COOKIE}; Secure" in ask(WSGIMiddleware(writing, cookie="fresh"), "POST", scheme="https").cookies


def test_the_age_of_the_cookie_is_a_whole_number() -> None:
    (_, cookie) = ask(WSGIMiddleware(writing, cookie="fresh", cookie_seconds=2.5), "POST").cookies
    assert "; Max-Age=3; " in cookie


def test_what_is_written_before_the_body_begins_counts() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        current().note_write()
        yield b"x"

    assert ask(WSGIMiddleware(app, cookie="fresh"), "POST").cookies == [COOKIE]


def test_what_is_written_after_the_body_has_begun_does_not() -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield b"x"
        current().note_write()

    assert ask(WSGIMiddleware(app, cookie="fresh"), "POST").cookies == []


@pytest.mark.parametrize("cookie", ["fresh=1", "a=b; fresh=1; c", "a=b;fresh=1", " fresh = 1 "])
def test_the_cookie_pins(cookie: str) -> None:
    assert ask(WSGIMiddleware(reading, cookie="fresh"), cookie=cookie).body == b"master"


@pytest.mark.parametrize("cookie", ["", "fresh", "fresh=", "fresh=2", "refresh=1", "a=fresh=1", ";;=;"])
def test_anything_else_does_not(cookie: str) -> None:
    assert ask(WSGIMiddleware(reading, cookie="fresh"), cookie=cookie).body == b"anybody"


def test_whoever_comes_with_the_cookie_is_not_given_it_again_for_reading() -> None:
    seen: list[bool] = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        seen.append(environ["hatopo.scope"].wrote)
        return reading(environ, start_response)

    assert ask(WSGIMiddleware(app, cookie="fresh"), "POST", cookie="fresh=1").cookies == []
    assert seen == [False], "the scope tells what this request has written"
    assert COOKIE in ask(WSGIMiddleware(writing, cookie="fresh"), "POST", cookie="fresh=1").cookies


# ---------------------------------------------------------------------- ASGI


Receive: TypeAlias = "Callable[[], Awaitable[Message]]"
Send: TypeAlias = "Callable[[Message], Awaitable[None]]"
App: TypeAlias = "Callable[[Message, Receive, Send], Awaitable[None]]"


def serve(app: App, *received: Message, backend: str = "asyncio", **scope: object) -> list[Message]:
    """Serve one connection; what the application has sent."""
    sent: list[Message] = []
    waiting = iter(received)

    async def receive() -> Message:
        return next(waiting)

    async def send(message: Message) -> None:
        sent.append(message)

    async def main() -> None:
        await app({"type": "http", "method": "GET", "headers": [], **scope}, receive, send)
        assert SCOPE.get() is None

    anyio.run(main, backend=backend)
    return sent


async def nothing() -> Message:
    raise AssertionError


async def nowhere(message: Message) -> None:
    raise AssertionError


def cookies_of(sent: list[Message]) -> list[str]:
    (start,) = [message for message in sent if message["type"] == "http.response.start"]
    headers: Any = start["headers"]
    return [value.decode() for name, value in headers if name == b"set-cookie"]


async def writes(scope: Message, receive: Receive, send: Send) -> None:
    current().note_write()
    await send({"type": "http.response.start", "status": 200, "headers": [(b"set-cookie", b"session=7")]})
    await send({"type": "http.response.body", "body": b"master" if pinned() else b"anybody"})


async def reads(scope: Message, receive: Receive, send: Send) -> None:
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"master" if pinned() else b"anybody"})


@pytest.mark.parametrize("backend", ["asyncio", "trio"])
def test_asgi_who_has_written_is_pinned_and_given_the_cookie(backend: str) -> None:
    sent = serve(ASGIMiddleware(writes, cookie="fresh"), method="POST", backend=backend)
    assert cookies_of(sent) == ["session=7", COOKIE]
    assert sent[1]["body"] == b"master"


def test_asgi_the_headers_of_the_application_are_not_written_to() -> None:
    head: Message = {"type": "http.response.start", "status": 200, "headers": [(b"a", b"b")]}

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        current().note_write()
        await send(head)

    assert cookies_of(serve(ASGIMiddleware(app, cookie="fresh"), method="PUT")) == [COOKIE]
    assert head["headers"] == [(b"a", b"b")]


def test_asgi_who_has_not_is_not() -> None:
    sent = serve(ASGIMiddleware(reads, cookie="fresh"), method="POST")
    assert cookies_of(sent) == []
    assert sent[1]["body"] == b"anybody"
    assert cookies_of(serve(ASGIMiddleware(writes, cookie="fresh"))) == ["session=7"], "a GET"
    assert cookies_of(serve(ASGIMiddleware(writes), method="POST")) == ["session=7"], "without a name"


def test_asgi_the_cookie_is_secure_over_https() -> None:
    sent = serve(ASGIMiddleware(writes, cookie="fresh"), method="POST", scheme="https")
    assert cookies_of(sent)[-1] == f"{COOKIE}; Secure"


def test_asgi_what_is_written_after_the_headers_sets_none() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        await reads(scope, receive, send)
        current().note_write()

    assert cookies_of(serve(ASGIMiddleware(app, cookie="fresh"), method="POST")) == []


@pytest.mark.parametrize(
    ("headers", "read"),
    [
        ([(b"cookie", b"fresh=1")], b"master"),
        ([(b"cookie", b"a=b"), (b"cookie", b"fresh=1")], b"master"),  # HTTP/2 may split them
        ([(b"cookie", b"a=b; caf\xe9; fresh=1")], b"master"),
        ([(b"cookie", b"fresh=2")], b"anybody"),
        ([(b"x-cookie", b"fresh=1")], b"anybody"),
        ([], b"anybody"),
    ],
)
def test_asgi_the_cookie_pins(headers: list[tuple[bytes, bytes]], read: bytes) -> None:
    sent = serve(ASGIMiddleware(reads, cookie="fresh"), headers=headers)
    assert sent[1]["body"] == read
    assert cookies_of(sent) == [], "a read does not renew it"


def test_asgi_a_worker_thread_writes_for_its_request() -> None:
    async def app(scope: Message, receive: Receive, send: Send) -> None:
        pin: Any = scope["hatopo.scope"]
        assert await anyio.to_thread.run_sync(SCOPE.get) is pin
        await anyio.to_thread.run_sync(lambda: current().note_write())
        await reads(scope, receive, send)

    sent = serve(ASGIMiddleware(app, cookie="fresh"), method="POST")
    assert cookies_of(sent) == [COOKIE]
    assert sent[1]["body"] == b"master"


def test_asgi_requests_that_are_answered_at_the_same_time_do_not_see_each_other() -> None:
    async def main() -> dict[str, bool]:
        found = {}
        everybody_is_there, written = anyio.Event(), anyio.Event()

        async def app(scope: Message, receive: Receive, send: Send) -> None:
            if scope["method"] == "POST":
                await everybody_is_there.wait()
                current().note_write()
                written.set()
            else:
                everybody_is_there.set()
                await written.wait()
            found[str(scope["method"])] = pinned()

        async with anyio.create_task_group() as group:
            for method in ("POST", "GET"):
                scope: Message = {"type": "http", "method": method}
                group.start_soon(ASGIMiddleware(app), scope, nothing, nowhere)
        return found

    assert anyio.run(main) == {"POST": True, "GET": False}


def test_asgi_the_scope_is_given_to_the_application_and_to_nobody_outside() -> None:
    given: list[object] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        given.append(scope["hatopo.scope"] is SCOPE.get())

    outside: Message = {"type": "http", "method": "GET", "headers": []}

    anyio.run(ASGIMiddleware(app), outside, nothing, nowhere)
    assert given == [True]
    assert "hatopo.scope" not in outside


def test_asgi_lifespan_passes_through() -> None:
    seen: list[object] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        seen.extend([SCOPE.get(), "hatopo.scope" in scope, await receive()])
        await send({"type": "lifespan.startup.complete"})

    sent = serve(ASGIMiddleware(app, cookie="fresh"), {"type": "lifespan.startup"}, type="lifespan")
    assert seen == [None, False, {"type": "lifespan.startup"}]
    assert sent == [{"type": "lifespan.startup.complete"}]


def test_asgi_a_websocket_is_one_stretch_without_the_cookie() -> None:
    seen: list[bool] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        assert scope["hatopo.scope"] is SCOPE.get()
        seen.append(pinned())
        await receive()
        await send({"type": "websocket.accept", "headers": []})
        current().note_write()
        await receive()
        seen.append(pinned())
        with hatopo.read_from("replica_preferred"):
            seen.append(pinned())

    cookie = [(b"cookie", b"fresh=1")]
    received: list[Message] = [{"type": "websocket.connect"}, {"type": "websocket.receive", "text": "x"}]
    sent = serve(ASGIMiddleware(app, cookie="fresh"), *received, type="websocket", headers=cookie)
    assert seen == [False, True, False]
    assert sent == [{"type": "websocket.accept", "headers": []}]


# ---------------------------------------------------------------------- both


@pytest.mark.parametrize("middleware", [WSGIMiddleware, ASGIMiddleware])
@pytest.mark.parametrize(
    "options",
    [
        *({"cookie": name} for name in ("", "a b", "a;b", "a=b", "ü", 'a"b', "a\n", 7, True, b"fresh")),
        *({"cookie_seconds": seconds} for seconds in (0, -1, True, "5", None, float("nan"), float("inf"))),
        *({"cookie_methods": methods} for methods in ("POST", [1])),
    ],
    ids=str,
)
def test_wrong_arguments_are_refused(middleware: type, options: dict[str, object]) -> None:
    (name,) = options
    with pytest.raises(hatopo.OptionError, match=f"^{name} "):
        middleware(reading, **options)


def test_no_framework_is_imported() -> None:
    tree = ast.parse(Path(web.__file__).read_text())
    modules: Collection[str] = {node.module or "" for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
    foreign = {module.partition(".")[0] for module in modules} - sys.stdlib_module_names
    assert foreign == {"hatopo", "_typeshed"}, "the latter for type checkers only"


# ---------------------------------------------------------------------- over servers


@pytest.fixture(scope="module")
def stale() -> Iterator[Replication]:
    """A master, and a replica that applies nothing that is written from now on."""
    with Replication(replicas=1) as deployment:
        deployment.master().execute("SET", "k", "old")
        deployment.wait_stable()
        deployment.replicas()[0].set_lag(ops=1_000_000)
        yield deployment


@pytest.fixture
def store(stale: Replication) -> Iterator[hatopo.Redis]:
    stale.master().execute("SET", "k", "new")
    addresses = [node.address for node in stale.nodes]
    with hatopo.replicated(addresses, read_from="replica", decode_responses=True) as client:
        wait_until_fit(client, 2)
        yield client


def names(stale: Replication, scope: Scope) -> list[str]:
    """Who has answered, as roles."""
    roles = {stale.master().address: "master", stale.replicas()[0].address: "replica"}
    return [roles[node.host, node.port] for node in scope.nodes]


def test_a_request_reads_what_it_has_written(stale: Replication, store: hatopo.Redis) -> None:
    answered = []

    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterator[bytes]:
        start_response("200 OK", PLAIN)
        yield str(store.get("k")).encode()
        store.set("k", "newer")
        yield b" "
        yield str(store.get("k")).encode()
        answered.append(names(stale, environ["hatopo.scope"]))

    assert ask(WSGIMiddleware(app)).body == b"old newer"
    assert answered == [["replica", "master"]]
    assert store.get("k") == "old", "outside of requests the policy is the client's"


def test_its_user_does_with_the_cookie(stale: Replication, store: hatopo.Redis) -> None:
    def app(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        if environ["REQUEST_METHOD"] == "POST":
            store.set("k", "mine")
            start_response("303 See Other", [*PLAIN, ("Location", "/")])
            return [b""]
        start_response("200 OK", PLAIN)
        return [str(store.get("k")).encode()]

    middleware = WSGIMiddleware(app, cookie="fresh")
    (given,) = ask(middleware, "POST").cookies
    assert ask(middleware, cookie=given.partition(";")[0]).body == b"mine"
    assert ask(middleware).body == b"old", "somebody else"


def test_asgi_does_both(stale: Replication, store: hatopo.Redis) -> None:
    answered: list[list[str]] = []

    async def app(scope: Message, receive: Receive, send: Send) -> None:
        if scope["method"] == "PUT":
            await anyio.to_thread.run_sync(store.set, "k", "ours")
        found = await anyio.to_thread.run_sync(store.get, "k")
        pin = scope["hatopo.scope"]
        assert isinstance(pin, Scope)
        answered.append(names(stale, pin))
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": str(found).encode()})

    middleware = ASGIMiddleware(app, cookie="fresh")
    sent = serve(middleware, method="PUT")
    assert sent[1]["body"] == b"ours"
    (given,) = cookies_of(sent)
    cookie = [(b"cookie", given.partition(";")[0].encode())]
    assert serve(middleware, headers=cookie)[1]["body"] == b"ours"
    assert serve(middleware)[1]["body"] == b"old"
    assert answered == [["master"], ["master"], ["replica"]]
