"""How a worker's start fails."""

import logging
import signal
import socket
from contextlib import ExitStack
from pathlib import Path

import pytest
from redis import Redis

from tests.cards import status_of
from worker.contract.jobs import Task
from worker.contract.workers import WorkerState
from worker.heartbeat import Heartbeat
from worker.main import main, publish_metrics
from worker.metrics import WorkerMetrics
from worker.settings import WorkerSettings


def test_a_redis_that_turns_it_away_is_one_clear_line(
    redis_url: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    url = f"{redis_url}?username=nobody&password=wrong"
    settings = WorkerSettings(redis_url=url, queue=Task.CLASSIFY, data_dir=tmp_path, device="cpu")
    handler = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as end:
        main(settings)
    signal.signal(signal.SIGTERM, handler)
    assert end.value.code == 1
    [record] = [record for record in caplog.records if record.levelno >= logging.WARNING]
    assert record.exc_info is None
    assert record.getMessage().startswith("event=redis_unavailable reason=")


def test_a_metrics_port_that_is_taken_keeps_no_worker_from_serving(
    tmp_path: Path, redis: Redis, caplog: pytest.LogCaptureFixture
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other, ExitStack() as stack:
        settings = WorkerSettings(
            redis_url="unix://",
            queue=Task.CLASSIFY,
            data_dir=tmp_path,
            metrics_port=other.getsockname()[1],
        )
        heartbeat = Heartbeat(redis, status_of(Task.CLASSIFY, WorkerState.IDLE), interval_s=3.0)
        publish_metrics(settings, WorkerMetrics(Task.CLASSIFY), heartbeat, stack)
    assert "event=metrics_unavailable host=127.0.0.1 port=" in caplog.text
