"""The images of a result, as an answer has them: inside it, or by their URLs."""

import base64

from anyio import to_thread
from fastapi import Request

from service.dependencies import Parts
from service.errors import failure_error
from service.schemas.images import ImageItem
from worker.contract.jobs import Failure, FailureCode, ImageResult
from worker.contract.record import Record


async def inline_items(record: Record, result: ImageResult, parts: Parts) -> list[ImageItem]:
    """The images themselves, read in a thread."""
    names = [image.file_name for image in result.images]
    try:
        files = await to_thread.run_sync(lambda: [parts.image_files.read(name) for name in names])
    except FileNotFoundError as error:
        failure = Failure(code=FailureCode.STORAGE, message=f"file {error.filename} is gone")
        raise failure_error(record.id, failure) from error
    return [
        ImageItem(
            b64_json=base64.b64encode(png).decode("ascii"),
            seed=image.seed,
            width=image.width,
            height=image.height,
        )
        for image, png in zip(result.images, files, strict=True)
    ]


def url_items(result: ImageResult, parts: Parts, request: Request) -> list[ImageItem]:
    prefix = (parts.settings.public_base_url or str(request.base_url)).rstrip("/")
    return [
        ImageItem(
            url=f"{prefix}/v1/images/{image.file_name}",
            seed=image.seed,
            width=image.width,
            height=image.height,
        )
        for image in result.images
    ]
