"""Who is next: the order of the jobs that wait, on a real server, and a plain model of it."""

import itertools
import math
import random
from collections import Counter, defaultdict
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from typing import cast

import pytest
from redis import Redis

from tests.worker.jobs import embeddings_job, image_job
from tests.worker.waiting import rq_list, waiting
from worker.contract.jobs import EmbeddingsJob, ImageJob, JobState, Priority, Task
from worker.contract.record import as_text, decoded, record_key
from worker.contract.record_scripts import POSITION
from worker.contract.records import Finished, Records, Room
from worker.contract.submission import cost_of, enqueue, group_of
from worker.rq_entries import open_queue

TASK = Task.EMBEDDINGS
WITHOUT_LIMIT = Room(max_jobs=1000, rows_of_new_group=1000)
ONE = Room(max_jobs=1, rows_of_new_group=1)


def job_of(
    caller: str,
    num_rows: int = 1,
    priority: Priority = "normal",
    model: str = "m",
    deadline_at: float | None = None,
) -> EmbeddingsJob:
    return embeddings_job(*["a"] * num_rows, deadline_at=deadline_at).model_copy(
        update={"caller": caller, "priority": priority, "model": model}
    )


@dataclass
class Queue:
    """One worker's view of the queue; jobs are called by the names that a test gives them."""

    redis: Redis
    records: Records
    names: dict[str, str] = field(default_factory=dict)

    def submit(self, name: str, job: EmbeddingsJob) -> str:
        enqueue(self.redis, job)
        self.names[job.id] = name
        return job.id

    def take(self, room: Room = ONE, models: tuple[str, ...] = ("m",)) -> str:
        claimed = self.records.claim(TASK, "worker", 60.0, models, room).records
        return " ".join(self.names[record.id] for record in claimed)

    def take_all(self, room: Room = ONE, models: tuple[str, ...] = ("m",)) -> list[str]:
        return list(iter(lambda: self.take(room, models), ""))

    def position(self, job_id: str) -> int | None:
        position = self.redis.register_script(POSITION)(args=[job_id])
        assert position is None or isinstance(position, int)
        return position


@pytest.fixture
def queue(redis: Redis) -> Queue:
    return Queue(redis, Records(redis))


def test_the_jobs_of_one_caller_go_in_the_order_in_which_they_came(queue: Queue) -> None:
    for name in "abcdefgh":
        queue.submit(name, job_of("me"))
    assert queue.take_all() == list("abcdefgh")


def test_500_jobs_of_one_caller_do_not_stand_before_the_first_of_another(queue: Queue) -> None:
    for i in range(500):
        queue.submit(f"batch {i}", job_of("batch"))
    assert queue.take() == "batch 0"
    first = queue.submit("first", job_of("guest"))
    assert queue.position(first) == 1  # of the same turn, and came before
    assert [queue.take() for _ in range(3)] == ["batch 1", "first", "batch 2"]


def test_callers_take_turns_by_work_and_not_by_jobs(queue: Queue) -> None:
    for i in range(2):
        queue.submit(f"large {i}", job_of("one", num_rows=4))
    for i in range(8):
        queue.submit(f"small {i}", job_of("two"))
    assert queue.take_all() == [
        *(f"small {i}" for i in range(3)),
        "large 0",
        *(f"small {i}" for i in range(3, 7)),
        "large 1",
        "small 7",
    ]


def test_who_was_away_has_saved_nothing_up_and_owes_nothing(queue: Queue) -> None:
    for i in range(10):
        queue.submit(f"a{i}", job_of("a"))
    assert [queue.take() for _ in range(9)] == [f"a{i}" for i in range(9)]
    for i in range(2):
        queue.submit(f"b{i}", job_of("b"))
    queue.submit("a10", job_of("a"))
    assert queue.take_all() == ["a9", "b0", "b1", "a10"]


def test_a_high_job_goes_before_normal_ones_that_came_first(queue: Queue) -> None:
    for i in range(3):
        queue.submit(f"normal {i}", job_of(f"caller {i}"))
    queue.submit("high", job_of("another", priority="high"))
    assert queue.take_all() == ["high", "normal 0", "normal 1", "normal 2"]


def test_eight_high_jobs_of_one_caller_are_worth_one_normal_job_of_another(queue: Queue) -> None:
    for i in range(16):
        queue.submit(f"high {i}", job_of("one", priority="high"))
    for i in range(2):
        queue.submit(f"normal {i}", job_of("two"))
    assert queue.take_all() == [
        *(f"high {i}" for i in range(8)),
        "normal 0",
        *(f"high {i}" for i in range(8, 16)),
        "normal 1",
    ]


@pytest.mark.parametrize(("urgent", "num_before"), [("normal", 7), ("high", 63)])
def test_a_low_job_is_taken_in_the_end_under_a_stream_of_others(
    queue: Queue, urgent: Priority, num_before: int
) -> None:
    """Its turn is eight times its cost away: eight normal jobs, or 64 high ones."""
    queue.submit("low", job_of("one", priority="low"))
    taken = []
    for i in range(100):
        queue.submit(f"urgent {i}", job_of("two", priority=urgent))
        taken.append(queue.take())
    assert taken.index("low") == num_before


def test_a_callers_low_jobs_do_not_hold_up_its_normal_ones(queue: Queue) -> None:
    for i in range(3):
        queue.submit(f"low {i}", job_of("one", priority="low"))
    queue.submit("other", job_of("two"))
    queue.submit("normal", job_of("one"))
    assert [queue.take() for _ in range(2)] == ["other", "normal"]


def test_within_a_caller_the_shortest_goes_first_and_others_lose_nothing_by_it(
    queue: Queue,
) -> None:
    queue.submit("long", job_of("one", num_rows=10))
    for i in range(12):
        queue.submit(f"other {i}", job_of("two"))
    queue.submit("short", job_of("one"))
    taken = queue.take_all()
    assert taken.index("short") == 1  # of the same turn as the first of the other
    assert taken.index("long") == 11  # 1 for the short one, and 10
    assert [name for name in taken if "other" in name] == [f"other {i}" for i in range(12)]


def test_among_equally_short_jobs_of_a_caller_the_first_to_come_is_the_first(
    queue: Queue,
) -> None:
    queue.submit("long", job_of("one", num_rows=10))
    for i in range(5):
        queue.submit(f"short {i}", job_of("one"))
    assert queue.take_all() == [*(f"short {i}" for i in range(5)), "long"]


def test_no_long_job_starves_under_a_stream_of_its_callers_short_ones(queue: Queue) -> None:
    queue.submit("long", job_of("one", num_rows=10))
    taken = []
    for i in range(30):
        queue.submit(f"short {i}", job_of("one"))
        taken.append(queue.take())
    assert taken.index("long") <= 10


def test_the_cost_of_a_canceled_job_is_given_back(queue: Queue) -> None:
    batch = [queue.submit(f"a{i}", job_of("a")) for i in range(10)]
    for i in range(3):
        queue.submit(f"b{i}", job_of("b"))
    for job_id in batch[:9]:
        queue.records.cancel(job_id)
    queue.submit("a10", job_of("a"))
    assert queue.take_all() == ["a9", "b0", "b1", "a10", "b2"]


def test_canceling_a_cheap_job_makes_a_dear_one_no_cheaper(queue: Queue) -> None:
    cheap = queue.submit("cheap", job_of("a"))
    queue.submit("dear", job_of("a", num_rows=5))
    for i in range(6):
        queue.submit(f"b{i}", job_of("b"))
    queue.records.cancel(cheap)
    assert queue.take_all() == ["b0", "b1", "b2", "b3", "dear", "b4", "b5"]


def test_the_cost_of_an_expired_job_is_given_back(queue: Queue) -> None:
    past = queue.records.now() - 1
    for i in range(4):
        queue.submit(f"late {i}", job_of("a", deadline_at=past))
    queue.submit("in time", job_of("a"))
    queue.submit("other", job_of("b"))
    queue.records.expire_queued()
    queue.submit("next", job_of("a"))
    assert queue.take_all() == ["in time", "other", "next"]


@pytest.mark.parametrize("num_rows", [1, 5])
def test_a_job_that_was_put_back_is_the_first(queue: Queue, num_rows: int) -> None:
    put_back = queue.submit("put back", job_of("a", num_rows))
    assert queue.take() == "put back"
    for caller in "abc":
        queue.submit(caller, job_of(caller, priority="high"))
    queue.records.release({put_back: 1})
    assert queue.position(put_back) == 0
    assert queue.take() == "put back"


def test_groups_without_room_are_passed_over_and_lose_nothing_by_it(queue: Queue) -> None:
    models = ("full", "m")
    for i in range(2):
        queue.submit(f"waits {i}", job_of("a", model="full"))
    for i in range(4):
        queue.submit(f"goes {i}", job_of("b"))
    room = Room(1, 1, {"full": 0})
    assert [queue.take(room, models) for _ in range(3)] == ["goes 0", "goes 1", "goes 2"]
    queue.submit("goes 4", job_of("c"))
    assert queue.take_all(ONE, models) == ["waits 0", "waits 1", "goes 3", "goes 4"]


def test_a_claim_for_groups_in_hand_alone_takes_of_no_other(queue: Queue) -> None:
    models = ("m", "n", "o")
    for model in "nomnom":
        queue.submit(model, job_of("a", model=model))
    assert queue.take_all(Room(9, 0, {"m": 9, "n": 1}), models) == ["m n m", "n"]


def test_when_a_dear_job_is_gone_all_its_callers_later_ones_stand_as_without_it(
    queue: Queue,
) -> None:
    dear = queue.submit("dear", job_of("a", num_rows=100))
    for i in range(5):
        queue.submit(f"a{i}", job_of("a"))
    for i in range(20):
        queue.submit(f"b{i}", job_of("b"))
    queue.records.cancel(dear)
    assert queue.take_all()[:10] == [f"{caller}{i}" for i in range(5) for caller in "ab"]


def test_a_newcomer_to_a_slow_model_waits_for_one_job_of_another_though_a_fast_one_ran_ahead(
    queue: Queue,
) -> None:
    for i in range(20):
        queue.submit(f"slow {i}", job_of("hog", model="slow"))
        queue.submit(f"fast {i}", job_of("other", model="fast"))
    assert [queue.take(models=("slow",)) for _ in range(2)] == ["slow 0", "slow 1"]
    for _ in range(20):
        queue.take(models=("fast",))
    queue.submit("guest", job_of("guest", model="slow"))
    assert [queue.take(models=("slow",)) for _ in range(2)] == ["slow 2", "guest"]


def test_a_newcomer_to_a_group_without_room_does_not_wait_for_all_that_waited_there(
    queue: Queue,
) -> None:
    for _ in range(30):
        enqueue(queue.redis, sized_job("hog", "normal", "m", WIDTHS[0], 1))
        enqueue(queue.redis, sized_job("other", "normal", "m", WIDTHS[1], 1))
    records, groups = queue.records, [f"m/{width * 1024}" for width in WIDTHS]
    for _ in range(25):
        records.claim(Task.IMAGES, "worker", 60.0, ["m"], Room(1, 1, {groups[0]: 0}))
    enqueue(queue.redis, sized_job("guest", "normal", "m", WIDTHS[0], 1))
    room = Room(5, 5, {groups[1]: 0})
    claimed = records.claim(Task.IMAGES, "worker", 60.0, ["m"], room).records
    assert [record.job.caller for record in claimed].index("guest") <= 4


def test_models_that_one_worker_serves_take_turns_by_work(queue: Queue) -> None:
    for i in range(8):
        queue.submit(f"cheap {i}", job_of("a", model="m"))
    for i in range(2):
        queue.submit(f"dear {i}", job_of("a", num_rows=4, model="n"))
    taken = queue.take_all(models=("m", "n"))
    cheap = [f"cheap {i}" for i in range(8)]
    assert taken == ["cheap 0", "dear 0", *cheap[1:4], "cheap 4", "dear 1", *cheap[5:]]


def test_a_model_that_comes_has_no_more_saved_up_than_one_that_waited_in_vain(
    queue: Queue,
) -> None:
    queue.submit("old", job_of("a", model="old"))
    for i in range(12):
        queue.submit(f"m{i}", job_of("a"))
    for _ in range(6):
        queue.take()
    for i in range(6):
        queue.submit(f"new {i}", job_of("a", model="new"))
    taken = queue.take_all(models=("m", "new", "old"))
    assert taken[:5] == ["old", "new 0", "m6", "new 1", "m7"]


def test_a_claim_of_several_goes_by_turns_across_models(queue: Queue) -> None:
    for i in range(3):
        for caller, model in (("a", "m"), ("b", "n")):
            queue.submit(f"{caller}{i}", job_of(caller, model=model))
    assert queue.take(WITHOUT_LIMIT, ("m", "n")) == "a0 b0 a1 b1 a2 b2"


def test_positions_are_the_order_in_which_jobs_are_taken(queue: Queue) -> None:
    flows: list[tuple[str, Priority]] = [("a", "normal"), ("b", "high"), ("c", "low")]
    ids = [
        queue.submit(f"{caller}{i}", job_of(caller, priority=priority))
        for i in range(3)
        for caller, priority in flows
    ]
    by_position = sorted(ids, key=lambda job_id: queue.position(job_id) or 0)
    assert [queue.position(job_id) for job_id in by_position] == list(range(9))
    assert queue.take_all() == [queue.names[job_id] for job_id in by_position]
    assert queue.position(ids[0]) is None


@pytest.fixture
def records(redis: Redis) -> Records:
    return Records(redis, result_ttl_s=3600.0)


def num_calls(redis: Redis) -> int:
    """How many commands the server has run, those of scripts included."""
    stats = redis.info("commandstats")
    return sum(int(each["calls"]) for each in stats.values())


def test_a_claim_among_a_thousand_callers_and_groups_makes_no_more_calls_than_among_ten(
    redis: Redis, records: Records
) -> None:
    def submit(num_jobs: int) -> None:
        for i in range(num_jobs):
            job = image_job().model_copy(update={"width": 16 * (i + 1), "caller": f"caller {i}"})
            enqueue(redis, job)

    def calls_of_a_claim() -> int:
        before = num_calls(redis)
        [_] = records.claim(Task.IMAGES, "worker", 60.0, ["flux_shapes"], ONE).records
        return num_calls(redis) - before

    submit(10)
    calls_of_a_claim()  # the script is known to the server from here on
    few = calls_of_a_claim()
    submit(1000)
    assert calls_of_a_claim() <= few


WIDTHS = (512, 1024)  # two groups of each model, and costs that are exact


def sized_job(caller: str, priority: Priority, model: str, width: int, num_steps: int) -> ImageJob:
    return image_job(num_steps=num_steps).model_copy(
        update={
            "caller": caller,
            "priority": priority,
            "model": model,
            "width": width,
            "height": 1024,
        }
    )


@dataclass
class Waiting:
    job: ImageJob
    number: int  # in the order of arrival
    work: float
    own: float
    turn: float | None = None  # the first of its flow has one
    is_back: bool = False

    @property
    def flow(self) -> tuple[str, Priority]:
        return self.job.caller, self.job.priority


@dataclass
class Oracle:
    """The policy over a plain list, as `waiting_scripts` states it."""

    jobs: list[Waiting] = field(default_factory=list)
    virtual: float = 0.0  # of the models
    taken_of: dict[str, float] = field(default_factory=dict)  # work, by model
    clocks: dict[str, float] = field(default_factory=dict)  # virtual, by model
    longest: dict[str, float] = field(default_factory=dict)  # work, by model
    served: dict[tuple[str, tuple[str, Priority]], float] = field(default_factory=dict)
    num_arrived: int = 0

    def submit(self, job: ImageJob) -> None:
        self.num_arrived += 1
        weight = {"high": 8.0, "normal": 1.0, "low": 1 / 8}[job.priority]
        work = cost_of(job) / weight
        own = self.clocks.get(job.model, 0.0) + work
        self._add(Waiting(job, self.num_arrived, work, own), own)
        self.longest[job.model] = max(self.longest[job.model], work)

    def put_back(self, waiting: Waiting) -> None:
        waiting.own, waiting.turn, waiting.is_back = 0.0, None, True
        self._add(waiting, self.clocks.get(waiting.job.model, 0.0))

    def take(self, open_groups: set[str]) -> Waiting | None:
        while True:
            heads = [job for job in self._heads() if group_of(job.job) in open_groups]
            if not heads:
                return None
            model = min({job.job.model for job in heads}, key=lambda m: (self.taken_of[m], m))
            of_model = [job for job in heads if job.job.model == model]
            first = min(of_model, key=lambda job: (job.turn, group_of(job.job), job.number))
            assert first.turn is not None
            served = self.served.get((model, first.flow), 0.0)
            if first.is_back or served + first.work <= first.turn:
                break
            first.turn = served + first.work
        self._put_off_late(first.job)
        self.clocks[model] = max(self.clocks[model], first.turn)
        self.served[model, first.flow] = max(served, first.turn)
        self.virtual = max(self.virtual, self.taken_of[model])
        self.taken_of[model] = self.virtual + first.work
        self._remove(first, self.served[model, first.flow])
        return first

    def _put_off_late(self, job: ImageJob) -> None:
        heads = [each for each in self._heads() if group_of(each.job) == group_of(job)]
        least = min((each.turn or 0.0 for each in heads), default=math.inf)
        late = self.clocks[job.model] - self.longest[job.model] - least
        for each in heads:
            each.turn = (each.turn or 0.0) + max(0.0, late)

    def cancel(self, job_id: str) -> None:
        [job] = [job for job in self.jobs if job.job.id == job_id]
        paid = 0.0 if job.is_back else job.work
        self._remove(job, (job.turn or 0.0) - paid)

    def _heads(self) -> list[Waiting]:
        return [job for job in self.jobs if job.turn is not None]

    def _share_of(self, job: Waiting) -> list[Waiting]:
        key = group_of(job.job), job.flow
        return [each for each in self.jobs if (group_of(each.job), each.flow) == key]

    def _add(self, job: Waiting, turn: float) -> None:
        model = job.job.model
        self.taken_of.setdefault(model, self.virtual)
        self.clocks.setdefault(model, 0.0)
        self.longest.setdefault(model, 0.0)
        job.turn = None
        self.jobs.append(job)
        share = self._share_of(job)
        if min(share, key=lambda each: (each.own, each.number)) is job:
            self._put_off_late(job.job)
            work = 0.0 if job.is_back else job.work
            starts = [each.turn - each.work for each in share if each.turn is not None]
            for each in share:
                each.turn = None
            job.turn = min([turn, *(start + work for start in starts)])
        else:
            job.turn = None

    def _remove(self, job: Waiting, start: float) -> None:
        model = job.job.model
        self.jobs.remove(job)
        share = self._share_of(job)
        if job.turn is not None and share:
            first = min(share, key=lambda each: (each.own, each.number))
            first.turn = start + first.work
        of_model = [each for each in self.jobs if each.job.model == model]
        if not any(each.flow == job.flow for each in of_model):
            self.served.pop((model, job.flow), None)
        if not of_model:
            del self.taken_of[model], self.clocks[model], self.longest[model]
        if not self.jobs:
            self.virtual = 0.0


def agree(redis: Redis, live: dict[str, ImageJob]) -> None:
    """Everything that says who waits says the same."""
    ids = waiting(redis, Task.IMAGES)
    assert len(ids) == len(set(ids))
    assert sorted(ids) == sorted(live)
    assert redis.zcard(f"triptych:waiting:{Task.IMAGES}") == len(ids)
    assert redis.exists(f"triptych:wake:{Task.IMAGES}") == bool(ids)
    counts = Counter(f":{job.caller}" for job in live.values())
    counts.update({"all": len(live)} if live else {})
    assert decoded(redis.hgetall(f"triptych:num_waiting:{Task.IMAGES}").items()) == {
        name: str(count) for name, count in counts.items()
    }
    models = {job.model for job in live.values()}
    assert set(members(redis, f"triptych:models:{Task.IMAGES}")) == models
    for model in models:
        groups = {group_of(job) for job in live.values() if job.model == model}
        assert set(members(redis, f"triptych:groups:{Task.IMAGES}:{model}")) == groups
        for group in groups:
            [first, *_] = members(redis, f"triptych:heads:{Task.IMAGES}:{group}")
            least = redis.zscore(f"triptych:heads:{Task.IMAGES}:{group}", first)
            assert redis.zscore(f"triptych:groups:{Task.IMAGES}:{model}", group) == least
    flows = Counter((job.priority, job.caller, group_of(job)) for job in live.values())
    for (priority, caller, group), num in flows.items():
        assert redis.zcard(f"triptych:flow:{Task.IMAGES}:{priority}:{caller}:{group}") == num
    with redis.pipeline() as pipeline:
        for job_id in rq_list(redis, Task.IMAGES):
            pipeline.hget(record_key(job_id), "place")
        assert [int(place) for place in pipeline.execute()] == list(range(len(ids)))


def members(redis: Redis, key: str) -> list[str]:
    return [as_text(member) for member in cast(list[bytes], redis.zrange(key, 0, -1))]


def things_to_do(rng: random.Random) -> Iterator[str]:
    for _ in range(200):
        yield rng.choices(["submit", "take", "cancel", "release", "finish"], [5, 3, 1, 1, 1])[0]


@pytest.mark.parametrize("seed", range(3))
def test_whatever_happens_the_order_is_the_policys_and_all_that_is_kept_agrees(
    redis: Redis, records: Records, seed: int
) -> None:
    rng = random.Random(seed)
    oracle = Oracle()
    live: dict[str, ImageJob] = {}
    running: dict[str, tuple[int, Waiting]] = {}
    callers, models = ("x", "y", "z"), ("a", "b")
    groups = [f"{model}/{width * 1024}" for model in models for width in WIDTHS]

    def take(open_groups: set[str]) -> None:
        rows = {group: int(group in open_groups) for group in groups}
        claimed = records.claim(Task.IMAGES, "worker", 60.0, models, Room(1, 1, rows)).records
        expected = oracle.take(open_groups)
        assert [record.id for record in claimed] == ([] if expected is None else [expected.job.id])
        for record in claimed:
            assert expected is not None
            del live[record.id]
            running[record.id] = record.attempt, expected

    def finish(job_id: str) -> None:
        attempt, _ = running.pop(job_id)
        assert records.finish([Finished(job_id, attempt, JobState.CANCELED)]) == [True]

    for number, thing in enumerate(things_to_do(rng)):
        if thing == "submit":
            priority: Priority = rng.choice(["high", "normal", "low"])
            width, num_steps = rng.choice(WIDTHS), rng.randint(1, 9)
            job = sized_job(rng.choice(callers), priority, rng.choice(models), width, num_steps)
            enqueue(redis, job)
            oracle.submit(job)
            live[job.id] = job
        elif thing == "take":
            take(set(rng.sample(groups, rng.randint(1, 4))))
        elif thing == "cancel" and live:
            job = live.pop(rng.choice(sorted(live)))
            records.cancel(job.id)
            oracle.cancel(job.id)
        elif thing == "release" and running:
            job_id = rng.choice(sorted(running))
            attempt, waits = running.pop(job_id)
            assert records.release({job_id: attempt}) == []
            oracle.put_back(waits)
            live[job_id] = waits.job
        elif thing == "finish" and running:
            finish(rng.choice(sorted(running)))
        if number % 10 == 0:
            agree(redis, live)

    while live:
        take(set(groups))
    for job_id in list(running):
        finish(job_id)
    assert rq_list(redis, Task.IMAGES) == []
    assert open_queue(redis, Task.IMAGES).started_job_registry.get_job_ids() == []
    kept = {as_text(key) for key in redis.scan_iter() if redis.ttl(key) == -1}
    assert kept == {"rq:queues", "rq:failed:triptych-images"}


@dataclass
class Crowd:
    """Callers who always have jobs of every group waiting, and what was done for each."""

    redis: Redis
    records: Records
    rng: random.Random
    models: tuple[str, ...]
    callers: tuple[str, ...] = ("x", "y", "z")
    work: defaultdict[tuple[str, str], float] = field(  # by model and caller
        default_factory=lambda: defaultdict(float)
    )
    live: dict[str, ImageJob] = field(default_factory=dict)

    @property
    def groups(self) -> list[str]:
        return [f"{model}/{width * 1024}" for model in self.models for width in WIDTHS]

    def submit(self, caller: str, model: str, width: int, num_steps: int | None = None) -> str:
        num_steps = num_steps or self.rng.randint(1, MOST_STEPS)
        job = sized_job(caller, "normal", model, width, num_steps)
        enqueue(self.redis, job)
        self.live[job.id] = job
        return job.id

    def fill_up(self, num_jobs: int = 3) -> None:
        has = Counter((job.caller, job.model, job.width) for job in self.live.values())
        for key in itertools.product(self.callers, self.models, WIDTHS):
            for _ in range(num_jobs - has[key]):
                self.submit(*key)

    def take(self, open_groups: Collection[str]) -> ImageJob | None:
        rows = {group: int(group in open_groups) for group in self.groups}
        room = Room(1, 1, rows)
        for record in self.records.claim(Task.IMAGES, "w", 60.0, self.models, room).records:
            job = self.live.pop(record.id)
            self.work[job.model, job.caller] += cost_of(job)
            self.records.finish([Finished(job.id, record.attempt, JobState.CANCELED)])
            return job
        return None

    def cancel_one(self) -> None:
        job = self.live.pop(self.rng.choice(list(self.live)))  # not by id, which is by chance
        self.records.cancel(job.id)

    def some_groups(self) -> list[str]:
        return self.rng.sample(self.groups, self.rng.randint(1, len(self.groups)))


MOST_STEPS = 8
LARGEST = float(MOST_STEPS)  # the cost of a job


@pytest.mark.parametrize("has_cancels", [False, True])
@pytest.mark.parametrize("have_all_room", [True, False])
def test_callers_that_always_wait_get_the_same_work_of_each_model(
    redis: Redis, records: Records, has_cancels: bool, have_all_room: bool
) -> None:
    crowd = Crowd(redis, records, random.Random(1), ("a", "b"))
    for number in range(150):
        crowd.fill_up()
        if has_cancels and number % 2:
            crowd.cancel_one()
            crowd.fill_up()
        crowd.take(crowd.groups if have_all_room else crowd.some_groups())
        for model in crowd.models:
            done = [crowd.work[model, caller] for caller in crowd.callers]
            assert max(done) - min(done) <= LARGEST


def test_models_that_always_wait_get_the_same_work(redis: Redis, records: Records) -> None:
    crowd = Crowd(redis, records, random.Random(2), ("a", "b", "c"))
    for _ in range(100):
        crowd.fill_up()
        crowd.take(crowd.groups)
        done = [sum(crowd.work[model, name] for name in crowd.callers) for model in crowd.models]
        assert max(done) - min(done) <= LARGEST


@pytest.mark.parametrize("have_all_room", [True, False])
@pytest.mark.parametrize("seed", range(3))
def test_a_newcomers_first_job_waits_for_no_more_work_of_another_than_its_largest_job(
    redis: Redis, records: Records, seed: int, have_all_room: bool
) -> None:
    crowd = Crowd(redis, records, random.Random(seed), ("a", "b"))
    for number in range(40):
        crowd.fill_up()
        if number % 3 == 0:
            crowd.cancel_one()
        crowd.take(crowd.groups if have_all_room else crowd.some_groups())
    crowd.fill_up(12)
    guest = crowd.submit("guest", "a", WIDTHS[0], num_steps=1)
    crowd.work.clear()
    groups = crowd.groups if have_all_room else [f"a/{WIDTHS[0] * 1024}"]
    while guest in crowd.live:
        crowd.take(groups)
    assert max(crowd.work["a", caller] for caller in crowd.callers) <= LARGEST
