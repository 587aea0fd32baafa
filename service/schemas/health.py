"""Bodies of the health routes."""

from typing import Literal

from service.schemas.fields import ResponseBody
from worker.contract.jobs import Task


class Health(ResponseBody):
    status: Literal["ok"] = "ok"


class Readiness(ResponseBody):
    status: Literal["ready"] = "ready"
    tasks: list[Task]
