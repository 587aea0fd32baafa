"""Bodies that a route reads by itself, as they come in more than one type: JSON or a form.

A form becomes what JSON would hold, and goes through the same schema; only there "4" counts as 4.
"""

import json
from collections.abc import Sequence
from typing import TypeVar

from fastapi import Request
from pydantic import ValidationError

from service.error_handlers import body_error, json_error, no_json, unsupported_media_type
from service.errors import RequestError, ServiceError
from service.forms import FORM, Form, read_form
from service.long_work import work_through
from service.schemas.fields import RequestBody

JSON = "application/json"
_MOST_OF = {
    b",[{": 500_000,  # of what separates values: 300,000 token ids have fewer
    b":": 100_000,  # of keys, which take ten times as long; 2,048 texts of 48 colons have fewer
}
_MAX_JSON_CHARACTERS = 64 * 1024  # of a field of a form: a list of LoRAs has some hundreds

Body = TypeVar("Body", bound=RequestBody)


def media_type_of(request: Request) -> str:
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


async def read_body(
    request: Request, schema: type[Body], file_fields: Sequence[str], structured: Sequence[str]
) -> Body:
    """Read the one or the other; in a form, these fields are files, and those are JSON."""
    media_type = media_type_of(request)
    if media_type == FORM:
        return from_form(await read_form(request, file_fields), schema, structured)
    if media_type != JSON:
        got = request.headers.get("content-type")
        raise unsupported_media_type(got, f"{JSON}, {FORM}")
    body = await request.body()
    return await work_through(len(body), lambda: from_json(body, schema))


async def read_json(request: Request, schema: type[Body]) -> Body:
    if media_type_of(request) != JSON:
        raise unsupported_media_type(request.headers.get("content-type"), JSON)
    body = await request.body()
    return await work_through(len(body), lambda: from_json(body, schema))


def from_json(body: bytes, schema: type[Body]) -> Body:
    return validated(parsed(body), schema)


def parsed(body: bytes) -> object:
    """Parse a body, but not one of millions of values: no other request is served meanwhile.

    Counts what separates values and what follows keys, strings' own included. Numbers, which can
    have thousands of digits, take long in another way: other threads have a turn before each.
    """
    for characters, most in _MOST_OF.items():
        if sum(map(body.count, characters)) > most:
            shown = " ".join(characters.decode())
            message = f"the request body has more than {most} of the characters {shown}"
            raise ServiceError(413, "invalid_request_error", "payload_too_large", message)
    try:
        return json.loads(body, parse_float=_float, parse_int=_int)
    except (ValueError, RecursionError) as error:
        raise body_error(error) from error


def _float(digits: str) -> float:
    """As `float`, but a function in Python, on whose entry threads take turns."""
    return float(digits)


def _int(digits: str) -> int:
    return int(digits)


def validated(content: object, schema: type[Body], strict: bool = True) -> Body:
    """Check it; where all is text, in a form or a query, not strictly."""
    try:
        return schema.model_validate(content, strict=strict)
    except ValidationError as error:
        raise json_error(error) from error


def from_form(form: Form, schema: type[Body], structured: Sequence[str]) -> Body:
    fields = {
        name: _parsed(name, value) if name in structured else value
        for name, value in form.fields.items()
    }
    for name, files in form.files.items():
        if name in fields:
            raise RequestError(name, f"{name}: given as a file and as text; allowed: one of them")
        fields[name] = files[0] if len(files) == 1 else list(files)
    return validated(fields, schema, strict=False)


def _parsed(name: str, value: object) -> object:
    """Arrays and objects may come as JSON, beside `name[]` and `name[key]`."""
    if not isinstance(value, str):
        return value
    if len(value) > _MAX_JSON_CHARACTERS:
        message = f"{name}: got {len(value)} characters; allowed: at most {_MAX_JSON_CHARACTERS}"
        raise RequestError(name, message)
    try:
        return json.loads(value)
    except (ValueError, RecursionError) as error:
        raise RequestError(name, f"{name}: not JSON: {no_json(error)}") from error
