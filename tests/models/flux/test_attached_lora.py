"""LoRA files on a Flux backbone: their scales, how they go, what does not land."""

from pathlib import Path

import pytest
import torch
from diffusers import FluxTransformer2DModel
from safetensors.torch import save_file
from torch import nn

from models.errors import PresetFileError, WeightsError
from models.flux.backbone import FluxBackbone
from models.flux.formats.lora_files import attach, attached, detach
from models.layers.adapters import merged_state
from tests.models.flux.conftest import tiny_pipeline, tiny_transformer
from tests.models.flux.lora_oracle import TOLERANCE, assert_equal, attach_to_oracle, predict, write
from tests.models.flux.lora_styles import (
    KOHYA,
    PEFT,
    Sizes,
    Style,
    Tensors,
    linear_sizes,
    random_adapters,
    with_underscores,
)
from tests.models.flux.our_parts import our_clip
from tests.models.flux.test_backbone import backbone_of


@pytest.fixture
def oracle() -> FluxTransformer2DModel:
    return tiny_transformer(has_guidance=True)


@pytest.fixture
def backbone(oracle: FluxTransformer2DModel) -> FluxBackbone:
    return backbone_of(oracle)


def scales(module: nn.Module) -> dict[str, float]:
    return {name: scale.value for name, scale in attached(module).items()}


@pytest.fixture
def two_files(oracle: FluxTransformer2DModel, tmp_path: Path) -> list[Path]:
    sizes = linear_sizes(oracle)
    attention = {name: size for name, size in sizes.items() if ".attn." in name}
    kohya = with_underscores(random_adapters(attention, KOHYA, seed=8), "lora_transformer_")
    return [
        write(random_adapters(sizes, PEFT), tmp_path / "brush.safetensors"),
        write(kohya, tmp_path / "ink.safetensors"),
    ]


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
def test_two_files_add_up_each_with_its_scale(
    oracle: FluxTransformer2DModel, backbone: FluxBackbone, two_files: list[Path]
) -> None:
    before = predict(backbone)
    for file, scale in zip(two_files, (0.7, 1.3), strict=True):
        attach(backbone, file, file.stem, scale)
        attach_to_oracle(oracle, file, file.stem)
    oracle.set_adapters(["brush", "ink"], [0.7, 1.3])
    assert scales(backbone) == {"brush": 0.7, "ink": 1.3}
    assert_equal(backbone, oracle, before)


@pytest.mark.filterwarnings("ignore:Already found a `peft_config`:UserWarning")
def test_scales_change_without_loading_again(
    oracle: FluxTransformer2DModel, backbone: FluxBackbone, two_files: list[Path]
) -> None:
    before = predict(backbone)
    for file in two_files:
        attach(backbone, file, file.stem)
        attach_to_oracle(oracle, file, file.stem)
        file.unlink()
    attached(backbone)["brush"].value = 0.0
    attached(backbone)["ink"].value = -0.4
    oracle.set_adapters(["ink"], [-0.4])
    assert_equal(backbone, oracle, before)


def test_detaching_all_gives_the_backbone_back(
    backbone: FluxBackbone, two_files: list[Path]
) -> None:
    before, names = predict(backbone), backbone.state_dict().keys()
    for file in two_files:
        attach(backbone, file, file.stem)
    detach(backbone, "brush")
    assert scales(backbone) == {"ink": 1.0}
    detach(backbone, "ink")
    assert torch.equal(predict(backbone), before)
    assert backbone.state_dict().keys() == names


def test_merged_weights_give_the_output_of_attached_files(
    backbone: FluxBackbone, two_files: list[Path]
) -> None:
    for file, scale in zip(two_files, (0.7, 1.3), strict=True):
        attach(backbone, file, file.stem, scale)
    merged = backbone_of(tiny_transformer(has_guidance=True))
    merged.load_state_dict(merged_state(backbone))
    torch.testing.assert_close(predict(merged), predict(backbone), rtol=0, atol=1e-5)


def test_a_file_for_clip_changes_what_clip_gives(tmp_path: Path) -> None:
    pipeline = tiny_pipeline(has_guidance=True, use_dynamic_shifting=True)
    backbone, clip = backbone_of(pipeline.transformer), our_clip(pipeline.text_encoder)
    transformer = {"transformer_blocks.0.attn.to_q": Sizes(2, 32, 32)}
    sizes = {f"text_model.{name}": size for name, size in linear_sizes(clip).items()}
    tensors = random_adapters(transformer, PEFT) | random_adapters(
        sizes, Style("text_encoder.{}.lora_A.weight", "text_encoder.{}.lora_B.weight")
    )
    file = write(tensors, tmp_path / "both.safetensors")
    tokens = torch.tensor([[5, 3, 9, 1]])
    before, names = clip(tokens), clip.state_dict().keys()
    attach(backbone, file, "both", scale=0.6, clip=clip)
    pipeline.load_lora_weights(tmp_path, weight_name=file.name, adapter_name="both")
    pipeline.set_adapters(["both"], [0.6])
    got, wanted = clip(tokens), pipeline.text_encoder(tokens).pooler_output
    torch.testing.assert_close(got, wanted, rtol=0, atol=TOLERANCE)
    assert (got - before).abs().max() > 0.1
    detach(backbone, "both", clip)
    assert torch.equal(clip(tokens), before)
    assert clip.state_dict().keys() == names


def test_kohyas_keys_for_clip_land_too(backbone: FluxBackbone, tmp_path: Path) -> None:
    pipeline = tiny_pipeline(has_guidance=True, use_dynamic_shifting=True)
    clip = our_clip(pipeline.text_encoder)
    sizes = {f"text_model.{name}": size for name, size in linear_sizes(clip).items()}
    file = write(
        with_underscores(random_adapters(sizes, KOHYA), "lora_te1_"), tmp_path / "te.safetensors"
    )
    attach(backbone, file, "te", clip=clip)
    assert scales(clip) == {"te": 1.0}


A = "transformer.transformer_blocks.0.attn.to_q.lora_A.weight"
B = "transformer.transformer_blocks.0.attn.to_q.lora_B.weight"
CLIP_A = "lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_down.weight"
GOOD = {A: torch.ones(2, 32), B: torch.ones(32, 2)}


@pytest.mark.parametrize(
    ("tensors", "said"),
    [
        ({}, "holds no adapters"),
        ({"weight": torch.ones(2)}, "of no low-rank adapter: weight"),
        (GOOD | {f"{A}.dora_scale": torch.ones(2)}, "of no low-rank adapter: .*dora_scale"),
        (GOOD | {CLIP_A: torch.ones(2)}, "CLIP text encoder, which was not given: lora_te1_"),
        (GOOD | {"transformer.norm.lora_A.weight": torch.ones(2)}, "layers that are not there"),
        ({A: torch.ones(2, 32)}, "without their other half: .*lora_A"),
        (GOOD | {A: torch.ones(2, 31)}, r"of a wrong shape: .*is \[2, 31\], for \[2, 32\]"),
        (GOOD | {B: torch.ones(32, 3)}, r"of a wrong shape: .*is \[2, 32\], for \[3, 32\]"),
        (
            GOOD
            | {
                "lora_unet_double_blocks_0_img_attn_qkv.lora_down.weight": torch.ones(2, 32),
                "lora_unet_double_blocks_0_img_attn_qkv.lora_up.weight": torch.ones(96, 2),
            },
            "for outputs that others are for",
        ),
        (GOOD | {A.replace("lora_A", "lora_A.x"): torch.ones(2, 32)}, "of no low-rank adapter"),
    ],
)
def test_what_does_not_land_is_named_and_nothing_changes(
    tensors: Tensors, said: str, backbone: FluxBackbone, tmp_path: Path
) -> None:
    file = write(tensors, tmp_path / "style.safetensors")
    with pytest.raises(WeightsError, match=said):
        attach(backbone, file, "style")
    assert attached(backbone) == {}


def test_a_file_that_is_not_safetensors_is_refused(backbone: FluxBackbone, tmp_path: Path) -> None:
    torch.save(GOOD, tmp_path / "style.safetensors")
    with pytest.raises(PresetFileError, match="not a safetensors file"):
        attach(backbone, tmp_path / "style.safetensors", "style")
    with pytest.raises(PresetFileError, match=r"missing\.safetensors is missing"):
        attach(backbone, tmp_path / "missing.safetensors", "style")
    with pytest.raises(PresetFileError, match="has not just one of"):
        attach(backbone, tmp_path, "style")


def test_an_alpha_that_is_stated_twice_is_refused(backbone: FluxBackbone, tmp_path: Path) -> None:
    alpha = {A.replace("lora_A.weight", "alpha"): torch.tensor(2.0)}
    metadata = {"lora_adapter_metadata": '{"transformer.lora_alpha": 4}'}
    save_file(GOOD | alpha, tmp_path / "style.safetensors", metadata)
    with pytest.raises(WeightsError, match="states an alpha beside"):
        attach(backbone, tmp_path / "style.safetensors", "style")


@pytest.mark.parametrize(
    "stated",
    [
        '{"transformer.lora_alpha": NaN}',
        '{"transformer.alpha_pattern": {"attn.to_q": Infinity}}',
        '{"transformer.alpha_pattern": {"(": 2}}',
        '{"transformer.alpha_pattern": {"(a+)+b": 2}}',  # matching takes for ever
        '{"transformer.alpha_pattern": {".*.*.*x": 2}}',
        "[" * 100_000,
    ],
)
def test_metadata_that_cannot_be_used_is_refused(
    stated: str, backbone: FluxBackbone, tmp_path: Path
) -> None:
    save_file(GOOD, tmp_path / "style.safetensors", {"lora_adapter_metadata": stated})
    with pytest.raises(PresetFileError, match="lora_adapter_metadata is malformed"):
        attach(backbone, tmp_path / "style.safetensors", "style")
    assert attached(backbone) == {}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({A: torch.ones(2, 32, dtype=torch.int32)}, "is torch.int32; floating dtypes are allowed"),
        ({A.replace("lora_A.weight", "alpha"): torch.tensor(torch.inf)}, "is not finite"),
    ],
)
def test_tensors_that_are_no_adapter_are_refused(
    changed: Tensors, said: str, backbone: FluxBackbone, tmp_path: Path
) -> None:
    file = write(GOOD | changed, tmp_path / "style.safetensors")
    with pytest.raises(WeightsError, match=said):
        attach(backbone, file, "style")


@pytest.mark.parametrize(("name", "scale"), [("", 1.0), ("style", 1.0), ("new", float("nan"))])
def test_a_name_in_use_and_a_scale_that_is_no_number_are_refused(
    name: str, scale: float, backbone: FluxBackbone, tmp_path: Path
) -> None:
    file = write(GOOD, tmp_path / "style.safetensors")
    attach(backbone, file, "style")
    with pytest.raises(ValueError, match=r"empty or in use|scale is nan"):
        attach(backbone, file, name, scale)


def test_a_name_that_is_not_attached_is_refused(backbone: FluxBackbone) -> None:
    with pytest.raises(ValueError, match="no LoRA is attached as 'style'; attached: none"):
        detach(backbone, "style")
