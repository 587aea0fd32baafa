"""What a form becomes, whatever its client calls the fields."""

import asyncio
from collections.abc import Sequence

import pytest
from starlette.requests import Request
from starlette.types import Message

from service.errors import RequestError, ServiceError
from service.forms import Form, read_form

Part = tuple[str, str | bytes]  # bytes: a file


def read(parts: Sequence[Part]) -> Form:
    request = request_of(b"".join(map(encoded, parts)) + b"--b--\r\n")
    return asyncio.run(read_form(request, ["image"]))


def encoded(part: Part) -> bytes:
    name, content = part
    is_file = isinstance(content, bytes)
    end = '; filename="a"' if is_file else ""
    head = f'--b\r\ncontent-disposition: form-data; name="{name}"{end}\r\n\r\n'
    return head.encode() + (content if isinstance(content, bytes) else content.encode()) + b"\r\n"


def request_of(body: bytes, parameters: str = "") -> Request:
    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    content_type = f"multipart/form-data; boundary=b{parameters}"
    headers = [(b"content-type", content_type.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers, "app": None}, receive)


@pytest.mark.parametrize(
    ("parts", "fields"),
    [
        ([("n", "2"), ("prompt", "a b")], {"n": "2", "prompt": "a b"}),
        ([("label", "a"), ("label", "b")], {"label": ["a", "b"]}),
        ([("steps[]", "1")], {"steps": ["1"]}),
        ([("steps[]", "1"), ("steps[]", "2")], {"steps": ["1", "2"]}),
        ([("svg[model]", "m"), ("svg[effort]", "low")], {"svg": {"model": "m", "effort": "low"}}),
        ([("loras[][name]", "ink")], {"loras": [{"name": "ink"}]}),
        (
            [("a[][x]", "1"), ("a[][y]", "2"), ("a[][x]", "3"), ("a[][y]", "4")],
            {"a": [{"x": "1", "y": "2"}, {"x": "3", "y": "4"}]},
        ),
        ([("a[x][y]", "1"), ("a[][][y]", "2")], {"a[x][y]": "1", "a[][][y]": "2"}),
        ([("", "x"), ("[]", "y"), ("]", "z")], {"": "x", "[]": "y", "]": "z"}),
        ([("prompt", "ü\U0001f600")], {"prompt": "ü\U0001f600"}),
    ],
)
def test_text_becomes_what_json_would_hold(parts: list[Part], fields: dict[str, object]) -> None:
    assert (read(parts)).fields == fields


def test_files_are_found_by_their_field() -> None:
    form = read([("image[]", b"one"), ("n", "2"), ("image", b"two")])
    assert form.files == {"image": [b"one", b"two"]}
    assert form.fields == {"n": "2"}


@pytest.mark.parametrize(
    ("parts", "param", "says"),
    [
        ([("n", b"2")], "n", "n: got a file; allowed: text"),
        ([("a[x]", "1"), ("a", "2")], "a", "a: given beside a"),
        ([("a", "1"), ("a[]", "2")], "a[]", "a[]: given beside a"),
        ([("a[x]", "1"), ("a[]", "2")], "a[]", "a[]: given beside a"),
        ([("a[]", "1"), ("a[][x]", "2")], "a[][x]", "a[][x]: given beside a"),
        (
            [("a[][x]", "1"), ("a[][x]", "2"), ("a[][y]", "3")],
            "a[][y]",
            "a[][y]: got 1 values for 2 items; allowed: one for each, or a as JSON text",
        ),
        ([(f"a{i}", "1") for i in range(129)], None, "Maximum number of fields is 128"),
        ([("image", b"1")] * 129, None, "Maximum number of files is 128"),
    ],
)
def test_a_form_that_cannot_be_is_refused(parts: list[Part], param: str | None, says: str) -> None:
    with pytest.raises(RequestError) as caught:
        read(parts)
    assert caught.value.body.param == param
    assert says in caught.value.body.message


def test_a_body_that_is_no_form_is_refused() -> None:
    with pytest.raises(RequestError, match="the form cannot be read"):
        asyncio.run(read_form(request_of(b"--b\r\nno header\r\n\r\n"), ()))


def test_a_form_that_is_cut_off_anywhere_is_refused() -> None:
    whole = encoded(("image", b"one")) + encoded(("n", "12")) + b"--b--"
    for length in range(len(whole)):
        with pytest.raises(RequestError, match="the form cannot be read"):
            asyncio.run(read_form(request_of(whole[:length]), ["image"]))
    assert asyncio.run(read_form(request_of(whole), ["image"])).fields == {"n": "12"}


@pytest.mark.parametrize(
    "charset", ["idna", "punycode", "undefined", "hex", "utf-7", "utf-16", "latin-1", '"a b"', ""]
)
def test_a_form_is_in_utf_8(charset: str) -> None:
    with pytest.raises(ServiceError) as refused:
        asyncio.run(read_form(request_of(b"--b--", f"; charset={charset}"), ()))
    assert refused.value.status == 415
    assert "allowed: multipart/form-data in UTF-8" in refused.value.body.message


@pytest.mark.parametrize("charset", ["utf-8", "UTF-8", '"utf8"'])
def test_a_form_may_say_so(charset: str) -> None:
    form = asyncio.run(read_form(request_of(b"--b--", f"; charset={charset}"), ()))
    assert form == Form({}, {})
