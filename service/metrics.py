"""What the API process counts by itself; names after `triptych_`, every label bounded.

The queues' truth is in `queue_stats.py`. Knows nothing about HTTP frameworks or Redis.
"""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Final, Literal, TypeAlias, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    disable_created_metrics,
)
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.multiprocess import MultiProcessCollector
from prometheus_client.registry import Collector

from service import shared_counts
from service.exposition import Exposition, expose
from worker.contract.jobs import Task
from worker.contract.redis_refusals import Refusal
from worker.contract.trace_context import TraceContext

METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_REQUEST_BUCKETS_S = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1, 2.5, 10, 30, 60, 300)
_OTHER = "other"
_LAG_BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5)
# The codes of the errors by which a request for work is refused, where the fault is not in what it
# asks for.
REJECTIONS: Final = frozenset(
    {
        *("queue_full", "no_workers", "model_loading", "model_unusable", "too_many_followers"),
        *("payload_too_large", "disk_full", "storage", "idempotency_key_reused"),
        *(refusal.value for refusal in Refusal),
    }
)
UNKNOWN_TASK: Final = "unknown"  # of a request that was refused before it was read
_METHOD_NOT_ALLOWED = 405
_EVENT_STREAMS = (
    *("/v1/images/generations", "/v1/images/edits", "/v1/images/variations"),
    "/v1/jobs/{job_id}/events",
)
Replay: TypeAlias = Literal["replayed", "attached", "mismatch"]
_OF_ALL: Final = "livesum"  # a gauge of several processes is the sum of those that live


@dataclass(frozen=True, slots=True)
class _AnswerMetrics:
    """What is counted of one kind of answer; kept, as finding it by its labels is slow."""

    requests: Counter
    duration: Histogram | None  # None: it would say nothing
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
        self.event_streams = Gauge(
            "triptych_sse_connections",
            "Clients that are sent events.",
            ("endpoint",),
            multiprocess_mode=_OF_ALL,
            registry=registry,
        )
        self._retries = Counter(
            "triptych_client_retries_total",
            "Requests of which OpenAI's client says that it has sent them before.",
            ("route",),
            registry=registry,
        )
        for route in _EVENT_STREAMS:
            self.event_streams.labels(route)
        self._of_answers: dict[tuple[str | None, str, int], _AnswerMetrics] = {}

    def observe(
        self,
        route: str | None,
        method: str,
        status: int,
        seconds: float | None,
        num_bytes: int,
        trace: TraceContext | None = None,
    ) -> None:
        """Count an answer; `seconds` is None where its duration says nothing.

        One that is recorded in a trace is an example that its bucket shows.
        """
        method = method if method in METHODS else _OTHER
        answers = self._of_answers.get((route, method, status))
        if answers is None:
            answers = self._metrics_of(route, method, status)
            self._of_answers[route, method, status] = answers
        answers.requests.inc()
        if seconds is not None and answers.duration is not None:
            answers.duration.observe(seconds, _exemplar(trace))
        answers.response_bytes.inc(num_bytes)

    def note_retry(self, route: str | None) -> None:
        self._retries.labels(_label(route)).inc()

    def _metrics_of(self, route: str | None, method: str, status: int) -> _AnswerMetrics:
        """Whatever strangers send, there are no more series than routes and their methods have."""
        is_served = route is not None and status != _METHOD_NOT_ALLOWED and method != _OTHER
        method = method if is_served else _OTHER
        return _AnswerMetrics(
            self._requests.labels(_label(route), method, str(status)),
            self._duration.labels(_label(route), method) if is_served else None,
            self._response_bytes.labels(_label(route)),
        )


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
            "Requests for work that were refused, by the code of their error.",
            ("task", "reason"),
            registry=registry,
        )
        self.replays = Counter(
            "triptych_idempotent_replays_total",
            "Requests whose idempotency key came before: answered by a job that is over, attached "
            "to one that is not, or refused as they ask for something else.",
            ("outcome",),
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
        # zeros, so that no series is missing before its first event
        for task_label in (*Task, UNKNOWN_TASK):
            for reason in REJECTIONS:
                self.rejections.labels(task_label, reason)
        for outcome in get_args(Replay):
            self.replays.labels(outcome)
        for task in Task:
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
        disable_created_metrics()  # type: ignore[no-untyped-call]  # of which nobody asks the age
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
        self.expose(_BuildInfo())

    def expose(self, collector: Collector) -> None:
        """Expose what is the same whichever process is asked."""
        self._exposed.register(collector)

    def render(self, accept: str) -> Exposition:
        """The text in the format that `Accept` wants. Reads Redis, so it runs in a thread.

        Only OpenMetrics has exemplars, and only where one process counts for itself.
        """
        return expose(self._exposed, accept)


class DiskCollector(Collector):
    """What is free on the disk of a directory; nothing while it is not there."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def collect(self) -> Iterator[Metric]:
        try:
            num_free = shutil.disk_usage(self._directory).free
        except OSError:
            return
        yield GaugeMetricFamily(
            "triptych_result_store_free_bytes", "Of the disk that images lie on.", value=num_free
        )


class _BuildInfo(Collector):
    def __init__(self) -> None:
        self._version = version("triptych")

    def collect(self) -> Iterator[Metric]:
        info = GaugeMetricFamily("triptych_build_info", "1 for what runs.", labels=["version"])
        info.add_metric([self._version], 1)
        yield info


def _label(route: str | None) -> str:
    """A route's template; one label for all that is none."""
    return _OTHER if route is None else route


def _exemplar(trace: TraceContext | None) -> dict[str, str] | None:
    is_kept = trace is not None and trace.is_sampled  # what is not cannot be looked up
    return {"trace_id": trace.trace_id} if trace is not None and is_kept else None
