"""How much memory of the host models may take, and what becomes of it when it is free."""

import ctypes
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from worker.device_memory import Memory
from worker.host_memory import give_back_free_memory, usable_host_bytes
from worker.loading import ModelLoader

GIB = 2**30


@pytest.fixture
def meminfo(tmp_path: Path) -> Path:
    file = tmp_path / "meminfo"
    file.write_text(f"MemTotal: {32 * 2**20} kB\nMemFree: 1024 kB\nMemAvailable: {20 * 2**20} kB\n")
    return file


@pytest.mark.parametrize(
    ("limit", "used", "expected_gib"),
    [("max", 3, 20), (str(16 * GIB), 6, 10), (str(64 * GIB), 6, 20), (str(4 * GIB), 5, 0)],
)
def test_a_containers_limit_counts(
    meminfo: Path, tmp_path: Path, limit: str, used: int, expected_gib: int
) -> None:
    (tmp_path / "memory.max").write_text(f"{limit}\n")
    (tmp_path / "memory.current").write_text(f"{used * GIB}\n")
    assert usable_host_bytes(meminfo, tmp_path) == int(0.8 * expected_gib * GIB)


def test_without_a_container_all_counts_that_is_available(meminfo: Path, tmp_path: Path) -> None:
    assert usable_host_bytes(meminfo, tmp_path / "nowhere") == int(0.8 * 20 * GIB)


def test_this_host_has_some() -> None:
    assert usable_host_bytes() > 0


@pytest.mark.skipif(sys.platform != "linux", reason="malloc_trim is glibc's")
@pytest.mark.parametrize(
    "give_back", [give_back_free_memory, ModelLoader("cpu", Memory()).give_back]
)
def test_what_was_freed_between_blocks_that_live_goes_back_to_the_host(
    give_back: Callable[[], None],
) -> None:
    allocator = ctypes.CDLL(None)
    allocator.malloc.restype = ctypes.c_void_p
    blocks = [ctypes.c_void_p(allocator.malloc(2**16)) for _ in range(1024)]  # of the heap, each
    for block in blocks:
        ctypes.memset(block, 1, 2**16)
    for block in blocks[:-1]:  # below the last one nothing goes back by itself
        allocator.free(block)
    kept = _resident_bytes()
    give_back()
    assert kept - _resident_bytes() > 32 * 2**20
    allocator.free(blocks[-1])


_FORWARDS = """
import ctypes, resource, sys
from worker.host_memory import keep_freed_memory
if sys.argv[1] == "keep":
    keep_freed_memory()
allocator = ctypes.CDLL(None)
allocator.malloc.restype = ctypes.c_void_p

def forward():
    blocks = [ctypes.c_void_p(allocator.malloc(20 * 2**20)) for _ in range(3)]
    for block in blocks:
        ctypes.memset(block, 1, 20 * 2**20)
    for block in blocks:
        allocator.free(block)

for _ in range(3):  # glibc raises what it keeps by what it has seen
    forward()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    forward()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_what_each_forward_asks_for_again_is_kept() -> None:
    def num_page_faults(way: str) -> int:
        command = [sys.executable, "-c", _FORWARDS, way]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert num_page_faults("leave") > 10_000  # some of its 60 MB each time
    assert num_page_faults("keep") < 1000


_THREADS = """
import ctypes, re
from pathlib import Path
from threading import Barrier, Thread
from worker.host_memory import give_back_free_memory, keep_freed_memory

keep_freed_memory()
allocator = ctypes.CDLL(None)
allocator.malloc.restype = ctypes.c_void_p
together = Barrier(4)

def prepare():
    blocks = [ctypes.c_void_p(allocator.malloc(2**20)) for _ in range(50)]
    for block in blocks:
        ctypes.memset(block, 1, 2**20)
    together.wait()
    for block in blocks:
        allocator.free(block)

threads = [Thread(target=prepare) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
give_back_free_memory()
print(re.search(r"VmRSS:\\s*(\\d+) kB", Path("/proc/self/status").read_text())[1])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="mallopt is glibc's")
def test_what_was_kept_for_threads_goes_back_too() -> None:
    command = [sys.executable, "-c", _THREADS]
    resident = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert int(resident) * 1024 < 100 * 2**20  # of 200 MiB, and the interpreter's own


def _resident_bytes() -> int:
    found = re.search(r"^VmRSS:\s*(\d+) kB$", Path("/proc/self/status").read_text(), re.MULTILINE)
    assert found is not None
    return int(found[1]) * 1024
