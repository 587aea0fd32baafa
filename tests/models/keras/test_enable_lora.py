"""Enabling LoRA: which layers get adapters, what trains, and what is refused."""

import pytest
import torch

from models import Backbone
from models.layers.adapters import Adapter, Linear
from models.layers.onednn import multiplies
from tests.models.keras.lora_backbones import flux, fnet, targets, vit


def test_enabling_freezes_all_but_adapters_and_the_biases_of_targets() -> None:
    backbone = vit().requires_grad_(False)
    backbone.enable_lora(2)
    trainable = [name for name, each in backbone.named_parameters() if each.requires_grad]
    assert trainable == [
        f"encoder_layers.{layer}.mha.{target}.{ending}"
        for layer in (0, 1)
        for target in ("query", "value")
        for ending in ("bias", "adapters.0.a", "adapters.0.b")
    ]


def test_enabling_adds_nothing_to_the_output_yet() -> None:
    backbone, images = vit(), torch.randn(2, 8, 8, 3)
    before = backbone(images)
    backbone.enable_lora(3, ["query", "attention_output", "patch_embedding", "position_embedding"])
    assert torch.equal(backbone(images), before)


@pytest.mark.parametrize(
    ("target", "shape", "fan_in"),
    [
        ("query", (2 * 3, 8), 8 * 2),
        ("attention_output", (3, 8), 2 * 4),
        ("dense_1", (3, 8), 8),
        ("patch_embedding", (3, 3, 4, 4), 4 * 4 * 3),
        ("position_embedding", (5, 3), 5),
    ],
)
def test_an_adapter_starts_he_uniform_over_its_kernels_first_axes(
    target: str, shape: tuple[int, ...], fan_in: int
) -> None:
    backbone = vit()
    torch.manual_seed(0)
    backbone.enable_lora(3, [target])
    adapters = [each for each in backbone.modules() if isinstance(each, Adapter)]
    drawn = torch.cat([adapter.a.flatten() for adapter in adapters]).abs()
    bound = (6 / fan_in) ** 0.5
    assert adapters[0].a.shape == shape
    assert 0.8 * bound < drawn.max() <= bound
    assert not any(adapter.b.any() for adapter in adapters)


def test_adapters_are_float32_beside_any_weights() -> None:
    backbone = vit().bfloat16()
    backbone.enable_lora(2)
    adapters = [each for each in backbone.modules() if isinstance(each, Adapter)]
    assert {adapter.a.dtype for adapter in adapters} == {torch.float32}
    assert backbone(torch.randn(1, 8, 8, 3)).dtype == torch.bfloat16


@pytest.mark.parametrize(
    ("names", "found"),
    [
        (["dense_9"], ["double_blocks.0.img_attn.qkv"]),
        (["double_blocks.0.txt_attn.qkv"], ["double_blocks.0.txt_attn.qkv"]),
        (["qkv"], ["double_blocks.0.img_attn.qkv", "double_blocks.0.txt_attn.qkv"]),
        (["img_mlp.2", "linear1"], ["double_blocks.0.img_mlp.2", "single_blocks.0.linear1"]),
        (["adaLN_modulation.1", "dense_22"], ["final_layer.adaLN_modulation.1"]),
    ],
)
def test_targets_are_names_of_keras_hub_or_ours(names: list[str], found: list[str]) -> None:
    backbone = flux()
    backbone.enable_lora(2, target_layer_names=names)
    assert targets(backbone) == found


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.int8])
def test_packed_layers_get_adapters_of_the_same_shapes(dtype: torch.dtype) -> None:
    if not multiplies(dtype):
        pytest.skip(f"this processor has no products in {dtype}")
    plain, packed = fnet(), fnet()
    for layer in packed.encoder_layers.modules():
        if isinstance(layer, Linear):
            layer.pack(dtype)

    for backbone in (plain, packed):
        backbone.enable_lora(2, ["intermediate_dense", "output_dense"])

    shapes = [
        [each.shape for name, each in backbone.named_parameters() if ".adapters." in name]
        for backbone in (plain, packed)
    ]
    assert len(shapes[0]) == 8
    assert shapes[1] == shapes[0]


def test_the_default_names_may_be_given_too() -> None:
    backbone = vit()
    backbone.enable_lora(2, backbone.default_lora_layer_names())
    other = vit()
    other.enable_lora(2)
    assert targets(backbone) == targets(other)


@pytest.mark.parametrize("backbone", [flux(), fnet()], ids=["flux", "fnet"])
def test_default_targets_that_match_nothing_are_refused(backbone: Backbone) -> None:
    with pytest.raises(ValueError, match="no layer that can hold an adapter is named query_dense"):
        backbone.enable_lora(2)
    assert all(parameter.requires_grad for parameter in backbone.parameters())


@pytest.mark.parametrize(
    ("names", "said"),
    [
        (
            ["query", "quary"],
            r"is named quary; allowed are KerasHub's names position_embedding, .*mha",
        ),
        (["ln_1"], "is named ln_1"),
        ([], "target_names is empty"),
        (["query", "query"], "target_names has query more than once"),
    ],
)
def test_targets_that_match_nothing_or_come_twice_are_refused(names: list[str], said: str) -> None:
    backbone = vit()
    with pytest.raises(ValueError, match=said):
        backbone.enable_lora(2, names)
    assert targets(backbone) == []


def test_fnets_positions_take_no_adapter_as_in_keras_hub() -> None:
    with pytest.raises(ValueError, match="is named position_embedding"):
        fnet().enable_lora(2, ["position_embedding"])


def test_a_string_for_targets_is_refused() -> None:
    with pytest.raises(TypeError, match="target_names is the string 'query'"):
        vit().enable_lora(2, "query")
    with pytest.raises(TypeError, match="are the same"):
        vit().enable_lora(2, ["query"], target_layer_names=["query"])


@pytest.mark.parametrize("rank", [0, -1])
def test_a_rank_below_one_is_refused(rank: int) -> None:
    with pytest.raises(ValueError, match=f"rank is {rank}"):
        vit().enable_lora(rank)


def test_lora_is_enabled_only_once() -> None:
    backbone = vit()
    backbone.enable_lora(2)
    with pytest.raises(ValueError, match="lora is already enabled"):
        backbone.enable_lora(2, ["key"])


@pytest.mark.parametrize("rank", [True, 1.5, "2", None])
def test_a_rank_that_is_no_integer_leaves_the_backbone_as_it_was(rank: object) -> None:
    backbone = vit()

    with pytest.raises(TypeError, match="an integer is allowed"):
        backbone.enable_lora(rank)  # type: ignore[arg-type]
    assert all(each.requires_grad for each in backbone.parameters())


def test_adapters_are_float32_whatever_the_default_dtype() -> None:
    backbone = vit().bfloat16()
    torch.set_default_dtype(torch.bfloat16)
    try:
        backbone.enable_lora(2)
    finally:
        torch.set_default_dtype(torch.float32)

    assert {each.dtype for name, each in backbone.named_parameters() if "adapters" in name} == {
        torch.float32
    }
