"""A process and all that it started, as Linux tells: who they are, and what memory they take."""

from collections import defaultdict
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


def _parent_of(directory: Path) -> int | None:
    try:
        stat = (directory / "stat").read_text(encoding="utf-8")
    except (FileNotFoundError, ProcessLookupError):  # it has just ended
        return None
    return int(stat.rpartition(")")[2].split()[1])


def _pss_bytes(directory: Path) -> int:
    try:
        lines = (directory / "smaps_rollup").read_text(encoding="utf-8").splitlines()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss:"))
