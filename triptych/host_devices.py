"""The GPUs and cores of this host. Free of torch, whose import takes seconds.

GPUs are those that nvidia-smi lists and CUDA_VISIBLE_DEVICES leaves, in the order of nvidia-smi;
workers are started with CUDA_DEVICE_ORDER=PCI_BUS_ID, which makes that the order of CUDA as well.
Sources: docs.nvidia.com/cuda/cuda-c-programming-guide, "CUDA Environment Variables";
`nvidia-smi --help-query-gpu`.
"""

import importlib.util
import logging
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

logger = logging.getLogger(__name__)

_QUERY = (
    "nvidia-smi",
    "--query-gpu=index,uuid,memory.free,name",
    "--format=csv,noheader,nounits",
)
_PROBE_TIMEOUT_S = 20.0  # eight GPUs without NVIDIA's persistence daemon take several seconds
_MIB = 2**20  # nvidia-smi's "MiB"


@dataclass(frozen=True, slots=True)
class Gpu:
    index: int  # N of cuda:N
    uuid: str
    name: str
    free_bytes: int | None  # None: nvidia-smi cannot tell (memory shared with the CPU, MIG)

    @property
    def device(self) -> str:
        return f"cuda:{self.index}"


@dataclass(frozen=True, slots=True)
class Host:
    gpus: tuple[Gpu, ...]
    num_cores: int


def this_host() -> Host:
    """Ask once, at the start; what is free then is what the workers will find."""
    gpus = visible_gpus(parse_gpus(_run_nvidia_smi()), os.environ)
    if gpus and not _torch_can_use_cuda():
        logger.warning("event=gpus_unused num_gpus=%d reason=PyTorch is a CPU build", len(gpus))
        gpus = ()
    return Host(gpus, _num_cores())


def parse_gpus(listed: str) -> list[Gpu]:
    """Read the answer of nvidia-smi: one GPU a line; free memory may be no number."""
    gpus = []
    for line in listed.splitlines():
        index, uuid, free_mib, name = line.split(", ", 3)
        free_bytes = int(free_mib) * _MIB if free_mib.isdecimal() else None
        gpus.append(Gpu(int(index), uuid, name.strip(), free_bytes))
    return gpus


def visible_gpus(gpus: Sequence[Gpu], environment: Mapping[str, str]) -> tuple[Gpu, ...]:
    """Apply CUDA_VISIBLE_DEVICES as CUDA does: the first entry that is no GPU ends the list."""
    entries = environment.get("CUDA_VISIBLE_DEVICES")
    if entries is None:
        return tuple(gpus)
    visible: list[Gpu] = []
    for entry in entries.split(","):
        gpu = _find(gpus, entry.strip())
        if gpu is None:
            break
        visible.append(replace(gpu, index=len(visible)))  # CUDA counts them anew
    return tuple(visible)


def _find(gpus: Sequence[Gpu], entry: str) -> Gpu | None:
    """A GPU by its number or the beginning of its UUID."""
    if entry.startswith("MIG-"):  # a part of a GPU, of which nvidia-smi lists only the whole
        return Gpu(0, entry, entry, None)
    for gpu in gpus:
        if entry == str(gpu.index) or (entry.startswith("GPU-") and gpu.uuid.startswith(entry)):
            return gpu
    return None


def _run_nvidia_smi() -> str:
    """Its answer; empty where there is no driver, with a line in the log if one seems broken."""
    try:
        done = subprocess.run(
            _QUERY, capture_output=True, text=True, timeout=_PROBE_TIMEOUT_S, check=True
        )
    except FileNotFoundError:
        return ""
    except subprocess.CalledProcessError as error:
        said = " ".join(f"{error.stdout} {error.stderr}".split())
        logger.warning("event=gpus_unknown status=%d reason=%s", error.returncode, said)
        return ""
    except (OSError, subprocess.TimeoutExpired) as error:
        logger.warning("event=gpus_unknown reason=%s", error)
        return ""
    return done.stdout


def _torch_can_use_cuda() -> bool:
    """Read it from the file that PyTorch's build wrote: `cuda: Optional[str] = '13.0'` or None."""
    torch = importlib.util.find_spec("torch")  # finds it and does not import it
    if torch is None or torch.origin is None:
        return False
    version = Path(torch.origin).with_name("version.py").read_text(encoding="utf-8")
    return re.search(r"^cuda\b[^=]*= *['\"]", version, re.MULTILINE) is not None


def _num_cores() -> int:
    """Those that this process may use, where the system tells."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1
