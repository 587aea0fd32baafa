"""Headers that are doubled, huge, or say what is not so."""

from collections.abc import Mapping
from dataclasses import replace

from tests.hostile.cases import JSON, Case, Headers, post_json

_EMBED = "/v1/embeddings"
_BODY = b'{"input": "x"}'


def _embed(name: str, headers: Headers, status: int = 200, code: str | None = None) -> Case:
    return Case(name, "POST", _EMBED, status, code, headers, _BODY)


def _get(header: str, value: bytes, name: str) -> Case:
    return Case(f"{header}_{name}", "GET", "/v1/models", 200, None, ((header, value),))


def _with(name: str, header: str, value: bytes, status: int = 200, code: str | None = None) -> Case:
    return _embed(f"{header}_{name}", (*JSON, (header, value)), status, code)


_MEDIA_TYPES: Mapping[str, tuple[bytes, int]] = {
    "plain": (b"text/plain", 415),
    "html": (b"text/html", 415),
    "xml": (b"application/xml", 415),
    "form": (b"application/x-www-form-urlencoded", 415),
    "none": (b"", 415),
    "slash": (b"/", 415),
    "list": (b"application/json, text/plain", 415),
    "json_in_a_parameter": (b"text/plain; x=application/json", 415),
    "json_with_a_tail": (b"application/jsonp", 415),
    "json_within": (b"xapplication/json", 415),
    "of_60_kib": (b"a" * 60_000, 415),
    "upper_case": (b"APPLICATION/JSON", 200),
    "charset_of_nobody": (b"application/json; charset=klingon", 200),
    "charset_utf_7": (b"application/json; charset=utf-7", 200),
    "many_parameters": (b"application/json" + b"; a=b" * 1000, 200),
}
_ODD: Mapping[str, bytes] = {
    "empty": b"",
    "latin_1": b"\xe9\xff",
    "of_32_kib": b"a" * 32_768,
    "commas": b"," * 1000,
    "semicolons": b";" * 1000,
    "quotes": b'"' * 999,
    "format_string": b"%s%n{0}${x}",
    "script": b"<script>alert(1)</script>",
}
_IGNORED: tuple[str, ...] = (
    "x-request-id",
    "accept-language",
    "user-agent",
    "cookie",
    "authorization",
    "referer",
)
_IGNORED += ("x-forwarded-for", "forwarded", "range", "if-none-match", "origin", "expect-ct")

_WAITS = ("soon", "-1", "1.5", "1e9", "9999999", "0x10", "١", "", '"', "NaN", " 1 2")

CASES = [
    *(
        _embed(
            f"content-type_{name}",
            (("content-type", value),),
            status,
            None if status == 200 else "unsupported_media_type",
        )
        for name, (value, status) in _MEDIA_TYPES.items()
    ),
    _embed("content-type_twice", (*JSON, ("content-type", b"text/plain")), 200),
    _embed("no_content-type", (), 415, "unsupported_media_type"),
    *(_get(header, value, name) for header in _IGNORED for name, value in _ODD.items()),
    *(
        post_json(
            f"wait_{wait}", _EMBED, {"input": "x"}, 400, "invalid_value", prefer=f"wait={wait}"
        )
        for wait in _WAITS
    ),
    *(_with(name, "prefer", value) for name, value in _ODD.items()),
    _with("twice", "prefer", b"wait=5, wait=60"),
    _with("with_parameters", "prefer", b"wait=9;1;x=y, handling=lenient"),
    *(
        _with("escape_codes", header, b"\x1b[31m", 400, "invalid_http")
        for header in (*_IGNORED, "prefer", "idempotency-key")
    ),
    *(
        _with(name, "idempotency-key", value, 400, "invalid_value")
        for name, value in {
            "empty": b"",
            "of_256": b"k" * 256,
            "of_32_kib": b"k" * 32_768,
            "latin_1": b"\xe9",
            "with_a_space": b"a b",
            "utf_8": "ключ".encode(),
        }.items()
    ),
    *(
        _get("host", value, name)
        for name, value in {
            "of_another": b"evil.example",
            "of_4_kib": b"h" * 4096,
            "ipv6": b"[::1]:80",
        }.items()
    ),
    *(
        replace(_get("host", value, name), status=400, code="invalid_value")
        for name, value in {
            "with_a_path": b"127.0.0.1/..",
            "with_a_name": b"user:password@evil.example",
            "script": b"<script>",
            "latin_1": b"\xe9",
        }.items()
    ),
    *(
        _get("x-http-method-override", method.encode(), method)
        for method in ("DELETE", "POST", "TRACE")
    ),
]
