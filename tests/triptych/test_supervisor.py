"""`triptych serve`: restarts what dies, drains, leaves nothing behind, loses nothing."""

import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path

import httpx
import pytest

from tests.triptych.conftest import Serve, is_alive, parent_of, start, wait_until
from triptych.prometheus_targets import FILE_NAME

StartServe = Callable[..., Serve]


def paint(url: str, prompt: str = "a red circle") -> httpx.Response:
    """Have an image painted, also where the same one is kept."""
    body = {"prompt": prompt, "size": "64x64", "num_inference_steps": 3, "seed": 1}
    again = {"Cache-Control": "no-cache"}
    answer = httpx.post(f"{url}/v1/images/generations", json=body, headers=again, timeout=60)
    return answer.raise_for_status()


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


def num_attempts(url: str, job_id: str) -> int:
    job = httpx.get(f"{url}/v1/jobs/{job_id}").raise_for_status().json()
    return len(job["attempts"])


def test_serve_says_once_where_it_is_ready(serve: Serve) -> None:
    wait_until(
        lambda: sum("Triptych is ready" in line for line in serve.lines()) == 1, "never said"
    )
    assert f"  Triptych is ready: {serve.url}" in serve.lines()


def test_every_task_is_served(serve: Serve) -> None:
    assert paint(serve.url).json()["data"][0]["b64_json"]
    embedded = httpx.post(f"{serve.url}/v1/embeddings", json={"input": "a b c"}, timeout=60)
    assert embedded.raise_for_status().json()["data"][0]["embedding"]


def test_workers_are_forked_from_one_process_that_has_computed_nothing(serve: Serve) -> None:
    forked_from = Path(f"/proc/{serve.fork_server()}")
    workers = [pid for name, pid in serve.children().items() if name.startswith("worker-")]
    assert {parent_of(pid) for pid in workers} == {serve.fork_server()}
    assert len(list((forked_from / "task").iterdir())) == 1  # a fork would lose other threads
    assert b"CUDA_DEVICE_ORDER=PCI_BUS_ID" in (forked_from / "environ").read_bytes().split(b"\0")


@pytest.mark.parametrize("child", ["api-0", "worker-classify-0", "valkey"])
def test_a_child_that_dies_is_started_again(serve: Serve, child: str) -> None:
    before = serve.children()[child]
    os.kill(before, signal.SIGKILL)
    wait_until(partial(serve.has_again, child, before), f"{child} was not started again")
    serve.wait_until_ready()
    paint(serve.url)


def test_workers_outlive_the_fork_server_and_those_after_come_from_the_next(
    serve: Serve, tmp_path: Path
) -> None:
    serve.wait_until_ready()
    before = serve.children()
    job_id = submit_held(serve.url, tmp_path / "release")
    os.kill(before["fork-server"], signal.SIGKILL)
    again = partial(serve.has_again, "fork-server", before["fork-server"])
    wait_until(again, "no other was started")
    (tmp_path / "release").touch()
    wait_until(lambda: job_of(serve.url, job_id)["status"] == "succeeded", "the job was lost")
    assert num_attempts(serve.url, job_id) == 1
    workers = {name: pid for name, pid in before.items() if name.startswith("worker-")}
    assert workers.items() <= serve.children().items()

    os.kill(workers["worker-classify-0"], signal.SIGABRT)  # its own parent is no more
    again = partial(serve.has_again, "worker-classify-0", workers["worker-classify-0"])
    wait_until(again, "the worker was not started again")
    assert any("event=died child=worker-classify-0 status=-6" in line for line in serve.lines())
    assert parent_of(serve.children()["worker-classify-0"]) == serve.fork_server()
    serve.wait_until_ready()


def test_deaths_are_seen_while_a_worker_waits_for_the_fork_server(serve: Serve) -> None:
    serve.wait_until_ready()
    before = serve.children()
    workers = ["worker-classify-0", "worker-embeddings-0"]
    os.kill(serve.fork_server(), signal.SIGSTOP)  # as if it imported for very long
    try:
        for child in (*workers, "api-0"):
            os.kill(before[child], signal.SIGKILL)
        wait_until(partial(serve.has_again, "api-0", before["api-0"]), "the API did not come back")
        for child in workers:
            wait_until(partial(serve.has_lost, child, before[child]), f"{child} was not missed")
    finally:
        os.kill(serve.fork_server(), signal.SIGCONT)
    for child in workers:
        wait_until(partial(serve.has_again, child, before[child]), f"{child} did not come back")
    serve.wait_until_ready()


def test_a_worker_goes_first_where_the_host_has_no_memory_left(serve: Serve) -> None:
    workers, others = of_children(serve, oom_score)
    assert min(workers) > max(others)


def test_workers_leave_the_cores_to_the_other_processes(serve: Serve) -> None:
    workers, others = of_children(serve, nice_value)
    assert min(workers) > max(others)
    # which counts within a session alone, where the kernel groups processes by those
    workers, others = of_children(serve, os.getsid)
    assert {*workers, *others} == {os.getsid(serve.process.pid)}


# `stty tostop`: it stops what writes to it in the background
TERMINAL = (
    *(sys.executable, "-c", "import pty, sys; pty.spawn(sys.argv[1:])"),
    *("sh", "-c", 'stty tostop; exec "$0" "$@"'),
)


def test_a_terminal_stops_no_child_for_what_it_writes(tmp_path: Path) -> None:
    serve = start(tmp_path, runner=TERMINAL)
    try:
        serve.wait_until_ready()
        assert paint(serve.url).json()["data"][0]["b64_json"]
        children = serve.children().values()
    finally:
        serve.stop(signal.SIGKILL)  # the terminal, and so a hangup: the supervisor drains
    wait_until(lambda: not any(map(is_alive, children)), "some outlived their terminal")


def of_children(serve: Serve, ask: Callable[[int], int]) -> tuple[list[int], list[int]]:
    """What the kernel says of the workers, once they are at work, and of the other children."""
    serve.wait_until_ready()
    answers = {name: ask(pid) for name, pid in serve.children().items()}
    workers = [answer for name, answer in answers.items() if name.startswith("worker-")]
    return workers, [answer for name, answer in answers.items() if not name.startswith("worker-")]


def nice_value(pid: int) -> int:
    return os.getpriority(os.PRIO_PROCESS, pid)


def oom_score(pid: int) -> int:
    """What the kernel adds when it chooses."""
    return int(Path(f"/proc/{pid}/oom_score_adj").read_text(encoding="ascii"))


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
    [target] = json.loads((serve.log.parent / FILE_NAME).read_text())[0]["targets"]
    page = httpx.get(f"http://{target}/metrics").raise_for_status().text
    assert "triptych_jobs_finished_total" in page
    port = int(target.rpartition(":")[2])
    with socket.socket() as elsewhere:
        elsewhere.bind(("127.0.0.2", port))  # would fail beside a listener on every address


def test_a_second_serve_is_refused_the_data_directory(serve: Serve) -> None:
    second = start(serve.log.parent)
    assert second.process.wait(30) != 0
    assert any("in use by another `triptych serve`" in line for line in second.lines())
    serve.wait_until_ready()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_all_lets_the_running_job_end_and_leaves_no_process(
    start_serve: StartServe, tmp_path: Path, number: signal.Signals
) -> None:
    if signal.getsignal(number) is signal.SIG_IGN:
        pytest.skip(f"{number.name} is ignored here, as under nohup, and so by what is started")
    serve = start_serve()
    serve.wait_until_ready()
    job_id = submit_held(serve.url, tmp_path / "release")
    children = serve.children()

    serve.signal_group(number)
    wait_until(lambda: not is_alive(children["api-0"]), "the API went on")
    assert is_alive(children["worker-images-0"])
    assert is_alive(children["valkey"])
    (tmp_path / "release").touch()

    assert serve.process.wait(60) == 0
    assert [name for name, pid in children.items() if is_alive(pid)] == []
    assert len(list((tmp_path / "images").glob(f"{job_id}-*.png"))) == 1
    assert not any("event=died" in line for line in serve.lines())


def test_a_second_signal_ends_all_at_once_and_gives_back_what_was_in_hand(
    start_serve: StartServe, tmp_path: Path
) -> None:
    serve = start_serve()
    serve.wait_until_ready()
    job_id = submit_held(serve.url, tmp_path / "release")
    children = serve.children()
    serve.process.send_signal(signal.SIGTERM)
    wait_until(lambda: not is_alive(children["api-0"]), "the API went on")

    def is_over() -> bool:
        serve.process.send_signal(signal.SIGTERM)  # too soon, it would be taken for the first
        return not is_alive(children["worker-images-0"])

    wait_until(is_over, "it drained to the end")
    assert serve.process.wait(60) == 0
    assert [name for name, pid in children.items() if is_alive(pid)] == []
    assert was_given_back(serve, job_id)


def test_a_worker_that_dies_while_the_api_drains_gives_its_job_back_at_once(
    start_serve: StartServe, tmp_path: Path
) -> None:
    serve = start_serve()
    serve.wait_until_ready()
    job_id = submit_held(serve.url, tmp_path / "release")
    children = serve.children()
    os.kill(children["api-0"], signal.SIGSTOP)  # it does not end
    serve.process.send_signal(signal.SIGTERM)
    wait_until(lambda: any("event=draining" in line for line in serve.lines()), "never drained")
    os.kill(children["worker-images-0"], signal.SIGKILL)
    wait_until(lambda: was_given_back(serve, job_id), "not given back")
    assert is_alive(children["api-0"])
    os.kill(children["api-0"], signal.SIGCONT)
    assert serve.process.wait(60) == 0


def test_a_signal_to_all_while_the_workers_are_being_started_ends_the_start(
    start_serve: StartServe,
) -> None:
    serve = start_serve()
    wait_until(lambda: "api-0" in serve.children(), "the API was never started")
    serve.signal_group(signal.SIGINT)
    assert serve.process.wait(60) == 0
    assert [name for name, pid in serve.children().items() if is_alive(pid)] == []
    assert not any("Traceback" in line for line in serve.lines())


def was_given_back(serve: Serve, job_id: str) -> bool:
    """Whether the supervisor put the job back, for a worker that it saw die."""
    event = f"event=job_put_back job={job_id}"
    return any(event in line and "triptych.lost_workers" in line for line in serve.lines())


def test_a_killed_supervisor_leaves_no_process_and_its_job_runs_again(
    start_serve: StartServe, tmp_path: Path
) -> None:
    first = start_serve(lease_s=1.5)
    first.wait_until_ready()
    job_id = submit_held(first.url, tmp_path / "release")
    left = [*first.children().values()]
    os.kill(first.children()["worker-classify-0"], signal.SIGSTOP)  # it can do nothing itself

    first.process.kill()
    wait_until(lambda: not any(map(is_alive, left)), "children went on")
    (tmp_path / "release").touch()

    second = start_serve(lease_s=1.5)
    second.wait_until_ready()
    wait_until(lambda: job_of(second.url, job_id)["status"] == "succeeded", "the job was lost")
