"""`/v1/jobs/{id}`: what became of a job, and a way to stop it."""

from fastapi import APIRouter, Request, Response

from service.dependencies import CurrentParts
from service.job_objects import found, job_response
from service.json_response import ERRORS
from service.schemas.jobs import JobObject

router = APIRouter(tags=["jobs"])


@router.get(
    "/v1/jobs/{job_id}", response_model=None, responses={200: {"model": JobObject}, **ERRORS}
)
async def get_job(job_id: str, request: Request, parts: CurrentParts) -> Response:
    """Read a job. `Retry-After` says when to ask again while it is not finished."""
    return await job_response(found(job_id, await parts.jobs.get(job_id)), parts, request)


@router.post(
    "/v1/jobs/{job_id}/cancel", response_model=None, responses={200: {"model": JobObject}, **ERRORS}
)
async def cancel_job(job_id: str, request: Request, parts: CurrentParts) -> Response:
    """Cancel a job: at once while it waits, within a step while it runs; a final one stays."""
    return await job_response(found(job_id, await parts.jobs.cancel(job_id)), parts, request)
