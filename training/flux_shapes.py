"""Make the preset `flux_shapes`: `python -m training.flux_shapes --work-dir DIR`.

Stages, each of which is skipped where its result lies in the work directory already: autoencoder,
text encoders, latents of a rendered data set, transformer (flow matching), guidance distillation,
bundle (the directory in diffusers' layout).
"""

import argparse
import copy
import json
import logging
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm, trange

from models.flux.backbone import FluxBackbone
from models.flux.diffusers_weights import to_diffusers
from models.flux.latents import image_ids, patchify
from models.flux.text_encoders import TextEncoders
from training.autoencoder import SCALING_FACTOR, SHIFT_FACTOR, train_autoencoder
from training.pictures import draw_scenes, render_pool
from training.shapes_world import Scene
from training.text_encoders import WIDTH, train_text_encoders, varied_caption

logger = logging.getLogger(__name__)

SIDE = 128
PARTIAL_SHARE = 0.15  # captions that leave something out
EMPTY_SHARE = 0.06  # captions dropped: an unconditional velocity to guide away from
SIGMA_SHIFT = 2.0  # more training at high noise, where the scene is decided
EMA_DECAY = 0.998
GUIDANCE_RANGE = (1.0, 5.0)


NUM_PICTURES = 24_000
SAMPLING_SHIFT = 2.0  # of the bundled scheduler configuration, matching the training distribution
MODEL_INDEX = {
    "_class_name": "FluxPipeline",
    "scheduler": ["diffusers", "FlowMatchEulerDiscreteScheduler"],
    "text_encoder": ["transformers", "CLIPTextModel"],
    "text_encoder_2": ["transformers", "T5EncoderModel"],
    "tokenizer": ["transformers", "CLIPTokenizer"],
    "tokenizer_2": ["transformers", "T5Tokenizer"],
    "transformer": ["diffusers", "FluxTransformer2DModel"],
    "vae": ["diffusers", "AutoencoderKL"],
}
LossFunction = Callable[[int], Tensor]  # of the batch size


@dataclass(frozen=True, slots=True)
class Budget:
    """How long a stage may train; it ends at whichever comes first, having decayed its rate."""

    num_steps: int
    max_minutes: float
    learning_rate: float
    batch_size: int


def build_backbone() -> FluxBackbone:
    return FluxBackbone(
        input_channels=64,
        hidden_size=192,
        mlp_ratio=4.0,
        num_heads=3,
        depth=2,
        depth_single_blocks=5,
        axes_dim=(16, 24, 24),
        theta=10_000,
        use_bias=True,
        guidance_embed=True,
        text_shape=(None, WIDTH),
        y_shape=(WIDTH,),
    )


@torch.inference_mode()
def encode_data_set(autoencoder: AutoencoderKL, scenes: list[Scene]) -> Tensor:
    """Render the scenes and encode them: latents [N, 16, h, w] bfloat16, normalised."""
    pictures = render_pool(scenes, SIDE, random.Random(3))
    latents = []
    for batch in tqdm(pictures.split(64), desc="latents"):
        mean = autoencoder.encode(batch.float() / 127.5 - 1.0).latent_dist.mean
        latents.append(((mean - SHIFT_FACTOR) * SCALING_FACTOR).bfloat16())
    return torch.cat(latents)


class Samples:
    """An endless stream of training batches."""

    def __init__(self, latents: Tensor, scenes: list[Scene], text: TextEncoders, seed: int) -> None:
        self._latents, self._scenes, self._text = latents, scenes, text
        self._rng = random.Random(seed)
        self._generator = torch.Generator().manual_seed(seed)
        self.ids = image_ids(SIDE, SIDE)
        empty = text.encode([""])
        self.empty_text, self.empty_pooled = empty.text, empty.pooled

    def batch(self, size: int) -> "Sample":
        rows = [self._rng.randrange(len(self._scenes)) for _ in range(size)]
        captions = [varied_caption(self._scenes[i], self._rng, PARTIAL_SHARE) for i in rows]
        captions = ["" if self._rng.random() < EMPTY_SHARE else line for line in captions]
        features = self._text.encode(captions)
        clean = patchify(self._latents[rows].float())
        noise = torch.randn(clean.shape, generator=self._generator)
        even = torch.rand(size, generator=self._generator)
        sigma = SIGMA_SHIFT * even / (1 + (SIGMA_SHIFT - 1) * even)
        noisy = torch.lerp(clean, noise, sigma[:, None, None])
        guidance = torch.empty(size).uniform_(*GUIDANCE_RANGE, generator=self._generator)
        return Sample(noisy, noise - clean, features.text, features.pooled, sigma, guidance)


@dataclass(frozen=True, slots=True)
class Sample:
    """noisy and velocity [B, S, 64], text [B, T, D], pooled [B, D], sigma and guidance [B]."""

    noisy: Tensor
    velocity: Tensor
    text: Tensor
    pooled: Tensor
    sigma: Tensor
    guidance: Tensor


def predict(
    backbone: nn.Module, sample: Sample, ids: Tensor, guidance: Tensor, text: Tensor, pooled: Tensor
) -> Tensor:
    size = len(sample.noisy)
    velocity: Tensor = backbone(
        image=sample.noisy,
        image_ids=ids.expand(size, -1, -1),
        text=text.expand(size, -1, -1),
        text_ids=torch.zeros(size, text.shape[1], 3),
        y=pooled.expand(size, -1),
        timesteps=sample.sigma,
        guidance=guidance,
    )
    return velocity.float()


def flow_loss(backbone: nn.Module, samples: Samples, size: int) -> Tensor:
    """The flow-matching loss at guidance 1, the plain conditional velocity."""
    sample = samples.batch(size)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predicted = predict(
            backbone, sample, samples.ids, torch.ones(size), sample.text, sample.pooled
        )
    return (predicted - sample.velocity).square().mean()


def distillation_loss(
    student: nn.Module, teacher: nn.Module, samples: Samples, size: int
) -> Tensor:
    """Teach the guidance embedding what two passes of the teacher give."""
    sample = samples.batch(size)
    ones = torch.ones(size)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.no_grad():
            given = predict(teacher, sample, samples.ids, ones, sample.text, sample.pooled)
            free = predict(
                teacher, sample, samples.ids, ones, samples.empty_text, samples.empty_pooled
            )
            target = free + sample.guidance[:, None, None] * (given - free)
        predicted = predict(
            student, sample, samples.ids, sample.guidance, sample.text, sample.pooled
        )
    return (predicted - target).square().mean()


def progress(
    budget: Budget, resume_at: int, spent_s: float, label: str
) -> Iterator[tuple[int, float]]:
    """Count steps with the share of the budget that is spent, in [0, 1)."""
    started = time.monotonic() - spent_s
    for step in (bar := trange(resume_at, budget.num_steps, desc=label)):
        share = max(step / budget.num_steps, (time.monotonic() - started) / 60 / budget.max_minutes)
        if share >= 1.0:
            bar.close()
            return
        yield step, share


def rate(budget: Budget, step: int, share: float) -> float:
    """Warm up for 100 steps, hold, fall to nothing over the last third."""
    warm = min(1.0, (step + 1) / 100)
    fall = 1.0 if share < 0.65 else 0.5 * (1 + math.cos(math.pi * (share - 0.65) / 0.35))
    return budget.learning_rate * warm * max(fall, 0.01)


class Trainer:
    """One model, its running average and its checkpoint."""

    def __init__(self, backbone: FluxBackbone, budget: Budget, checkpoint: Path) -> None:
        self.backbone, self.budget, self.checkpoint = backbone, budget, checkpoint
        self.average = copy.deepcopy(backbone).eval().requires_grad_(False)
        self.optimizer = torch.optim.AdamW(
            backbone.parameters(), lr=budget.learning_rate, betas=(0.9, 0.97), weight_decay=0.01
        )
        self.step, self.spent_s, self.is_finished = 0, 0.0, False
        if checkpoint.exists():
            state = torch.load(checkpoint, weights_only=True)
            backbone.load_state_dict(state["backbone"])
            self.average.load_state_dict(state["average"])
            self.optimizer.load_state_dict(state["optimizer"])
            self.step, self.spent_s = state["step"], state["spent_s"]
            self.is_finished = state["is_finished"]

    def save(self) -> None:
        partial = self.checkpoint.with_suffix(".partial")
        torch.save(
            {
                "backbone": self.backbone.state_dict(),
                "average": self.average.state_dict(),
                "optimizer": self.optimizer.state_dict(),
                "step": self.step,
                "spent_s": self.spent_s,
                "is_finished": self.is_finished,
            },
            partial,
        )
        partial.replace(self.checkpoint)

    def run(self, loss_of: "LossFunction", label: str) -> FluxBackbone:
        """Train until the budget is spent; return the averaged weights."""
        if self.is_finished:
            return self.average
        started = time.monotonic() - self.spent_s
        mean_loss = 0.0
        for step, share in progress(self.budget, self.step, self.spent_s, label):
            for group in self.optimizer.param_groups:
                group["lr"] = rate(self.budget, step, share)
            loss = loss_of(self.budget.batch_size)
            self.optimizer.zero_grad(set_to_none=True)
            loss.backward()
            nn.utils.clip_grad_norm_(self.backbone.parameters(), 1.0)
            self.optimizer.step()
            decay = min(EMA_DECAY, (1 + step) / (10 + step))
            self._average(decay)
            mean_loss = loss.item() if step == self.step else 0.98 * mean_loss + 0.02 * loss.item()
            if step % 100 == 99:
                self.step, self.spent_s = step + 1, time.monotonic() - started
                logger.info(
                    "%s step=%d share=%.3f loss=%.4f elapsed_s=%.0f",
                    label,
                    self.step,
                    share,
                    mean_loss,
                    self.spent_s,
                )
                self.save()
        self.spent_s, self.is_finished = time.monotonic() - started, True
        self.save()
        return self.average

    @torch.no_grad()
    def _average(self, decay: float) -> None:
        pairs = zip(self.average.parameters(), self.backbone.parameters(), strict=True)
        for average, current in pairs:
            average.lerp_(current, 1.0 - decay)


def train_transformer(work_dir: Path, flow: Budget, distillation: Budget) -> FluxBackbone:
    """Train by flow matching, then distil guidance; checkpoints lie in `work_dir`."""
    torch.manual_seed(4)
    autoencoder = AutoencoderKL.from_pretrained(work_dir / "vae", low_cpu_mem_usage=False).eval()
    text = TextEncoders.from_directory(work_dir, "cpu", None)
    latents_file = work_dir / "latents.pt"
    scenes = draw_scenes(NUM_PICTURES, random.Random(3))
    if not latents_file.exists():
        torch.save(encode_data_set(autoencoder, scenes), latents_file)
    latents = torch.load(latents_file, weights_only=True)

    samples = Samples(latents, scenes, text, seed=int(time.time()))
    backbone = build_backbone()
    trainer = Trainer(backbone, flow, work_dir / "flow.pt")
    teacher = trainer.run(lambda size: flow_loss(backbone, samples, size), "flow")

    student = copy.deepcopy(teacher).train().requires_grad_(True)
    trainer = Trainer(student, distillation, work_dir / "distillation.pt")
    return trainer.run(lambda size: distillation_loss(student, teacher, samples, size), "distil")


def save_pipeline(backbone: FluxBackbone, work_dir: Path, directory: Path) -> None:
    """Write the preset in diffusers' layout."""
    config = {
        "_class_name": "FluxTransformer2DModel",
        "patch_size": 1,
        "in_channels": backbone.input_channels,
        "num_layers": backbone.depth,
        "num_single_layers": backbone.depth_single_blocks,
        "attention_head_dim": backbone.hidden_size // backbone.num_heads,
        "num_attention_heads": backbone.num_heads,
        "joint_attention_dim": backbone.text_shape[-1],
        "pooled_projection_dim": backbone.y_shape[-1],
        "guidance_embeds": backbone.guidance_embed,
        "axes_dims_rope": list(backbone.axes_dim),
    }
    transformer = directory / "transformer"
    transformer.mkdir(parents=True, exist_ok=True)
    (transformer / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    theirs = to_diffusers(backbone.state_dict(), backbone.hidden_size)
    save_file(theirs, transformer / "diffusion_pytorch_model.safetensors", {"format": "pt"})
    for part in ("vae", "text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        shutil.copytree(work_dir / part, directory / part, dirs_exist_ok=True)
    FlowMatchEulerDiscreteScheduler(shift=SAMPLING_SHIFT).save_pretrained(directory / "scheduler")
    (directory / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=Path("build/training/flux_shapes"))
    parser.add_argument("--output", type=Path, default=Path("models/bundled/flux_shapes"))
    parser.add_argument("--flow-minutes", type=float, default=90.0)
    parser.add_argument("--distillation-minutes", type=float, default=15.0)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    work_dir: Path = arguments.work_dir
    work_dir.mkdir(parents=True, exist_ok=True)
    if not (work_dir / "vae" / "config.json").exists():
        train_autoencoder(work_dir / "vae", num_steps=1800, batch_size=32, side=SIDE)
    if not (work_dir / "tokenizer").exists():
        train_text_encoders(work_dir, num_steps=600)
    backbone = train_transformer(
        work_dir,
        Budget(20_000, arguments.flow_minutes, learning_rate=8e-4, batch_size=64),
        Budget(3_000, arguments.distillation_minutes, learning_rate=3e-4, batch_size=64),
    )
    save_pipeline(backbone, work_dir, arguments.output)


if __name__ == "__main__":
    main()
