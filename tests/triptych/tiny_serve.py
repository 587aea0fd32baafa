"""`triptych serve` around tiny pipelines: `python -m tests.triptych.tiny_serve`."""

import logging

from triptych.settings import ServeSettings
from triptych.supervisor import Supervisor, plan
from triptych.worker_launch import WorkerProgram
from worker.model_specs import with_tasks

if __name__ == "__main__":
    logging.basicConfig(level=logging.INFO)
    settings = ServeSettings()
    specs = with_tasks(settings.specs)
    slots = plan(settings, specs)
    Supervisor(settings, specs, slots, WorkerProgram("tests.worker.tiny_worker")).run()
