"""How much memory the models of a worker may take, on its device and in the host's memory."""

from dataclasses import dataclass
from pathlib import Path

import torch

from worker.settings import WorkerSettings

_MEMINFO = Path("/proc/meminfo")


@dataclass(frozen=True, slots=True)
class Memory:
    """device_bytes  for all resident models and their work; None: no limit
    host_bytes    for models that left the device; 0: they are loaded anew
    """

    device_bytes: int | None = None
    host_bytes: int = 0


def memory_of(device: str, settings: WorkerSettings) -> Memory:
    """The budgets that are configured; else what a GPU has free, and no limit on the CPU."""
    budget = settings.memory_budget
    if device == "cpu":
        return Memory(device_bytes=budget)  # what leaves would only go where it is
    if budget is None:
        free_bytes, _ = torch.cuda.mem_get_info(device)
        device_bytes = max(0, free_bytes - settings.memory_reserve)
    else:
        device_bytes = int(budget)
    host = settings.host_memory_budget
    return Memory(device_bytes, free_host_bytes() // 2 if host is None else int(host))


def free_host_bytes() -> int:
    """What programs of this host can have without swapping (proc(5), `MemAvailable`)."""
    for line in _MEMINFO.read_text().splitlines():
        name, _, rest = line.partition(":")
        if name == "MemAvailable":
            return int(rest.split()[0]) * 1024
    raise OSError(f"{_MEMINFO} does not say what is available")
