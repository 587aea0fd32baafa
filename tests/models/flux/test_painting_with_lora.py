"""LoRAs on the whole pipeline, against diffusers with PEFT: written by them, loaded by both."""

from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline
from peft import LoraConfig, get_peft_model_state_dict

from models.flux.latents import Start
from models.flux.text_to_image import Negative, TextToImage
from tests.models.flux.loops import (
    UNWANTED,
    Pipelines,
    expected_patches,
    image_to_image_oracle,
    last_patches,
    start_image,
)

# PEFT's remark on a second adapter, which is meant
pytestmark = pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")

LATENTS = 2e-5  # float32 rounding over the steps
TARGETS = {"one": ["to_q", "to_v", "proj_mlp"], "two": ["to_k", "to_q", "ff.net.0.proj"]}
CLIP_TARGETS = ["q_proj", "fc1"]


def load(directory: Path) -> FluxPipeline:
    """Load a pipeline of one's own: adapters would stay in the shared one."""
    pipeline = FluxPipeline.from_pretrained(directory, low_cpu_mem_usage=False)
    pipeline.set_progress_bar_config(disable=True)
    return pipeline


def write_lora(directory: Path, pipeline: FluxPipeline, name: str, seed: int) -> None:
    """Let diffusers write random adapters of the transformer and of CLIP."""
    torch.manual_seed(seed)
    layers = {}
    for module, targets in (
        (pipeline.transformer, TARGETS[name]),
        (pipeline.text_encoder, CLIP_TARGETS),
    ):
        module.add_adapter(LoraConfig(r=3, lora_alpha=3, target_modules=targets), name)
        state = get_peft_model_state_dict(module, adapter_name=name)
        layers[module] = {key: 0.2 * torch.randn_like(each) for key, each in state.items()}
    FluxPipeline.save_lora_weights(
        directory,
        transformer_lora_layers=layers[pipeline.transformer],
        text_encoder_lora_layers=layers[pipeline.text_encoder],
        weight_name=f"{name}.safetensors",
    )


@pytest.fixture(scope="module")
def files(pipelines: Pipelines, tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("loras")
    for seed, name in enumerate(TARGETS):
        write_lora(directory, load(pipelines["dev"][1]), name, seed)
    return directory


@pytest.fixture(scope="module")
def oracle(pipelines: Pipelines, files: Path) -> FluxPipeline:
    pipeline = load(pipelines["dev"][1])
    for name in TARGETS:
        pipeline.load_lora_weights(files, weight_name=f"{name}.safetensors", adapter_name=name)
    return pipeline


@pytest.fixture
def painter(pipelines: Pipelines, files: Path) -> TextToImage:
    pipeline = TextToImage.from_preset(pipelines["dev"][1])
    pipeline.load_lora(files / "one.safetensors", scale=0.7)
    return pipeline


def test_a_lora_paints_as_in_diffusers(painter: TextToImage, oracle: FluxPipeline) -> None:
    oracle.set_adapters(["one"], [0.7])
    patches = last_patches(painter, [7])
    torch.testing.assert_close(patches, expected_patches(oracle, [7]), atol=LATENTS, rtol=0)


def test_two_loras_paint_as_in_diffusers(
    painter: TextToImage, oracle: FluxPipeline, files: Path
) -> None:
    painter.load_lora(files / "two.safetensors", name="other")
    painter.set_lora_scales({"other": 0.4, "one": 1.2})
    oracle.set_adapters(["one", "two"], [1.2, 0.4])
    patches = last_patches(painter, [7])
    torch.testing.assert_close(patches, expected_patches(oracle, [7]), atol=LATENTS, rtol=0)


def test_a_lora_goes_with_a_negative_prompt_and_a_start_image(
    painter: TextToImage, oracle: FluxPipeline
) -> None:
    oracle.set_adapters(["one"], [0.7])
    negative = Negative(painter.encode([UNWANTED]), true_cfg_scale=2.0)
    patches = last_patches(painter, [7], negative=negative, start=Start([start_image(1)], 0.6))
    expected = expected_patches(
        image_to_image_oracle(oracle),
        [7],
        negative_prompt=UNWANTED,
        true_cfg_scale=2.0,
        image=start_image(1),
        strength=0.6,
    )
    torch.testing.assert_close(patches, expected, atol=LATENTS, rtol=0)


def test_without_its_lora_a_pipeline_paints_as_before(
    painter: TextToImage, pipelines: Pipelines
) -> None:
    before = last_patches(TextToImage.from_preset(pipelines["dev"][1]), [7])
    assert not torch.allclose(last_patches(painter, [7]), before, atol=0.01)
    painter.set_lora_scales({"one": 0.0})
    assert torch.equal(last_patches(painter, [7]), before)
    painter.remove_lora("one")
    assert torch.equal(last_patches(painter, [7]), before)
    assert painter.lora_scales == {}


@pytest.mark.parametrize("scales", [{"one": 2.0, "none": 1.0}, {"one": 2.0, "two": float("nan")}])
def test_bad_scales_change_nothing(
    painter: TextToImage, files: Path, scales: dict[str, float]
) -> None:
    painter.load_lora(files / "two.safetensors")
    with pytest.raises(ValueError, match=r"attached as 'none'|scale is nan"):
        painter.set_lora_scales(scales)
    assert painter.lora_scales == {"one": 0.7, "two": 1.0}
