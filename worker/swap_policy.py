"""When models leave for another, and when one that failed is tried again: decisions alone."""

from dataclasses import dataclass

_LONGEST_RETRY_S = 600.0
_UNUSED_S = 60.0  # after which models leave for one that failed and that no job waits for
# A swap that takes long is not done as often: so many times its duration a model in use may stay
# while another waits, and one that has just come stays although no job is there for it.
_LOADS_OF_PATIENCE, _LOADS_OF_STAY = 3, 1


@dataclass(frozen=True, slots=True)
class Wish:
    """A model that is to come, and what would leave for it. Times in seconds of one clock.

    wanted_since  jobs wait for it since then; None: none do
    load_s        how long it took to come the last time
    has_failed    it could not be loaded the last time
    came_at       the last of those that would leave came then
    last_used_at  and one of them was used then
    """

    wanted_since: float | None
    load_s: float
    has_failed: bool
    came_at: float
    last_used_at: float


@dataclass(frozen=True, slots=True)
class SwapPolicy:
    """patience_s     for which models in use keep another, that has jobs, from coming; longer where
                   it takes longer to come
    first_retry_s  after a load that failed; doubled with every failure after it
    """

    patience_s: float = 5.0
    first_retry_s: float = 30.0

    def may_leave(self, wish: Wish, is_idle: bool, now: float) -> bool:
        """Whether models may leave now; `is_idle`: no job is there for those on the device."""
        if wish.wanted_since is None:
            is_needed = wish.has_failed and now - wish.last_used_at < _UNUSED_S
            return is_idle and not is_needed
        if is_idle and now - wish.came_at >= _LOADS_OF_STAY * wish.load_s:
            return True
        patience_s = max(self.patience_s, _LOADS_OF_PATIENCE * wish.load_s)
        return now - max(wish.wanted_since, wish.came_at) >= patience_s

    def retry_s(self, num_failures: int) -> float:
        retry_s: float = self.first_retry_s * 2**num_failures
        return min(retry_s, _LONGEST_RETRY_S)
