"""ImageConverter against what KerasHub itself made of the same images."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models.vit import image_converter
from models.vit.image_classifier import ImageClassifier
from models.vit.image_converter import ImageConverter, ImageConverterConfig
from tests.models.keras.recorded import CASES

RECORDED = Path(__file__).parent / "recorded"
CONFIGS = json.loads((RECORDED / "image_converter.json").read_text())
# The same torch kernels give the same bits; the older form is folded into scale and offset.
GREY_LEVELS = 1e-4


@pytest.mark.parametrize("band_pixels", [image_converter.BAND_PIXELS, 1])
@pytest.mark.parametrize("name", CONFIGS)
def test_images_of_every_shape_are_prepared_as_keras_hub_does(
    name: str, band_pixels: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(image_converter, "BAND_PIXELS", band_pixels)
    recorded = np.load(RECORDED / "image_converter.npz")
    converter = ImageConverter(ImageConverterConfig.model_validate(CONFIGS[name]))
    scale = np.array(1.0 if converter.config.scale is None else converter.config.scale)
    sizes = [each.rpartition("/")[2] for each in recorded if each.startswith(f"output/{name}/")]

    for size in sizes:
        pixels = converter(Image.fromarray(recorded[f"picture/{size}"])).numpy()
        expected = recorded[f"output/{name}/{size}"]
        assert pixels.shape == expected.shape
        assert np.abs((pixels - expected) / scale).max() <= GREY_LEVELS, size
    assert sizes


@pytest.mark.parametrize("kind", ["wide", "tall"])
def test_a_recorded_preset_prepares_images_as_keras_hub_does(kind: str) -> None:
    recorded = np.load(CASES / "vit_classifier/preprocessing.npz")
    classifier = ImageClassifier.from_preset(CASES / "vit_classifier/preset")

    for image, expected in zip(
        recorded[f"{kind}_uint8"], recorded[f"{kind}_uint8_preprocessed"], strict=True
    ):
        pixels = classifier.preprocess(Image.fromarray(image)).numpy()
        np.testing.assert_allclose(pixels, expected, rtol=0, atol=1e-6)
