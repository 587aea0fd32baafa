"""Images from strangers."""

import base64
import io
import struct
import zlib

import pytest
from PIL import Image

from models.errors import ImageDecodeError
from models.layers.images import to_rgb
from tests.worker.jobs import image
from worker.image_decoding import decode_image, from_base64


def encoded(image: Image.Image, file_format: str = "PNG", exif: Image.Exif | None = None) -> str:
    buffer = io.BytesIO()
    image.save(buffer, file_format, exif=exif or Image.Exif())
    return base64.b64encode(buffer.getvalue()).decode()


def decode(text: str) -> Image.Image:
    return decode_image(from_base64(text))


def png_of_declared_size(width: int, height: int) -> str:
    """A valid PNG head that promises more pixels than its few bytes hold."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        checksum = struct.pack(">I", zlib.crc32(kind + content))
        return struct.pack(">I", len(content)) + kind + content + checksum

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    content = chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 64)) + chunk(b"IEND", b"")
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + content).decode()


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_allowed_formats_are_decoded(file_format: str) -> None:
    assert decode(image(file_format=file_format)).size == (8, 8)


@pytest.mark.parametrize("file_format", ["GIF", "BMP", "TIFF", "PPM"])
def test_other_formats_are_refused(file_format: str) -> None:
    with pytest.raises(ImageDecodeError, match="PNG, JPEG, WEBP"):
        decode(image(file_format=file_format))


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGBA", "I;16"])
def test_unusual_pixels_are_decoded(mode: str) -> None:
    assert decode(encoded(Image.new(mode, (3, 2)))).size == (3, 2)


def test_a_cmyk_jpeg_is_decoded() -> None:
    assert decode(encoded(Image.new("CMYK", (3, 2)), "JPEG")).mode == "CMYK"


def test_a_image_stands_upright_as_its_exif_says() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: turn by 90 degrees
    upright = decode(encoded(Image.new("RGB", (4, 2)), "JPEG", exif))
    assert upright.size == (2, 4)
    assert to_rgb(upright).size == (2, 4)  # it is not turned again


@pytest.mark.parametrize("file_format", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(file_format: str) -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((250, 0, 0), (0, 0, 250))]
    buffer = io.BytesIO()
    frames[0].save(buffer, file_format, save_all=True, append_images=frames[1:], lossless=True)
    assert decode_image(buffer.getvalue()).convert("RGB").getpixel((3, 3)) == (250, 0, 0)


@pytest.mark.parametrize(("width", "height"), [(40_001, 1_000), (20_000, 20_000), (2**30, 2**30)])
def test_a_bomb_is_refused_before_it_is_decoded(width: int, height: int) -> None:
    with pytest.raises(ImageDecodeError, match=r"pixels|cannot be decoded"):
        decode(png_of_declared_size(width, height))


def test_a_size_that_even_pillow_refuses_is_told(recwarn: pytest.WarningsRecorder) -> None:
    with pytest.raises(ImageDecodeError, match="more than 40000000 pixels"):
        decode(png_of_declared_size(20_000, 20_000))
    assert not recwarn.list


def test_a_size_over_the_limit_is_named() -> None:
    with pytest.raises(ImageDecodeError, match="8000x8000 pixels; at most 40000000"):
        decode(png_of_declared_size(8000, 8000))


@pytest.mark.parametrize("text", ["", "!", "AAA", "bm90IGFuIGltYWdl", "w\N{LATIN SMALL LETTER E}g"])
def test_what_is_no_image_is_refused(text: str) -> None:
    with pytest.raises(ImageDecodeError):
        decode(text)


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP"])
def test_a_truncated_image_is_refused(file_format: str) -> None:
    noise = Image.effect_noise((64, 64), 50).convert("RGB")
    content = base64.b64decode(encoded(noise, file_format))
    for length in range(0, len(content) - 16, max(1, len(content) // 40)):
        with pytest.raises(ImageDecodeError):
            decode(base64.b64encode(content[:length]).decode())
