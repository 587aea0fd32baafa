"""How a worker's start fails."""

import logging
import signal
import socket
from pathlib import Path

import pytest
from redis.exceptions import TimeoutError as RedisTimeoutError

from worker.contract.jobs import Task
from worker.main import _connect, main
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


def test_a_redis_that_is_silent_is_waited_for_once() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        host, port = server.getsockname()
        client = _connect(f"redis://{host}:{port}", timeout_s=0.1)
        with client, pytest.raises(RedisTimeoutError):
            client.ping()
        server.settimeout(0.1)
        server.accept()[0].close()
        with pytest.raises(TimeoutError):
            server.accept()
