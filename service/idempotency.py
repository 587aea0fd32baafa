"""`Idempotency-Key`: a request that is sent again is the same one, as long as it asks the same.

https://datatracker.ietf.org/doc/draft-ietf-httpapi-idempotency-key-header/ (draft 07). What was
asked is the body and the query: JSON as it means, whatever its spaces and the order of its keys,
and a form without the boundary, which its client draws anew. Long JSON counts byte for byte, as
clients that repeat a request send it. What becomes of keys is in
`worker/contract/idempotency_script`.
"""

import json
import re
from hashlib import sha256
from typing import Annotated

from fastapi import Header, Request
from python_multipart.multipart import parse_options_header

from service import forms, request_bodies
from service.errors import RequestError, shown
from service.long_work import work_through
from worker.contract.submission import IdempotencyKey

_NAME = "Idempotency-Key"
_KEY = re.compile(r"[\x21-\x7e]{1,255}")
# Some 30 ms of numbers, while no other request is served; prompts of 32,000 letters are shorter.
_MAX_CANONICAL_BYTES = 64 * 1024

KeyHeader = Annotated[
    str | None,
    Header(
        alias=_NAME,
        description="1 to 255 visible ASCII characters, new for each thing that is wanted: sent "
        "again with it, a request is answered by the job of the first one, for as long as results "
        "are kept. It is to ask the same: in JSON spaces and the order of keys count nothing, "
        "but in more than 64 KiB of it each byte does",
    ),
]


async def key_of(request: Request, caller: str) -> IdempotencyKey | None:
    """The key of a request whose body may have been read or not; None where it has none."""
    given = request.headers.getlist(_NAME)
    if not given:
        return None
    [key, *others] = given
    if others or _KEY.fullmatch(key) is None:
        got = f"{len(given)} of them" if others else shown(key)
        allowed = "allowed: one, of 1 to 255 visible ASCII characters"
        raise RequestError(_NAME, f"{_NAME}: got {got}; {allowed}")
    scope = "\n".join((caller, request.url.path, key))
    body = await request.body()
    media_type = request.headers.get("content-type", "")
    query = request.url.query
    asked = await work_through(len(body), lambda: _digest_of(body, media_type, query))
    return IdempotencyKey(sha256(scope.encode()).hexdigest(), asked)


def _digest_of(body: bytes, content_type: str, query: str) -> str:
    media_type, options = parse_options_header(content_type)
    match media_type.decode("latin-1"):
        case forms.FORM if (boundary := options.get(b"boundary")) is not None:
            body = body.replace(b"--" + boundary, b"--")
        case request_bodies.JSON if len(body) <= _MAX_CANONICAL_BYTES:
            body = _canonical(body)
    return sha256(b"\n".join((media_type, query.encode(), body))).hexdigest()


def _canonical(body: bytes) -> bytes:
    try:
        return json.dumps(json.loads(body), sort_keys=True).encode()
    except (ValueError, RecursionError):  # the route will refuse it
        return body
