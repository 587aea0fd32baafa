"""Every field of every body with every kind of value that it does not take."""

import base64
from collections.abc import Iterator, Mapping

from tests.hostile.cases import Case, post_json
from tests.hostile.images import PNG

_PNG = base64.b64encode(PNG).decode("ascii")

_KINDS: Mapping[str, object] = {
    "text": "\x00odd",
    "number": 1.5,
    "true": True,
    "array": [[]],
    "object": {"a": {}},
}
_TEXT = ("number", "true", "array", "object")
_NUMBER = ("text", "array", "object")
_WHOLE = (*_NUMBER, "number")
_FLAG = ("text", "number", "array", "object")
_CHOICE = tuple(_KINDS)

_PAINT = {
    **dict.fromkeys(("prompt", "model", "size", "negative_prompt", "image", "user"), _TEXT),
    **dict.fromkeys(("safety_identifier",), _TEXT),
    **dict.fromkeys(("n", "seed", "num_inference_steps", "steps", "output_compression"), _WHOLE),
    **dict.fromkeys(("width", "height", "max_sequence_length", "partial_images"), _WHOLE),
    **dict.fromkeys(("guidance_scale", "guidance", "true_cfg_scale", "strength"), _NUMBER),
    "flow_shift": _NUMBER,
    "stream": _FLAG,
    **dict.fromkeys(("quality", "priority", "response_format", "output_format"), _CHOICE),
    **dict.fromkeys(("background", "style", "moderation", "acceleration"), _CHOICE),
    **dict.fromkeys(("loras", "preview_steps"), _CHOICE),
    "stream_options": ("text", "number", "true", "array"),
}
_CLASSIFY = {
    **dict.fromkeys(("input", "model", "user"), _TEXT),
    "top_k": _WHOLE,
    "include_probs": _FLAG,
    "labels": _CHOICE,
    **dict.fromkeys(("function_to_apply", "priority"), _CHOICE),
}
_EMBED = {
    **dict.fromkeys(("input", "model", "user"), _TEXT),
    "dimensions": _WHOLE,
    **dict.fromkeys(("normalize", "truncate"), _FLAG),
    **dict.fromkeys(("encoding_format", "pooling", "priority"), _CHOICE),
}
_JOBS = {"type": _CHOICE, "input": ("text", "number", "true", "array"), "priority": _CHOICE}
_JOBS |= {"expires_in": _NUMBER, "metadata": _CHOICE}


def _cases(
    path: str, base: dict[str, object], fields: Mapping[str, tuple[str, ...]]
) -> Iterator[Case]:
    for field, kinds in fields.items():
        for kind in kinds:
            body = {**base, field: _KINDS[kind]}
            yield post_json(f"{path}_{field}_{kind}", path, body, 400, "invalid_value")


CASES = [
    *_cases("/v1/images/generations", {"prompt": "x"}, _PAINT),
    *_cases("/v1/classify", {"input": _PNG}, _CLASSIFY),
    *_cases("/v1/embeddings", {"input": "x"}, _EMBED),
    *_cases("/v1/jobs", {"type": "text.embedding", "input": {"input": "x"}}, _JOBS),
]
