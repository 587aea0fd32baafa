"""A process and all that it started, as Linux tells: who they are, and what they take."""

import os
from collections import defaultdict
from dataclasses import dataclass
from pathlib import Path

_PROC = Path("/proc")


def tree_of(root: int) -> list[int]:
    """The process ids, the root's first."""
    children = defaultdict(list)
    for directory in _PROC.iterdir():
        if directory.name.isdecimal() and (parent := _parent_of(directory)) is not None:
            children[parent].append(int(directory.name))
    found = [root]
    for pid in found:  # grows meanwhile
        found += children[pid]
    return found


def memory_bytes(root: int) -> int:
    """Of the whole tree; what several share counts once (PSS)."""
    return sum(_pss_bytes(_PROC / str(pid)) for pid in tree_of(root))


def cpu_s(root: int) -> float:
    """What the processes of the tree that live have computed, in the kernel and outside."""
    ticks = [sum(map(int, _stat_of(_PROC / str(pid))[11:13])) for pid in tree_of(root)]
    return sum(ticks) / os.sysconf("SC_CLK_TCK")


def _parent_of(directory: Path) -> int | None:
    stat = _stat_of(directory)
    return int(stat[1]) if stat else None


def _stat_of(directory: Path) -> list[str]:
    """What proc(5) says of `stat`, from the state on; nothing of a process that has just ended."""
    try:
        stat = (directory / "stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):
        return []
    return stat.rpartition(")")[2].split()


def _pss_bytes(directory: Path) -> int:
    try:
        lines = (directory / "smaps_rollup").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))


@dataclass(frozen=True, slots=True)
class ProcessSize:
    name: str
    rss_mib: float
    num_threads: int
    num_files: int  # that it has open, sockets too


def sizes_of(root: int) -> list[ProcessSize]:
    """Of each process of the tree that lives, the root's first."""
    return [size for pid in tree_of(root) if (size := _size_of(_PROC / str(pid))) is not None]


def _size_of(directory: Path) -> ProcessSize | None:
    try:
        lines = (directory / "status").read_text(encoding="utf-8").splitlines()
        status = dict(line.split(":\t", 1) for line in lines)
        return ProcessSize(
            name=_name_of(directory),
            rss_mib=round(int(status["VmRSS"].split()[0]) / 1024, 1),
            num_threads=int(status["Threads"]),
            num_files=len([*(directory / "fd").iterdir()]),
        )
    except (FileNotFoundError, ProcessLookupError, KeyError):  # it has just ended
        return None


def _name_of(directory: Path) -> str:
    """As `ps` has it, which says little of Python's own."""
    name = (directory / "comm").read_text(encoding="utf-8").strip()
    words = (directory / "cmdline").read_text(encoding="utf-8").split("\0")
    return " ".join(words[1:3]) if name.startswith("python") else name
