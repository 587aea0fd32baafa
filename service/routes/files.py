"""`GET /v1/images/{name}`: a finished image, for whoever has the URL that a result gave."""

from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Query, Request, Response

from service.api_description import conditions, header_refs
from service.dependencies import CurrentParts
from service.errors import NotFoundError, shown
from service.file_responses import File, file_response
from service.route_errors import FILE, STORE, errors
from worker.contract.image_files import ImageFiles, format_of

_IMAGE: dict[str, object] = {
    "content": {
        f"image/{output_format}": {"schema": {"type": "string", "format": "binary"}}
        for output_format in ("png", "jpeg", "webp")
    }
}
_HEADERS = ("etag", "last-modified", "cache-control")
_ANSWERS: dict[int | str, dict[str, object]] = {
    200: {"description": "the image", "headers": header_refs(*_HEADERS), **_IMAGE},
    206: {
        "description": "the part of it that `Range` names",
        "headers": header_refs(*_HEADERS, "content-range"),
        **_IMAGE,
    },
    304: {
        "description": "the client has it: `If-None-Match` or `If-Modified-Since`",
        "headers": header_refs(*_HEADERS),
    },
    **errors(FILE, STORE),
}
_CONDITIONS = conditions(
    If_None_Match="the tags of what the client has: 304 where one is that of the image",
    If_Modified_Since="where there is no tag: 304 for what has not changed since",
    Range="one range of bytes, such as `bytes=0-1023`; others are ignored",
    If_Range="a tag or a date: the range counts only for the image that it is of",
)

router = APIRouter(tags=["images"])


@router.get(
    "/v1/images/{name}.{end}",
    response_class=Response,
    responses=_ANSWERS,
    openapi_extra={"parameters": _CONDITIONS},
)
async def get_image(
    name: str,
    end: str,
    request: Request,
    parts: CurrentParts,
    exp: Annotated[str | None, Query(description="until when, in Unix seconds")] = None,
    sig: Annotated[str | None, Query(description="signature of the name and `exp`")] = None,
) -> Response:
    """Fetch an image by the URL that a result gave, all of it or a range."""
    file_name, now = f"{name}.{end}", parts.now()
    expires_at = await parts.signed_urls.check(file_name, exp, sig, now)
    file = await to_thread.run_sync(_read, parts.image_files, file_name)
    return file_response(file, request, max_age_s=int(expires_at - now))


def _read(files: ImageFiles, file_name: str) -> File:
    try:
        stored = files.read(file_name)
    except FileNotFoundError as error:
        raise NotFoundError("file_not_found", f"image {shown(file_name)} does not exist") from error
    media_type = f"image/{format_of(file_name)}"
    return File.of(file_name, media_type, stored.content, stored.modified_at)
