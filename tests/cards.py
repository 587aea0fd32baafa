"""Model cards as workers would publish them, with the names and limits of the bundled presets."""

import time
from collections.abc import Mapping

from redis import Redis

from worker.contract import workers
from worker.contract.jobs import Task
from worker.contract.model_cards import ModelCard, card_key
from worker.contract.workers import ModelState, ServedModel, WorkerState, WorkerStatus, worker_key
from worker.image_limits import preset_limits

_KNOWN = {"license": "apache-2.0", "num_parameters": 3, "memory_bytes": 12, "dtype": "float32"}
RESULTS_DIGEST = "5e" * 32
SHAPES_LIMITS = preset_limits("flux_shapes")
LABELS = tuple(f"label {i}" for i in range(112))


def card_of(name: str, task: Task, **changes: object) -> ModelCard:
    of_task: Mapping[Task, dict[str, object]] = {
        Task.IMAGES: {"family": "FluxBackbone", "image_limits": SHAPES_LIMITS},
        Task.CLASSIFY: {"family": "ViTBackbone", "labels": LABELS},
        Task.EMBEDDINGS: {
            "family": "FNetBackbone",
            "embedding_width": 128,
            "max_tokens": 512,
            "num_special_tokens": 2,
            "vocabulary_size": 1000,
        },
    }
    fields = {
        "name": name,
        "task": task,
        "device": "cpu",
        "results_digest": RESULTS_DIGEST,
        **_KNOWN,
        **of_task[task],
        **changes,
    }
    return ModelCard.model_validate(fields)


SHAPES = (
    card_of("flux_shapes", Task.IMAGES),
    card_of("vit_shapes", Task.CLASSIFY),
    card_of("f_net_shapes", Task.EMBEDDINGS),
)


def ready(card: ModelCard, *aliases: str) -> ServedModel:
    return ServedModel(
        name=card.name,
        aliases=aliases,
        state=ModelState.READY,
        card=card.digest,
        results_digest=card.results_digest,
    )


def status_of(
    task: Task,
    state: WorkerState,
    models: tuple[ServedModel, ...] = (),
    name: str | None = None,
    started_at: float | None = None,
) -> WorkerStatus:
    now = time.time() if started_at is None else started_at
    return WorkerStatus(name or f"{task}-0", task, state, 1, "host", "cpu", models, now, now)


def publish(
    redis: Redis,
    *cards: ModelCard,
    aliases: tuple[str, ...] = (),
    state: WorkerState = WorkerState.IDLE,
    name: str | None = None,
) -> None:
    """Let one worker of each task serve these, without an end; aliases are the first one's."""
    for task in {card.task for card in cards}:
        of_task = [card for card in cards if card.task is task]
        models = tuple(ready(c, *(aliases if c is cards[0] else ())) for c in of_task)
        status = status_of(task, state, models, name)
        workers.write(redis, status, of_task)
        for key in (worker_key(status.name), *(card_key(card.digest) for card in of_task)):
            redis.persist(key)
