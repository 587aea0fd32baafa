"""One measurement a row: how long, how much of what the device can do, how much memory.

A row that fails says why, and the next one is measured. Knows nothing about models.
"""

import math
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

Run = Callable[[], Tensor]
NO_TIME = "left out: the time is over"


@dataclass(frozen=True, slots=True)
class Subject:
    """What is measured: `num_items` images or texts a run, `num_flop` for all of them."""

    case: str
    implementation: str = "triptych"
    execution: str = "eager"
    attention: str | None = None  # None: what scaled_dot_product_attention chooses
    num_items: int = 1
    num_flop: int | None = None
    detail: str | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """A subject and what came out; `difference` is relative to the expected output, in L2."""

    subject: Subject
    repetitions: int = 0
    first_s: float | None = None  # the first run, compilation included
    median_s: float | None = None
    min_s: float | None = None
    max_s: float | None = None
    items_per_s: float | None = None
    tflops: float | None = None
    of_matrix_product: float | None = None
    peak_memory_gb: float | None = None
    difference: float | None = None
    error: str | None = None


@dataclass(frozen=True, slots=True)
class Measured:
    row: Row
    output: Tensor | None  # of the last run; None where it failed

    @property
    def seconds(self) -> float:
        return math.inf if self.row.median_s is None else self.row.median_s


@dataclass(frozen=True, slots=True)
class Bench:
    """Measures on one device, hands every row on as soon as it is there."""

    device: torch.device
    matrix_product_tflops: float
    report: Callable[[Row], None]
    ends_at: float = math.inf  # of `time.monotonic`: what begins later is left out

    @property
    def is_over(self) -> bool:
        return time.monotonic() > self.ends_at

    def measure(
        self, subject: Subject, run: Run, repetitions: int, expected: Tensor | None = None
    ) -> Measured:
        """Time `run`, after two runs that warm up, and report the row."""
        if self.is_over:
            self.skip(subject, NO_TIME)
            return Measured(Row(subject, error=NO_TIME), output=None)
        try:
            measured = self._measure(subject, run, repetitions, expected)
        except Exception as error:  # no such kernel, out of memory, a compiler's refusal
            measured = Measured(Row(subject, error=said(error)), output=None)
        self.report(measured.row)
        return measured

    def do_once(self, subject: Subject, do: Callable[[], object]) -> bool:
        """Do what the next rows need, and report how long it took; False where it failed."""
        if self.is_over:
            self.skip(subject, NO_TIME)
            return False
        started = time.perf_counter()
        try:
            do()
        except Exception as error:
            self.skip(subject, said(error))
            return False
        synchronise(self.device)
        self.report(Row(subject, first_s=rounded(time.perf_counter() - started)))
        return True

    def skip(self, subject: Subject, reason: str) -> None:
        self.report(Row(subject, error=reason))

    @torch.inference_mode()
    def _measure(
        self, subject: Subject, run: Run, repetitions: int, expected: Tensor | None
    ) -> Measured:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
        first_s, output = self._timed(run)
        times_s = [self._timed(run)[0] for _ in range(repetitions + 1)][1:]
        median_s = statistics.median(times_s)
        tflops = None if subject.num_flop is None else subject.num_flop / median_s / 1e12
        row = Row(
            subject,
            repetitions=repetitions,
            first_s=rounded(first_s),
            median_s=rounded(median_s),
            min_s=rounded(min(times_s)),
            max_s=rounded(max(times_s)),
            items_per_s=rounded(subject.num_items / median_s),
            tflops=rounded(tflops),
            of_matrix_product=rounded(tflops and tflops / self.matrix_product_tflops),
            peak_memory_gb=rounded(self._peak_memory_gb()),
            difference=None if expected is None else rounded(_difference(output, expected)),
        )
        return Measured(row, output)

    def _timed(self, run: Run) -> tuple[float, Tensor]:
        synchronise(self.device)
        started = time.perf_counter()
        output = run()
        synchronise(self.device)
        return time.perf_counter() - started, output

    def _peak_memory_gb(self) -> float | None:
        if self.device.type != "cuda":
            return None
        return torch.cuda.max_memory_allocated(self.device) / 1e9


def said(error: Exception) -> str:
    """Without the compiler's pages: what it raised is on the second line."""
    return " ".join(f"{type(error).__name__}: {error}".splitlines()[:2])


def rounded(number: float | None) -> float | None:
    return None if number is None else float(f"{number:.4g}")


def _difference(output: Tensor, expected: Tensor) -> float:
    apart = torch.linalg.vector_norm(output.float() - expected.float())
    return float(apart / torch.linalg.vector_norm(expected.float()))


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def matrix_product_tflops(
    device: torch.device,
    dtype: torch.dtype,
    shapes: Sequence[tuple[int, int, int]],
    multiply: Callable[[Tensor, Tensor], object] = torch.mm,
) -> dict[str, float]:
    """Measure products [m, k] · [k, n]: what the device reaches without any model around."""
    measured = {}
    for m, k, n in shapes:
        left = torch.randn(m, k, device=device, dtype=dtype)
        right = torch.randn(k, n, device=device, dtype=dtype)
        num_runs = 20
        for timed_runs in (num_runs, num_runs):  # the first round warms up
            synchronise(device)
            started = time.perf_counter()
            for _ in range(timed_runs):
                multiply(left, right)
            synchronise(device)
            seconds = (time.perf_counter() - started) / timed_runs
        measured[f"{m}x{k}x{n}"] = round(2 * m * k * n / seconds / 1e12, 3)
    return measured
