"""Image jobs, one at a time: drive the denoise loop, watch for its end, store the images.

The seeds of a job share each step, as many at a time as the model's card says. Between two steps
the job may be canceled, run out of time or belong to another attempt; then the loop stops there.
"""

from __future__ import annotations

import io
import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from PIL import Image as PilImage
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from worker.contract.image_files import ImageFiles
from worker.contract.jobs import Image, ImageJob, ImageResult, JobState
from worker.contract.model_cards import ImageLimits
from worker.contract.records import AnyJob, EndedEarly, Outcome, Record, Records
from worker.failures import StaleAttemptError, StorageError, explain
from worker.image_inputs import Encoder, Texts, encode_texts, read_start
from worker.metrics import WorkerMetrics
from worker.residency import Residency
from worker.text_cache import TextCache

if TYPE_CHECKING:  # transformers takes seconds to import, and other queues' workers do without
    from models.flux.latents import Start
    from models.flux.sampling import DenoiseStep
    from models.flux.text_encoders import TextFeatures
    from models.flux.text_to_image import Negative

logger = logging.getLogger(__name__)


class ImagePipeline(Encoder, Protocol):
    """The part of `TextToImage` that jobs need."""

    @property
    def has_guidance(self) -> bool: ...

    def denoise(
        self,
        text: TextFeatures,
        seeds: Sequence[int],
        width: int,
        height: int,
        num_steps: int,
        guidance_scale: float | None,
        *,
        negative: Negative | None = None,
        start: Start | None = None,
    ) -> Iterator[DenoiseStep]: ...

    def decode(self, patches: Tensor, width: int, height: int) -> np.ndarray:
        """[B, S, 64] to [B, H, W, 3] uint8."""


@dataclass(frozen=True, slots=True)
class _Run:
    """One job, and all that its loop needs."""

    record: Record
    job: ImageJob
    pipeline: ImagePipeline
    texts: Texts
    start: Start | None


@dataclass(frozen=True, slots=True)
class _Turn:
    """Those of a job's images that are painted together."""

    seeds: Sequence[int]
    index: int
    num_turns: int

    def progress(self, step: DenoiseStep) -> tuple[int, int]:
        """The steps done, and those of all turns."""
        return self.index * step.num_steps + step.step, self.num_turns * step.num_steps


class ImageWork:
    def __init__(
        self,
        residency: Residency[ImagePipeline],
        records: Records,
        files: ImageFiles,
        metrics: WorkerMetrics,
    ) -> None:
        self._residency = residency
        self._records = records
        self._files = files
        self._metrics = metrics
        self._text_cache = TextCache()

    def run(self, records: Sequence[Record], settle: Callable[[Record, Outcome], None]) -> None:
        for record in records:
            try:
                outcome = self._paint(record, _image_job(record.job))
            except StaleAttemptError:
                logger.warning("event=stale_attempt job=%s attempt=%d", record.id, record.attempt)
                continue
            except Exception as error:
                outcome = explain(record.id, error)
            settle(record, outcome)

    def warm_up(self, model: str) -> None:
        pipeline = self._residency.get(model)
        limits = self._limits(model)
        width, height = limits.default_width, limits.default_height
        guidance_scale = limits.default_guidance_scale if pipeline.has_guidance else None
        text = pipeline.encode(["warm up"], limits.max_sequence_length)
        for step in pipeline.denoise(text, [0], width, height, 1, guidance_scale):
            pipeline.decode(step.patches, width, height)

    def _paint(self, record: Record, job: ImageJob) -> Outcome:
        pipeline = self._residency.get(job.model)
        start = self._start(job)
        with self._stage(job, "text_encode"):
            texts = encode_texts(job, pipeline, self._residency.card(job.model), self._text_cache)
        with self._stage(job, "denoise"):
            last = self._denoise(_Run(record, job, pipeline, texts, start))
        if isinstance(last, JobState):
            return last
        images = tuple(
            self._store(record, job, index, self._decode(job, pipeline, patches))
            for index, patches in enumerate(last)
        )
        self._metrics.images_generated.labels(job.model).inc(len(images))
        self._metrics.image_pixels.labels(job.model).inc(job.width * job.height * len(images))
        return ImageResult(
            images=images,
            num_text_tokens=texts.num_tokens,
            is_prompt_truncated=texts.is_truncated,
            num_patches=last.shape[0] * last.shape[1],
        )

    def _decode(self, job: ImageJob, pipeline: ImagePipeline, patches: Tensor) -> np.ndarray:
        """One image [H, W, 3] of [S, 64]: several at once take more memory, and no less time."""
        with self._stage(job, "vae_decode"):
            pixels: np.ndarray = pipeline.decode(patches[None], job.width, job.height)[0]
        return pixels

    def _start(self, job: ImageJob) -> Start | None:
        if job.start is None:
            return None
        with self._stage(job, "start_decode"):
            return read_start(job.start, self._files)

    def _denoise(self, run: _Run) -> Tensor | EndedEarly:
        """The finished patches [B, S, 64], or the final state that a client or the clock asked."""
        finished: list[Tensor] = []
        turns = seeds_by_turn(run.job, self._limits(run.job.model))
        for index, seeds in enumerate(turns):
            last = self._take_turn(run, _Turn(seeds, index, len(turns)))
            if isinstance(last, JobState):
                return last
            finished.append(last)
        return torch.cat(finished)

    def _take_turn(self, run: _Run, turn: _Turn) -> Tensor | EndedEarly:
        job = run.job
        steps = run.pipeline.denoise(
            run.texts.prompt,
            turn.seeds,
            job.width,
            job.height,
            job.num_steps,
            job.guidance_scale if run.pipeline.has_guidance else None,
            negative=run.texts.negative,
            start=run.start,
        )
        patches: Tensor | None = None
        before = time.perf_counter()
        for step in steps:
            self._metrics.denoise_step_duration.labels(job.model).observe(
                time.perf_counter() - before
            )
            self._metrics.denoise_steps.labels(job.model).inc()
            if (end := self._end_between_steps(run.record, step, turn)) is not None:
                return end
            patches = step.patches
            before = time.perf_counter()
        assert patches is not None, "a loop without a step: this is a bug"
        return patches

    def _end_between_steps(
        self, record: Record, step: DenoiseStep, turn: _Turn
    ) -> EndedEarly | None:
        done, of = turn.progress(step)
        if not self._records.progress(record.id, record.attempt, done, of):
            raise StaleAttemptError(f"attempt {record.attempt} of {record.id} is not current")
        if self._records.is_cancel_requested(record.id):
            return JobState.CANCELED
        deadline_at = record.job.deadline_at
        return JobState.EXPIRED if deadline_at is not None and deadline_at <= time.time() else None

    def _store(self, record: Record, job: ImageJob, index: int, pixels: np.ndarray) -> Image:
        with self._stage(job, "png_encode"):
            png = encode_png(pixels, job, job.seeds[index])
        with self._stage(job, "store"):
            try:
                file_name = self._files.store(png, job.id, record.attempt, index)
            except OSError as error:
                raise StorageError(f"image {index} of {job.id}") from error
        self._metrics.result_store_bytes.inc(len(png))
        height, width, _ = pixels.shape
        return Image(
            file_name=file_name,
            seed=job.seeds[index],
            width=width,
            height=height,
            num_bytes=len(png),
        )

    def _limits(self, model: str) -> ImageLimits:
        limits = self._residency.card(model).image_limits
        assert limits is not None, f"this is a bug: {model} has no limits"
        return limits

    def _stage(self, job: ImageJob, stage: str) -> AbstractContextManager[object]:
        return self._metrics.stage_duration.labels(job.model, stage).time()


def seeds_by_turn(job: ImageJob, limits: ImageLimits) -> list[Sequence[int]]:
    """Give each turn as many seeds as the device has room for, and one at least."""
    if limits.max_tokens_at_once is None:
        return [job.seeds]
    num_tokens = limits.max_sequence_length + job.width * job.height // limits.side_multiple**2
    size = max(1, limits.max_tokens_at_once // num_tokens)
    return [job.seeds[first : first + size] for first in range(0, len(job.seeds), size)]


def encode_png(pixels: np.ndarray, job: ImageJob, seed: int) -> bytes:
    """Encode [H, W, 3] uint8 with what made it in the text chunk `parameters`."""
    chunks = PngInfo()
    parameters: dict[str, object] = {
        "model": job.model,
        "prompt": job.prompt,
        "seed": seed,
        "width": job.width,
        "height": job.height,
        "num_inference_steps": job.num_steps,
        "guidance_scale": job.guidance_scale,
        "job": job.id,
    }
    if job.loras:
        parameters["loras"] = [lora.model_dump() for lora in job.loras]
    if job.negative is not None:
        parameters["negative_prompt"] = job.negative.prompt
        parameters["true_cfg_scale"] = job.negative.true_cfg_scale
    if job.start is not None:
        parameters["strength"] = job.start.strength
    chunks.add_text("parameters", json.dumps(parameters))
    buffer = io.BytesIO()
    # level 1 of zlib: a fifth of the time of the default 6 for a tenth more bytes
    PilImage.fromarray(pixels).save(buffer, "PNG", compress_level=1, pnginfo=chunks)
    return buffer.getvalue()


def _image_job(job: AnyJob) -> ImageJob:
    assert isinstance(job, ImageJob), f"a {job.task} job in the images queue: this is a bug"
    return job
