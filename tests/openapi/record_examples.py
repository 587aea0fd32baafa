"""Record the description's examples from a running service with the bundled presets.

`python -m tests.openapi.record_examples http://127.0.0.1:8000` writes `service/api_examples.json`;
`make openapi` then writes `openapi.yaml`. A request here is an example, and so is its answer.
"""

import argparse
import base64
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import httpx
from PIL import Image, ImageDraw

from service.api_description import EXAMPLES_PATH

_SHOWN_URL = "http://127.0.0.1:8000"


@dataclass
class Recorder:
    """Asks, and keeps what was asked and answered by operation."""

    http: httpx.Client
    operations: dict[str, dict[str, Any]] = field(default_factory=dict)

    def ask(
        self, operation: str, name: str, method: str, path: str, body: object = None, **headers: str
    ) -> httpx.Response:
        response = self.http.request(method, path, json=body, headers=headers)
        response.raise_for_status()
        of_operation = self.operations.setdefault(operation, {"request": {}, "responses": {}})
        if body is not None:
            of_operation["request"].setdefault("application/json", {})[name] = body
        media_type = response.headers.get("content-type", "").partition(";")[0]
        of_status = of_operation["responses"].setdefault(str(response.status_code), {})
        of_status.setdefault(media_type, {})[name] = self._content(response, media_type)
        return response

    def _content(self, response: httpx.Response, media_type: str) -> object:
        text = response.text.replace(str(self.http.base_url).rstrip("/"), _SHOWN_URL)
        return json.loads(text) if media_type == "application/json" else text


def record(http: httpx.Client) -> Mapping[str, Any]:
    recorder = Recorder(http)
    _paint(recorder)
    _classify(recorder)
    _embed(recorder)
    _follow(recorder)
    _look(recorder)
    return recorder.operations


def _paint(recorder: Recorder) -> None:
    ask, path = recorder.ask, "/v1/images/generations"
    body = {"prompt": "a large red circle on white", "seed": 7, "response_format": "url"}
    ask("create_images", "by_url", "POST", path, body)
    edit = {"image": _red_circle(), "prompt": "a blue star on white", "strength": 0.8, "seed": 7}
    edit["response_format"] = "url"
    ask("edit_image", "blue_star", "POST", "/v1/images/edits", edit)
    variation = {"image": _red_circle(), "seed": 7, "response_format": "url"}
    ask("vary_image", "red_circle", "POST", "/v1/images/variations", variation)


def _red_circle() -> str:
    image = Image.new("RGB", (64, 64), (245, 245, 245))
    ImageDraw.Draw(image).ellipse((8, 8, 56, 56), fill=(220, 40, 40))
    content = BytesIO()
    image.save(content, "PNG", optimize=True)
    return f"data:image/png;base64,{base64.b64encode(content.getvalue()).decode('ascii')}"


def _classify(recorder: Recorder) -> None:
    ask = recorder.ask
    body = {"input": [_red_circle()], "top_k": 2}
    ask("create_classification", "red_circle", "POST", "/v1/classify", body)
    some = {"labels": ["red circle", "red ring"], "function_to_apply": "sigmoid"}
    ask("create_classification", "two_labels", "POST", "/v1/classify", {**body, **some})
    theirs = {"inputs": _red_circle(), "parameters": {"function_to_apply": "none"}}
    ask("create_classification", "hugging_face", "POST", "/v1/classify", theirs)
    hugging_face = {"inputs": _red_circle(), "parameters": {"top_k": 2}}
    ask("infer", "red_circle", "POST", "/models/vit_shapes", hugging_face)


def _embed(recorder: Recorder) -> None:
    body = {"input": ["a red circle", "a crimson disc"], "encoding_format": "base64"}
    recorder.ask("create_embeddings", "base64", "POST", "/v1/embeddings", body)
    tokens = {"input": [[8, 15, 16], [8, 23]], "pooling": "cls", "encoding_format": "base64"}
    recorder.ask("create_embeddings", "token_ids", "POST", "/v1/embeddings", tokens)
    recorder.ask("embed", "red_circle", "POST", "/embed", {"inputs": "a red circle"})


def _follow(recorder: Recorder) -> None:
    ask = recorder.ask
    body = {
        "type": "image.generation",
        "input": {"prompt": "a blue ring on black", "seed": 3},
        "metadata": {"page": "12"},
    }
    response = ask("create_job", "painting", "POST", "/v1/jobs", body)
    job = response.headers["location"]
    ask("get_job_events", "painted", "GET", f"{job}/events")
    ask("get_job", "painted", "GET", job)
    ask("get_job_result", "painted", "GET", f"{job}/result")
    ask("list_jobs", "newest", "GET", "/v1/jobs?limit=1")
    ask("cancel_job", "over", "POST", f"{job}/cancel")


def _look(recorder: Recorder) -> None:
    recorder.ask("list_models", "bundled", "GET", "/v1/models")
    recorder.ask("get_model", "painter", "GET", "/v1/models/flux_shapes")
    recorder.ask("get_model_info", "classifier", "GET", "/models/vit_shapes/info")
    recorder.ask("get_info", "embedder", "GET", "/info")
    recorder.ask("get_health", "alive", "GET", "/healthz")
    recorder.ask("get_readiness", "ready", "GET", "/readyz")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    with httpx.Client(base_url=parser.parse_args().url, timeout=120) as http:
        operations = record(http)
    text = json.dumps(operations, indent=2, ensure_ascii=False)
    EXAMPLES_PATH.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
