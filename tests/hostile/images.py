"""Images that are none, that are others, or that grow when they are decoded."""

import base64
import io
import struct
import zlib
from collections.abc import Callable, Mapping

from PIL import Image

from tests.hostile.cases import Case, post_json

_CLASSIFY = "/v1/classify"
_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def encoded(
    mode: str, image_format: str, size: tuple[int, int] = (8, 8), **options: object
) -> bytes:
    content = io.BytesIO()
    Image.new(mode, size).save(content, image_format, **options)
    return content.getvalue()


def chunk(kind: bytes, content: bytes, crc: int | None = None) -> bytes:
    check = zlib.crc32(kind + content) if crc is None else crc
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", check)


def header(width: int, height: int, depth: int = 8, color: int = 2, interlaced: int = 0) -> bytes:
    return chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, color, 0, 0, interlaced))


def png(*chunks: bytes) -> bytes:
    return _SIGNATURE + b"".join(chunks) + chunk(b"IEND", b"")


def zeros(num_bytes: int) -> bytes:
    return chunk(b"IDAT", zlib.compress(bytes(num_bytes), 9))


PNG, JPEG, WEBP = (encoded("RGB", name) for name in ("PNG", "JPEG", "WEBP"))
_PIXELS = zeros(8 * 25)  # of 8x8 in RGB: a filter byte and 24 bytes a row


def _frames(image_format: str) -> bytes:
    frames = [Image.new("RGB", (8, 8), (level, 0, 0)) for level in (0, 200)]
    content = io.BytesIO()
    frames[0].save(content, image_format, save_all=True, append_images=frames[1:])
    return content.getvalue()


def _rotated() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # orientation: a quarter turn
    return encoded("RGB", "JPEG", (8, 16), exif=exif)


def _webp(width: int, height: int) -> bytes:
    """The head of an extended WebP: a canvas of this size, and a frame that is not there."""
    canvas = b"\0\0\0\0" + (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    body = b"WEBPVP8X" + struct.pack("<I", len(canvas)) + canvas
    return b"RIFF" + struct.pack("<I", len(body)) + body


def _jpeg_of(width: int, height: int) -> bytes:
    start = JPEG.index(b"\xff\xc0") + 5
    return JPEG[:start] + struct.pack(">HH", height, width) + JPEG[start + 4 :]


# Odd, and images all the same.
LEGAL: Mapping[str, bytes] = {
    "png_1x1": encoded("RGB", "PNG", (1, 1)),
    "png_1x2000": encoded("RGB", "PNG", (1, 2000)),
    "png_2000x1": encoded("RGB", "PNG", (2000, 1)),
    "png_bilevel": encoded("1", "PNG"),
    "png_gray": encoded("L", "PNG"),
    "png_gray_alpha": encoded("LA", "PNG"),
    "png_gray_16_bit": encoded("I;16", "PNG"),
    "png_rgb_16_bit": png(header(2, 2, depth=16), zeros(2 * 13)),
    "png_palette": encoded("P", "PNG"),
    "png_palette_alpha": encoded("P", "PNG", transparency=0),
    "png_rgb_transparent_color": encoded("RGB", "PNG", transparency=(0, 0, 0)),
    "png_rgba": encoded("RGBA", "PNG"),
    "png_interlaced": png(header(1, 1, interlaced=1), zeros(4)),
    "png_then_html": PNG + b"<html><script>alert(1)</script></html>",
    "png_then_zip": PNG + b"PK\x03\x04" + bytes(26),
    "png_with_a_private_chunk": png(header(8, 8), chunk(b"prVt", b"<?php ?>"), _PIXELS),
    "png_pixels_in_many_chunks": png(
        header(8, 8), *(chunk(b"IDAT", bytes([byte])) for byte in zlib.compress(bytes(200)))
    ),
    "png_empty_pixel_chunks": png(header(8, 8), *[chunk(b"IDAT", b"")] * 100, _PIXELS),
    "jpeg_1x1": encoded("RGB", "JPEG", (1, 1)),
    "jpeg_gray": encoded("L", "JPEG"),
    "jpeg_cmyk": encoded("CMYK", "JPEG"),
    "jpeg_progressive": encoded("RGB", "JPEG", progressive=True),
    "jpeg_rotated": _rotated(),
    "jpeg_comment": encoded("RGB", "JPEG", comment=b"<script>" * 100),
    "jpeg_then_zip": JPEG + b"PK\x03\x04" + bytes(26),
    "jpeg_then_html": JPEG + b"<html><script>alert(1)</script></html>",
    "webp_1x1": encoded("RGB", "WEBP", (1, 1)),
    "webp_lossless": encoded("RGB", "WEBP", lossless=True),
    "webp_alpha": encoded("RGBA", "WEBP"),
}

# Of an animation the first frame counts; a decoder takes what pixels it needs, and asks no more.
FORGIVEN: Mapping[str, bytes] = {
    "png_animated": _frames("PNG"),
    "webp_animated": _frames("WEBP"),
    "png_pixel_checksum": png(header(8, 8), chunk(b"IDAT", zlib.compress(bytes(200)), 1)),
    "png_pixels_of_64_mib": png(header(8, 8), zeros(2**26)),
    "png_without_its_end": PNG[: PNG.index(b"IEND") - 4],
}

# They begin as images that are allowed: only a decoder knows better.
BROKEN: Mapping[str, bytes] = {
    "png_signature_alone": _SIGNATURE,
    "png_without_pixels": png(header(8, 8)),
    "png_without_header": png(_PIXELS),
    "png_zero_wide": png(header(0, 8), _PIXELS),
    "png_zero_high": png(header(8, 0), _PIXELS),
    "png_no_such_depth": png(header(8, 8, depth=3), _PIXELS),
    "png_no_such_color": png(header(8, 8, color=5), _PIXELS),
    "png_header_checksum": _SIGNATURE + chunk(b"IHDR", bytes(13), 1) + _PIXELS,
    "png_pixels_are_no_zlib": png(header(8, 8), chunk(b"IDAT", b"\xff" * 64)),
    "png_chunk_of_4_gib": _SIGNATURE + struct.pack(">I", 0xFFFFFFFF) + b"IHDR" + bytes(20),
    "png_is_html": _SIGNATURE + b"<html><script>alert(1)</script></html>",
    **{f"png_cut_at_{n}": PNG[:n] for n in (9, 16, 24, 33, 40, 45)},
    **{f"jpeg_cut_at_{n}": JPEG[:n] for n in (3, 4, 20, 100, 300, 600)},
    **{f"webp_cut_at_{n}": WEBP[:n] for n in (12, 16, 20, 24, 30)},
    "jpeg_starts_and_ends": b"\xff\xd8\xff\xd9",
    "jpeg_without_a_scan": JPEG[: JPEG.index(b"\xff\xda")] + b"\xff\xd9",
    "jpeg_zero_wide": _jpeg_of(0, 8),
    "jpeg_is_php": b"\xff\xd8\xff<?php system($_GET[0]); ?>",
    "jpeg_endless_fill": b"\xff\xd8" + b"\xff" * 10_000,
    "webp_is_text": b"RIFF\x10\0\0\0WEBPtext" + b"hello" * 20,
    "webp_chunk_of_4_gib": b"RIFF\xff\xff\xff\xffWEBPVP8 \xff\xff\xff\xff" + bytes(30),
}

# A few bytes that declare, or unpack to, very many.
BOMBS: Mapping[str, bytes] = {
    "png_41_megapixels": png(header(8200, 5000, color=0), zeros(5000 * 8201)),
    "png_400_megapixels": png(header(20_000, 20_000, color=0), zeros(1_000_000)),
    "png_65535_square": png(header(65_535, 65_535), zeros(100)),
    "png_2_31_square": png(header(2**31 - 1, 2**31 - 1), zeros(100)),
    "png_2_32_wide": png(header(2**32 - 1, 1), zeros(100)),
    "png_one_row_of_2_31": png(header(2**31 - 1, 1, color=0), zeros(100)),
    "png_one_column_of_2_31": png(header(1, 2**31 - 1, color=0), zeros(100)),
    "jpeg_65500_square": _jpeg_of(65_500, 65_500),
    "jpeg_1x65535_of_65535": _jpeg_of(65_535, 65_535),
    "webp_16383_square": _webp(16_383, 16_383),
    "webp_16_million_wide": _webp(2**24, 255),
}

# Chunks beside the pixels that unpack to 64 MiB.
_64_MIB = zlib.compress(bytes(2**26), 9)
CHUNK_BOMBS: Mapping[str, bytes] = {
    "png_text_of_64_mib": png(header(8, 8), chunk(b"zTXt", b"a\0\0" + _64_MIB), _PIXELS),
    "png_unicode_text_of_64_mib": png(
        header(8, 8), chunk(b"iTXt", b"a\0\1\0\0\0" + _64_MIB), _PIXELS
    ),
    "png_profile_of_64_mib": png(header(8, 8), chunk(b"iCCP", b"a\0\0" + _64_MIB), _PIXELS),
}

# The first bytes of what no worker decodes.
OTHERS: Mapping[str, bytes] = {
    "nothing": b"",
    "one_byte": b"\x89",
    "png_7_of_8_bytes": _SIGNATURE[:7],
    "png_in_text_mode": _SIGNATURE.replace(b"\r\n", b"\n") + PNG[8:],
    "mng": b"\x8aMNG\r\n\x1a\n" + bytes(20),
    "jng": b"\x8bJNG\r\n\x1a\n" + bytes(20),
    "jpeg_2_of_3_bytes": b"\xff\xd8",
    "jpeg_2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(20),
    "jpeg_xl": b"\xff\x0a" + bytes(20),
    "heic": b"\0\0\0\x18ftypheic" + bytes(20),
    "avif": b"\0\0\0\x18ftypavif" + bytes(20),
    "gif_87": b"GIF87a" + bytes(20),
    "gif_89": encoded("P", "GIF"),
    "gif_animated": _frames("GIF"),
    "bmp": encoded("RGB", "BMP"),
    "tiff_little_endian": encoded("RGB", "TIFF"),
    "tiff_big_endian": b"MM\0*" + bytes(20),
    "ico": encoded("RGBA", "ICO", (16, 16)),
    "cursor": b"\0\0\2\0\1\0" + bytes(20),
    "icns": b"icns" + bytes(20),
    "psd": b"8BPS\0\1" + bytes(20),
    "xcf": b"gimp xcf file" + bytes(20),
    "pcx": b"\n\5\1\x08" + bytes(20),
    "ppm": b"P6 1 1 255\n\0\0\0",
    "tga": bytes(18) + b"TRUEVISION-XFILE.\0",
    "dds": b"DDS |\0\0\0" + bytes(20),
    "exr": b"v/1\x01" + bytes(20),
    "hdr": b"#?RADIANCE\n" + bytes(20),
    "fits": b"SIMPLE  =                    T",
    "wmf": b"\xd7\xcd\xc6\x9a" + bytes(20),
    "emf": b"\1\0\0\0" + bytes(40) + b" EMF",
    "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n(x) run",
    "pdf": b"%PDF-1.7\n1 0 obj <</JS (app.alert(1))>>",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><script>alert(1)</script></svg>',
    "svg_entities": b'<!DOCTYPE s [<!ENTITY x SYSTEM "file:///etc/passwd">]><svg>&x;</svg>',
    "mvg": b"push graphic-context\nfill 'url(https://127.0.0.1/x.jpg\"|id\")'",
    "html": b"<html><script>alert(1)</script></html>",
    "xml": b'<?xml version="1.0"?><a/>',
    "php": b"<?php system($_GET[0]); ?>",
    "json": b'{"image": 1}',
    "pickle": b"\x80\x04cos\nsystem\n(S'id'\ntR.",
    "zip": b"PK\x03\x04" + bytes(26),
    "gzip_of_png": b"\x1f\x8b\x08" + zlib.compress(PNG),
    "rar": b"Rar!\x1a\x07" + bytes(20),
    "tar": bytes(257) + b"ustar\0",
    "elf": b"\x7fELF\2\1\1" + bytes(20),
    "windows_program": b"MZ\x90\0" + bytes(20),
    "wasm": b"\0asm\1\0\0\0",
    "sqlite": b"SQLite format 3\0" + bytes(20),
    "wave": b"RIFF\x24\0\0\0WAVEfmt " + bytes(20),
    "avi": b"RIFF\x24\0\0\0AVI LIST" + bytes(20),
    "webp_big_endian": b"RIFX" + WEBP[4:],
    "mp4": b"\0\0\0\x18ftypisom" + bytes(20),
    "png_after_a_space": b" " + PNG,
    "png_after_a_byte_order_mark": b"\xef\xbb\xbf" + PNG,
    "jpeg_backwards": JPEG[::-1],
    "base64_twice": base64.b64encode(PNG),
    "data_uri_within": b"data:image/png;base64," + base64.b64encode(PNG),
    "zeros": bytes(64),
    "ones": b"\xff" * 64,
}


def _classify(name: str, content: bytes, status: int, code: str | None) -> Case:
    text = base64.b64encode(content).decode("ascii")
    return post_json(name, _CLASSIFY, {"input": text}, status, code)


def _all(images: Mapping[str, bytes], status: int, code: str | None) -> list[Case]:
    return [_classify(name, content, status, code) for name, content in images.items()]


def _upload(name: str, content: bytes, status: int, code: str | None) -> Case:
    start = b'--b\r\ncontent-disposition: form-data; name="file"; filename="../../x.php"\r\n\r\n'
    form = (("content-type", b"multipart/form-data; boundary=b"),)
    return Case(name, "POST", _CLASSIFY, status, code, form, start + content + b"\r\n--b--\r\n")


def _raw(name: str, content: bytes, status: int, code: str | None) -> Case:
    return Case(name, "POST", _CLASSIFY, status, code, (("content-type", b"image/png"),), content)


Way = Callable[[str, bytes, int, str | None], Case]
_WAYS: Mapping[str, Way] = {"in_a_form": _upload, "as_the_body": _raw}
_SAMPLES = {
    "gif": (OTHERS["gif_89"], 400, "invalid_image"),
    "nothing": (b"", 400, "invalid_image"),
    "cut": (BROKEN["png_cut_at_45"], 400, "invalid_image"),
    "bomb": (BOMBS["png_65535_square"], 400, "invalid_image"),
    "html_after_a_png": (LEGAL["png_then_html"], 200, None),
    "declared_as_another": (JPEG, 200, None),
}

CASES = [
    *_all(LEGAL, 200, None),
    *_all(FORGIVEN, 200, None),
    *_all(BROKEN, 400, "invalid_image"),
    *_all(BOMBS, 400, "invalid_image"),
    *_all(CHUNK_BOMBS, 400, "invalid_image"),
    *_all(OTHERS, 400, "invalid_image"),
    *(
        way(f"{name}_{how}", *sample)
        for how, way in _WAYS.items()
        for name, sample in _SAMPLES.items()
    ),
    post_json("half_of_it_blanks", _CLASSIFY, {"input": "AB " * 5_000_000}, 400, "invalid_image"),
]
