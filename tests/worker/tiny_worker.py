"""A real worker process around tiny pipelines: `python -m tests.worker.tiny_worker`."""

import logging
import sys

from tests.worker.pipelines import load
from worker.main import run
from worker.settings import settings_of_process

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    sys.exit(run(settings_of_process(), load))
