"""The work of image jobs around one pipeline, on a real server, driven step by step."""

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from PIL import Image
from redis import Redis

from tests.cards import SHAPES_LIMITS
from tests.worker.pipelines import resident
from worker.contract.image_files import ImageFiles
from worker.contract.jobs import ImageJob, ImageResult, Task
from worker.contract.model_cards import ImageLimits
from worker.contract.record import Outcome, Record
from worker.contract.records import Finished, Records, Room
from worker.contract.submission import enqueue
from worker.image_engine import ImageWork
from worker.image_run import ImagePipeline
from worker.metrics import WorkerMetrics
from worker.residency import Residency
from worker.step_costs import StepCosts
from worker.work import Ending

MODEL = "flux_shapes"
_LIMIT_S = 60.0  # for a thread to do its part; reached only by a failing test


def learn(costs: StepCosts, row_tokens: int, time_step: Callable[[int], float]) -> None:
    """Answer all that it asks."""
    learning = costs.learn(row_tokens)
    with suppress(StopIteration):
        places = next(learning)
        while True:
            places = learning.send(time_step(places))


class Studio:
    def __init__(
        self,
        redis: Redis,
        directory: Path,
        pipeline: ImagePipeline,
        limits: ImageLimits = SHAPES_LIMITS,
    ) -> None:
        self._redis = redis
        self.records = Records(redis)
        self.files = ImageFiles(directory / "images")
        self.metrics = WorkerMetrics(Task.IMAGES)
        residency: Residency[ImagePipeline] = resident(
            pipeline, MODEL, Task.IMAGES, image_limits=limits
        )
        self.work = ImageWork(residency, self.records, self.files, self._settle, self.metrics)
        self._limits = limits
        self.outcomes: dict[str, Outcome] = {}
        self.ended: list[str] = []

    def let_pay(self, places: int) -> None:
        """Have it know that up to so many rows pay, a power of two."""
        costs = StepCosts(None)
        for num_patches in (24, 64):  # of 64x96 and 128x128
            row_tokens = self._limits.max_sequence_length + num_patches
            learn(costs, row_tokens, lambda asked: 1.0 if asked <= places else 1000.0)
        self.work._costs.take(MODEL, costs)

    def claim(self, *jobs: ImageJob) -> list[Record]:
        """Submit jobs and take them, as the loop would."""
        for job in jobs:
            enqueue(self._redis, job)
        return self.records.claim(Task.IMAGES, "w", 15.0, [MODEL], Room(99, 99)).records

    def add(self, *jobs: ImageJob) -> None:
        """Take jobs, ready to join the next forward."""
        self.work.add(self.claim(*jobs))
        give_up_at = time.monotonic() + _LIMIT_S
        while self.work._prepare_thread.in_hand and not self.work._prepare_thread.has_failed:
            assert time.monotonic() < give_up_at, "the jobs are not prepared"
            time.sleep(0.0005)

    def advance(self, num_steps: int = 1) -> None:
        """Let so many forwards be done; the jobs are prepared before the first."""
        for _ in range(num_steps):
            before = self._num_forwards()
            self._until(lambda before=before: self._num_forwards() > before)  # type: ignore[misc]

    def run(self) -> None:
        """Do all that is in hand."""
        self._until(lambda: self.work.is_idle)
        threads = self.work._decode_thread, self.work._store_thread
        self._until(lambda: not any(thread.in_hand for thread in threads))

    def paint(self, *jobs: ImageJob) -> list[Outcome]:
        self.add(*jobs)
        self.run()
        return [self.outcomes[job.id] for job in jobs]

    def pixels(self, job: ImageJob, index: int = 0) -> np.ndarray:
        """A finished image [H, W, 3]."""
        result = self.outcomes[job.id]
        assert isinstance(result, ImageResult), result
        return np.asarray(Image.open(self.files.path(result.images[index].file_name)), dtype=int)

    def _settle(self, endings: Sequence[Ending]) -> None:
        finished = [Finished(record.id, record.attempt, outcome) for record, outcome in endings]
        for (record, outcome), is_current in zip(
            endings, self.records.finish(finished), strict=True
        ):
            if is_current:
                assert record.id not in self.outcomes, "a job ends once"
                self.outcomes[record.id] = outcome
                self.ended.append(record.id)

    def _until(self, is_done: Callable[[], bool]) -> None:
        give_up_at = time.monotonic() + _LIMIT_S
        while not is_done():
            assert time.monotonic() < give_up_at, "the work does not come to its end"
            self.work.advance()

    def _num_forwards(self) -> float:
        collected = self.metrics.batch_size.labels(Task.IMAGES).collect()
        return sum(
            sample.value
            for family in collected
            for sample in family.samples
            if sample.name.endswith("_count")
        )
