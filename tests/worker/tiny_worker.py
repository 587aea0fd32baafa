"""The work of a real worker process, around tiny pipelines."""

import logging
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from tests.worker.pipelines import TinyLoader
from worker.device_memory import memory_of
from worker.main import leave, run
from worker.settings import WorkerSettings


def main(settings: WorkerSettings) -> None:
    logging.basicConfig(level=logging.INFO)
    leave(run(settings, TinyLoader(), memory_of("cpu", settings)))


def work(environment: Mapping[str, str], log: Path) -> None:
    """In a process that was forked for it: with these variables, and all that it says in `log`."""
    with log.open("ab") as output:
        for stream in (sys.stdout, sys.stderr):
            os.dup2(output.fileno(), stream.fileno())
    os.environ.update(environment)
    main(WorkerSettings.model_validate({}))
