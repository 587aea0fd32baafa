"""Alive, ready, measured: for the machines that watch the service."""

from collections.abc import Sequence

from anyio import to_thread
from fastapi import APIRouter, Request, Response

from service.dependencies import CurrentParts
from service.errors import UnavailableError
from service.json_response import json_response
from service.redis_health import unavailable
from service.route_errors import NOT_READY, STORE, errors
from service.schemas.health import Health, LivingWorker, Readiness
from worker.contract import workers
from worker.contract.jobs import Task
from worker.contract.workers import ModelState, WorkerState, WorkerStatus

router = APIRouter(tags=["health"])


@router.get("/healthz", response_model=None, responses={200: {"model": Health}, **errors()})
async def get_health() -> Response:
    """Say that the process lives, whatever the rest does."""
    return json_response(Health())


@router.get(
    "/readyz",
    response_model=None,
    responses={200: {"model": Readiness}, **errors(NOT_READY, STORE)},
)
async def get_readiness(parts: CurrentParts) -> Response:
    """Say which workers there are: 200 where every served task has a warm one, else 503.

    The 503 names the tasks that have none, or says why Redis takes no jobs.
    """
    if (refusal := parts.redis_health.refusal) is not None:
        raise unavailable(refusal)
    statuses = await to_thread.run_sync(workers.read_all, parts.blocking_redis)
    expected = parts.settings.tasks or {status.task for status in statuses}
    if not expected:
        raise UnavailableError("no_workers", "no living worker")
    of_task = {task: _of_task(task, statuses) for task in Task if task in expected}
    cold = {task: each for task, each in of_task.items() if not any(s.state.is_warm for s in each)}
    if cold:
        message = "; ".join(f"{task}: {_what_they_do(each)}" for task, each in cold.items())
        is_loading = all(any(map(_is_loading, each)) for each in cold.values())
        raise UnavailableError("model_loading" if is_loading else "no_workers", message)
    return json_response(Readiness(tasks=list(of_task), workers=list(map(_describe, statuses))))


@router.get(
    "/metrics",
    response_class=Response,
    responses={
        200: {
            "content": {
                "text/plain": {"schema": {"type": "string"}},
                "application/openmetrics-text": {"schema": {"type": "string"}},
            },
            "description": "Prometheus' text format, or OpenMetrics to who asks for that",
        },
        **errors(),
    },
)
async def get_metrics(request: Request, parts: CurrentParts) -> Response:
    """Expose the API's metrics and the state of queues and workers to Prometheus."""
    accept = request.headers.get("accept", "")
    exposition = await to_thread.run_sync(parts.metrics.render, accept)
    return Response(exposition.text, media_type=exposition.media_type)


def _of_task(task: Task, statuses: Sequence[WorkerStatus]) -> list[WorkerStatus]:
    return [status for status in statuses if status.task is task]


def _describe(status: WorkerStatus) -> LivingWorker:
    return LivingWorker(
        name=status.name, task=status.task, device=status.device, state=status.state
    )


def _what_they_do(statuses: Sequence[WorkerStatus]) -> str:
    """What keeps the workers of a task from its jobs, each kind of reason with its devices."""
    devices: dict[str, list[str]] = {}
    for status in statuses:
        devices.setdefault(_reason(status), []).append(status.device)
    return ", ".join(f"{reason} on {' and '.join(on)}" for reason, on in devices.items()) or (
        "no living worker"
    )


def _reason(status: WorkerStatus) -> str:
    if _is_loading(status):
        return "loading"
    if status.state is WorkerState.LOADING:
        return "no model could be loaded"
    return "draining"


def _is_loading(status: WorkerStatus) -> bool:
    """Whether it may become warm: not where none of its models could be loaded."""
    states = {model.state for model in status.models}
    return status.state is WorkerState.LOADING and states != {ModelState.FAILED}
