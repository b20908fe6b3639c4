"""Middlewares for WSGI and ASGI: what a request has written it reads again, and so does the next one of the same user.

    app = WSGIMiddleware(app, cookie="fresh")                      Flask, Django, ...
    app = ASGIMiddleware(app, cookie="fresh")                      FastAPI, Starlette, Quart, ...

Decides how long a stretch lasts in which reads stay with the master: for a request, from its first write; for its user,
a few seconds more, by a cookie. Must not know any framework, nor where a read goes: it opens a scope and looks at it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Awaitable, Callable, Collection, Iterable, Iterator, MutableMapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeAlias, cast

from hatopo.client import Scope, Stretch, pin_after_write
from hatopo.errors import OptionError

if TYPE_CHECKING:
    from _typeshed import OptExcInfo
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

SCOPE_KEY = "hatopo.scope"
"""Where an application finds the scope of its request: in the WSGI environ, in the ASGI scope."""
UNSAFE_METHODS = ("POST", "PUT", "PATCH", "DELETE")
"""The methods with which a user changes something, as HTTP has it."""
PINNED = "1"

Message: TypeAlias = "MutableMapping[str, object]"
Receive: TypeAlias = "Callable[[], Awaitable[Message]]"
Send: TypeAlias = "Callable[[Message], Awaitable[None]]"
ASGIApplication: TypeAlias = "Callable[[Message, Receive, Send], Awaitable[None]]"
Headers: TypeAlias = "Iterable[tuple[bytes, bytes]]"

_TOKEN = re.compile(r"[!#$%&'*+\-.^_`|~0-9A-Za-z]+")


class WSGIMiddleware:
    """Pins a request to the master after its first write, and its user for some seconds, if there is a cookie.

    The application, the iteration of its answer and the answer's `close` run in the request's scope, which does not
    stay in the server's thread; all other context variables are the framework's business. The scope is in
    `environ["hatopo.scope"]`: `wrote` tells whether this request has written, `nodes` which nodes have answered it.

    Headers are handed to the server with the first piece of the body; what is written later sets no cookie. An answer
    that is a list, a tuple or the server's own `wsgi.file_wrapper` is passed on as it is.

    Args:
        app: the application.
        cookie: the name of the cookie that keeps a user with the master after a write of his, or None for none.
        cookie_seconds: how long it does.
        cookie_methods: the methods of requests that may set it. Others (a GET that fills a cache, or counts) pin
            themselves only.

    Raises:
        OptionError: an argument is wrong.
    """

    def __init__(
        self,
        app: WSGIApplication,
        *,
        cookie: str | None = None,
        cookie_seconds: float = 10.0,
        cookie_methods: Collection[str] = UNSAFE_METHODS,
    ) -> None:
        self._app = app
        self._cookie = _Cookie(cookie, cookie_seconds, cookie_methods)

    def __call__(self, environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        """Answers one request."""
        with _stretch(self._cookie.is_in([environ.get("HTTP_COOKIE", "")])) as pin:
            stretch = Stretch()  # the scope lives on in it
        environ[SCOPE_KEY] = pin
        secure = environ.get("wsgi.url_scheme") == "https"
        head = _Head(start_response, lambda: self._cookie.after(pin, environ.get("REQUEST_METHOD", ""), secure=secure))
        body = stretch.run(self._app, environ, head.start)
        wrapper = environ.get("wsgi.file_wrapper")
        if isinstance(body, (list, tuple)) or (isinstance(wrapper, type) and isinstance(body, wrapper)):
            head.hand_over()
            return body
        return _Body(body, stretch, head)


class ASGIMiddleware:
    """Pins a request to the master after its first write, and its user for some seconds, if there is a cookie.

    The scope is in `scope["hatopo.scope"]`: `wrote` tells whether this request has written, `nodes` which nodes have
    answered it. What runs in tasks and threads that the request starts belongs to it.

    A websocket is one stretch from its handshake to its end: once it has written, its reads stay with the master,
    except those inside `with hatopo.read_from(...)`. It neither sets the cookie nor counts it: that would pin a
    connection that may last for days because of a form sent before. Everything else (lifespan) passes through.

    Args:
        app: the application (ASGI 3).
        cookie: the name of the cookie that keeps a user with the master after a write of his, or None for none.
        cookie_seconds: how long it does.
        cookie_methods: the methods of requests that may set it. Others (a GET that fills a cache, or counts) pin
            themselves only.

    Raises:
        OptionError: an argument is wrong.
    """

    def __init__(
        self,
        app: ASGIApplication,
        *,
        cookie: str | None = None,
        cookie_seconds: float = 10.0,
        cookie_methods: Collection[str] = UNSAFE_METHODS,
    ) -> None:
        self._app = app
        self._cookie = _Cookie(cookie, cookie_seconds, cookie_methods)

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Answers one request, or serves one websocket."""
        kind = scope["type"]
        if kind not in ("http", "websocket"):
            return await self._app(scope, receive, send)
        given = cast("Headers", scope.get("headers", ()))
        cookies = [value.decode("latin-1") for name, value in given if name.lower() == b"cookie"]
        with _stretch(kind == "http" and self._cookie.is_in(cookies)) as pin:

            async def answer(message: Message) -> None:
                if message["type"] == "http.response.start":
                    extra = self._cookie.after(pin, str(scope["method"]), secure=scope.get("scheme") == "https")
                    lines = [(name.lower().encode("latin-1"), value.encode("latin-1")) for name, value in extra]
                    message = {**message, "headers": [*cast("Headers", message.get("headers", ())), *lines]}
                await send(message)

            return await self._app({**scope, SCOPE_KEY: pin}, receive, answer)


@contextmanager
def _stretch(pinned: bool) -> Iterator[Scope]:
    """The scope of a request, unwritten at first; what is read inside goes to the master from the start if `pinned`."""
    with pin_after_write() as scope:
        if not pinned:
            yield scope
            return
        with pin_after_write(pinned=True):  # one of its own: the request's tells what the request has written
            yield scope


class _Cookie:
    """The cookie, if there is one: who sent it, and who is given it."""

    def __init__(self, name: str | None, seconds: float, methods: Collection[str]) -> None:
        if name is not None and not (isinstance(name, str) and _TOKEN.fullmatch(name)):
            raise OptionError(f"cookie must be the name of a cookie (letters, digits, '-', '_' ...), not {name!r}")
        if isinstance(seconds, bool) or not isinstance(seconds, (int, float)) or not 0 < seconds < math.inf:
            raise OptionError(f"cookie_seconds must be a positive number of seconds, not {seconds!r}")
        if isinstance(methods, str) or not all(isinstance(method, str) for method in methods):
            raise OptionError(f"cookie_methods must be a list of methods, as ['POST', 'PUT'], not {methods!r}")
        self._name = name
        self._methods = frozenset(method.upper() for method in methods)
        self._value = f"{name}={PINNED}; Max-Age={math.ceil(seconds)}; Path=/; HttpOnly; SameSite=Lax"

    def is_in(self, headers: Iterable[str]) -> bool:
        """Whether one of these `Cookie` headers has it."""
        if self._name is None:
            return False
        pairs = (pair.partition("=") for header in headers for pair in header.split(";"))
        return any(name.strip() == self._name and value.strip() == PINNED for name, _, value in pairs)

    def after(self, scope: Scope, method: str, *, secure: bool) -> list[tuple[str, str]]:
        """The headers that a request is answered with besides its own, as things stand."""
        if self._name is None or not scope.wrote or method.upper() not in self._methods:
            return []
        return [("Set-Cookie", f"{self._value}; Secure" if secure else self._value)]


class _Head:
    """Status and headers of one WSGI answer, kept until its body begins: only then are they on their way."""

    def __init__(self, start_response: StartResponse, extra: Callable[[], list[tuple[str, str]]]) -> None:
        self._start_response = start_response
        self._extra = extra
        self._kept: tuple[str, list[tuple[str, str]], OptExcInfo | None] | None = None
        self._write: Callable[[bytes], object] | None = None

    def start(
        self, status: str, headers: list[tuple[str, str]], exc_info: OptExcInfo | None = None, /
    ) -> Callable[[bytes], object]:
        """What the application calls `start_response`; may be called again with an error as long as nothing is sent."""
        if self._write is not None:
            return self._start_response(status, headers, exc_info)  # raises: it is too late
        if self._kept is not None and exc_info is None:
            raise AssertionError("start_response was called twice")
        self._kept = status, [*headers], exc_info
        return self._write_first

    def hand_over(self) -> None:
        """Gives them to the server, if the application has named them and that was not done yet."""
        if self._write is None and self._kept is not None:
            (status, headers, exc_info), self._kept = self._kept, None
            self._write = self._start_response(status, [*headers, *self._extra()], exc_info)

    def _write_first(self, data: bytes) -> object:
        self.hand_over()
        return None if self._write is None else self._write(data)


class _Body:
    """The body of one WSGI answer: each step of it, and its end, in the scope of the request."""

    def __init__(self, body: Iterable[bytes], stretch: Stretch, head: _Head) -> None:
        self._body = body
        self._stretch = stretch
        self._head = head
        self._pieces: Iterator[bytes] | None = None

    def __iter__(self) -> Iterator[bytes]:
        self._pieces = self._stretch.run(iter, self._body)
        return self

    def __next__(self) -> bytes:
        if self._pieces is None:
            iter(self)
        try:
            piece = self._stretch.run(next, cast("Iterator[bytes]", self._pieces))
        except StopIteration:
            self._head.hand_over()
            raise
        self._head.hand_over()
        return piece

    def close(self) -> None:
        """What the server calls at the end, also at an early one."""
        close = getattr(self._body, "close", None)
        if close is not None:
            self._stretch.run(close)
