"""Images on their way from noise to patches, and one step of some of them in one forward.

The rows of a forward need not know each other: each has its own noise level, guidance, negative
prompt, LoRAs and, for the same number of patches, width and height. One step is Euler's, from a
noise level to the next. Which rows are taken together is decided elsewhere. Knows nothing about
prompts, seeds and jobs.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from models.execution.block_cache import BlockCache
from models.flux.backbone import FluxBackbone
from models.flux.conditioning import ClassifierFreeGuidance, Conditioning
from models.layers.adapters import Scale


@dataclass(slots=True, eq=False, kw_only=True)
class PaintRow:
    """One image on its way.

    width, height    pixels
    sigmas           noise levels, from the first to 0: one more than there are steps
    conditioning     what to paint
    guidance         the distilled scale; None where the backbone embeds none
    classifier_free  what not to paint
    loras            scales of the LoRAs that count, by name
    rotations        [T+S, d/2, 2], what the backbone makes of the positions
    patches          [S, 64] float32, at the noise level `sigma`
    velocity         [S, 64] float32, of the last step
    caches           by which blocks are skipped, one for each place; none: all blocks run
    """

    width: int
    height: int
    sigmas: Sequence[float]
    conditioning: Conditioning
    guidance: float | None
    classifier_free: ClassifierFreeGuidance | None
    loras: Mapping[str, float]
    rotations: Tensor
    patches: Tensor
    velocity: Tensor | None = None
    step: int = 0
    caches: Sequence[BlockCache] = ()

    @property
    def num_steps(self) -> int:
        return len(self.sigmas) - 1

    @property
    def is_done(self) -> bool:
        return self.step == self.num_steps

    @property
    def sigma(self) -> float:
        return self.sigmas[self.step]

    @property
    def num_patches(self) -> int:
        return len(self.patches)

    @property
    def num_text_tokens(self) -> int:
        return len(self.conditioning.text)

    @property
    def num_places(self) -> int:
        """How many rows of the forward it takes."""
        return 1 if self.classifier_free is None else 2

    def clean_patches(self) -> Tensor:
        """Predict what it is on its way to, [S, 64]; raises ValueError before the first step."""
        if self.velocity is None:
            raise ValueError("the row is at step 0: its first step predicts the image")
        return self.patches - self.sigma * self.velocity


@dataclass(frozen=True, slots=True)
class _Place:
    """A row of the forward: of a row's prompt or of its negative one."""

    row: PaintRow
    conditioning: Conditioning


@dataclass(frozen=True, slots=True)
class _Levels:
    """Numbers of one step, on the device: float32.

    timesteps  [P] sigma of each place
    guidance   [P] distilled scale of each place; None where the backbone embeds none
    moves      [R] from each row's sigma to its next one, below 0
    """

    timesteps: Tensor
    guidance: Tensor | None
    moves: Tensor

    @classmethod
    def of(cls, rows: Sequence[PaintRow], places: Sequence[_Place], device: torch.device) -> Self:
        """Bring all of them to the device in one copy, without waiting for it."""
        sigmas = [place.row.sigma for place in places]
        scales = [place.row.guidance for place in places if place.row.guidance is not None]
        moves = [row.sigmas[row.step + 1] - row.sigma for row in rows]
        numbers = torch.tensor([*sigmas, *scales, *moves], dtype=torch.float32)
        sizes = (len(sigmas), len(scales), len(moves))
        timesteps, guidance, on_device = numbers.to(device, non_blocking=True).split(sizes)
        return cls(timesteps, guidance if scales else None, on_device)


@torch.inference_mode()
def step_rows(backbone: FluxBackbone, rows: Sequence[PaintRow], loras: Mapping[str, Scale]) -> None:
    """Take each row one step further, all in one forward.

    `loras` are those of the backbone. The patches stay float32; the backbone sees them in its own
    dtype. Nothing waits for the device.

    Raises ValueError for no rows, for a row that is done, and for rows that differ in their number
    of patches or text tokens. Then no row has changed.
    """
    _check(rows)
    # neighbours with the same LoRAs share their products
    ordered = sorted(rows, key=lambda row: sorted(row.loras.items()))
    places = [place for row in ordered for place in _places(row)]
    patches = torch.stack([row.patches for row in ordered])  # [R, S, 64]
    levels = _Levels.of(ordered, places, patches.device)
    with ExitStack() as by_row:
        for name, scale in loras.items():
            scales = [place.row.loras.get(name, 0.0) for place in places]
            by_row.enter_context(scale.by_row(scales))
        velocities = _predict(backbone, places, patches, levels).float()
    if len(places) > len(ordered):
        velocities = _guide(ordered, velocities)
    moved = patches + levels.moves[:, None, None] * velocities
    for row, row_patches, row_velocity in zip(ordered, moved, velocities, strict=True):
        row.patches, row.velocity = row_patches, row_velocity
        row.step += 1


def _check(rows: Sequence[PaintRow]) -> None:
    if not rows:
        raise ValueError("there is no row; a step needs at least one")
    if any(row.is_done for row in rows):
        raise ValueError("a row has done all of its steps; only rows with steps left are allowed")
    if len(shapes := {(row.num_patches, row.num_text_tokens) for row in rows}) > 1:
        listed = ", ".join(f"{patches} and {tokens}" for patches, tokens in sorted(shapes))
        raise ValueError(f"rows of one step have the same patches and text tokens; got {listed}")


def _places(row: PaintRow) -> Iterator[_Place]:
    yield _Place(row, row.conditioning)
    if row.classifier_free is not None:
        yield _Place(row, row.classifier_free.negative)


def _predict(
    backbone: FluxBackbone, places: Sequence[_Place], patches: Tensor, levels: _Levels
) -> Tensor:
    """Ask the backbone once: the velocities of the places, [P, S, 64]."""
    if len(places) > len(patches):
        patches = torch.stack([place.row.patches for place in places])
    return backbone.predict(
        image=patches.to(places[0].conditioning.text.dtype),
        text=torch.stack([place.conditioning.text for place in places]),
        y=torch.stack([place.conditioning.pooled for place in places]),
        timesteps=levels.timesteps,
        guidance=levels.guidance,
        rotations=_rotations(places),
        caches=_caches(places),
    )


def _caches(places: Sequence[_Place]) -> list[BlockCache] | None:
    """Those of the places, or None where a row has none: then all blocks run for all."""
    rows = dict.fromkeys(place.row for place in places)
    return [cache for row in rows for cache in row.caches] if all(r.caches for r in rows) else None


def _rotations(places: Sequence[_Place]) -> Tensor:
    """One for all places of the same size, or one each: [1 or P, T+S, d/2, 2]."""
    rows = [place.row for place in places]
    if len({(row.width, row.height) for row in rows}) == 1:
        return rows[0].rotations[None]
    return torch.stack([row.rotations for row in rows])


def _guide(rows: Sequence[PaintRow], velocities: Tensor) -> Tensor:
    """Make one velocity of those of a row's places: [P, S, 64] to [R, S, 64].

    `negative + scale * (positive - negative)`, as in diffusers' FluxPipeline.
    """
    of_rows = velocities.split([row.num_places for row in rows])
    guided = []
    for row, own in zip(rows, of_rows, strict=True):
        if row.classifier_free is None:
            guided.append(own[0])
        else:
            positive, negative = own
            guided.append(negative + row.classifier_free.scale * (positive - negative))
    return torch.stack(guided)
