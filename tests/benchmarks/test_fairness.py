"""The simulated device does what the real queue says, and no more than it has places for."""

import pytest
from redis import Redis

from benchmarks.fairness import Arrival, compare, simulate


def test_a_job_alone_takes_its_own_time(redis: Redis) -> None:
    outcome = simulate(redis, [Arrival(3.0, "one", "a", num_rows=8)], 2, is_fair=True)
    assert outcome.latencies_s == {"one": [1.0]}


@pytest.mark.parametrize(("is_fair", "guests_latency_s"), [(True, 3.0), (False, 6.0)])
def test_a_guest_waits_for_a_turn_or_for_all_that_came_before(
    redis: Redis, is_fair: bool, guests_latency_s: float
) -> None:
    arrivals = [Arrival(0.0, "batch", "a", num_rows=8) for _ in range(5)]
    outcome = simulate(redis, [*arrivals, Arrival(0.0, "guest", "b", 8)], 1, is_fair)
    assert outcome.latencies_s["guest"] == [guests_latency_s]


def test_a_load_is_compared_with_itself_first_come_first_served(redis: Redis) -> None:
    arrivals = [Arrival(0.0, "batch", "a", num_rows=8) for _ in range(7)]
    arrivals.append(Arrival(0.0, "guest", "b", 8))
    report = compare(redis, "a load", [*arrivals, Arrival(20.0, "late", "c", 8)], num_places=1)
    by_kind = {latency.kind: latency for latency in report.latencies}
    assert (by_kind["guest"].p95_s, by_kind["guest"].p95_s_first_come) == (3.0, 8.0)
    assert by_kind["guest"].times_better == 2.67


@pytest.mark.parametrize(("is_fair", "num_refused"), [(True, 0), (False, 1)])
def test_a_queue_that_one_caller_fills_takes_the_guest_where_turns_are_fair(
    redis: Redis, is_fair: bool, num_refused: int
) -> None:
    arrivals = [Arrival(0.0, "batch", "a", num_rows=8) for _ in range(5)]
    arrivals.append(Arrival(0.5, "guest", "b", 8))
    outcome = simulate(redis, arrivals, 1, is_fair, max_depth=2)
    assert outcome.num_refused["batch"] == 2
    assert outcome.num_refused["guest"] == num_refused
