"""A file as HTTP answers it: whole, in part, or not again where the client has it (RFC 9110).

Starlette's FileResponse will not do: it answers 400 to ranges that are to be ignored (§14.2), this
and 416 without our envelope, and 500 where the file goes between its two looks at it; its ETag
changes with the file's time. Files here have some megabytes, and are in memory.
"""

import re
from dataclasses import dataclass
from datetime import UTC
from email.utils import formatdate, parsedate_to_datetime
from hashlib import sha256
from typing import Self

from fastapi import Request, Response
from starlette.datastructures import Headers

from service.errors import RangeError

# one range, as players and downloads ask for it: first-, first-last, or -length
_RANGE = re.compile(r"bytes=[ \t]*(?:([0-9]{1,99})-([0-9]{0,99})|-([0-9]{1,99}))[ \t]*", re.I)


@dataclass(frozen=True, slots=True)
class File:
    """A file's content, and by what clients know it again."""

    name: str
    media_type: str
    content: bytes
    modified_at: float  # Unix seconds
    etag: str

    @classmethod
    def of(cls, name: str, media_type: str, content: bytes, modified_at: float) -> Self:
        """Hash the content, a millisecond or two a megabyte."""
        return cls(name, media_type, content, modified_at, f'"{sha256(content).hexdigest()}"')

    @property
    def last_modified(self) -> str:
        return formatdate(self.modified_at, usegmt=True)


def has_client_got(etag: str, headers: Headers) -> bool | None:
    """Whether `If-None-Match` has the tag; None where the client does not say what it has.

    Compares weakly (§13.1.2).
    """
    tags = ", ".join(headers.getlist("if-none-match")).strip()
    if not tags:
        return None
    known = (tag.strip().removeprefix("W/") for tag in tags.split(","))
    return tags == "*" or etag.removeprefix("W/") in known


def file_response(file: File, request: Request, max_age_s: int) -> Response:
    """Answer a GET; raises RangeError for a range that begins behind the end."""
    headers = {
        "etag": file.etag,
        "last-modified": file.last_modified,
        "cache-control": f"private, max-age={max_age_s}, immutable",
    }
    if _is_known(file, request.headers):
        return Response(status_code=304, headers=headers)
    headers["accept-ranges"] = "bytes"
    headers["content-disposition"] = f'inline; filename="{file.name}"'
    if (wanted := _wanted_range(file, request)) is None:
        return Response(file.content, headers=headers, media_type=file.media_type)
    headers["content-range"] = f"bytes {wanted.start}-{wanted.stop - 1}/{len(file.content)}"
    part = file.content[wanted.start : wanted.stop]
    return Response(part, 206, headers=headers, media_type=file.media_type)


def _is_known(file: File, headers: Headers) -> bool:
    """Whether the client has it; the date counts only where there is no tag (§13.2.2)."""
    if (has_got := has_client_got(file.etag, headers)) is not None:
        return has_got
    since = _seconds(headers.get("if-modified-since", ""))
    return since is not None and int(file.modified_at) <= since


def _wanted_range(file: File, request: Request) -> range | None:
    """Which bytes are asked for; None for all, as of several ranges and malformed ones (§14.2)."""
    header = request.headers.get("range", "")
    validator = request.headers.get("if-range", file.etag).strip()
    is_unchanged = validator in (file.etag, file.last_modified)
    found = _RANGE.fullmatch(header)
    if found is None or not is_unchanged:
        return None
    size, (first, last, length) = len(file.content), found.groups()
    if length is not None:
        start, stop = max(0, size - int(length)), size
    else:
        start, stop = int(first), int(last) + 1 if last else size
        if last and stop <= start:
            return None
    if start >= size:
        raise RangeError(header, size)
    return range(start, min(stop, size))


def _seconds(date: str) -> float | None:
    """Unix seconds of an HTTP date, which is always GMT; None for what is no date."""
    try:
        return parsedate_to_datetime(date).replace(tzinfo=UTC).timestamp()
    except (ValueError, OverflowError):
        return None
