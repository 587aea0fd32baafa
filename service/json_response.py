"""What every route answers with where it is no error.

An answer of megabytes is put together from parts: one call that escapes or formats them all holds
the GIL, and with it the requests of all others, for as long as it takes, in a thread too.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

from fastapi import Response
from pydantic import BaseModel

from service.schemas.jobs import JobObject, JobResult


def json_response(body: BaseModel, status: int = 200) -> Response:
    return json_text(body.model_dump_json().encode(), status)


def json_text(text: bytes, status: int = 200) -> Response:
    """Answer with what is JSON already."""
    return Response(text, status, media_type="application/json")


def json_in_rows(body: JobObject | JobResult, status: int = 200) -> Response:
    """Answer with the same JSON, the items of the result's `data` dumped one by one."""
    result = body.result if isinstance(body, JobObject) else body
    if result is None:
        return json_response(body, status)
    without = result.model_copy(update={"data": []})
    rest = body.model_copy(update={"result": without}) if isinstance(body, JobObject) else without
    rows = b",".join(row.model_dump_json().encode() for row in result.data)
    text = rest.model_dump_json().encode()
    return json_text(b"".join(filled(text, "data", "[]", [rows])), status)


def json_with_images(body: BaseModel, images: Sequence[bytes]) -> Response:
    """Answer with the same JSON, in which each empty `b64_json` is an image that is in base64."""
    text = body.model_dump_json().encode()
    return json_text(b"".join(with_images(text, images)))


def with_images(text: bytes, images: Sequence[bytes]) -> Iterator[bytes]:
    """The parts of a JSON text in which each empty `b64_json` is an image that is in base64."""
    return filled(text, "b64_json", '""', images)


def filled(
    text: bytes, key: str, empty: Literal['""', "[]"], values: Sequence[bytes]
) -> Iterator[bytes]:
    """The parts of a JSON text in which the empty values of a key are these instead.

    A string within a JSON text has its quotes escaped: it does not look like a key.
    """
    hole = f'"{key}":{empty}'.encode()
    before, *rest = text.split(hole)
    yield before
    for value, after in zip(values, rest, strict=True):
        yield from (hole[:-1], value, hole[-1:] + after)
