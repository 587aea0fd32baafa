"""From the body of `POST /v1/jobs` to a job: its input takes the road of its task's own route."""

from dataclasses import replace

from anyio import to_thread
from fastapi import Request

from service.dependencies import Parts
from service.errors import RequestError, ServiceError, shown
from service.image_jobs import new_image_job
from service.request_bodies import validated
from service.row_jobs import classify_job, embeddings_job, upload_of
from service.schemas.embeddings import EmbeddingsRequest
from service.schemas.images import ImageRequest
from service.schemas.jobs import JobRequest
from service.submitting import NewJob


async def new_job(body: JobRequest, request: Request, parts: Parts) -> NewJob:
    """Raises RequestError for what its task does not take; a field of the input is `input.size`."""
    timeout_s = _timeout_s(body, parts.settings.job_timeout_s)
    if body.priority is not None and body.input.get("priority") is not None:
        message = "input.priority: given beside priority; allowed: one of them"
        raise RequestError("input.priority", message)
    try:
        new = await _of_input(body, request, parts)
    except ServiceError as error:
        _say_where(error)
        raise
    job = new.job.model_copy(
        update={
            "deadline_at": new.job.created_at + timeout_s,
            "priority": body.priority or new.job.priority,
            "metadata": body.metadata or {},
        }
    )
    return replace(new, job=job)


async def _of_input(body: JobRequest, request: Request, parts: Parts) -> NewJob:
    match body.type:
        case "image.generation":
            image = await to_thread.run_sync(validated, body.input, ImageRequest)
            if image.stream:
                message = "stream: got true; a job has its own events; allowed: false"
                raise RequestError("stream", message)
            return await new_image_job(image, request, parts)
        case "image.classification":
            max_images = parts.settings.max_classify_images
            upload = await to_thread.run_sync(upload_of, body.input, max_images)
            return await classify_job(upload, request, parts)
        case "text.embedding":
            texts = await to_thread.run_sync(validated, body.input, EmbeddingsRequest)
            return await embeddings_job(texts, request, parts)


def _timeout_s(body: JobRequest, longest_s: float) -> float:
    if body.expires_in is None:
        return longest_s
    if body.expires_in > longest_s:
        message = f"expires_in: got {shown(body.expires_in)}; allowed: 1 to {longest_s:g}"
        raise RequestError("expires_in", message)
    return body.expires_in


def _say_where(error: ServiceError) -> None:
    """What is the task's own route's field is here a field of the input."""
    param, message = error.body.param, error.body.message
    if param is not None:
        prefixed = f"input.{message}" if message.startswith(param) else message
        update = {"param": f"input.{param}", "message": prefixed}
        error.body = error.body.model_copy(update=update)
