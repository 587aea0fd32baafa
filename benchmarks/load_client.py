"""HTTP/1.1 clients, cheap enough to share their cores with the service that they load.

A closed loop: each client keeps one connection and sends its next request when the last one is
answered. Or an open one: requests arrive at random whether others are answered or not, and a time
begins when its request arrives, also where it has to wait for a connection, so that a slow answer
slows those behind it in what is measured as well. Reads only what a load needs of an answer: its
status, where it ends, and its body for who asks for that. Knows nothing about routes.
"""

import asyncio
import json
import random
import statistics
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from time import perf_counter
from typing import ClassVar, cast

import uvloop

_LIMIT_S = 300.0  # after the duration, for the last answers: they are not left to the next load
_KEPT_S = 2.0  # a connection that is idle for longer is not used again: servers close those
_HEAD_END = b"\r\n\r\n"
_LENGTH = b"\r\ncontent-length:"


@dataclass(frozen=True, slots=True)
class LoadPlan:
    """Each client sends the requests in turn, from a place of its own on.

    What is answered in the warm-up does not count; `on_answer` gets the body of what does. With
    `arrivals_per_s` the loop is open, and what arrives after the warm-up counts, whenever it is
    answered. Where `counts_errors`, answers other than 200 are counted; else the first one ends it.
    """

    port: int
    requests: Sequence[bytes]
    num_clients: int
    duration_s: float
    warm_up_s: float = 1.0
    on_answer: Callable[[bytes], None] | None = None
    arrivals_per_s: float | None = None
    counts_errors: bool = False


@dataclass(frozen=True, slots=True)
class Load:
    """Requests answered with 200 by a number of clients; times at the client.

    In an open loop a time begins when its request arrives, which is before it is sent where all
    connections wait for answers.
    """

    num_clients: int
    num_requests: int
    per_s: float
    median_ms: float
    p95_ms: float
    p99_ms: float
    num_errors: int = 0  # answers other than 200, where those are counted


class UnexpectedAnswerError(Exception):
    """Raised for a status other than 200, or a connection that ends within an answer."""


class NoAnswerError(Exception):
    """Raised where the duration of a load is too short to say anything."""


def post(path: str, body: Mapping[str, object], *, is_reused: bool = False) -> bytes:
    """The bytes of a POST of JSON, for whose answer the service is to work.

    With `is_reused` an answer that it has made before will do, as for any other client.
    """
    content = json.dumps(body).encode()
    return post_bytes(path, content, "application/json", is_reused=is_reused)


def post_bytes(path: str, content: bytes, media_type: str, *, is_reused: bool = False) -> bytes:
    caching = "" if is_reused else "cache-control: no-store\r\n"
    head = (
        f"POST {path} HTTP/1.1\r\nhost: localhost\r\ncontent-type: {media_type}\r\n"
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
    turns = _Turns(end) if plan.arrivals_per_s is None else _Arrivals(end, plan.arrivals_per_s)
    clients: list[_Client] = []
    try:
        for number in range(plan.num_clients):
            turn = number * len(plan.requests) // plan.num_clients
            in_turn = [*plan.requests[turn:], *plan.requests[:turn]]
            _, client = await loop.create_connection(
                partial(_Client, plan, in_turn, turns, begin, end), "127.0.0.1", plan.port
            )
            clients.append(client)
        async with asyncio.timeout(plan.warm_up_s + plan.duration_s + _LIMIT_S):
            await asyncio.gather(*(client.done for client in clients))
    finally:
        turns.close()
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
        num_errors=sum(client.num_errors for client in clients),
    )


def percentile(values: Sequence[float], share: float) -> float:
    """The value that this share of them does not exceed, of those that there are."""
    return sorted(values)[int(share * (len(values) - 1))]


@dataclass(slots=True)
class _Turns:
    """A closed loop: who is free sends at once, until the end."""

    end: float
    is_open: ClassVar[bool] = False

    def give(self, client: "_Client") -> None:
        now = perf_counter()
        if now < self.end:
            client.send(now)
        else:
            client.finish()

    def is_waiting(self, client: "_Client") -> bool:  # noqa: ARG002
        """Whether a client has nothing to do: never."""
        return False

    def close(self) -> None:
        pass


@dataclass(slots=True)
class _Arrivals:
    """An open loop: requests arrive at random, as from many clients that do not know each other.

    One that finds no free connection waits for one.
    """

    end: float
    per_s: float
    is_open: ClassVar[bool] = True
    _free: deque["_Client"] = field(default_factory=deque)
    _waiting: deque[float] = field(default_factory=deque)  # when they arrived
    _next: float = field(default_factory=perf_counter)
    _random: random.Random = field(default_factory=lambda: random.Random(0))
    _timer: asyncio.TimerHandle | None = None

    def __post_init__(self) -> None:
        self._plan_next()

    def give(self, client: "_Client") -> None:
        if self._waiting:
            client.send(self._waiting.popleft())
        elif self._next >= self.end:
            client.finish()
        else:
            self._free.append(client)

    def is_waiting(self, client: "_Client") -> bool:
        """Whether a client has nothing to do."""
        return client in self._free

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()

    def _plan_next(self) -> None:
        self._next += self._random.expovariate(self.per_s)
        at = min(self._next, self.end)
        delay_s = max(0.0, at - perf_counter())
        self._timer = asyncio.get_running_loop().call_later(delay_s, self._arrive)

    def _arrive(self) -> None:
        if self._next >= self.end:
            while self._free:
                self._free.popleft().finish()
            return
        arrived = self._next
        self._plan_next()
        if self._free:
            self._free.pop().ask(arrived)  # the one that had a request last, as pools of them do
        else:
            self._waiting.append(arrived)


@dataclass(slots=True, eq=False)
class _Client(asyncio.Protocol):
    """One connection, which asks for its turns and keeps the times that count."""

    plan: LoadPlan
    requests: Sequence[bytes]
    turns: _Turns | _Arrivals
    begin: float
    end: float
    times_s: list[float] = field(default_factory=list)
    num_errors: int = 0
    done: asyncio.Future[None] = field(
        default_factory=lambda: asyncio.get_running_loop().create_future()
    )
    _transport: asyncio.Transport | None = None
    _received: bytearray = field(default_factory=bytearray)
    _is_right: bool = True  # the answer's status
    _body_start: int = 0  # 0 until the answer's head is complete
    _num_bytes: int = 0  # of the whole answer
    _num_sent: int = 0
    _answered_at: float = 0.0  # or connected
    _is_renewing: bool = False
    _renewing: asyncio.Task[None] | None = None
    _since: float = 0.0  # when the request was sent, or arrived

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)  # uvloop's own has no such base
        self._answered_at = perf_counter()
        if self._is_renewing:
            self._is_renewing = False
            self.send(self._since)
        else:
            self.turns.give(self)

    def data_received(self, data: bytes) -> None:
        self._received += data
        if not self._body_start:
            end = self._received.find(_HEAD_END)
            if end < 0:
                return
            self._is_right = self._received.startswith(b"HTTP/1.1 200")
            if not self._is_right and not self.plan.counts_errors:
                self._fail(bytes(self._received[:500]).decode(errors="replace"))
                return
            self._body_start = end + len(_HEAD_END)
            self._num_bytes = self._body_start + _body_bytes(self._received[:end])
        if len(self._received) == self._num_bytes:
            self._answered()

    def connection_lost(self, exc: Exception | None) -> None:
        # a server may close what has been idle for a while; anything else is a fault of it
        if not self._is_renewing and not (self._is_stale and self.turns.is_waiting(self)):
            self._fail(f"the connection ended: {exc}")

    @property
    def _is_stale(self) -> bool:
        return perf_counter() - self._answered_at > _KEPT_S

    def ask(self, since: float) -> None:
        """Send the next request, over a new connection where this one was long idle."""
        if self._is_stale:
            self._renewing = asyncio.get_running_loop().create_task(self._renew(since))
        else:
            self.send(since)

    async def _renew(self, since: float) -> None:
        assert self._transport is not None, "this is a bug: not connected"
        self._is_renewing, self._since = True, since
        self._transport.abort()
        try:
            await asyncio.get_running_loop().create_connection(
                lambda: self, "127.0.0.1", self.plan.port
            )
        except OSError as error:
            self._fail(str(error))

    def send(self, since: float) -> None:
        """Send the next request, whose time begins at `since`."""
        assert self._transport is not None, "this is a bug: not connected"
        self._received.clear()
        self._body_start = 0
        request = self.requests[self._num_sent % len(self.requests)]
        self._num_sent += 1
        self._since = since
        self._transport.write(request)

    def finish(self) -> None:
        if not self.done.done():
            self.done.set_result(None)

    def close(self) -> None:
        self.done.cancel()
        if self._renewing is not None:
            self._renewing.cancel()
        if self._transport is not None:
            self._transport.abort()

    def _answered(self) -> None:
        self._answered_at = now = perf_counter()
        counted = self._since if self.turns.is_open else now
        if self.begin <= counted <= self.end:
            self._count(now)
        self.turns.give(self)

    def _count(self, now: float) -> None:
        if not self._is_right:
            self.num_errors += 1
            return
        self.times_s.append(now - self._since)
        if self.plan.on_answer is not None:
            self.plan.on_answer(bytes(self._received[self._body_start :]))

    def _fail(self, reason: str) -> None:
        if not self.done.done():
            self.done.set_exception(UnexpectedAnswerError(reason))


def _body_bytes(head: bytearray) -> int:
    """What `content-length` says; every answer has one."""
    _, _, after = bytes(head).lower().partition(_LENGTH)
    return int(after.split(b"\r\n", 1)[0])
