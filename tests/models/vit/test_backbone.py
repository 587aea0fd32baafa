"""ViTBackbone against transformers' ViT, and its own promises."""

from pathlib import Path

import pytest
import torch
from transformers import ViTConfig, ViTModel

from models import ViTBackbone
from models.errors import WeightsError
from tests.models.random_weights import randomise

TOLERANCE = 1e-5  # float32; the order of additions differs
IMAGE_SHAPE = (8, 12, 3)
OURS = {  # by their name, {} is the block
    "embeddings.cls_token": "patching.class_token",
    "embeddings.position_embeddings": "patching.position_embedding.weight",
    "embeddings.patch_embeddings.projection": "patching.patch_embedding",
    "layers.{}.layernorm_before": "encoder_layers.{}.layer_norm_1",
    "layers.{}.attention.q_proj": "encoder_layers.{}.mha.query",
    "layers.{}.attention.k_proj": "encoder_layers.{}.mha.key",
    "layers.{}.attention.v_proj": "encoder_layers.{}.mha.value",
    "layers.{}.attention.o_proj": "encoder_layers.{}.mha.attention_output",
    "layers.{}.layernorm_after": "encoder_layers.{}.layer_norm_2",
    "layers.{}.mlp.fc1": "encoder_layers.{}.dense_1",
    "layers.{}.mlp.fc2": "encoder_layers.{}.dense_2",
    "layernorm": "layer_norm",
}


def backbone_of(
    image_shape: tuple[int | None, ...] = IMAGE_SHAPE,
    patch_size: int = 4,
    use_class_token: bool = True,
    data_format: str | None = None,
) -> ViTBackbone:
    backbone = ViTBackbone(
        image_shape,
        patch_size,
        num_layers=2,
        num_heads=2,
        hidden_dim=8,
        mlp_dim=12,
        use_class_token=use_class_token,
        data_format=data_format,  # type: ignore[arg-type]
    )
    randomise(backbone)
    return backbone.eval()


@pytest.fixture
def oracle() -> ViTModel:
    config = ViTConfig(
        hidden_size=8,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=12,
        image_size=IMAGE_SHAPE[:2],
        patch_size=4,
        layer_norm_eps=1e-6,
    )
    model = ViTModel(config, add_pooling_layer=False).eval()
    randomise(model, seed=1)
    return model


def renamed(oracle: ViTModel, num_blocks: int) -> dict[str, torch.Tensor]:
    names = {
        theirs.format(block): ours.format(block)
        for theirs, ours in OURS.items()
        for block in range(num_blocks)
    }
    state = {}
    for name, tensor in oracle.state_dict().items():
        stem, _, ending = name.rpartition(".")
        state[names[name] if name in names else f"{names[stem]}.{ending}"] = tensor
    state["patching.position_embedding.weight"] = state["patching.position_embedding.weight"][0]
    return state


def test_features_equal_those_of_transformers(oracle: ViTModel) -> None:
    backbone = backbone_of()
    backbone.load_state_dict(renamed(oracle, num_blocks=2))
    images = torch.randn(3, *IMAGE_SHAPE)

    features = backbone(images=images)

    expected = oracle(pixel_values=images.permute(0, 3, 1, 2)).last_hidden_state
    torch.testing.assert_close(features, expected, atol=TOLERANCE, rtol=0)


def test_channels_first_gives_the_same_features() -> None:
    images = torch.randn(2, *IMAGE_SHAPE)
    first = backbone_of(image_shape=(3, 8, 12), data_format="channels_first")

    torch.testing.assert_close(
        first(images=images.permute(0, 3, 1, 2)), backbone_of()(images=images)
    )


@pytest.mark.parametrize(("use_class_token", "num_tokens"), [(True, 7), (False, 6)])
def test_there_is_one_token_a_patch_and_perhaps_one_for_the_class(
    use_class_token: bool, num_tokens: int
) -> None:
    backbone = backbone_of(use_class_token=use_class_token)

    assert backbone(images=torch.zeros(1, *IMAGE_SHAPE)).shape == (1, num_tokens, 8)


def test_integer_images_are_taken_as_numbers() -> None:
    levels = torch.randint(0, 256, (1, *IMAGE_SHAPE), dtype=torch.uint8)
    backbone = backbone_of()

    torch.testing.assert_close(backbone(images=levels), backbone(images=levels.float()))


@pytest.mark.parametrize(
    ("image_shape", "data_format", "message"),
    [
        ((None, 12, 3), None, "must state height, width"),
        ((9, 12, 3), None, "height 9 is not divisible by patch size 4"),
        ((8, 10, 3), None, "width 10 is not divisible by patch size 4"),
        ((3, None, 12), "channels_first", "must state height, width"),
        ((8, 12, 3), "sideways", "data_format is 'sideways'"),
    ],
)
def test_an_impossible_shape_is_refused(
    image_shape: tuple[int | None, ...], data_format: str | None, message: str
) -> None:
    with pytest.raises(ValueError, match=message):
        backbone_of(image_shape, data_format=data_format)


def test_images_of_another_size_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\[1, 8, 8, 3\]; after the batch \[8, 12, 3\]"):
        backbone_of()(images=torch.zeros(1, 8, 8, 3))


def test_the_base_model_has_its_published_parameter_count() -> None:
    with torch.device("meta"):
        backbone = ViTBackbone((224, 224, 3), 16, 12, 12, 768, 3072)

    assert sum(parameter.numel() for parameter in backbone.parameters()) == 85_798_656
    assert backbone.token_embedding is None


def test_weights_whose_heads_are_cut_otherwise_are_refused(tmp_path: Path) -> None:
    backbone_of().save_to_preset(tmp_path)  # 2 heads

    with pytest.raises(WeightsError, match=r"for \[8, 8\] \(the axis of heads is \[2\], not 1\)"):
        ViTBackbone.from_preset(tmp_path, num_heads=1)
