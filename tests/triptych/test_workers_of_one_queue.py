"""Several workers on one queue: all take jobs, one may die, and they can be told apart."""

import json
import os
import signal
from collections import Counter
from pathlib import Path

import httpx

from tests.triptych.conftest import Serve, wait_until
from tests.triptych.test_supervisor import job_of, paint, submit_held, was_given_back

IMAGE_WORKERS = ("worker-images-0", "worker-images-1")


def is_warm(serve: Serve, child: str) -> bool:
    """Whether the process that a child is now says that it takes jobs."""
    answer = httpx.get(f"{serve.url}/readyz", timeout=5)
    warm = [w for w in answer.json().get("workers", []) if w["state"] in ("idle", "busy")]
    return serve.worker_name(serve.children()[child]) in [worker["name"] for worker in warm]


def names_of_workers(serve: Serve) -> list[str]:
    answer = httpx.get(f"{serve.url}/readyz", timeout=5)
    return [worker["name"] for worker in answer.json()["workers"]]


def wait_until_both_are_warm(serve: Serve) -> None:
    wait_until(lambda: all(is_warm(serve, child) for child in IMAGE_WORKERS), "never both warm")


def jobs_finished(port: int) -> float:
    """Jobs that the worker at this metrics port has finished."""
    page = httpx.get(f"http://127.0.0.1:{port}/metrics").raise_for_status().text
    return sum(
        float(line.split()[-1])
        for line in page.splitlines()
        if line.startswith("triptych_jobs_finished_total{")
    )


def targets(serve: Serve) -> dict[str, int]:
    """The metrics port of each worker, as Prometheus is told it."""
    file = serve.log.parent / "prometheus-targets.json"
    groups = json.loads(file.read_text(encoding="utf-8"))
    return {g["labels"]["worker"]: int(g["targets"][0].rpartition(":")[2]) for g in groups}


def test_each_worker_is_planned_in_the_log_and_told_apart_by_ps(serve: Serve) -> None:
    planned = [line.partition("event=planned ")[2] for line in serve.lines() if "=planned" in line]
    assert [line.split()[0] for line in planned] == [
        "worker=images-0",
        "worker=images-1",
        "worker=classify-0",
        "worker=embeddings-0",
    ]
    assert planned[0].startswith("worker=images-0 device=cpu threads=")
    for name in IMAGE_WORKERS:
        shown = Path(f"/proc/{serve.children()[name]}/comm").read_text(encoding="utf-8")
        assert f"worker-{shown.strip()}" == name


def test_two_jobs_run_at_once_and_each_worker_counts_its_own(serve: Serve, tmp_path: Path) -> None:
    wait_until_both_are_warm(serve)
    ports = targets(serve)
    assert len(set(ports.values())) == 4
    before = {name: jobs_finished(ports[name]) for name in ("images-0", "images-1")}
    jobs = [submit_held(serve.url, tmp_path / "release") for _ in range(2)]  # both come to step 2
    (tmp_path / "release").touch()
    wait_until(
        lambda: all(job_of(serve.url, job)["status"] == "succeeded" for job in jobs), "not done"
    )
    after = {name: jobs_finished(ports[name]) for name in before}
    assert {name: after[name] - before[name] for name in before} == {"images-0": 1, "images-1": 1}


def test_one_worker_dies_the_other_serves_on_and_nothing_is_lost(
    serve: Serve, tmp_path: Path
) -> None:
    wait_until_both_are_warm(serve)
    held = [submit_held(serve.url, tmp_path / "release") for _ in range(2)]
    victim = serve.children()["worker-images-1"]
    os.kill(victim, signal.SIGKILL)
    lost = serve.worker_name(victim)
    wait_until(lambda: lost not in names_of_workers(serve), "it is still told to be alive")
    assert serve.is_ready()
    assert sum(was_given_back(serve, job) for job in held) == 1
    (tmp_path / "release").touch()
    more = [paint(serve.url).json()["id"] for _ in range(3)]  # the other one takes them
    wait_until(
        lambda: all(job_of(serve.url, job)["status"] == "succeeded" for job in held),
        "a job of the dead worker was lost",
    )
    pictures = Counter(file.name.split("-")[0] for file in (serve.log.parent / "images").iterdir())
    assert [pictures[job] for job in (*held, *more)] == [1] * 5

    wait_until(lambda: serve.children()["worker-images-1"] != victim, "it was not started again")
    wait_until_both_are_warm(serve)
    assert jobs_finished(targets(serve)["images-1"]) >= 0  # at the same port as before


def test_a_worker_whose_device_fails_leaves_its_job_to_the_other_and_comes_back(
    serve: Serve, tmp_path: Path
) -> None:
    wait_until_both_are_warm(serve)
    before = [serve.children()[child] for child in IMAGE_WORKERS]
    lost = paint(serve.url, prompt=f"lose {tmp_path / 'device'}").json()["id"]
    assert job_of(serve.url, lost)["status"] == "succeeded"
    assert sum("event=device_lost" in line for line in serve.lines()) == 1
    wait_until(
        lambda: sum(serve.children()[c] in before for c in IMAGE_WORKERS) == 1,
        "no worker was started again",
    )
