"""How much of a body is looked at before it is refused, whichever route it comes to."""

import base64
import sys
import tracemalloc
from collections.abc import Iterator
from types import FrameType

import pytest
from pydantic import ValidationError

from service.errors import ServiceError
from service.forms import Form
from service.request_bodies import from_form, parsed, validated
from service.schemas.encoded_images import from_text
from service.schemas.fields import RequestBody
from service.schemas.hugging_face import PaintRequest
from service.schemas.image_edits import ImageEdit
from service.schemas.image_fields import ImageFields
from service.schemas.images import ImageRequest
from service.schemas.jobs import JobRequest

MANY = {str(i): 1 for i in range(1000)}


def all_schemas(of: type[RequestBody] = RequestBody) -> Iterator[type[RequestBody]]:
    for schema in of.__subclasses__():
        yield schema
        yield from all_schemas(schema)


@pytest.mark.parametrize("schema", list(all_schemas()), ids=lambda schema: schema.__name__)
def test_of_unknown_keys_one_is_looked_at(schema: type[RequestBody]) -> None:
    with pytest.raises(ValidationError) as caught:
        schema.model_validate(MANY)
    unknown = [e["loc"] for e in caught.value.errors() if e["type"] == "extra_forbidden"]
    assert unknown == [("0",)]


@pytest.mark.parametrize(
    ("schema", "body", "param"),
    [
        (ImageRequest, {"prompt": "x", **MANY}, "0"),
        (PaintRequest, {"inputs": "x", **MANY}, "0"),
        (ImageRequest, {"prompt": "x", "stream_options": MANY}, "stream_options.0"),
        (ImageRequest, {"prompt": "x", "loras": [{"name": "a", **MANY}] * 9}, "loras[0].0"),
        (ImageRequest, {"prompt": "x", "loras": [{"name": "a"}] * 65}, "loras"),
        (JobRequest, {"type": "text.embedding", "input": {}, "metadata": MANY}, "metadata"),
    ],
)
def test_of_very_many_one_is_named_in_one_error(
    schema: type[RequestBody], body: dict[str, object], param: str
) -> None:
    with pytest.raises(ServiceError) as refused:
        validated(body, schema)
    assert refused.value.body.param == param
    cause = refused.value.__cause__
    assert isinstance(cause, ValidationError)
    assert cause.error_count() == 1


def test_other_threads_may_have_a_turn_before_each_number() -> None:
    """They may where a function in Python begins; 490,000 long numbers take a second."""
    begun: list[str] = []

    def note(frame: FrameType, event: str, _: object) -> None:
        if event == "call":
            begun.append(frame.f_code.co_name)

    before = sys.getprofile()
    sys.setprofile(note)
    try:
        numbers = parsed(b"[1, 2.5, -3e2, 4]")
    finally:
        sys.setprofile(before)
    assert numbers == [1, 2.5, -300.0, 4]
    assert [name for name in begun if name in ("_int", "_float")] == [
        *("_int", "_float", "_float", "_int")
    ]


@pytest.mark.parametrize("separator", [" ", "\n", "\r\n", "\t"])
def test_blanks_in_base64_are_skipped_and_cost_no_memory(separator: str) -> None:
    content = bytes(range(256)) * 1024
    encoded = base64.b64encode(content).decode()
    text = separator.join(encoded[i : i + 2] for i in range(0, len(encoded), 2))
    tracemalloc.start()
    try:
        assert from_text("image", text).content == content
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 3 * len(text)


@pytest.mark.parametrize("field", ImageFields.STRUCTURED)
def test_json_in_a_form_is_bounded_before_it_is_parsed(field: str) -> None:
    form = Form({"prompt": "x", "image": "x", field: "[" * 2**17}, {})
    with pytest.raises(ServiceError) as refused:
        from_form(form, ImageEdit, ImageEdit.STRUCTURED)
    says = f"{field}: got 131072 characters; allowed: at most 65536"
    assert refused.value.body.message == says


def test_json_in_a_form_that_does_not_parse_says_why() -> None:
    form = Form({"prompt": "x", "image": "x", "loras": '[{"name"}]'}, {})
    with pytest.raises(ServiceError) as refused:
        from_form(form, ImageEdit, ImageEdit.STRUCTURED)
    says = "loras: not JSON: Expecting ':' delimiter at character 8"
    assert refused.value.body.message == says
