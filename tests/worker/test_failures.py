"""The table from exceptions to failures is complete, and says nothing it should not."""

import pytest
import torch

from models import errors
from models.errors import (
    ImageDecodeError,
    ModelsError,
    PresetFileError,
    TextTooLongError,
    UnknownPresetError,
    WeightsError,
)
from tests.worker.jobs import embeddings_job
from worker.contract.jobs import FailureCode
from worker.failures import (
    BadInputError,
    DeviceLostError,
    DiskFullError,
    StorageError,
    explain,
    failure_of,
)

SECRET = "/secret/path"
JOB = embeddings_job("a text")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ImageDecodeError("bad"), FailureCode.INVALID_IMAGE),
        (TextTooLongError("long"), FailureCode.INPUT_TOO_LONG),
        (torch.OutOfMemoryError(SECRET), FailureCode.GPU_OOM),
        (MemoryError(SECRET), FailureCode.GPU_OOM),
        (RuntimeError(f"can't allocate memory {SECRET}"), FailureCode.GPU_OOM),
        (UnknownPresetError(SECRET), FailureCode.MODEL_LOAD),
        (PresetFileError(SECRET), FailureCode.MODEL_LOAD),
        (WeightsError(SECRET), FailureCode.MODEL_LOAD),
        (StorageError(SECRET), FailureCode.STORAGE),
        (DiskFullError(SECRET), FailureCode.DISK_FULL),
        (RuntimeError(SECRET), FailureCode.INTERNAL),
    ],
)
def test_each_exception_has_its_code_and_keeps_its_secrets(
    error: Exception, code: FailureCode
) -> None:
    failure = failure_of(error)
    assert failure.code is code
    assert SECRET not in failure.message


def test_every_error_of_models_has_a_code_of_its_own() -> None:
    leaves = [
        kind
        for kind in vars(errors).values()
        if isinstance(kind, type) and issubclass(kind, ModelsError) and not kind.__subclasses__()
    ]
    assert len(leaves) >= 5
    assert [kind for kind in leaves if failure_of(kind("x")).code is FailureCode.INTERNAL] == []


def test_an_input_error_speaks_for_itself() -> None:
    assert failure_of(TextTooLongError("9 tokens; 8 are allowed")).message.startswith("9 tokens")


def test_a_bad_input_is_named() -> None:
    error = BadInputError("input[2]")
    error.__cause__ = ImageDecodeError("bad")
    failure = failure_of(error)
    assert (failure.code, failure.message, failure.param) == (
        "invalid_image",
        "input[2]: bad",
        "input[2]",
    )


@pytest.mark.parametrize(
    "cause",
    [
        torch.AcceleratorError("CUDA error: unspecified launch failure"),
        RuntimeError("CUDA error: CUBLAS_STATUS_EXECUTION_FAILED when calling `cublasSgemm(...)`"),
    ],
    ids=["of_a_kernel", "of_a_library"],
)
def test_a_device_that_fails_is_no_fault_of_the_job(cause: Exception) -> None:
    broken = RuntimeError("the forward broke")
    broken.__cause__ = cause
    with pytest.raises(DeviceLostError, match=JOB.id):
        explain(JOB, broken)


@pytest.mark.parametrize(
    "error",
    [
        torch.OutOfMemoryError("CUDA out of memory"),
        torch.AcceleratorError("CUDA error: out of memory"),
        RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    ],
    ids=["of_torch", "of_cuda", "of_a_library"],
)
def test_a_lack_of_memory_is_no_failure_of_the_device(error: Exception) -> None:
    assert explain(JOB, error).code is FailureCode.GPU_OOM


@pytest.mark.parametrize(
    ("error", "has_traceback"),
    [(DiskFullError("image 0"), False), (StorageError("image 0"), True)],
)
def test_the_log_has_a_traceback_only_where_the_code_does_not_say_all(
    error: Exception, has_traceback: bool, caplog: pytest.LogCaptureFixture
) -> None:
    explain(JOB, error)
    [line] = caplog.records
    assert f"code={failure_of(error).code}" in line.getMessage()
    assert bool(line.exc_info) is has_traceback
