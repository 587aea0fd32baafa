"""FluxBackbone against diffusers' transformer, float32 on the CPU, random weights and inputs."""

import pytest
import torch
from diffusers import FluxTransformer2DModel
from torch import Tensor

from models.flux.backbone import FluxBackbone
from models.flux.formats.diffusers_weights import recipes, to_diffusers
from models.flux.latents import image_ids
from models.flux.layers import rotate, rotation
from tests.models.flux.conftest import POOLED_WIDTH, TEXT_WIDTH, tiny_transformer


def backbone_of(oracle: FluxTransformer2DModel) -> FluxBackbone:
    backbone = FluxBackbone(
        input_channels=64,
        hidden_size=32,
        mlp_ratio=4.0,
        num_heads=2,
        depth=2,
        depth_single_blocks=2,
        axes_dim=(4, 6, 6),
        theta=10_000,
        use_bias=True,
        guidance_embed=oracle.config.guidance_embeds,
        text_shape=(None, TEXT_WIDTH),
        y_shape=(POOLED_WIDTH,),
        gelu_approximate="tanh",
    )
    theirs = oracle.state_dict()
    made = {
        name: recipe.join(*(theirs[each] for each in recipe.names))
        for name, recipe in recipes(backbone).items()
    }
    backbone.load_state_dict(made)
    return backbone.eval()


def inputs(width: int, height: int) -> dict[str, Tensor]:
    """Two rows at noise levels of their own."""
    generator = torch.Generator().manual_seed(5)
    num_patches = width * height // 256
    return {
        "image": torch.randn(2, num_patches, 64, generator=generator),
        "image_ids": image_ids(width, height).expand(2, -1, -1),
        "text": torch.randn(2, 7, TEXT_WIDTH, generator=generator),
        "text_ids": torch.zeros(2, 7, 3),
        "y": torch.randn(2, POOLED_WIDTH, generator=generator),
        "timesteps": torch.tensor([0.93, 0.21]),
        "guidance": torch.tensor([3.5, 1.25]),
    }


@torch.inference_mode()
def ask(oracle: FluxTransformer2DModel, given: dict[str, Tensor]) -> Tensor:
    velocity: Tensor = oracle(
        hidden_states=given["image"],
        encoder_hidden_states=given["text"],
        pooled_projections=given["y"],
        timestep=given["timesteps"],
        img_ids=given["image_ids"][0],
        txt_ids=given["text_ids"][0],
        guidance=given["guidance"] if oracle.config.guidance_embeds else None,
    ).sample
    return velocity


@pytest.mark.parametrize("has_guidance", [True, False])
@pytest.mark.parametrize("size", [(64, 64), (160, 48)])
def test_velocities_equal_diffusers(has_guidance: bool, size: tuple[int, int]) -> None:
    oracle = tiny_transformer(has_guidance)
    given = inputs(*size)
    with torch.inference_mode():
        velocity = backbone_of(oracle)(**given)
    # Outputs are of size 1 to 3. Swapping scale and shift, or two axes, shows at 0.1 and more.
    torch.testing.assert_close(velocity, ask(oracle, given), atol=2e-5, rtol=0)


def test_the_text_reaches_the_velocity() -> None:
    backbone = backbone_of(tiny_transformer(has_guidance=True))
    given = inputs(64, 64)
    with torch.inference_mode():
        before = backbone(**given)
        after = backbone(**{**given, "text": given["text"].flip(1)})
    assert (before - after).abs().max() < 1e-4  # text positions are all zero: order cannot matter
    with torch.inference_mode():
        other = backbone(**{**given, "text": given["text"] * 0.5})
    assert (before - other).abs().max() > 1e-3


def test_rows_do_not_see_each_other() -> None:
    backbone = backbone_of(tiny_transformer(has_guidance=True))
    given = inputs(64, 64)
    with torch.inference_mode():
        both = backbone(**given)
        second = backbone(**{name: tensor[1:] for name, tensor in given.items()})
    torch.testing.assert_close(both[1:], second, atol=1e-5, rtol=0)


def test_the_map_to_diffusers_is_the_inverse_of_the_map_from_it() -> None:
    theirs = tiny_transformer(has_guidance=True).state_dict()
    backbone = backbone_of(tiny_transformer(has_guidance=True))
    back = to_diffusers(backbone.state_dict(), hidden_size=32)
    assert back.keys() == theirs.keys()
    assert all(torch.equal(back[name], theirs[name]) for name in theirs)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_heads": 3}, "hidden_size 32 does not divide by num_heads 3"),
        ({"axes_dim": (4, 6, 8)}, "adds up to 18, not to the head width 16"),
        ({"axes_dim": (5, 5, 6)}, "odd width"),
    ],
)
def test_sizes_that_do_not_fit_are_refused(changes: dict[str, object], message: str) -> None:
    config = {**backbone_of(tiny_transformer(has_guidance=False)).get_config(), **changes}
    with pytest.raises(ValueError, match=message):
        FluxBackbone(**config)  # type: ignore[arg-type]


def test_guidance_is_required_where_it_is_embedded() -> None:
    backbone = backbone_of(tiny_transformer(has_guidance=True))
    with pytest.raises(ValueError, match="guidance"):
        backbone(**{**inputs(64, 64), "guidance": None})


def test_the_dtype_is_that_of_every_parameter() -> None:
    config = backbone_of(tiny_transformer(has_guidance=True)).get_config()
    backbone = FluxBackbone(**config | {"dtype": "bfloat16"})  # type: ignore[arg-type]
    assert {parameter.dtype for parameter in backbone.parameters()} == {torch.bfloat16}


def test_a_compiled_rotation_is_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    x = torch.randn(2, 3, 5, 16, generator=torch.Generator().manual_seed(1))
    ids = torch.randint(0, 9, (2, 5, 3), generator=torch.Generator().manual_seed(2))
    by = rotation(ids, (4, 6, 6), theta=10_000.0)[:, None]
    eager = rotate(x, by)
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)  # spares a compiler's start
    torch.testing.assert_close(rotate(x, by), eager, atol=1e-6, rtol=0)
    assert not torch.allclose(eager, x, atol=0.1)
