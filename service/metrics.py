"""What the API process counts by itself; names after `triptych_`, every label bounded.

The queues' truth is in `queue_stats.py`. Knows nothing about HTTP frameworks or Redis.
"""

from dataclasses import dataclass
from typing import Final

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    generate_latest,
)
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service import shared_counts
from worker.contract.jobs import Task

_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_BUCKETS_S = (
    *(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300),
)
_LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
_OF_ALL: Final = "livesum"  # a gauge of several processes is the sum of those that live


@dataclass(frozen=True, slots=True)
class _AnswerMetrics:
    """What is counted of one kind of answer; kept, as finding it by its labels is slow."""

    requests: Counter
    duration: Histogram
    response_bytes: Counter


class RequestMetrics:
    """Requests and their answers, by route."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.in_flight = Gauge(
            "triptych_http_requests_in_flight",
            "Requests being answered.",
            multiprocess_mode=_OF_ALL,
            registry=registry,
        )
        self._requests = Counter(
            "triptych_http_requests_total",
            "Requests answered.",
            ("route", "method", "status"),
            registry=registry,
        )
        self._duration = Histogram(
            "triptych_http_request_duration_seconds",
            "From the first byte of a request to the last of its answer, but for event streams.",
            ("route", "method"),
            buckets=_REQUEST_BUCKETS_S,
            registry=registry,
        )
        self._response_bytes = Counter(
            "triptych_http_response_bytes_total", "Bodies sent.", ("route",), registry=registry
        )
        self._of_answers: dict[tuple[str, str, int], _AnswerMetrics] = {}

    def observe(
        self, route: str, method: str, status: int, seconds: float | None, num_bytes: int
    ) -> None:
        """Count an answer; `seconds` is None where its duration says nothing."""
        method = method if method in _METHODS else "other"
        answers = self._of_answers.get((route, method, status))
        if answers is None:
            answers = self._of_answers[route, method, status] = _AnswerMetrics(
                self._requests.labels(route, method, str(status)),
                self._duration.labels(route, method),
                self._response_bytes.labels(route),
            )
        answers.requests.inc()
        if seconds is not None:
            answers.duration.observe(seconds)
        answers.response_bytes.inc(num_bytes)


class JobMetrics:
    """What became of the requests for work: queued, answered or shared, or refused; and waits."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.enqueued = Counter(
            "triptych_jobs_enqueued_total",
            "Jobs put on a queue; the others are a hit or shared (see result_cache_requests).",
            ("task", "model"),
            registry=registry,
        )
        self.reuse = Counter(
            "triptych_result_cache_requests_total",
            "Jobs whose answer is determined: kept already, of a shared run, or to be made.",
            ("task", "result"),
            registry=registry,
        )
        self.rejections = Counter(
            "triptych_admission_rejections_total",
            "Requests refused before a job was made.",
            ("task", "reason"),
            registry=registry,
        )
        self.wait_timeouts = Counter(
            "triptych_sync_wait_timeouts_total",
            "Synchronous calls whose wait was over before their job.",
            ("task",),
            registry=registry,
        )
        self.client_disconnects = Counter(
            "triptych_client_disconnects_total",
            "Synchronous calls whose client left before the answer; their jobs are canceled.",
            ("task",),
            registry=registry,
        )
        for task in Task:  # zeros, so that no series is missing before its first event
            self.rejections.labels(task.value, "queue_full")
            self.wait_timeouts.labels(task.value)
            self.client_disconnects.labels(task.value)
            for result in ("hit", "miss", "shared"):
                self.reuse.labels(task.value, result)


class Metrics:
    """One registry per app, so that two apps in one process stay apart.

    Of the processes that share their counts, each exposes those of all; what a process is itself,
    its memory and time, it exposes where it is alone.
    """

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._exposed = self.registry
        if shared_counts.are_shared():
            self._exposed = CollectorRegistry()
            MultiProcessCollector(self._exposed)  # type: ignore[no-untyped-call]
        else:
            ProcessCollector(registry=self.registry)
        self.requests = RequestMetrics(self.registry)
        self.jobs = JobMetrics(self.registry)
        self.results_expired = Counter(
            "triptych_results_expired_total",
            "Images removed as the record that named them is gone.",
            registry=self.registry,
        )
        self.result_store_used_bytes = Gauge(
            "triptych_result_store_used_bytes",
            "Images and start images; 0 but in the one process that looks after them.",
            multiprocess_mode=_OF_ALL,
            registry=self.registry,
        )
        self.event_loop_lag = Histogram(
            "triptych_event_loop_lag_seconds",
            "How much later than asked for the event loop wakes: what a request waits for others.",
            buckets=_LAG_BUCKETS_S,
            registry=self.registry,
        )
        self.event_loop_tasks = Gauge(
            "triptych_event_loop_tasks",
            "Tasks of the event loop: some for each request, and those in the background.",
            multiprocess_mode=_OF_ALL,
            registry=self.registry,
        )

    def expose(self, collector: Collector) -> None:
        """Expose what is the same whichever process is asked."""
        self._exposed.register(collector)

    def render(self) -> bytes:
        """The exposition text. Reads Redis, so it runs in a thread."""
        return generate_latest(self._exposed)
