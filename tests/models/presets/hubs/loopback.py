"""A server on this machine that speaks Hugging Face's, Kaggle's and ModelScope's protocols.

As far as their official clients use them to list and download models. A repository can be gated,
break off a download once, or send other bytes than it lists.
"""

from collections.abc import Callable
from dataclasses import dataclass, field
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread
from typing import Self
from urllib.parse import parse_qs, unquote, urlsplit

TOKEN = "a-token-that-may-read"


@dataclass(slots=True)
class Repository:
    """What a hub holds under one name; every revision has files of its own."""

    files: dict[str, bytes]
    revisions: dict[str, dict[str, bytes]] = field(default_factory=dict)
    committed_s: int = 1_700_000_000  # since 1970
    needs_token: bool = False
    breaks_off: dict[str, int] = field(default_factory=dict)  # file: bytes sent, the first time
    sends_instead: dict[str, bytes] = field(default_factory=dict)
    num_downloads: dict[str, int] = field(default_factory=dict)
    failure: "Response | None" = None  # to everything
    file_gate: Event | None = None  # no file is sent before it is set

    def at(self, revision: str, default: str) -> dict[str, bytes] | None:
        return self.files if revision == default else self.revisions.get(revision)


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]  # names in lower case
    body: bytes

    @property
    def has_token(self) -> bool:
        return self.headers.get("authorization") == f"Bearer {TOKEN}"


@dataclass(frozen=True, slots=True)
class Response:
    status: int = HTTPStatus.OK
    headers: dict[str, str] = field(default_factory=dict)
    body: bytes = b""
    num_sent: int | None = None  # break off after so many bytes


Answer = Callable[[Request, dict[str, Repository], str], Response | None]


class Loopback(ThreadingHTTPServer):
    """The hubs; `repositories` maps `hf:ORG/NAME` and the like to what they hold."""

    daemon_threads = True

    def __init__(self, answers: tuple[Answer, ...]) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers = answers
        self.repositories: dict[str, Repository] = {}

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}"

    def add(self, name: str, repository: Repository) -> Repository:
        self.repositories[name] = repository
        return repository

    def __enter__(self) -> Self:
        Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.shutdown()
        self.server_close()


def send_file(
    request: Request, repository: Repository, name: str, body: bytes, headers: dict[str, str]
) -> Response:
    """Answer with a file, or with the range of it that was asked for."""
    body = repository.sends_instead.get(name, body)
    if repository.file_gate is not None:
        repository.file_gate.wait(timeout=10)
    if request.method == "GET":
        repository.num_downloads[name] = repository.num_downloads.get(name, 0) + 1
    headers = headers | {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream"}
    asked = request.headers.get("range", "").removeprefix("bytes=")
    if asked:
        start = int(asked.partition("-")[0])
        headers["Content-Range"] = f"bytes {start}-{len(body) - 1}/{len(body)}"
        return Response(HTTPStatus.PARTIAL_CONTENT, headers, body[start:])
    num_sent = repository.breaks_off.pop(name, None) if request.method == "GET" else None
    return Response(HTTPStatus.OK, headers, body, num_sent)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Loopback

    def _answer(self) -> None:
        url = urlsplit(self.path)  # of a proxied request, the whole URL
        length = int(self.headers.get("Content-Length", "0"))
        request = Request(
            self.command,
            unquote(url.path),
            {name: values[-1] for name, values in parse_qs(url.query).items()},
            {name.lower(): value for name, value in self.headers.items()},
            self.rfile.read(length),
        )
        given = (
            each(request, self.server.repositories, self.server.url) for each in self.server.answers
        )
        self._send(next((each for each in given if each is not None), Response(404)))

    def _send(self, response: Response) -> None:
        self.send_response(response.status)
        for name, value in response.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(response.body)))
        self.end_headers()
        if self.command == "HEAD":
            return
        self.wfile.write(response.body[: response.num_sent])
        if response.num_sent is not None:
            self.close_connection = True

    do_GET = do_HEAD = do_POST = _answer

    def log_message(self, format: str, *args: object) -> None:
        """Stay silent."""
