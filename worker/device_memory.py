"""How much memory the models of a worker may take, on its device and in the host's memory."""

from dataclasses import dataclass

import torch

from worker.host_memory import usable_host_bytes
from worker.settings import WorkerSettings


@dataclass(frozen=True, slots=True)
class Memory:
    """device_bytes  for all resident models and their work; None: no limit
    host_bytes    for what is streamed, and for models that left the device
    """

    device_bytes: int | None = None
    host_bytes: int = 0


def memory_of(device: str, settings: WorkerSettings) -> Memory:
    """The budgets that are configured; else what is free, and no limit on the CPU."""
    budget = settings.memory_budget
    if device == "cpu":
        return Memory(budget)  # what left or is streamed would lie in the same memory
    if budget is None:
        free_bytes, _ = torch.cuda.mem_get_info(device)
        budget_bytes = max(0, free_bytes - settings.memory_reserve)
    else:
        budget_bytes = int(budget)
    host = settings.host_memory_budget
    return Memory(budget_bytes, usable_host_bytes() if host is None else int(host))
