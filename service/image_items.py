"""The images of a result, as an answer has them: inside it, or by their URLs."""

import base64

from anyio import to_thread
from fastapi import Request

from service.dependencies import Parts
from service.errors import failure_error
from service.schemas.images import ImageItem
from worker.contract.jobs import Failure, FailureCode, Image, ImageResult
from worker.contract.record import Record

# Base64 makes four letters of three bytes; encoding so many holds the GIL for a millisecond or two.
_PIECE_BYTES = 3 * 2**18


def inline_items(result: ImageResult) -> list[ImageItem]:
    """Items whose `b64_json` is to be filled in (see `json_response`)."""
    return [
        ImageItem(b64_json="", seed=image.seed, width=image.width, height=image.height)
        for image in result.images
    ]


async def read_image(image: Image, record: Record, parts: Parts) -> bytes:
    """Read one image, in a thread."""
    return await to_thread.run_sync(_read, image, record, parts)


async def encoded_image(image: Image, record: Record, parts: Parts) -> bytes:
    """Read one image and put it in base64, in a thread."""
    return await to_thread.run_sync(lambda: _encoded(_read(image, record, parts)))


def _read(image: Image, record: Record, parts: Parts) -> bytes:
    try:
        return parts.image_files.read(image.file_name).content
    except FileNotFoundError as error:
        failure = Failure(code=FailureCode.STORAGE, message=f"file {error.filename} is gone")
        raise failure_error(record.id, failure) from error


def _encoded(content: bytes) -> bytes:
    starts = range(0, len(content), _PIECE_BYTES)
    return b"".join(base64.b64encode(content[start : start + _PIECE_BYTES]) for start in starts)


async def url_items(
    record: Record, result: ImageResult, parts: Parts, request: Request
) -> list[ImageItem]:
    """Their URLs, which are good for as long as the record is kept."""
    expires_at = record.expires_at(parts.settings.result_ttl_s)
    assert expires_at is not None, "this is a bug: a record with a result is final"
    prefix = (parts.settings.public_base_url or str(request.base_url)).rstrip("/")
    names = [image.file_name for image in result.images]
    queries = [await parts.signed_urls.query(name, int(expires_at)) for name in names]
    return [
        ImageItem(
            url=f"{prefix}/v1/images/{image.file_name}?{query}",
            expires_at=int(expires_at),
            seed=image.seed,
            width=image.width,
            height=image.height,
        )
        for image, query in zip(result.images, queries, strict=True)
    ]
