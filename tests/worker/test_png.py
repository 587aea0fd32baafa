"""PNG files: lossless, about as small as Pillow's, with their text chunks."""

import io

import numpy as np
import pytest
from PIL import Image, ImageDraw

from worker import png

RNG = np.random.default_rng(0)


def flat_shapes(side: int) -> np.ndarray:
    image = Image.new("RGB", (side, side), (245, 245, 245))
    draw = ImageDraw.Draw(image)
    draw.ellipse((side // 5, side // 5, side // 2, side // 2), fill=(220, 40, 40))
    draw.rectangle((side // 2, side // 2, side - 9, side - 40), fill=(40, 80, 220))
    return np.array(image)


def gradient(side: int) -> np.ndarray:
    rows, columns = np.mgrid[:side, :side] * (255 / side)
    return np.stack([rows, columns, (rows + columns) / 2], axis=-1).astype(np.uint8)


def smooth_noise(side: int) -> np.ndarray:
    """Noise at every scale, the coarse ones strongest, as in photographs."""
    total = np.zeros((side, side, 3))
    for size in (4, 8, 16, 32, 64, 128):
        coarse = RNG.integers(0, 256, (size, size, 3), dtype=np.uint8)
        resized = Image.fromarray(coarse).resize((side, side), Image.Resampling.BICUBIC)
        total += np.asarray(resized) / size
    return np.asarray(total / total.max() * 255, np.uint8)


def noise(side: int) -> np.ndarray:
    return RNG.integers(0, 256, (side, side, 3), dtype=np.uint8)


def text(side: int) -> np.ndarray:
    image = Image.new("RGB", (side, side), "white")
    draw = ImageDraw.Draw(image)
    words = ["".join(map(chr, RNG.integers(97, 123, 6))) for _ in range(999)]
    for line in range(side // 14):
        draw.text((4, 14 * line), " ".join(RNG.choice(words, 12)), fill="black")
    return np.asarray(image)


PICTURES = {make.__name__: make(384) for make in (flat_shapes, gradient, smooth_noise, noise, text)}


def by_pillow(pixels: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


@pytest.mark.parametrize("name", PICTURES)
def test_a_png_has_the_pixels_that_went_in(name: str) -> None:
    opened = Image.open(io.BytesIO(png.encode(PICTURES[name], {})))
    assert opened.mode == "RGB"
    assert np.array_equal(np.asarray(opened), PICTURES[name])


@pytest.mark.parametrize("name", PICTURES)
def test_a_png_is_hardly_larger_than_pillows(name: str) -> None:
    pixels = PICTURES[name]
    assert len(png.encode(pixels, {})) <= 1.15 * len(by_pillow(pixels))


@pytest.mark.parametrize("shape", [(1, 1), (1, 300), (65, 2), (129, 64)])
def test_any_size_is_encoded(shape: tuple[int, int]) -> None:
    pixels = RNG.integers(0, 256, (*shape, 3), dtype=np.uint8)
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png.encode(pixels, {})))), pixels)


def test_pixels_that_lie_apart_in_memory_are_encoded() -> None:
    pixels = noise(32)[::-2, 3:20]
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(png.encode(pixels, {})))), pixels)


def test_a_png_carries_its_texts() -> None:
    opened = Image.open(io.BytesIO(png.encode(noise(8), {"parameters": '{"seed": 7}', "b": "é"})))
    opened.verify()
    assert opened.info == {"parameters": '{"seed": 7}', "b": "é"}
