"""`triptych serve` around tiny pipelines: `python -m tests.triptych.tiny_serve`."""

import logging

from triptych.settings import ServeSettings
from triptych.supervisor import Supervisor

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    Supervisor(ServeSettings(), worker_module="tests.worker.tiny_worker").run()
