"""From what went wrong to the answer: OpenAI's envelope, status, headers.

ServiceError            an answer that is an error; everything else becomes one here
├── RequestError        400: a field of the request is wrong
├── ModelNotFoundError  404
├── NotFoundError       404: a job or a file
│   └── JobNotFoundError
├── SignatureError      403: of an image's URL
├── FileExpiredError    410: the time of an image's URL is over
├── RangeError          416: the file has no such bytes
├── NotAcceptableError  406: `Accept` leaves no answer
├── NotFinishedError    409: the job is not over
├── KeyReusedError      422: the idempotency key stands for another request
├── QueueFullError      429, with Retry-After
├── JobEndedError       the job ended in failed, canceled or expired, or is gone
├── SyncWaitError       504: the wait is over, the job goes on
├── EndDelayedError     503: the job goes on, and its end cannot be stored for now
├── StreamStoppedError  503: the service stops within a stream, and the job goes on
└── UnavailableError    503, with Retry-After: Redis, the workers or the model are not there

`FAILURE_ANSWERS` is complete over `FailureCode`; `worker/failures.py` is the road's other half.
"""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

from pydantic import BaseModel, ConfigDict

from worker.contract.jobs import Failure, FailureCode, JobState

POLL_AFTER_S = "1"  # what `Retry-After` advises who polls an unfinished job
_MAX_SHOWN = 80  # characters of a value that a message repeats


class ErrorBody(BaseModel):
    model_config = ConfigDict(frozen=True, extra="allow")

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorEnvelope(BaseModel):
    """OpenAI's error envelope: all four keys, always."""

    model_config = ConfigDict(frozen=True)

    error: ErrorBody


class ServiceError(Exception):
    """Raise it to answer with it."""

    def __init__(
        self,
        status: int,
        error_type: str,
        code: str,
        message: str,
        *,
        param: str | None = None,
        headers: Mapping[str, str] | None = None,
        job_id: str | None = None,
    ) -> None:
        super().__init__(message)
        self.status = status
        self.headers = dict(headers or {})
        body = ErrorBody(message=clean(message), type=error_type, param=param, code=code)
        self.body = body if job_id is None else body.model_copy(update={"job_id": job_id})
        if job_id is not None:
            self.headers["location"] = f"/v1/jobs/{job_id}"

    def rename(self, field: str, name: str) -> None:
        """Say `name` for `field`, as the request did; messages begin with the parameter."""
        param = self.body.param
        if param is not None and param.partition("[")[0] == field:
            renamed = name + param.removeprefix(field)
            message = re.sub(f"^{re.escape(param)}(?=:)", lambda _: renamed, self.body.message)
            self.body = self.body.model_copy(update={"param": renamed, "message": message})


class RequestError(ServiceError):
    """Raised for a field whose value is not allowed; the message says what is."""

    def __init__(self, param: str | None, message: str, code: str = "invalid_value") -> None:
        super().__init__(400, "invalid_request_error", code, message, param=param)


class ModelNotFoundError(ServiceError):
    """Raised for a model that is not served for this task."""

    def __init__(self, name: str | None, allowed: list[str]) -> None:
        got = "none is served for this" if name is None else f"{shown(name)} does not exist here"
        message = f"model: {got}; allowed: {', '.join(allowed) or 'nothing'}"
        super().__init__(404, "invalid_request_error", "model_not_found", message, param="model")


class NotFoundError(ServiceError):
    """Raised for a job or a file that is unknown or gone."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(404, "invalid_request_error", code, message)


class JobNotFoundError(NotFoundError):
    def __init__(self, job_id: str) -> None:
        super().__init__("job_not_found", f"job {shown(job_id)} does not exist or has expired")


class NotAcceptableError(ServiceError):
    """Raised where `Accept` allows nothing that the request can be answered with."""

    def __init__(self, message: str) -> None:
        super().__init__(406, "invalid_request_error", "not_acceptable", message, param="Accept")


class NotFinishedError(ServiceError):
    """Raised for what only a job that is over has, or allows; `hint` says what to do."""

    def __init__(self, job_id: str, hint: str) -> None:
        message = f"job {job_id} is not finished; {hint}"
        headers = {"retry-after": POLL_AFTER_S, "x-should-retry": "false"}
        super().__init__(
            409, "conflict_error", "job_not_finished", message, headers=headers, job_id=job_id
        )


class KeyReusedError(ServiceError):
    """Raised for an idempotency key that came with another request before."""

    def __init__(self) -> None:
        super().__init__(
            422,
            "invalid_request_error",
            "idempotency_key_reused",
            "Idempotency-Key: it came with another request before; "
            "allowed: a new key, or the same request again",
            param="Idempotency-Key",
        )


class SignatureError(ServiceError):
    """Raised for the URL of an image that is not one that the service gave."""

    def __init__(self, file_name: str) -> None:
        message = (
            f"the URL of image {shown(file_name)} is not signed, or was changed; "
            "use it whole, as the answer or the job gave it"
        )
        super().__init__(403, "permission_error", "invalid_signature", message)


class FileExpiredError(ServiceError):
    """Raised for the URL of an image whose time is over."""

    def __init__(self, file_name: str) -> None:
        message = f"the URL of image {shown(file_name)} has expired, and the image with it"
        super().__init__(410, "invalid_request_error", "file_expired", message)


class RangeError(ServiceError):
    """Raised for a range that begins behind the end of a file."""

    def __init__(self, wanted: str, num_bytes: int) -> None:
        message = f"Range: got {shown(wanted)}; the file has {num_bytes} bytes"
        headers = {"content-range": f"bytes */{num_bytes}"}
        super().__init__(
            416,
            "invalid_request_error",
            "range_not_satisfiable",
            message,
            param="Range",
            headers=headers,
        )


class QueueFullError(ServiceError):
    """Raised when as many jobs wait as may wait, and the caller's share of them."""

    def __init__(self, task: str, depth: int, num_of_caller: int, retry_after_s: int) -> None:
        message = (
            f"the queue {task} is full: {depth} jobs wait, {num_of_caller} of them of this caller; "
            f"try again in {retry_after_s} s"
        )
        headers = {"retry-after": str(retry_after_s)}
        super().__init__(429, "rate_limit_error", "queue_full", message, headers=headers)


class UnavailableError(ServiceError):
    """Raised when the service cannot serve at all for now."""

    def __init__(self, code: str, message: str, retry_after_s: int = 1) -> None:
        headers = {"retry-after": str(retry_after_s)}
        super().__init__(503, "server_error", code, message, headers=headers)


@contextmanager
def renaming(field: str, name: str) -> Iterator[None]:
    """Let errors say `name` for `field`, on a route whose body has another word for it."""
    try:
        yield
    except ServiceError as error:
        error.rename(field, name)
        raise


def disk_full() -> UnavailableError:
    return UnavailableError("disk_full", "the service's disk is full for now")


class SyncWaitError(ServiceError):
    """Raised when the caller's wait is over; a retry would start the same work again."""

    def __init__(self, job_id: str, waited_s: float) -> None:
        message = (
            f"job {job_id} did not finish within {waited_s:.1f} s and goes on; "
            f"read it at /v1/jobs/{job_id}"
        )
        headers = {"x-should-retry": "false"}
        super().__init__(
            504, "timeout_error", "sync_wait_timeout", message, headers=headers, job_id=job_id
        )


class EndDelayedError(ServiceError):
    """Raised while no job can end, as Redis takes no writes; a retry would start the work again."""

    def __init__(self, job_id: str, code: str) -> None:
        message = (
            f"job {job_id} goes on, but its end cannot be stored for now; "
            f"read it at /v1/jobs/{job_id}"
        )
        headers = {"x-should-retry": "false"}
        super().__init__(503, "server_error", code, message, headers=headers, job_id=job_id)


class StreamStoppedError(ServiceError):
    """Raised within a stream when the service stops; a retry would start the same work again."""

    def __init__(self, job_id: str) -> None:
        message = f"the service stops; job {job_id} goes on; read it at /v1/jobs/{job_id}"
        headers = {"x-should-retry": "false"}
        super().__init__(503, "server_error", "draining", message, headers=headers, job_id=job_id)


class JobEndedError(ServiceError):
    """Raised on a synchronous call whose job ended without a result."""


@dataclass(frozen=True, slots=True)
class FailureAnswer:
    """How a failure looks from outside. `message` None: the worker's own, written for clients."""

    status: int
    type: str
    message: str | None
    is_retry_useful: bool


FAILURE_ANSWERS: Mapping[FailureCode, FailureAnswer] = {
    FailureCode.INVALID_IMAGE: FailureAnswer(400, "invalid_request_error", None, False),
    FailureCode.INPUT_TOO_LONG: FailureAnswer(400, "invalid_request_error", None, False),
    FailureCode.GPU_OOM: FailureAnswer(
        500,
        "server_error",
        "the device ran out of memory; try a smaller size or fewer images",
        True,
    ),
    FailureCode.MODEL_LOAD: FailureAnswer(
        503, "server_error", "the model could not be loaded; it is tried again", True
    ),
    FailureCode.MODEL_NOT_SERVED: FailureAnswer(
        503, "server_error", "the model is not served any more", False
    ),
    FailureCode.STORAGE: FailureAnswer(
        500, "server_error", "an image could not be stored, or read again", False
    ),
    FailureCode.DISK_FULL: FailureAnswer(
        503, "server_error", "the disk that images are stored on is full for now", True
    ),
    FailureCode.WORKER_LOST: FailureAnswer(
        500, "server_error", "the workers that ran the job died, as often as it may be tried", False
    ),
    FailureCode.INTERNAL: FailureAnswer(500, "server_error", "the job failed in the worker", False),
}


def failure_body(failure: Failure) -> ErrorBody:
    """What a client is told; nothing of the server's insides."""
    answer = FAILURE_ANSWERS[failure.code]
    return ErrorBody(
        message=clean(failure.message) if answer.message is None else answer.message,
        type=answer.type,
        param=failure.param,
        code=failure.code.value,
    )


def failure_error(job_id: str, failure: Failure) -> JobEndedError:
    answer = FAILURE_ANSWERS[failure.code]
    body = failure_body(failure)
    headers = {} if answer.status < 500 else {"x-should-retry": _flag(answer.is_retry_useful)}
    return JobEndedError(
        answer.status,
        body.type,
        failure.code.value,
        body.message,
        param=body.param,
        headers=headers,
        job_id=job_id,
    )


def ended_error(job_id: str, state: JobState) -> JobEndedError:
    """The answer to a waiter whose job was canceled by another call or missed its deadline."""
    no_retry = {"x-should-retry": "false"}
    if state is JobState.CANCELED:
        message = f"job {job_id} was canceled"
        return JobEndedError(
            409, "conflict_error", "job_canceled", message, headers=no_retry, job_id=job_id
        )
    message = f"job {job_id} did not finish before its deadline"
    return JobEndedError(
        504, "timeout_error", "job_expired", message, headers=no_retry, job_id=job_id
    )


def lost_error(job_id: str) -> JobEndedError:
    """The record is gone: the store lost it, and the work with it, so a retry is right."""
    message = f"job {job_id} was lost"
    return JobEndedError(
        500, "server_error", "job_lost", message, headers={"x-should-retry": "true"}
    )


def _flag(value: bool) -> str:
    return "true" if value else "false"


def clean(text: str) -> str:
    """Text that can be written as UTF-8: lone surrogates, which JSON allows, become escapes."""
    return text.encode("utf-8", "backslashreplace").decode("utf-8")


def shown(value: object) -> str:
    """A value as a message can carry it: JSON, cut short."""
    if isinstance(value, str) and len(value) > _MAX_SHOWN:
        return f"{_json(value[:_MAX_SHOWN])}… ({len(value)} characters)"
    if isinstance(value, list | tuple):
        return f"an array of {len(value)}"
    if isinstance(value, bytes):
        return f"a file of {len(value)} bytes"
    if isinstance(value, Mapping):
        return f"an object of {len(value)} keys"
    written = _json(value)  # a number can have thousands of digits
    is_long = not isinstance(value, str) and len(written) > _MAX_SHOWN
    return f"{written[:_MAX_SHOWN]}… ({len(written)} characters)" if is_long else written


def shown_name(name: str) -> str:
    """A field's name as `param` can carry it: as it was sent, cut short."""
    return clean(name if len(name) <= _MAX_SHOWN else f"{name[:_MAX_SHOWN]}…")


def _json(value: object) -> str:
    return clean(json.dumps(value, ensure_ascii=False, default=repr))
