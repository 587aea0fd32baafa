"""Flux LoRA files against diffusers' own reading of the same files, float32 on the CPU."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from diffusers import FluxPipeline, FluxTransformer2DModel
from peft import LoraConfig, PeftModel, get_peft_model_state_dict

from models import Backbone
from models.flux.backbone import FluxBackbone
from models.flux.formats.lora_files import attach, attached
from models.keras import lora_file
from tests.models.flux.conftest import tiny_transformer
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
from tests.models.flux.test_backbone import backbone_of
from tests.models.keras.recorded import CASES, arrays


@pytest.fixture
def oracle() -> FluxTransformer2DModel:
    return tiny_transformer(has_guidance=True)


@pytest.fixture
def backbone(oracle: FluxTransformer2DModel) -> FluxBackbone:
    return backbone_of(oracle)


@dataclass(frozen=True, slots=True)
class Modules:
    """The linear layers by their names in diffusers, and in the original as here."""

    theirs: Mapping[str, Sizes]
    ours: Mapping[str, Sizes]


@pytest.fixture
def modules(oracle: FluxTransformer2DModel, backbone: FluxBackbone) -> Modules:
    return Modules(linear_sizes(oracle), linear_sizes(backbone))


def diffusers_keys(modules: Modules) -> Tensors:
    return random_adapters(modules.theirs, PEFT)


def diffusers_keys_with_alphas(modules: Modules) -> Tensors:
    # diffusers takes an alpha of the outer proj_out for that of every block's
    sizes = {name: size for name, size in modules.theirs.items() if name != "proj_out"}
    return random_adapters(sizes, Style(PEFT.a, PEFT.b, "transformer.{}.alpha"))


def original_keys(modules: Modules, style: Style) -> Tensors:
    # diffusers' converter knows linear1 in its full size alone, and forgets the last layer's alphas
    sizes = {name: size for name, size in modules.ours.items() if "linear1" not in name}
    drawn = random_adapters(sizes, style)
    return {k: t for k, t in drawn.items() if not ("final_layer" in k and k.endswith("alpha"))}


def kohya_keys(modules: Modules) -> Tensors:
    return with_underscores(original_keys(modules, KOHYA), "lora_unet_")


def kohya_keys_of_diffusers_names(modules: Modules) -> Tensors:
    sizes = {name: size for name, size in modules.theirs.items() if ".attn." in name}
    return with_underscores(random_adapters(sizes, KOHYA), "lora_transformer_")


def dotted_keys_of_original_names(modules: Modules) -> Tensors:
    prefix = "diffusion_model."
    return original_keys(modules, Style(prefix + KOHYA.a, prefix + KOHYA.b, f"{prefix}{{}}.alpha"))


@pytest.mark.parametrize(
    "draw",
    [
        diffusers_keys,
        diffusers_keys_with_alphas,
        kohya_keys,
        kohya_keys_of_diffusers_names,
        dotted_keys_of_original_names,
    ],
)
def test_a_file_changes_the_output_as_in_diffusers(
    draw: Callable[[Modules], Tensors],
    modules: Modules,
    oracle: FluxTransformer2DModel,
    backbone: FluxBackbone,
    tmp_path: Path,
) -> None:
    file = write(draw(modules), tmp_path / "style.safetensors")
    before = predict(backbone)
    attach(backbone, file, "style")
    attach_to_oracle(oracle, file)
    assert_equal(backbone, oracle, before)


def test_an_adapter_of_linear1_counts_for_all_four_projections(
    oracle: FluxTransformer2DModel, backbone: FluxBackbone, modules: Modules, tmp_path: Path
) -> None:
    sizes = {"single_blocks.1.linear1": modules.ours["single_blocks.1.linear1"]}
    drawn = with_underscores(random_adapters(sizes, KOHYA), "lora_unet_")
    down, up, alpha = drawn.values()
    parts = up.split((32, 32, 32, 128))
    theirs = {}
    for name, part in zip(("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp"), parts, strict=True):
        module = f"single_transformer_blocks.1.{name}"
        theirs[PEFT.a.format(module)] = down * alpha / len(down)
        theirs[PEFT.b.format(module)] = part.clone()
    before = predict(backbone)
    attach(backbone, write(drawn, tmp_path / "ours.safetensors"), "style")
    attach_to_oracle(oracle, write(theirs, tmp_path / "theirs.safetensors"))
    assert_equal(backbone, oracle, before)


@pytest.mark.parametrize(
    ("a", "b"),
    [
        ("{}.lora_A.weight", "{}.lora_B.weight"),
        ("base_model.model.{}.lora_A.weight", "base_model.model.{}.lora_B.weight"),
        ("transformer.{}.lora_A.default.weight", "transformer.{}.lora_B.default.weight"),
        ("transformer.{}.lora.down.weight", "transformer.{}.lora.up.weight"),
    ],
)
def test_the_prefix_of_keys_does_not_matter(
    a: str, b: str, backbone: FluxBackbone, modules: Modules, tmp_path: Path
) -> None:
    for name, style in (("usual", PEFT), ("other", Style(a, b))):
        file = write(random_adapters(modules.theirs, style), tmp_path / f"{name}.safetensors")
        attach(backbone, file, name)
    attached(backbone)["other"].value = -1.0
    plain = backbone_of(tiny_transformer(has_guidance=True))
    torch.testing.assert_close(predict(backbone), predict(plain), rtol=0, atol=TOLERANCE)


@pytest.mark.parametrize("use_rslora", [False, True])
def test_a_directory_of_peft_states_alphas_in_its_configuration(
    use_rslora: bool, oracle: FluxTransformer2DModel, backbone: FluxBackbone, tmp_path: Path
) -> None:
    before = predict(backbone)
    config = LoraConfig(
        r=3,
        lora_alpha=7,
        alpha_pattern={"attn.to_v": 2},
        target_modules=["to_q", "to_v", "ff.net.2"],
        use_rslora=use_rslora,
    )
    peft = PeftModel(oracle, config)
    randomise_adapters(oracle)
    peft.save_pretrained(str(tmp_path))
    attach(backbone, tmp_path, "style")
    assert_equal(backbone, oracle, before)


def test_a_file_of_diffusers_states_alphas_in_its_metadata(
    oracle: FluxTransformer2DModel, backbone: FluxBackbone, tmp_path: Path
) -> None:
    before = predict(backbone)
    config = LoraConfig(r=3, lora_alpha=7, target_modules=["to_q", "to_v", "ff.net.2"])
    oracle.add_adapter(config)
    randomise_adapters(oracle)
    FluxPipeline.save_lora_weights(
        tmp_path,
        transformer_lora_layers=get_peft_model_state_dict(oracle),
        transformer_lora_adapter_metadata=oracle.peft_config["default"].to_dict(),
    )
    attach(backbone, tmp_path, "style")
    assert_equal(backbone, oracle, before)


def randomise_adapters(oracle: FluxTransformer2DModel) -> None:
    generator = torch.Generator().manual_seed(3)
    for name, parameter in oracle.named_parameters():
        if "lora_" in name:
            parameter.data = 0.3 * torch.randn(parameter.shape, generator=generator)


def test_modulations_that_took_over_keras_hubs_norms_do_the_same_to_an_adapter(
    tmp_path: Path,
) -> None:
    case = CASES / "flux_lora_modulation_sharded"
    by_file, by_keras = (Backbone.from_preset(case / "preset") for _ in range(2))
    assert isinstance(by_file, FluxBackbone)
    by_keras.load_lora_weights(case / "adapter.lora.h5")
    modules = {each.position: each.module for each in by_file.keras_layers()}
    tensors = {}
    for position, pair in lora_file.read(case / "adapter.lora.h5").pairs.items():
        tensors[f"diffusion_model.{modules[position]}.lora_A.weight"] = pair.a.T.contiguous()
        tensors[f"diffusion_model.{modules[position]}.lora_B.weight"] = pair.b.T.contiguous()
    attach(by_file, write(tensors, tmp_path / "style.safetensors"), "style")
    given = arrays(case / "inputs.npz")
    torch.testing.assert_close(by_file(**given), by_keras(**given), rtol=0, atol=TOLERANCE)
