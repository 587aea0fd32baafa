"""What a process of the fork server does: it becomes one worker. Knows nothing of the others."""

import fcntl
import gc
import os
import signal
import sys
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection, wait
from pathlib import Path

from worker.settings import WorkerSettings

_COMM = Path("/proc/self/comm")  # what `ps -e` and `top` show; there is none but on Linux
_OOM_SCORE = Path("/proc/self/oom_score_adj")
# Added to what the service has: as if a worker took a tenth of the memory more. Its death costs the
# least: the other processes, and the fork server, are needed to start it again.
_OOM_SCORE_MORE = 100
_WORST_OOM_SCORE = 1000
# To the API and Redis, which answer within milliseconds or hold up everybody: a forward can wait.
_NICE = 5


def run_worker(
    lifeline: Connection, title: str, module: str, environment: Mapping[str, str]
) -> None:
    """Run the module's `main` with the settings that these variables make, beside ours."""
    _take_signals()
    _die_with_supervisor(lifeline)
    gc.freeze()  # what was imported is shared as long as nobody writes into it
    gc.enable()
    with suppress(OSError):
        _COMM.write_text(title, encoding="utf-8")
    _offer_to_the_oom_killer()
    os.nice(_NICE)
    os.environ.update(environment)
    import_module(module).main(WorkerSettings.model_validate({}))


def _take_signals() -> None:
    """Leave the supervisor's group, and unblock what the fork server has blocked."""
    os.setpgid(0, 0)  # Ctrl-C reaches the supervisor alone; no session, as `child` says
    for signum in (signal.SIGINT, signal.SIGHUP, signal.SIGTTIN, signal.SIGTTOU):
        signal.signal(signum, signal.SIG_IGN)  # also what came for the group before
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # until the worker installs its own
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def _die_with_supervisor(lifeline: Connection) -> None:
    """On Linux the kernel kills this process when the supervisor's end of this pipe closes.

    That is when the supervisor ends, however it does, and whatever this process is busy with. The
    pipe is for this alone: of the one that brought the arguments, the kernel may still have to
    signal what was written. Not PR_SET_PDEATHSIG: the parent is the fork server. See fcntl(2),
    F_SETSIG.
    """
    if sys.platform == "linux":
        pipe = lifeline.fileno()
        fcntl.fcntl(pipe, fcntl.F_SETOWN, os.getpid())
        fcntl.fcntl(pipe, fcntl.F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(pipe, fcntl.F_SETFL, fcntl.fcntl(pipe, fcntl.F_GETFL) | os.O_ASYNC)
    if wait([lifeline], timeout=0):  # it died before the kernel knew
        os._exit(1)


def _offer_to_the_oom_killer() -> None:
    with suppress(OSError):
        score = int(_OOM_SCORE.read_text(encoding="ascii")) + _OOM_SCORE_MORE
        _OOM_SCORE.write_text(str(min(score, _WORST_OOM_SCORE)), encoding="ascii")
