"""Following a job over server-sent events: live, from any event on, and after its end."""

import asyncio
import gc
import json
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import httpx
import pytest
from redis import Redis
from redis.asyncio import Redis as AsyncRedis
from redis.exceptions import ConnectionError as RedisConnectionError

from service import events
from service.bursts import BurstLimiter
from service.events import JobEvents
from service.job_changes import JobChanges
from service.job_client import JobClient
from service.main import create_app
from service.redis_health import RedisHealth
from service.round_trips import RoundTrips
from service.routes.events import _frames
from service.settings import ServiceSettings
from tests.claims import claim_one
from tests.service.conftest import PNG, PNG_BASE64, TestWorker, error_of, serve, wait_for
from worker.contract.events import Event, events_key
from worker.contract.jobs import Failure, FailureCode, JobState, Task
from worker.contract.record import EndedEarly, Outcome, record_key
from worker.contract.records import Finished, Preview, Records, StepReport

ASYNC = {"prefer": "respond-async"}
FAILED = Failure(code=FailureCode.INTERNAL, message="x")
NEVER = "9999999999999-0"


@dataclass(frozen=True)
class Received:
    id: str
    event: str
    data: dict[str, object]


class Frames:
    """What a connection brings, read frame by frame."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    def next(self) -> Received | None:
        """None for a comment; StopIteration at the end."""
        lines = [next(self._lines)]
        while lines[-1]:
            lines.append(next(self._lines))
        if lines[0].startswith(":"):
            return None
        fields = dict(line.split(": ", 1) for line in lines[:-1])
        return Received(fields["id"], fields["event"], json.loads(fields["data"]))

    def __iter__(self) -> Iterator[Received]:
        while True:
            try:
                received = self.next()
            except StopIteration:
                return
            if received is not None:
                yield received


@contextmanager
def following(http: httpx.Client, job_id: str, after: str | None = None) -> Iterator[Frames]:
    headers = {} if after is None else {"last-event-id": after}
    with http.stream("GET", f"/v1/jobs/{job_id}/events", headers=headers) as response:
        assert response.status_code == 200
        yield Frames(response)


def submit(http: httpx.Client) -> str:
    response = http.post("/v1/images/generations", json={"prompt": "x"}, headers=ASYNC)
    job_id: str = response.json()["id"]
    return job_id


def finish(redis: Redis, job_id: str, outcome: Outcome = FAILED) -> None:
    assert Records(redis).finish([Finished(job_id, 1, outcome)]) == [True]


def run(redis: Redis, job_id: str) -> None:
    """Two steps with a preview after the first, and a failure."""
    records = Records(redis)
    claim_one(records, Task.IMAGES)
    preview = Preview(index=0, step=1, png=PNG)
    records.report([StepReport(job_id, 1, 1, 8, remaining_s=None, previews=(preview,))])
    records.report([StepReport(job_id, 1, 2, 8, remaining_s=1.5)])
    finish(redis, job_id)


def test_a_follower_sees_each_event_as_it_happens(http: httpx.Client, redis: Redis) -> None:
    job_id, records = submit(http), Records(redis)
    with following(http, job_id) as frames:
        queued = frames.next()
        claim_one(records, Task.IMAGES)
        started = frames.next()
        records.report([StepReport(job_id, 1, 1, 8, remaining_s=2.25)])
        step = frames.next()
        finish(redis, job_id)
        assert [received.event for received in frames] == ["finished"]
    assert queued is not None
    assert started is not None
    assert step is not None
    assert queued.data == {"type": "queued", "queue_position": 0}
    assert started.data == {"type": "started", "attempt": 1}
    assert step.data == {"type": "step", "step": 1, "total_steps": 8, "remaining_s": 2.25}


def test_a_late_follower_sees_what_has_happened(http: httpx.Client, redis: Redis) -> None:
    job_id = submit(http)
    run(redis, job_id)
    with following(http, job_id) as frames:
        received = list(frames)
    kinds = ["queued", "started", "step", "preview", "step", "finished"]
    assert [each.event for each in received] == kinds
    assert [each.data["type"] for each in received] == kinds
    assert "remaining_s" not in received[2].data
    assert received[3].data["b64_json"] == PNG_BASE64
    assert received[-1].data == {"type": "finished", "status": "failed"}


def test_the_answer_is_an_event_stream_that_no_proxy_holds_back(http: httpx.Client) -> None:
    with following(http, submit(http)) as frames:
        headers = frames.response.headers
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"


def test_a_follower_goes_on_after_the_last_event_it_saw(http: httpx.Client, redis: Redis) -> None:
    job_id = submit(http)
    with following(http, job_id) as frames:
        queued = frames.next()
    assert queued is not None
    with following(http, job_id, queued.id) as frames:
        run(redis, job_id)
        live = list(frames)
    assert [each.event for each in live] == ["started", "step", "preview", "step", "finished"]
    with following(http, job_id, live[2].id) as frames:
        assert list(frames) == live[3:]


def test_every_process_of_the_service_can_be_followed(
    http: httpx.Client, redis: Redis, settings: ServiceSettings
) -> None:
    job_id = submit(http)
    with (
        serve(create_app(settings)) as url,
        httpx.Client(base_url=url) as other,
        following(other, job_id) as frames,
    ):
        assert frames.next() is not None
        run(redis, job_id)
        assert len(list(frames)) == 5


def test_who_saw_the_end_is_told_not_to_come_again(http: httpx.Client, redis: Redis) -> None:
    job_id = submit(http)
    run(redis, job_id)
    with following(http, job_id) as frames:
        end = list(frames)[-1]
    headers = {"last-event-id": end.id}
    assert http.get(f"/v1/jobs/{job_id}/events", headers=headers).status_code == 204


def test_the_record_tells_the_end_when_the_stream_is_gone(http: httpx.Client, redis: Redis) -> None:
    job_id = submit(http)
    run(redis, job_id)
    redis.delete(events_key(job_id))
    with following(http, job_id) as frames:
        [end] = list(frames)
    assert end.data == {"type": "finished", "status": "failed"}
    headers = {"last-event-id": end.id}
    assert http.get(f"/v1/jobs/{job_id}/events", headers=headers).status_code == 204


def test_a_canceled_job_ends_its_followers(http: httpx.Client) -> None:
    job_id = submit(http)
    with following(http, job_id) as frames:
        http.post(f"/v1/jobs/{job_id}/cancel")
        assert [each.event for each in frames] == ["queued", "finished"]


@pytest.mark.usefixtures("worker")
def test_jobs_of_every_task_can_be_followed(http: httpx.Client) -> None:
    answer = http.post("/v1/embeddings", json={"input": "x"}, headers=ASYNC).json()
    with httpx.Client(base_url=http.base_url) as client, following(client, answer["id"]) as frames:
        assert [each.event for each in frames] == ["queued", "started", "finished"]
    assert answer["urls"]["events"] == f"/v1/jobs/{answer['id']}/events"


def test_a_silent_job_keeps_its_connection(
    http: httpx.Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "SILENCE_S", 0.05)
    job_id = submit(http)
    with following(http, job_id) as frames:
        assert frames.next() is not None
        assert frames.next() is None
        run(redis, job_id)
        assert [each.event for each in frames][-1] == "finished"


def test_a_lost_job_ends_its_followers(
    http: httpx.Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "SILENCE_S", 0.05)
    job_id = submit(http)
    with following(http, job_id) as frames:
        frames.next()
        redis.delete(record_key(job_id))
        assert list(frames) == []


def test_an_event_id_from_the_future_ends_with_its_job(
    http: httpx.Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "SILENCE_S", 0.05)
    job_id = submit(http)
    with following(http, job_id, NEVER) as frames:
        run(redis, job_id)
        assert list(frames) == []


def test_a_follower_outlives_a_lost_connection_to_redis(http: httpx.Client, redis: Redis) -> None:
    job_id = submit(http)
    with following(http, job_id) as frames:
        frames.next()
        assert redis.client_kill_filter(_type="normal", skipme=True)
        run(redis, job_id)
        assert [each.event for each in frames][-1] == "finished"


def test_followers_beyond_the_limit_are_refused_until_one_leaves(
    http: httpx.Client, settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_FOLLOWERS", 1)
    job_id = submit(http)
    route = f"/v1/jobs/{job_id}/events"
    with serve(create_app(settings)) as url, httpx.Client(base_url=url, timeout=20) as other:
        with following(other, job_id):  # whether or not it reads
            error = error_of(other.get(route), 503)
        http.post(f"/v1/jobs/{job_id}/cancel")
        wait_for(lambda: other.get(route).is_success)
    assert error["code"] == "too_many_followers"
    assert error["message"] == "1 clients follow jobs here; allowed: 1"


@pytest.mark.parametrize("event_id", ["x", "1", "1-", "-1", "1-1-1", "9" * 20 + "-0"])
def test_what_is_no_event_id_is_refused(http: httpx.Client, event_id: str) -> None:
    headers = {"last-event-id": event_id}
    error = error_of(http.get("/v1/jobs/job_x/events", headers=headers), 400)
    assert error["param"] == "Last-Event-ID"
    assert "allowed: the id of an event" in str(error["message"])


def test_an_unknown_job_has_no_events(http: httpx.Client) -> None:
    assert error_of(http.get("/v1/jobs/job_x/events"), 404)["code"] == "job_not_found"


@pytest.mark.parametrize("state", [JobState.CANCELED, JobState.EXPIRED])
def test_the_last_event_says_how_the_job_ended(
    http: httpx.Client, worker: TestWorker, state: EndedEarly
) -> None:
    worker.answer = lambda _job, _attempt: state
    with following(http, submit(http)) as frames:
        assert list(frames)[-1].data == {"type": "finished", "status": state.value}


def leave_amid(
    read: Callable[..., Awaitable[None]], stops: bool = False
) -> list[dict[str, object]]:
    """What asyncio logs of a follower that left, or whose service stopped, amid this read."""
    logged: list[dict[str, object]] = []

    async def leave() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: logged.append(context))
        async with asyncio.timeout(30), AsyncRedis() as redis:
            patch.setattr(redis, "xread", read)
            health, trips = RedisHealth(redis), RoundTrips(redis)
            changes, bursts = JobChanges(trips, health, 60), BurstLimiter()
            jobs = JobClient(redis, trips, health, changes, bursts, 60)
            job_events = JobEvents(redis, jobs, bursts)
            following = job_events.follow("job_1", None)
            await anext(following)
            follower = asyncio.ensure_future(anext(following))
            await asyncio.sleep(0.01)
            if stops:
                job_events.stop()
            else:
                follower.cancel()
            await asyncio.wait({follower})
            assert follower.cancelled() or isinstance(follower.exception(), StopAsyncIteration)
            await job_events.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}
        gc.collect()

    with pytest.MonkeyPatch.context() as patch:
        asyncio.run(leave())
    return logged


def test_nobody_hears_what_a_read_met_whose_follower_had_left() -> None:
    async def fail_when_canceled(*_: object, **__: object) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise RedisConnectionError from None

    assert leave_amid(fail_when_canceled) == []


@pytest.mark.parametrize("stops", [False, True])
def test_a_read_that_forgot_its_cancel_ends_with_the_service_and_holds_up_nobody(
    stops: bool,
) -> None:
    async def forget_a_cancel(*_: object, **__: object) -> None:
        with suppress(asyncio.CancelledError):
            await asyncio.Event().wait()
        await asyncio.Event().wait()

    assert leave_amid(forget_a_cancel, stops) == []


def test_closed_frames_give_their_place_up_at_once() -> None:
    closed = []

    async def happening() -> AsyncGenerator[Event | None]:
        try:
            yield None
        finally:
            closed.append(True)

    async def close() -> list[bool]:
        following = happening()
        frames = _frames(following)
        await anext(frames)
        await frames.aclose()
        return list(closed)  # before the garbage collector has its turn

    assert asyncio.run(close()) == [True]
