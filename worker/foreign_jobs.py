"""Jobs on our queue for models that another worker serves: they are passed on.

Workers of one queue may be given different lists. A job whose model no living worker has any more
is kept for a while, as its worker may be restarting, and then taken, to fail with the reason.
"""

import time
from collections.abc import Callable, Container

from redis import Redis

from worker.contract import workers
from worker.contract.workers import ModelState

_UNSERVED_S = 60.0  # longer than a worker takes from its end to its first sign of life
_PAUSE_S = 0.05


class ForeignJobs:
    def __init__(
        self,
        redis: Redis,
        ours: Container[str],
        unserved_s: float = _UNSERVED_S,
        now: Callable[[], float] = time.monotonic,
    ) -> None:
        self._redis = redis
        self._ours = ours
        self._unserved_s = unserved_s
        self._now = now
        self._unserved_since: dict[str, float] = {}
        self._passed: set[str] = set()

    def is_foreign(self, model: str) -> bool:
        """Whether a job of this model is to be passed on."""
        if model in self._ours:
            return False
        if self._is_served_elsewhere(model):
            self._unserved_since.pop(model, None)
            return True
        since = self._unserved_since.setdefault(model, self._now())
        return self._now() - since < self._unserved_s

    def pause(self, job_id: str) -> None:
        """Wait a little where a job comes by again, so that workers do not play ball with it."""
        if job_id in self._passed:
            self._passed.clear()
            time.sleep(_PAUSE_S)
        self._passed.add(job_id)

    def _is_served_elsewhere(self, model: str) -> bool:
        return any(
            served.name == model and served.state is not ModelState.FAILED
            for status in workers.read_all(self._redis)
            for served in status.models
        )
