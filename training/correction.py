"""Let the image model turn back from its own mistakes.

It paints sentences of its training, and what an image shows is compared with what its sentence
says. At the states on the way to a wrong image, and at that image under noise, the model then
learns the velocity towards a right one: flow matching never showed it such states, and it takes
for true what it has begun. At right images under noise it stays what it is.
"""

import random
from dataclasses import dataclass, fields, replace
from typing import Self

import numpy as np
import torch
from diffusers import AutoencoderKL
from torch import Tensor, nn
from tqdm import tqdm

from models.flux.latents import patchify
from models.flux.text_to_image import TextToImage
from training.autoencoder import encode_images
from training.geometry import detect_shapes
from training.image_flow import SIDE, Sample, disturb, draw_guidance, noised, predict
from training.segmentation import Pixels
from training.shapes_world import Scene, complete, render
from training.text_encoders import draw_sentence, share_read
from training.verdict import compare

NUM_PAINTED = 6400
FULL_SHARE = 0.6  # sentences that say all of a single shape, the hardest to paint
NUM_STEPS, GUIDANCE = 10, 2.0  # half the usual steps: twice as many images in the time
NUM_RENDERINGS = 8  # of a scene, of which the one is aimed at that is nearest to the wrong image
PAINT_BATCH_SIZE = 32
LEAST_SIGMA = 0.35  # below, a shape can no longer become another
WRONG_ROWS, RIGHT_ROWS = 20, 44  # of a batch
CORRECTION_SEED = 2_000_000  # beyond any other


@dataclass(frozen=True, slots=True)
class Painted:
    """Images that the model painted itself, and what their sentences say: all but sigmas float16.

    right   [R, S, 64], patches of those that show what their sentence says
    wrong   [W, num_steps, S, 64], of those that do not, after each step; the last are clean
    sigmas  [num_steps], the noise levels of these
    truth   [W, S, 64], for each of the wrong ones an image that shows it
    text    [R, T, D] and [W, T, D], T5's features of the sentences
    pooled  [R, D] and [W, D], CLIP's
    """

    right: Tensor
    right_text: Tensor
    right_pooled: Tensor
    wrong: Tensor
    wrong_text: Tensor
    wrong_pooled: Tensor
    sigmas: Tensor
    truth: Tensor

    def with_mistakes_of(self, earlier: Self) -> Self:
        """Add those of an earlier round: what was corrected then is not to come back."""
        return replace(
            self,
            wrong=torch.cat((self.wrong, earlier.wrong)),
            wrong_text=torch.cat((self.wrong_text, earlier.wrong_text)),
            wrong_pooled=torch.cat((self.wrong_pooled, earlier.wrong_pooled)),
            truth=torch.cat((self.truth, earlier.truth)),
        )


def paint_own(pipeline: TextToImage, autoencoder: AutoencoderKL, number: int) -> Painted:
    """Let the model paint the sentences of a round, and judge what it painted.

    A sentence that T5 does not read right is no mistake of the transformer's, and left out.
    """
    states, text, pooled = [], [], []
    right, wrong, truths = [], [], []
    sigmas: list[float] = []
    for first in tqdm(range(0, NUM_PAINTED, PAINT_BATCH_SIZE), "own images"):
        start = CORRECTION_SEED + number * NUM_PAINTED + first
        seeds = range(start, start + PAINT_BATCH_SIZE)
        rngs = [random.Random(seed) for seed in seeds]
        drawn = [draw_sentence(rng, FULL_SHARE) for rng in rngs]
        features = pipeline.encode([sentence for _, sentence in drawn])
        steps = list(pipeline.denoise(features, seeds, SIDE, SIDE, NUM_STEPS, GUIDANCE))
        sigmas = [step.sigma for step in steps]
        states.append(torch.stack([step.patches.half() for step in steps], dim=1))
        text.append(features.text.half())
        pooled.append(features.pooled.half())
        images = pipeline.decode(steps[-1].patches, SIDE, SIDE)
        for row, ((said, _), image) in enumerate(zip(drawn, images, strict=True)):
            if compare(said, detect_shapes(image)).is_right:
                right.append(first + row)
            elif share_read(features.text[row].mean(dim=0, keepdim=True), [said]) == 1.0:
                wrong.append(first + row)
                truths.append(_nearest_rendering(said, image, rngs[row]))
    all_states, all_text, all_pooled = torch.cat(states), torch.cat(text), torch.cat(pooled)
    truth = all_states[wrong, -1]
    if truths:
        truth = patchify(encode_images(autoencoder, torch.stack(truths)).float()).half()
    return Painted(
        right=all_states[right, -1],
        right_text=all_text[right],
        right_pooled=all_pooled[right],
        wrong=all_states[wrong],
        wrong_text=all_text[wrong],
        wrong_pooled=all_pooled[wrong],
        sigmas=torch.tensor(sigmas),
        truth=truth,
    )


def _nearest_rendering(said: Scene, image: Pixels, rng: random.Random) -> Tensor:
    """Render what is said [3, H, W] uint8, as near to the image [H, W, 3] as it comes by chance."""
    renderings = np.stack(
        [np.asarray(render(complete(said, rng), rng, SIDE)) for _ in range(NUM_RENDERINGS)]
    )
    errors = np.abs(renderings.astype(np.int16) - image).mean(axis=(1, 2, 3))
    return torch.from_numpy(renderings[errors.argmin()]).permute(2, 0, 1)


def correction_loss(student: nn.Module, earlier: nn.Module, painted: Painted, step: int) -> Tensor:
    """Turn to the truth from what went wrong; from what is right go where `earlier` goes."""
    generator = torch.Generator().manual_seed(CORRECTION_SEED + step)
    right, wrong = _right(painted, generator), _wrong(painted, generator)
    both = Sample(
        *(torch.cat((getattr(right, f.name), getattr(wrong, f.name))) for f in fields(Sample))
    )
    text, pooled = disturb(both, generator)
    predicted = predict(student, both, both.guidance, text, pooled)
    with torch.no_grad():
        kept = predict(earlier, right, right.guidance, text[:RIGHT_ROWS], pooled[:RIGHT_ROWS])
    target = torch.cat((kept, wrong.velocity))
    # little noise left, and the velocity to the truth is so large that it would drown all else
    weight = torch.cat((torch.ones(RIGHT_ROWS), wrong.sigma))
    errors = (predicted - target).square().mean(dim=(1, 2))
    return (errors * weight).mean()


def _right(painted: Painted, generator: torch.Generator) -> Sample:
    rows = torch.randint(len(painted.right), (RIGHT_ROWS,), generator=generator)
    text, pooled = painted.right_text[rows], painted.right_pooled[rows]
    return noised(painted.right[rows].float(), text, pooled, generator)


def _wrong(painted: Painted, generator: torch.Generator) -> Sample:
    """Half are states that the model was in, half its wrong images under noise of any level."""
    rows = torch.randint(len(painted.wrong), (WRONG_ROWS,), generator=generator)
    is_early = painted.sigmas >= LEAST_SIGMA
    steps = torch.randint(int(is_early.sum()), (WRONG_ROWS,), generator=generator)
    image = painted.wrong[rows, -1].float()
    noise = torch.randn(image.shape, generator=generator)
    level = torch.empty(WRONG_ROWS).uniform_(LEAST_SIGMA, 1.0, generator=generator)
    is_own = torch.arange(WRONG_ROWS) % 2 == 0
    sigma = torch.where(is_own, painted.sigmas[steps], level)
    noised = torch.lerp(image, noise, level[:, None, None])
    noisy = torch.where(is_own[:, None, None], painted.wrong[rows, steps].float(), noised)
    return Sample(
        noisy=noisy,
        velocity=(noisy - painted.truth[rows].float()) / sigma[:, None, None],
        text=painted.wrong_text[rows].float(),
        pooled=painted.wrong_pooled[rows].float(),
        sigma=sigma,
        guidance=draw_guidance(WRONG_ROWS, generator),
    )
