"""Decoding in tiles against the whole decoder: no seam, no drift."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderKL
from torch import Tensor

from models.flux import tiled_decoding
from models.flux.autoencoder import Autoencoder
from models.flux.formats.autoencoder_files import load_autoencoder
from models.flux.part_configs import AutoencoderConfig
from models.flux.tiled_decoding import tiled_decode
from models.presets import get_preset
from tests.models.flux.conftest import randomise

GREY_LEVEL = 2 / 255  # of -1 … 1
ALLOWED = 2 * GREY_LEVEL


def random_autoencoder(**changes: object) -> Autoencoder:
    """FLUX.1's design in narrow: attention in the middle, two blocks a level."""
    torch.manual_seed(0)
    settings: dict[str, object] = {
        "down_block_types": ("DownEncoderBlock2D",) * 4,
        "up_block_types": ("UpDecoderBlock2D",) * 4,
        "block_out_channels": (32, 64, 128, 128),
        "layers_per_block": 2,
        "latent_channels": 16,
        "norm_num_groups": 32,
        "use_quant_conv": False,
        "use_post_quant_conv": False,
        "scaling_factor": 0.3611,
        "shift_factor": 0.1159,
    }
    autoencoder = Autoencoder(AutoencoderConfig.model_validate(settings | changes)).eval()
    randomise(autoencoder.decoder, seed=1)
    return autoencoder


def bundled_autoencoder() -> Autoencoder:
    return load_autoencoder(Path(get_preset("flux_shapes").handle), "cpu", None)


def random_latents(height: int, width: int, num_images: int = 1) -> Tensor:
    """Smooth over the image, so that regions differ: noise alone has the same statistics all over.

    height, width in latents
    """
    generator = torch.Generator().manual_seed(2)
    coarse = torch.randn(num_images, 16, 3, 3, generator=generator)
    smooth = torch.nn.functional.interpolate(coarse, (height, width), mode="bicubic")
    return smooth + 0.3 * torch.randn(smooth.shape, generator=generator)


@pytest.fixture(autouse=True)
def small_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut small images into several bands too."""
    monkeypatch.setattr(tiled_decoding, "BAND_PIXELS", 2**11)


@pytest.mark.parametrize("size", [(16, 16), (9, 26), (26, 10)], ids=["square", "wide", "tall"])
@pytest.mark.parametrize("build", [bundled_autoencoder, random_autoencoder])
@torch.inference_mode()
def test_tiles_decode_what_the_whole_decodes(
    build: Callable[[], Autoencoder], size: tuple[int, int]
) -> None:
    autoencoder, latents = build(), random_latents(*size)
    whole = autoencoder.decode(latents)
    difference = (tiled_decode(autoencoder, latents) - whole).abs().max()
    # far inside of what is allowed: no seam is blended over
    assert difference < ALLOWED / 50


@torch.inference_mode()
def test_the_tiles_of_diffusers_differ_by_far_more() -> None:
    preset = Path(get_preset("flux_shapes").handle)
    autoencoder, latents = AutoencoderKL.from_pretrained(preset / "vae"), random_latents(32, 32)
    whole = autoencoder.decode(latents).sample
    autoencoder.enable_tiling()
    autoencoder.tile_sample_min_size, autoencoder.tile_latent_min_size = 128, 16
    difference = (autoencoder.decode(latents).sample - whole).abs().max()
    assert difference > 5 * ALLOWED


@torch.inference_mode()
def test_each_image_of_a_batch_is_decoded_by_itself() -> None:
    autoencoder, latents = bundled_autoencoder(), random_latents(8, 8, num_images=3)
    together = tiled_decode(autoencoder, latents)
    assert torch.equal(together[1:2], tiled_decode(autoencoder, latents[1:2]))


@torch.inference_mode()
def test_half_precision_is_as_near_as_the_whole_decoder(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tiled_decoding, "BAND_PIXELS", 2**13)
    exact, half = bundled_autoencoder(), bundled_autoencoder().bfloat16()
    latents = random_latents(16, 16)
    expected = exact.decode(latents)
    whole = half.decode(latents).float()
    tiled = tiled_decode(half, latents).float()
    assert (tiled - expected).abs().mean() < 1.1 * (whole - expected).abs().mean()


@torch.inference_mode()
def test_a_decoder_with_a_convolution_before_it_is_tiled_too() -> None:
    autoencoder, latents = random_autoencoder(use_post_quant_conv=True), random_latents(8, 8)
    whole = autoencoder.decode(latents)
    torch.testing.assert_close(tiled_decode(autoencoder, latents), whole, atol=1e-3, rtol=0)
