"""`triptych serve`: restarts what dies, drains, leaves nothing behind, loses nothing."""

import os
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import httpx
import pytest

from tests.triptych.conftest import Serve, is_alive, start, wait_until

StartServe = Callable[[], Serve]


def paint(url: str, prompt: str = "a red circle") -> httpx.Response:
    body = {"prompt": prompt, "size": "64x64", "num_inference_steps": 3, "seed": 1}
    return httpx.post(f"{url}/v1/images/generations", json=body, timeout=60).raise_for_status()


def submit_held(url: str, release: Path) -> str:
    """Submit an image that waits before its last step for a file; return the job's id."""
    answer = httpx.post(
        f"{url}/v1/images/generations",
        json={"prompt": f"wait {release}", "size": "64x64", "num_inference_steps": 3},
        headers={"Prefer": "respond-async"},
    )
    job_id: str = answer.raise_for_status().json()["id"]
    wait_until(lambda: job_of(url, job_id)["step"] == 2, f"{job_id} never came to its second step")
    return job_id


def job_of(url: str, job_id: str) -> dict[str, str | int]:
    """State and step of a job."""
    job = httpx.get(f"{url}/v1/jobs/{job_id}").raise_for_status().json()
    return {"status": job["status"], "step": job["progress"]["step"]}


def test_serve_says_once_where_it_is_ready(serve: Serve) -> None:
    wait_until(
        lambda: sum("Triptych is ready" in line for line in serve.lines()) == 1, "never said"
    )
    assert f"  Triptych is ready: {serve.url}" in serve.lines()


def test_every_task_is_served(serve: Serve) -> None:
    assert paint(serve.url).json()["data"][0]["b64_json"]
    embedded = httpx.post(f"{serve.url}/v1/embeddings", json={"input": "a b c"}, timeout=60)
    assert embedded.raise_for_status().json()["data"][0]["embedding"]


@pytest.mark.parametrize("child", ["api", "worker-classify-0", "valkey"])
def test_a_child_that_dies_is_started_again(serve: Serve, child: str) -> None:
    before = serve.children()[child]
    os.kill(before, signal.SIGKILL)
    wait_until(lambda: serve.children()[child] != before, f"{child} was not started again")
    serve.wait_until_ready()
    paint(serve.url)


def test_a_result_outlives_the_death_of_valkey(serve: Serve) -> None:
    job_id = paint(serve.url).json()["id"]
    wait_until(lambda: aof_holds(serve, job_id), "the result never came to the file")
    valkey = serve.children()["valkey"]
    os.kill(valkey, signal.SIGKILL)
    wait_until(lambda: serve.children()["valkey"] != valkey, "Valkey was not started again")
    serve.wait_until_ready()
    assert job_of(serve.url, job_id)["status"] == "succeeded"


def aof_holds(serve: Serve, job_id: str) -> bool:
    """Whether the file has the final record: its write may come a second after the answer."""
    files = (serve.log.parent / "valkey").rglob("*.incr.aof")
    after = [part for file in files for part in file.read_bytes().split(job_id.encode())[1:]]
    return any(b"succeeded" in part[:300] for part in after)


def test_each_worker_serves_its_metrics_on_this_host_alone(serve: Serve) -> None:
    port = int(serve.url.rpartition(":")[2])
    page = httpx.get(f"http://127.0.0.1:{port + 1}/metrics").raise_for_status().text
    assert "triptych_jobs_finished_total" in page
    with socket.socket() as elsewhere:
        elsewhere.bind(("127.0.0.2", port + 1))  # would fail beside a listener on every address


def test_a_second_serve_is_refused_the_data_directory(serve: Serve) -> None:
    second = start(serve.log.parent)
    assert second.process.wait(30) != 0
    assert any("in use by another `triptych serve`" in line for line in second.lines())
    serve.wait_until_ready()


def test_sigint_lets_the_running_job_end_and_leaves_no_process(
    start_serve: StartServe, tmp_path: Path
) -> None:
    serve = start_serve()
    serve.wait_until_ready()
    job_id = submit_held(serve.url, tmp_path / "release")
    children = serve.children()

    serve.process.send_signal(signal.SIGINT)
    wait_until(lambda: not is_alive(children["api"]), "the API went on")
    assert is_alive(children["worker-images-0"])
    assert is_alive(children["valkey"])
    (tmp_path / "release").touch()

    assert serve.process.wait(60) == 0
    assert [name for name, pid in children.items() if is_alive(pid)] == []
    assert len(list((tmp_path / "images").glob(f"{job_id}-*.png"))) == 1


def test_a_killed_supervisor_leaves_no_process_and_its_job_runs_again(
    start_serve: StartServe, tmp_path: Path
) -> None:
    first = start_serve()
    first.wait_until_ready()
    job_id = submit_held(first.url, tmp_path / "release")
    children = first.children()

    first.process.kill()
    wait_until(lambda: not any(map(is_alive, children.values())), "children went on")
    (tmp_path / "release").touch()

    second = start_serve()
    second.wait_until_ready()
    wait_until(lambda: job_of(second.url, job_id)["status"] == "succeeded", "the job was lost")
