"""The worker's own HTTP port: `/metrics`, `/healthz`, and 404 for all else.

Nothing here is asked for by clients of the service. Knows nothing of what is measured.
"""

import logging
import socket
import sys
import threading
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server
from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

from prometheus_client import CollectorRegistry, make_wsgi_app

logger = logging.getLogger(__name__)

_TIMEOUT_S = 30.0  # for a client to speak and to read: each has a thread until then
_TEXT = [("Content-Type", "text/plain; charset=utf-8")]


class MetricsServer:
    """Serves from a thread of its own until it is closed."""

    def __init__(
        self, host: str, port: int, registry: CollectorRegistry, is_alive: Callable[[], bool]
    ) -> None:
        """Raises OSError where the port cannot be had."""
        # it answers in OpenMetrics to who asks for that
        self._expose: WSGIApplication = make_wsgi_app(registry)
        self._is_alive = is_alive
        family, _, _, _, _ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        kind = type("_Server", (_Server,), {"address_family": family})
        self._server: WSGIServer = make_server(host, port, self._answer, kind, _QuietHandler)
        self._thread = threading.Thread(
            target=self._server.serve_forever, name="metrics", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()
        self._server.server_close()

    def _answer(
        self, environment: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        match environment["PATH_INFO"]:
            case "/metrics":
                return self._expose(environment, start_response)
            case "/healthz" if self._is_alive():
                start_response("200 OK", _TEXT)
                return [b"ok\n"]
            case "/healthz":
                start_response("503 Service Unavailable", _TEXT)
                return [b"the heartbeat is old\n"]
            case _:
                start_response("404 Not Found", _TEXT)
                return [b"/metrics and /healthz are here\n"]


class _Server(ThreadingMixIn, WSGIServer):
    daemon_threads = True  # an open connection keeps no worker from its end

    def handle_error(self, request: object, client_address: object) -> None:  # noqa: ARG002
        """Say in a line who left or said nothing; the library would print a traceback."""
        logger.debug(
            "event=metrics_connection_lost client=%s reason=%r", client_address, sys.exc_info()[1]
        )


class _QuietHandler(WSGIRequestHandler):
    timeout = _TIMEOUT_S

    def log_message(self, format: str, *args: object) -> None:  # the library's name
        """Nothing: it is asked every few seconds."""
