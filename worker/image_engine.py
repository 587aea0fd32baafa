"""Image jobs, many at a time: each forward steps the rows that the scheduler chose.

Records are prepared, their rows join between two steps, are decoded after their last one, stored,
and their jobs settled. Cancels, deadlines and stale attempts end a job between two steps, and leave
its neighbours alone. This thread steps the transformer. Texts are encoded and images decoded on
threads beside it where there is room for that (`ImageLimits.overlaps`), else between two steps, the
images one by one; files are always written beside it.
"""

import logging
import math
import queue
import time
from collections import deque
from collections.abc import Collection, Sequence

from rq.exceptions import StopRequested

from worker.contract.image_files import ImageFiles
from worker.contract.jobs import JobState
from worker.contract.record import Outcome, Record
from worker.contract.records import Records, Room
from worker.device_sharing import DeviceSharing
from worker.failures import explain, is_device_lost, is_out_of_memory
from worker.image_costs import ImageCosts
from worker.image_finishing import Decoded, ImageFinishing
from worker.image_preparing import ImagePreparing
from worker.image_reports import ImageReports
from worker.image_run import ImagePipeline, ImageRow, ImageRun, Painted, runs_of
from worker.image_warm_up import StepMeasuring, warm_up
from worker.metrics import WorkerMetrics
from worker.pieces import Pieces
from worker.residency import Residency
from worker.row_scheduler import RowScheduler, smoothed
from worker.settings import TEXT_CACHE_BYTES
from worker.side_thread import OwnStream, SideThread, synchronize
from worker.work import Settle

_WAIT_S = 0.05  # for a job that is being prepared, where there is nothing else to do
_DECODE_SHARE = 0.5  # of a turn's step, for images to be decoded after it
_STEPS_A_MEASUREMENT = 50  # one in so many, where it is never quiet

logger = logging.getLogger(__name__)


class ImageWork:
    def __init__(
        self,
        residency: Residency[ImagePipeline],
        records: Records,
        files: ImageFiles,
        settle: Settle,
        metrics: WorkerMetrics,
        text_cache_bytes: int = TEXT_CACHE_BYTES,
    ) -> None:
        self._residency = residency
        self._settle = settle
        self._metrics = metrics
        self._costs = ImageCosts(metrics)
        self._scheduler: RowScheduler[ImageRow] = RowScheduler(self._costs)
        self.pieces = Pieces()
        self._sharing = DeviceSharing(self.pieces)
        self._preparing = ImagePreparing(files, metrics, self._sharing, text_cache_bytes)
        self._finishing = ImageFinishing(files, metrics, self._sharing)
        self._reports = ImageReports(
            records, self._scheduler, self._finishing, self._sharing, metrics
        )
        self._runs: list[ImageRun] = []  # in hand; those that are over leave between two steps
        self._to_join: set[ImageRun] = set()  # whose rows are not known yet
        self._unprepared: list[ImageRun] = []  # for this thread to prepare
        self._prepared: queue.SimpleQueue[Sequence[ImageRun]] = queue.SimpleQueue()
        self._undecoded: deque[Painted] = deque()  # for this thread to decode
        self._prepare_s: float | None = None  # lately, from the claim on
        self._measuring: dict[str, StepMeasuring] = {}  # what is left to measure, by model
        self._num_steps = 0
        self._prepare_stream, self._decode_stream = OwnStream(), OwnStream()
        self._prepare_thread = SideThread("preparing", self._prepare_beside, self.pieces)
        self._decode_thread = SideThread("decoding", self._decode_beside, self.pieces)
        self._store_thread = SideThread("storing", self._store_beside, self.pieces)

    def room(self) -> Room:
        rows = self._scheduler.room(self._prepare_s or 0.0)
        num_new = self._scheduler.num_new_groups
        return Room(
            max_jobs=sum(rows.values()) + num_new,
            # whether more pay is known once the first is in hand
            rows_of_new_group=1 if num_new else 0,
            rows=rows,
        )

    def add(self, records: Sequence[Record]) -> None:
        runs = []
        for record in records:
            try:
                pipeline = self._residency.get(record.job.model)
                card = self._residency.card(record.job.model)
            except Exception as error:
                self._settle([(record, explain(record.job, error))])
                continue
            runs.append(ImageRun(record, pipeline, card, self._settle))
            self._expect(runs[-1])
        self._unprepared += [run for run in runs if not run.limits.overlaps]
        self._prepare_thread.add([run for run in runs if run.limits.overlaps])

    def advance(self) -> None:
        self._check_threads()
        self._prepare_here()
        self._let_join()
        self._end_overdue()
        step_s = 0.0
        if rows := self._scheduler.next():
            step_s = self._step(rows)
            self._measure_between_steps(rows[0].run.job.model)
        self._decode_here(_DECODE_SHARE * step_s)

    @property
    def is_idle(self) -> bool:
        # what ended a thread is for `advance` to raise
        has_failed = any(thread.has_failed for thread in self._threads)
        return self._scheduler.is_empty and not self._undecoded and not has_failed

    @property
    def models_in_use(self) -> Collection[str]:
        self._take_out_ended()  # an idle loop asks for nothing else, and they hold their model
        # also of those that are over, as long as a thread is at them
        decoding = [painted.run for painted in (*self._undecoded, *self._decode_thread.in_hand)]
        storing = [decoded.run for decoded in self._store_thread.in_hand]
        return {run.job.model for run in (*self._runs, *self._to_join, *decoding, *storing)}

    def give_back(self) -> list[Record]:
        """What has steps left; the rest is to be decoded and stored, which `finish` waits for."""
        self._take_out_ended()
        given_back = [run for run in self._runs if run in self._to_join or run.has_steps_left]
        given_back = [run for run in given_back if run.begin_ending()]
        for run in self._to_join:
            self._scheduler.add(run.group, run.name, ())  # it expects them no more
        self._to_join.clear()
        self._take_out_ended()
        return [run.record for run in given_back]

    def finish(self) -> None:
        with self.pieces.at_work():
            self._decode_here(math.inf)
        for thread in self._threads:
            thread.finish()

    def salvage(self, timeout_s: float) -> None:
        """Store the images that are decoded: their jobs may be complete."""
        self._store_thread.finish(timeout_s)

    def warm_up(self, model: str) -> None:
        """Run each part once, and measure what steps cost as far as that is quick."""
        pipeline, card = self._residency.get(model), self._residency.card(model)
        measuring = self._sharing.run(lambda: warm_up(pipeline, card))
        self._costs.take(model, measuring.costs)
        self._measuring[model] = measuring

    @property
    def wants_time(self) -> bool:
        return bool(self._to_measure())

    def use_time(self) -> None:
        """Measure one step of a model, but none while images are decoded."""
        if self.models_in_use:
            return
        for model in self._to_measure()[:1]:
            self._measure(model)

    def _measure_between_steps(self, model: str) -> None:
        """Now and then; else who is busy from the start would never learn how many rows pay."""
        self._num_steps += 1
        if self._num_steps % _STEPS_A_MEASUREMENT == 0 and model in self._to_measure():
            self._measure(model)

    def _to_measure(self) -> list[str]:
        """The resident models of which something is to be measured now."""
        models = [model for model in self._residency.resident if model in self._measuring]
        return [model for model in models if self._measuring[model].is_due]

    def _measure(self, model: str) -> None:
        measuring, pipeline = self._measuring[model], self._residency.get(model)
        has_failed = False
        try:
            self._sharing.run(lambda: measuring.advance(pipeline))
        except StopRequested:  # by a signal
            raise
        except Exception as error:  # what is known until then will do
            if is_device_lost(error):
                raise
            has_failed = True
            logger.warning("event=measuring_failed model=%s", model, exc_info=True)
        if has_failed or measuring.is_over:
            del self._measuring[model]
            self._costs.log(model)

    @property
    def _threads(self) -> tuple[SideThread[ImageRun], SideThread[Painted], SideThread[Decoded]]:
        """In the order in which an image comes by."""
        return self._prepare_thread, self._decode_thread, self._store_thread

    def _check_threads(self) -> None:
        for thread in self._threads:
            thread.check()

    def _expect(self, run: ImageRun) -> None:
        self._costs.expect(run.job.model, run.limits)
        self._runs.append(run)
        self._to_join.add(run)
        self._scheduler.expect(run.group, run.name, run.record.num_rows)

    def _prepare_beside(self, runs: Sequence[ImageRun]) -> None:
        with self._prepare_stream.on(runs[0].card.device):
            self._preparing.prepare(runs)
        self._prepared.put(runs)

    def _prepare_here(self) -> None:
        runs, self._unprepared = self._unprepared, []
        if runs:
            self._preparing.prepare(runs)
            self._prepared.put(runs)

    def _let_join(self) -> None:
        """Let prepared rows into the forwards; if there are no others, wait a little for them."""
        has_work = self._scheduler.has_rows or self._scheduler.is_empty or self._undecoded
        try:
            self._join(self._prepared.get(not has_work, _WAIT_S))
            while True:
                self._join(self._prepared.get_nowait())
        except queue.Empty:
            pass

    def _join(self, runs: Sequence[ImageRun]) -> None:
        for run in runs:
            assert run.rows or run.is_over, f"this is a bug: {run.name} has neither rows nor an end"
            self._prepare_s = smoothed(self._prepare_s, time.monotonic() - run.taken_at)
            self._to_join.remove(run)
            rows = [] if run.is_over else run.rows
            for row in rows:
                row.use_here()
            self._scheduler.add(run.group, run.name, rows)

    def _end_overdue(self) -> None:
        now = time.time()
        deadlines = [(run, run.job.deadline_at) for run in self._runs]
        overdue = [run for run, at in deadlines if at is not None and at <= now]
        self._end([(run, JobState.EXPIRED) for run in overdue])

    def _end(self, endings: Sequence[tuple[ImageRun, Outcome]]) -> None:
        """Settle those that are not over yet, in one round trip; none has a further step."""
        self._settle([(run.record, outcome) for run, outcome in endings if run.begin_ending()])
        self._take_out_ended()

    def _take_out_ended(self) -> None:
        """No forward is for the rows of a job that is over."""
        ended = {run for run in self._runs if run.is_over}  # another thread may end one any time
        if ended:
            self._scheduler.remove([row for run in ended for row in run.rows])
            self._runs = [run for run in self._runs if run not in ended]

    def _step(self, rows: Sequence[ImageRow]) -> float:
        """One forward, and what follows from it; the seconds of the forward."""
        try:
            seconds = self._forward(rows)
        except Exception as error:
            self._end([(run, explain(run.job, error)) for run in runs_of(rows)])
            return 0.0
        if seconds is None:
            return self._step_alone(rows)
        now = time.monotonic()
        for row in rows:
            row.note_step(now - seconds, now, len(rows))
        self._scheduler.note_step(rows, seconds, now)
        self._costs.note_step(rows, seconds)
        # those that wait, are being prepared or are decoded are asked for as well; of a stale
        # attempt no outcome changes anything
        ended = self._reports.report(self._runs, rows)
        self._end([(run, JobState.CANCELED) for run in ended])
        self._hand_over([row for row in rows if not row.steps_left and not row.run.is_over])
        return seconds

    def _forward(self, rows: Sequence[ImageRow]) -> float | None:
        """Step rows, and say how many seconds that took; None where so many do not fit at once."""
        run = rows[0].run

        def step() -> float:
            before = time.perf_counter()
            run.pipeline.step([row.painting for row in rows])
            synchronize(run.card.device)
            return time.perf_counter() - before

        try:
            return self._sharing.run(step)
        except Exception as error:
            self._metrics.note_error(run.job.model, error)
            if len(rows) == 1 or not is_out_of_memory(error):
                raise
        return None

    def _step_alone(self, rows: Sequence[ImageRow]) -> float:
        """Do this step of each by itself; the next ones have fewer rows at once."""
        self._costs.note_too_many(rows)
        return sum(self._step([row]) for row in rows if not row.run.is_over)

    def _hand_over(self, rows: Sequence[ImageRow]) -> None:
        """Let images that have had their last step be decoded."""
        if not rows:
            return
        painted = []
        for row in rows:
            try:
                painted.append(row.take_patches())
            except Exception as error:
                row.run.fail(error)
        for run in runs_of(rows):
            self._note_denoised(run)
        if rows[0].run.limits.overlaps:
            self._decode_thread.add(painted)
        else:
            self._decode_here(math.inf)  # of an earlier step: no more gather than one step makes
            self._undecoded.extend(painted)

    def _note_denoised(self, run: ImageRun) -> None:
        if run.step < run.num_steps:
            return
        assert run.began_at is not None, "this is a bug: it has had steps"
        assert run.stepped_at is not None, "this is a bug: it has had steps"
        stage = self._metrics.stage_duration.labels(run.job.model, "denoise")
        stage.observe(run.stepped_at - run.began_at)
        said = {
            "triptych.steps": run.num_steps,
            "triptych.image.width": run.job.width,
            "triptych.image.height": run.job.height,
            "triptych.rows": run.record.num_rows,
            "triptych.batch.most_rows": run.most_rows,
        }
        self._metrics.spans.note_stage("denoise", run.record, run.began_at, run.stepped_at, said)

    def _decode_here(self, at_most_s: float) -> None:
        """Decode one image, and more until so many seconds are over.

        So those that end together do not keep newcomers waiting, nor wait for long steps of others.
        """
        until = time.monotonic() + at_most_s
        while self._undecoded:
            self._store_thread.add(self._finishing.decode([self._undecoded.popleft()]))
            if time.monotonic() >= until:
                break

    def _decode_beside(self, painted: Sequence[Painted]) -> None:
        with self._decode_stream.on(painted[0].run.card.device):
            decoded = self._finishing.decode(painted)
        self._store_thread.add(decoded)

    def _store_beside(self, decoded: Sequence[Decoded]) -> None:
        for each in decoded:
            self.pieces.begin_next()
            self._finishing.store(each)
