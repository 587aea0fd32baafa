"""What a denoise step costs, by the number of rows in it: measured, and from there told for others.

`learn` decides how many rows pay: doubled while that makes each a twentieth cheaper. That is one
where a row alone keeps the device busy, and many for small images and models. Steps that run say
how much slower the device is than it was when measured, never that number. Knows nothing of
tensors, nor how it is measured.
"""

from bisect import bisect_left
from collections.abc import Generator, Mapping
from math import inf, isfinite

from worker.row_scheduler import smoothed

_GAIN = 0.95  # of the seconds a row, at most, for more rows to pay
_MOST_PLACES = 32  # beyond, a step takes long enough to delay cancels and newcomers

# Of a step in the slowdown: about those of an image. Some steps are slow together, as images that
# end together are decoded, and others prepared, beside the next steps.
_SLOWDOWN_SMOOTHING = 0.05
_MOST_CHANGE = 2.0  # of the slowdown by which one step counts: it may have had kernels to load


class StepCosts:
    """The costs of one model, by the tokens of one row: of its texts and of its image.

    `max_tokens_at_once` is the card's.
    """

    def __init__(self, max_tokens_at_once: int | None) -> None:
        self._max_tokens = max_tokens_at_once
        # seconds by the number of tokens in a forward, by `row_tokens`
        self._curves: dict[int, dict[int, float]] = {}
        self._paying_tokens: dict[int, int] = {}  # at once; likewise
        self._most_places: dict[int, int] = {}  # what the memory turned out to hold; likewise
        self._slowdown: dict[int, float] = {}  # of steps that ran, against the curve; likewise
        self._lora_s: dict[str, float] = {}  # of its low-rank products, for a token

    def learn(self, row_tokens: int) -> Generator[int, float, None]:
        """Ask for the seconds of steps of one size by places, and know each answer at once.

        It is inf for more than fit, or than there is time to measure. Long may pass between two
        answers: until the last one as many places pay as did before, if not more. Of what was
        measured before, the shorter counts: others only ever make a step longer.
        """
        most = min(_MOST_PLACES, self._places_that_fit(row_tokens))
        paid_before = self.places_that_pay(row_tokens)
        places = paying = 1
        first_s = yield 1
        if row_tokens not in self._curves:
            self._slowdown.pop(row_tokens, None)  # it was against another size's seconds
        seconds = {1: self._shortest_s(row_tokens, 1, first_s)}
        self._paying_tokens[row_tokens] = paid_before * row_tokens
        # two doublings ahead: others may have disturbed one measurement
        while places < 4 * paying and 2 * places <= most:
            places *= 2
            seconds[places] = self._shortest_s(row_tokens, places, (yield places))
            if seconds[places] / places <= _GAIN * seconds[paying] / paying:
                paying = places
                self._paying_tokens[row_tokens] = max(paid_before, paying) * row_tokens
        self._paying_tokens[row_tokens] = paying * row_tokens

    def _shortest_s(self, row_tokens: int, num_places: int, measured_s: float) -> float:
        curve, num_tokens = self._curves.setdefault(row_tokens, {}), num_places * row_tokens
        shortest_s = min(measured_s, curve.get(num_tokens, inf))
        if isfinite(shortest_s):
            curve[num_tokens] = shortest_s
        return shortest_s

    def places_that_pay(self, row_tokens: int) -> int:
        """As measured; of another size, as many as have the tokens that pay at the nearest one."""
        if not self._paying_tokens:
            return 1
        paying = self._paying_tokens[_nearest(self._paying_tokens, row_tokens)] // row_tokens
        return max(1, min(paying, self._places_that_fit(row_tokens), _MOST_PLACES))

    def step_s(self, row_tokens: int, num_places: int, loras: frozenset[str]) -> float:
        """Seconds of a step; 0 before anything was measured, and for the products of new LoRAs."""
        if not self._curves:
            return 0.0
        num_tokens = num_places * row_tokens
        curve = self._curves[_nearest(self._curves, row_tokens)]
        base_s = _at(curve, num_tokens) * self._slowdown.get(row_tokens, 1.0)
        return base_s + num_tokens * sum(self._lora_s.get(name, 0.0) for name in loras)

    def note(self, row_tokens: int, num_places: int, loras: frozenset[str], seconds: float) -> None:
        """Refine what is known by a step that ran."""
        num_tokens = num_places * row_tokens
        if not self._paying_tokens and not loras:
            self._shortest_s(row_tokens, num_places, seconds)  # the first had kernels to load
        expected_s = self.step_s(row_tokens, num_places, frozenset())
        if not loras:
            before = self._slowdown.get(row_tokens, 1.0)
            change = min(max(seconds / expected_s, 1 / _MOST_CHANGE), _MOST_CHANGE)
            self._slowdown[row_tokens] = before * (1 + _SLOWDOWN_SMOOTHING * (change - 1))
            return
        for name in loras:  # one step does not say which of them took how much
            rate = max(0.0, seconds - expected_s) / num_tokens / len(loras)
            self._lora_s[name] = smoothed(self._lora_s.get(name), rate)

    def halve(self, row_tokens: int, num_places: int) -> None:
        """Take from now on half of the places that did not fit into the memory."""
        self._most_places[row_tokens] = max(1, num_places // 2)

    @property
    def table(self) -> Mapping[int, Mapping[int, float]]:
        """Seconds by places by the tokens of a row, as measured."""
        return {
            row_tokens: {tokens // row_tokens: seconds for tokens, seconds in sorted(curve.items())}
            for row_tokens, curve in sorted(self._curves.items())
        }

    def _places_that_fit(self, row_tokens: int) -> int:
        most = self._most_places.get(row_tokens, _MOST_PLACES)
        return most if self._max_tokens is None else min(most, self._max_tokens // row_tokens)


def _at(curve: Mapping[int, float], num_tokens: int) -> float:
    """Seconds on a straight line between two points, below the first as much as there.

    There launches count; beyond the last point it is pro rata.
    """
    known = sorted(curve)
    if num_tokens <= known[0]:
        return curve[known[0]]
    if num_tokens >= known[-1]:
        return curve[known[-1]] * num_tokens / known[-1]
    above = bisect_left(known, num_tokens)
    low, high = known[above - 1], known[above]
    share = (num_tokens - low) / (high - low)
    return curve[low] + share * (curve[high] - curve[low])


def _nearest(measured: Mapping[int, object], row_tokens: int) -> int:
    return min(measured, key=lambda known: max(known, row_tokens) / min(known, row_tokens))
