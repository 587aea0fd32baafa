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

_SCRIPT_HEADERS = {"cache-control": "public, max-age=31536000, immutable"}  # a year
_REFUSES_GZIP = re.compile(r"gzip\s*;\s*q=0(?:\.0*)?\s*(?:,|$)", re.I)


def router_of(grafana_url: str | None) -> APIRouter:
    """The routes; reads the files once."""
    playground = read_playground(version("triptych"), grafana_url)
    page_headers = _page_headers(playground.style_hash)
    router = APIRouter(include_in_schema=False)

    @router.get("/", response_model=None)
    async def get_page(request: Request) -> Response:
        return _response(playground.page, request.headers, page_headers)

    @router.get("/playground/{digest}/{name}", response_model=None)
    async def get_script(digest: str, name: str, request: Request) -> Response:
        """Answer with a script; under a digest of old there is none, or it would be kept."""
        script = playground.scripts.get(name) if digest == playground.digest else None
        if script is None:
            raise NotFoundError("file_not_found", f"{shown(name)} is no file of the playground")
        return _response(script, request.headers, _SCRIPT_HEADERS)

    return router


def _page_headers(style_hash: str) -> dict[str, str]:
    """Allow nothing but what this service itself sends, and pictures that the page made.

    No inline script, no styles but the page's own, no other origin, no frame around it.
    """
    policy = (
        "default-src 'none'",
        "script-src 'self'",
        f"style-src '{style_hash}'",
        "img-src 'self' blob: data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
    return {
        "cache-control": "no-cache",
        "content-security-policy": "; ".join(policy),
        "referrer-policy": "no-referrer",
        "permissions-policy": "camera=(), geolocation=(), microphone=()",
    }


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
