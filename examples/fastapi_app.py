"""A FastAPI application on Redis Sentinel: reads go to replicas, and what a user has written he reads again.

python examples/fastapi_app.py          needs pip install "hatopo[testing]" fastapi uvicorn, and no Redis server

hatopo has no asyncio client yet. So everything that asks Redis is a plain `def`: FastAPI runs it in a thread of its
pool, where it may wait. An `async def` that calls the client would stop the event loop, and with it everybody.
"""

from __future__ import annotations

import signal
import socket
from collections.abc import Awaitable, Callable
from typing import Annotated

import redis
import uvicorn
from fastapi import Depends, FastAPI, Request, Response
from fastapi.responses import JSONResponse, RedirectResponse
from shop import COOKIE, PORT, Shop, opened, path_of, shown, welcome

from hatopo.contrib.web import ASGIMiddleware


async def body_of(request: Request) -> str:
    """What was sent, as text."""
    return (await request.body()).decode()


Text = Annotated[str, Depends(body_of)]


def create_app(shop: Shop) -> FastAPI:
    """The application. Its middleware keeps a user with the master for some seconds after a write of his."""
    app = FastAPI()

    @app.middleware("http")
    async def show_nodes(request: Request, call_next: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await call_next(request)
        response.headers["X-Redis-Nodes"] = shown(request.scope["hatopo.scope"])
        return response

    app.add_middleware(ASGIMiddleware, cookie=COOKIE)  # the last one that is added is the outermost

    @app.put("/items/{key}")
    def set_item(key: str, value: Text) -> dict[str, str]:
        shop.set_item(key, value)
        return {"key": key}

    @app.post("/items/{key}")
    def set_item_and_see(key: str, value: Text) -> RedirectResponse:
        shop.set_item(key, value)
        return RedirectResponse(path_of(key), 303)

    @app.get("/items/{key}")
    def item(key: str) -> JSONResponse:
        value = shop.item(key)
        return JSONResponse({"key": key, "value": value}, 404 if value is None else 200)

    @app.get("/products/{number}")
    def product(number: str) -> JSONResponse:
        found = shop.products.get(number)
        return JSONResponse(found, 404 if found is None else 200)

    @app.put("/products/{number}")
    def rename_product(number: str, name: Text) -> dict[str, str]:
        shop.rename_product(number, name)
        return {"id": number}

    @app.get("/health")
    def health() -> JSONResponse:
        status, found = shop.health()
        return JSONResponse(found, status)

    @app.exception_handler(redis.ConnectionError)
    @app.exception_handler(redis.TimeoutError)
    def no_redis(request: Request, error: Exception) -> JSONResponse:
        return JSONResponse({"error": str(error)}, 503, {"Retry-After": "1"})

    if shop.servers is not None:
        add_demo(app, shop)
    return app


def add_demo(app: FastAPI, shop: Shop) -> None:
    """What can be done to embedded servers."""

    @app.post("/demo/failover")
    def failover() -> dict[str, str]:
        return {"killed": shop.kill_master()}

    @app.post("/demo/restart")
    def restart() -> str:
        shop.restart()
        return "ok"

    @app.post("/demo/lag")
    def lag(seconds: Text) -> str:
        shop.lag(float(seconds))
        return "ok"

    @app.get("/demo/queries")
    def queries() -> dict[str, int]:
        return shop.database.queries


def main() -> None:
    """Serve until SIGTERM or Ctrl-C; then finish the requests that have come, and close the client."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # uvicorn raises it again when all is done
    with opened() as shop, socket.create_server(("127.0.0.1", PORT)) as listening:
        config = uvicorn.Config(create_app(shop), log_level="warning", timeout_graceful_shutdown=10)
        welcome(listening.getsockname()[1], shop)
        try:
            uvicorn.Server(config).run(sockets=[listening])
        except KeyboardInterrupt:
            print()


if __name__ == "__main__":
    main()
