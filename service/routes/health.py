"""Alive, ready, measured: for the machines that watch the service."""

from collections.abc import Sequence

from anyio import to_thread
from fastapi import APIRouter, Response
from prometheus_client import CONTENT_TYPE_PLAIN_0_0_4

from service.dependencies import CurrentParts
from service.errors import UnavailableError
from service.responses import ERRORS, json_response
from service.schemas.health import Health, Readiness
from worker.contract import workers
from worker.contract.jobs import Task
from worker.contract.workers import ModelState, WorkerState, WorkerStatus

router = APIRouter(tags=["health"])


@router.get("/healthz", response_model=None, responses={200: {"model": Health}})
async def get_health() -> Response:
    """Say that the process lives, whatever the rest does."""
    return json_response(Health())


@router.get("/readyz", response_model=None, responses={200: {"model": Readiness}, **ERRORS})
async def get_readiness(parts: CurrentParts) -> Response:
    """Say whether every served task has a warm worker; 503 names those that have none."""
    statuses = await to_thread.run_sync(workers.read_all, parts.blocking_redis)
    expected = parts.settings.tasks or {status.task for status in statuses}
    if not expected:
        raise UnavailableError("no_workers", "no living worker")
    faults = {task: _fault(task, statuses) for task in Task if task in expected}
    if any(faults.values()):
        message = "; ".join(f"{task}: {fault}" for task, fault in faults.items() if fault)
        is_loading = all(fault in (None, _LOADING) for fault in faults.values())
        raise UnavailableError("model_loading" if is_loading else "no_workers", message)
    return json_response(Readiness(tasks=list(faults)))


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def get_metrics(parts: CurrentParts) -> Response:
    """Expose the API's metrics and the state of queues and workers to Prometheus."""
    text = await to_thread.run_sync(parts.metrics.render)
    return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)


_LOADING = "the worker is loading its model"
_FAILED = "no model could be loaded"


def _fault(task: Task, statuses: Sequence[WorkerStatus]) -> str | None:
    """Why a task is not served; None where it is."""
    of_task = [status for status in statuses if status.task is task]
    if any(status.state.is_warm for status in of_task):
        return None
    if not of_task:
        return "no live worker"
    states = {model.state for status in of_task for model in status.models}
    if states == {ModelState.FAILED}:
        return _FAILED
    is_loading = any(status.state is WorkerState.LOADING for status in of_task)
    return _LOADING if is_loading else "the worker is draining"
