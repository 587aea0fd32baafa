"""JSON that is none, that is endless, or that means two things."""

from tests.hostile.cases import Case, post

_EMBED, _PAINT, _CLASSIFY = "/v1/embeddings", "/v1/images/generations", "/v1/classify"
_JOBS, _HF, _TEI = "/v1/jobs", "/models/f_net_shapes", "/embed"
_ROUTES = {"embed": _EMBED, "paint": _PAINT, "classify": _CLASSIFY, "jobs": _JOBS}
_ROUTES |= {"hugging_face": _HF, "tei": _TEI, "edit": "/v1/images/edits"}

_NO_JSON: dict[str, bytes] = {
    "open_brace": b"{",
    "open_string": b'{"input": "x',
    "no_value": b'{"input": }',
    "no_comma": b'{"a": 1 "b": 2}',
    "comma_at_the_end": b'{"input": "x",}',
    "single_quotes": b"{'input': 'x'}",
    "a_comment": b'{"input": "x"} // y',
    "two_documents": b'{"input": "x"}{"input": "y"}',
    "byte_soup": bytes(range(128, 256)),
    "nul": b"\0",
    "latin_1": b'{"input": "\xe9"}',
    "overlong_utf_8": b'{"input": "\xc0\xaf"}',
    "raw_newline_in_a_string": b'{"input": "a\nb"}',
    "brackets_100000": b"[" * 100_000,
    "objects_100000": b'{"a":' * 100_000,
    "brackets_within_100000": b'{"input": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "digits_10000": b'{"input": ' + b"9" * 10_000 + b"}",
    "form_encoding": b"input=x&model=y",
    "yaml": b"input: x",
    "xml": b"<input>x</input>",
}
_NO_OBJECT: dict[str, bytes] = {
    "an_array": b"[1]",
    "a_string": b'"x"',
    "a_number": b"1",
    "null": b"null",
    "true": b"true",
    "nan": b"NaN",
}


def _paint(name: str, field: str, value: bytes) -> Case:
    body = b'{"prompt": "x", "%s": %s}' % (field.encode(), value)
    return post(name, _PAINT, body, 400, "invalid_value")


_NUMBERS: dict[str, bytes] = {
    "nan": b"NaN",
    "infinity": b"Infinity",
    "minus_infinity": b"-Infinity",
    "1e400": b"1e400",
    "minus_1e400": b"-1e400",
    "1e308": b"1e308",
    "digits_4000": b"9" * 4000,
    "minus_2_63": b"-9223372036854775808",
    "2_64": b"18446744073709551616",
    "minus_1": b"-1",
}

_LONG_NUMBERS = b"[" + (b"1." + b"9" * 60 + b"e-300,") * 400_000 + b"1]"

CASES = [
    *(
        post(f"{route}_{name}", path, content, 400, "invalid_json")
        for route, path in _ROUTES.items()
        for name, content in _NO_JSON.items()
        if route in ("embed", "classify") or name in ("open_brace", "brackets_100000", "byte_soup")
    ),
    *(
        post(f"{route}_{name}", path, content, 400, "invalid_value")
        for route, path in _ROUTES.items()
        for name, content in _NO_OBJECT.items()
        if route in ("embed", "paint") or name == "an_array"
    ),
    *(
        _paint(f"{field}_{name}", field, value)
        for field in ("n", "seed", "guidance_scale", "num_inference_steps", "strength")
        for name, value in _NUMBERS.items()
    ),
    post("utf_8_surrogate", _EMBED, b'{"input": "\xed\xa0\x80"}', 400, "invalid_value"),
    post("empty", _EMBED, b"", 400, "invalid_json"),
    post("only_spaces", _EMBED, b"    ", 400, "invalid_json"),
    post("prototype", _EMBED, b'{"input": "x", "__proto__": {}}', 400, "unknown_parameter"),
    post("class", _EMBED, b'{"input": "x", "__class__": {}}', 400, "unknown_parameter"),
    post("operator", _EMBED, b'{"input": {"$ne": null}}', 400, "invalid_value"),
    post("a_key_of_nothing", _EMBED, b'{"input": "x", "": 1}', 400, "unknown_parameter"),
    post(
        "a_key_of_a_mebibyte",
        _EMBED,
        b'{"input": "x", "%s": 1}' % (b"k" * 2**20),
        400,
        "unknown_parameter",
    ),
    post("a_key_of_a_nul", _EMBED, b'{"input": "x", "\\u0000": 1}', 400, "unknown_parameter"),
    post("a_key_twice_the_last_counts", _EMBED, b'{"input": 1, "input": "x"}', 200),
    post(
        "a_key_twice_the_last_is_wrong", _EMBED, b'{"input": "x", "input": 1}', 400, "invalid_value"
    ),
    post("a_number_as_text", _PAINT, b'{"prompt": "x", "n": "1"}', 400, "invalid_value"),
    post("minus_zero_steps", _PAINT, b'{"prompt": "x", "steps": -0}', 400, "invalid_value"),
    post("utf_16", _EMBED, '{"input": "x"}'.encode("utf-16"), 200),
    post("a_byte_order_mark", _EMBED, b'\xef\xbb\xbf{"input": "x"}', 200),
    *(
        post(f"{name}_with_a_key", _EMBED, content, status, code, idempotency_key=f"of-{name}")
        for name, content, status, code in (
            ("15_million_numbers", b"[" + b"1," * 15_000_000 + b"1]", 413, "payload_too_large"),
            ("400_000_long_numbers", _LONG_NUMBERS, 400, "invalid_value"),
        )
    ),
    post("400_000_long_numbers", _EMBED, _LONG_NUMBERS, 400, "invalid_value"),
    post("33_mib", _EMBED, b'{"input": "' + bytes(33 * 2**20), 413, "payload_too_large"),
]
