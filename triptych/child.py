"""One child process that is started again when it dies.

Children get a process group of their own, so that Ctrl-C reaches the supervisor alone. On Linux the
kernel signals them when the supervisor dies, however it dies (prctl(2), PR_SET_PDEATHSIG).
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
from functools import partial

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
    inherited_files: Sequence[int] = ()  # descriptors that stay open in the child
    orphan_signal: signal.Signals = signal.SIGKILL  # what it gets when the supervisor was killed
    _process: subprocess.Popen[bytes] | None = None
    _started_at: float = 0.0
    _restart_at: float | None = None
    _num_failures: int = 0

    def start(self) -> None:
        die_with_us = partial(_die_with_parent, os.getpid(), self.orphan_signal)
        self._process = subprocess.Popen(
            self.command,
            env={**os.environ, **self.environment},
            stdin=subprocess.DEVNULL,
            start_new_session=True,
            pass_fds=self.inherited_files,
            preexec_fn=die_with_us if sys.platform == "linux" else None,
        )
        self._started_at, self._restart_at = time.monotonic(), None
        logger.info("event=started child=%s pid=%d", self.name, self._process.pid)

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def pid(self) -> int | None:
        return self._process.pid if self._process is not None else None

    def keep_running(self) -> None:
        """Start the process again where it died, after a pause that grows with each death."""
        if self._process is None or self.is_running:
            return
        now = time.monotonic()
        if self._restart_at is None:
            ran_s = now - self._started_at
            self._num_failures = 0 if ran_s > _HEALTHY_AFTER_S else self._num_failures
            pause_s = min(_FIRST_PAUSE_S * 2**self._num_failures, _LONGEST_PAUSE_S)
            self._restart_at = now + pause_s
            self._num_failures += 1
            logger.warning(
                "event=died child=%s status=%s ran_s=%.1f restart_in_s=%.1f",
                self.name, self._process.returncode, ran_s, pause_s,
            )  # fmt: skip
        elif now >= self._restart_at:
            self.start()

    def send(self, signum: signal.Signals) -> None:
        if self._process is not None and self.is_running:
            self._process.send_signal(signum)


def _die_with_parent(parent: int, signum: signal.Signals) -> None:
    """Between fork and exec: ask the kernel for a signal when the parent dies."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:  # it died before the kernel knew
        os._exit(1)
