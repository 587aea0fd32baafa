"""What one worker process measures, under the names that dashboards use.

With 20 models a worker exposes fewer than 1,500 series: that is why a label or an edge is left out.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Final, Literal, TypeAlias, get_args

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    ProcessCollector,
    Summary,
    disable_created_metrics,
)

from worker.contract.jobs import FailureCode, JobState, Task
from worker.contract.record import AnyJob, Record
from worker.contract.spans import Attributes
from worker.contract.tracing import NO_TRACING, Tracing
from worker.failures import is_out_of_memory
from worker.job_spans import JobSpans

StoreOperation: TypeAlias = Literal["store", "read"]

# Edges in seconds. An objective's limit is an edge: images within 10 s, and 2.5 s for the bundled
# model, the others within 0.25 s, waiting within 30 s.
_E2E_EDGES_OF_IMAGES = (0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 120, 300)
_E2E_EDGES_OF_ROWS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10)
_RUN_EDGES_OF_IMAGES = (0.25, 0.5, 1, 2.5, 5, 10, 20, 30, 60, 300)
_RUN_EDGES_OF_ROWS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 5)
_WAIT_EDGES = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_STEP_EDGES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2)
_BATCH_WAIT_EDGES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1)
_CANCEL_EDGES = (0.05, 0.1, 0.25, 0.5, 1, 2, 5, 10)
_STORE_EDGES = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
_BATCH_EDGES = (1, 2, 4, 8, 16, 32, 64, 128)
_PADDING_EDGES = (0, 0.1, 0.25, 0.5, 0.75, 0.9)

_STAGES: Final = {
    Task.IMAGES: (
        *("text_encode", "start_decode", "denoise", "vae_decode", "image_encode", "store"),
    ),
    Task.CLASSIFY: ("preprocess", "forward"),
    Task.EMBEDDINGS: ("tokenize", "forward"),
}
_OUTCOMES = tuple(state for state in JobState if state.is_final)
_MEGAPIXEL = 1024 * 1024
_PIXELS_BUCKETS = {
    "le_0_5mp": _MEGAPIXEL // 2,
    "le_1mp": _MEGAPIXEL,
    "le_2mp": 2 * _MEGAPIXEL,
}
_MORE_PIXELS = "gt_2mp"


class WorkerMetrics:
    """Every metric of the worker of one queue, on a registry of its own.

    What the models given may count is 0 from the start: a rate needs a sample before the first
    event. A warm-up counts for no job's metrics, as it is no job.
    """

    def __init__(
        self, task: Task, models: Sequence[str] = (), tracing: Tracing = NO_TRACING
    ) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]  # of which nobody asks the age
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._task = task
        self.spans = JobSpans(tracing)
        self._add_jobs()
        self._add_batches()
        self._add_models()
        if task is Task.IMAGES:
            self._add_images()
        for model in models:
            self._begin_at_zero(model)

    @contextmanager
    def stage(
        self, stage: str, records: Sequence[Record], attributes: Attributes | None = None
    ) -> Iterator[None]:
        """Time a part of the run of jobs of one model, and make it a span of each."""
        duration = self.stage_duration.labels(records[0].job.model, stage)
        with duration.time(), self.spans.stage(stage, records, attributes or {}):
            yield

    @contextmanager
    def store_operation(self, operation: StoreOperation) -> Iterator[None]:
        """Time what reads or writes a file of the result store; an OSError is counted."""
        with self.result_store_duration.labels(operation).time():
            try:
                yield
            except OSError:
                self.result_store_errors.labels(operation).inc()
                raise

    def observe_e2e(self, job: AnyJob, seconds: float) -> None:
        """Note how long a job took; one of a trace is an example that its bucket shows."""
        exemplar = None
        if (trace := job.trace) is not None and trace.is_sampled:  # or nobody can look it up
            exemplar = {"trace_id": trace.trace_id}
        duration = self.job_e2e_duration.labels(job.task, job.model)
        duration.observe(max(0.0, seconds), exemplar)  # two hosts' clocks

    def note_error(self, model: str, error: BaseException) -> None:
        """Count it where it is a lack of memory, also one with which the work goes on in parts."""
        if is_out_of_memory(error):
            self.out_of_memory.labels(model).inc()

    def _add_jobs(self) -> None:
        by_model = ("task", "model")
        is_images = self._task is Task.IMAGES
        self.jobs_finished = self._counter(
            "jobs_finished_total", "Jobs by how they ended.", *by_model, "outcome"
        )
        self.job_failures = self._counter(
            "job_failures_total", "Failed jobs by failure code.", *by_model, "reason"
        )
        self.job_retries = self._counter(
            "job_retries_total", "Jobs put back into their queue.", "task", "reason"
        )
        self.job_queue_wait = self._histogram(
            "job_queue_wait_seconds", "From submit to start.", _WAIT_EDGES, "task"
        )
        self.job_run_duration = self._histogram(
            "job_run_duration_seconds",
            "From start to end.",
            _RUN_EDGES_OF_IMAGES if is_images else _RUN_EDGES_OF_ROWS,
            *by_model,
        )
        self.job_e2e_duration = self._histogram(
            "job_e2e_duration_seconds",
            "From submit to end, of jobs that succeeded.",
            _E2E_EDGES_OF_IMAGES if is_images else _E2E_EDGES_OF_ROWS,
            *by_model,
        )
        self.cancel_latency = self._histogram(
            "cancel_latency_seconds",
            "From a client's asking to stop a running job to the last of its steps.",
            _CANCEL_EDGES,
            "task",
        )
        self.job_queue_wait.labels(self._task)
        for task in Task:  # whichever worker has the turn looks after the jobs of all that died
            self.job_retries.labels(task, FailureCode.WORKER_LOST)

    def _add_batches(self) -> None:
        self.batch_size = self._histogram(
            "batch_size", "Rows of one forward.", _BATCH_EDGES, "task"
        )
        self.batch_wait = self._histogram(
            "batch_wait_seconds",
            "From when a row was prepared to the forward that it is in.",
            _BATCH_WAIT_EDGES,
            "task",
        )
        self.batch_padding = self._histogram(
            "batch_padding_ratio",
            "Tokens of a forward that are padding, of all.",
            _PADDING_EDGES,
            "task",
        )
        self.embedding_tokens = self._counter("embedding_tokens_total", "Tokens embedded.", "model")
        self.classified_images = self._counter(
            "classified_images_total", "Images classified.", "model"
        )

    def _add_images(self) -> None:
        """Of images alone; all their models are Flux, so a step's time follows from the pixels."""
        self.denoise_step_duration = self._histogram(
            "denoise_step_duration_seconds",
            "One step of the rows in it, by the size of an image.",
            _STEP_EDGES,
            "pixels_bucket",
        )
        self.denoise_steps = self._counter(
            "denoise_steps_total", "Steps done, of each image.", "model"
        )
        self.images_generated = self._counter("images_generated_total", "Images stored.", "model")
        self.image_pixels = self._counter("image_pixels_total", "Pixels stored.", "model")
        self.result_store_bytes = self._counter("result_store_bytes_total", "Bytes stored.")
        self.result_store_duration = self._histogram(
            "result_store_operation_duration_seconds", "One file.", _STORE_EDGES, "op"
        )
        self.result_store_errors = self._counter(
            "result_store_errors_total", "Files that could not be written or read.", "op"
        )
        self.prompt_cache_requests = self._counter(
            "prompt_cache_requests_total",
            "Prompts whose text features were asked for.",
            *("model", "result"),
        )
        self.prompt_cache_evictions = self._counter(
            "prompt_cache_evictions_total", "Text features that made room for others."
        )
        self.prompt_cache_bytes = Gauge(
            "triptych_prompt_cache_bytes", "Text features kept.", registry=self.registry
        )
        self.cancel_latency.labels(Task.IMAGES)
        for bucket in (*_PIXELS_BUCKETS, _MORE_PIXELS):
            self.denoise_step_duration.labels(bucket)
        for operation in get_args(StoreOperation):
            self.result_store_duration.labels(operation)
            self.result_store_errors.labels(operation)

    def _add_models(self) -> None:
        self.stage_duration = Summary(
            "triptych_stage_duration_seconds",
            "Parts of a job's run.",
            ("model", "stage"),
            registry=self.registry,
        )
        self.model_load_duration = Summary(
            "triptych_model_load_duration_seconds",
            "From disk to device.",
            ("model",),
            registry=self.registry,
        )
        self.model_loads = self._counter(
            "model_loads_total", "Loads by how they ended.", "model", "outcome"
        )
        self.model_resident = Gauge(
            "triptych_model_resident", "1 while on the device.", ("model",), registry=self.registry
        )
        self.model_evictions = self._counter(
            "model_evictions_total", "Models that made room for another.", "model"
        )
        self.out_of_memory = self._counter(
            "gpu_out_of_memory_total",
            "Times that memory lacked, also where the work went on in smaller parts.",
            "model",
        )

    def set_memory_budget(self, num_bytes: int) -> None:
        """Expose what models may take; there is no such series where there is no limit."""
        budget = Gauge(
            "triptych_memory_budget_bytes", "What models may take.", registry=self.registry
        )
        budget.set(num_bytes)

    def _begin_at_zero(self, model: str) -> None:
        task = self._task
        for outcome in _OUTCOMES:
            self.jobs_finished.labels(task, model, outcome)
        for reason in FailureCode:
            self.job_failures.labels(task, model, reason)
        self.job_run_duration.labels(task, model)
        self.job_e2e_duration.labels(task, model)
        for stage in _STAGES[task]:
            self.stage_duration.labels(model, stage)
        self.model_load_duration.labels(model)
        for end in ("succeeded", "failed"):
            self.model_loads.labels(model, end)
        for by_model in (self.model_resident, self.model_evictions, self.out_of_memory):
            by_model.labels(model)
        match task:
            case Task.IMAGES:
                for counter in (self.denoise_steps, self.images_generated, self.image_pixels):
                    counter.labels(model)
                for result in ("hit", "miss"):
                    self.prompt_cache_requests.labels(model, result)
            case Task.CLASSIFY:
                self.classified_images.labels(model)
            case Task.EMBEDDINGS:
                self.embedding_tokens.labels(model)

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"triptych_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, edges: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"triptych_{name}", text, labels, buckets=edges, registry=self.registry)


def pixels_bucket(num_pixels: int) -> str:
    """The label for an image of so many pixels."""
    fitting = (name for name, most in _PIXELS_BUCKETS.items() if num_pixels <= most)
    return next(fitting, _MORE_PIXELS)
