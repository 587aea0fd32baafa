"""From jobs to rows that can be stepped: start images read, texts encoded, noise drawn.

What fails is the fault of one job, and ends that one alone. Knows nothing about the denoise loop.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence
from typing import TYPE_CHECKING

from worker.contract.image_files import ImageFiles
from worker.device_sharing import DeviceSharing
from worker.failures import is_device_lost
from worker.image_inputs import Texts, encode_texts, lora_scales, read_start
from worker.image_run import ImageRow, ImageRun
from worker.metrics import WorkerMetrics
from worker.text_cache import TextCache

if TYPE_CHECKING:  # other queues' workers do without
    from models.flux.latents import Start


class ImagePreparing:
    def __init__(
        self,
        files: ImageFiles,
        metrics: WorkerMetrics,
        sharing: DeviceSharing,
        text_cache_bytes: int,
    ) -> None:
        self._files = files
        self._metrics = metrics
        self._sharing = sharing
        self._text_cache = TextCache(text_cache_bytes, metrics)

    def prepare(self, runs: Sequence[ImageRun]) -> None:
        """Give each its rows, and those whose texts are encoded alike together.

        A run that fails is over, and has no rows.
        """
        by_encoders: dict[Hashable, list[ImageRun]] = {}
        for run in runs:
            if not run.is_over:
                key = run.card.digest, run.job.loras, run.group.num_text_tokens
                by_encoders.setdefault(key, []).append(run)
        for together in by_encoders.values():
            self._prepare_together(together)

    def _prepare_together(self, runs: Sequence[ImageRun]) -> None:
        try:
            texts = self._encode(runs)
        except Exception as error:
            runs[0].fail(error)
            return
        if texts is None:
            for run in runs:
                self._prepare_together([run])
            return
        for run, its_texts in zip(runs, texts, strict=True):
            try:
                self._begin(run, its_texts)
            except Exception as error:
                run.fail(error)

    def _encode(self, runs: Sequence[ImageRun]) -> list[Texts] | None:
        """Encode the texts of jobs; None where one of several is at fault, or memory lacks."""
        first, jobs = runs[0], [run.job for run in runs]
        try:
            with self._metrics.stage(
                "text_encode", [run.record for run in runs], {"triptych.jobs": len(runs)}
            ):
                return encode_texts(
                    jobs, first.pipeline, first.card, self._text_cache, self._sharing
                )
        except Exception as error:
            self._metrics.note_error(first.job.model, error)
            if len(runs) == 1 or is_device_lost(error):
                raise
        return None  # what the frames of the error held is free from here on

    def _begin(self, run: ImageRun, texts: Texts) -> None:
        job, pipeline = run.job, run.pipeline
        start, scales = self._start(run), lora_scales(job, run.card)
        run.num_text_tokens, run.is_prompt_truncated = texts.num_tokens, texts.is_truncated
        rows = self._sharing.run(
            lambda: pipeline.begin(
                texts.prompt,
                job.seeds,
                job.width,
                job.height,
                job.num_steps,
                job.guidance_scale if pipeline.has_guidance else None,
                negative=texts.negative,
                start=start,
                flow_shift=job.flow_shift,
                loras=scales,
            )
        )
        run.rows = [ImageRow(run, index, row) for index, row in enumerate(rows)]

    def _start(self, run: ImageRun) -> Start | None:
        if run.job.start is None:
            return None
        with self._metrics.stage("start_decode", [run.record]):
            return read_start(run.job.start, self._files, self._metrics)
