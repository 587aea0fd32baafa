"""Which workers `triptych serve` starts: each with its task, device, threads and models.

A pure function of the host, the models and what the operator asked for. Knows nothing of
processes; free of torch.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from triptych.errors import DeviceError, WorkersError
from triptych.host_devices import Gpu, Host
from worker.contract.jobs import Task
from worker.model_specs import ModelSpec

CPU = "cpu"
_GB = 1e9
# Of a worker beside its models: CUDA's context and libraries, and room to compute in.
_WORKING_BYTES = 10**9


@dataclass(frozen=True, slots=True)
class WorkerSlot:
    """One worker to start."""

    task: Task
    index: int  # among the workers of its task
    device: str  # cpu or cuda:N
    num_threads: int  # of torch on the CPU
    shares_cores: bool  # whether all workers' threads are more than the cores
    models: tuple[str, ...]  # names, the default first
    # of the device's memory, where others are there too; None: what is free when it starts
    share_bytes: int | None = None
    num_gpu_workers: int = 1  # of the host, which share its memory
    shortage: str | None = None  # why it lies where its models have no room, or on the CPU

    @property
    def name(self) -> str:
        return f"{self.task}-{self.index}"


@dataclass(frozen=True, slots=True)
class _Place:
    device: str
    need_bytes: int
    shortage: str | None = None


def plan_workers(
    host: Host,
    specs: Sequence[ModelSpec],
    model_bytes: Mapping[str, int],
    devices: Sequence[str] | None = None,
    num_workers: Mapping[Task, int] | None = None,
) -> list[WorkerSlot]:
    """Lay the workers of all served tasks over the host's devices.

    specs        the models, each with its task
    model_bytes  of each model by name, about; one that is not there counts nothing
    devices      cpu and cuda:N that workers may use; None: every GPU, and the CPU as a last resort
    num_workers  by task; where it says nothing: images one per GPU, other tasks one

    Raises DeviceError for a device that the host has not, WorkersError for workers that would have
    no model, or another default than the first.
    """
    asked = num_workers or {}
    _require_devices(host, specs, devices or ())
    _require_models(specs, asked)
    layout = _Layout(host, model_bytes, devices)
    places = {
        task: layout.place(task, [spec for spec in specs if spec.task is task], asked.get(task))
        for task in served_tasks(specs)  # images come first: theirs is the larger need
    }
    threads = _num_threads(host.num_cores, {task: len(each) for task, each in places.items()})
    shares_cores = sum(threads[task] * len(places[task]) for task in places) > host.num_cores
    return [
        WorkerSlot(
            task,
            index,
            place.device,
            threads[task],
            shares_cores,
            _models_of(index, task, specs),
            layout.share_bytes(task, place.device, places),
            max(1, sum(each.device != CPU for of_task in places.values() for each in of_task)),
            place.shortage,
        )
        for task in places
        for index, place in enumerate(places[task])
    ]


def served_tasks(specs: Sequence[ModelSpec]) -> list[Task]:
    """The tasks that at least one model is served for."""
    return [task for task in Task if any(spec.task is task for spec in specs)]


class _Layout:
    """The devices that workers may use, and what is still free there."""

    def __init__(
        self, host: Host, model_bytes: Mapping[str, int], devices: Sequence[str] | None
    ) -> None:
        usable = [gpu for gpu in host.gpus if devices is None or gpu.device in devices]
        if devices is not None:
            usable.sort(key=lambda gpu: devices.index(gpu.device))
        self._model_bytes = model_bytes
        self._free = {gpu.device: _free_bytes(gpu) for gpu in usable}
        self._free_at_start = dict(self._free)
        self._has_cpu = devices is None or CPU in devices

    def place(self, task: Task, specs: Sequence[ModelSpec], count: int | None) -> list[_Place]:
        """Lay the workers of one task, and take what they need from what is free."""
        shared = [spec for spec in specs if spec.device is None]
        need = _WORKING_BYTES + self._models_bytes(task, shared)
        own_device = specs[0].device
        if own_device is not None:  # laid out by hand: the workers follow the default model
            places = [_Place(own_device, need)] * (count or 1)
            self._take(own_device, need * len(places))
        elif not self._free:
            places = [_Place(CPU, need)] * (count or 1)
        elif task is Task.IMAGES:
            places = self._one_after_the_other(count or len(self._free), need)
        else:
            places = self._where_most_is_free(count or 1, need)
        for spec in specs:
            if spec.device is not None:
                self._take(spec.device, self._model_bytes.get(spec.name, 0))
        return places

    def share_bytes(
        self, task: Task, device: str, places: Mapping[Task, Sequence[_Place]]
    ) -> int | None:
        """What an images worker may take: its models would take all, and others come later."""
        free = self._free_at_start.get(device, math.inf)
        mates = [each for of_task in places.values() for each in of_task if each.device == device]
        if task is not Task.IMAGES or len(mates) == 1 or math.isinf(free):
            return None
        of_images = [each for each in places[task] if each.device == device]
        others = sum(each.need_bytes for each in mates) - sum(each.need_bytes for each in of_images)
        return int(max(0.0, free - others)) // len(of_images)

    def _models_bytes(self, task: Task, specs: Sequence[ModelSpec]) -> int:
        """Of all models; of the largest where images models that take turns do not fit together."""
        sizes = [self._model_bytes.get(spec.name, 0) for spec in specs]
        is_tight = sum(sizes) > min(self._free.values(), default=math.inf)
        return max(sizes, default=0) if task is Task.IMAGES and is_tight else sum(sizes)

    def _one_after_the_other(self, count: int, need: int) -> list[_Place]:
        gpus = list(self._free)
        places = [_Place(gpus[i % len(gpus)], need) for i in range(count)]
        for place in places:
            self._take(place.device, need)
        return places

    def _where_most_is_free(self, count: int, need: int) -> list[_Place]:
        """On as many GPUs as have room, before a second worker comes to one of them."""
        places: list[_Place] = []
        for _ in range(count):
            taken = [place.device for place in places]
            roomy = [device for device, free in self._free.items() if free >= need]
            if roomy:
                device = min(roomy, key=lambda each: (taken.count(each), -self._free[each]))
                place = _Place(device, need)
            else:
                place = self._without_room(need)
            self._take(place.device, need)
            places.append(place)
        return places

    def _without_room(self, need: int) -> _Place:
        best = max(self._free, key=self._free.__getitem__)
        most = max(0.0, self._free[best])
        shortage = (
            f"its models need {need / _GB:.1f} GB and the most that is free is "
            f"{most / _GB:.1f} GB on {best}"
        )
        return _Place(CPU if self._has_cpu else best, need, shortage)

    def _take(self, device: str, num_bytes: int) -> None:
        if device in self._free:
            self._free[device] -= num_bytes


def _free_bytes(gpu: Gpu) -> float:
    return math.inf if gpu.free_bytes is None else gpu.free_bytes


def _models_of(index: int, task: Task, specs: Sequence[ModelSpec]) -> tuple[str, ...]:
    """A model with a device of its own is the first worker's alone, or each would load it there.

    Where all of a task have one, each worker that was asked for gets all.
    """
    of_task = [spec for spec in specs if spec.task is task]
    shared = [spec for spec in of_task if spec.device is None]
    return tuple(spec.name for spec in (of_task if index == 0 or not shared else shared))


def _num_threads(num_cores: int, num_workers: Mapping[Task, int]) -> Mapping[Task, int]:
    """Of each worker: the images workers share half of the cores, and the others the other half.

    Two at least where there are two cores, though the workers have more threads than cores then:
    eight images a step, or a ViT-B, take a third less time with two. See `WorkerSlot.shares_cores`.
    """
    num_images = num_workers.get(Task.IMAGES, 0)
    num_others = sum(num_workers.values()) - num_images
    of_images = _share(num_cores // 2, num_images, least=min(2, num_cores // max(1, num_images)))
    of_others = _share(num_cores - num_cores // 2, num_others, least=min(2, num_cores))
    return {task: of_images if task is Task.IMAGES else of_others for task in num_workers}


def _share(num_cores: int, num_workers: int, least: int) -> int:
    return max(1, least, num_cores // max(1, num_workers))


def _require_devices(host: Host, specs: Sequence[ModelSpec], devices: Sequence[str]) -> None:
    there = [CPU, *(gpu.device for gpu in host.gpus)]
    asked = [("device", device) for device in devices]
    asked += [(f"model {spec.name}: device", spec.device) for spec in specs if spec.device]
    for where, device in asked:
        if device not in there:
            raise DeviceError(f"{where}: this host has no {device!r}; it has {', '.join(there)}")


def _require_models(specs: Sequence[ModelSpec], num_workers: Mapping[Task, int]) -> None:
    served = served_tasks(specs)
    for task, count in num_workers.items():
        if task not in served:
            raise WorkersError(
                f"workers: no model is served for {task}; there are models for {', '.join(served)}"
            )
        first, *others = [spec for spec in specs if spec.task is task]
        if count > 1 and first.device and any(spec.device is None for spec in others):
            raise WorkersError(
                f"workers: {task}={count}, but the default model {first.name} is for one worker, "
                f"as it has a device of its own; put a model without one first, or {task}=1"
            )
