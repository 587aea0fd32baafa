"""Which errors a route can answer with, for its description.

A route says it in one line, `responses={200: …, **errors(BODY, MODEL, JOB_RUN)}`: each group holds
errors as they are raised, so that statuses, codes, headers and examples are the true ones. A new
error is added to the group of the routes that can raise it; `tests/openapi` refuses an answer whose
status and code are in none.
"""

from collections.abc import Mapping
from http import HTTPStatus

from service.error_handlers import internal_error, unsupported_media_type
from service.errors import (
    FAILURE_ANSWERS,
    EndDelayedError,
    ErrorEnvelope,
    FileExpiredError,
    JobNotFoundError,
    KeyReusedError,
    ModelNotFoundError,
    NotAcceptableError,
    NotFinishedError,
    NotFoundError,
    QueueFullError,
    RangeError,
    RequestError,
    ServiceError,
    SignatureError,
    SyncWaitError,
    UnavailableError,
    disk_full,
    ended_error,
    failure_error,
    lost_error,
)
from service.redis_health import unavailable
from worker.contract.jobs import Failure, JobState
from worker.contract.redis_refusals import Refusal

Errors = tuple[ServiceError, ...]

_JOB_ID = "job_0123456789abcdef0123456789abcdef"

PARAMETERS: Errors = (
    RequestError("Prefer", 'Prefer: got wait="soon"; allowed: whole seconds, 0 to 999999'),
)
KEY: Errors = (
    RequestError(
        "Idempotency-Key",
        'Idempotency-Key: got ""; allowed: one, of 1 to 255 visible ASCII characters',
    ),
    KeyReusedError(),
)
STORE: Errors = tuple(unavailable(refusal) for refusal in Refusal)

BODY: Errors = (
    RequestError("size", 'size: got "1000x64": width 1000 is not a multiple of 16'),
    RequestError("colour", "colour: unknown parameter", "unknown_parameter"),
    RequestError("prompt", "prompt: missing; it is required", "missing_required_parameter"),
    RequestError(
        None, "the request body is not JSON: Expecting value at character 9", "invalid_json"
    ),
    RequestError(
        "background",
        "background: FLUX paints no alpha channel; allowed: 'auto', 'opaque'; got \"transparent\"",
        "unsupported_value",
    ),
    RequestError("mask", "mask: not supported here; allowed: null", "unsupported_parameter"),
    ServiceError(
        413,
        "invalid_request_error",
        "payload_too_large",
        "the request body is larger than 33554432 bytes",
    ),
    unsupported_media_type("text/plain", "application/json"),
)
IMAGE: Errors = (
    RequestError(
        "input[2]", "input[2]: starts with nothing; allowed: PNG, JPEG or WebP", "invalid_image"
    ),
    RequestError(
        "input[2]", "input[2]: got 20971520 bytes; allowed: at most 10485760", "image_too_large"
    ),
)
ACCEPT: Errors = (
    NotAcceptableError(
        'Accept: got "image/gif"; allowed for this request: image/png, application/json'
    ),
)
UNKNOWN_MODEL: Errors = (ModelNotFoundError("dall-e-9", ["flux_shapes"]),)
NOT_READY: Errors = (
    UnavailableError("no_workers", "images: no living worker"),
    UnavailableError("model_loading", "model flux_shapes is loading", 5),
)
MODEL: Errors = (
    *UNKNOWN_MODEL,
    *NOT_READY,
    UnavailableError("model_unusable", "model flux_shapes could not be loaded", 30),
)
SUBMIT: Errors = (
    QueueFullError("images", 64, 9, 12),
    lost_error(_JOB_ID),
    disk_full(),
    UnavailableError("storage", "the start image could not be stored"),
)
JOB_END: Errors = (
    ended_error(_JOB_ID, JobState.CANCELED),
    *(
        failure_error(_JOB_ID, Failure(code=code, message="input[2]: it cannot be decoded"))
        for code in FAILURE_ANSWERS
    ),
    ended_error(_JOB_ID, JobState.EXPIRED),
)
JOB_RUN: Errors = (
    *SUBMIT,
    *JOB_END,
    *(EndDelayedError(_JOB_ID, refusal.value) for refusal in Refusal),
    SyncWaitError(_JOB_ID, 300.0),
)
JOB: Errors = (JobNotFoundError(_JOB_ID),)
UNFINISHED: Errors = (NotFinishedError(_JOB_ID, "cancel it first"),)
JOB_LIST: Errors = (
    RequestError("limit", 'limit: should be less than or equal to 100; got "101"'),
    RequestError("state", "state: unknown parameter", "unknown_parameter"),
)
EVENT_ID: Errors = (
    RequestError(
        "Last-Event-ID",
        'Last-Event-ID: got "x"; allowed: the id of an event, such as 1795707488306-0',
    ),
)
FOLLOWERS: Errors = (UnavailableError("too_many_followers", "512 clients follow jobs already"),)
FILE: Errors = (
    NotFoundError("file_not_found", 'image "job_0-1-0.png" does not exist'),
    SignatureError("job_0-1-0.png"),
    FileExpiredError("job_0-1-0.png"),
    RangeError("bytes=9000-", 4096),
)


def errors(*groups: Errors) -> dict[int | str, dict[str, object]]:
    """Describe these, and the error that every route can have: a bug."""
    of_status: dict[int, list[ServiceError]] = {}
    for error in (*(error for group in groups for error in group), internal_error()):
        of_status.setdefault(error.status, []).append(error)
    return {status: _described(status, of_status[status]) for status in sorted(of_status)}


def _described(status: int, of_status: list[ServiceError]) -> dict[str, object]:
    examples = {str(error.body.code): _example(error) for error in reversed(of_status)}
    names = {name for error in of_status for name in error.headers}
    return {
        "model": ErrorEnvelope,
        "description": f"{HTTPStatus(status).phrase}: "
        + ", ".join(f"`{c}`" for c in sorted(examples)),
        "headers": {name: {"$ref": f"#/components/headers/{name}"} for name in sorted(names)},
        "content": {"application/json": {"examples": dict(sorted(examples.items()))}},
    }


def _example(error: ServiceError) -> Mapping[str, object]:
    return {"value": ErrorEnvelope(error=error.body).model_dump(mode="json")}
