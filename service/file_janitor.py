"""Image files go away with their jobs: what no job needs any more is removed, whoever left it.

Start images go seconds after their job is over; images with the record that names them; and what a
lost worker left, half a file or an attempt that does not count, soon after its job has gone on.
One rule for every way in which a job can end, also while no API runs. A round looks at so many
files and the next one goes on from there, so that it costs the same however many there are.
"""

import secrets
import time
from collections.abc import Callable, Iterator
from itertools import islice

from anyio import to_thread
from redis import Redis
from redis.exceptions import ResponseError

from service.background import repeat
from service.metrics import Metrics
from worker.contract.image_files import ImageFiles, StoredFile
from worker.contract.jobs import JobState
from worker.contract.record import JobStatus, as_text
from worker.contract.records import Records

_INTERVAL_S = 2.0
_FILES_A_ROUND = 500  # some 10 ms
_WRITING_S = 5.0  # longer than an image takes to be written, once its job has gone on
_SUBMIT_S = 60.0  # longer than a submit takes, which writes the record after the file
_SLACK_S = 60.0  # an image is older than the record of its job: that is written at the end

TURN_KEY = "triptych:janitor"
_TURN_S = 10.0


class FileJanitor:
    def __init__(
        self,
        redis: Redis,
        records: Records,
        files: ImageFiles,
        metrics: Metrics,
        result_ttl_s: float,
    ) -> None:
        self._redis = redis
        self._records = records
        self._metrics = metrics
        self._images = _Rounds(files.walk_images)
        self._start_images = _Rounds(files.walk_start_images)
        self._image_ttl_s = result_ttl_s + _SLACK_S
        self._name = secrets.token_hex(8)

    async def run(self) -> None:
        """Sweep until canceled, as long as no other process of the service does."""
        await repeat(
            lambda: to_thread.run_sync(self._sweep_in_turn), _INTERVAL_S, "files_not_swept"
        )

    def sweep(self, now: float) -> None:
        """Remove what no job needs among the next files; `now` in Unix seconds."""
        found = [*self._start_images.next(_FILES_A_ROUND), *self._images.next(_FILES_A_ROUND)]
        jobs = self._records.statuses({file.job_id for file in found})
        for file in found:
            job = jobs.get(file.job_id)
            if _is_needed(file, job, now, self._image_ttl_s) or not file.remove():
                continue
            if job is None and file.attempt is not None and file.is_whole:
                self._metrics.results_expired.inc()
        self._metrics.result_store_used_bytes.set(
            self._start_images.num_bytes + self._images.num_bytes
        )

    def _sweep_in_turn(self) -> None:
        if self.has_turn():
            self.sweep(time.time())
        else:
            self._metrics.result_store_used_bytes.set(0)

    def has_turn(self) -> bool:
        """Whoever has the turn keeps it until it is silent for `_TURN_S`.

        Two at a time do no harm. So where Redis takes no writes everyone goes on: its disk may be
        the one that is full.
        """
        try:
            if self._redis.set(TURN_KEY, self._name, nx=True, px=_ms(_TURN_S)):
                return True
            owner = self._redis.get(TURN_KEY)
            is_mine = owner is not None and as_text(owner) == self._name
            if is_mine:
                self._redis.pexpire(TURN_KEY, _ms(_TURN_S))
        except ResponseError:
            return True
        return is_mine


class _Rounds:
    """Goes round a folder again and again, some files at a time."""

    def __init__(self, walk: Callable[[], Iterator[StoredFile]]) -> None:
        self._walk = walk
        self._rest = walk()
        self._num_bytes_so_far = 0
        self.num_bytes = 0  # found the last time round

    def next(self, max_files: int) -> list[StoredFile]:
        found = list(islice(self._rest, max_files))
        self._num_bytes_so_far += sum(file.num_bytes for file in found)
        if len(found) < max_files:
            self.num_bytes, self._num_bytes_so_far = self._num_bytes_so_far, 0
            self._rest = self._walk()
        return found


def _is_needed(file: StoredFile, job: JobStatus | None, now: float, image_ttl_s: float) -> bool:
    """Whether the file's job, None where its record is gone, or its writer has use for it."""
    age_s = now - file.modified_at
    if job is None:
        is_image = file.attempt is not None and file.is_whole
        return age_s < (image_ttl_s if is_image else _SUBMIT_S)
    if not file.is_whole:
        is_writing = job.state is JobState.RUNNING and job.attempt == file.attempt
        return is_writing or age_s < _WRITING_S
    if file.attempt is None:
        return not job.is_over(now)
    if job.state.is_final and job.state is not JobState.SUCCEEDED:
        return False
    # a later attempt than the record knows: Redis has lost its last second, and will know it again
    return file.attempt >= job.attempt


def _ms(seconds: float) -> int:
    return int(1e3 * seconds)
