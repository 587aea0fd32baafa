"""A run in which a worker is killed, or cut off, and another one does the rest."""

import time
from collections.abc import Iterator
from signal import SIGTERM

from tests.faults.checks import job_faults
from tests.faults.kill_points import KillPoint
from tests.faults.runs import DEADLINE_S, GRACE_S, MAX_LOSSES, QUIET_S, Place, Run, wait_until
from tests.faults.scenes import Meanwhile, Planned, WorkerScene
from worker.contract.image_files import ImageFiles
from worker.contract.jobs import JobState
from worker.contract.record import Record
from worker.contract.submission import Terms, submission


class WorkerRun(Run):
    def __init__(self, scene: WorkerScene, place: Place) -> None:
        super().__init__(place)
        self._scene = scene
        self._release = place.directory / "release"
        self._planned: list[Planned] = []

    def begin(self, kill_at: KillPoint | None = None) -> None:
        if self._scene.is_from_birth:
            self._switch.turn(is_on=True)
            self._submit()
            self._start_worker(self._scene.task, is_victim=True, kill_at=kill_at)
        else:
            worker = self._start_worker(self._scene.task, is_victim=True, kill_at=kill_at)
            self._wait_until_warm(worker)
            self._switch.turn(is_on=True)
            self._submit()
        if self._scene.meanwhile is not None:
            self._act_meanwhile(self._scene.meanwhile)

    def wait_until_done(self) -> None:
        if self._scene.meanwhile == "drain":
            self.victim.wait(DEADLINE_S)
        else:
            wait_until(lambda: self.is_over)
            time.sleep(QUIET_S)
        self._switch.turn(is_on=False)

    def recover(self) -> None:
        if self._place.how == "cut":
            wait_until(lambda: self.is_over)
            return
        if self._scene.meanwhile == "expire":
            self._wait_for_deadline()
        self._release.touch()
        if self._place.how == "by_supervisor" and not self.victim.is_alive:
            self._records.reap_worker("worker-0", MAX_LOSSES)
        self._start_worker(self._scene.task, is_victim=False)
        wait_until(lambda: self.is_over)

    def faults_of_jobs(self) -> Iterator[str]:
        for planned in self._planned:
            yield from job_faults(self._redis, self._images, planned.job.id, [planned.state])
        if self._place.how == "cut":
            if not self.victim.is_alive:
                yield "the worker has ended"
            if self.num_attempts() > 1:
                yield f"a job has cost {self.num_attempts()} runs, though its worker lives"

    def records(self) -> list[Record | None]:
        return [self._records.get(planned.job.id) for planned in self._planned]

    def _submit(self) -> None:
        self._planned.extend(self._scene.plan(ImageFiles(self._images), self._release))
        for planned in self._planned:
            call = submission(planned.job, Terms(reuse=planned.reuse))
            self._redis.register_script(call.script)(args=call.args)

    def _act_meanwhile(self, meanwhile: Meanwhile) -> None:
        """Let it happen while the first job is held; that one goes on when it is over."""
        first, worker = self._planned[0].job.id, self.victim

        def is_held() -> bool:
            record = self._records.get(first)
            return record is not None and record.state is not JobState.QUEUED

        wait_until(lambda: is_held() or not worker.is_alive)
        match meanwhile:
            case "drain":
                worker.send(SIGTERM)
                worker.wait(2 * GRACE_S)
            case "cancel":
                self._records.cancel(first)
            case "expire":
                self._wait_for_deadline()
        self._release.touch()

    def _wait_for_deadline(self) -> None:
        deadline_at = self._planned[0].job.deadline_at
        assert deadline_at is not None, "this is a bug: the scene is of a job that expires"
        time.sleep(max(0.0, deadline_at - time.time()))
