"""Repositories as black-forest-labs publish FLUX.1: their file names, forms and settings in little.

FLUX.1-dev and -schnell on Hugging Face, as of diffusers 0.30 and transformers 4.43: bfloat16 in
shards, CLIP's tokenizer as vocabulary and merges, a CLIP configuration with the end token 2 that
was never true, and the original's files beside diffusers' folders.
"""

import json
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline

from models.flux.text_to_image import TextToImage
from models.presets.file_selection import Part, choose_files
from tests.models.flux.conftest import tiny_pipeline
from tests.models.flux.loops import expected_patches, last_patches

TRANSFORMER_KEYS = {"patch_size", "in_channels", "num_layers", "num_single_layers"} | {
    "attention_head_dim",
    "num_attention_heads",
    "joint_attention_dim",
    "pooled_projection_dim",
    "guidance_embeds",
    "axes_dims_rope",  # not published: the tiny one's differ from the default
}
SCHEDULER = {
    "_class_name": "FlowMatchEulerDiscreteScheduler",
    "_diffusers_version": "0.30.0.dev0",
    "base_image_seq_len": 256,
    "base_shift": 0.5,
    "max_image_seq_len": 4096,
    "max_shift": 1.15,
    "num_train_timesteps": 1000,
}
SHIFTS: dict[str, dict[str, object]] = {
    "dev": {"shift": 3.0, "use_dynamic_shifting": True},
    "schnell": {"shift": 1.0, "use_dynamic_shifting": False},
}
CLIP_LENGTH, T5_LENGTH = 77, 512


def change(file: Path, **settings: object) -> None:
    file.write_text(json.dumps(json.loads(file.read_text()) | settings))


def publish_clip_tokenizer(folder: Path) -> None:
    """As transformers 4 wrote it: no tokenizer.json."""
    model = json.loads((folder / "tokenizer.json").read_text())["model"]
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(model["vocab"]))
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    (folder / "merges.txt").write_text("\n".join(["#version: 0.2", *merges, ""]))
    change(folder / "tokenizer_config.json", model_max_length=CLIP_LENGTH)


@pytest.fixture(scope="module", params=["dev", "schnell"])
def published(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, is_dev = request.param, request.param == "dev"
    directory: Path = tmp_path_factory.mktemp(name) / name
    pipeline = tiny_pipeline(is_dev, is_dev, num_clip_positions=CLIP_LENGTH).to(torch.bfloat16)
    pipeline.save_pretrained(directory, max_shard_size="30KB")
    publish_clip_tokenizer(directory / "tokenizer")
    change(directory / "tokenizer_2/tokenizer_config.json", model_max_length=T5_LENGTH)
    change(directory / "text_encoder/config.json", bos_token_id=0, eos_token_id=2, pad_token_id=1)
    transformer = directory / "transformer/config.json"
    kept = {k: v for k, v in json.loads(transformer.read_text()).items() if k in TRANSFORMER_KEYS}
    transformer.write_text(json.dumps({"_class_name": "FluxTransformer2DModel"} | kept))
    scheduler = directory / "scheduler/scheduler_config.json"
    scheduler.write_text(json.dumps(SCHEDULER | SHIFTS[name]))
    for unread in (f"flux1-{name}.safetensors", "ae.safetensors", "README.md"):
        (directory / unread).write_bytes(b"not read")
    return directory


def test_a_published_repository_paints_as_diffusers(published: Path) -> None:
    oracle = FluxPipeline.from_pretrained(published, dtype=torch.float32)
    oracle.set_progress_bar_config(disable=True)
    pipeline = TextToImage.from_preset(published, dtype=torch.float32)
    default_length = 512 if pipeline.has_guidance else 256

    patches = last_patches(pipeline, [3])

    expected = expected_patches(oracle, [3], max_sequence_length=default_length)
    torch.testing.assert_close(patches, expected, atol=2e-5, rtol=0)


def test_a_published_repository_is_computed_in_its_bfloat16(published: Path) -> None:
    pipeline = TextToImage.from_preset(published)
    parts = (
        pipeline.backbone,
        pipeline.text_encoders.clip,
        pipeline.text_encoders.t5,
        pipeline.autoencoder,
    )
    assert {each.dtype for part in parts for each in part.parameters()} == {torch.bfloat16}

    patches = last_patches(pipeline, [3])
    images = pipeline.decode(patches, 96, 64)

    assert patches.dtype == torch.float32
    assert images.shape == (1, 64, 96, 3)
    exact = last_patches(TextToImage.from_preset(published, dtype=torch.float32), [3])
    # bfloat16 has 8 bits: 2% of what the patches spread
    assert (patches - exact).abs().mean() < 0.02 * exact.std()


def test_everything_that_is_read_is_downloaded_and_nothing_else(
    published: Path, tmp_path: Path
) -> None:
    names = [f.relative_to(published).as_posix() for f in published.rglob("*") if f.is_file()]
    chosen = choose_files(names, Part.PIPELINE, "hf://black-forest-labs/FLUX.1")
    for name in chosen:
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_bytes((published / name).read_bytes())

    TextToImage.from_preset(tmp_path)

    assert len([name for name in chosen if name.endswith(".safetensors")]) > 5
    assert not {name for name in names if "/" not in name and name != "model_index.json"} & {
        *chosen
    }
