"""What is taken for a hang, and what is not; each in a process of its own."""

import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
HANG_S = 1.0
LIMIT_S = 60.0  # reached only by a failing test

# Says "begun" when the watchdog looks, and "ended" where the work comes to its end.
PROGRAM = """
import ctypes, sys, time
from worker.pieces import Pieces
from worker.watchdog import Watchdog

pieces = Pieces()
watchdog = Watchdog({hang_s}, pieces)
watchdog.start()
print("begun", flush=True)
{work}
watchdog.stop()
print("ended", flush=True)
"""
WORK = {
    "hangs": "with pieces.at_work(): time.sleep(600)",
    "hangs with Python's lock": "with pieces.at_work(): ctypes.PyDLL(None).sleep(600)",
    "waits long for work": f"time.sleep({1.5 * HANG_S})",
    "has short pieces": f"""
with pieces.at_work():
    for _ in range(15):
        pieces.begin_next()
        time.sleep({HANG_S / 10})
""",
    "is stopped in a piece": f"""
with pieces.at_work():
    for _ in range(5):
        time.sleep({HANG_S / 10})
""",
}


@pytest.fixture(scope="module")
def ends() -> Mapping[str, subprocess.CompletedProcess[str]]:
    """How a process ends that does each of these; they run at the same time."""
    processes = {name: _start(work) for name, work in WORK.items()}
    for _ in range(2):
        processes["is stopped in a piece"].send_signal(signal.SIGSTOP)
        time.sleep(0.6 * HANG_S)
        processes["is stopped in a piece"].send_signal(signal.SIGCONT)
        time.sleep(0.15 * HANG_S)
    ends = {}
    for name, process in processes.items():
        said, trace = process.communicate(timeout=LIMIT_S)
        ends[name] = subprocess.CompletedProcess([], process.returncode, said, trace)
    return ends


def _start(work: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", PROGRAM.format(hang_s=HANG_S, work=work)]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=ROOT, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    return process


@pytest.mark.parametrize("work", ["hangs", "hangs with Python's lock"])
def test_a_process_that_hangs_ends_with_the_traceback_of_every_thread(
    ends: Mapping[str, subprocess.CompletedProcess[str]], work: str
) -> None:
    end = ends[work]
    assert (end.returncode, end.stdout) == (1, "")
    assert "Timeout" in end.stderr
    assert end.stderr.count("most recent call first") == 2


@pytest.mark.parametrize(
    "work", ["waits long for work", "has short pieces", "is stopped in a piece"]
)
def test_what_takes_long_and_goes_on_is_no_hang(
    ends: Mapping[str, subprocess.CompletedProcess[str]], work: str
) -> None:
    end = ends[work]
    assert (end.returncode, end.stdout, end.stderr) == (0, "ended\n", "")
