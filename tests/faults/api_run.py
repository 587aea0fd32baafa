"""A run in which an API is killed while it serves one request; a worker is there all the time."""

import time
from collections.abc import Iterator

import httpx

from benchmarks.running_service import free_port
from tests.faults.checks import job_faults
from tests.faults.kill_points import KillPoint
from tests.faults.runs import QUIET_S, Place, Run, wait_until
from tests.faults.scenes import ApiScene
from worker.contract.record import Record, record_key


class ApiRun(Run):
    def __init__(self, scene: ApiScene, place: Place) -> None:
        super().__init__(place)
        self._scene = scene
        self._answer: httpx.Response | None = None

    def begin(self, kill_at: KillPoint | None = None) -> None:
        self._wait_until_warm(self._start_worker(self._scene.task, is_victim=False))
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        settings = {"port": str(port)}
        api = self._start("api", settings, is_victim=True, kill_at=kill_at)
        wait_until(lambda: _is_ready(url) or not api.is_alive)
        self._switch.turn(is_on=True)
        try:
            self._answer = self._scene.send(url)
        except httpx.TransportError:  # it was killed meanwhile
            self._answer = None

    def wait_until_done(self) -> None:
        wait_until(lambda: self.is_over)
        time.sleep(QUIET_S)
        self._switch.turn(is_on=False)

    def recover(self) -> None:
        wait_until(lambda: self.is_over)

    def faults_of_jobs(self) -> Iterator[str]:
        if self._answer is not None:
            yield from self._faults_of_answer(self._answer)
        for record in self.records():
            assert record is not None, "this is a bug: it was there a moment ago"
            yield from job_faults(self._redis, self._images, record.id, self._scene.states)

    def records(self) -> list[Record | None]:
        ids = [key.decode().removeprefix(record_key("")) for key in self._job_keys()]
        return [self._records.get(job_id) for job_id in ids]

    def _faults_of_answer(self, answer: httpx.Response) -> Iterator[str]:
        if answer.status_code not in (httpx.codes.OK, httpx.codes.ACCEPTED):
            yield f"answered {answer.status_code}: {answer.text[:200]}"
        elif not self._records.get(answer.json()["id"]):
            yield f"{answer.json()['id']}: lost, the client has {answer.status_code}"

    def _job_keys(self) -> list[bytes]:
        return [*self._redis.scan_iter(record_key("*"))]


def _is_ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", trust_env=False).status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
