"""Bodies of the health routes."""

from typing import Literal

from service.schemas.fields import ResponseBody
from worker.contract.jobs import Task
from worker.contract.workers import WorkerState


class Health(ResponseBody):
    status: Literal["ok"] = "ok"


class LivingWorker(ResponseBody):
    """One that sends its heartbeat; those that are idle or busy take jobs."""

    name: str
    task: Task
    device: str
    state: WorkerState


class Readiness(ResponseBody):
    status: Literal["ready"] = "ready"
    tasks: list[Task]
    workers: list[LivingWorker]
