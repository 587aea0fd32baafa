"""How the API is started, and whether it serves. Knows nothing of when it is started, and again."""

import json
import sys
from collections.abc import Sequence

import httpx

from triptych.child import Child, program
from triptych.settings import ServeSettings
from worker.contract.jobs import Task


def api_environment(
    settings: ServeSettings, redis_url: str, tasks: Sequence[Task]
) -> dict[str, str]:
    return {
        "TRIPTYCH_HOST": settings.host,
        "TRIPTYCH_PORT": str(settings.port),
        "TRIPTYCH_REDIS_URL": redis_url,
        "TRIPTYCH_DATA_DIR": str(settings.data_dir),
        "TRIPTYCH_TASKS": json.dumps(tasks),
        "TRIPTYCH_DRAIN_GRACE_S": str(settings.drain_grace_s),
    }


def api_child(settings: ServeSettings, redis_url: str, tasks: Sequence[Task]) -> Child:
    environment = api_environment(settings, redis_url, tasks)
    return Child("api", program([sys.executable, "-m", "service.main"], environment))


def answers_ready(client: httpx.Client, url: str) -> bool:
    try:
        return client.get(f"{url}/readyz").status_code == httpx.codes.OK
    except httpx.TransportError:
        return False
