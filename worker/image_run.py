"""One attempt at an image job, as it goes from thread to thread, and its images on their way."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import torch
from torch import Tensor

from worker.contract.jobs import Image, ImageJob
from worker.contract.model_cards import ImageLimits, ModelCard
from worker.contract.record import Outcome, Record
from worker.failures import explain, is_device_lost
from worker.image_inputs import Encoder, text_length_of
from worker.row_scheduler import Group
from worker.work import Settle

if TYPE_CHECKING:  # other queues' workers do without
    from models.flux.latents import Start
    from models.flux.rows import PaintRow
    from models.flux.text_encoders import TextFeatures
    from models.flux.text_to_image import Negative


class ImagePipeline(Encoder, Protocol):
    """The part of `TextToImage` that jobs need."""

    @property
    def has_guidance(self) -> bool: ...

    def begin(
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
        flow_shift: float | None = None,
        loras: Mapping[str, float] | None = None,
    ) -> list[PaintRow]: ...

    def step(self, rows: Sequence[PaintRow]) -> None: ...

    def decode(self, patches: Tensor, width: int, height: int) -> np.ndarray:
        """[B, S, 64] to [B, H, W, 3] uint8."""

    def preview(self, row: PaintRow) -> np.ndarray:
        """[h/8, w/8, 3] uint8."""


@dataclass(frozen=True, slots=True)
class Painted:
    """An image after its last step: patches [S, 64] in the host's memory."""

    run: ImageRun
    index: int
    patches: Tensor


class ImageRow:
    """One image of a run on its way, up to its last step."""

    def __init__(self, run: ImageRun, index: int, painting: PaintRow) -> None:
        self.run = run
        self.index = index
        self.num_steps = painting.num_steps
        self.num_places = painting.num_places
        self.step = 0
        self._painting: PaintRow | None = painting

    @property
    def painting(self) -> PaintRow:
        assert self._painting is not None, "this is a bug: the row has had its last step"
        return self._painting

    @property
    def group(self) -> Group:
        return self.run.group

    @property
    def loras(self) -> frozenset[str]:
        return self.run.lora_names

    @property
    def steps_left(self) -> int:
        return self.num_steps - self.step

    def note_step(self, began_at: float, ended_at: float, num_rows: int) -> None:
        """Of a forward of so many rows, its own and others'."""
        self.step += 1
        self.run.most_rows = max(self.run.most_rows, num_rows)
        self.run.stepped_at = ended_at
        if self.run.began_at is None:
            self.run.began_at = began_at

    def use_here(self) -> None:
        """Keep CUDA from giving its patches to the thread that made them before a step is done."""
        patches = self.painting.patches
        if patches.is_cuda:
            patches.record_stream(torch.cuda.current_stream(patches.device))

    def take_patches(self) -> Painted:
        """What it has become, from the device; the rest of it is let go."""
        patches, self._painting = self.painting.patches.cpu(), None
        return Painted(self.run, self.index, patches)


class ImageRun:
    """An attempt that some thread ends, and no second time.

    rows    once it is prepared
    images  what is stored already, by its place in the job
    """

    def __init__(
        self, record: Record, pipeline: ImagePipeline, card: ModelCard, settle: Settle
    ) -> None:
        assert isinstance(record.job, ImageJob), f"{record.id} is no image job: this is a bug"
        self.record = record
        self.job: ImageJob = record.job
        self.pipeline = pipeline
        self.card = card
        self.rows: list[ImageRow] = []
        self.images: dict[int, Image] = {}
        self.num_text_tokens = 0
        self.is_prompt_truncated = False
        self.taken_at = time.monotonic()
        self.began_at: float | None = None  # its first step
        self.stepped_at: float | None = None  # its last one until now
        self.most_rows = 0  # of the forwards that it had a part in
        self._settle = settle
        self._is_over = False
        self._ending = threading.Lock()
        side = self.limits.side_multiple
        num_patches = self.job.width * self.job.height // side**2
        text_length = text_length_of(self.job, self.limits)
        self.group = Group(record.group, self.job.model, num_patches, text_length)

    @property
    def name(self) -> str:
        """One job may have several attempts in one worker, if the first has lost its lease."""
        return f"{self.record.id}-{self.record.attempt}"

    @property
    def limits(self) -> ImageLimits:
        limits = self.card.image_limits
        assert limits is not None, f"this is a bug: {self.card.name} has no limits"
        return limits

    @property
    def lora_names(self) -> frozenset[str]:
        return frozenset(lora.name for lora in self.job.loras if lora.scale)

    @property
    def num_steps(self) -> int:
        """Of each image: image-to-image leaves some out, as is known once it is prepared."""
        return self.rows[0].num_steps if self.rows else self.job.num_steps

    @property
    def step(self) -> int:
        """How many are done, on the average of its images."""
        return sum(row.step for row in self.rows) // max(1, len(self.rows))

    @property
    def has_steps_left(self) -> bool:
        return any(row.steps_left for row in self.rows)

    @property
    def is_over(self) -> bool:
        return self._is_over

    def end(self, outcome: Outcome) -> bool:
        """Settle it, unless it is over already: False."""
        if is_mine := self.begin_ending():
            self._settle([(self.record, outcome)])
        return is_mine

    def fail(self, error: Exception) -> None:
        """End it with what may be told of an error; raises DeviceLostError where that is one."""
        # the device is lost to all, whatever has become of this one
        if is_device_lost(error) or not self._is_over:
            self.end(explain(self.job, error))

    def begin_ending(self) -> bool:
        """Make it over; True once, for who is to settle it."""
        with self._ending:
            was_over, self._is_over = self._is_over, True
        return not was_over


def runs_of(rows: Sequence[ImageRow]) -> list[ImageRun]:
    """Each once, in their order."""
    return list(dict.fromkeys(row.run for row in rows))
