"""How a process leaves a device that has failed: soon, whatever hangs, and for good."""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable
from typing import NoReturn

_LEAVE_S = 10.0  # the most that it takes

logger = logging.getLogger(__name__)


def leave_device(worker: str, error: Exception, steps: Iterable[Callable[[], object]]) -> NoReturn:
    """Do what may be done without the device, each step whatever came of the others, and end."""
    logger.critical("event=device_lost worker=%s reason=%s", worker, error, exc_info=error)
    threading.Thread(target=_exit_after, args=(_LEAVE_S,), daemon=True).start()
    for step in steps:
        try:
            step()
        except Exception:
            logger.exception("event=leaving_failed worker=%s", worker)
    os._exit(1)


def _exit_after(seconds: float) -> NoReturn:
    time.sleep(seconds)
    os._exit(1)
