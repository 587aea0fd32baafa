"""From the patches of finished rows to images that are stored, and jobs that are settled.

`decode` needs the device, `store` does not. What fails ends the job of the image. Knows nothing
about the denoise loop.
"""

import time
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch

from worker.contract.image_files import ImageFiles, is_disk_full
from worker.contract.jobs import Image, ImageResult
from worker.device_sharing import DeviceSharing
from worker.failures import DiskFullError, StorageError, is_device_lost
from worker.image_encoding import encode_image
from worker.image_run import ImageRun, Painted
from worker.metrics import WorkerMetrics
from worker.row_scheduler import smoothed


@dataclass(frozen=True, slots=True)
class Decoded:
    """An image as pixels [H, W, 3] uint8."""

    run: ImageRun
    index: int
    pixels: np.ndarray


class ImageFinishing:
    def __init__(self, files: ImageFiles, metrics: WorkerMetrics, sharing: DeviceSharing) -> None:
        self._files = files
        self._metrics = metrics
        self._sharing = sharing
        self._after_last_step_s: dict[str, float] = {}  # lately, by group

    def after_last_step_s(self, group: str) -> float:
        """How long it takes lately from a job's last step until it is settled."""
        return self._after_last_step_s.get(group, 0.0)

    def decode(self, painted: Sequence[Painted]) -> list[Decoded]:
        """Decode images of one size together, as far as the largest one has as many pixels."""
        by_size: dict[Hashable, list[Painted]] = {}
        for each in painted:
            job = each.run.job
            if not each.run.is_over:
                by_size.setdefault((job.model, job.width, job.height), []).append(each)
        return [
            decoded
            for same in by_size.values()
            for part in _in_parts(same)
            for decoded in self._decode_together(part)
        ]

    def store(self, decoded: Decoded) -> None:
        """Store an image in its format, and settle its job if it is the last one of that."""
        run = decoded.run
        if run.is_over:
            return
        try:
            run.images[decoded.index] = self._store(decoded)
        except Exception as error:
            run.fail(error)
        else:
            self._settle_if_complete(run)

    def _decode_together(self, painted: Sequence[Painted]) -> list[Decoded]:
        run = painted[0].run
        try:
            images = self._pixels(painted)
        except Exception as error:
            run.fail(error)
            return []
        if images is None:
            return [decoded for each in painted for decoded in self._decode_together([each])]
        return [Decoded(e.run, e.index, pixels) for e, pixels in zip(painted, images, strict=True)]

    def _pixels(self, painted: Sequence[Painted]) -> np.ndarray | None:
        """Decode images of one size to [B, H, W, 3] uint8; None where one of several is at fault.

        A lack of memory is one of the faults.
        """
        run = painted[0].run
        try:
            records = [each.record for each in dict.fromkeys(each.run for each in painted)]
            with self._metrics.stage("vae_decode", records, {"triptych.batch.rows": len(painted)}):
                patches = torch.stack([each.patches for each in painted])
                return self._sharing.run(
                    lambda: run.pipeline.decode(patches, run.job.width, run.job.height)
                )
        except Exception as error:
            self._metrics.note_error(run.job.model, error)
            if len(painted) == 1 or is_device_lost(error):
                raise
        return None  # what the frames of the error held is free from here on

    def _store(self, decoded: Decoded) -> Image:
        run, index = decoded.run, decoded.index
        whose, which = [run.record], {"triptych.image.index": index}
        with self._metrics.stage("image_encode", whose, which):
            file = encode_image(decoded.pixels, run.job, run.job.seeds[index])
        with self._metrics.stage("store", whose, which):
            try:
                with self._metrics.store_operation("store"):
                    name = self._files.store(
                        file, run.job.id, run.record.attempt, index, run.job.output_format
                    )
            except OSError as error:
                kind = DiskFullError if is_disk_full(error) else StorageError
                raise kind(f"image {index} of {run.job.id}") from error
        self._metrics.result_store_bytes.inc(len(file))
        height, width, _ = decoded.pixels.shape
        return Image(
            file_name=name,
            seed=run.job.seeds[index],
            width=width,
            height=height,
            num_bytes=len(file),
        )

    def _settle_if_complete(self, run: ImageRun) -> None:
        job = run.job
        if len(run.images) < len(job.seeds):
            return
        images = tuple(run.images[index] for index in range(len(job.seeds)))
        result = ImageResult(
            images=images,
            num_text_tokens=run.num_text_tokens,
            is_prompt_truncated=run.is_prompt_truncated,
            num_patches=len(images) * run.group.num_patches,
        )
        if not run.end(result):
            return
        self._metrics.images_generated.labels(job.model).inc(len(images))
        self._metrics.image_pixels.labels(job.model).inc(job.width * job.height * len(images))
        if run.stepped_at is not None:
            taken_s = time.monotonic() - run.stepped_at
            group, lately = run.group.name, self._after_last_step_s.get(run.group.name)
            self._after_last_step_s[group] = smoothed(lately, taken_s)


def _in_parts(painted: Sequence[Painted]) -> Iterator[Sequence[Painted]]:
    """As many at once as have the pixels of the largest image, for which there is memory."""
    run = painted[0].run
    size = max(1, run.limits.max_pixels // (run.job.width * run.job.height))
    for first in range(0, len(painted), size):
        yield painted[first : first + size]
