"""The description is valid, complete, and its examples are true."""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from openapi_schema_validator import OAS31Validator
from openapi_spec_validator import validate
from referencing import Registry
from referencing.jsonschema import DRAFT202012

from service.api_description import EXAMPLES_PATH
from service.main import create_app
from service.settings import ServiceSettings
from tests.running_service import Service

DOCUMENT = create_app(ServiceSettings()).openapi()
SUBMITS_A_JOB = {"create_images", "edit_image", "vary_image", "create_classification", "embed"}
SUBMITS_A_JOB |= {"create_embeddings", "infer", "infer_by_default", "extract_features"}


@dataclass(frozen=True, slots=True)
class Operation:
    method: str
    path: str
    described: Mapping[str, Any]

    @property
    def id(self) -> str:
        return str(self.described["operationId"])


OPERATIONS = {
    described["operationId"]: Operation(method, path, described)
    for path, of_path in DOCUMENT["paths"].items()
    for method, described in of_path.items()
}
RECORDED = json.loads(EXAMPLES_PATH.read_text(encoding="utf-8"))


def nodes(node: object) -> Iterator[Mapping[str, Any]]:
    """Every object of the description."""
    if isinstance(node, dict):
        yield node
        yield from (found for value in node.values() for found in nodes(value))
    if isinstance(node, list):
        yield from (found for item in node for found in nodes(item))


def check(schema: Mapping[str, Any], value: object) -> None:
    validator_of(schema).validate(value)


def validator_of(schema: Mapping[str, Any]) -> OAS31Validator:
    """Of a schema that refers to the description's own."""
    registry = Registry().with_resource("urn:api", DRAFT202012.create_resource(DOCUMENT))
    absolute = json.loads(json.dumps(schema).replace('"#/', '"urn:api#/'))
    return OAS31Validator(absolute, registry=registry)


def test_it_is_valid() -> None:
    validate(DOCUMENT)


def test_every_reference_leads_somewhere() -> None:
    for node in nodes(DOCUMENT):
        if isinstance(reference := node.get("$ref"), str):
            target: Any = DOCUMENT
            for part in reference.removeprefix("#/").split("/"):
                target = target[part]


@pytest.mark.parametrize("operation", OPERATIONS.values(), ids=OPERATIONS)
def test_every_operation_has_a_sentence_a_tag_and_its_errors(operation: Operation) -> None:
    described = operation.described
    assert described["summary"][0].isupper()
    assert {tag["name"] for tag in DOCUMENT["tags"]} >= set(described["tags"])
    for status, response in described["responses"].items():
        assert "x-request-id" in response["headers"]
        if int(status) >= 400:
            examples = response["content"]["application/json"]["examples"]
            assert list(examples) == sorted(set(examples)), "one example for each code"


def test_no_parameter_is_said_to_be_null() -> None:
    for operation in OPERATIONS.values():
        for parameter in operation.described.get("parameters", ()):
            assert "null" not in json.dumps(parameter["schema"]), parameter["name"]


def test_the_type_of_a_job_says_what_its_input_is() -> None:
    body = OPERATIONS["create_job"].described["requestBody"]["content"]["application/json"]
    text = {"type": "text.embedding", "input": {"input": "a red circle"}}
    validator = validator_of(body["schema"])
    assert validator.is_valid(text)
    assert not validator.is_valid({**text, "type": "image.generation"})


def test_a_route_that_submits_jobs_says_when_they_are_refused_and_how_they_fail() -> None:
    for name in SUBMITS_A_JOB:
        responses = OPERATIONS[name].described["responses"]
        assert set(responses) >= {"400", "404", "409", "413", "415", "422", "429", "500", "503"}
        assert "retry-after" in responses["429"]["headers"]
        assert "sync_wait_timeout" in responses["504"]["content"]["application/json"]["examples"]
        assert responses["202"]["links"]["get_job"]["operationId"] == "get_job"


def test_every_example_of_an_error_is_the_envelope() -> None:
    envelope = {"$ref": "#/components/schemas/ErrorEnvelope"}
    for name, example in DOCUMENT["components"]["examples"].items():
        check(envelope, example["value"])
        assert name.startswith(example["value"]["error"]["code"])


@pytest.mark.parametrize("name", RECORDED)
def test_the_recorded_examples_are_of_their_schemas(name: str) -> None:
    described = OPERATIONS[name].described
    for media_type, of_type in RECORDED[name]["request"].items():
        schema = described["requestBody"]["content"][media_type]["schema"]
        for body in of_type.values():
            check(schema, body)
    for status, content in RECORDED[name]["responses"].items():
        for media_type, of_type in content.items():
            schema = described["responses"][status]["content"][media_type]["schema"]
            for body in of_type.values():
                check(schema, body)


@pytest.mark.parametrize("name", [name for name, of in RECORDED.items() if of["request"]])
def test_the_recorded_requests_are_answered_as_recorded(service: Service, name: str) -> None:
    recorded, operation = RECORDED[name], OPERATIONS[name]
    (status,) = recorded["responses"]
    answers = recorded["responses"][status]["application/json"]
    for case, body in recorded["request"]["application/json"].items():
        path = operation.path.replace("{model}", "vit_shapes")
        response = httpx.request(operation.method, f"{service.url}{path}", json=body, timeout=60)
        assert response.status_code == int(status), response.text
        assert keys_of(response.json()) == keys_of(answers[case])


def keys_of(answer: object) -> set[str]:
    return set(answer) if isinstance(answer, dict) else {type(answer).__name__}


@pytest.mark.parametrize(
    ("operation_id", "names"),
    [
        ("get_image", {"If-None-Match", "If-Modified-Since", "Range", "If-Range"}),
        ("get_job", {"If-None-Match"}),
    ],
)
def test_headers_that_a_route_reads_are_described(operation_id: str, names: set[str]) -> None:
    described = OPERATIONS[operation_id].described["parameters"]
    assert {each["name"] for each in described if each["in"] == "header"} == names


@pytest.mark.parametrize(
    ("operation_id", "prefix"),
    [
        ("create_images", "image_generation"),
        ("edit_image", "image_edit"),
        ("vary_image", "image_edit"),
    ],
)
def test_a_stream_of_images_is_described_by_its_own_events(operation_id: str, prefix: str) -> None:
    content = OPERATIONS[operation_id].described["responses"]["200"]["content"]
    events = content["text/event-stream"]["schema"]["contentSchema"]["items"]["oneOf"]
    names = [event["properties"]["event"]["const"] for event in events]
    assert names == [
        f"{prefix}.{name}" for name in ("queued", "progress", "partial_image", "completed")
    ]
    for event, name in zip(events, names, strict=True):
        kind = event["properties"]["data"]["contentSchema"]["$ref"].rpartition("/")[2]
        assert name in DOCUMENT["components"]["schemas"][kind]["properties"]["type"]["enum"]
