"""One measured number and what is asked for."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Measurement:
    """A share of right answers or a mean, in [0, 1]; `asked` None where it is only reported."""

    name: str
    share: float
    asked: float | None
    count: int

    @property
    def line(self) -> str:
        measured = f"{self.name:<42} {self.share:7.2%} of {self.count:4}"
        if self.asked is None:
            return measured
        verdict = "ok" if self.share >= self.asked else "TOO LOW"
        return f"{measured} (>= {self.asked:.1%}) {verdict}"


def share(name: str, asked: float | None, answers: Sequence[bool | None]) -> Measurement:
    """Take the share of right answers among those that are not None."""
    given = [answer for answer in answers if answer is not None]
    return mean(name, asked, given)


def mean(name: str, asked: float | None, values: Sequence[float]) -> Measurement:
    return Measurement(name, float(np.mean(values)) if values else 0.0, asked, len(values))
