"""Forms that are none, that hide JSON of very many values, or that speak of charsets."""

import json
from collections.abc import Mapping

from tests.hostile.cases import Case
from tests.hostile.images import PNG

_EDITS, _CLASSIFY = "/v1/images/edits", "/v1/classify"
_FORM = b"multipart/form-data; boundary=b"
_MANY_KEYS = json.dumps({str(i): 1 for i in range(100_000)}).encode()


def part(name: bytes, content: bytes, head: bytes = b"") -> bytes:
    return b'--b\r\ncontent-disposition: form-data; name="%s"%s\r\n\r\n%s\r\n' % (
        name,
        head,
        content,
    )


_FILE = part(b"image", PNG, b'; filename="a.png"')
_PROMPT = part(b"prompt", b"a red circle")
_EDIT = _FILE + _PROMPT + part(b"size", b"64x64") + part(b"steps", b"1")


def _post(
    name: str,
    content: bytes,
    status: int = 400,
    code: str = "invalid_value",
    path: str = _EDITS,
    content_type: bytes = _FORM,
) -> Case:
    return Case(name, "POST", path, status, code, (("content-type", content_type),), content)


_STRUCTURED: Mapping[str, bytes] = {
    "keys_100000": _MANY_KEYS,
    "objects_100000": b"[" + b"{}," * 100_000 + b"{}]",
    "arrays_100000": b"[" + b"[]," * 100_000 + b"[]]",
    "numbers_100000": b"[" + b"1," * 100_000 + b"1]",
    "brackets_60000": b"[" * 60_000,
    "digits_10000": b"9" * 10_000,
    "of_a_mebibyte": b'"' + b"x" * 2**20 + b'"',
    "nan": b"NaN",
    "nothing": b"",
}
_NO_FORM: Mapping[str, bytes] = {
    "nothing": b"",
    "json": b"{}",
    "bytes": bytes(range(256)) * 100,
    "dashes": b"--" * 10_000,
    "another_boundary": _EDIT.replace(b"--b", b"--c") + b"--c--",
    "boundaries": b"--b\r\n" * 10_000,
    "a_part_without_a_name": b"--b\r\ncontent-disposition: form-data\r\n\r\nx\r\n--b--",
    "a_part_without_a_head": b"--b\r\n\r\nx\r\n--b--",
    "a_head_of_a_mebibyte": part(b"prompt", b"x", b"; a=" + b"b" * 2**20) + b"--b--",
    "heads_100000": part(b"prompt", b"x", b"\r\nx: y" * 100_000) + b"--b--",
    "129_fields": _FILE + part(b"a", b"x") * 129 + b"--b--",
    "129_files": _FILE * 129 + b"--b--",
}
_CHARSETS = ("idna", "punycode", "undefined", "hex", "utf-7", "utf-16", "rot13", "klingon")

CASES = [
    *(
        _post(f"{field}_{name}", _EDIT + part(field.encode(), content) + b"--b--")
        for field in ("loras", "preview_steps", "stream_options")
        for name, content in _STRUCTURED.items()
    ),
    *(_post(name, content) for name, content in _NO_FORM.items()),
    *(
        _post(
            f"charset_{charset}",
            _EDIT + b"--b--",
            415,
            "unsupported_media_type",
            content_type=_FORM + b"; charset=" + charset.encode(),
        )
        for charset in _CHARSETS
    ),
    *(_post(f"edit_cut_off_by_{n}", (_EDIT + b"--b--")[:-n]) for n in (1, 5, 7, 30, 100, 200)),
    *(
        _post(f"upload_cut_off_by_{n}", (_FILE * 3 + b"--b--")[:-n], path=_CLASSIFY)
        for n in (1, 5, 50, 120)
    ),
    _post("no_boundary", _EDIT + b"--b--", content_type=b"multipart/form-data"),
    _post("a_prompt_of_a_mebibyte", _FILE + part(b"prompt", b"\xff" * 2**20) + b"--b--"),
    _post("a_size_of_a_mebibyte", _EDIT + part(b"size", b"9" * 2**20) + b"--b--"),
    _post("a_seed_of_a_mebibyte", _EDIT + part(b"seed", b"9" * 2**20) + b"--b--"),
    _post(
        "a_field_of_brackets",
        _EDIT + part(b"[" * 2000, b"x") + b"--b--",
        code="unknown_parameter",
    ),
    _post(
        "keys_of_an_unknown_field", _EDIT + part(b"a[b]", b"x") + b"--b--", code="unknown_parameter"
    ),
]
