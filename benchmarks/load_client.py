"""A closed loop of HTTP/1.1 clients, cheap enough to share its cores with the service it loads.

Each client keeps one connection and sends its next request when the last one is answered. Reads
only what a load needs of an answer: its status, where it ends, and its body for who asks for that.
Knows nothing about routes.
"""

import asyncio
import json
import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import cast

import uvloop

_LIMIT_S = 300.0  # after the duration, for the last answers: they are not left to the next load
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Each client sends the requests in turn, from a place of its own on.

    What is answered in the warm-up does not count; `on_answer` gets the body of what does.
    """

    port: int
    requests: Sequence[bytes]
    num_clients: int
    duration_s: float
    warm_up_s: float = 1.0
    on_answer: Callable[[bytes], None] | None = None


@dataclass(frozen=True, slots=True)
class Load:
    """Requests answered with 200 by a number of clients; times at the client."""

    num_clients: int
    num_requests: int
    per_s: float
    median_ms: float
    p95_ms: float
    p99_ms: float


class UnexpectedAnswerError(Exception):
    """Raised for a status other than 200, or a connection that ends within an answer."""


class NoAnswerError(Exception):
    """Raised where the duration of a load is too short to say anything."""


def post(path: str, body: Mapping[str, object], *, is_reused: bool = False) -> bytes:
    """The bytes of a POST of JSON, for whose answer the service is to work.

    With `is_reused` an answer that it has made before will do, as for any other client.
    """
    content = json.dumps(body).encode()
    caching = "" if is_reused else "cache-control: no-store\r\n"
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
        f"{caching}content-length: {len(content)}\r\n\r\n"
    )
    return head.encode() + content


def run_loads(*plans: LoadPlan) -> list[Load]:
    """Carry these out side by side."""
    return uvloop.run(_run(plans))


async def _run(plans: Sequence[LoadPlan]) -> list[Load]:
    return await asyncio.gather(*map(_load, plans))


async def _load(plan: LoadPlan) -> Load:
    loop = asyncio.get_running_loop()
    begin = perf_counter() + plan.warm_up_s
    end = begin + plan.duration_s
    clients: list[_Client] = []
    try:
        for number in range(plan.num_clients):
            turn = number * len(plan.requests) // plan.num_clients
            in_turn = [*plan.requests[turn:], *plan.requests[:turn]]
            _, client = await loop.create_connection(
                partial(_Client, in_turn, begin, end, plan.on_answer), "127.0.0.1", plan.port
            )
            clients.append(client)
        async with asyncio.timeout(plan.warm_up_s + plan.duration_s + _LIMIT_S):
            await asyncio.gather(*(client.done for client in clients))
    finally:
        for client in clients:
            client.close()
    times_s = [time_s for client in clients for time_s in client.times_s]
    if not times_s:
        raise NoAnswerError(f"no request was answered within {plan.duration_s:g} s")
    return Load(
        num_clients=plan.num_clients,
        num_requests=len(times_s),
        per_s=round(len(times_s) / plan.duration_s, 1),
        median_ms=round(1e3 * statistics.median(times_s), 3),
        p95_ms=round(1e3 * percentile(times_s, 0.95), 3),
        p99_ms=round(1e3 * percentile(times_s, 0.99), 3),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed, of those that there are."""
    return sorted(values)[int(share * (len(values) - 1))]


@dataclass(slots=True)
class _Client(asyncio.Protocol):
    """One connection. Counts the answers that come between `begin` and `end`."""

    requests: Sequence[bytes]
    begin: float
    end: float
    on_answer: Callable[[bytes], None] | None
    times_s: list[float] = field(default_factory=list)
    done: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    _transport: asyncio.Transport | None = None
    _received: bytearray = field(default_factory=bytearray)
    _body_start: int = 0  # 0 until the answer's head is complete
    _num_bytes: int = 0  # of the whole answer
    _num_sent: int = 0
    _sent_at: float = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own has no such base
        self._send()

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._body_start:
            end = self._received.find(_HEAD_END)
            if end < 0:
                return
            if not self._received.startswith(b"HTTP/1.1 200"):
                self._fail(bytes(self._received[:500]).decode(errors="replace"))
                return
            self._body_start = end + len(_HEAD_END)
            self._num_bytes = self._body_start + _body_bytes(self._received[:end])
        if len(self._received) == self._num_bytes:
            self._answered()

    def connection_lost(self, exc: Exception | None) -> None:
        self._fail(f"the connection ended: {exc}")

    def close(self) -> None:
        self.done.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _answered(self) -> None:
        now = perf_counter()
        if self.begin <= now <= self.end:
            self.times_s.append(now - self._sent_at)
            if self.on_answer is not None:
                self.on_answer(bytes(self._received[self._body_start :]))
        if now < self.end:
            self._send()
            return
        self.done.set_result(None)

    def _send(self) -> None:
        assert self._transport is not None, "this is a bug: not connected"
        self._received.clear()
        self._body_start = 0
        request = self.requests[self._num_sent % len(self.requests)]
        self._num_sent += 1
        self._sent_at = perf_counter()
        self._transport.write(request)

    def _fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(UnexpectedAnswerError(reason))


def _body_bytes(head: bytearray) -> int:
    """What `content-length` says; every answer of the service has one."""
    _, _, after = bytes(head).lower().partition(_LENGTH)
    return int(after.split(b"\r\n", 1)[0])
