"""The history of a job that more than one worker has run."""

from collections.abc import Callable

import httpx
import pytest
from redis import Redis

from tests.claims import claim_one
from worker.contract.jobs import JobState, Task
from worker.contract.records import Finished, Records

IMAGES = "/v1/images/generations"


@pytest.fixture
def records(redis: Redis) -> Records:
    return Records(redis)


@pytest.fixture
def job_id(http: httpx.Client) -> str:
    response = http.post(IMAGES, json={"prompt": "x"}, headers={"prefer": "respond-async"})
    job_id: str = response.json()["id"]
    return job_id


def attempts(http: httpx.Client, job_id: str) -> list[dict[str, object]]:
    found: list[dict[str, object]] = http.get(f"/v1/jobs/{job_id}").json()["attempts"]
    return found


def ends(http: httpx.Client, job_id: str) -> list[tuple[object, object]]:
    return [(attempt["attempt"], attempt["end"]) for attempt in attempts(http, job_id)]


def test_a_job_that_has_not_run_has_no_attempt(http: httpx.Client, job_id: str) -> None:
    assert attempts(http, job_id) == []


def test_the_attempt_that_runs_has_no_end(
    http: httpx.Client, records: Records, job_id: str
) -> None:
    record = claim_one(records, Task.IMAGES)
    assert record is not None
    [attempt] = attempts(http, job_id)
    assert attempt == {
        "attempt": 1,
        "worker": record.worker,
        "started_at": record.started_at,
        "ended_at": None,
        "end": None,
    }


def lose(records: Records, job_id: str) -> None:
    record = records.get(job_id)
    assert record is not None
    records.renew({job_id: record.attempt}, -1.0)
    records.reap(Task.IMAGES, max_losses=2)


def give_back(records: Records, job_id: str) -> None:
    record = records.get(job_id)
    assert record is not None
    records.release({job_id: record.attempt})


@pytest.mark.parametrize(
    ("ends_the_first", "end"), [(lose, "worker_lost"), (give_back, "given_back")]
)
def test_an_attempt_says_how_it_ended_and_the_last_with_what(
    http: httpx.Client,
    records: Records,
    job_id: str,
    ends_the_first: Callable[[Records, str], None],
    end: str,
) -> None:
    claim_one(records, Task.IMAGES)
    ends_the_first(records, job_id)
    assert ends(http, job_id) == [(1, end)]
    claim_one(records, Task.IMAGES)
    assert ends(http, job_id) == [(1, end), (2, None)]
    records.finish([Finished(job_id, 2, JobState.CANCELED)])
    first, second = attempts(http, job_id)
    assert second["end"] == "canceled"
    assert str(first["started_at"]) <= str(first["ended_at"]) <= str(second["started_at"])


def test_a_job_that_was_given_up_shows_every_attempt(
    http: httpx.Client, records: Records, job_id: str
) -> None:
    for _ in range(2):
        claim_one(records, Task.IMAGES)
        lose(records, job_id)
    job = http.get(f"/v1/jobs/{job_id}").json()
    assert (job["status"], job["error"]["code"]) == ("failed", "worker_lost")
    assert ends(http, job_id) == [(1, "worker_lost"), (2, "worker_lost")]


@pytest.mark.usefixtures("worker")
def test_an_answer_of_an_equal_jobs_has_no_attempt(http: httpx.Client) -> None:
    for _ in range(2):
        response = http.post("/v1/embeddings", json={"input": "x"})
    assert response.headers["x-cache"] == "hit"
    assert attempts(http, response.json()["id"]) == []
