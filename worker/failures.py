"""Exception to failure: one complete table, and the worker's own exceptions.

WorkerError
├── StorageError       the disk did not take a finished image, or has lost a start image
│   └── DiskFullError  … because it is full
├── BadInputError      one field of a request is at fault; its cause says why
├── NotServedError     no living worker serves the job's model
├── ModelUnusableError the job's model could not be loaded
└── DeviceLostError    the device failed, and this process can use it no more
"""

import logging
import re

import torch

from models.errors import ImageDecodeError, PresetError, TextTooLongError
from worker.contract.jobs import Failure, FailureCode
from worker.contract.record import AnyJob

logger = logging.getLogger(__name__)


class WorkerError(Exception):
    """The root of what the worker raises on purpose."""


class StorageError(WorkerError):
    """Raised when a finished image cannot be stored, or a start image cannot be read."""


class DiskFullError(StorageError):
    """Raised when a finished image cannot be stored because the disk is full."""


class BadInputError(WorkerError):
    """Raised `from` the error of one field or item, such as input[2], for the failure to name."""

    def __init__(self, param: str) -> None:
        super().__init__(f"{param} is at fault")
        self.param = param


class NotServedError(WorkerError):
    """Raised for a job whose model was taken out of the configuration."""


class ModelUnusableError(WorkerError):
    """Raised for a job whose model could not be loaded; it is tried again later."""


class DeviceLostError(WorkerError):
    """Raised `from` the device's error: no fault of the job, which is for another worker."""


# In PyTorch's RuntimeErrors: of the host's memory, and of what CUDA's libraries ask for.
_LACK_OF_MEMORY = re.compile(r"out of memory|can't allocate memory|_STATUS_ALLOC_FAILED")
# What CUDA's libraries say where a kernel of theirs, or of anybody before them, has failed.
_BROKEN_LIBRARY = re.compile(
    r"(CUBLAS|CUDNN|CUSOLVER)_STATUS_(EXECUTION_FAILED|INTERNAL_ERROR|MAPPING_ERROR)"
)

# What a client may read; None: the exception's own words, which speak of the input alone.
_TABLE: tuple[tuple[type[Exception], FailureCode, str | None], ...] = (
    (ImageDecodeError, FailureCode.INVALID_IMAGE, None),
    (TextTooLongError, FailureCode.INPUT_TOO_LONG, None),
    (PresetError, FailureCode.MODEL_LOAD, "the model could not be loaded"),
    (ModelUnusableError, FailureCode.MODEL_LOAD, "the model could not be loaded"),
    (NotServedError, FailureCode.MODEL_NOT_SERVED, "the model is not served any more"),
    (DiskFullError, FailureCode.DISK_FULL, "the disk that images are stored on is full"),
    (StorageError, FailureCode.STORAGE, "an image could not be stored, or read again"),
)

_SAYS_ALL = (FailureCode.INVALID_IMAGE, FailureCode.INPUT_TOO_LONG, FailureCode.DISK_FULL)


def failure_of(error: Exception) -> Failure:
    """Say in the contract's words why a job failed; what is not in the table is internal."""
    if isinstance(error, BadInputError) and isinstance(error.__cause__, Exception):
        failure = failure_of(error.__cause__)
        message = f"{error.param}: {failure.message}"
        return failure.model_copy(update={"param": error.param, "message": message})
    if is_out_of_memory(error):
        message = "the device has too little memory for this job"
        return Failure(code=FailureCode.GPU_OOM, message=message)
    for kind, code, words in _TABLE:
        if isinstance(error, kind):
            return Failure(code=code, message=str(error) if words is None else words)
    return Failure(code=FailureCode.INTERNAL, message="the worker failed on this job")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether it was memory that lacked, on the device or in the host."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and bool(_LACK_OF_MEMORY.search(str(error)))


def is_device_lost(error: BaseException) -> bool:
    """Whether CUDA reported what makes every later call of this process fail as well.

    Such errors are sticky (CUDA's runtime API, `cudaErrorIllegalAddress` and others: "the process
    must be terminated and relaunched"). The few that are not cost a restart. A lack of memory, also
    of pinned memory, is none of them.
    """
    cause: BaseException | None = error
    while cause is not None and not _is_of_device(cause):
        cause = cause.__cause__ or cause.__context__
    return cause is not None and not is_out_of_memory(cause)


def _is_of_device(error: BaseException) -> bool:
    if isinstance(error, torch.AcceleratorError):
        return True
    return isinstance(error, RuntimeError) and bool(_BROKEN_LIBRARY.search(str(error)))


def explain(job: AnyJob, error: Exception) -> Failure:
    """`failure_of`, logged; with the traceback unless the code says all.

    Raises DeviceLostError where it is the device that failed.
    """
    if is_device_lost(error):
        raise DeviceLostError(f"the device failed on {job.id}") from error
    failure = failure_of(error)
    # of a model that is unusable the log has said already why
    is_known = failure.code in _SAYS_ALL or isinstance(error, ModelUnusableError)
    cause = None if is_known else error
    logger.warning(
        "event=job_failed job=%s code=%s request_id=%s trace_id=%s",
        *(job.id, failure.code, *job.log_ids),
        exc_info=cause,
    )
    return failure
