"""Hugging Face's inference routes: what goes to which model, and what is refused by which name."""

import base64

import httpx
import pytest

from tests.service.conftest import PNG, PNG_BASE64, TestWorker, error_of
from worker.contract.jobs import (
    ClassifyJob,
    EmbeddingsJob,
    Failure,
    FailureCode,
    ImageJob,
    StartImage,
)

JSON = {"content-type": "application/json"}


def painting(**parameters: object) -> dict[str, object]:
    return {"inputs": "x", "parameters": parameters}


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize("accept", ["image/png", "*/*"])
def test_a_prompt_is_answered_with_the_image_itself(http: httpx.Client, accept: str) -> None:
    answer = http.post(
        "/models/flux_shapes",
        json={"inputs": "a red circle", "parameters": {"width": 64, "height": 96, "seed": 5}},
        headers={"accept": accept},
    )
    assert (answer.headers["content-type"], answer.content) == ("image/png", PNG)
    assert answer.headers["x-seed"] == "5"


def test_the_parameters_are_those_of_generations(http: httpx.Client, worker: TestWorker) -> None:
    parameters = {"width": 64, "height": 96, "steps": 3, "negative_prompt": "blue", "seed": 5}
    http.post("/models/flux_shapes", json={"inputs": "a red circle", "parameters": parameters})
    [job] = worker.jobs
    assert isinstance(job, ImageJob)
    assert (job.prompt, job.width, job.height) == ("a red circle", 64, 96)
    assert (job.num_steps, job.seeds) == (3, (5,))
    assert job.negative is not None


def test_an_image_with_a_prompt_among_the_parameters_is_started_from(
    http: httpx.Client, worker: TestWorker
) -> None:
    body = {"inputs": PNG_BASE64, "parameters": {"prompt": "a red circle", "strength": 0.5}}
    assert http.post("/models/flux_shapes", json=body).content == PNG
    [job] = worker.jobs
    assert isinstance(job, ImageJob)
    assert job.prompt == "a red circle"
    assert isinstance(job.start, StartImage)


@pytest.mark.parametrize(
    ("path", "content", "headers"),
    [
        ("/models/vit_shapes", PNG, {}),
        ("/models/vit_shapes", PNG, {"content-type": "image/png"}),
        ("/models/vit_shapes", f'{{"inputs": "{PNG_BASE64}"}}'.encode(), JSON),
        ("/", PNG, {}),
        ("/", f'{{"inputs": "{PNG_BASE64}", "parameters": {{}}}}'.encode(), JSON),
    ],
)
def test_an_image_is_answered_with_labels_and_scores(
    http: httpx.Client,
    worker: TestWorker,
    path: str,
    content: bytes,
    headers: dict[str, str],
) -> None:
    labels = http.post(path, content=content, headers=headers).raise_for_status().json()
    assert labels[:2] == [{"label": "label 0", "score": 0.5}, {"label": "label 1", "score": 1 / 3}]
    assert len(labels) == 5
    [job] = worker.jobs
    assert isinstance(job, ClassifyJob)
    assert [base64.b64decode(image) for image in job.images] == [PNG]


def test_parameters_say_how_an_image_is_classified(http: httpx.Client, worker: TestWorker) -> None:
    body = {"inputs": PNG_BASE64, "parameters": {"top_k": 2, "function_to_apply": "sigmoid"}}
    assert len(http.post("/models/vit_shapes", json=body).json()) == 2
    [job] = worker.jobs
    assert isinstance(job, ClassifyJob)
    assert job.function == "sigmoid"


@pytest.mark.parametrize(
    "path", ["/models/f_net_shapes", "/pipeline/feature-extraction/f_net_shapes", "/"]
)
def test_texts_are_answered_with_vectors(http: httpx.Client, worker: TestWorker, path: str) -> None:
    body = {"inputs": ["abc", "de"], "normalize": False}
    vectors = http.post(path, json=body).raise_for_status().json()
    assert [vector[0] for vector in vectors] == [3.0, 2.0]
    [job] = worker.jobs
    assert isinstance(job, EmbeddingsJob)
    assert not job.normalizes


@pytest.mark.usefixtures("worker")
def test_the_services_own_url_paints_for_who_accepts_images(http: httpx.Client) -> None:
    answer = http.post("/", json={"inputs": "a red circle"}, headers={"accept": "image/png"})
    assert answer.content == PNG


@pytest.mark.usefixtures("worker")
def test_a_model_is_found_by_an_alias(http: httpx.Client) -> None:
    answer = http.post("/models/text-embedding-3-small", json={"inputs": "abc"})
    assert answer.status_code == httpx.codes.OK


@pytest.mark.parametrize(
    ("path", "body", "param", "code"),
    [
        ("flux_shapes", {"inputs": ""}, "inputs", "invalid_value"),
        ("flux_shapes", painting(width=65, height=64), "width", "invalid_value"),
        ("flux_shapes", painting(n=2), "n", "unknown_parameter"),
        ("flux_shapes", painting(scheduler="x"), "scheduler", "unknown_parameter"),
        ("flux_shapes", painting(prompt="no image beside it"), "inputs", "invalid_image"),
        ("vit_shapes", {"inputs": "x"}, "inputs[0]", "invalid_image"),
        ("vit_shapes", {"inputs": [PNG_BASE64] * 2}, "inputs", "invalid_value"),
        ("vit_shapes", {"inputs": PNG_BASE64, "model": "x"}, "model", "invalid_value"),
        ("vit_shapes", {"inputs": PNG_BASE64, "parameters": {"top_k": 113}}, "top_k",
         "invalid_value"),
        ("f_net_shapes", {"inputs": ["x", ""]}, "inputs[1]", "invalid_value"),
        ("f_net_shapes", {"inputs": "x", "prompt_name": "q"}, "prompt_name",
         "unsupported_parameter"),
        ("another", {"inputs": "x"}, "model", "model_not_found"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_in_the_clients_words(
    http: httpx.Client, path: str, body: dict[str, object], param: str, code: str
) -> None:
    answer = http.post(f"/models/{path}", json=body)
    error = error_of(answer, 404 if code == "model_not_found" else 400)
    assert (error["param"], error["code"]) == (param, code)
    assert str(error["message"]).startswith(f"{param}: ")


def test_what_a_worker_finds_wrong_is_named_in_the_clients_words(
    http: httpx.Client, worker: TestWorker
) -> None:
    worker.answer = lambda _job, _attempt: Failure(
        code=FailureCode.INPUT_TOO_LONG, message="input[1]: got 600 tokens", param="input[1]"
    )
    error = error_of(http.post("/models/f_net_shapes", json={"inputs": ["x", "y"]}), 400)
    assert (error["param"], error["message"]) == ("inputs[1]", "inputs[1]: got 600 tokens")


@pytest.mark.parametrize(
    ("model", "pipeline"),
    [
        ("flux_shapes", "text-to-image"),
        ("vit_shapes", "image-classification"),
        ("f_net_shapes", "feature-extraction"),
    ],
)
def test_a_model_says_what_it_is_and_that_it_is_well(
    http: httpx.Client, model: str, pipeline: str
) -> None:
    info = http.get(f"/models/{model}/info").raise_for_status().json()
    assert (info["model_id"], info["model_pipeline_tag"]) == (model, pipeline)
    assert http.get(f"/models/{model}/health").json() == {"status": "ok"}


def test_an_unknown_model_has_no_health(http: httpx.Client) -> None:
    assert error_of(http.get("/models/another/health"), 404)["code"] == "model_not_found"
