"""Text that is legal and odd, and text that UTF-8 cannot carry."""

from collections.abc import Mapping

from tests.hostile.cases import Case, post, post_json

_EMBED, _PAINT = "/v1/embeddings", "/v1/images/generations"

_LEGAL: Mapping[str, str] = {
    "nul": "a\0b",
    "controls": "".join(map(chr, range(1, 32))),
    "delete_and_c1": "\x7f\x80\x9f",
    "right_to_left_override": "a\u202eb\u2066c\u2069",
    "zero_width": "a\u200b\u200c\u200d\ufeffb",
    "combining_tower": "z" + "\u0301" * 200,
    "composed": "\u00e9",
    "decomposed": "e\u0301",
    "compatibility_forms": "\ufb01\u2460\uff21",
    "hangul_filler": "\u3164\u115f",
    "outside_the_basic_plane": "\U0001f468\u200d\U0001f469\u200d\U0001f467\U00010ffff",
    "no_characters": "\ufffe\uffff\U0010ffff",
    "tags": "\U000e0041\U000e007f",
    "private_use": "\ue000\U000f0000",
    "line_separators": "a\u2028b\u2029c\u0085d",
    "special_tokens": "[CLS] [SEP] [MASK] [PAD] <s> </s> <pad> <unk>",
    "html": "<img src=x onerror=alert(1)>",
    "sql": "'; DROP TABLE jobs; --",
    "template": "{{7*7}} ${jndi:ldap://127.0.0.1/x} %(x)s %s {0}",
    "redis": "\r\nFLUSHALL\r\n",
    "spaces": " " * 100,
    "one_word_of_3000": "a" * 200,
}

# Halves of a `\u` pair: JSON may hold them, UTF-8 not.
_SURROGATES: Mapping[str, bytes] = {
    "high": b'"\\ud800"',
    "low": b'"a\\udc00"',
    "swapped": b'"\\udc00\\ud800"',
    "two_high": b'"\\ud800\\ud800"',
}


def _surrogate(name: str, path: str, body: bytes) -> Case:
    return post(f"surrogate_{name}", path, body, 400, "invalid_value")


CASES = [
    *(post_json(f"text_{name}", _EMBED, {"input": text}, 200) for name, text in _LEGAL.items()),
    *(_surrogate(name, _EMBED, b'{"input": %s}' % text) for name, text in _SURROGATES.items()),
    _surrogate("in_a_list", _EMBED, b'{"input": ["x", "\\ud800"]}'),
    _surrogate("prompt", _PAINT, b'{"prompt": "\\ud800"}'),
    _surrogate("negative_prompt", _PAINT, b'{"prompt": "x", "negative_prompt": "\\ud800"}'),
    _surrogate("size", _PAINT, b'{"prompt": "x", "size": "\\ud800"}'),
    _surrogate("user", _PAINT, b'{"prompt": "x", "user": "\\ud800"}'),
    _surrogate("model", _EMBED, b'{"input": "x", "model": "\\ud800"}'),
    _surrogate("format", _EMBED, b'{"input": "x", "encoding_format": "\\ud800"}'),
    _surrogate("image", "/v1/classify", b'{"input": "\\ud800"}'),
    _surrogate(
        "metadata",
        "/v1/jobs",
        b'{"type": "text.embedding", "input": {"input": "x"}, "metadata": {"a": "\\ud800"}}',
    ),
    post("surrogate_key", _EMBED, b'{"input": "x", "\\ud800": 1}', 400, "invalid_value"),
    post_json("text_too_long", _EMBED, {"input": "word " * 2000}, 400, "input_too_long"),
    post_json("characters_too_many", _EMBED, {"input": "a" * 32_001}, 400, "invalid_value"),
    post_json("prompt_too_long", _PAINT, {"prompt": "a" * 32_001}, 400, "invalid_value"),
    post_json("texts_too_many", _EMBED, {"input": ["a"] * 2049}, 400, "invalid_value"),
    post_json(
        "model_of_a_mebibyte", _EMBED, {"input": "x", "model": "m" * 2**20}, 400, "invalid_value"
    ),
]
