"""What a job costs is measured on queues that keep their length."""

from contextlib import ExitStack

from benchmarks.queue_length import Cost, largest_ratio, measure, queues
from worker.contract.jobs import Task
from worker.contract.record import waiting_key


def test_a_measurement_leaves_as_many_jobs_waiting_as_there_were() -> None:
    with ExitStack() as stack:
        [queue] = queues([7], num_callers=3, num_groups=2, stack=stack)
        for _ in range(2):
            queue.measure()
        assert queue._redis.zcard(waiting_key(Task.IMAGES)) == 7


def test_every_step_of_a_job_is_measured_at_every_length() -> None:
    shape = measure("any", 2, 2, lengths=(1, 20), num_rounds=2)
    assert [cost.num_waiting for cost in shape.costs] == [1, 20]
    assert all(cost.submit > 0 and cost.claim > 0 and cost.cancel > 0 for cost in shape.costs)


def test_the_ratio_is_the_largest_of_all_steps_and_lengths() -> None:
    costs = [
        Cost(10, submit=10, position=10, cancel=10, claim=10, finish=10),
        Cost(1000, submit=11, position=10, cancel=10, claim=10, finish=10),
        Cost(100_000, submit=10, position=10, cancel=14, claim=13, finish=10),
    ]
    assert largest_ratio(costs) == 1.4
