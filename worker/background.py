"""Work on threads of their own, which never keep the process from its end."""

import threading
from collections.abc import Callable
from concurrent.futures import Future


def run_in_background(work: Callable[[], None]) -> Future[None]:
    """Begin now; a daemon thread, unlike an executor's, is not waited for when the process ends."""
    future: Future[None] = Future()

    def run() -> None:
        try:
            work()
        except BaseException as error:
            future.set_exception(error)
        else:
            future.set_result(None)

    threading.Thread(target=run, name="loader", daemon=True).start()
    return future
