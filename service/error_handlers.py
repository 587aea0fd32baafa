"""Every exception that reaches the app leaves it as OpenAI's envelope.

Validation answers 400 as OpenAI does, not FastAPI's 422. The table `_CODES` says which pydantic
error types have a code of their own; all others are `invalid_value`.
"""

import json
from collections.abc import Mapping, Sequence
from itertools import pairwise

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.routing import iter_route_contexts
from pydantic import ValidationError
from redis.exceptions import RedisError
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse

from service.errors import (
    ErrorEnvelope,
    RequestError,
    ServiceError,
    disk_full,
    shown,
    shown_name,
)
from service.metrics import REJECTIONS, JobMetrics
from service.redis_health import unavailable
from worker.contract.image_files import is_disk_full
from worker.contract.redis_refusals import refusal_of

_CODES = {
    "extra_forbidden": "unknown_parameter",
    "missing": "missing_required_parameter",
    "unsupported_value": "unsupported_value",
    "unsupported_parameter": "unsupported_parameter",
}

_OBJECTS = ("metadata", "parameters", "stream_options")  # fields whose keys are fields too

_HTTP_CODES = {
    404: "not_found",
    405: "method_not_allowed",
    413: "payload_too_large",
    415: "unsupported_media_type",
}


def install(app: FastAPI, metrics: JobMetrics) -> None:
    """Answer every kind of exception; what is left over is answered by `RequestMiddleware`."""

    def answer(request: Request, error: ServiceError) -> JSONResponse:
        _count(request, error, metrics)
        return response_to(error)

    async def on_service_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ServiceError), "this is a bug"
        return answer(request, error)

    async def on_validation_error(_: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError), "this is a bug"
        return response_to(validation_error(error.errors()))

    async def on_http_exception(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException), "this is a bug"
        return answer(request, _http_error(request, error))

    async def on_redis_error(request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RedisError), "this is a bug"
        if (refusal := refusal_of(error)) is None:
            raise error
        return answer(request, unavailable(refusal))

    async def on_os_error(request: Request, error: Exception) -> JSONResponse:
        if isinstance(error, OSError) and is_disk_full(error):
            return answer(request, disk_full())
        raise error

    app.add_exception_handler(ServiceError, on_service_error)
    app.add_exception_handler(RequestValidationError, on_validation_error)
    app.add_exception_handler(HTTPException, on_http_exception)
    app.add_exception_handler(RedisError, on_redis_error)
    app.add_exception_handler(OSError, on_os_error)


def _count(request: Request, error: ServiceError, metrics: JobMetrics) -> None:
    """Count the refusal of a request for work; an error of a job that there is refuses nothing."""
    asked_for = getattr(request.state, "asked_for", None)
    code, has_job = error.body.code, "location" in error.headers
    if asked_for is not None and code in REJECTIONS and not has_job:
        metrics.rejections.labels(asked_for, code).inc()


def response_to(error: ServiceError) -> JSONResponse:
    content = ErrorEnvelope(error=error.body).model_dump(mode="json")
    return JSONResponse(content, status_code=error.status, headers=error.headers)


def internal_error() -> ServiceError:
    # no retry: what broke once on this request breaks again, and the work may already be queued
    return ServiceError(
        500,
        "server_error",
        "internal_error",
        "an error in the service; the request's id finds it in the log",
        headers={"x-should-retry": "false"},
    )


def unsupported_media_type(got: str | None, allowed: str) -> ServiceError:
    return ServiceError(
        415,
        "invalid_request_error",
        "unsupported_media_type",
        f"content-type: got {shown(got)}; allowed: {allowed}",
    )


def json_error(error: ValidationError) -> ServiceError:
    """As `validation_error`, of a body, which routes validate by themselves."""
    return validation_error([{**e, "loc": ("body", *e["loc"])} for e in error.errors()])


def body_error(error: Exception) -> ServiceError:
    """A body that does not parse as JSON."""
    message = f"the request body is not JSON: {no_json(error)}"
    return RequestError(None, message, "invalid_json")


def no_json(error: Exception) -> str:
    """Why text is no JSON, from what its parser raised."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, json.JSONDecodeError):
        return f"{error.msg} at character {error.pos}"
    if isinstance(error, UnicodeDecodeError):
        return str(error)
    return "a number has too many digits"  # Python's words are advice to programmers


def validation_error(errors: Sequence[Mapping[str, object]]) -> ServiceError:
    """The most precise of pydantic's errors: the field, what was got, what is allowed."""
    first = max(errors, key=lambda error: len(_indices(error)))
    kind, message = str(first["type"]), str(first["msg"])
    param = _param(first)
    code = _CODES.get(kind, "invalid_value")
    if param is None:
        got = shown(first.get("input"))
        return RequestError(None, f"the request body must be a JSON object in UTF-8; got {got}")
    if kind == "extra_forbidden":
        return RequestError(param, f"{param}: unknown parameter", code)
    if kind == "missing":
        return RequestError(param, f"{param}: missing; it is required", code)
    message = message.removeprefix("Value error, ").replace("Input should", "should")
    message = message.replace("a valid dictionary", "an object")
    return RequestError(param, f"{param}: {message}; got {shown(first.get('input'))}", code)


def _indices(error: Mapping[str, object]) -> list[int]:
    loc = error.get("loc")
    return [part for part in loc if isinstance(part, int)] if isinstance(loc, tuple) else []


def _param(error: Mapping[str, object]) -> str | None:
    """("body", "input", 2) is input[2], ("body", "loras", 0, "name") is loras[0].name.

    A name that follows neither a number nor an object is one of pydantic's insides.
    """
    loc = error.get("loc")
    if not isinstance(loc, tuple) or len(loc) < 2:
        return None
    param = shown_name(str(loc[1]))
    for before, part in pairwise(loc[1:]):
        if isinstance(part, int):
            param += f"[{part}]"
        elif isinstance(before, int) or before in _OBJECTS:
            param += f".{shown_name(str(part))}"
    return param


def _http_error(request: Request, error: HTTPException) -> ServiceError:
    path = shown(request.url.path)
    headers = {name.lower(): value for name, value in (error.headers or {}).items()}
    if error.status_code == 404:
        message = f"{request.method} {path} does not exist"
    elif error.status_code == 405:
        headers["allow"] = _allowed_methods(request)
        message = f"{request.method} is not allowed on {path}; allowed: {headers['allow']}"
    else:
        message = str(error.detail)
    code = _HTTP_CODES.get(error.status_code, "invalid_value")
    return ServiceError(error.status_code, "invalid_request_error", code, message, headers=headers)


def _allowed_methods(request: Request) -> str:
    """Those of all routes of the path; the framework's answer has those of the first alone.

    Of paths that match, the longest counts: `/models/{model}/info` is not `/models/{model}`.
    """
    path = request.url.path
    routes = [r for r in iter_route_contexts(request.app.routes) if r.path_regex.match(path)]
    longest = max((r.path or "" for r in routes), key=len)
    methods = {method for r in routes if r.path == longest for method in r.methods or ()}
    if "GET" in methods:
        methods.add("HEAD")  # `HeadMiddleware` answers it
    return ", ".join(sorted(methods))
