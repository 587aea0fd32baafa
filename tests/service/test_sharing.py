"""Equal requests are worked for once: kept answers, shared runs, and what is not to be shared."""

import errno
import os
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest
from redis import Redis

from service.main import create_app
from service.settings import ServiceSettings
from tests.cards import SHAPES, card_of, publish
from tests.service.conftest import PNG, PNG_BASE64, TestWorker, serve, wait_for
from tests.worker.jobs import image
from worker.contract.jobs import Failure, FailureCode, Task
from worker.contract.model_cards import ModelCard
from worker.contract.record import AnyJob, Outcome, record_key, waiting_key

PAINT, SEE, READ = "/v1/images/generations", "/v1/classify", "/v1/embeddings"
BODIES: Mapping[str, dict[str, object]] = {
    PAINT: {"prompt": "a red circle", "seed": 7, "n": 2},
    SEE: {"input": PNG_BASE64},
    READ: {"input": "a red circle"},
}


class Gate:
    """Holds the worker's jobs until it is opened."""

    def __init__(self, worker: TestWorker) -> None:
        self._worker = worker
        self._is_open = threading.Event()
        self.outcome: Outcome | None = None
        worker.answer = self._answer

    def open(self) -> None:
        self._is_open.set()

    def _answer(self, job: AnyJob, attempt: int) -> Outcome:
        assert self._is_open.wait(20)
        return self.outcome or self._worker.default_answer(job, attempt)


@pytest.fixture
def gate(worker: TestWorker) -> Iterator[Gate]:
    gate = Gate(worker)
    yield gate
    gate.open()


def post(http: httpx.Client, path: str = PAINT, **fields: object) -> httpx.Response:
    return http.post(path, json={**BODIES[path], **fields}).raise_for_status()


def shapes_of(results_digest: str | None) -> list[ModelCard]:
    names = ((card.name, card.task) for card in SHAPES)
    return [card_of(name, task, results_digest=results_digest) for name, task in names]


def is_reused(response: httpx.Response) -> str | None:
    reused: str | None = response.headers.get("x-cache")
    return reused


def name_of(item: Mapping[str, str]) -> str:
    """The file of an image that an answer has by its URL."""
    return httpx.URL(item["url"]).path.rpartition("/")[2]


@pytest.mark.parametrize("path", BODIES)
def test_a_repeated_request_is_answered_without_work(
    http: httpx.Client, worker: TestWorker, path: str
) -> None:
    first, second = post(http, path), post(http, path)
    assert [is_reused(first), is_reused(second)] == [None, "hit"]
    assert len(worker.jobs) == 1
    ours, theirs = second.json(), first.json()
    assert ours["data"] == theirs["data"]
    assert ours["id"] != theirs["id"]
    job = http.get(f"/v1/jobs/{ours['id']}").raise_for_status().json()
    assert (job["status"], job["attempt"]) == ("succeeded", 0)


def test_the_images_of_a_kept_answer_can_be_had_in_either_form(
    http: httpx.Client, worker: TestWorker
) -> None:
    [in_text, *_] = post(http).json()["data"]
    [by_url, *_] = post(http, response_format="url").json()["data"]
    assert in_text["b64_json"] == PNG_BASE64
    assert http.get(by_url["url"]).content == PNG
    assert len(worker.jobs) == 1


def test_the_images_of_a_kept_answer_are_as_good_as_new(
    http: httpx.Client, worker: TestWorker
) -> None:
    name = name_of(post(http, response_format="url").json()["data"][0])
    file = worker.image_files.path(name)
    os.utime(file, (1, 1))
    assert is_reused(post(http)) == "hit"
    assert file.stat().st_mtime > 1e9


def test_an_answer_whose_images_are_gone_is_made_again(
    http: httpx.Client, worker: TestWorker
) -> None:
    name = name_of(post(http, response_format="url").json()["data"][1])
    worker.image_files.path(name).unlink()
    again = post(http)
    assert (is_reused(again), len(worker.jobs)) == (None, 2)
    assert len(again.json()["data"]) == 2
    assert is_reused(post(http)) == "hit"


def test_an_answer_whose_images_are_another_users_is_made_again(
    http: httpx.Client, worker: TestWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EPERM, "Operation not permitted", str(path))

    post(http)
    monkeypatch.setattr(os, "utime", refuse)
    again = post(http)
    assert (is_reused(again), len(worker.jobs)) == (None, 2)


def test_embeddings_are_kept_whatever_their_encoding(
    http: httpx.Client, worker: TestWorker
) -> None:
    post(http, READ, encoding_format="base64")
    assert is_reused(post(http, READ, encoding_format="float")) == "hit"
    assert len(worker.jobs) == 1


@pytest.mark.usefixtures("worker")
def test_an_image_is_the_same_in_either_kind_of_body(http: httpx.Client) -> None:
    post(http, SEE)
    files = {"file": ("a.png", PNG, "image/png")}
    assert is_reused(http.post(SEE, files=files)) == "hit"


@pytest.mark.usefixtures("worker")
def test_a_start_image_counts_by_its_content(http: httpx.Client) -> None:
    red, blue = image((250, 0, 0)), image((0, 0, 250))
    answers = [post(http, image=start) for start in (red, blue, red)]
    assert [is_reused(answer) for answer in answers] == [None, None, "hit"]


@pytest.mark.parametrize("fields", [{"seed": None}, {"preview_steps": [1]}], ids=str)
def test_images_that_nobody_could_ask_for_again_are_always_painted(
    http: httpx.Client, worker: TestWorker, fields: dict[str, object]
) -> None:
    assert [is_reused(post(http, PAINT, **fields)) for _ in range(2)] == [None, None]
    assert len(worker.jobs) == 2


@pytest.mark.parametrize("directives", ["no-cache", "max-age=0, No-Store"])
def test_who_wants_an_answer_of_its_own_gets_one(
    http: httpx.Client, worker: TestWorker, directives: str
) -> None:
    post(http)
    own = http.post(PAINT, json=BODIES[PAINT], headers={"cache-control": directives})
    assert (is_reused(own), len(worker.jobs)) == (None, 2)


def test_a_failure_is_not_kept(http: httpx.Client, worker: TestWorker) -> None:
    worker.answer = lambda *_: Failure(code=FailureCode.INTERNAL, message="it broke")
    assert http.post(READ, json=BODIES[READ]).status_code == 500
    worker.answer = None
    assert is_reused(post(http, READ)) is None


@pytest.mark.parametrize("results_digest", ["0d" * 32, None])
def test_the_answer_of_another_model_of_that_name_is_not_read(
    http: httpx.Client, redis: Redis, worker: TestWorker, results_digest: str | None
) -> None:
    wait_for(lambda: is_reused(post(http, READ)) == "hit")
    num_jobs = len(worker.jobs)
    publish(redis, *shapes_of(results_digest))
    wait_for(lambda: is_reused(post(http, READ)) is None)
    assert len(worker.jobs) == num_jobs + 1
    publish(redis, *SHAPES)
    wait_for(lambda: is_reused(post(http, READ)) == "hit")  # known to the service of other tests


@contextmanager
def with_settings(settings: ServiceSettings, **changed: object) -> Iterator[httpx.Client]:
    app = create_app(settings.model_copy(update=changed))
    with serve(app) as url, httpx.Client(base_url=url, timeout=20) as http:
        yield http


def test_runs_are_shared_where_no_results_are_kept(
    settings: ServiceSettings, redis: Redis, worker: TestWorker, gate: Gate
) -> None:
    with with_settings(settings, result_cache_bytes=0) as http:
        with ThreadPoolExecutor() as pool:
            answers = [pool.submit(post, http, READ) for _ in range(2)]
            wait_for(lambda: num_sharers(redis) == 1)
            gate.open()
        assert {is_reused(answer.result()) for answer in answers} == {None, "shared"}
        assert is_reused(post(http, READ)) is None
    assert len(worker.jobs) == 2


def test_results_are_kept_where_no_runs_are_shared(
    settings: ServiceSettings, redis: Redis, worker: TestWorker, gate: Gate
) -> None:
    with with_settings(settings, shares_runs=False) as http:
        with ThreadPoolExecutor() as pool:
            answers = [pool.submit(post, http, READ) for _ in range(2)]
            wait_for(lambda: len(worker.jobs) + redis.zcard(waiting_key(Task.EMBEDDINGS)) == 2)
            gate.open()
        assert {is_reused(answer.result()) for answer in answers} == {None}
        assert is_reused(post(http, READ)) == "hit"
    assert len(worker.jobs) == 2


def test_both_kinds_of_reuse_can_be_off(
    settings: ServiceSettings, redis: Redis, worker: TestWorker, gate: Gate
) -> None:
    with with_settings(settings, result_cache_bytes=0, shares_runs=False) as http:
        with ThreadPoolExecutor() as pool:
            answers = [pool.submit(post, http, READ) for _ in range(2)]
            wait_for(lambda: len(worker.jobs) + redis.zcard(waiting_key(Task.EMBEDDINGS)) == 2)
            gate.open()
        assert {is_reused(answer.result()) for answer in answers} == {None}
        assert is_reused(post(http, READ)) is None


@pytest.mark.usefixtures("worker")
def test_an_asynchronous_request_is_answered_with_a_job_that_is_over(http: httpx.Client) -> None:
    post(http, READ)
    prefer = {"prefer": "respond-async"}
    response = http.post(READ, json=BODIES[READ], headers=prefer)
    assert (response.status_code, is_reused(response)) == (202, "hit")
    job = response.json()
    assert job["status"] == "succeeded"
    assert job["expires_at"] == pytest.approx(job["finished_at"] + 86400)


@pytest.mark.usefixtures("worker")
def test_the_end_of_a_job_that_was_answered_at_once_is_all_that_happened_to_it(
    http: httpx.Client,
) -> None:
    post(http, READ)
    events_url = f"/v1/jobs/{post(http, READ).headers['x-job-id']}/events"
    events = http.get(events_url)
    assert events.text.count("event: ") == 1
    [event_id] = [line[4:] for line in events.text.splitlines() if line.startswith("id: ")]
    assert "event: finished" in events.text
    assert http.get(events_url, headers={"last-event-id": event_id}).status_code == 204


@pytest.mark.parametrize("path", BODIES)
def test_equal_requests_at_one_time_share_a_run_across_processes(
    http: httpx.Client,
    settings: ServiceSettings,
    redis: Redis,
    worker: TestWorker,
    gate: Gate,
    path: str,
) -> None:
    # the other process is another app: only Redis is common to both
    with serve(create_app(settings)) as url, httpx.Client(base_url=url, timeout=20) as other:
        with ThreadPoolExecutor(8) as pool:
            answers = [pool.submit(post, client, path) for client in (http, other) * 4]
            wait_for(lambda: num_sharers(redis) == 7)
            gate.open()
        responses = [answer.result() for answer in answers]
    assert sorted(map(str, map(is_reused, responses))) == ["None", *["shared"] * 7]
    assert len({response.json()["id"] for response in responses}) == 8
    assert all(response.json()["data"] == responses[0].json()["data"] for response in responses)
    assert len(worker.jobs) == 1


def num_sharers(redis: Redis) -> int:
    return sum(redis.scard(key) for key in redis.scan_iter("triptych:sharers:*"))


@pytest.mark.usefixtures("worker")
def test_every_job_is_counted_once_queued_or_reused(
    http: httpx.Client, redis: Redis, gate: Gate
) -> None:
    def count() -> float:
        lines = (line.split() for line in http.get("/metrics").text.splitlines())
        names = ("triptych_jobs_enqueued_total", "triptych_result_cache_requests_total")
        return sum(
            float(line[-1])
            for line in lines
            if line[0].startswith(names) and 'result="miss"' not in line[0]
        )

    before = count()
    with ThreadPoolExecutor() as pool:
        answers = [pool.submit(post, http, READ) for _ in range(3)]
        wait_for(lambda: num_sharers(redis) == 2)
        gate.open()
    answers[0].result()
    post(http, READ)
    http.post(PAINT, json={"prompt": "a"}).raise_for_status()
    assert count() - before == 5


@pytest.mark.usefixtures("worker")
def test_what_is_reused_is_counted(http: httpx.Client) -> None:
    def counts() -> dict[str, float]:
        lines = (line.split() for line in http.get("/metrics").text.splitlines())
        return {
            line[0]: float(line[-1]) for line in lines if line[0].startswith("triptych_result_c")
        }

    before = counts()
    for _ in range(3):
        post(http, READ)
    after = counts()
    name = 'triptych_result_cache_requests_total{result="%s",task="embeddings"}'
    grown = {result: after[name % result] - before[name % result] for result in ("hit", "miss")}
    assert grown == {"hit": 2, "miss": 1}
    assert after["triptych_result_cache_bytes"] > 400


@pytest.mark.parametrize(
    ("path", "prefer", "longest_s"),
    [
        (READ, "", 60),
        (SEE, "", 60),
        (PAINT, "", 86_400),
        (READ, "respond-async", 86_400),
        (READ, "respond-async, wait=20", 60),
    ],
)
@pytest.mark.usefixtures("worker")
def test_a_record_is_kept_as_long_as_somebody_may_come_back_for_it(
    http: httpx.Client, redis: Redis, path: str, prefer: str, longest_s: int
) -> None:
    response = http.post(path, json=BODIES[path], headers={"prefer": prefer})
    key = record_key(response.headers["x-job-id"])
    wait_for(lambda: redis.ttl(key) > 0)
    assert longest_s - 5 < redis.ttl(key) <= longest_s
    job = http.get(f"/v1/jobs/{response.headers['x-job-id']}").json()
    assert job["expires_at"] - job["finished_at"] == longest_s


@pytest.mark.parametrize("prefer", ["wait=0", "respond-async, wait=0"])
def test_a_record_is_kept_for_who_was_told_to_come_back(
    http: httpx.Client, redis: Redis, gate: Gate, prefer: str
) -> None:
    response = http.post(READ, json=BODIES[READ], headers={"prefer": prefer})
    assert response.status_code in (202, 504)
    gate.open()
    key = record_key(response.headers["location"].rpartition("/")[2])
    # the API tells Redis behind its answer: the job may end before, and is kept briefly till then
    wait_for(lambda: redis.ttl(key) > 80_000)
