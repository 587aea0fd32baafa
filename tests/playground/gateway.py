"""A gateway on loopback as teams put one before the service: a path prefix, and a key for the API.

The page and its files are for everybody, as a browser asks for them without a key. Answers are
passed on as they come, so that streams of events stay streams.
"""

import http.client
import json
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import urlsplit

PREFIX = "/team/triptych"
KEY = "sk-right"
OTHER_KEY = "sk-of-another"

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "server", "date"}
_REFUSAL = {
    "message": "Incorrect API key provided.",
    "type": "invalid_request_error",
    "param": None,
    "code": "invalid_api_key",
}


@dataclass(frozen=True, slots=True)
class Gateway:
    url: str  # of the page, with the slash at its end


@contextmanager
def gateway(service_url: str) -> Iterator[Gateway]:
    upstream = urlsplit(service_url).netloc

    class Handler(_Handler):
        service = upstream

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield Gateway(f"http://127.0.0.1:{server.server_port}{PREFIX}/")
        finally:
            server.shutdown()
            thread.join()


class _Handler(BaseHTTPRequestHandler):
    service: str

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        path = self.path.removeprefix(PREFIX)
        if not self.path.startswith(f"{PREFIX}/"):
            self._answer(404, {"message": f"{self.path} is not behind this gateway"})
        elif not (self._is_of_the_page(path) or self._has_key()):
            self._answer(401, _REFUSAL)
        else:
            self._pass_on(path)

    do_POST = do_GET
    do_DELETE = do_GET

    def _is_of_the_page(self, path: str) -> bool:
        return path == "/" or path.startswith("/playground/")

    def _has_key(self) -> bool:
        return self.headers.get("authorization") in (f"Bearer {KEY}", f"Bearer {OTHER_KEY}")

    def _answer(self, status: int, error: dict[str, str | None]) -> None:
        body = json.dumps({"error": error}).encode()
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _pass_on(self, path: str) -> None:
        body = self.rfile.read(int(self.headers.get("content-length", "0")))
        headers = dict(self.headers.items())
        with closing(http.client.HTTPConnection(self.service)) as connection:
            connection.request(self.command, path, body or None, headers)
            response = connection.getresponse()
            self.send_response_only(response.status)
            for name, value in response.getheaders():
                if name.lower() not in _HOP_BY_HOP:
                    self.send_header(name, value)
            self.end_headers()  # HTTP/1.0: the end of the connection is that of the body
            try:
                while chunk := response.read1():
                    self.wfile.write(chunk)
                    self.wfile.flush()
            except BrokenPipeError:
                pass  # who followed a stream has left
