"""How much of the host's memory there is to take, and how long it is kept. Free of torch."""

import ctypes
from pathlib import Path

_MEMINFO = Path("/proc/meminfo")
_CGROUP = Path("/sys/fs/cgroup")  # of version 2: a container's own
_USABLE_SHARE = 0.8  # of what is free; the rest is for the workers' own needs and for others
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD, _M_ARENA_MAX = -1, -3, -8  # glibc, malloc.h
_KEPT_BYTES = 512 * 2**20  # at the heap's end; more than a batch of any small model works with
_BLOCK_BYTES = 32 * 2**20  # the most that glibc takes: larger ones come and go by themselves


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


def keep_freed_memory() -> None:
    """Have the C library keep what a forward frees: the next one asks for as much again.

    Left to itself, glibc gives the host all that is free at the end of its heap, batch after batch,
    and gets it back page by page: up to a third of a small forward's time. mallopt(3); other C
    libraries have none. `give_back_free_memory` is for when there is no next one: it reaches the
    end of one heap alone, so from here on threads that have no other share that one.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, 1)
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _BLOCK_BYTES)


def give_back_free_memory() -> None:
    """Let the host have what the C library keeps of memory that was freed.

    It keeps it for the next use, between blocks that live for good: weights as they were read, and
    the work of the largest steps. glibc, malloc_trim(3); other C libraries have none.
    """
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
