"""Whom the soak strikes: what its own supervisors have started, and nobody else."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.faults.hosts import Host

SLEEP = [sys.executable, "-c", "import time; time.sleep(600)"]


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path, "host", None)


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen(SLEEP)
    yield process
    process.kill()
    process.wait()


def test_a_number_that_has_become_another_process_is_left_alone(
    host: Host, stranger: subprocess.Popen[bytes]
) -> None:
    host.kill(stranger.pid)
    with pytest.raises(subprocess.TimeoutExpired):
        stranger.wait(0.1)


def test_what_writes_to_the_hosts_log_is_struck(host: Host) -> None:
    with host.log.open("ab") as log:
        process = subprocess.Popen(SLEEP, stdout=log, stderr=log)
    host.kill(process.pid)
    assert process.wait(60) == -9
