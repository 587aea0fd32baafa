"""What a client cannot do to a connection, whatever it sends or leaves out."""

import asyncio
import json
import socket
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from functools import partial
from urllib.parse import urlsplit

import pytest
from fastapi import FastAPI, Request
from fastapi.responses import StreamingResponse

from service import http_protocol
from tests.service.conftest import serve

POST = b"POST /v1/classify HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
CHUNKED = b"transfer-encoding: chunked\r\n\r\n"
TRAILING = POST + CHUNKED + b"2\r\n{}\r\n0\r\n"


@pytest.fixture
def is_impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http_protocol, "_PATIENCE_S", 0.1)
    monkeypatch.setattr(http_protocol, "_BYTES_PER_S", 10**9)


@pytest.fixture
def send(service_url: str) -> Callable[..., bytes]:
    return partial(exchanged, service_url)


def exchanged(url: str, *pieces: bytes) -> bytes:
    """Send these pieces on a connection of their own; returns all that comes until it ends."""
    address, received = urlsplit(url), b""
    with socket.create_connection((address.hostname, address.port or 0), timeout=20) as client:
        with suppress(ConnectionError):  # it was told enough, and says why
            for piece in pieces:
                client.sendall(piece)
        with suppress(ConnectionError):
            while part := client.recv(2**16):
                received += part
    return received


def error_in(answer: bytes, status: int) -> str:
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), head
    assert b"connection: close" in head
    error = json.loads(body)["error"]
    assert {"message", "type", "param", "code"} == set(error)
    code: str = error["code"]
    return code


@pytest.mark.usefixtures("is_impatient")
@pytest.mark.parametrize(
    "sent",
    [
        b"POST /v1/cl",
        POST,
        POST + b"content-length: 100\r\n\r\n{",
        POST + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n",
        b"GET /healthz HTTP/1.1\r\nhost: x\r\n\r\nGET /he",
    ],
)
def test_a_request_that_is_not_completed_is_refused_in_time(
    send: Callable[..., bytes], sent: bytes
) -> None:
    *_, last = send(sent).split(b"HTTP/1.1 ")
    assert error_in(b"HTTP/1.1 " + last, 408) == "request_timeout"


@pytest.mark.usefixtures("is_impatient")
def test_a_connection_on_which_nothing_is_said_ends(send: Callable[..., bytes]) -> None:
    assert send() == b""


@pytest.mark.usefixtures("is_impatient")
def test_a_refused_body_that_never_ends_ends_the_connection(send: Callable[..., bytes]) -> None:
    answer = send(POST + b"content-length: 999999999\r\n\r\n{")
    assert answer.startswith(b"HTTP/1.1 413 ")


@pytest.mark.parametrize(
    "sent",
    [
        (b"GET /" + b"x" * 70_000,),
        (b"GET / HTTP/1.1\r\nhost: x\r\n", *(b"a: %s\r\n" % (b"x" * 1000) for _ in range(70))),
        (b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 12_000 + b"\r\n",),
        (TRAILING, *[b"a: b\r\n" * 1000] * 70),
        (TRAILING + b"a:", *[b"x" * 10_000] * 30),
    ],
)
def test_an_endless_head_is_refused(send: Callable[..., bytes], sent: tuple[bytes, ...]) -> None:
    assert error_in(send(*sent), 431) == "headers_too_large"


def test_trailers_are_dropped() -> None:
    app = FastAPI()
    seen: list[list[str]] = []

    @app.post("/")
    async def read(request: Request) -> None:
        await request.body()
        seen.append(request.headers.keys())

    head = b"POST / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n" + CHUNKED
    with serve(app) as url:
        answer = exchanged(url, head, b"2\r\n{}\r\n0\r\nx-trailer: 1\r\nhost: evil.example\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert seen == [["host", "connection", "transfer-encoding"]]


def test_few_requests_may_wait_on_a_connection() -> None:
    app, num_begun = FastAPI(), 0

    @app.get("/")
    async def begin() -> None:
        nonlocal num_begun
        num_begun += 1

    with serve(app) as url:
        exchanged(url, b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 5000)
    assert num_begun < 500


def test_what_is_no_http_gets_the_envelope(send: Callable[..., bytes]) -> None:
    assert error_in(send(b"\x16\x03\x01\x02\x00\x01\r\n\r\n"), 400) == "invalid_http"


@pytest.mark.usefixtures("is_impatient")
def test_an_answer_that_nobody_takes_is_given_up() -> None:
    is_over = threading.Event()

    async def endless() -> AsyncIterator[bytes]:
        try:
            while True:
                yield bytes(2**16)
                await asyncio.sleep(0)  # or nobody could be told that the client is gone
        finally:
            is_over.set()

    app = FastAPI()
    app.get("/", response_model=None)(lambda: StreamingResponse(endless()))
    with serve(app) as url:
        address = urlsplit(url)
        with socket.create_connection((address.hostname, address.port or 0)) as client:
            client.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
            assert is_over.wait(20)
