"""What clients are told of image jobs between two steps, and what they say to them: stop.

Previews cost a piece of device work; all else is one round trip for any number of jobs. Knows
nothing about how a job ends.
"""

import logging
import time
from collections.abc import Sequence

from redis.exceptions import RedisError

from worker import png
from worker.contract.jobs import Task
from worker.contract.records import Preview, Records, StepReport, Verdict
from worker.device_sharing import DeviceSharing
from worker.failures import is_out_of_memory
from worker.image_finishing import ImageFinishing
from worker.image_run import ImageRow, ImageRun, runs_of
from worker.metrics import WorkerMetrics
from worker.redis_clients import is_unavailable
from worker.row_scheduler import RowScheduler

logger = logging.getLogger(__name__)


class ImageReports:
    def __init__(
        self,
        records: Records,
        scheduler: RowScheduler[ImageRow],
        finishing: ImageFinishing,
        sharing: DeviceSharing,
        metrics: WorkerMetrics,
    ) -> None:
        self._records = records
        self._scheduler = scheduler
        self._finishing = finishing
        self._sharing = sharing
        self._metrics = metrics

    def report(self, runs: Sequence[ImageRun], rows: Sequence[ImageRow]) -> list[ImageRun]:
        """Publish how far these runs are, of which some rows have had a step.

        Returns those that a client or another attempt has ended.
        """
        stepped = runs_of(rows)
        remaining_s = self._remaining_s(stepped)
        previews = {run: self._previews(run, rows) for run in stepped}
        runs = [run for run in runs if not run.is_over]
        reports = [
            StepReport(
                run.record.id,
                run.record.attempt,
                run.step,
                run.num_steps,
                remaining_s.get(run),
                previews.get(run, ()),
            )
            for run in runs
        ]
        try:
            verdicts = dict(zip(runs, self._records.report(reports), strict=True))
            self._note_cancels([run for run in runs if verdicts[run] is Verdict.CANCEL])
        except RedisError as error:
            if not is_unavailable(error):
                raise
            return []  # the next step's report makes up for it
        return [run for run in runs if verdicts[run] is not Verdict.GO_ON]

    def _note_cancels(self, runs: Sequence[ImageRun]) -> None:
        """From here on nothing more is computed for these."""
        if not runs:
            return
        now, latency = time.time(), self._metrics.cancel_latency.labels(Task.IMAGES)
        for asked_at in self._records.cancels_asked_at([run.record.id for run in runs]):
            if asked_at is not None:  # the record may have ended meanwhile
                latency.observe(max(0.0, now - asked_at))  # two hosts' clocks

    def _remaining_s(self, runs: Sequence[ImageRun]) -> dict[ImageRun, float]:
        """Seconds until each of these is settled; they are of one group."""
        group = runs[0].group
        until_last_step_s = self._scheduler.remaining_s(group)
        after_it_s = self._finishing.after_last_step_s(group.name)
        return {
            run: max(until_last_step_s.get(row, 0.0) for row in run.rows) + after_it_s
            for run in runs
        }

    def _previews(self, run: ImageRun, rows: Sequence[ImageRow]) -> tuple[Preview, ...]:
        due = [row for row in rows if row.run is run and row.step in run.job.preview_steps]
        if not due:
            return ()
        try:
            shown = self._sharing.run(lambda: [run.pipeline.preview(row.painting) for row in due])
            return tuple(
                Preview(row.index, row.step, png.encode(pixels, {}))
                for row, pixels in zip(due, shown, strict=True)
            )
        except Exception as error:
            self._metrics.note_error(run.job.model, error)
            if is_out_of_memory(error):  # the image goes on without it
                logger.warning("event=preview_left_out job=%s", run.record.id)
            else:
                run.fail(error)
            return ()
