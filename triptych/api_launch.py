"""How the API's processes are started, and whether they serve. Knows nothing of when they start.

They accept from the same sockets, which the supervisor opened: what one of them has not accepted
yet when it dies, another takes.
"""

import json
import logging
import os
import sys
from collections.abc import Sequence
from contextlib import closing
from functools import partial
from http import HTTPStatus
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from socket import socket
from urllib.parse import urlsplit

from service import shared_counts
from triptych.child import Child, program
from triptych.errors import DataDirError
from triptych.settings import ServeSettings
from worker.contract.jobs import Task

logger = logging.getLogger(__name__)

_ANSWER_TIMEOUT_S = 0.5  # it keeps nobody waiting; until it accepts, we wait in vain
_GRAFANA = "TRIPTYCH_GRAFANA_URL"
_COUNTS = "api-counts"  # the directory below that for data


def api_environment(
    settings: ServeSettings, redis_url: str, tasks: Sequence[Task], grafana_url: str | None
) -> dict[str, str]:
    """Its settings; of Grafana's address what its own variable says comes first."""
    grafana = {} if grafana_url is None or _GRAFANA in os.environ else {_GRAFANA: grafana_url}
    return grafana | {
        "TRIPTYCH_HOST": settings.host,
        "TRIPTYCH_PORT": str(settings.port),
        "TRIPTYCH_REDIS_URL": redis_url,
        "TRIPTYCH_DATA_DIR": str(settings.data_dir),
        "TRIPTYCH_TASKS": json.dumps(tasks),
        "TRIPTYCH_DRAIN_GRACE_S": str(settings.drain_grace_s),
        "TRIPTYCH_LOG_FORMAT": settings.log_format,
    }


def api_children(
    settings: ServeSettings,
    redis_url: str,
    tasks: Sequence[Task],
    listeners: Sequence[socket],
    grafana_url: str | None,
) -> list[Child]:
    """Where there are several, any of them tells what all have counted."""
    environment = api_environment(settings, redis_url, tasks, grafana_url)
    descriptors = [listener.fileno() for listener in listeners]
    counts = settings.data_dir / _COUNTS if settings.api_processes > 1 else None
    if counts is not None:
        environment |= shared_counts.environment(counts)
        try:
            shared_counts.prepare(counts, settings.api_processes)
        except OSError as error:
            raise DataDirError(f"cannot write in directory {counts}: {error.strerror}") from None
    return [
        Child(
            f"api-{index}",
            program(_command(index, descriptors), environment, inherited_files=descriptors),
            on_death=None if counts is None else partial(_forget_gauges, counts, index),
        )
        for index in range(settings.api_processes)
    ]


def _command(index: int, descriptors: Sequence[int]) -> list[str]:
    accept_from = ["--accept-from", *map(str, descriptors)]
    return [sys.executable, "-m", "service.main", "--index", str(index), *accept_from]


def _forget_gauges(counts: Path, index: int) -> None:
    """Of a process that died; its counters stay."""
    try:
        shared_counts.reset_gauges(counts, index)
    except OSError as error:  # a full disk
        logger.warning("event=gauges_not_reset child=api-%d error=%s", index, error.strerror)


def answers_ready(url: str) -> bool:
    """Ask the API once; with the standard library, as httpx takes long to import."""
    with closing(HTTPConnection(urlsplit(url).netloc, timeout=_ANSWER_TIMEOUT_S)) as connection:
        try:
            connection.request("GET", "/readyz")
            return connection.getresponse().status == HTTPStatus.OK
        except (OSError, HTTPException):
            return False
