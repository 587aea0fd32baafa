"""Which rows make the next forward: decisions without tensors, Redis or a clock of its own.

A row is one image on its way. Rows of one group (a model, a number of patches and one of text
tokens) can share a forward, each at its own noise level:

- They join between two steps, first come, first served, as many as pay, and leave when done. None
  that runs gives way to a later one of its group.
- Groups take turns. The next forward is for the group that has had the fewest seconds of the
  device, so each gets an equal share, and a small image never stands behind a large one's run.
- Within a group so do sets of LoRAs, where a turn costs less than adding all their products.
"""

import heapq
import math
from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cache, partial
from operator import itemgetter
from typing import Generic, Protocol, TypeVar

MAX_GROUPS = 8  # in hand at once: each holds rows in the device's memory
_MAX_LOADS = 64  # that are remembered
_SMOOTHING = 0.3  # of a new measurement in what was measured lately
_SLOW_SMOOTHING = 0.1  # likewise of what one step says little about
# Of a step's pause. Clients that ask for the next image when they have the last come in waves, as
# long as an image, and the pauses for their images to be decoded with them. What an image is told
# should not hang on where in a wave it begins: of 20 steps it does by a tenth, of 50 by a fifth.
_PAUSE_SMOOTHING = 1 / 32
_STEPS_WITHOUT_PAUSE = 8  # before the first measured one: that may be the only one
_FORGET_AFTER_S = 1.0  # and five steps, without one: then a group's load may be another

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Group:
    """What rows have in common that share a forward; `name` is the group of their records."""

    name: str
    model: str
    num_patches: int
    num_text_tokens: int

    @property
    def row_tokens(self) -> int:
        """Of one row: what the transformer attends to."""
        return self.num_text_tokens + self.num_patches


class Row(Protocol):
    """One image on its way; takes two places with a negative prompt."""

    @property
    def group(self) -> Group: ...
    @property
    def loras(self) -> frozenset[str]: ...
    @property
    def num_places(self) -> int: ...
    @property
    def steps_left(self) -> int: ...


class Costs(Protocol):
    """What is known of the device."""

    def places_that_pay(self, group: Group) -> int: ...

    def step_s(self, group: Group, num_places: int, loras: frozenset[str]) -> float:
        """Seconds of one forward with these LoRAs in it."""


R = TypeVar("R", bound=Row)


class Turns(Generic[K]):
    """Who is next, so that all get equal shares of the device's seconds."""

    def __init__(self) -> None:
        self._used_s: dict[K, float] = {}
        self._present: frozenset[K] = frozenset()

    def next(self, present: Collection[K]) -> K:
        """The one that has had the least; a newcomer starts with what that one has had."""
        staying = [self._used_s[key] for key in present if key in self._present]
        level = min(staying, default=0.0)
        # who leaves and comes back at once has had no less by that
        ahead = {key: used_s for key, used_s in self._used_s.items() if used_s > level and staying}
        present_s = {
            key: self._used_s[key] if key in self._present else ahead.get(key, level)
            for key in present
        }
        self._used_s = ahead | present_s
        self._present = frozenset(present)
        return min(present, key=present_s.__getitem__)

    def charge(self, key: K, seconds: float) -> None:
        self._used_s[key] += seconds


@dataclass(slots=True)
class _Queue(Generic[R]):
    """The rows of one group in order of arrival, and its jobs that are still being prepared."""

    rows: list[R] = field(default_factory=list)
    expected_places: dict[str, int] = field(default_factory=dict)  # by run
    lora_turns: Turns[frozenset[str]] = field(default_factory=Turns)


@dataclass(slots=True)
class _Load:
    """How busy a group was lately: it will be so for a while, even where it has no row just now.

    num_places  of its forwards
    pause_s     from a step to the next in which the device stood still
    num_pauses  that this is the mean of
    """

    num_places: float = 0.0
    pause_s: float = 0.0
    num_pauses: int = 0
    stepped_at: float = -math.inf
    idle_s_before: float | None = None  # of the device, until its last step; None: it had no row

    def note_step(self, num_places: int, seconds: float, now: float, idle_s: float) -> None:
        if now - self.stepped_at > _FORGET_AFTER_S + 5 * seconds:
            self.num_places = num_places
            if self.idle_s_before is None:  # it had no row, and did not wait for its turn
                self.pause_s, self.num_pauses = 0.0, 0
        self.num_places += _SLOW_SMOOTHING * (num_places - self.num_places)
        if self.idle_s_before is not None:
            self.num_pauses += 1
            weight = max(_PAUSE_SMOOTHING, 1 / (_STEPS_WITHOUT_PAUSE + self.num_pauses))
            self.pause_s += weight * (idle_s - self.idle_s_before - self.pause_s)
        self.stepped_at, self.idle_s_before = now, idle_s


class RowScheduler(Generic[R]):
    def __init__(self, costs: Costs) -> None:
        self._costs = costs
        self._queues: dict[Group, _Queue[R]] = {}  # the one held longest first
        self._turns: Turns[Group] = Turns()
        self._used_s = 0.0  # of the device, in all
        self._loads: dict[Group, _Load] = {}  # the one that had a step last is the last

    @property
    def is_empty(self) -> bool:
        """Whether there are no rows, and none are expected."""
        return not self._queues

    @property
    def has_rows(self) -> bool:
        return any(queue.rows for queue in self._queues.values())

    def expect(self, group: Group, run: str, num_places: int) -> None:
        """Keep places for the run of a job that is being prepared."""
        self._queues.setdefault(group, _Queue()).expected_places[run] = num_places

    def add(self, group: Group, run: str, rows: Iterable[R]) -> None:
        """Let the rows of an expected run join; none, if there is nothing to be done for it."""
        queue = self._queues[group]
        del queue.expected_places[run]
        queue.rows.extend(rows)
        self._drop_empty()

    def remove(self, rows: Collection[R]) -> None:
        """Take rows out that are not to be done any more."""
        for queue in self._queues.values():
            queue.rows = [row for row in queue.rows if row not in rows]
        self._drop_empty()

    def next(self) -> list[R]:
        """The rows of the next forward: all of one group, none if nothing is ready."""
        ready = [group for group, queue in self._queues.items() if queue.rows]
        if not ready:
            return []
        group = self._turns.next(ready)
        return self._sharing(group, self._seated(group))

    def note_step(self, rows: Sequence[R], seconds: float, now: float) -> None:
        """Charge a forward that these rows had; those that are done by now leave."""
        group = rows[0].group
        queue, num_places = self._queues[group], _num_places(rows)
        self._note_load(group, num_places, seconds, now)
        self._turns.charge(group, seconds)
        for loras, part in _by_loras(rows).items():
            queue.lora_turns.charge(loras, seconds * _num_places(part) / num_places)
        queue.rows = [row for row in queue.rows if row.steps_left]
        if not queue.rows:
            self._loads[group].idle_s_before = None  # no step is held up from here on
        self._drop_empty()

    def _note_load(self, group: Group, num_places: int, seconds: float, now: float) -> None:
        self._used_s += seconds
        load = self._loads.pop(group, _Load())
        load.note_step(num_places, seconds, now, idle_s=now - self._used_s)
        self._loads[group] = load
        if len(self._loads) > _MAX_LOADS:
            del self._loads[next(iter(self._loads))]

    def remaining_s(self, group: Group) -> dict[R, float]:
        """Seconds until the last step of each row of a group, the turns of others included."""
        if group not in self._queues:
            return {}
        pace_s = self._pace_s(group)
        places, steps, seconds = _num_places(self._queues[group].rows), 0, 0.0
        remaining = {}
        for row, end in sorted(self._ends(group).items(), key=itemgetter(1)):
            seconds += (end - steps) * pace_s(places)
            steps, places = end, places - row.num_places
            remaining[row] = seconds
        return remaining

    def _ends(self, group: Group) -> dict[R, int]:
        """How many steps of the group there are up to the last one of each row."""
        seated = self._seated(group)
        ends = {row: row.steps_left for row in seated}
        # each that waits takes the place of the first that ends
        free_at = list(ends.values())
        heapq.heapify(free_at)
        for row in self._queues[group].rows[len(seated) :]:
            ends[row] = free_at[0] + row.steps_left
            heapq.heapreplace(free_at, ends[row])
        return ends

    def room(self, prepare_s: float) -> Mapping[str, int]:
        """How many more rows each group takes, by its name; those in hand alone.

        A job more than there are places is taken where one gets free before the job could be
        prepared, in about `prepare_s`; any sooner, and another worker could have begun it.
        """
        room = {group.name: self._room_of(group, prepare_s) for group in self._queues}
        if len(room) >= MAX_GROUPS:
            # it ends so, and leaves its place to a group that waits
            room[next(iter(room))] = 0
        return room

    @property
    def num_new_groups(self) -> int:
        """How many groups more may come in hand."""
        return max(0, MAX_GROUPS - len(self._queues))

    def _room_of(self, group: Group, prepare_s: float) -> int:
        queue = self._queues[group]
        expected = sum(queue.expected_places.values())
        free = self._costs.places_that_pay(group) - _num_places(queue.rows) - expected
        if free > 0:
            return free
        seated = self._seated(group)
        is_one_ahead = bool(expected) or len(seated) < len(queue.rows)
        if is_one_ahead or not seated:
            return 0
        pace_s = self._pace_s(group)(_num_places(queue.rows))
        until_free_s = min(row.steps_left for row in seated) * pace_s
        return int(until_free_s <= prepare_s)

    def _pace_s(self, group: Group) -> Callable[[int], float]:
        """Seconds from one step of a group to its next one: its share of the device is equal.

        By the places of the rows that there are then, of which a forward has as many as pay. It has
        no fewer than it lately had, as others come for those that have gone.
        """
        queue, load = self._queues[group], self._loads.get(group, _Load())
        expected, lately = sum(queue.expected_places.values()), round(load.num_places)
        most, seated = self._costs.places_that_pay(group), self._seated(group)
        fewest = min((row.num_places for row in seated), default=1)
        num_groups = sum(bool(queue.rows) for queue in self._queues.values())
        turns = num_groups * self._lora_share(group, seated)
        step_s = cache(partial(self._costs.step_s, group, loras=_loras(seated)))

        def pace_s(num_places: int) -> float:
            places = min(max(num_places + expected, lately), most)
            places -= places % fewest  # a row that takes two leaves an odd one free
            return turns * step_s(max(places, fewest)) + load.pause_s

        return pace_s

    def _seated(self, group: Group) -> list[R]:
        """The first rows, as many as pay, and one at least."""
        most = self._costs.places_that_pay(group)
        taken = 0
        seated: list[R] = []
        for row in self._queues[group].rows:
            taken += row.num_places
            if seated and taken > most:
                break
            seated.append(row)
        return seated

    def _sharing(self, group: Group, seated: list[R]) -> list[R]:
        """Those with the LoRAs whose turn it is, and others for whom joining costs less than one.

        Every LoRA in a forward costs its low-rank products for all rows.
        """
        parts = _by_loras(seated)
        chosen = self._joining(group, parts, self._queues[group].lora_turns.next(parts))
        return [row for row in seated if row.loras in chosen]

    def _joining(
        self, group: Group, parts: Mapping[frozenset[str], Sequence[R]], first: frozenset[str]
    ) -> list[frozenset[str]]:
        """The first and those that share its forward."""
        chosen, rows = [first], [*parts[first]]
        for loras, part in parts.items():
            if loras == first:
                continue
            together_s = self._step_s(group, [*rows, *part])
            if together_s <= self._step_s(group, rows) + self._step_s(group, part):
                chosen.append(loras)
                rows += part
        return chosen

    def _lora_share(self, group: Group, seated: Sequence[R]) -> float:
        """What a step of each takes in turns, of what one forward of all would."""
        parts = _by_loras(seated)
        if len(parts) < 2 or not (together_s := self._step_s(group, seated)):
            return 1.0
        turns_s = 0.0
        while parts:
            chosen = self._joining(group, parts, next(iter(parts)))
            turns_s += self._step_s(group, [row for loras in chosen for row in parts.pop(loras)])
        return turns_s / together_s

    def _step_s(self, group: Group, rows: Sequence[R]) -> float:
        return self._costs.step_s(group, _num_places(rows), _loras(rows))

    def _drop_empty(self) -> None:
        self._queues = {
            group: queue
            for group, queue in self._queues.items()
            if queue.rows or queue.expected_places
        }


def smoothed(lately: float | None, measured: float) -> float:
    """What was measured lately, with one more measurement."""
    return measured if lately is None else lately + _SMOOTHING * (measured - lately)


def _num_places(rows: Iterable[Row]) -> int:
    return sum(row.num_places for row in rows)


def _loras(rows: Iterable[Row]) -> frozenset[str]:
    return frozenset[str]().union(*(row.loras for row in rows))


def _by_loras(rows: Iterable[R]) -> dict[frozenset[str], list[R]]:
    parts: dict[frozenset[str], list[R]] = {}
    for row in rows:
        parts.setdefault(row.loras, []).append(row)
    return parts
