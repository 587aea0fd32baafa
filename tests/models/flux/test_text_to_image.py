"""The whole loop against diffusers' FluxPipeline, float32 on the CPU, same noise."""

import json
import shutil
from collections import deque
from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import FluxPipeline
from safetensors.torch import load_file, save_file
from torch import Tensor

from models import Backbone, FluxBackbone
from models.errors import PresetFileError, WeightsError
from models.flux.parts import load_backbone, load_schedule
from models.flux.text_to_image import TextToImage

Pipelines = dict[str, tuple[FluxPipeline, Path]]
PROMPT = "a large red circle on a white background at the left"
GUIDANCE = 3.5


def paint(
    pipeline: TextToImage, seeds: list[int], size: tuple[int, int], num_steps: int
) -> tuple[Tensor, np.ndarray]:
    """Return the last patches [B, S, 64] and the images [B, H, W, 3]."""
    width, height = size
    guidance = GUIDANCE if pipeline.has_guidance else None
    steps = pipeline.denoise(pipeline.encode([PROMPT]), seeds, width, height, num_steps, guidance)
    patches = deque(steps, maxlen=1).pop().patches
    return patches, pipeline.decode(patches, width, height)


@pytest.mark.parametrize("num_steps", [4, 28])
@pytest.mark.parametrize("size", [(64, 64), (96, 64)])
@pytest.mark.parametrize("name", ["dev", "schnell"])
def test_the_whole_loop_equals_diffusers(
    pipelines: Pipelines, name: str, size: tuple[int, int], num_steps: int
) -> None:
    oracle, directory = pipelines[name]
    pipeline = TextToImage.from_preset(directory, dtype=torch.float32)
    patches, _ = paint(pipeline, [7], size, num_steps)

    expected = oracle(
        PROMPT,
        width=size[0],
        height=size[1],
        num_inference_steps=num_steps,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(7),
        max_sequence_length=48,
        output_type="latent",
    ).images
    # 28 steps of float32 rounding; a wrong shift, order or factor shows at 1e-2 and more
    torch.testing.assert_close(patches, expected, atol=2e-5, rtol=0)


def test_images_equal_diffusers_to_one_grey_level(pipelines: Pipelines) -> None:
    oracle, directory = pipelines["dev"]
    _, images = paint(TextToImage.from_preset(directory), [7], (96, 64), 4)

    expected = oracle(
        PROMPT,
        width=96,
        height=64,
        num_inference_steps=4,
        guidance_scale=GUIDANCE,
        generator=torch.Generator().manual_seed(7),
        max_sequence_length=48,
        output_type="np",
    ).images
    assert images.shape == (1, 64, 96, 3)
    difference = np.abs(images.astype(float) - expected * 255.0)
    assert difference.max() <= 1.0


def test_one_seed_gives_one_image_alone_and_in_a_batch(pipelines: Pipelines) -> None:
    pipeline = TextToImage.from_preset(pipelines["dev"][1])

    together, _ = paint(pipeline, [1, 2, 3], (64, 64), 4)
    alone, _ = paint(pipeline, [2], (64, 64), 4)

    # matrix products of other batch sizes round differently
    torch.testing.assert_close(together[1:2], alone, atol=1e-5, rtol=0)
    assert not torch.allclose(together[0], together[1], atol=0.1)


def test_every_step_is_yielded_with_its_number(pipelines: Pipelines) -> None:
    pipeline = TextToImage.from_preset(pipelines["schnell"][1])
    text = pipeline.encode([PROMPT])

    steps = list(pipeline.denoise(text, [1], 64, 64, num_steps=3))

    assert [(step.step, step.num_steps) for step in steps] == [(1, 3), (2, 3), (3, 3)]
    assert steps[-1].sigma == 0.0


def test_a_long_prompt_is_reported_as_truncated(pipelines: Pipelines) -> None:
    pipeline = TextToImage.from_preset(pipelines["schnell"][1])

    text = pipeline.encode(["a red circle", "red " * 100])

    assert text.num_tokens == (4, 48)
    assert text.truncated == (False, True)


def test_a_size_that_is_no_multiple_of_16_is_refused(pipelines: Pipelines) -> None:
    pipeline = TextToImage.from_preset(pipelines["schnell"][1])
    text = pipeline.encode([PROMPT])
    with pytest.raises(ValueError, match="width 100 is not a multiple of 16"):
        next(pipeline.denoise(text, [1], 100, 64, num_steps=1))


def test_guidance_is_refused_where_it_would_be_ignored(pipelines: Pipelines) -> None:
    pipeline = TextToImage.from_preset(pipelines["schnell"][1])
    text = pipeline.encode([PROMPT])
    with pytest.raises(ValueError, match="takes no guidance_scale; got 2"):
        next(pipeline.denoise(text, [1], 64, 64, num_steps=1, guidance_scale=2.0))


def test_guidance_is_required_where_it_is_embedded(pipelines: Pipelines) -> None:
    pipeline = TextToImage.from_preset(pipelines["dev"][1])
    text = pipeline.encode([PROMPT])
    with pytest.raises(ValueError, match="guidance_scale is missing"):
        next(pipeline.denoise(text, [1], 64, 64, num_steps=1))


def test_a_missing_tensor_is_named(pipelines: Pipelines, tmp_path: Path) -> None:
    directory = tmp_path / "preset"
    shutil.copytree(pipelines["dev"][1], directory)
    file = directory / "transformer" / "diffusion_pytorch_model.safetensors"
    tensors = load_file(file)
    del tensors["transformer_blocks.1.attn.to_q.weight"]
    save_file(tensors, file)
    with pytest.raises(WeightsError, match=r"missing: transformer_blocks.1.attn.to_q.weight"):
        TextToImage.from_preset(directory)


def test_a_missing_file_is_named(pipelines: Pipelines, tmp_path: Path) -> None:
    directory = tmp_path / "preset"
    shutil.copytree(pipelines["dev"][1], directory)
    (directory / "transformer" / "config.json").unlink()
    with pytest.raises(PresetFileError, match=r"transformer/config.json is missing"):
        TextToImage.from_preset(directory)


@pytest.mark.parametrize(
    "folder", ["tokenizer", "tokenizer_2", "text_encoder", "text_encoder_2", "vae", "scheduler"]
)
def test_a_missing_folder_is_named(pipelines: Pipelines, tmp_path: Path, folder: str) -> None:
    directory = shutil.copytree(pipelines["dev"][1], tmp_path / "flux")
    shutil.rmtree(directory / folder)
    with pytest.raises(PresetFileError, match=rf"flux/{folder}\b.* is missing"):
        TextToImage.from_preset(directory)


@pytest.mark.parametrize(
    "config",
    [
        {"use_karras_sigmas": True},
        {"num_train_timesteps": 100},
        {"_class_name": "FlowMatchHeunDiscreteScheduler"},
    ],
)
def test_a_schedule_that_would_be_computed_wrongly_is_refused(
    tmp_path: Path, config: dict[str, object]
) -> None:
    (tmp_path / "scheduler").mkdir()
    (tmp_path / "scheduler/scheduler_config.json").write_text(json.dumps(config))
    with pytest.raises(PresetFileError, match=next(iter(config))):
        load_schedule(tmp_path, has_guidance=True)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ('"axes_dims_rope": [4, 4, 4]', "adds up to 12"),
        ('"num_attention_heads": 0', "num_heads is 0"),
    ],
)
def test_a_transformer_of_impossible_sizes_is_refused(
    tmp_path: Path, config: str, message: str
) -> None:
    (tmp_path / "transformer").mkdir()
    (tmp_path / "model_index.json").write_text("{}")
    written = '{"_class_name": "FluxTransformer2DModel", ' + config + "}"
    (tmp_path / "transformer/config.json").write_text(written)
    with pytest.raises(PresetFileError, match=rf"does not fit FluxBackbone: .*{message}"):
        load_backbone(tmp_path, "cpu", None)


def test_the_backbone_alone_comes_from_the_same_directory(pipelines: Pipelines) -> None:
    oracle, directory = pipelines["dev"]
    backbone = Backbone.from_preset(directory)
    assert isinstance(backbone, FluxBackbone)
    expected = oracle.transformer.state_dict()["proj_out.weight"]
    assert torch.equal(backbone.final_layer.linear.weight, expected)


def test_an_override_that_does_not_fit_the_weights_is_refused(pipelines: Pipelines) -> None:
    with pytest.raises(WeightsError, match=r"left over: transformer_blocks\.1"):
        Backbone.from_preset(pipelines["dev"][1], depth=1)
