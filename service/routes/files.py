"""`GET /v1/images/{name}.png`: a finished image. Its name holds 128 random bits."""

from anyio import to_thread
from fastapi import APIRouter, Response

from service.dependencies import CurrentParts
from service.errors import NotFoundError, shown
from service.json_response import ERRORS

router = APIRouter(tags=["images"])


@router.get(
    "/v1/images/{name}.png",
    response_class=Response,
    responses={200: {"content": {"image/png": {}}, "description": "the image"}, **ERRORS},
)
async def get_image(name: str, parts: CurrentParts) -> Response:
    """Fetch an image by the URL that a result gave."""
    file_name = f"{name}.png"
    try:
        png = await to_thread.run_sync(parts.image_files.read, file_name)
    except (ValueError, FileNotFoundError) as error:
        raise NotFoundError("file_not_found", f"image {shown(file_name)} does not exist") from error
    headers = {
        "cache-control": "private, max-age=86400, immutable",  # a name is written once
        "content-disposition": f'inline; filename="{file_name}"',
    }
    return Response(png, media_type="image/png", headers=headers)
