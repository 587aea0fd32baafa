"""What the bodies of all routes share."""

from hashlib import sha256
from typing import Annotated, TypeVar

from pydantic import (
    AfterValidator,
    BaseModel,
    ConfigDict,
    Discriminator,
    Field,
    Tag,
    model_validator,
)
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


WellFormed = AfterValidator(_well_formed)
Text = Annotated[str, WellFormed]  # a string that UTF-8 can carry
Name = Annotated[str, Field(max_length=512), WellFormed]  # to be looked up or repeated

_Item = TypeVar("_Item")
Many = Annotated[list[_Item], Field(fail_fast=True)]  # one error will do, of a million items


def _kind(value: object) -> str | None:
    if isinstance(value, str):
        return "one"
    return "many" if isinstance(value, list) else None


OneOrMany = Annotated[
    Annotated[Text, Tag("one")] | Annotated[Many[Text], Tag("many")],
    Discriminator(
        _kind,
        custom_error_type="strings",
        custom_error_message="allowed: a string or an array of strings",
    ),
]


# A field of all requests.
PriorityField = Annotated[
    Priority | None,
    Field(
        description="high: before the normal jobs that wait, as if it cost an eighth; low: after "
        "them, as if it cost eight times as much; null: normal"
    ),
]


def end_user_of(name: str | None) -> str | None:
    """How a job names whom it is for: who knows or guesses the name can find the job by it."""
    return sha256(name.encode()).hexdigest() if name else None


def _is_none(value: object) -> bool:
    return value is None


_Value = TypeVar("_Value")
Absent = Annotated[_Value | None, Field(exclude_if=_is_none)]  # left out where it is None


def _only_null(value: object) -> None:
    if value is not None:
        raise PydanticCustomError("unsupported_parameter", "not supported here; allowed: null")


# A field of other services that has no meaning here.
Unsupported = Annotated[
    object, AfterValidator(_only_null), Field(json_schema_extra={"type": "null"})
]


class RequestBody(BaseModel):
    """Strict: no "5" for 5; an unknown key is an error, for a misspelt one costs device time."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    @model_validator(mode="before")
    @classmethod
    def _one_unknown_key(cls, body: object) -> object:
        """Show pydantic one of them: it makes an error of each, of 490,000 for seconds."""
        if not isinstance(body, dict):
            return body
        unknown = next((key for key in body if key not in cls.model_fields), None)
        if unknown is None:
            return body
        known = {key: body[key] for key in cls.model_fields if key in body}
        return {**known, unknown: body[unknown]}


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
