"""Make the preset `flux_shapes`: `python -m training.flux_shapes --work-dir DIR`.

Stages, each of which is skipped where its result lies in the work directory already: autoencoder,
text encoders, latents of a rendered data set, transformer (flow matching), guidance distillation,
bundle (the directory in diffusers' layout).
"""

import argparse
import copy
import json
import logging
import random
import shutil
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file
from torch import Tensor, nn
from tqdm import tqdm

from models.flux.backbone import FluxBackbone
from models.flux.diffusers_weights import to_diffusers
from models.flux.latents import image_ids, patchify
from models.flux.text_encoders import TextEncoders
from training.autoencoder import SCALING_FACTOR, SHIFT_FACTOR, train_autoencoder
from training.pictures import draw_scenes, render_pool
from training.run import Run, train
from training.shapes_world import Scene
from training.text_encoders import WIDTH, train_text_encoders, varied_caption

logger = logging.getLogger(__name__)

SIDE = 128
PARTIAL_SHARE = 0.15  # captions that leave something out
EMPTY_SHARE = 0.06  # captions dropped: an unconditional velocity to guide away from
SIGMA_SHIFT = 2.0  # more training at high noise, where the scene is decided
GUIDANCE_RANGE = (1.0, 5.0)
BATCH_SIZE = 64
FLOW_STEPS = 3400
DISTILLATION_STEPS = 700
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
        gelu_approximate="tanh",
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
    """The training batches: one per step, the same whenever a run takes it up again."""

    def __init__(
        self, latents: Tensor, scenes: list[Scene], text: TextEncoders, batch_size: int
    ) -> None:
        self._latents, self._scenes, self._text = latents, scenes, text
        self._batch_size = batch_size
        self.ids = image_ids(SIDE, SIDE)
        empty = text.encode([""])
        self.empty_text, self.empty_pooled = empty.text, empty.pooled

    def at(self, step: int) -> "Sample":
        rng, generator = random.Random(step), torch.Generator().manual_seed(step)
        size = self._batch_size
        rows = [rng.randrange(len(self._scenes)) for _ in range(size)]
        captions = [varied_caption(self._scenes[i], rng, PARTIAL_SHARE) for i in rows]
        captions = ["" if rng.random() < EMPTY_SHARE else line for line in captions]
        features = self._text.encode(captions)
        clean = patchify(self._latents[rows].float())
        noise = torch.randn(clean.shape, generator=generator)
        even = torch.rand(size, generator=generator)
        sigma = SIGMA_SHIFT * even / (1 + (SIGMA_SHIFT - 1) * even)
        noisy = torch.lerp(clean, noise, sigma[:, None, None])
        guidance = torch.empty(size).uniform_(*GUIDANCE_RANGE, generator=generator)
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


def flow_loss(backbone: nn.Module, sample: Sample, ids: Tensor) -> Tensor:
    """The flow-matching loss at guidance 1, the plain conditional velocity."""
    ones = torch.ones(len(sample.noisy))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        predicted = predict(backbone, sample, ids, ones, sample.text, sample.pooled)
    return (predicted - sample.velocity).square().mean()


def distillation_loss(
    student: nn.Module, teacher: nn.Module, sample: Sample, samples: Samples
) -> Tensor:
    """Teach the guidance embedding what two passes of the teacher give."""
    ids, ones = samples.ids, torch.ones(len(sample.noisy))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        with torch.no_grad():
            given = predict(teacher, sample, ids, ones, sample.text, sample.pooled)
            free = predict(teacher, sample, ids, ones, samples.empty_text, samples.empty_pooled)
            target = free + sample.guidance[:, None, None] * (given - free)
        predicted = predict(student, sample, ids, sample.guidance, sample.text, sample.pooled)
    return (predicted - target).square().mean()


def train_transformer(work_dir: Path) -> FluxBackbone:
    """Train by flow matching, then distil guidance; checkpoints lie in `work_dir`."""
    torch.manual_seed(4)
    text = TextEncoders.from_directory(work_dir, "cpu", None)
    scenes = draw_scenes(NUM_PICTURES, random.Random(3))
    latents_file = work_dir / "latents.pt"
    if not latents_file.exists():
        autoencoder = AutoencoderKL.from_pretrained(work_dir / "vae", low_cpu_mem_usage=False)
        torch.save(encode_data_set(autoencoder.eval(), scenes), latents_file)
    samples = Samples(torch.load(latents_file, weights_only=True), scenes, text, BATCH_SIZE)

    backbone = build_backbone()
    flow = Run("flow", FLOW_STEPS, learning_rate=8e-4, weight_decay=0.01, work_dir=work_dir)
    train(flow, backbone, lambda step: flow_loss(backbone, samples.at(step), samples.ids))

    teacher = copy.deepcopy(backbone).eval().requires_grad_(False)
    distillation = Run(
        "distillation", DISTILLATION_STEPS, learning_rate=3e-4, weight_decay=0.01, work_dir=work_dir
    )
    train(
        distillation,
        backbone,
        lambda step: distillation_loss(backbone, teacher, samples.at(FLOW_STEPS + step), samples),
    )
    return backbone.eval()


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
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    work_dir: Path = arguments.work_dir
    work_dir.mkdir(parents=True, exist_ok=True)
    if not (work_dir / "vae" / "config.json").exists():
        train_autoencoder(work_dir / "vae", num_steps=1800, batch_size=32, side=SIDE)
    if not (work_dir / "tokenizer").exists():
        train_text_encoders(work_dir, num_steps=600)
    save_pipeline(train_transformer(work_dir), work_dir, arguments.output)


if __name__ == "__main__":
    main()
