"""What several API processes count, summed: any of them answers a scrape for all.

prometheus_client's multiprocess mode: each process keeps its numbers in mapped files, which outlive
it. Here the files belong to the process' index, so that the one that takes a dead one's place goes
on counting in them, and there are never more. They are written in full before they are mapped: a
mapped page for which the disk has no room would kill the process.
https://prometheus.github.io/client_python/multiprocess/
"""

import os
import shutil
from pathlib import Path

_VARIABLE = "PROMETHEUS_MULTIPROC_DIR"  # as the library calls it, which reads it when imported
_FILE_BYTES = 512 * 1024  # some 2,500 numbers; a file that grows beyond does so as it is mapped
_COUNTS = ("counter", "histogram")
_GAUGES = "gauge_livesum"


def environment(directory: Path) -> dict[str, str]:
    """The variables by which a process keeps its counts in this directory."""
    return {_VARIABLE: str(directory.resolve())}


def are_shared() -> bool:
    return _VARIABLE in os.environ


def prepare(directory: Path, num_processes: int) -> None:
    """Begin with no counts, whatever an earlier service has left there."""
    shutil.rmtree(directory, ignore_errors=True)
    directory.mkdir(parents=True)
    for index in range(num_processes):
        for kind in _COUNTS:
            _write_zeros(directory, kind, index)
        reset_gauges(directory, index)


def reset_gauges(directory: Path, index: int) -> None:
    """Forget what a dead process had, such as requests that nobody answers any more."""
    _write_zeros(directory, _GAUGES, index)


def count_as(index: int) -> None:
    """Let this process go on in the files of this index; before its first metric is made."""
    from prometheus_client import values

    of_index = values.MultiProcessValue(lambda: index)  # type: ignore[no-untyped-call]
    values.ValueClass = of_index


def _write_zeros(directory: Path, kind: str, index: int) -> None:
    file = directory / f"{kind}_{index}.db"
    new = file.with_suffix(".new")  # no scrape reads half a file
    new.write_bytes(bytes(_FILE_BYTES))
    new.replace(file)
