"""`triptych serve` around tiny pipelines: `python -m tests.triptych.tiny_serve`."""

import logging

from triptych.settings import ServeSettings
from triptych.supervisor import Supervisor
from worker.model_specs import with_tasks

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    settings = ServeSettings()
    specs = with_tasks(settings.specs)
    Supervisor(settings, specs, worker_module="tests.worker.tiny_worker").run()
