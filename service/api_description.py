"""What the app's description says beside its routes: words on the whole, headers, examples.

FastAPI writes most of it from the routes; this completes it. Summaries are the first lines of the
routes' docstrings. The examples are in `api_examples.json`, as a running service answered them
(`tests/openapi/record_examples.py`); those of errors are in `route_errors.py`.
"""

import json
from collections.abc import Collection, Iterator, Mapping
from functools import cache
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.routing import APIRoute
from pydantic import BaseModel

from service.errors import ErrorBody, ErrorEnvelope

EXAMPLES_PATH = Path(__file__).parent / "api_examples.json"

DESCRIPTION = """\
One service with three panels: it paints (FLUX text-to-image), sees (ViT classification) and reads
(FNet embeddings). Images, embeddings and models are OpenAI's routes; their clients work unchanged.

A request becomes a job in a queue. By default the answer waits for it. `Prefer: respond-async`
answers 202 with the job at once, and `Prefer: wait=N` bounds the wait in seconds.

Every error is OpenAI's envelope, `{"error": {message, type, param, code}}`; each response below
lists its codes. `x-should-retry` says whether a retry may help, `Retry-After` when. A request may
bring an `X-Request-ID`, or OpenAI's `X-Client-Request-Id`, which its answer and the log repeat.
Every GET answers HEAD too.
"""

TAGS = [
    {"name": "images", "description": "Paint images, and fetch what was painted."},
    {"name": "classify", "description": "Name what is in images."},
    {"name": "embeddings", "description": "Turn texts into vectors that are near by meaning."},
    {"name": "jobs", "description": "Follow, read and cancel the jobs behind all requests."},
    {"name": "models", "description": "What can be asked for, with limits and defaults."},
    {"name": "hugging_face", "description": "As Hugging Face's `InferenceClient` calls a server."},
    {"name": "tei", "description": "As clients of text-embeddings-inference call it."},
    {"name": "health", "description": "For the machines that watch the service."},
]

# Relative: wherever this description was fetched from.
SERVERS = [{"url": "/", "description": "this service"}]

_TEXT: Mapping[str, object] = {"type": "string"}
_HEADERS: Mapping[str, Mapping[str, object]] = {
    "x-request-id": {
        "description": "the request's own `X-Request-ID` or `X-Client-Request-Id`, else a new one; "
        "the log has it too",
        "schema": _TEXT,
    },
    "x-job-id": {"description": "the job that answered: `/v1/jobs/{id}`", "schema": _TEXT},
    "x-cache": {
        "description": "hit: answered by the kept result of an equal job; shared: it has the run "
        "of an equal job that is not over; absent: it has a run of its own",
        "schema": {"type": "string", "enum": ["hit", "shared"]},
    },
    "x-should-retry": {
        "description": "whether the same request may be served later; OpenAI's clients obey it",
        "schema": {"type": "string", "enum": ["true", "false"]},
    },
    "retry-after": {
        "description": "seconds until another request is worth it",
        "schema": {"type": "integer", "minimum": 1},
    },
    "etag": {"description": "of the content, for `If-None-Match`", "schema": _TEXT},
    "last-modified": {"description": "for `If-Modified-Since`", "schema": _TEXT},
    "cache-control": {"description": "private, and for how many seconds", "schema": _TEXT},
    "content-range": {"description": "which bytes of how many", "schema": _TEXT},
    "x-seed": {
        "description": "of the image, where that is the answer itself",
        "schema": {"type": "integer", "minimum": 0},
    },
    "location": {"description": "the path of the job", "schema": _TEXT},
    "preference-applied": {"description": "the part of `Prefer` that was obeyed", "schema": _TEXT},
    "idempotency-replayed": {
        "description": "true: the stored answer to an earlier request of this `Idempotency-Key`",
        "schema": {"type": "string", "const": "true"},
    },
}


_COMPONENT = "x-component"  # marks a schema that is to be shared, with its name


class DescribedApp(FastAPI):
    """An app whose `/openapi.json` is complete."""

    def openapi(self) -> dict[str, Any]:
        if self.openapi_schema is None:
            _complete(super().openapi())  # which keeps what it returns
        assert self.openapi_schema is not None, "this is a bug: FastAPI kept no description"
        return self.openapi_schema


def header_refs(*names: str) -> dict[str, object]:
    """These headers of a response, for its description."""
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


def conditions(**headers: str) -> list[dict[str, object]]:
    """These headers of a request, for the description of a route that reads them by itself."""
    return [
        {"name": name.replace("_", "-"), "in": "header", "description": words, "schema": _TEXT}
        for name, words in headers.items()
    ]


def job_links(job_id: str) -> dict[str, object]:
    """What can be done with the job of a response; `job_id` is where the response has it."""
    operations = ("get_job", "get_job_result", "get_job_events", "cancel_job", "delete_job")
    return {op: {"operationId": op, "parameters": {"job_id": job_id}} for op in operations}


def component(model: type[BaseModel], name: str | None = None) -> dict[str, object]:
    """The schema of a body that FastAPI does not read by itself; it becomes a shared one."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    name = name or model.__name__
    return {**schema, "title": name, _COMPONENT: name}


def one_of(*models: type[BaseModel]) -> dict[str, object]:
    """The schema of a body that is one of these, as its `type` says."""
    return {"oneOf": list(map(component, models)), "discriminator": {"propertyName": "type"}}


def form_component(
    model: type[BaseModel], files: Collection[str], structured: Collection[str]
) -> dict[str, object]:
    """The schema of a body as a form has it: files, JSON as text, no null, nothing but null."""
    schema: dict[str, Any] = component(model, f"{model.__name__}Form")
    schema["properties"] = {
        name: _of_form(name, field, files, structured)
        for name, field in schema["properties"].items()
        if field.get("type") != "null"
    }
    return schema


def _of_form(
    name: str, field: dict[str, Any], files: Collection[str], structured: Collection[str]
) -> dict[str, Any]:
    words: dict[str, Any] = {k: v for k, v in field.items() if k in ("description", "examples")}
    if name in files:
        return {**words, "type": "string", "format": "binary"}
    if name in structured:
        return {**words, "type": "string", "contentMediaType": "application/json"}
    kinds = [kind for kind in field.get("anyOf", [field]) if kind.get("type") != "null"]
    return {**kinds[0], **words}


def event_stream(kinds: Mapping[str, type[BaseModel]]) -> dict[str, object]:
    """The content of a response that is a stream of server-sent events: these kinds, by name."""
    events = [_event(name, kind) for name, kind in kinds.items()]
    schema = {
        "type": "string",
        "contentMediaType": "text/event-stream",
        "contentSchema": {"type": "array", "items": {"oneOf": events}},
    }
    return {"text/event-stream": {"schema": schema}}


def _event(name: str, kind: type[BaseModel]) -> dict[str, object]:
    json_text = {"type": "string", "contentMediaType": "application/json"}
    return {
        "type": "object",
        "required": ["event", "data"],
        "properties": {
            "event": {"const": name},
            "data": {**json_text, "contentSchema": component(kind, f"{kind.__name__}Event")},
            "id": {"type": "string", "description": "for `Last-Event-ID`"},
        },
    }


def operation_id(route: APIRoute) -> str:
    """The function's name: it names the methods of generated clients."""
    return route.name


def _complete(document: dict[str, Any]) -> None:
    components = document["components"]
    components["headers"] = dict(_HEADERS)
    components["examples"] = {}
    document["paths"] = _hoisted(document["paths"], components["schemas"])
    for operation in _operations(document):
        _summarize(operation)
        _remove_fastapis_422(operation)
        _remove_nulls(operation)
        _add_examples(operation)
        for status, response in operation["responses"].items():
            response.setdefault("headers", {}).update(header_refs("x-request-id"))
            if int(status) >= 400:
                _share_examples(status, response, components["examples"])
    for name in ("HTTPValidationError", "ValidationError"):
        components["schemas"].pop(name, None)


def _hoisted(node: object, schemas: dict[str, Any]) -> object:
    """The node with a reference for every `component`, which is put with the schemas."""
    if isinstance(node, list):
        return [_hoisted(item, schemas) for item in node]
    if not isinstance(node, dict):
        return node
    schema: dict[str, Any] = {key: _hoisted(value, schemas) for key, value in node.items()}
    name = schema.pop(_COMPONENT, None)
    if name is None:
        return schema
    for key, value in {**schema.pop("$defs", {}), name: schema}.items():
        known = schemas.setdefault(key, value)
        assert key != name or known == value, f"this is a bug: two schemas are named {name}"
    return {"$ref": f"#/components/schemas/{name}"}


def _operations(document: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for path in document["paths"].values():
        yield from path.values()


def _summarize(operation: dict[str, Any]) -> None:
    summary, _, rest = operation["description"].partition("\n")
    operation["summary"] = summary.removesuffix(".")
    operation["description"] = rest.strip()
    if not rest.strip():
        del operation["description"]


def _remove_fastapis_422(operation: dict[str, Any]) -> None:
    """What it would answer for a field that is not valid; here that is a 400."""
    if "HTTPValidationError" in str(operation["responses"].get("422")):
        del operation["responses"]["422"]


def _remove_nulls(operation: dict[str, Any]) -> None:
    """A header or a part of a query is there or not; it cannot be null."""
    for parameter in operation.get("parameters", ()):
        match parameter["schema"]:
            case {"anyOf": [kind, {"type": "null"}], **words}:
                parameter["schema"] = {**kind, **words}


def _add_examples(operation: dict[str, Any]) -> None:
    recorded = _recorded().get(operation["operationId"], {})
    if "requestBody" in operation:
        _put(operation["requestBody"]["content"], recorded.get("request", {}))
    for status, content in recorded.get("responses", {}).items():
        _put(operation["responses"][status]["content"], content)


def _put(content: dict[str, Any], examples: Mapping[str, Any]) -> None:
    for media_type, of_type in examples.items():
        content[media_type]["examples"] = {k: {"value": value} for k, value in of_type.items()}


@cache
def _recorded() -> Mapping[str, Any]:
    recorded: Mapping[str, Any] = json.loads(EXAMPLES_PATH.read_text(encoding="utf-8"))
    return recorded


def _share_examples(status: str, response: dict[str, Any], shared: dict[str, Any]) -> None:
    """An error has one example, whichever routes answer with it."""
    for media in response["content"].values():
        for code, example in media["examples"].items():
            name = f"{code}_{status}"
            # FastAPI leaves nulls out
            error = ErrorBody.model_validate({"param": None, **example["value"]["error"]})
            shared[name] = {"value": ErrorEnvelope(error=error).model_dump()}
            media["examples"][code] = {"$ref": f"#/components/examples/{name}"}
