"""What nvidia-smi answers, in its own form, and what CUDA_VISIBLE_DEVICES leaves of it."""

import os
import stat
from pathlib import Path

import pytest

from triptych.host_devices import Gpu, parse_gpus, this_host, visible_gpus

MIB = 2**20
TWO_H100 = """\
0, GPU-2d3f6a52-8f5e-4b0f-9d0a-3a3c0f1b7a10, 81079, NVIDIA H100 80GB HBM3
1, GPU-9be0a9a2-0c0f-7d21-8f52-6a1a53d1f0aa, 4123, NVIDIA H100 80GB HBM3
"""
SHARED_MEMORY = "0, GPU-5c1d7c4e-11f2-5a1e-9c55-d5b3c2f0e9aa, [N/A], NVIDIA GB10\n"
BROKEN_DRIVER = (
    "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver. "
    "Make sure that the latest NVIDIA driver is installed and running."
)


def test_each_line_of_nvidia_smi_is_a_gpu() -> None:
    first, second = parse_gpus(TWO_H100)
    assert (first.device, first.name) == ("cuda:0", "NVIDIA H100 80GB HBM3")
    assert (second.device, second.free_bytes) == ("cuda:1", 4123 * MIB)


def test_a_gpu_that_shares_the_memory_of_the_cpu_does_not_say_what_is_free() -> None:
    assert parse_gpus(SHARED_MEMORY) == [
        Gpu(0, "GPU-5c1d7c4e-11f2-5a1e-9c55-d5b3c2f0e9aa", "NVIDIA GB10", None)
    ]


@pytest.mark.parametrize(
    ("value", "visible"),
    [
        (None, [0, 1]),
        ("1", [1]),
        ("1,0", [1, 0]),
        ("GPU-9be0a9a2", [1]),
        (" 1 , 0", [1, 0]),
        ("", []),
        ("-1", []),
        ("0,7,1", [0]),  # what stands behind a number that is none is not seen
    ],
)
def test_cuda_visible_devices_chooses_and_counts_anew(
    value: str | None, visible: list[int]
) -> None:
    gpus = parse_gpus(TWO_H100)
    environment = {} if value is None else {"CUDA_VISIBLE_DEVICES": value}
    left = visible_gpus(gpus, environment)
    assert [gpu.uuid for gpu in left] == [gpus[i].uuid for i in visible]
    assert [gpu.device for gpu in left] == [f"cuda:{i}" for i in range(len(visible))]


def test_a_part_of_a_gpu_is_a_device_whose_free_memory_is_not_known() -> None:
    part = "MIG-3f8d2a1e-6b0c-5f7e-9d4a-1c2b3a4d5e6f"
    (gpu,) = visible_gpus(parse_gpus(TWO_H100), {"CUDA_VISIBLE_DEVICES": part})
    assert (gpu.device, gpu.free_bytes) == ("cuda:0", None)


@pytest.fixture
def nvidia_smi(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, the only one on the path, that a test writes."""
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return tmp_path / "nvidia-smi"


def write_program(path: Path, script: str) -> None:
    path.write_text(f"#!/bin/sh\n{script}\n", encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def test_a_driver_that_does_not_answer_means_no_gpu_and_is_logged(
    nvidia_smi: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_program(nvidia_smi, f'echo "{BROKEN_DRIVER}"; exit 9')
    host = this_host()
    assert host.gpus == ()
    assert f"event=gpus_unknown status=9 reason={BROKEN_DRIVER}" in caplog.messages


def test_a_cpu_build_of_pytorch_uses_no_gpu_and_says_so(
    nvidia_smi: Path, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    write_program(nvidia_smi, f"cat <<'END'\n{TWO_H100}END")
    gpus = this_host().gpus
    assert len(gpus) == (0 if torch.version.cuda is None else 2)
    said = "event=gpus_unused num_gpus=2 reason=PyTorch is a CPU build" in caplog.messages
    assert said is (torch.version.cuda is None)


def test_the_cores_are_those_that_this_process_may_use() -> None:
    assert this_host().num_cores == len(os.sched_getaffinity(0))
