"""`GET /`: the playground, a page that uses the public API and nothing else.

It is no part of the API, and its description says nothing of it.
"""

import re
from importlib.metadata import version

from fastapi import APIRouter, Request, Response
from starlette.datastructures import Headers

from service.errors import NotFoundError, shown
from service.file_responses import has_client_got
from service.playground_files import StaticFile, read_playground

# Nothing but what this service itself sends, and pictures that the page made: no inline script, no
# other origin, no frame around it.
_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_PAGE_HEADERS = {
    "cache-control": "no-cache",
    "content-security-policy": _POLICY,
    "referrer-policy": "no-referrer",
    "permissions-policy": "camera=(), geolocation=(), microphone=()",
}
_ASSET_HEADERS = {"cache-control": "public, max-age=31536000, immutable"}  # a year
_REFUSES_GZIP = re.compile(r"gzip\s*;\s*q=0(?:\.0*)?\s*(?:,|$)", re.I)


def router_of(grafana_url: str | None) -> APIRouter:
    """The routes; reads the files once."""
    playground = read_playground(version("triptych"), grafana_url)
    router = APIRouter(include_in_schema=False)

    @router.get("/", response_model=None)
    async def get_page(request: Request) -> Response:
        return _response(playground.page, request.headers, _PAGE_HEADERS)

    @router.get("/playground/{digest}/{name}", response_model=None)
    async def get_asset(digest: str, name: str, request: Request) -> Response:
        """Answer with a file; under another digest there is none, or it would be kept for good."""
        asset = playground.assets.get(name) if digest == playground.digest else None
        if asset is None:
            raise NotFoundError("file_not_found", f"{shown(name)} is no file of the playground")
        return _response(asset, request.headers, _ASSET_HEADERS)

    return router


def _response(file: StaticFile, asked: Headers, headers: dict[str, str]) -> Response:
    headers = {**headers, "etag": file.etag, "vary": "accept-encoding"}
    if has_client_got(file.etag, asked):
        return Response(status_code=304, headers=headers)
    if not _takes_gzip(asked):
        return Response(file.content, headers=headers, media_type=file.media_type)
    headers["content-encoding"] = "gzip"
    return Response(file.gzipped, headers=headers, media_type=file.media_type)


def _takes_gzip(asked: Headers) -> bool:
    codings = ",".join(asked.getlist("accept-encoding"))
    return "gzip" in codings.lower() and not _REFUSES_GZIP.search(codings)
