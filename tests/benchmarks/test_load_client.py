"""The load client counts what a real server answers, and nothing else."""

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from time import perf_counter
from unittest.mock import Mock

import pytest
from fastapi import FastAPI, Request, Response

from benchmarks import load_client
from benchmarks.load_client import (
    LoadPlan,
    NoAnswerError,
    UnexpectedAnswerError,
    percentile,
    post,
    run_loads,
)
from tests.service.conftest import serve


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    app = FastAPI()

    @app.post("/bytes")
    async def answer(request: Request) -> Response:
        return Response(b"x" * int((await request.json())["count"]))

    @app.post("/port")
    async def answer_port(request: Request) -> Response:
        assert request.client is not None
        return Response(str(request.client.port).encode())

    turn = asyncio.Lock()

    @app.post("/one_at_a_time")
    async def answer_in_turn() -> Response:
        async with turn:
            await asyncio.sleep(0.01)
        return Response(b"x")

    with serve(app) as url:
        yield int(url.rpartition(":")[2])


def plan(port: int, *counts: int, path: str = "/bytes", duration_s: float = 0.3) -> LoadPlan:
    requests = [post(path, {"count": count}) for count in counts]
    return LoadPlan(port, requests, num_clients=4, duration_s=duration_s, warm_up_s=0.05)


def test_answers_of_any_size_are_counted(port: int) -> None:
    [load] = run_loads(plan(port, 0, 1, 70_000, 1_000_000))
    assert load.num_requests > 4
    assert load.per_s == pytest.approx(load.num_requests / 0.3, abs=0.1)
    assert 0 < load.median_ms <= load.p95_ms <= load.p99_ms


def test_the_bodies_of_the_answers_that_count_can_be_had(port: int) -> None:
    bodies: list[bytes] = []
    [load] = run_loads(replace(plan(port, 1, 0, 200_000), on_answer=bodies.append))
    assert len(bodies) == load.num_requests
    assert set(bodies) == {b"x", b"", b"x" * 200_000}


def test_answers_that_were_made_before_are_taken_by_who_says_so_alone() -> None:
    assert b"\r\ncache-control: no-store\r\n" in post("/bytes", {})
    assert b"cache-control" not in post("/bytes", {}, is_reused=True)


def test_a_percentile_is_one_of_the_values() -> None:
    values = [float(number) for number in range(100, -1, -1)]
    assert [percentile(values, share) for share in (0.0, 0.5, 0.95, 1.0)] == [0, 50, 95, 100]
    assert percentile([3.0], 0.99) == 3.0


def test_loads_run_side_by_side(port: int) -> None:
    loads = run_loads(plan(port, 1), plan(port, 2))
    assert all(load.num_requests > 4 for load in loads)


def test_an_error_is_no_answer(port: int) -> None:
    with pytest.raises(UnexpectedAnswerError, match="404 Not Found"):
        run_loads(plan(port, 1, path="/nothing"))


def test_a_load_that_is_too_short_says_so(port: int) -> None:
    with pytest.raises(NoAnswerError, match="no request was answered within 0 s"):
        run_loads(plan(port, 1, duration_s=0.0))


def test_errors_are_counted_where_that_is_wanted(port: int) -> None:
    both = [*plan(port, 1).requests, *plan(port, 1, path="/nothing").requests]
    [load] = run_loads(replace(plan(port), requests=both, counts_errors=True))
    assert load.num_requests > 4
    assert load.num_errors > 4


def test_arrivals_at_random_come_as_often_as_they_are_told(port: int) -> None:
    [load] = run_loads(replace(plan(port, 1, duration_s=0.5), arrivals_per_s=200))
    assert 50 < load.num_requests < 150  # 100 are expected, 10 is their standard deviation


def test_a_connection_that_was_long_idle_is_not_used_again(
    port: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(load_client, "_KEPT_S", 0.05)
    ports: list[bytes] = []
    rare = replace(
        plan(port, 0, path="/port", duration_s=1.5), arrivals_per_s=5, on_answer=ports.append
    )
    [load] = run_loads(rare)
    assert load.num_errors == 0
    assert len(set(ports)) > 4  # connections


@pytest.mark.parametrize("idle_s", [0.0, 3.0])
def test_a_server_may_close_what_was_long_idle_and_nothing_else(port: int, idle_s: float) -> None:
    async def lose() -> load_client._Client:
        now = perf_counter()
        turns = load_client._Arrivals(now + 1e6, 0.01)
        client = load_client._Client(plan(port, 1), [b""], turns, now, now + 1e6)
        client.connection_made(Mock())
        client._answered_at -= idle_s
        client.connection_lost(None)
        turns.close()
        return client

    client = asyncio.run(lose())
    assert client.done.done() == (idle_s == 0.0)
    assert idle_s or isinstance(client.done.exception(), UnexpectedAnswerError)


def test_a_request_that_waits_for_a_connection_waits_in_what_is_measured(port: int) -> None:
    slow = plan(port, 1, path="/one_at_a_time", duration_s=0.4)
    [closed] = run_loads(replace(slow, num_clients=1))
    [open_loop] = run_loads(replace(slow, num_clients=1, arrivals_per_s=300))
    assert open_loop.num_requests > 2 * closed.num_requests  # what arrived, not what was in time
    # three times as many arrive as are answered: the last one waits for all before it
    assert open_loop.p99_ms > 0.9 * 1e3 * 0.4
    assert open_loop.median_ms > 10 * 10
