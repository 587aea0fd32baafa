"""The list of living workers."""

from redis import Redis

from tests.cards import card_of
from worker.contract import model_cards, workers
from worker.contract.jobs import Task
from worker.contract.workers import ModelState, ServedModel, WorkerState, WorkerStatus


def status(name: str, state: WorkerState = WorkerState.IDLE) -> WorkerStatus:
    return WorkerStatus(
        name=name,
        task=Task.IMAGES,
        state=state,
        pid=42,
        host="host",
        device="cpu",
        models=(
            ServedModel(name="a", aliases=("x", "y"), state=ModelState.LOADING, progress="half"),
            ServedModel(name="b", state=ModelState.FAILED),
        ),
        started_at=1.5,
        heartbeat_at=2.5,
    )


def test_what_workers_write_is_read_in_the_order_of_names(redis: Redis) -> None:
    second, first = status("b"), status("a", WorkerState.LOADING)
    workers.write(redis, second)
    workers.write(redis, first)
    assert workers.read_all(redis) == [first, second]


def test_a_worker_says_that_it_lives_on_a_server_that_is_full(redis: Redis) -> None:
    card = card_of("a", Task.IMAGES)
    redis.config_set("maxmemory", 1)
    try:
        workers.write(redis, status("a"), [card])
        assert workers.read_all(redis) == [status("a")]
        assert model_cards.read(redis, [card.digest]) == {card.digest: card}
    finally:
        redis.config_set("maxmemory", 0)


def test_a_worker_that_falls_silent_is_gone_after_the_ttl(redis: Redis) -> None:
    workers.write(redis, status("a"))
    assert 0 < redis.ttl(workers.worker_key("a")) <= workers.STATUS_TTL_S
    redis.delete(workers.worker_key("a"))  # as the server does then
    assert workers.read_all(redis) == []


def test_a_worker_that_leaves_is_gone_at_once(redis: Redis) -> None:
    workers.write(redis, status("a"))
    workers.remove(redis, "a")
    assert workers.read_all(redis) == []


def test_idle_and_busy_workers_are_warm() -> None:
    assert [state for state in WorkerState if state.is_warm] == ["idle", "busy"]
