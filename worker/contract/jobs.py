"""What a job is, and how it can end.

Every class here is written to Redis as JSON, so a change of a field is a change of the wire format;
`tests/worker/contract` holds a snapshot of each. Knows nothing about Redis, HTTP or models.
"""

import secrets
from enum import StrEnum
from functools import lru_cache
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from worker.contract.trace_context import TraceContext, parse_trace_context

# A job's is read at each of its stages. Not for headers, which may be of any length.
_parse_trace = lru_cache(maxsize=256)(parse_trace_context)


class Task(StrEnum):
    """The kind of a job; also the name of the queue that carries it."""

    IMAGES = "images"
    CLASSIFY = "classify"
    EMBEDDINGS = "embeddings"


class JobState(StrEnum):
    QUEUED = "queued"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELED = "canceled"
    EXPIRED = "expired"

    @property
    def is_final(self) -> bool:
        return self not in (JobState.QUEUED, JobState.RUNNING)


class FailureCode(StrEnum):
    """Why a job failed; `service/errors.py` turns each into one answer."""

    INVALID_IMAGE = "invalid_image"
    INPUT_TOO_LONG = "input_too_long"
    GPU_OOM = "gpu_oom"
    MODEL_LOAD = "model_load"
    MODEL_NOT_SERVED = "model_not_served"
    STORAGE = "storage"
    DISK_FULL = "disk_full"
    WORKER_LOST = "worker_lost"
    INTERNAL = "internal_error"


# OpenAI's tiers of an image's quality, from few steps to many.
Quality = Literal["low", "medium", "high", "xhigh", "max"]
# The formats of an image's file, in OpenAI's words.
OutputFormat = Literal["png", "jpeg", "webp"]
# What makes scores of logits; "none" leaves them as they are.
ScoreFunction = Literal["softmax", "sigmoid", "none"]
# What makes one vector of a text's tokens: their mean, or the first one, which is [CLS].
Pooling = Literal["mean", "cls"]
# Where the tokens that are too many are cut off. In numpy's order: `typing` gives the first such
# Literal of a process to all that are equal, and a schema would depend on what was imported before.
TruncationSide = Literal["left", "right"]
# A high job counts an eighth of its cost when turns are given, a low one eight times as much.
Priority = Literal["high", "normal", "low"]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class _Job(_Frozen):
    """What all jobs share. Times are Unix seconds."""

    id: str
    model: str  # the name of its card
    created_at: float
    deadline_at: float | None = None  # not finished by then: expired
    caller: str = ""  # who shares the device with others; the library's own calls are one caller
    priority: Priority = "normal"
    metadata: dict[str, str] = Field(default_factory=dict)  # the client's own words about it
    end_user: str | None = None  # whom the caller serves with it: SHA-256 of the caller's word
    request_id: str | None = None  # of the request that made it
    traceparent: str | None = None  # the W3C's: that request's span, for those of the job
    tracestate: str | None = None

    @property
    def trace(self) -> TraceContext | None:
        if self.traceparent is None:
            return None
        return _parse_trace(self.traceparent, self.tracestate)

    @property
    def log_ids(self) -> tuple[str, str]:
        """The ids of its request and of its trace, as lines of the log have them beside its own."""
        trace = self.trace
        return self.request_id or "-", "-" if trace is None else trace.trace_id


class LoraScale(_Frozen):
    """One of the model's LoRAs, and how many times it counts."""

    name: str
    scale: float


class NegativePrompt(_Frozen):
    """What not to paint: true classifier-free guidance, by a second forward per step."""

    prompt: str
    true_cfg_scale: float  # above 1


class StartImage(_Frozen):
    """What image-to-image starts from, stored under `file_name` (see `image_files`)."""

    file_name: str
    strength: float  # in (0, 1]: how much of the schedule is run


class ImageJob(_Job):
    task: Literal[Task.IMAGES] = Task.IMAGES
    prompt: str
    seeds: tuple[int, ...]  # one image each, in this order
    width: int  # pixels
    height: int
    num_steps: int
    guidance_scale: float | None  # None: the model has no guidance embedding
    quality: Quality  # OpenAI's tier of these steps, for the answer
    loras: tuple[LoraScale, ...] = ()  # the model's other LoRAs count nothing
    negative: NegativePrompt | None = None
    start: StartImage | None = None
    preview_steps: tuple[int, ...] = ()  # after these of its steps, from 1, previews are published
    max_sequence_length: int | None = None  # tokens of a prompt for T5; None: the model's
    flow_shift: float | None = None  # of the sigmas towards 1; None: the model's
    output_format: OutputFormat = "png"
    output_compression: int = 100  # 0 to 100: the quality of a JPEG or WebP; PNG loses nothing


class ClassifyJob(_Job):
    task: Literal[Task.CLASSIFY] = Task.CLASSIFY
    images: tuple[str, ...]  # encoded image files (PNG, JPEG, …), each in base64
    top_k: int
    function: ScoreFunction = "softmax"
    labels: tuple[str, ...] | None = None  # only these are answered; scores stay those over all
    includes_scores: bool = False  # of all labels, beside the best ones


class EmbeddingsJob(_Job):
    task: Literal[Task.EMBEDDINGS] = Task.EMBEDDINGS
    texts: tuple[str | tuple[int, ...], ...]  # a text, or its token ids without special ones
    pooling: Pooling = "mean"
    normalizes: bool = True  # to length 1
    truncates: bool = False  # else a text of too many tokens fails the job
    truncation_side: TruncationSide = "right"


Job = Annotated[ImageJob | ClassifyJob | EmbeddingsJob, Field(discriminator="task")]


class Image(_Frozen):
    """One finished image, stored under `file_name` (see `image_files`)."""

    file_name: str
    seed: int
    width: int
    height: int
    num_bytes: int


class ImageResult(_Frozen):
    task: Literal[Task.IMAGES] = Task.IMAGES
    images: tuple[Image, ...]
    num_text_tokens: int  # of the prompt, and of the negative one
    is_prompt_truncated: bool  # one of them is longer than the text encoder takes
    num_patches: int  # latent tokens of all images together


class Prediction(_Frozen):
    label: str
    class_id: int
    score: float  # by the job's function: a probability, or a logit


class ClassifyResult(_Frozen):
    task: Literal[Task.CLASSIFY] = Task.CLASSIFY
    predictions: tuple[tuple[Prediction, ...], ...]  # per image, best first, ties by class id
    scores: tuple[tuple[float, ...], ...] | None = None  # per image, by class id, if asked for


class EmbeddingsResult(_Frozen):
    task: Literal[Task.EMBEDDINGS] = Task.EMBEDDINGS
    embeddings: tuple[str, ...]  # per text, little-endian float32 in base64
    num_tokens: int
    truncated: tuple[int, ...] = ()  # which texts were cut


Result = Annotated[ImageResult | ClassifyResult | EmbeddingsResult, Field(discriminator="task")]


class Failure(_Frozen):
    code: FailureCode
    message: str
    param: str | None = None  # the request's field at fault, such as "input[2]" or "image"


JOB: TypeAdapter[ImageJob | ClassifyJob | EmbeddingsJob] = TypeAdapter(Job)
RESULT: TypeAdapter[ImageResult | ClassifyResult | EmbeddingsResult] = TypeAdapter(Result)


def new_job_id() -> str:
    """128 random bits: an id cannot be guessed. Only characters that RQ allows in ids."""
    return f"job_{secrets.token_hex(16)}"
