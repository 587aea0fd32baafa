"""How the worker of a slot is started: its program, its environment, its port and its name.

Knows nothing of when it is started, and when again.
"""

import itertools
import logging
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from triptych.address import free_port
from triptych.fork_server import ForkedProcess
from triptych.settings import ServeSettings
from triptych.worker_process import run_worker
from triptych.worker_slots import CPU, WorkerSlot
from worker.contract.jobs import Task
from worker.contract.tracing import EXPORTING, is_tracing
from worker.host_memory import usable_host_bytes
from worker.model_specs import ModelSpec, as_json
from worker.settings import WorkerSettings, new_worker_name

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class WorkerProgram:
    """The code of a worker."""

    module: str  # its `main` takes the settings
    imports_of_task: Mapping[Task, Sequence[str]] = field(default_factory=dict)  # when it loads

    def imports(self, tasks: Sequence[Task]) -> list[str]:
        """Everything that workers of these tasks import."""
        return [
            self.module,
            *(name for task in tasks for name in self.imports_of_task.get(task, ())),
            *([EXPORTING] if is_tracing(os.environ) else []),
        ]


WORKER = WorkerProgram(
    "worker.main",
    {
        Task.IMAGES: (
            "einops._torch_specific",
            "models.flux.formats.diffusers_directory",
            "models.flux.text_to_image",
            "worker.image_warm_up",
        ),
        Task.CLASSIFY: ("PIL.ImageFile", "einops._torch_specific", "models.vit.image_classifier"),
        Task.EMBEDDINGS: ("models.fnet.text_embedder",),
    },
)

# How often a thread of OpenMP looks for the others before it sleeps. By default that is for
# milliseconds, which takes the core from the very thread that it waits for.
_SPINS = 500
_WAIT_POLICY = frozenset({"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"})  # the operator's word, if given


class WorkerLauncher:
    """Starts the processes of one slot, each under a name of its own."""

    def __init__(
        self,
        slot: WorkerSlot,
        module: str,
        environment: Mapping[str, str],
        on_lost: Callable[[str], None],
    ) -> None:
        """`on_lost` is told the name of a worker that died."""
        self.slot = slot
        self._module = module
        self._environment = environment
        self._on_lost = on_lost
        self._worker = ""  # the name of the last one

    def launch(self) -> ForkedProcess:
        self._worker = new_worker_name(self.slot.name)
        environment = {**self._environment, "TRIPTYCH_WORKER_NAME": self._worker}
        process = ForkedProcess(run_worker, self.slot.name, self._module, environment)
        logger.info("event=worker_started worker=%s pid=%d", self._worker, process.pid)
        return process

    def report_lost(self) -> None:
        self._on_lost(self._worker)


def shared_environment(slots: Sequence[WorkerSlot], given: Mapping[str, str]) -> dict[str, str]:
    """The variables that are read by what workers import; `given` are those of this process."""
    environment = {"CUDA_DEVICE_ORDER": "PCI_BUS_ID"}  # so that cuda:N is nvidia-smi's N everywhere
    if any(slot.shares_cores for slot in slots) and not _WAIT_POLICY.intersection(given):
        environment["GOMP_SPINCOUNT"] = str(_SPINS)
    return environment


def worker_ports(settings: ServeSettings, slots: Sequence[WorkerSlot]) -> dict[WorkerSlot, int]:
    """The metrics ports, behind the API's: 8001 images, 8002 classify, 8003 embeddings.

    Further workers of a task have those from 8004 on.
    """
    first = {task: settings.port + i for i, task in enumerate(Task, start=1)}
    further = itertools.count(settings.port + len(Task) + 1)
    return {slot: first[slot.task] if slot.index == 0 else next(further) for slot in slots}


def free_worker_ports(
    settings: ServeSettings, slots: Sequence[WorkerSlot]
) -> Mapping[WorkerSlot, int]:
    """The metrics ports; another where one is taken: measuring must not keep us from serving."""
    ports: dict[WorkerSlot, int] = {}
    for slot, wanted in worker_ports(settings, slots).items():
        ports[slot] = free_port(settings.host, wanted)
        if ports[slot] != wanted:
            logger.warning(
                "event=metrics_port_taken worker=%s wanted=%d used=%d",
                slot.name, wanted, ports[slot],
            )  # fmt: skip
    return ports


def worker_environment(
    settings: ServeSettings,
    specs: Sequence[ModelSpec],
    redis_url: str,
    slot: WorkerSlot,
    metrics_port: int,
) -> dict[str, str]:
    """The settings of the slot's worker, which win over what `triptych serve` was told."""
    return {
        "TRIPTYCH_QUEUE": slot.task.value,
        "TRIPTYCH_DEVICE": slot.device,
        "TRIPTYCH_REDIS_URL": redis_url,
        "TRIPTYCH_DATA_DIR": str(settings.data_dir),
        "TRIPTYCH_CONFIG": "" if settings.config is None else str(settings.config),
        "TRIPTYCH_MODELS": as_json(spec for spec in specs if spec.name in slot.models),
        "TRIPTYCH_MODEL_ALIASES": "{}",  # each model has its own by now
        "TRIPTYCH_METRICS_HOST": settings.host,
        "TRIPTYCH_METRICS_PORT": str(metrics_port),
        "TRIPTYCH_NUM_THREADS": str(slot.num_threads),
        "TRIPTYCH_DRAIN_GRACE_S": str(settings.drain_grace_s),
        "TRIPTYCH_LOG_FORMAT": settings.log_format,
        **_memory_shares(worker_settings(settings, redis_url, slot), slot),
    }


def worker_settings(settings: ServeSettings, redis_url: str, slot: WorkerSlot) -> WorkerSettings:
    """What the operator configured for the workers of this slot's task."""
    return WorkerSettings(
        config=settings.config,
        models=settings.models,
        model_aliases=settings.model_aliases,
        queue=slot.task,
        redis_url=redis_url,
        data_dir=settings.data_dir,
        device=slot.device,
    )


def _memory_shares(configured: WorkerSettings, slot: WorkerSlot) -> dict[str, str]:
    """Divide what several workers would each take for their own; what is configured stays."""
    if slot.device == CPU:
        return {}
    shares: dict[str, str] = {}
    if slot.share_bytes is not None and configured.memory_budget is None:
        share = max(1, slot.share_bytes - configured.memory_reserve)
        shares["TRIPTYCH_MEMORY_BUDGET"] = str(share)
    if configured.host_memory_budget is None:
        share = usable_host_bytes() // slot.num_gpu_workers
        shares["TRIPTYCH_HOST_MEMORY_BUDGET"] = str(share)
    return shares
