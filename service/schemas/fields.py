"""What the bodies of all routes share."""

from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError

from worker.contract.jobs import Priority
from worker.contract.record import Record


def _well_formed(text: str) -> str:
    try:
        text.encode()
    except UnicodeEncodeError as error:
        message = "must not hold lone surrogates (half of a \\u pair)"
        raise PydanticCustomError("text", message) from error
    return text


Text = Annotated[str, AfterValidator(_well_formed)]  # a string that UTF-8 can carry


def _strings(value: object) -> object:
    if isinstance(value, str):
        return value
    allowed = "allowed: a string or an array of strings"
    if not isinstance(value, list):
        raise PydanticCustomError("strings", allowed)
    for index, item in enumerate(value):
        if not isinstance(item, str):
            raise PydanticCustomError(
                "strings", "item {index} is no string; " + allowed, {"index": index}
            )
    return value


OneOrMany = Annotated[Text | list[Text], BeforeValidator(_strings)]


# A field of all requests.
PriorityField = Annotated[
    Priority | None,
    Field(
        description="high: before the normal jobs that wait, as if it cost an eighth; low: after "
        "them, as if it cost eight times as much; null: normal"
    ),
]


def _is_none(value: object) -> bool:
    return value is None


_Value = TypeVar("_Value")
Absent = Annotated[_Value | None, Field(exclude_if=_is_none)]  # left out where it is None


class RequestBody(BaseModel):
    """Strict: no "5" for 5; an unknown key is an error, for a misspelt one costs device time."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ResponseBody(BaseModel):
    model_config = ConfigDict(frozen=True)


class Timings(ResponseBody):
    """Where a finished job's time went, in seconds."""

    queue_s: float = Field(description="from creation to the start of the attempt that counted")
    run_s: float

    @classmethod
    def from_record(cls, record: Record) -> "Timings":
        created_at = record.job.created_at
        started_at = created_at if record.started_at is None else record.started_at
        finished_at = started_at if record.finished_at is None else record.finished_at
        # clamped: creation is dated by the API's clock, the rest by the server's
        queue_s = max(0.0, started_at - created_at)
        return cls(queue_s=round(queue_s, 6), run_s=round(finished_at - started_at, 6))
