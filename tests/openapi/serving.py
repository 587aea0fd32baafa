"""The real app on real HTTP, with the worker of the service's tests, outside pytest."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

from redis import Redis

from benchmarks.running_service import scratch_redis
from service.main import create_app
from service.settings import ServiceSettings
from tests.cards import SHAPES, publish
from tests.service.conftest import TestWorker, serve
from worker.contract.image_files import ImageFiles
from worker.contract.jobs import Task


@contextmanager
def running_service() -> Iterator[str]:
    """The value is its address; nothing of it stays."""
    with (
        TemporaryDirectory() as folder,
        scratch_redis() as server,
        Redis.from_url(server.connection_url) as redis,
    ):
        publish(redis, *SHAPES)
        worker = TestWorker(redis, ImageFiles(Path(folder) / "images"))
        thread = threading.Thread(target=worker.run)
        thread.start()
        settings = ServiceSettings(
            redis_url=server.connection_url,
            data_dir=Path(folder),
            tasks=frozenset(Task),
            playground=False,  # `GET /` is no part of the API, and OPTIONS would name it
        )
        try:
            with serve(create_app(settings)) as url:
                yield url
        finally:
            worker.stop()
            thread.join()
