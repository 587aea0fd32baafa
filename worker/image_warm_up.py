"""The first use of a text-to-image model: each part once, and what its steps cost, measured.

At once as far as that is quick, so that the first jobs share forwards; later the rest, a step at a
time; and all again in the minute after, as neighbours may have been in the way. Knows nothing about
jobs.
"""

from __future__ import annotations

import math
import time
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeAlias

from worker import png
from worker.contract.model_cards import ImageLimits, ModelCard
from worker.failures import is_out_of_memory
from worker.image_run import ImagePipeline
from worker.side_thread import synchronize
from worker.step_costs import StepCosts

if TYPE_CHECKING:  # other queues' workers do without
    from models.flux.rows import PaintRow
    from models.flux.text_encoders import TextFeatures

_MEASURING_S = 0.8  # of a round; after it nothing further is measured
_AT_ONCE_S = 0.7  # before the model is ready, with the image that nobody sees
_NUM_ROUNDS = 5
_ROUND_EVERY_S = 10.0  # by then other workers of this host have started too
_LONG_STEP_S = 0.2  # from here on one step is enough to measure

_Size: TypeAlias = tuple[int, int]  # width and height, pixels


def warm_up(pipeline: ImagePipeline, card: ModelCard) -> StepMeasuring:
    """Paint an image that nobody sees, measure some steps; say what is left to be measured."""
    limits = card.image_limits
    assert limits is not None, f"this is a bug: {card.name} has no limits"
    text = pipeline.encode(["warm up"], limits.max_sequence_length, loras={})
    trial = _Trial(limits, card.device, text)
    size = limits.default_width, limits.default_height
    [row] = trial.begin(pipeline, size, num_rows=1)
    before = time.perf_counter()
    pipeline.step([row])
    synchronize(card.device)
    step_s = time.perf_counter() - before
    [pixels] = pipeline.decode(row.patches.cpu()[None], *size)
    png.encode(pixels, {})
    measuring = StepMeasuring(trial, row, step_s)
    while time.perf_counter() - before < _AT_ONCE_S and measuring.is_due:
        measuring.advance(pipeline)
    return measuring


class StepMeasuring:
    """What steps of a model cost by the number of rows: for the default size and the usual ones.

    It holds nothing of the pipeline, which may leave the device at any time.
    """

    def __init__(self, trial: _Trial, row: PaintRow, step_s: float) -> None:
        limits = trial.limits
        self.costs = StepCosts(limits.max_tokens_at_once)
        self._default_tokens = _row_tokens(limits, (limits.default_width, limits.default_height))
        self.costs.note(self._default_tokens, 1, frozenset(), step_s)
        self._trial = trial
        self._row: PaintRow | None = row  # of which there was no preview yet
        self._num_rounds_left = _NUM_ROUNDS
        self._next_round_at = 0.0
        self._begin_round()

    @property
    def is_due(self) -> bool:
        """Whether there is something to do now."""
        if self._next is not None or self._row is not None:
            return True
        return self._num_rounds_left > 0 and time.perf_counter() >= self._next_round_at

    @property
    def is_over(self) -> bool:
        return self._next is None and self._row is None and not self._num_rounds_left

    def advance(self, pipeline: ImagePipeline) -> None:
        """Do the next piece, of one forward at most; one is due."""
        if self._next is not None:
            self._measure(pipeline, self._next)
        elif self._row is not None:
            pipeline.preview(self._row)  # the first finds what colours are
            self._row = None
        else:
            self._begin_round()

    def _begin_round(self) -> None:
        self._num_rounds_left -= 1
        # without the very first step, which has kernels to load
        self._spent_s = 0.0
        self._questions = self._ask()
        self._next = next(self._questions, None)

    def _measure(self, pipeline: ImagePipeline, question: _Question) -> None:
        before = time.perf_counter()
        seconds = math.inf
        if question.num_rows == 1 or self._spent_s <= _MEASURING_S:
            seconds = self._trial.step_s(pipeline, question.size, question.num_rows)
        self._spent_s += time.perf_counter() - before
        try:
            self._next = self._questions.send(seconds)
        except StopIteration:
            self._end_round()

    def _end_round(self) -> None:
        self._next = None
        self._next_round_at = time.perf_counter() + _ROUND_EVERY_S
        if self.costs.step_s(self._default_tokens, 1, frozenset()) > _LONG_STEP_S:
            self._num_rounds_left = 0  # others hardly disturb so long a step

    def _ask(self) -> Generator[_Question, float, None]:
        """Ask for the seconds of a step, inf where it does not fit or there is no time for it."""
        for size in _sizes(self._trial.limits):
            if self._spent_s > _MEASURING_S:
                return
            learning = self.costs.learn(_row_tokens(self._trial.limits, size))
            num_rows: int | None = next(learning)
            while num_rows is not None:
                seconds = yield from _ask_again(_Question(size, num_rows))
                try:
                    num_rows = learning.send(seconds)
                except StopIteration:
                    num_rows = None


@dataclass(frozen=True, slots=True)
class _Question:
    size: _Size
    num_rows: int


def _ask_again(question: _Question) -> Generator[_Question, float, float]:
    """Take the shorter of two answers, as the first step has memory to find."""
    first_s = yield question
    return first_s if first_s > _LONG_STEP_S else min(first_s, (yield question))


@dataclass(frozen=True, slots=True)
class _Trial:
    """All that a job would say."""

    limits: ImageLimits
    device: str
    text: TextFeatures

    def step_s(self, pipeline: ImagePipeline, size: _Size, num_rows: int) -> float:
        """Measure a step; inf where it does not fit."""
        try:
            return self._step_s(pipeline, self.begin(pipeline, size, num_rows))
        except Exception as error:
            if num_rows == 1 or not is_out_of_memory(error):
                raise
            return math.inf

    def begin(self, pipeline: ImagePipeline, size: _Size, num_rows: int) -> list[PaintRow]:
        guidance_scale = self.limits.default_guidance_scale if pipeline.has_guidance else None
        return pipeline.begin(self.text, range(num_rows), *size, 1, guidance_scale, loras={})

    def _step_s(self, pipeline: ImagePipeline, rows: Sequence[PaintRow]) -> float:
        # of a processor that others use as well, only what this thread had of it
        clock = time.thread_time if self.device == "cpu" else time.perf_counter
        before = clock()
        pipeline.step(rows)
        synchronize(self.device)
        return clock() - before


def _row_tokens(limits: ImageLimits, size: _Size) -> int:
    return limits.max_sequence_length + size[0] * size[1] // limits.side_multiple**2


def _sizes(limits: ImageLimits) -> Iterator[_Size]:
    """The default, and the squares of the smallest side, of twice that, and so on."""
    default = limits.default_width, limits.default_height
    yield default
    side = limits.min_side
    while side <= limits.max_side and side**2 <= limits.max_pixels:
        if side**2 != default[0] * default[1]:
            yield side, side
        side *= 2
