"""The autoencoder against diffusers' own, with its weights, float32 on the CPU."""

import pytest
import torch
from diffusers import AutoencoderKL

from tests.models.flux.conftest import randomise
from tests.models.flux.our_parts import our_autoencoder

# two levels of one width and two of others: with and without a shortcut
SIZES: dict[str, object] = {
    "down_block_types": ("DownEncoderBlock2D",) * 4,
    "up_block_types": ("UpDecoderBlock2D",) * 4,
    "block_out_channels": (8, 16, 16, 24),
    "layers_per_block": 2,
    "latent_channels": 16,
    "norm_num_groups": 4,
    "scaling_factor": 0.3611,
    "shift_factor": 0.1159,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
}


def random_autoencoder(**settings: object) -> AutoencoderKL:
    torch.manual_seed(0)
    autoencoder = AutoencoderKL(**SIZES | settings).eval()
    randomise(autoencoder, seed=4)
    return autoencoder


@pytest.fixture(
    params=[
        {},
        {"use_quant_conv": True, "use_post_quant_conv": True},
        {"mid_block_add_attention": False, "layers_per_block": 1},
        {"block_out_channels": (8,), **{f"{way}_block_types": (kind,) for way, kind in (
            ("down", "DownEncoderBlock2D"), ("up", "UpDecoderBlock2D"))}},
    ],
    ids=["as FLUX.1", "with quant convolutions", "without attention", "one level"],
)  # fmt: skip
def oracle(request: pytest.FixtureRequest) -> AutoencoderKL:
    return random_autoencoder(**request.param)


@torch.inference_mode()
def test_latents_are_those_of_diffusers(oracle: AutoencoderKL) -> None:
    images = torch.randn(2, 3, 40, 56, generator=torch.Generator().manual_seed(1))
    expected, got = oracle.encode(images).latent_dist, our_autoencoder(oracle).encode(images)
    torch.testing.assert_close(got.mean, expected.mean, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(got.std, expected.std, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_images_are_those_of_diffusers(oracle: AutoencoderKL) -> None:
    latents = torch.randn(2, 16, 5, 7, generator=torch.Generator().manual_seed(2))
    expected, got = oracle.decode(latents).sample, our_autoencoder(oracle).decode(latents)
    torch.testing.assert_close(got, expected, rtol=1e-5, atol=1e-5)


@torch.inference_mode()
def test_a_variance_out_of_all_range_is_cut_off() -> None:
    oracle = random_autoencoder()
    oracle.encoder.conv_out.weight.mul_(1e4)
    images = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(1))
    std = our_autoencoder(oracle).encode(images).std
    torch.testing.assert_close(std, oracle.encode(images).latent_dist.std, rtol=1e-3, atol=0)
    assert std.min() > 0


@torch.inference_mode()
def test_bfloat16_is_as_near_as_diffusers() -> None:
    oracle = random_autoencoder()
    latents = torch.randn(1, 16, 8, 8, generator=torch.Generator().manual_seed(2))
    exact, ours = oracle.decode(latents).sample, our_autoencoder(oracle).bfloat16().decode(latents)
    theirs = oracle.bfloat16().decode(latents.bfloat16()).sample
    assert (ours - exact).norm() < 1.1 * (theirs - exact).norm()
