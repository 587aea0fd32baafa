"""`POST /v1/images/edits` and `/v1/images/variations`: forms and JSON, over real HTTP."""

import base64
from collections.abc import Mapping, Sequence

import httpx
import openai
import pytest

from tests.service.conftest import PNG, PNG_BASE64, TestWorker, error_of
from worker.contract.jobs import Failure, FailureCode, ImageJob, ImageResult
from worker.contract.record import AnyJob

EDITS, VARIATIONS = "/v1/images/edits", "/v1/images/variations"
URI = f"data:image/png;base64,{PNG_BASE64}"
File = tuple[str, tuple[str | None, bytes]]
ONE: list[File] = [("image", ("a.png", PNG))]


class Starts:
    """The images that a worker's jobs start from, as it finds them."""

    def __init__(self, worker: TestWorker) -> None:
        self._worker = worker
        self.found: list[bytes] = []
        worker.answer = self._answer

    def _answer(self, job: AnyJob, attempt: int) -> ImageResult:
        assert isinstance(job, ImageJob)
        assert job.start is not None
        self.found.append(self._worker.image_files.read_start(job.start.file_name))
        result = self._worker.default_answer(job, attempt)
        assert isinstance(result, ImageResult)
        return result


@pytest.fixture
def starts(worker: TestWorker) -> Starts:
    return Starts(worker)


def only_job(worker: TestWorker) -> ImageJob:
    [job] = worker.jobs
    assert isinstance(job, ImageJob)
    return job


def strength_of(worker: TestWorker) -> float:
    job = only_job(worker)
    assert job.start is not None
    return job.start.strength


@pytest.mark.parametrize("field", ["image", "image[]"])
def test_an_edit_starts_from_the_file_of_a_form(
    http: httpx.Client, worker: TestWorker, starts: Starts, field: str
) -> None:
    body = http.post(EDITS, files=[(field, ("a.png", PNG))], data={"prompt": "blue"}).json()
    assert starts.found == [PNG]
    assert only_job(worker).prompt == "blue"
    assert strength_of(worker) == 0.6
    assert body["strength"] == 0.6
    assert base64.b64decode(body["data"][0]["b64_json"]) == PNG
    assert body["usage"]["input_tokens_details"] == {"text_tokens": 9, "image_tokens": 64}


@pytest.mark.parametrize(
    "body",
    [
        {"image": URI},
        {"image": PNG_BASE64},
        {"image": [URI]},
        {"images": [{"image_url": URI}]},
        {"images": [{"image_url": URI, "file_id": None}], "image": None},
    ],
)
def test_an_edit_starts_from_the_image_of_a_json_body(
    http: httpx.Client, starts: Starts, body: Mapping[str, object]
) -> None:
    assert http.post(EDITS, json={"prompt": "x", **body}).status_code == 200
    assert starts.found == [PNG]


def test_text_of_a_form_is_read_as_what_it_stands_for(
    http: httpx.Client, worker: TestWorker
) -> None:
    data = {
        "prompt": "x",
        "n": "2",
        "seed": "5",
        "guidance": "2.5",
        "steps": "10",
        "strength": "0.5",
        "stream": "false",
        "size": "64x96",
        "preview_steps": "[2, 5]",
    }
    body = http.post(EDITS, files=ONE, data=data).json()
    job = only_job(worker)
    assert (job.seeds, job.guidance_scale, job.num_steps) == ((5, 6), 2.5, 10)
    assert (job.width, job.height, job.preview_steps) == (64, 96, (2, 5))
    assert [item["seed"] for item in body["data"]] == [5, 6]


@pytest.mark.parametrize(
    ("fields", "strength"),
    [
        ({"input_fidelity": "high"}, 0.4),
        ({"input_fidelity": "low"}, 0.6),
        ({"input_fidelity": "high", "strength": 0.9}, 0.9),
    ],
)
def test_a_faithful_edit_leaves_more_of_the_image(
    http: httpx.Client, worker: TestWorker, fields: Mapping[str, object], strength: float
) -> None:
    http.post(EDITS, json={"prompt": "x", "image": URI, **fields})
    assert strength_of(worker) == strength


def test_a_variation_has_no_prompt(http: httpx.Client, worker: TestWorker, starts: Starts) -> None:
    body = http.post(VARIATIONS, files=ONE, data={"n": "2", "response_format": "url"}).json()
    assert only_job(worker).prompt == ""
    assert strength_of(worker) == 0.6
    assert starts.found == [PNG]
    assert [http.get(item["url"]).content for item in body["data"]] == [PNG, PNG]


def test_openais_client_edits_and_varies(service_url: str, worker: TestWorker) -> None:
    with openai.OpenAI(base_url=f"{service_url}/v1", api_key="none") as client:
        edited = client.images.edit(
            image=[("a.png", PNG)],
            prompt="x",
            n=2,
            size="64x64",
            quality="low",
            output_format="jpeg",
            output_compression=70,
            background="opaque",
            input_fidelity="high",
            user="u",
            extra_body={"seed": 3, "preview_steps": [1, 2]},
        )
        with pytest.warns(DeprecationWarning, match="deprecated"):  # OpenAI has retired its own
            varied = client.images.create_variation(image=PNG, n=1, size="256x256")
    assert edited.data is not None
    assert varied.data is not None
    assert (len(edited.data), len(varied.data)) == (2, 1)
    assert edited.model_extra is not None
    assert edited.model_extra["strength"] == 0.4
    job = worker.jobs[0]
    assert isinstance(job, ImageJob)
    assert (job.output_format, job.output_compression, job.preview_steps) == ("jpeg", 70, (1, 2))


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("route", [EDITS, VARIATIONS])
@pytest.mark.parametrize(
    ("files", "fields", "param", "code", "says"),
    [
        ([], {}, "image", "missing_required_parameter", "required"),
        (ONE * 2, {}, "image", "invalid_value", "one image is allowed; got an array of 2"),
        ([("image", ("a", b""))], {}, "image", "invalid_image", "starts with nothing"),
        ([("image", ("a", b"GIF89a"))], {}, "image", "invalid_image", "PNG, JPEG or WebP"),
        ([("n", ("a", b"1")), *ONE], {}, "n", "invalid_value", "got a file; allowed: text"),
        (ONE, {"image": URI}, "image", "invalid_value", "given as a file and as text"),
        (ONE, {"n": "two"}, "n", "invalid_value", 'got "two"'),
        (ONE, {"n": ["1", "2"]}, "n", "invalid_value", "got an array of 2"),
        (ONE, {"colour": "red"}, "colour", "unknown_parameter", "unknown"),
        (ONE, {"svg[model]": "m"}, "svg", "unsupported_parameter", "not supported here"),
        (ONE, {"loras": "ink"}, "loras", "invalid_value", "not JSON"),
        (ONE, {"preview_steps[]": ["1", "99"]}, "preview_steps[1]", "invalid_value", "got 99"),
        (ONE, {"loras[][name]": "ink"}, "loras", "unsupported_parameter", "without LoRAs"),
        (ONE, {"size": "6" * 513}, "size", "invalid_value", "at most 512 characters"),
        (ONE, {"strength": "0"}, "strength", "invalid_value", "greater than 0"),
        (ONE, {"output_format": "gif"}, "output_format", "unsupported_value", "not painted here"),
    ],
)
def test_a_bad_field_of_a_form_is_named(
    http: httpx.Client,
    route: str,
    files: Sequence[File],
    fields: dict[str, str | list[str]],
    param: str,
    code: str,
    says: str,
) -> None:
    prompt = {"prompt": "x"} if route == EDITS else {}
    a_text: File = ("user", (None, b"u"))  # a form, whether or not there are files
    error = error_of(http.post(route, files=[*files, a_text], data=prompt | fields), 400)
    assert (error["param"], error["code"]) == (param, code)
    assert says in str(error["message"])


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize("name", ["mask", "markup"])
def test_a_mask_is_refused_by_name(http: httpx.Client, name: str) -> None:
    files = [*ONE, (name, ("m.png", PNG))]
    error = error_of(http.post(EDITS, files=files, data={"prompt": "x"}), 400)
    assert (error["param"], error["code"]) == (name, "unsupported_parameter")
    got = f"got a file of {len(PNG)} bytes"
    assert error["message"] == f"{name}: not supported here; allowed: null; {got}"
    body = {"prompt": "x", "image": URI, name: {"image_url": URI}}
    error = error_of(http.post(EDITS, json=body), 400)
    assert (error["param"], error["code"]) == (name, "unsupported_parameter")


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(
    ("body", "param", "code", "says"),
    [
        ({}, "image", "missing_required_parameter", "required"),
        ({"image": URI, "prompt": ""}, "prompt", "invalid_value", "at least 1 character"),
        ({"image": [URI, URI]}, "image", "invalid_value", "one image is allowed"),
        ({"image": []}, "image", "invalid_value", "one image is allowed"),
        ({"image": 5}, "image", "invalid_value", "got 5"),
        ({"image": "https://a/b.png"}, "image", "unsupported_value", "URLs are not fetched"),
        ({"images": []}, "images", "invalid_value", "one image is allowed"),
        ({"images": [{"image_url": URI}] * 2}, "images", "invalid_value", "one image is allowed"),
        (
            {"images": [{"image_url": "http://127.0.0.1/"}]},
            "images[0].image_url",
            "unsupported_value",
            "URLs are not fetched",
        ),
        (
            {"images": [{"file_id": "file-1"}]},
            "images[0].file_id",
            "unsupported_parameter",
            "not supported here",
        ),
        ({"images": [{}]}, "images[0].image_url", "missing_required_parameter", "required"),
        ({"images": [{"url": URI}]}, "images[0].url", "unknown_parameter", "unknown"),
        ({"images": [{"image_url": URI}], "image": URI}, "images", "invalid_value", "given too"),
        ({"image": URI, "n": "2"}, "n", "invalid_value", 'got "2"'),
        ({"image": URI, "seeds": 1}, "seeds", "unknown_parameter", "unknown"),
        ({"image": URI, "input_fidelity": "max"}, "input_fidelity", "invalid_value", "'high'"),
    ],
)
def test_a_bad_field_of_a_json_edit_is_named(
    http: httpx.Client, body: Mapping[str, object], param: str, code: str, says: str
) -> None:
    error = error_of(http.post(EDITS, json={"prompt": "x", **body}), 400)
    assert (error["param"], error["code"]) == (param, code)
    assert says in str(error["message"])


@pytest.mark.usefixtures("redis")
def test_a_variation_takes_no_prompt(http: httpx.Client) -> None:
    error = error_of(http.post(VARIATIONS, json={"image": URI, "prompt": "x"}), 400)
    assert (error["param"], error["code"]) == ("prompt", "unknown_parameter")


@pytest.mark.parametrize(
    ("body", "param"),
    [({"image": URI}, "image"), ({"images": [{"image_url": URI}]}, "images[0].image_url")],
)
def test_what_no_worker_decodes_is_named_as_it_was_sent(
    http: httpx.Client, worker: TestWorker, body: Mapping[str, object], param: str
) -> None:
    worker.answer = lambda *_: Failure(
        code=FailureCode.INVALID_IMAGE, message="image: broken", param="image"
    )
    error = error_of(http.post(EDITS, json={"prompt": "x", **body}), 400)
    assert error["param"] == param
    assert error["message"] == f"{param}: broken"


@pytest.mark.usefixtures("redis")
def test_another_type_of_body_is_a_415(http: httpx.Client) -> None:
    headers = {"content-type": "image/png"}
    error = error_of(http.post(EDITS, content=PNG, headers=headers), 415)
    assert "application/json, multipart/form-data" in str(error["message"])
