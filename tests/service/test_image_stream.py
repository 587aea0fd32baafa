"""Images as a stream of events, over real HTTP; OpenAI's own client reads one in each kind."""

import base64
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager

import httpx
import openai
import pytest
from openai.types import ImageEditCompletedEvent
from redis import Redis

from service import events, image_stream
from service.main import create_app
from service.settings import ServiceSettings
from tests.claims import claim_one
from tests.service.conftest import (
    PNG,
    PNG_BASE64,
    PREVIEW,
    TestWorker,
    error_of,
    serve,
    wait_for,
)
from tests.service.test_disconnect import connected, own_server
from worker.contract.jobs import Failure, FailureCode, ImageJob, JobState, Task
from worker.contract.record import record_key
from worker.contract.records import Finished, Records, StepReport

ROUTE = "/v1/images/generations"
EDITS = "/v1/images/edits"
BODY = {"prompt": "x", "seed": 7, "steps": 8, "stream": True}
FAILED = Failure(code=FailureCode.INTERNAL, message="x")


class Events:
    """What a stream brings, event by event."""

    def __init__(self, response: httpx.Response) -> None:
        self.response = response
        self._lines = response.iter_lines()

    @property
    def job_id(self) -> str:
        return self.response.headers["x-job-id"]

    def next(self) -> dict[str, object] | None:
        """None for a comment; StopIteration at the end."""
        lines = [next(self._lines)]
        while lines[-1]:
            lines.append(next(self._lines))
        if lines[0].startswith(":"):
            return None
        fields = dict(line.split(": ", 1) for line in lines[:-1])
        data: dict[str, object] = json.loads(fields["data"])
        assert fields["event"] == data.get("type", "error")
        return data

    def __iter__(self) -> Iterator[dict[str, object]]:
        while True:
            try:
                event = self.next()
            except StopIteration:
                return
            if event is not None:
                yield event


@contextmanager
def streaming(
    http: httpx.Client, body: Mapping[str, object], route: str = ROUTE
) -> Iterator[Events]:
    with http.stream("POST", route, json=body) as response:
        if response.status_code != 200:
            pytest.fail(response.read().decode())
        yield Events(response)


def streamed(
    http: httpx.Client, body: Mapping[str, object], route: str = ROUTE
) -> list[dict[str, object]]:
    with streaming(http, body, route) as stream:
        return list(stream)


def error_in(event: dict[str, object] | None) -> dict[str, object]:
    assert event is not None
    error = event["error"]
    assert isinstance(error, dict)
    assert {"message", "type", "param", "code"} <= set(error)
    return error


def job_of(worker: TestWorker) -> ImageJob:
    [job] = worker.jobs
    assert isinstance(job, ImageJob)
    return job


@pytest.mark.usefixtures("worker")
def test_an_image_comes_as_one_event(http: httpx.Client) -> None:
    with streaming(http, BODY | {"safety_identifier": "s"}) as stream:
        [event] = stream
        headers = stream.response.headers
    assert event["type"] == "image_generation.completed"
    assert event["b64_json"] == PNG_BASE64
    assert (event["size"], event["width"], event["height"]) == ("128x128", 128, 128)
    assert (event["quality"], event["background"], event["output_format"]) == (
        "low",
        "opaque",
        "png",
    )
    assert (event["index"], event["seed"], event["safety_identifier"]) == (0, 7, "s")
    assert headers["content-type"].startswith("text/event-stream")
    assert headers["cache-control"] == "no-cache"
    assert headers["x-accel-buffering"] == "no"


@pytest.mark.usefixtures("worker")
def test_partial_images_come_before_the_images(http: httpx.Client) -> None:
    body = BODY | {"partial_images": 3, "n": 2, "output_format": "webp"}
    received = streamed(http, body)
    partial = [e for e in received if e["type"] == "image_generation.partial_image"]
    assert [(e["index"], e["partial_image_index"], e["step"]) for e in partial] == [
        (index, number, step) for number, step in enumerate((2, 4, 6)) for index in (0, 1)
    ]
    assert {(e["width"], e["height"], e["size"]) for e in partial} == {(16, 8, "128x128")}
    assert {(e["output_format"], e["b64_json"]) for e in partial} == {
        ("png", base64.b64encode(PREVIEW).decode())
    }
    assert [e["type"] for e in received[6:]] == ["image_generation.completed"] * 2
    assert [e["output_format"] for e in received[6:]] == ["webp"] * 2


@pytest.mark.parametrize(
    ("fields", "steps"),
    [
        ({"partial_images": 1}, (4,)),
        ({"partial_images": 3, "steps": 3}, (1, 2)),
        ({"partial_images": 3, "steps": 1}, ()),
        ({"partial_images": 2, "steps": 10, "image": PNG_BASE64, "strength": 0.3}, (1, 2)),
        ({"partial_images": 0}, ()),
        ({"preview_steps": [8, 3]}, (3, 8)),
    ],
)
def test_partial_images_are_evenly_spaced_over_the_steps_that_are_run(
    http: httpx.Client, worker: TestWorker, fields: dict[str, object], steps: tuple[int, ...]
) -> None:
    streamed(http, BODY | fields)
    assert job_of(worker).preview_steps == steps


@pytest.mark.usefixtures("worker")
def test_the_usages_of_a_stream_are_that_of_the_plain_answer(http: httpx.Client) -> None:
    body = BODY | {"n": 3, "image": PNG_BASE64}
    usages = [event["usage"] for event in streamed(http, body)]
    whole = http.post(ROUTE, json=body | {"stream": False}).json()["usage"]
    for name in ("input_tokens", "output_tokens", "total_tokens"):
        assert sum(usage[name] for usage in usages if isinstance(usage, dict)) == whole[name]
    assert whole["input_tokens_details"] == {"text_tokens": 9, "image_tokens": 64}
    assert whole["output_tokens"] == 3 * 64


def test_progress_is_told_to_who_asks(http: httpx.Client, redis: Redis) -> None:
    records = Records(redis)
    body = BODY | {"stream_options": {"include_progress": True}}
    with streaming(http, body) as stream:
        queued = stream.next()
        claim_one(records, Task.IMAGES)
        records.report([StepReport(stream.job_id, 1, 1, 8, remaining_s=2.25)])
        step = stream.next()
        records.finish([Finished(stream.job_id, 1, FAILED)])
        assert error_in(stream.next())["code"] == "internal_error"
    assert queued is not None
    assert step is not None
    assert (queued["type"], queued["position"]) == ("image_generation.queued", 0)
    assert (step["type"], step["step"], step["total_steps"], step["eta_s"]) == (
        "image_generation.progress",
        1,
        8,
        2.25,
    )


@pytest.mark.usefixtures("worker")
def test_an_edit_streams_in_its_own_events(http: httpx.Client) -> None:
    progress = {"stream_options": {"include_progress": True}}
    body = BODY | progress | {"image": PNG_BASE64, "partial_images": 1}
    kinds = [event["type"] for event in streamed(http, body, EDITS)]
    assert kinds == [
        "image_edit.queued",
        "image_edit.progress",
        "image_edit.partial_image",
        "image_edit.completed",
    ]


def test_openais_client_reads_both_streams(service_url: str, worker: TestWorker) -> None:
    with openai.OpenAI(base_url=f"{service_url}/v1", api_key="none") as client:
        painted = list(client.images.generate(prompt="x", stream=True, partial_images=2))
        edited = list(
            client.images.edit(
                image=("a.png", PNG),
                prompt="x",
                stream=True,
                partial_images=1,
                extra_body={"steps": 10, "stream_options": {"include_progress": False}},
            )
        )
    assert [event.type for event in painted] == [
        "image_generation.partial_image",
        "image_generation.partial_image",
        "image_generation.completed",
    ]
    assert [event.type for event in edited] == ["image_edit.partial_image", "image_edit.completed"]
    assert isinstance(edited[1], ImageEditCompletedEvent)
    assert edited[1].usage.input_tokens_details.image_tokens == 64
    assert len(worker.jobs) == 2


@pytest.mark.usefixtures("worker")
def test_a_kept_answer_is_streamed_at_once(http: httpx.Client) -> None:
    first = streamed(http, BODY)
    with streaming(http, BODY) as stream:
        again = list(stream)
        assert stream.response.headers["x-cache"] == "hit"
    assert again[0]["b64_json"] == first[0]["b64_json"]


@pytest.mark.parametrize(
    ("outcome", "code", "kind"),
    [
        (FAILED, "internal_error", "server_error"),
        (
            Failure(code=FailureCode.INVALID_IMAGE, message="image: broken", param="image"),
            "invalid_image",
            "invalid_request_error",
        ),
        (JobState.CANCELED, "job_canceled", "conflict_error"),
        (JobState.EXPIRED, "job_expired", "timeout_error"),
    ],
)
def test_a_job_without_a_result_ends_its_stream_with_an_error(
    http: httpx.Client, worker: TestWorker, outcome: Failure | JobState, code: str, kind: str
) -> None:
    worker.answer = lambda *_: outcome  # type: ignore[assignment]
    with streaming(http, BODY) as stream:
        error = error_in(stream.next())
        assert list(stream) == []
        assert (error["code"], error["type"]) == (code, kind)
        assert error["job_id"] == stream.job_id


def test_openais_client_raises_the_error_of_a_stream(service_url: str, worker: TestWorker) -> None:
    worker.answer = lambda *_: FAILED
    with (
        openai.OpenAI(base_url=f"{service_url}/v1", api_key="none") as client,
        pytest.raises(openai.APIError) as caught,
    ):
        list(client.images.generate(prompt="x", stream=True))
    assert caught.value.code == "internal_error"
    assert len(worker.jobs) == 1


def test_an_error_names_the_field_that_the_image_came_in(
    http: httpx.Client, worker: TestWorker
) -> None:
    worker.answer = lambda *_: Failure(
        code=FailureCode.INVALID_IMAGE, message="image: broken", param="image"
    )
    images = [{"image_url": f"data:image/png;base64,{PNG_BASE64}"}]
    [event] = streamed(http, BODY | {"images": images}, EDITS)
    assert error_in(event)["param"] == "images[0].image_url"


def test_a_lost_job_ends_its_stream_with_an_error(
    http: httpx.Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "SILENCE_S", 0.05)
    with streaming(http, BODY) as stream:
        redis.delete(record_key(stream.job_id))
        assert [error_in(event)["code"] for event in stream] == ["job_lost"]


def test_an_error_of_ours_ends_a_stream_as_one(
    http: httpx.Client, worker: TestWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(image_stream, "encoded_image", broken)
    [event] = streamed(http, BODY)
    assert error_in(event)["code"] == "internal_error"
    assert "a bug" not in str(event)
    assert len(worker.jobs) == 1


def test_a_silent_stream_keeps_its_connection(
    http: httpx.Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "SILENCE_S", 0.05)
    with streaming(http, BODY) as stream:
        assert stream.next() is None
        claim_one(Records(redis), Task.IMAGES)
        Records(redis).finish([Finished(stream.job_id, 1, FAILED)])
        assert [error_in(event)["code"] for event in stream] == ["internal_error"]


def test_the_job_of_a_client_that_leaves_is_canceled(http: httpx.Client, redis: Redis) -> None:
    with streaming(http, BODY) as stream:
        claim_one(Records(redis), Task.IMAGES)
        job_id = stream.job_id
    wait_for(lambda: is_canceled(redis, job_id))


def test_the_job_of_a_client_that_leaves_before_the_first_event_is_canceled(
    service_url: str, http: httpx.Client, redis: Redis
) -> None:
    body = json.dumps(BODY).encode()
    head = f"POST {ROUTE} HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\n"
    with connected(service_url) as client:
        client.sendall(head.encode() + b"content-length: %d\r\n\r\n" % len(body) + body)

    def statuses() -> list[str]:
        return [job["status"] for job in http.get("/v1/jobs").json()["data"]]

    wait_for(lambda: statuses() == ["canceled"])
    assert redis.llen("triptych:queue:images") == 0


def is_canceled(redis: Redis, job_id: str) -> bool:
    record = Records(redis).get(job_id)
    assert record is not None
    return record.is_cancel_requested


def test_a_service_that_stops_says_so_and_leaves_the_job_alone(
    settings: ServiceSettings, redis: Redis
) -> None:
    with (
        own_server(settings, drain_grace_s=5) as (server, url),
        httpx.Client(base_url=url, timeout=20) as http,
        streaming(http, BODY) as stream,
    ):
        claim_one(Records(redis), Task.IMAGES)
        server.should_exit = True
        [event] = stream
        job_id = stream.job_id
    error = error_in(event)
    assert error["code"] == "draining"
    assert str(error["message"]).endswith(f"goes on; read it at /v1/jobs/{job_id}")
    assert not is_canceled(redis, job_id)


@pytest.mark.usefixtures("redis")
def test_a_stream_that_gets_no_place_is_refused_before_it_begins(
    settings: ServiceSettings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "MAX_FOLLOWERS", 0)
    with serve(create_app(settings)) as url, httpx.Client(base_url=url, timeout=20) as http:
        assert error_of(http.post(ROUTE, json=BODY), 503)["code"] == "too_many_followers"

        def statuses() -> list[str]:
            return [job["status"] for job in http.get("/v1/jobs").json()["data"]]

        wait_for(lambda: statuses() == ["canceled"])


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"response_format": "url"}, "response_format", "a stream brings its images in base64"),
        ({"partial_images": 1, "preview_steps": [1]}, "preview_steps", "partial_images says which"),
        (
            {"stream_options": {"include_usage": True}},
            "stream_options.include_usage",
            "unknown parameter",
        ),
        ({"size": "100x100"}, "size", "not a multiple of 16"),
    ],
)
def test_a_stream_that_cannot_be_is_refused_before_it_begins(
    http: httpx.Client, fields: dict[str, object], param: str, says: str
) -> None:
    error = error_of(http.post(ROUTE, json=BODY | fields), 400)
    assert error["param"] == param
    assert says in str(error["message"])


@pytest.mark.usefixtures("redis")
def test_a_full_queue_refuses_a_stream_before_it_begins(settings: ServiceSettings) -> None:
    app = create_app(settings.model_copy(update={"max_queue_depth": 1}))
    with serve(app) as url, httpx.Client(base_url=url, timeout=20) as http:
        http.post(ROUTE, json={"prompt": "y"}, headers={"prefer": "respond-async"})
        assert error_of(http.post(ROUTE, json=BODY), 429)["code"] == "queue_full"


def test_a_preference_does_not_keep_a_stream_from_its_client(
    http: httpx.Client, worker: TestWorker
) -> None:
    headers = {"prefer": "respond-async"}
    response = http.post(ROUTE, json=BODY, headers=headers)
    assert response.headers["content-type"].startswith("text/event-stream")
    assert "preference-applied" not in response.headers
    assert len(worker.jobs) == 1


def test_a_stream_that_is_asked_for_again_tells_the_same(
    http: httpx.Client, worker: TestWorker
) -> None:
    body, headers = BODY | {"partial_images": 2}, {"idempotency-key": "k"}
    first, again = (http.post(ROUTE, json=body, headers=headers) for _ in range(2))
    assert again.headers["idempotency-replayed"] == "true"
    assert again.headers["x-job-id"] == first.headers["x-job-id"]
    assert again.content == first.content
    assert len(worker.jobs) == 1
