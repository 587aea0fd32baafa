"""A process that forks others to be killed: `python -m tests.faults.victim`.

It reads one order a line and answers with the process id. What is forked watches itself (see
`kill_points`) and becomes a worker around tiny pipelines, or an API.
"""

import json
import logging
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import NoReturn

import models.flux.latents  # noqa: F401  # a job with a start image would import it in each victim
from service.main import main as serve
from service.settings import ServiceSettings
from tests.faults.fork_server import Order
from tests.faults.kill_points import Countdown, KillPoint, Switch, install
from tests.worker.pipelines import TinyLoader
from worker.device_memory import memory_of
from worker.main import leave, run
from worker.settings import WorkerSettings

logger = logging.getLogger(__name__)


def _serve_orders() -> None:
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for what was killed
    while lines := os.read(0, 2**16):
        for line in lines.splitlines():
            pid = os.fork()
            if pid == 0:
                _become(Order(**json.loads(line)))
            os.write(1, f"{pid}\n".encode())


def _become(order: Order) -> NoReturn:
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    log = os.open(order.log, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor, file in ((0, os.open(os.devnull, os.O_RDONLY)), (1, log), (2, log)):
        os.dup2(file, descriptor)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s %(message)s")
    strike_at = None if order.strike_at is None else KillPoint.parse(order.strike_at)
    countdown = Countdown(Path(order.passed), Switch(Path(order.switch)), strike_at, order.is_cut)
    install(countdown, Path(order.settings["data_dir"]))
    try:
        _work(order.settings) if order.kind == "worker" else serve(
            ServiceSettings.model_validate(order.settings)
        )
    except Exception:
        logger.exception("event=victim_failed")
    finally:
        leave(1)


def _work(given: Mapping[str, str]) -> NoReturn:
    settings = WorkerSettings.model_validate(given)
    leave(run(settings, TinyLoader(), memory_of("cpu", settings)))


if __name__ == "__main__":
    _serve_orders()
