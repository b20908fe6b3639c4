"""A Flask application on Redis Sentinel: reads go to replicas, and what a user has written he reads again.

python examples/flask_app.py            needs pip install "hatopo[testing]" flask, and no Redis server

Behind a server for production (gunicorn, uWSGI) make the client and the application once in each process:
`app = create_app(Shop(client))`.
"""

from __future__ import annotations

import signal
import threading

import redis
from flask import Flask, Response, jsonify, redirect, request
from shop import COOKIE, PORT, Shop, opened, path_of, shown, welcome
from werkzeug.serving import ThreadedWSGIServer, WSGIRequestHandler
from werkzeug.wrappers import Response as AnyResponse

from hatopo.contrib.web import WSGIMiddleware


def create_app(shop: Shop) -> Flask:
    """The application. Its middleware keeps a user with the master for some seconds after a write of his."""
    app = Flask(__name__)
    app.wsgi_app = WSGIMiddleware(app.wsgi_app, cookie=COOKIE)  # type: ignore[method-assign]

    @app.put("/items/<key>")
    def set_item(key: str) -> Response:
        shop.set_item(key, request.get_data(as_text=True))
        return jsonify(key=key)

    @app.post("/items/<key>")
    def set_item_and_see(key: str) -> AnyResponse:
        shop.set_item(key, request.get_data(as_text=True))
        return redirect(path_of(key), 303)

    @app.get("/items/<key>")
    def item(key: str) -> tuple[Response, int]:
        value = shop.item(key)
        return jsonify(key=key, value=value), 404 if value is None else 200

    @app.get("/products/<number>")
    def product(number: str) -> tuple[Response, int]:
        found = shop.products.get(number)
        return jsonify(found), 404 if found is None else 200

    @app.put("/products/<number>")
    def rename_product(number: str) -> Response:
        shop.rename_product(number, request.get_data(as_text=True))
        return jsonify(id=number)

    @app.get("/health")
    def health() -> tuple[Response, int]:
        status, found = shop.health()
        return jsonify(found), status

    @app.errorhandler(redis.ConnectionError)
    @app.errorhandler(redis.TimeoutError)
    def no_redis(error: redis.RedisError) -> tuple[Response, int, dict[str, str]]:
        return jsonify(error=str(error)), 503, {"Retry-After": "1"}

    @app.after_request
    def show_nodes(response: Response) -> Response:
        response.headers["X-Redis-Nodes"] = shown(request.environ["hatopo.scope"])
        return response

    if shop.servers is not None:
        add_demo(app, shop)
    return app


def add_demo(app: Flask, shop: Shop) -> None:
    """What can be done to embedded servers."""

    @app.post("/demo/failover")
    def failover() -> Response:
        return jsonify(killed=shop.kill_master())

    @app.post("/demo/restart")
    def restart() -> Response:
        shop.restart()
        return jsonify("ok")

    @app.post("/demo/lag")
    def lag() -> Response:
        shop.lag(float(request.get_data(as_text=True)))
        return jsonify("ok")

    @app.get("/demo/queries")
    def queries() -> Response:
        return jsonify(shop.database.queries)


class Handler(WSGIRequestHandler):
    """Gives up a connection on which nothing is asked: the end would wait for it."""

    timeout = 5

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Nothing: the guide stays in sight."""


class Server(ThreadedWSGIServer):
    """A thread for each request; its end waits for those that are being answered."""

    daemon_threads = False


def main() -> None:
    """Serve until SIGTERM or Ctrl-C; then finish the requests that have come, and close the client."""
    with opened() as shop:
        server = Server("127.0.0.1", PORT, create_app(shop), Handler)
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, lambda *_: threading.Thread(target=server.shutdown).start())
        welcome(server.port, shop)
        server.serve_forever(poll_interval=0.1)


if __name__ == "__main__":
    main()
