"""Make the preset `flux_shapes`: `python -m training.flux_shapes --work-dir DIR --output DIR`.

Stages, each of which is skipped where its result lies in the work directory already: autoencoder,
text encoders, a pool of sentences and images, transformer (flow matching), guidance
distillation, a sharper decoder, correction (of its own mistakes, in rounds), bundle (the directory
in diffusers' layout). `--start-from PRESET` takes all parts of an earlier preset up again instead
of starting from noise.
"""

import argparse
import copy
import json
import logging
import random
import shutil
from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path

import torch
from diffusers import AutoencoderKL, FlowMatchEulerDiscreteScheduler
from safetensors.torch import save_file
from torch import Tensor
from tqdm import tqdm

from models.flux.backbone import FluxBackbone
from models.flux.formats.diffusers_weights import to_diffusers
from models.flux.latents import patchify
from models.flux.text_encoders import TextEncoders
from models.flux.text_to_image import TextToImage
from training.acceleration import compiled
from training.autoencoder import (
    build_autoencoder,
    encode_images,
    sharpen_decoder,
    train_autoencoder,
)
from training.correction import Painted, correction_loss, paint_own
from training.image_flow import (
    SIDE,
    Sample,
    distillation_loss,
    flow_loss,
    noised,
)
from training.renderings import render_pool
from training.run import Run, save_whole, train
from training.shapes_world import complete
from training.text_encoders import WIDTH, draw_sentence, train_text_encoders
from training.warm_start import warm_start

logger = logging.getLogger(__name__)

BATCH_SIZE = 64
AUTOENCODER_STEPS, DECODER_STEPS, TEXT_STEPS = 900, 600, 4000
FLOW_STEPS, DISTILLATION_STEPS = 2200, 1500
CORRECTION_STEPS = (200, 250, 250, 250)  # of the rounds
NUM_IMAGES = 24_000
FULL_SHARE = 0.3  # of the pool: sentences that say all of a single shape, the hardest to paint
SAMPLING_SHIFT = 2.0  # of the bundled scheduler configuration
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
        depth_single_blocks=8,
        axes_dim=(16, 24, 24),
        theta=10_000,
        use_bias=True,
        guidance_embed=True,
        text_shape=(None, WIDTH),
        y_shape=(WIDTH,),
        gelu_approximate="tanh",
    )


@dataclass(frozen=True, slots=True)
class Pool:
    """Images and what the text encoders say of their sentences: one row an image.

    images   [N, 3, H, W] uint8
    latents    [N, 16, h, w] float16, normalised
    text       [N, T, D] float16, T5's features of the sentence
    pooled     [N, D] float16, CLIP's
    """

    images: Tensor
    latents: Tensor
    text: Tensor
    pooled: Tensor


def read(encoders: TextEncoders, sentences: Sequence[str]) -> tuple[Tensor, Tensor]:
    """The features of N sentences, [N, T, D] and [N, D] float16."""
    batches = [sentences[row : row + 64] for row in range(0, len(sentences), 64)]
    features = [encoders.encode(batch) for batch in tqdm(batches, "features")]
    text = torch.cat([batch.text.half() for batch in features])
    return text, torch.cat([batch.pooled.half() for batch in features])


def load_pool(work_dir: Path) -> Pool:
    """Load the pool of the work directory, which is made where it is missing.

    It is kept whole: drawn anew by changed lists of sentences, it would not fit the latents.
    """
    file = work_dir / "pool.pt"
    if not file.exists():
        autoencoder = AutoencoderKL.from_pretrained(work_dir / "vae", low_cpu_mem_usage=False)
        encoders = TextEncoders.from_directory(work_dir, "cpu", None)
        pool = make_pool(autoencoder, encoders)
        save_whole((pool.images, pool.latents, pool.text, pool.pooled), file)
    return Pool(*torch.load(file, weights_only=True, mmap=True))


def make_pool(autoencoder: AutoencoderKL, encoders: TextEncoders) -> Pool:
    """Draw sentences, paint what they say, and encode both."""
    rng = random.Random(11)
    drawn = [draw_sentence(rng, FULL_SHARE) for _ in range(NUM_IMAGES)]
    images = render_pool([complete(said, rng) for said, _ in drawn], SIDE, rng)
    text, pooled = read(encoders, [sentence for _, sentence in drawn])
    return Pool(images, encode_images(autoencoder, images), text, pooled)


def sharpen_autoencoder(pool: Pool, work_dir: Path) -> None:
    """Train the decoder further on the pool; the latents stay what they are."""
    autoencoder = AutoencoderKL.from_pretrained(work_dir / "vae", low_cpu_mem_usage=False)
    run = Run("decoder", DECODER_STEPS, 1e-3, 0.0, work_dir)
    sharpen_decoder(autoencoder, pool.latents, pool.images, run, work_dir / "vae_sharp")


def sample(pool: Pool, step: int) -> Sample:
    """Draw the batch of a step: the same whenever a run takes it up again."""
    generator = torch.Generator().manual_seed(step)
    rows = torch.randint(len(pool.latents), (BATCH_SIZE,), generator=generator)
    clean = patchify(pool.latents[rows].float())
    return noised(clean, pool.text[rows], pool.pooled[rows], generator)


def _run(name: str, num_steps: int, rate: float, backbone: FluxBackbone, work_dir: Path) -> Run:
    matrices = [
        parameter
        for key, parameter in backbone.named_parameters()
        if parameter.ndim == 2 and "_blocks." in key and "mod" not in key
    ]
    return Run(name, num_steps, rate, weight_decay=0.01, work_dir=work_dir, matrices=matrices)


def train_flow(backbone: FluxBackbone, pool: Pool, work_dir: Path) -> None:
    """Train by flow matching, in place."""
    run = _run("flow", FLOW_STEPS, 8e-4, backbone, work_dir)
    faster = compiled(backbone)
    train(run, backbone, lambda step: flow_loss(faster, sample(pool, step), step))


def distil_guidance(backbone: FluxBackbone, pool: Pool, work_dir: Path) -> None:
    """Teach the backbone, in place, to follow guidance in one pass."""
    teacher = copy.deepcopy(backbone).eval().requires_grad_(False)
    student, fast_teacher = compiled(backbone), compiled(teacher)
    run = _run("distillation", DISTILLATION_STEPS, 4e-4, backbone, work_dir)

    def loss_at(step: int) -> Tensor:
        step += FLOW_STEPS
        return distillation_loss(student, fast_teacher, sample(pool, step), step)

    train(run, backbone, loss_at)


def correct_mistakes(backbone: FluxBackbone, number: int, work_dir: Path) -> None:
    """Teach the backbone, in place, to turn back from mistakes that it makes now."""
    earlier = copy.deepcopy(backbone).eval().requires_grad_(False)
    painted = load_painted(backbone, number, work_dir)
    if len(painted.wrong) == 0 or len(painted.right) == 0:
        logger.info("correction_%d right=%d wrong=%d left_out=true", number, len(painted.right),
                    len(painted.wrong))  # fmt: skip
        return
    for before in range(number):
        painted = painted.with_mistakes_of(load_painted(backbone, before, work_dir))
    num_steps, name = CORRECTION_STEPS[number], f"correction_{number}"
    first = sum(CORRECTION_STEPS[:number])
    run = replace(_run(name, num_steps, 3e-4, backbone, work_dir), average_decay=0.98)
    train(run, backbone, lambda step: correction_loss(backbone, earlier, painted, first + step))


def load_painted(backbone: FluxBackbone, number: int, work_dir: Path) -> Painted:
    """Load what the backbone painted before a round of correction; painted now where missing."""
    file = work_dir / f"painted_{number}.pt"
    if not file.exists():
        preset = work_dir / f"preset_{number}"
        save_pipeline(backbone, work_dir, preset)
        autoencoder = AutoencoderKL.from_pretrained(preset / "vae", low_cpu_mem_usage=False)
        painted = paint_own(TextToImage.from_preset(preset), autoencoder, number)
        save_whole([getattr(painted, field.name) for field in fields(painted)], file)
    return Painted(*torch.load(file, weights_only=True, mmap=True))


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
    for part in ("text_encoder", "text_encoder_2", "tokenizer", "tokenizer_2"):
        shutil.copytree(work_dir / part, directory / part, dirs_exist_ok=True)
    shutil.copytree(work_dir / "vae_sharp", directory / "vae", dirs_exist_ok=True)
    FlowMatchEulerDiscreteScheduler(shift=SAMPLING_SHIFT).save_pretrained(directory / "scheduler")
    (directory / "model_index.json").write_text(json.dumps(MODEL_INDEX, indent=2) + "\n")


def start_backbone(earlier: Path | None) -> FluxBackbone:
    """Build the transformer, or take up an earlier preset's, which reads the same codes."""
    torch.manual_seed(4)
    backbone = build_backbone()
    if earlier is not None:
        weights = TextToImage.from_preset(earlier).backbone.state_dict()
        warm_start(backbone, weights, gates=("modulation.lin",))
    return backbone


def make_autoencoder(earlier: Path | None, work_dir: Path) -> None:
    """Train the autoencoder, or take an earlier preset's."""
    if earlier is not None:
        shutil.copytree(earlier / "vae", work_dir / "vae", dirs_exist_ok=True)
        return
    torch.manual_seed(1)
    run = Run("autoencoder", AUTOENCODER_STEPS, 1e-3, 0.0, work_dir)
    train_autoencoder(build_autoencoder(), run, SIDE, work_dir / "vae")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work-dir", type=Path, default=Path("build/training/flux_shapes"))
    parser.add_argument("--output", type=Path, default=Path("models/bundled/flux_shapes"))
    parser.add_argument("--start-from", type=Path, help="the directory of an earlier flux_shapes")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    work_dir, earlier = arguments.work_dir, arguments.start_from
    work_dir.mkdir(parents=True, exist_ok=True)
    if not (work_dir / "vae" / "config.json").exists():
        make_autoencoder(earlier, work_dir)
    if not (work_dir / "tokenizer").exists():
        train_text_encoders(TEXT_STEPS, work_dir, earlier)
    backbone = start_backbone(earlier)
    pool = load_pool(work_dir)
    train_flow(backbone, pool, work_dir)
    distil_guidance(backbone, pool, work_dir)
    if not (work_dir / "vae_sharp" / "config.json").exists():
        sharpen_autoencoder(pool, work_dir)
    for number in range(len(CORRECTION_STEPS)):
        correct_mistakes(backbone, number, work_dir)
    save_pipeline(backbone.eval(), work_dir, arguments.output)


if __name__ == "__main__":
    main()
