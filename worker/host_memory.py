"""How much of the host's memory there is to take, and how some is given back. Free of torch."""

import ctypes
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")  # of version 2: a container's own
_USABLE_SHARE = 0.8  # of what is free; the rest is for the workers' own needs and for others


def usable_host_bytes(meminfo: Path = _MEMINFO, cgroup: Path = _CGROUP) -> int:
    """What models may take without swapping, or being killed in their container.

    proc(5), `MemAvailable`; the kernel's cgroup-v2, `memory.max` and `memory.current`.
    """
    available = next(
        int(line.split()[1]) * 1024
        for line in meminfo.read_text().splitlines()
        if line.startswith("MemAvailable:")
    )
    try:
        limit = (cgroup / "memory.max").read_text().strip()
        used = int((cgroup / "memory.current").read_text())
    except OSError:
        limit, used = "max", 0  # no container of this kind
    if limit != "max":
        available = min(available, max(0, int(limit) - used))
    return int(_USABLE_SHARE * available)


def give_back_free_memory() -> None:
    """Let the host have what the C library keeps of memory that was freed.

    It keeps it for the next use, between blocks that live for good: weights as they were read, and
    the work of the largest steps. glibc, malloc_trim(3); other C libraries have none.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
