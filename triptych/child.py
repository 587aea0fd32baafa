"""One child process that is started again when it dies.

Children get a process group of their own, so that Ctrl-C reaches the supervisor alone, and on Linux
they are told by the kernel to stop when the supervisor dies, however it dies.
"""

import ctypes
import logging
import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_HEALTHY_AFTER_S = 60.0  # a child that ran so long starts its pauses anew


@dataclass(slots=True)
class Child:
    """What to run, and the process that runs it now."""

    name: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    _process: subprocess.Popen[bytes] | None = None
    _started_at: float = 0.0
    _restart_at: float | None = None
    _num_failures: int = 0

    def start(self) -> None:
        self._process = subprocess.Popen(
            self.command,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            preexec_fn=_stop_with_parent if sys.platform == "linux" else None,
        )
        self._started_at, self._restart_at = time.monotonic(), None
        logger.info("event=started child=%s pid=%d", self.name, self._process.pid)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def keep_running(self) -> None:
        """Start the process again where it died, after a pause that grows with each death."""
        if self._process is None or self.is_running:
            return
        now = time.monotonic()
        if self._restart_at is None:
            ran_s = now - self._started_at
            self._num_failures = 0 if ran_s > _HEALTHY_AFTER_S else self._num_failures + 1
            pause_s = min(_FIRST_PAUSE_S * 2**self._num_failures, _LONGEST_PAUSE_S)
            self._restart_at = now + pause_s
            logger.warning(
                "event=died child=%s status=%s ran_s=%.1f restart_in_s=%.1f",
                self.name, self._process.returncode, ran_s, pause_s,
            )  # fmt: skip
        elif now >= self._restart_at:
            self.start()

    def send(self, signum: signal.Signals) -> None:
        if self._process is not None and self.is_running:
            self._process.send_signal(signum)


def _stop_with_parent() -> None:
    """Between fork and exec: ask the kernel for SIGTERM when the parent dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
