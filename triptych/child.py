"""A child process that is started again when it dies: at once, or later where it keeps dying.

Knows nothing of how a process is started: `program` is for commands, `fork_server` for workers.
Where that takes its time, another thread does it, so that the deaths of others are seen meanwhile.
Programs get a process group of their own, so that Ctrl-C reaches the supervisor alone, and stay in
its session: where Linux shares the cores among sessions, nice values count within one alone
(sched(7), "The autogroup feature"). So a terminal must not stop them for what they write. On Linux
the kernel signals them when the supervisor dies, however it dies (prctl(2), PR_SET_PDEATHSIG).
"""

import ctypes
import logging
import math
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Executor, Future
from dataclasses import dataclass
from functools import partial
from typing import Protocol

logger = logging.getLogger(__name__)

_PR_SET_PDEATHSIG = 1  # linux/prctl.h
_STOPS_OF_TERMINALS = (signal.SIGTTIN, signal.SIGTTOU)  # tcsetpgrp(3), stty(1): tostop
_FIRST_PAUSE_S = 0.5
_LONGEST_PAUSE_S = 30.0
_HEALTHY_AFTER_S = 10.0  # a child that ran so long is started again at once


class ChildProcess(Protocol):
    """A process that runs or ran: `subprocess.Popen`, but for the sentinel."""

    @property
    def pid(self) -> int: ...

    @property
    def sentinel(self) -> int | None:
        """A descriptor that is readable once the process has ended; None: only `poll` can tell."""

    def poll(self) -> int | None:
        """The exit status; None while it runs."""

    def send_signal(self, sig: int, /) -> None:
        """Signal the process where it runs."""


Launch = Callable[[], ChildProcess]


@dataclass(slots=True)
class Child:
    """What to run, and the process that runs it now."""

    name: str
    launch: Launch
    on_death: Callable[[], None] | None = None  # called once for each process that ended
    now: Callable[[], float] = time.monotonic
    launches_on: Executor | None = None  # None: launching takes no time
    _launching: Future[ChildProcess] | None = None
    _process: ChildProcess | None = None
    _started_at: float = -math.inf
    _restart_at: float | None = -math.inf  # None: it runs or starts, or was not seen dead yet
    _num_failures: int = 0  # one after the other

    def start(self) -> None:
        """Start the process; where even that fails, `keep_running` tries again."""
        self._process, self._restart_at = None, None
        if self.launches_on is None:
            self._take(self.launch)
        else:
            self._launching = self.launches_on.submit(self.launch)

    @property
    def pid(self) -> int | None:
        return None if self._process is None else self._process.pid

    @property
    def is_running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    @property
    def sentinel(self) -> int | None:
        """The running process' own; None as well where it is known to have ended."""
        return self._process.sentinel if self._process is not None and self.is_running else None

    def note_death(self) -> None:
        """Where the process has ended, say so, once, and when the next one is due."""
        if self._has_ended_unnoted():
            pause_s = self._next_pause_s()
            self._restart_at = self.now() + pause_s
            self._tell_death(f"restart_in_s={pause_s:.1f}")

    def keep_running(self) -> None:
        """Start the process where it does not run: at once, or later if it keeps dying."""
        self.note_death()
        if self._restart_at is not None and self.now() >= self._restart_at:
            self.start()

    def send(self, signum: signal.Signals) -> None:
        """Signal the process; one that is being launched is not to be any more."""
        self._take_launched()
        if self._launching is not None:
            self._launching.cancel()
            self._launching.add_done_callback(_kill)
            self._launching = None
        elif self._process is not None and self.is_running:
            self._process.send_signal(signum)

    def note_end(self) -> None:
        """Where the process has ended, it is not started again; if it did not end well, say so."""
        if self._has_ended_unnoted():
            self._restart_at = math.inf
            if self._process is not None and self._process.poll() != 0:
                self._tell_death("restart=no")

    def _has_ended_unnoted(self) -> bool:
        self._take_launched()
        return self._restart_at is None and self._launching is None and not self.is_running

    def _take_launched(self) -> None:
        if self._launching is not None and self._launching.done():
            launched, self._launching = self._launching, None
            self._take(launched.result)

    def _take(self, launch: Launch) -> None:
        self._started_at = self.now()
        try:
            self._process = launch()
        except (OSError, EOFError) as error:  # no memory for it, or a fork server that died
            logger.error("event=start_failed child=%s reason=%r", self.name, error)
        else:
            logger.info("event=started child=%s pid=%d", self.name, self._process.pid)

    def _next_pause_s(self) -> float:
        is_healthy = self.now() - self._started_at > _HEALTHY_AFTER_S
        self._num_failures = 0 if is_healthy else self._num_failures + 1
        if is_healthy:
            return 0.0
        return min(_FIRST_PAUSE_S * 2.0 ** (self._num_failures - 1), _LONGEST_PAUSE_S)

    def _tell_death(self, what_next: str) -> None:
        if self._process is None:  # it never was
            return
        logger.warning(
            "event=died child=%s status=%s ran_s=%.1f %s",
            self.name, self._process.poll(), self.now() - self._started_at, what_next,
        )  # fmt: skip
        if self.on_death is not None:
            self.on_death()


def _kill(launched: Future[ChildProcess]) -> None:
    if not launched.cancelled() and launched.exception() is None:
        launched.result().send_signal(signal.SIGKILL)


class _Program(subprocess.Popen[bytes]):
    sentinel = None


def program(
    command: Sequence[str],
    environment: Mapping[str, str] | None = None,
    inherited_files: Sequence[int] = (),
    orphan_signal: signal.Signals = signal.SIGKILL,
) -> Launch:
    """How to start a command, with `environment` beside ours.

    inherited_files  descriptors that stay open in the child
    orphan_signal    what it gets when the supervisor was killed
    """

    def launch() -> ChildProcess:
        prepare = partial(_prepare, os.getpid(), orphan_signal)
        return _Program(
            command,
            env={**os.environ, **(environment or {})},
            stdin=subprocess.DEVNULL,
            process_group=0,
            pass_fds=inherited_files,
            preexec_fn=prepare,
        )

    return launch


def _prepare(parent: int, signum: signal.Signals) -> None:
    """Between fork and exec: let no terminal stop us, and the kernel say when the parent dies."""
    for number in _STOPS_OF_TERMINALS:
        signal.signal(number, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)
    if os.getppid() != parent:  # it died before the kernel knew
        os._exit(1)
