"""How children are ended: asked, waited for, killed, and left at last. Knows nothing of jobs."""

import logging
import signal
import threading
import time
from collections.abc import Callable, Sequence

from triptych.child import Child

logger = logging.getLogger(__name__)

_POLL_S = 0.02
_KILL_TIMEOUT_S = 5.0  # the kernel takes back a GPU's memory first


def end(
    children: Sequence[Child],
    grace_s: float,
    hurry: threading.Event,
    others: Sequence[Child] = (),
    kill_timeout_s: float = _KILL_TIMEOUT_S,
) -> None:
    """Ask the children to stop and wait; those that take longer are killed.

    grace_s         how long they may take
    hurry           ends the wait when it is set
    others          go on meanwhile; that one of them died is told at once
    kill_timeout_s  after which one that even so does not end, such as in a driver, is left
    """
    _send(children, signal.SIGTERM)
    deadline = time.monotonic() + grace_s
    _wait(lambda: hurry.is_set() or time.monotonic() > deadline, children, others)
    _send(children, signal.SIGKILL)
    give_up_at = time.monotonic() + kill_timeout_s
    _wait(lambda: time.monotonic() > give_up_at, children, others)
    for child in children:
        if child.is_running:
            logger.error("event=not_dead child=%s pid=%s", child.name, child.pid)


def _send(children: Sequence[Child], signum: signal.Signals) -> None:
    for child in children:
        child.send(signum)


def _wait(is_over: Callable[[], bool], children: Sequence[Child], others: Sequence[Child]) -> None:
    """Return when no child runs any more, or it is over."""
    while True:
        for child in (*children, *others):
            child.note_end()
        if is_over() or not any(child.is_running for child in children):
            return
        time.sleep(_POLL_S)
