"""The work of a real worker process, around tiny pipelines."""

import logging

from tests.worker.pipelines import TinyLoader
from worker.device_memory import memory_of
from worker.main import leave, run
from worker.settings import WorkerSettings


def main(settings: WorkerSettings) -> None:
    logging.basicConfig(level=logging.INFO)
    leave(run(settings, TinyLoader(), memory_of("cpu", settings)))
