"""Which models a client can name: what the living workers say that they serve.

The API has no list of its own. Reads are kept for a second, as a worker that dies is missed for
longer anyway; nothing is refused on the word of an old one. Two reads a second in the background
keep requests from waiting for theirs.
"""

import math
import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from anyio import to_thread
from redis import Redis

from service.background import repeat
from service.errors import ModelNotFoundError, ServiceError, UnavailableError
from service.redis_health import RedisHealth
from worker.contract import model_cards, workers
from worker.contract.jobs import Task
from worker.contract.model_cards import ModelCard
from worker.contract.workers import ModelState, ServedModel, WorkerStatus

_KEEP_S = 1.0
_REFRESH_S = 0.5
_RESTART_S = 60.0  # how long a model is missed before it is unknown: its worker may come back
_UNUSABLE_RETRY_S = 30  # a worker's `load_retry_s`
_LOADING_RETRY_S = 5  # soon enough for a small model; a large one's progress says more

# What clients of OpenAI insist on; here they mean the default model of the task.
OPENAI_NAMES: Mapping[Task, tuple[str, ...]] = {
    Task.IMAGES: (
        "gpt-image-1",
        "gpt-image-1-mini",
        "gpt-image-1.5",
        "gpt-image-2",
        "chatgpt-image-latest",
        "dall-e-2",
        "dall-e-3",
    ),
    Task.EMBEDDINGS: (
        "text-embedding-3-small",
        "text-embedding-3-large",
        "text-embedding-ada-002",
    ),
}


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the readiest of its workers has it; the card is there once jobs are taken."""

    name: str
    task: Task
    aliases: tuple[str, ...]
    state: ModelState
    progress: str | None
    reason: str | None  # why it could not be loaded
    load_s: float | None
    card: ModelCard | None
    is_warm: bool  # a worker that takes jobs has it


@dataclass(frozen=True, slots=True)
class Models:
    """All models at one time, by task and in their workers' order."""

    all: tuple[Model, ...]
    tasks: frozenset[Task]  # those with a living worker
    read_at: float  # of `time.monotonic`

    def find(self, name: str | None, task: Task | None) -> Model | None:
        """By name, else by alias; where no name is given, the first of the task."""
        of_task = [model for model in self.all if task in (None, model.task)]
        if name is None:
            return next(iter(of_task), None)
        named = (model for model in of_task if model.name == name)
        return next(named, None) or next((m for m in of_task if name in m.aliases), None)

    def names(self, task: Task | None) -> list[str]:
        of_task = [model for model in self.all if task in (None, model.task)]
        aliases = [alias for model in of_task for alias in model.aliases]
        return [*(model.name for model in of_task), *aliases]


class Catalog:
    def __init__(
        self,
        redis: Redis,
        health: RedisHealth,
        expected_tasks: Collection[Task],
        knows_openai_names: bool,
    ) -> None:
        """`expected_tasks` are those that will have workers; empty where that is not known."""
        self._redis = redis
        self._health = health
        self._expected_tasks = expected_tasks
        self._knows_openai_names = knows_openai_names
        self._cards: Mapping[str, ModelCard] = {}  # by digest; a card never changes
        self._last: Models | None = None
        self._seen_at: dict[tuple[Task, str | None], float] = {}  # names and aliases

    async def keep_fresh(self) -> None:
        """Read in the background, until canceled."""
        # where it fails, requests try by themselves, and say so
        await repeat(self.models, _REFRESH_S, "catalog_not_read")

    async def models(self) -> Models:
        """Every model that some worker serves now."""
        self._health.check_answers()
        self._last = await to_thread.run_sync(self._read)
        return self._last

    async def card(self, name: str | None, task: Task) -> ModelCard:
        """The card of a model that is ready, by its name or an alias, or of the task's first.

        Raises ModelNotFoundError for an unknown name; UnavailableError while the model is loading,
        where it could not be loaded, and where the task has no worker.
        """
        models = self._last
        model = None if models is None else models.find(name, task)
        is_old = models is None or time.monotonic() - models.read_at > _KEEP_S
        if is_old or model is None or model.card is None:
            models = await self.models()
            model = models.find(name, task)
        assert models is not None, "this is a bug: nothing was read"
        if model is None:
            raise self._missing(name, task, models)
        if model.card is None:
            raise _not_ready(model)
        return model.card

    def _missing(self, name: str | None, task: Task, models: Models) -> ServiceError:
        is_expected = not self._expected_tasks or task in self._expected_tasks
        if task not in models.tasks and is_expected:
            return UnavailableError("no_workers", f"{task}: no living worker")
        if time.monotonic() - self._seen_at.get((task, name), -math.inf) < _RESTART_S:
            return UnavailableError("no_workers", f"model {name}: no living worker")
        return ModelNotFoundError(name, models.names(task))

    async def model(self, name: str) -> Model:
        """A model of any task and in any state; raises ModelNotFoundError."""
        models = await self.models()
        model = models.find(name, None)
        if model is None:
            raise ModelNotFoundError(name, models.names(None))
        return model

    def _read(self) -> Models:
        read_at = time.monotonic()
        statuses = workers.read_all(self._redis)
        digests = {m.card for status in statuses for m in status.models if m.card is not None}
        new = model_cards.read(self._redis, sorted(digests - self._cards.keys()))
        cards = {d: card for d, card in {**self._cards, **new}.items() if d in digests}
        self._cards = cards  # another thread's read may replace them before this one is over
        tasks = frozenset(status.task for status in statuses)
        models = tuple(_merge(statuses, cards))
        if self._knows_openai_names:
            models = tuple(_with_openai_names(models))
        names = ((m.task, name) for m in models for name in (m.name, *m.aliases))
        self._seen_at |= dict.fromkeys(names, read_at)
        return Models(models, tasks, read_at)


def _merge(statuses: Sequence[WorkerStatus], cards: Mapping[str, ModelCard]) -> Iterator[Model]:
    """One of each name, though several workers may serve it."""
    offers = defaultdict(list)
    for status in statuses:
        for position, served in enumerate(status.models):
            offers[status.task, served.name].append((position, status, served))

    def order(key: tuple[Task, str]) -> tuple[int, int, float, str]:
        """By task and position; of two first ones the older comes first, and stays default."""
        place, started_at = min((place, status.started_at) for place, status, _ in offers[key])
        return list(Task).index(key[0]), place, started_at, key[1]

    for key in sorted(offers, key=order):
        yield _best([(status, served) for _, status, served in offers[key]], cards)


def _with_openai_names(models: Sequence[Model]) -> Iterator[Model]:
    """The first model of a task takes OpenAI's names for it, but for those that are served."""
    served = {name for model in models for name in (model.name, *model.aliases)}
    defaults = {model.task: model for model in reversed(models)}
    for model in models:
        names = OPENAI_NAMES.get(model.task, ()) if model is defaults[model.task] else ()
        free = [name for name in names if name not in served]
        yield replace(model, aliases=(*model.aliases, *free))


def _best(
    offers: Sequence[tuple[WorkerStatus, ServedModel]], cards: Mapping[str, ModelCard]
) -> Model:
    """The model as the readiest of its workers has it, of several the newest."""

    def readiness(offer: tuple[WorkerStatus, ServedModel]) -> tuple[bool, bool, float]:
        status, served = offer
        may_come = served.state is not ModelState.FAILED
        return _card(served, cards) is not None, may_come, status.started_at

    status, served = max(offers, key=readiness)
    return Model(
        name=served.name,
        task=status.task,
        aliases=served.aliases,
        state=served.state,
        progress=served.progress,
        reason=served.reason,
        load_s=served.load_s,
        card=_card(served, cards),
        is_warm=any(s.state.is_warm and _card(m, cards) is not None for s, m in offers),
    )


def _card(served: ServedModel, cards: Mapping[str, ModelCard]) -> ModelCard | None:
    return None if served.card is None else cards.get(served.card)


def _not_ready(model: Model) -> UnavailableError:
    if model.state is ModelState.FAILED:
        why = "; its worker's log says why" if model.reason is None else f": {model.reason}"
        message = f"model {model.name} could not be loaded{why}"
        return UnavailableError("model_unusable", message, _UNUSABLE_RETRY_S)
    progress = "" if model.progress is None else f": {model.progress}"
    message = f"model {model.name} is loading{progress}"
    return UnavailableError("model_loading", message, _LOADING_RETRY_S)
