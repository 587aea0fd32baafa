"""What one worker process measures, under the names that dashboards use."""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

# Edges in seconds: fine around the targets of each task (an image 1.5 s, a classification 60 ms).
_RUN_EDGES = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1, 1.5, 2, 3, 5, 10, 30, 60, 300)
_WAIT_EDGES = (0.01, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_STAGE_EDGES = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60)
_STEP_EDGES = (0.005, 0.01, 0.02, 0.03, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 0.75, 1, 2)
_LOAD_EDGES = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600)
_BATCH_EDGES = (1, 2, 4, 8, 16, 32, 64, 128)


class WorkerMetrics:
    """Every metric of a worker, on a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._add_jobs()
        self._add_images()
        self._add_models()

    def _add_jobs(self) -> None:
        by_model = ("task", "model")
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
            "job_run_duration_seconds", "From start to end.", _RUN_EDGES, *by_model
        )
        self.batch_size = self._histogram(
            "batch_size", "Rows of one forward.", _BATCH_EDGES, *by_model
        )
        self.embedding_tokens = self._counter("embedding_tokens_total", "Tokens embedded.", "model")
        self.classified_images = self._counter(
            "classified_images_total", "Images classified.", "model"
        )

    def _add_images(self) -> None:
        self.denoise_step_duration = self._histogram(
            "denoise_step_duration_seconds", "One step of the rows in it.", _STEP_EDGES, "model"
        )
        self.denoise_steps = self._counter(
            "denoise_steps_total", "Steps done, of each image.", "model"
        )
        self.images_generated = self._counter("images_generated_total", "Images stored.", "model")
        self.image_pixels = self._counter("image_pixels_total", "Pixels stored.", "model")
        self.result_store_bytes = self._counter("result_store_bytes_total", "Bytes stored.")
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

    def _add_models(self) -> None:
        self.stage_duration = self._histogram(
            "stage_duration_seconds", "Parts of a job's run.", _STAGE_EDGES, "model", "stage"
        )
        self.model_load_duration = self._histogram(
            "model_load_duration_seconds", "From disk to device.", _LOAD_EDGES, "model"
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
        self.memory_budget = Gauge(
            "triptych_memory_budget_bytes", "What models may take.", registry=self.registry
        )

    def _counter(self, name: str, text: str, *labels: str) -> Counter:
        return Counter(f"triptych_{name}", text, labels, registry=self.registry)

    def _histogram(self, name: str, text: str, edges: tuple[float, ...], *labels: str) -> Histogram:
        return Histogram(f"triptych_{name}", text, labels, buckets=edges, registry=self.registry)
