"""When models may leave for another."""

from dataclasses import replace

import pytest

from worker.swap_policy import SwapPolicy, Wish

POLICY = SwapPolicy(patience_s=5, first_retry_s=30)
NOW = 1000.0
# jobs wait since just now for a model that comes in a second; what would leave came long ago
WISH = Wish(wanted_since=NOW, load_s=1, has_failed=False, came_at=0, last_used_at=NOW)


@pytest.mark.parametrize(
    ("waited_s", "load_s", "ago_s", "is_idle", "may_leave"),
    [
        (0, 1, 999, True, True),
        (0, 1, 999, False, False),
        (4.9, 1, 999, False, False),
        (5, 1, 999, False, True),
        (20, 10, 999, False, False),  # three loads are 30 s
        (30, 10, 999, False, True),
        (99, 1, 4, False, False),  # what would leave has just come
        (99, 1, 5, False, True),
        (0, 1, 0.9, True, False),
        (0, 1, 1, True, True),
    ],
)
def test_models_stay_for_their_jobs_and_for_what_a_swap_costs(
    waited_s: float, load_s: float, ago_s: float, is_idle: bool, may_leave: bool
) -> None:
    wish = replace(WISH, wanted_since=NOW - waited_s, load_s=load_s, came_at=NOW - ago_s)
    assert POLICY.may_leave(wish, is_idle, NOW) is may_leave


@pytest.mark.parametrize(
    ("has_failed", "unused_s", "is_idle", "may_leave"),
    [
        (False, 0, True, True),
        (False, 0, False, False),
        (True, 59, True, False),
        (True, 60, True, True),
        (True, 60, False, False),
    ],
)
def test_one_that_no_job_waits_for_comes_when_nobody_needs_the_others(
    has_failed: bool, unused_s: float, is_idle: bool, may_leave: bool
) -> None:
    wish = replace(WISH, wanted_since=None, has_failed=has_failed, last_used_at=NOW - unused_s)
    assert POLICY.may_leave(wish, is_idle, NOW) is may_leave


def test_retries_come_ever_later_up_to_ten_minutes() -> None:
    assert [POLICY.retry_s(number) for number in range(7)] == [30, 60, 120, 240, 480, 600, 600]
