"""TransformersConverter against transformers' own processor, and `to_rgb` against Pillow."""

import io

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pydantic import ValidationError
from transformers import ViTImageProcessorPil

from models.layers.images import to_rgb
from models.vit.formats.image_converter_transformers import ProcessorConfig, TransformersConverter
from models.vit.image_converter import ImageConverter

GENERATOR = np.random.default_rng(0)
EXIF_ORIENTATION, ROTATED_90_CLOCKWISE = 0x0112, 6


def noise(*shape: int) -> npt.NDArray[np.uint8]:
    return GENERATOR.integers(0, 256, shape, dtype=np.uint8)


def turned() -> Image.Image:
    image = Image.fromarray(noise(20, 30, 3))
    image.getexif()[EXIF_ORIENTATION] = ROTATED_90_CLOCKWISE
    return image


def reread(image: Image.Image) -> Image.Image:
    written = io.BytesIO()
    image.save(written, "png")
    return Image.open(written)


def animation() -> Image.Image:
    frames = [Image.fromarray(noise(9, 14, 3)) for _ in range(3)]
    written = io.BytesIO()
    frames[0].save(written, "gif", save_all=True, append_images=frames[1:])
    return Image.open(written)


# Pillow turns these into RGB as they are meant
PLAIN = {
    "1x1": Image.fromarray(noise(1, 1, 3)),
    "1x5000": Image.fromarray(noise(5000, 1, 3)),
    "5000x1": Image.fromarray(noise(1, 5000, 3)),
    "as large as the model": Image.fromarray(noise(10, 14, 3)),
    "larger": Image.fromarray(noise(300, 217, 3)),
    "smaller": Image.fromarray(noise(3, 4, 3)),
    "grey": Image.fromarray(noise(31, 40)),
    "bilevel": Image.fromarray(noise(31, 40)).convert("1"),
    "palette": Image.fromarray(noise(31, 40, 3)).quantize(16),
    "CMYK": Image.fromarray(noise(31, 40, 4), mode="CMYK"),
    "YCbCr": Image.fromarray(noise(31, 40, 3)).convert("YCbCr"),
    "animated GIF": animation(),
}
TRANSPARENT = {
    "RGBA": Image.fromarray(noise(31, 40, 4)),
    "LA": Image.fromarray(noise(31, 40, 2), mode="LA"),
    "transparent palette": reread(Image.fromarray(noise(31, 40, 4)).quantize(16, method=2)),
}
TURNED_OR_DEEP = {
    "turned by EXIF": turned(),
    "16 bits": Image.fromarray(GENERATOR.integers(0, 1 << 16, (31, 40), dtype=np.uint16)),
}
CORPUS = PLAIN | TRANSPARENT | TURNED_OR_DEEP
CONFIGS: dict[str, dict[str, object]] = {
    "defaults": {"size": {"height": 10, "width": 14}},
    "a side": {"size": 12},
    "per channel": {
        "size": {"height": 7, "width": 15},
        "image_mean": [0.485, 0.456, 0.406],
        "image_std": [0.229, 0.224, 0.225],
    },
    "nearest": {"size": 12, "resample": 0},
    "lanczos": {"size": 12, "resample": 1},
    "bicubic": {"size": 12, "resample": 3},
    "box": {"size": 12, "resample": 4},
    "hamming": {"size": 12, "resample": 5},
    "levels only": {"size": 12, "do_rescale": False, "do_normalize": False},
    "not rescaled": {"size": 12, "do_rescale": False},
    "not normalised": {"size": 12, "do_normalize": False, "rescale_factor": 0.01},
    "not resized": {"do_resize": False},
}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS)
@pytest.mark.parametrize("image", CORPUS.values(), ids=CORPUS)
def test_images_are_prepared_as_transformers_does(
    image: Image.Image, config: dict[str, object]
) -> None:
    processor = ViTImageProcessorPil(**config)

    pixels = TransformersConverter(ProcessorConfig.model_validate(config))(image)

    expected = processor(to_rgb(image), return_tensors="pt").pixel_values[0]
    np.testing.assert_array_equal(pixels, expected.permute(1, 2, 0))


@pytest.mark.parametrize("image", (PLAIN | TRANSPARENT).values(), ids=PLAIN | TRANSPARENT)
def test_any_image_becomes_rgb_as_in_transformers(image: Image.Image) -> None:
    processor = ViTImageProcessorPil(
        do_resize=False, do_rescale=False, do_normalize=False, do_convert_rgb=True
    )

    expected = processor(image, return_tensors="pt").pixel_values[0].permute(1, 2, 0)

    np.testing.assert_array_equal(np.asarray(to_rgb(image)), expected)


@pytest.mark.parametrize("image", PLAIN.values(), ids=PLAIN)
def test_a_image_without_transparency_becomes_rgb_as_in_pillow(image: Image.Image) -> None:
    np.testing.assert_array_equal(np.asarray(to_rgb(image)), np.asarray(image.convert("RGB")))


def test_a_grey_model_gets_grey_levels() -> None:
    config = {"size": 12, "image_mean": [0.5], "image_std": [0.25]}
    image = Image.fromarray(noise(31, 40))

    pixels = TransformersConverter(ProcessorConfig.model_validate(config), num_channels=1)(image)

    expected = ViTImageProcessorPil(**config)(image, return_tensors="pt").pixel_values[0]
    np.testing.assert_array_equal(pixels, expected.permute(1, 2, 0))


@pytest.mark.parametrize("name", ["defaults", "per channel", "nearest", "not rescaled"])
def test_keras_hubs_nearest_form_is_within_one_grey_level(name: str) -> None:
    converter = TransformersConverter(ProcessorConfig.model_validate(CONFIGS[name]))
    nearest = ImageConverter(converter.as_keras())

    for image in CORPUS.values():
        difference = np.abs(converter(image).numpy() - nearest(image).numpy())
        assert (difference / np.array(nearest.config.scale)).max() <= 1.001


def test_a_filter_that_keras_hub_has_not_is_refused() -> None:
    converter = TransformersConverter(ProcessorConfig.model_validate(CONFIGS["hamming"]))

    with pytest.raises(ValueError, match="no resampling HAMMING, only NEAREST, BILINEAR, BICUBIC"):
        converter.as_keras()


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"size": {"shortest_edge": 224}}, r"size\.height"),
        ({"size": [1, 2, 3]}, "size"),
        ({"size": 0}, "greater than or equal to 1"),
        ({"size": 10**9}, "less than or equal to 8192"),
        ({"image_std": 0.0}, "image_std"),
        ({"image_mean": float("nan")}, "image_mean"),
        ({"do_center_crop": True}, "do_center_crop"),
        ({"resample": 9}, "resample"),
        ({"image_processor_type": "CLIPImageProcessor"}, "ViTImageProcessor"),
        ([], "dictionary"),
    ],
)
def test_what_would_be_prepared_otherwise_is_refused(config: object, message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        ProcessorConfig.model_validate(config)


def test_null_means_the_default() -> None:
    config = {"do_resize": None, "size": {"height": 8, "width": 9, "shortest_edge": None}}

    assert ProcessorConfig.model_validate(config).do_resize
