"""Read `multipart/form-data` into what a JSON body would hold: fields and files by name.

Names are taken as OpenAI's clients write them: `name[]` for an item of an array, `name[key]` for a
key of an object, `name[][key]` for that of an array's objects; and a name that comes twice is an
array. The middleware bounds the whole body, and the schemas each field, by name, as in JSON; here
only the number of parts is bounded.
"""

import re
import sys
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeGuard

from fastapi import Request
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service.error_handlers import unsupported_media_type
from service.errors import RequestError, shown_name

FORM = "multipart/form-data"
_MAX_PARTS = 128  # of either kind: a form of tiny parts would keep the event loop busy
_NAME = re.compile(r"([^\[\]]+)(\[\])?(?:\[([^\[\]]+)\])?")  # field, array, key


@dataclass(frozen=True, slots=True)
class Form:
    """Fields as a JSON object would have them, but of text; files by the name of their field."""

    fields: Mapping[str, object]
    files: Mapping[str, Sequence[bytes]]


class _Parser(MultiPartParser):
    """Refuses a form that does not end with its closing boundary: it may have lost a part."""

    _is_complete = False

    def on_end(self) -> None:
        self._is_complete = True

    async def parse(self) -> FormData:
        self.stream = self._to_the_end(self.stream)
        return await super().parse()

    async def _to_the_end(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        async for chunk in chunks:
            yield chunk
        if not self._is_complete:
            raise MultiPartException("it ends before its closing boundary")


async def read_form(request: Request, file_fields: Collection[str]) -> Form:
    """Raise RequestError for a file elsewhere than in `file_fields`, and for what is no form."""
    _check_charset(request)
    texts: dict[str, list[str]] = {}
    files: dict[str, list[bytes]] = {}
    parser = _Parser(
        request.headers,
        request.stream(),
        max_files=_MAX_PARTS,
        max_fields=_MAX_PARTS,
        max_part_size=sys.maxsize,
    )
    try:
        form = await parser.parse()
    except MultiPartException as error:
        raise RequestError(None, f"the form cannot be read: {error.message}") from error
    try:
        for name, part in form.multi_items():
            if isinstance(part, UploadFile):
                field = _file_field(name, file_fields)
                files.setdefault(field, []).append(await part.read())
            else:
                texts.setdefault(name, []).append(part)
    finally:
        await form.close()
    return Form(_fields(texts), files)


def _check_charset(request: Request) -> None:
    """Python has text encodings that raise, or take quadratic time."""
    content_type = request.headers.get("content-type", "")
    charset = parse_options_header(content_type)[1].get(b"charset", b"utf-8")
    if charset.lower() not in (b"utf-8", b"utf8"):
        raise unsupported_media_type(content_type, f"{FORM} in UTF-8")


def _file_field(name: str, file_fields: Collection[str]) -> str:
    field = name.removesuffix("[]")
    if field not in file_fields:
        name = shown_name(name)
        raise RequestError(name, f"{name}: got a file; allowed: text")
    return field


def _fields(texts: Mapping[str, list[str]]) -> dict[str, object]:
    fields: dict[str, object] = {}
    for name, values in texts.items():
        found = _NAME.fullmatch(name)
        field, array, key = found.groups() if found else (name, None, None)
        value: object = values if array or len(values) > 1 else values[0]
        if key:
            value = [{key: each} for each in values] if array else {key: value}
        fields[field] = _joined(name, field, fields[field], value) if field in fields else value
    return fields


def _joined(name: str, field: str, before: object, value: object) -> object:
    """Join an object's keys, and those of each object in an array: values go by their order."""
    if isinstance(before, dict) and isinstance(value, dict):
        return before | value
    param = shown_name(name)
    if not (_are_objects(before) and _are_objects(value)):
        raise RequestError(param, f"{param}: given beside {shown_name(field)}")
    if len(before) != len(value):
        counts = f"got {len(value)} values for {len(before)} items"
        message = f"{param}: {counts}; allowed: one for each, or {shown_name(field)} as JSON text"
        raise RequestError(param, message)
    return [item | more for item, more in zip(before, value, strict=True)]


def _are_objects(value: object) -> TypeGuard[list[dict[str, object]]]:
    return isinstance(value, list) and isinstance(value[0], dict)
