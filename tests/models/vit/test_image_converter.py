"""ImageConverter: any image to the numbers that a preset expects."""

import numpy as np
import pytest
import torch
from PIL import Image
from pydantic import ValidationError

from models.errors import ImageDecodeError
from models.vit import image_converter
from models.vit.image_converter import ImageConverter, ImageConverterConfig

EXIF_ORIENTATION, ROTATED_90_CLOCKWISE = 0x0112, 6


def converter_of(
    height: int = 8, width: int = 8, antialias: bool = True, crop_to_aspect_ratio: bool = True
) -> ImageConverter:
    config = ImageConverterConfig(
        image_size=(height, width), antialias=antialias, crop_to_aspect_ratio=crop_to_aspect_ratio
    )
    return ImageConverter(config)


def noise(height: int, width: int) -> Image.Image:
    generator = np.random.default_rng(0)
    return Image.fromarray(generator.integers(0, 256, (height, width, 3), dtype=np.uint8))


def test_every_channel_is_scaled_and_offset() -> None:
    config = ImageConverterConfig(image_size=(4, 4), scale=(1.0, 0.5, 0.1), offset=(0.0, -1.0, 3.0))

    pixels = ImageConverter(config)(Image.new("RGB", (4, 4), (10, 20, 30)))

    torch.testing.assert_close(pixels, torch.tensor([10.0, 9.0, 6.0]).expand(4, 4, 3))


def test_resizing_with_antialias_equals_pillows_to_one_grey_level() -> None:
    image = noise(61, 61)

    pixels = converter_of(16, 16)(image)

    expected = np.asarray(image.resize((16, 16), Image.Resampling.BILINEAR), dtype=np.float32)
    assert np.abs(pixels.numpy() - expected).max() <= 1.0


@pytest.mark.parametrize("way", ["crop_to_aspect_ratio", "pad_to_aspect_ratio", "antialias"])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic"])
@pytest.mark.parametrize(("width", "height"), [(61, 40), (3, 50), (30, 9)])
@pytest.mark.parametrize("num_channels", [1, 3])
def test_an_image_is_resized_in_bands_to_the_same_bits(
    width: int,
    height: int,
    num_channels: int,
    interpolation: str,
    way: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    config = {"image_size": (12, 16), "interpolation": interpolation, "antialias": True}
    config |= {"crop_to_aspect_ratio": False, way: True}
    converter = ImageConverter(ImageConverterConfig.model_validate(config), num_channels)
    whole = converter(image := noise(height, width))
    for band_pixels in (1, 130):
        monkeypatch.setattr(image_converter, "BAND_PIXELS", band_pixels)
        assert torch.equal(converter(image), whole)


def test_resizing_without_antialias_takes_the_nearest_pixels_only() -> None:
    image = noise(8, 8)

    pixels = converter_of(2, 2, antialias=False)(image)

    corner = np.asarray(image, dtype=np.float32)[1:3, 1:3].mean(axis=(0, 1))
    assert np.abs(pixels[0, 0].numpy() - corner).max() <= 0.5


def test_levels_are_whole_after_the_resize() -> None:
    pixels = converter_of(7, 7)(noise(30, 30))

    assert torch.equal(pixels, pixels.round())


def test_a_wide_image_loses_its_sides() -> None:
    image = Image.new("RGB", (30, 10), "red")
    image.paste("blue", (10, 0, 20, 10))

    pixels = converter_of()(image)

    assert torch.equal(pixels, torch.tensor([0.0, 0.0, 255.0]).expand(8, 8, 3))


def test_without_cropping_a_wide_image_is_squeezed() -> None:
    image = Image.new("RGB", (30, 10), "red")
    image.paste("blue", (10, 0, 20, 10))

    pixels = converter_of(crop_to_aspect_ratio=False)(image)

    assert torch.equal(pixels[0, 0], torch.tensor([255.0, 0.0, 0.0]))


def test_a_image_is_turned_upright_as_its_exif_says() -> None:
    image = Image.new("RGB", (8, 8), "red")
    image.paste("blue", (0, 0, 8, 4))  # the top, which is at the right when turned
    image.getexif()[EXIF_ORIENTATION] = ROTATED_90_CLOCKWISE

    pixels = converter_of()(image)

    assert torch.equal(pixels[0, 7], torch.tensor([0.0, 0.0, 255.0]))
    assert torch.equal(pixels[7, 0], torch.tensor([255.0, 0.0, 0.0]))


def test_what_is_transparent_is_white() -> None:
    pixels = converter_of()(Image.new("RGBA", (8, 8), (255, 0, 0, 0)))

    assert torch.equal(pixels, torch.full((8, 8, 3), 255.0))


@pytest.mark.parametrize(
    "image",
    [
        Image.new("L", (8, 8), 100),
        Image.new("P", (8, 8), 0),
        Image.new("CMYK", (8, 8), (0, 0, 0, 155)),
        Image.new("1", (8, 8), 1),
        Image.new("LA", (8, 8), (100, 255)),
        Image.fromarray(np.full((8, 8), 100 * 257, dtype=np.uint16)),
        Image.new("RGB", (1, 1)),
        Image.new("RGB", (500, 1)),
    ],
    ids=lambda image: f"{image.mode} {image.width}x{image.height}",
)
def test_every_mode_and_size_is_accepted(image: Image.Image) -> None:
    assert converter_of()(image).shape == (8, 8, 3)


def test_sixteen_bits_are_scaled_to_eight() -> None:
    image = Image.fromarray(np.full((8, 8), 100 * 257, dtype=np.uint16))

    assert torch.equal(converter_of()(image), torch.full((8, 8, 3), 100.0))


def test_a_grey_model_gets_one_channel() -> None:
    config = ImageConverterConfig(image_size=(8, 8))

    pixels = ImageConverter(config, num_channels=1)(Image.new("LA", (8, 8), (100, 255)))

    assert torch.equal(pixels, torch.full((8, 8, 1), 100.0))


def test_a_padded_image_keeps_all_of_itself_between_black_bars() -> None:
    config = ImageConverterConfig(
        image_size=(6, 6), crop_to_aspect_ratio=False, pad_to_aspect_ratio=True
    )

    pixels = ImageConverter(config)(Image.new("RGB", (6, 2), "white"))

    assert torch.equal(pixels[2:4], torch.full((2, 6, 3), 255.0))
    assert not torch.cat((pixels[:2], pixels[4:])).any()


def test_a_image_that_padding_would_blow_up_is_refused() -> None:
    config = ImageConverterConfig(
        image_size=(8, 8), crop_to_aspect_ratio=False, pad_to_aspect_ratio=True
    )

    with pytest.raises(ImageDecodeError, match=r"20000x1 has 399980000 pixels.*at most 67108864"):
        ImageConverter(config)(Image.new("L", (20_000, 1)))


def test_a_tall_image_that_stretching_would_blow_up_is_refused() -> None:
    squeezes = converter_of(width=200, crop_to_aspect_ratio=False)

    with pytest.raises(ImageDecodeError, match=r"1x400000 has 80000000 pixels.*at most 67108864"):
        squeezes(Image.new("L", (1, 400_000)))


def test_without_a_size_images_keep_theirs() -> None:
    assert ImageConverter(ImageConverterConfig())(noise(5, 7)).shape == (5, 7, 3)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"crop_to_aspect_ratio": True, "pad_to_aspect_ratio": True}, "only one of"),
        ({"scale": float("nan")}, "scale"),
        ({"image_size": (8, 0)}, "image_size"),
        ({"image_size": (8, 10**9)}, "image_size"),
        ({"interpolation": "lanczos3"}, "bilinear"),
        ({"norm_mean": "grey"}, "valid number"),
        ([], "dictionary"),
    ],
)
def test_a_configuration_that_is_not_understood_is_refused(config: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ImageConverterConfig.model_validate(config)


def test_other_numbers_of_factors_than_channels_are_refused() -> None:
    config = ImageConverterConfig(image_size=(8, 8), scale=(1.0, 2.0))

    with pytest.raises(ValueError, match="scale has 2 numbers, the backbone 3 channels"):
        ImageConverter(config)
