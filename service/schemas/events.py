"""The events of `GET /v1/jobs/{id}/events`: fields named as in the job object."""

from collections.abc import Mapping
from typing import Literal, TypeAlias, assert_never

from pydantic import Field

from service.schemas.fields import Absent, ResponseBody
from worker.contract.events import (
    Event,
    FinishedEvent,
    PreviewEvent,
    QueuedEvent,
    StartedEvent,
    StepEvent,
)


class Queued(ResponseBody):
    """The job waits; again after the loss of its worker."""

    type: Literal["queued"] = "queued"
    queue_position: int = Field(description="jobs before this one, when it was queued")


class Started(ResponseBody):
    type: Literal["started"] = "started"
    attempt: int


class Step(ResponseBody):
    """A step of an image job is done."""

    type: Literal["step"] = "step"
    step: int
    total_steps: int
    remaining_s: Absent[float] = Field(None, description="estimated, until the job is finished")


class Preview(ResponseBody):
    """What an image looks like after one of the request's `preview_steps`."""

    type: Literal["preview"] = "preview"
    index: int = Field(description="which image of the job, from 0")
    step: int
    b64_json: str = Field(description="a PNG with an eighth of the image's sides")


class Finished(ResponseBody):
    """The last event; the result is at the job's own URL."""

    type: Literal["finished"] = "finished"
    status: Literal["succeeded", "failed", "canceled", "expired"]


JobEvent: TypeAlias = Queued | Started | Step | Preview | Finished
EVENT_KINDS: Mapping[str, type[JobEvent]] = {
    "queued": Queued,
    "started": Started,
    "step": Step,
    "preview": Preview,
    "finished": Finished,
}


def from_event(event: Event) -> JobEvent:
    match event:
        case QueuedEvent():
            return Queued(queue_position=event.position)
        case StartedEvent():
            return Started(attempt=event.attempt)
        case StepEvent():
            return Step(step=event.step, total_steps=event.num_steps, remaining_s=event.remaining_s)
        case PreviewEvent():
            return Preview(index=event.index, step=event.step, b64_json=event.image)
        case FinishedEvent():
            return Finished.model_validate({"status": event.state.value})
        case _:
            assert_never(event)
