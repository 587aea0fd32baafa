"""Which models a client can name: what the living workers say that they serve.

The API has no list of its own. Reads are kept for a second, as a worker that dies is missed for
longer anyway; nothing is refused on the word of an old one.
"""

import time
from collections import defaultdict
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass

from anyio import to_thread
from redis import Redis

from service.errors import ModelNotFoundError, UnavailableError
from worker.contract import model_cards, workers
from worker.contract.jobs import Task
from worker.contract.model_cards import ModelCard
from worker.contract.workers import ModelState, ServedModel, WorkerStatus

_KEEP_S = 1.0
_LOADING_RETRY_S = 5  # soon enough for a small model; a large one's progress says more


@dataclass(frozen=True, slots=True)
class Model:
    """A model as the best of its workers has it; the card is there once it is ready."""

    name: str
    task: Task
    aliases: tuple[str, ...]
    state: ModelState
    progress: str | None
    card: ModelCard | None
    is_warm: bool  # a worker that takes jobs has it


@dataclass(frozen=True, slots=True)
class Models:
    """All models at one time, by task and in their workers' order."""

    all: tuple[Model, ...]
    tasks: frozenset[Task]  # those with a living worker
    read_at: float  # of `time.monotonic`

    def find(self, name: str | None, task: Task | None) -> Model | None:
        """By name or alias, or the first of the task."""
        of_task = [model for model in self.all if task in (None, model.task)]
        if name is None:
            return next(iter(of_task), None)
        return next((m for m in of_task if name == m.name or name in m.aliases), None)

    def names(self, task: Task | None) -> list[str]:
        of_task = [model for model in self.all if task in (None, model.task)]
        aliases = [alias for model in of_task for alias in model.aliases]
        return [*(model.name for model in of_task), *aliases]


class Catalog:
    def __init__(self, redis: Redis, expected_tasks: Collection[Task]) -> None:
        """`expected_tasks` are those that will have workers; empty where that is not known."""
        self._redis = redis
        self._expected_tasks = expected_tasks
        self._cards: Mapping[str, ModelCard] = {}  # by digest; a card never changes
        self._last: Models | None = None

    async def models(self) -> Models:
        """Every model that some worker serves now."""
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
            if task not in models.tasks and (
                not self._expected_tasks or task in self._expected_tasks
            ):
                raise UnavailableError("no_workers", f"{task}: no living worker")
            raise ModelNotFoundError(name, models.names(task))
        if model.card is None:
            raise _not_ready(model)
        return model.card

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
        self._cards = {d: card for d, card in {**self._cards, **new}.items() if d in digests}
        tasks = frozenset(status.task for status in statuses)
        return Models(tuple(self._merge(statuses)), tasks, read_at)

    def _merge(self, statuses: Sequence[WorkerStatus]) -> Iterator[Model]:
        """One of each name, though several workers may serve it."""
        offers = defaultdict(list)
        for status in statuses:
            for position, served in enumerate(status.models):
                offers[status.task, served.name].append((position, status, served))

        def order(key: tuple[Task, str]) -> tuple[int, int, str]:
            task, name = key
            return list(Task).index(task), min(position for position, *_ in offers[key]), name

        for key in sorted(offers, key=order):
            yield self._best([(status, served) for _, status, served in offers[key]])

    def _best(self, offers: Sequence[tuple[WorkerStatus, ServedModel]]) -> Model:
        """The model as the readiest of its workers has it, of several the newest."""
        status, served = max(
            offers,
            key=lambda offer: (
                self._card(offer[1]) is not None,
                offer[1].state is ModelState.LOADING,
                offer[0].started_at,
            ),
        )
        return Model(
            name=served.name,
            task=status.task,
            aliases=served.aliases,
            state=served.state,
            progress=served.progress,
            card=self._card(served),
            is_warm=any(s.state.is_warm and self._card(m) is not None for s, m in offers),
        )

    def _card(self, served: ServedModel) -> ModelCard | None:
        return None if served.card is None else self._cards.get(served.card)


def _not_ready(model: Model) -> UnavailableError:
    if model.state is ModelState.FAILED:
        message = f"model {model.name} could not be loaded; its worker's log says why"
        return UnavailableError("model_unusable", message)
    progress = "" if model.progress is None else f": {model.progress}"
    message = f"model {model.name} is loading{progress}"
    return UnavailableError("model_loading", message, _LOADING_RETRY_S)
