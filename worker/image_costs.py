"""What the denoise steps of each model cost: measured early, refined by those that run.

The scheduler asks it how many rows pay. Knows nothing of jobs.
"""

import logging
from collections.abc import Sequence

from worker.contract.jobs import Task
from worker.contract.model_cards import ImageLimits
from worker.image_run import ImageRow
from worker.metrics import WorkerMetrics, pixels_bucket
from worker.row_scheduler import Group
from worker.step_costs import StepCosts

logger = logging.getLogger(__name__)


class ImageCosts:
    def __init__(self, metrics: WorkerMetrics) -> None:
        self._metrics = metrics
        self._by_model: dict[str, StepCosts] = {}

    def of(self, model: str) -> StepCosts:
        return self._by_model[model]

    def places_that_pay(self, group: Group) -> int:
        return self._by_model[group.model].places_that_pay(group.row_tokens)

    def step_s(self, group: Group, num_places: int, loras: frozenset[str]) -> float:
        return self._by_model[group.model].step_s(group.row_tokens, num_places, loras)

    def expect(self, model: str, limits: ImageLimits) -> None:
        """Have costs of a model that was not warmed up as well: one row at a time pays."""
        if model not in self._by_model:
            self._by_model[model] = StepCosts(limits.max_tokens_at_once)

    def take(self, model: str, costs: StepCosts) -> None:
        """Go by these, which may be measured further."""
        self._by_model[model] = costs

    def log(self, model: str) -> None:
        """Say what was measured."""
        costs = self._by_model[model]
        for row_tokens, seconds in costs.table.items():
            logger.info(
                "event=step_costs model=%s row_tokens=%d places_that_pay=%d step_ms=%s",
                model,
                row_tokens,
                costs.places_that_pay(row_tokens),
                ",".join(f"{places}:{1000 * each:.1f}" for places, each in seconds.items()),
            )

    def note_step(self, rows: Sequence[ImageRow], seconds: float) -> None:
        """Learn from a step of rows of one group."""
        group = rows[0].group
        loras = frozenset[str]().union(*(row.loras for row in rows))
        num_places = sum(row.num_places for row in rows)
        self._by_model[group.model].note(group.row_tokens, num_places, loras, seconds)
        job = rows[0].run.job
        bucket = pixels_bucket(job.width * job.height)
        self._metrics.denoise_step_duration.labels(bucket).observe(seconds)
        self._metrics.denoise_steps.labels(group.model).inc(len(rows))
        self._metrics.batch_size.labels(Task.IMAGES).observe(len(rows))

    def note_too_many(self, rows: Sequence[ImageRow]) -> None:
        """Learn that the memory does not hold a step of these; the next ones have fewer rows."""
        group, num_places = rows[0].group, sum(row.num_places for row in rows)
        logger.warning("event=fewer_places group=%s places=%d", group.name, num_places)
        self._by_model[group.model].halve(group.row_tokens, num_places)
