"""Processes that begin with their imports done: forked from one that has done nothing else.

The fork server is Python's (`multiprocessing.forkserver`). Where it was killed, the next process
starts it again; on Linux those that it had made live on, as children of ours: prctl(2),
PR_SET_CHILD_SUBREAPER. Elsewhere they are ended, as nobody would know any more when they end.
"""

import ctypes
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from multiprocessing import Pipe, forkserver, get_context, resource_tracker
from multiprocessing.connection import wait

_FIRST_IMPORT = "triptych.gc_paused"
# They reach the whole group of a terminal, or all processes of a service; they are for us alone.
_OURS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
_UNKNOWN_STATUS = 255  # of a process whose fork server cannot say it
_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_STATUS_TIMEOUT_S = 0.2  # the fork server says it a moment after the end


class ServerProcess:
    """The fork server itself. It holds nothing, so it is ended at once by any signal."""

    def __init__(self, imports: Sequence[str], environment: Mapping[str, str]) -> None:
        """Let it import these modules, while we go on; what fails is left to its processes.

        `environment` becomes that of this process too. Where the server runs already, that is it.
        """
        os.environ.update(environment)
        if sys.platform == "linux":
            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
        forkserver.set_forkserver_preload([_FIRST_IMPORT, *imports])
        with _our_signals_blocked():
            forkserver.ensure_running()
        # Python's own name for it; there is no public one
        self.pid: int = forkserver._forkserver._forkserver_pid  # type: ignore[attr-defined]
        self._was_ended_by_us = False

    @property
    def sentinel(self) -> int | None:
        return None

    def poll(self) -> int | None:
        """None as well outside Linux, where its death is seen by the next process alone."""
        if sys.platform != "linux":
            return None
        try:  # left to be waited for: Python's own code does that when it is needed again
            end = os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
        except ChildProcessError:  # it has been needed again
            return _UNKNOWN_STATUS
        if end is None:
            return None
        status = end.si_status if end.si_code == os.CLD_EXITED else -end.si_status
        return 0 if self._was_ended_by_us else status

    def send_signal(self, sig: int, /) -> None:  # noqa: ARG002  # it blocks all others
        self._was_ended_by_us = True
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)


class ForkedProcess:
    """A process of the server; made when the server has done its imports, which may take seconds.

    `run` gets the reading end of a pipe before the arguments: nothing is ever written into it, and
    it closes when this process ends. Raises EOFError or OSError where the server ends meanwhile.
    """

    def __init__(self, run: Callable[..., None], *arguments: object) -> None:
        reader, self._lifeline = Pipe(duplex=False)
        with reader, _our_signals_blocked():
            context = get_context("forkserver")
            self._process = context.Process(target=run, args=(reader, *arguments))
            self._process.start()
        assert self._process.pid is not None, "this is a bug: it was started"
        self.pid = self._process.pid
        self._descriptor = _descriptor_of(self.pid)
        self._status: int | None = None

    @property
    def sentinel(self) -> int:
        return self._process.sentinel if self._descriptor is None else self._descriptor

    def poll(self) -> int | None:
        if self._status is None and wait([self.sentinel], timeout=0):
            self._status = self._exit_status()
            self._close()
        return self._status

    def send_signal(self, sig: int, /) -> None:
        if self.poll() is None:
            self._signal(sig)

    def _exit_status(self) -> int:
        is_said = bool(wait([self._process.sentinel], _STATUS_TIMEOUT_S))
        status = self._process.exitcode if is_said else None
        if status is not None and status != _UNKNOWN_STATUS:
            return status
        with suppress(ChildProcessError):  # not ours, as its server lives
            pid, ours = os.waitpid(self.pid, os.WNOHANG)
            return os.waitstatus_to_exitcode(ours) if pid else _UNKNOWN_STATUS
        return _UNKNOWN_STATUS

    def _close(self) -> None:
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None
        elif self._status == _UNKNOWN_STATUS:
            self._signal(signal.SIGKILL)  # it was left alone, and another one is to follow
        self._lifeline.close()

    def _signal(self, sig: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self.pid, sig)


def _descriptor_of(pid: int) -> int | None:
    """Readable once the process has ended; None where there is no such thing, or it ended."""
    if sys.platform != "linux":
        return None
    try:
        return os.pidfd_open(pid)
    except OSError:  # it has ended; or a kernel before 5.3
        return None


@contextmanager
def _our_signals_blocked() -> Iterator[None]:
    """What this thread starts inherits the mask, also what that starts: see `worker_process`."""
    resource_tracker.ensure_running()  # its start, which the fork server needs, unblocks them
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _OURS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
