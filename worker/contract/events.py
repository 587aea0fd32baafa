"""What a client can follow of a job: a Redis stream each, written by the record's scripts alone.

The stream holds the last 256 events or a few more, and is gone ten minutes after the last of them,
`finished`. Its ids are Redis' own: who has read as far as one goes on from there. A job whose
worker was lost is `queued` and `started` again. Knows nothing of HTTP.
"""

from collections.abc import Mapping
from typing import Annotated, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from worker.contract import script_prelude
from worker.contract.jobs import JobState


class _Event(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")

    id: str  # of the stream's entry, such as 1795707488306-0


class QueuedEvent(_Event):
    type: Literal["queued"] = "queued"
    position: int  # how many jobs stood before it then


class StartedEvent(_Event):
    type: Literal["started"] = "started"
    attempt: int


class StepEvent(_Event):
    type: Literal["step"] = "step"
    step: int  # done so far
    num_steps: int
    remaining_s: float | None = None  # until the end, as the worker estimates; None: not known yet


class PreviewEvent(_Event):
    type: Literal["preview"] = "preview"
    index: int  # which image of the job
    step: int  # after how many of that image's steps
    image: str  # a small PNG in base64


class FinishedEvent(_Event):
    type: Literal["finished"] = "finished"
    state: JobState  # a final one


Event: TypeAlias = QueuedEvent | StartedEvent | StepEvent | PreviewEvent | FinishedEvent

_EVENT: TypeAdapter[Event] = TypeAdapter(Annotated[Event, Field(discriminator="type")])


def events_key(job_id: str) -> str:
    return f"{script_prelude.EVENTS_PREFIX}{job_id}"


def parse_event(stream_id: str, fields: Mapping[str, str]) -> Event:
    """Read what `XREAD` or `XRANGE` gave, decoded."""
    return _EVENT.validate_python({"id": stream_id, **fields})
