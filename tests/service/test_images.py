"""`POST /v1/images/generations` over real HTTP."""

import base64
import errno
import json
import os
from hashlib import sha256
from pathlib import Path

import httpx
import pytest
from redis import Redis

from models.flux.sampling import Schedule
from service.errors import RequestError
from service.main import create_app
from service.schemas.image_limits import num_run_steps, num_steps_of
from service.schemas.images import ImageRequest
from service.settings import ServiceSettings
from tests.cards import SHAPES, SHAPES_LIMITS, card_of, publish
from tests.service.conftest import PNG, PNG_BASE64, TestWorker, error_of, serve, wait_for
from worker.contract.jobs import (
    Failure,
    FailureCode,
    ImageJob,
    LoraScale,
    NegativePrompt,
    StartImage,
    Task,
)
from worker.contract.record import AnyJob, Outcome
from worker.image_limits import preset_limits

ROUTE = "/v1/images/generations"
SVG = base64.b64encode(b'<svg xmlns="http://www.w3.org/2000/svg"/>').decode()
TOO_LARGE = base64.b64encode(PNG + bytes(10 * 2**20)).decode()
INKED = card_of(
    "inked",
    Task.IMAGES,
    image_limits=SHAPES_LIMITS.model_copy(update={"loras": ("ink", "pixel-art")}),
)


def only_job(worker: TestWorker) -> ImageJob:
    [job] = worker.jobs
    assert isinstance(job, ImageJob)
    return job


@pytest.mark.usefixtures("worker")
def test_a_prompt_becomes_a_image_in_base64(http: httpx.Client) -> None:
    response = http.post(ROUTE, json={"prompt": "a red circle", "seed": 7})
    body = response.json()
    assert response.status_code == 200
    assert base64.b64decode(body["data"][0]["b64_json"]) == PNG
    assert "url" not in body["data"][0]
    assert body["model"] == "flux_shapes"
    assert body["size"] == "128x128"
    assert body["output_format"] == "png"
    assert body["usage"]["output_tokens"] == 64
    assert body["id"] == response.headers["x-job-id"]


def test_defaults_come_from_the_card(http: httpx.Client, worker: TestWorker) -> None:
    http.post(ROUTE, json={"prompt": "x"})
    job, limits = only_job(worker), SHAPES_LIMITS
    assert (job.width, job.height) == (limits.default_width, limits.default_height)
    assert job.num_steps == limits.default_num_steps
    assert job.guidance_scale == limits.default_guidance_scale
    assert job.deadline_at == pytest.approx(job.created_at + 3600)


def test_nulls_are_defaults(http: httpx.Client, worker: TestWorker) -> None:
    fields = ("model", "n", "size", "seed", "num_inference_steps", "guidance_scale", "quality")
    others = ("response_format", "output_format", "background", "stream", "svg", "user")
    body = {"prompt": "x"} | dict.fromkeys(fields + others)
    assert http.post(ROUTE, json=body).status_code == 200
    assert only_job(worker).num_steps == 20


@pytest.mark.usefixtures("worker")
def test_image_i_has_seed_plus_i(http: httpx.Client) -> None:
    body = http.post(ROUTE, json={"prompt": "x", "seed": 2**63 - 2, "n": 3}).json()
    assert [item["seed"] for item in body["data"]] == [2**63 - 2, 2**63 - 1, 0]
    assert body["seed"] == 2**63 - 2


def test_a_random_seed_is_echoed(http: httpx.Client, worker: TestWorker) -> None:
    seeds = {http.post(ROUTE, json={"prompt": "x"}).json()["seed"] for _ in range(3)}
    assert len(seeds) == 3
    assert seeds == {job.seeds[0] for job in worker.jobs if isinstance(job, ImageJob)}


def test_steps_and_guidance_are_aliases(http: httpx.Client, worker: TestWorker) -> None:
    http.post(ROUTE, json={"prompt": "x", "steps": 3, "guidance": 4})
    assert only_job(worker).num_steps == 3
    assert only_job(worker).guidance_scale == 4.0


@pytest.mark.parametrize(
    ("quality", "num_steps", "tier"),
    [
        ("low", 10, "low"),
        ("medium", 20, "medium"),
        ("standard", 20, "medium"),
        ("auto", 20, "medium"),
        ("high", 40, "high"),
        ("hd", 40, "high"),
        ("xhigh", 60, "xhigh"),
        ("max", 80, "max"),
    ],
)
def test_quality_is_a_tier_of_steps(
    http: httpx.Client, worker: TestWorker, quality: str, num_steps: int, tier: str
) -> None:
    body = http.post(ROUTE, json={"prompt": "x", "quality": quality}).json()
    assert only_job(worker).num_steps == num_steps
    assert body["quality"] == tier


@pytest.mark.parametrize(
    ("preset", "tiers"),
    [("flux_dev", [20, 28, 50, 50, 50]), ("flux_schnell", [2, 4, 8, 12, 16])],
)
def test_tiers_are_the_models_own(preset: str, tiers: list[int]) -> None:
    qualities = ("low", "medium", "high", "xhigh", "max")
    limits = preset_limits(preset)
    assert [num_steps_of(None, None, quality, limits) for quality in qualities] == tiers


def test_explicit_steps_win_over_quality(http: httpx.Client, worker: TestWorker) -> None:
    body = http.post(ROUTE, json={"prompt": "x", "quality": "hd", "num_inference_steps": 5}).json()
    assert only_job(worker).num_steps == 5
    assert body["quality"] == "low"


def test_width_and_height_are_an_alias_of_size(http: httpx.Client, worker: TestWorker) -> None:
    body = http.post(ROUTE, json={"prompt": "x", "width": 64, "height": 96}).json()
    assert (only_job(worker).width, only_job(worker).height) == (64, 96)
    assert body["size"] == "64x96"
    assert (body["data"][0]["width"], body["data"][0]["height"]) == (64, 96)


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(
    ("fields", "param", "says"),
    [
        ({"width": 64}, "height", "height: missing; width needs it"),
        ({"height": 64}, "width", "width: missing; height needs it"),
        ({"width": 64, "height": 64, "size": "64x64"}, "width", "the same as size"),
        ({"width": 64, "height": 100}, "height", "height 100 is not a multiple of 16"),
        ({"width": 272, "height": 64}, "width", "width 272 is not in 64 to 256"),
        ({"width": 256, "height": 64}, "width", "allowed: 1:3 to 3:1"),
    ],
)
def test_a_width_or_height_that_makes_no_size_is_named(
    http: httpx.Client, fields: dict[str, object], param: str, says: str
) -> None:
    error = error_of(http.post(ROUTE, json={"prompt": "x"} | fields), 400)
    assert error["param"] == param
    assert says in str(error["message"])


def test_the_advanced_fields_reach_the_job(http: httpx.Client, worker: TestWorker) -> None:
    fields = {"max_sequence_length": 16, "flow_shift": 3, "acceleration": "none"}
    assert http.post(ROUTE, json={"prompt": "x"} | fields).status_code == 200
    assert only_job(worker).max_sequence_length == 16
    assert only_job(worker).flow_shift == 3.0


def test_who_names_the_models_most_tokens_shares_forwards_with_who_names_none(
    http: httpx.Client, worker: TestWorker
) -> None:
    most = SHAPES_LIMITS.max_sequence_length
    assert http.post(ROUTE, json={"prompt": "x", "max_sequence_length": most}).status_code == 200
    assert only_job(worker).max_sequence_length is None


@pytest.mark.usefixtures("redis")
def test_a_prompt_is_read_no_further_than_the_model_reads(http: httpx.Client) -> None:
    limit = SHAPES_LIMITS.max_sequence_length
    body = {"prompt": "x", "max_sequence_length": limit + 1}
    error = error_of(http.post(ROUTE, json=body), 400)
    assert error["message"] == f"max_sequence_length: got {limit + 1}; allowed: 1 to {limit}"


@pytest.mark.parametrize(
    ("fields", "output_format", "quality"),
    [
        ({}, "png", 100),
        ({"output_format": "jpeg", "output_compression": 60}, "jpeg", 60),
        ({"output_format": "webp"}, "webp", 100),
        ({"output_format": "webp", "output_compression": 0}, "webp", 0),
    ],
)
def test_the_output_format_reaches_the_job_and_the_answer(
    http: httpx.Client,
    worker: TestWorker,
    fields: dict[str, object],
    output_format: str,
    quality: int,
) -> None:
    body = http.post(ROUTE, json={"prompt": "x"} | fields).json()
    assert (only_job(worker).output_format, only_job(worker).output_compression) == (
        output_format,
        quality,
    )
    assert body["output_format"] == output_format


@pytest.mark.usefixtures("worker")
def test_base64_is_an_alias_of_b64_json(http: httpx.Client) -> None:
    body = http.post(ROUTE, json={"prompt": "x", "response_format": "base64"}).json()
    assert base64.b64decode(body["data"][0]["b64_json"]) == PNG


@pytest.mark.usefixtures("worker")
@pytest.mark.parametrize(
    ("fields", "echoed"),
    [
        ({"user": "u"}, "u"),
        ({"user": "u", "safety_identifier": ""}, "u"),
        ({"user": "u", "safety_identifier": "s"}, "s"),
        ({"user": ""}, None),
    ],
)
def test_the_end_user_is_echoed_as_openai_does(
    http: httpx.Client, fields: dict[str, object], echoed: str | None
) -> None:
    assert http.post(ROUTE, json={"prompt": "x"} | fields).json().get("safety_identifier") == echoed


@pytest.mark.parametrize(
    ("path", "fields"),
    [
        (ROUTE, {"prompt": "x", "user": "u-17"}),
        (ROUTE, {"prompt": "x", "user": "v", "safety_identifier": "u-17"}),
        ("/v1/classify", {"input": PNG_BASE64, "user": "u-17"}),
        ("/v1/embeddings", {"input": "x", "user": "u-17"}),
    ],
)
def test_the_end_user_is_kept_with_the_job_but_not_in_words(
    http: httpx.Client, worker: TestWorker, path: str, fields: dict[str, object]
) -> None:
    location = http.post(path, json=fields, headers={"prefer": "respond-async"}).headers["location"]
    digest = sha256(b"u-17").hexdigest()
    assert http.get(location).json()["end_user"] == digest
    wait_for(lambda: len(worker.jobs) == 1)
    [job] = worker.jobs
    assert job.end_user == digest
    assert "u-17" not in job.model_dump_json()


@pytest.mark.parametrize("strength", [0.01, 0.3, 0.5, 0.6, 0.99, 1.0])
def test_the_steps_that_are_run_are_counted_as_the_model_counts_them(strength: float) -> None:
    for num_steps in (1, 2, 5, 20, 28):
        sigmas = Schedule(use_dynamic_shifting=False).sigmas(num_steps, 64, strength)
        assert num_run_steps(num_steps, strength) == len(sigmas) - 1


def test_a_preview_of_a_step_that_is_not_run_is_refused(http: httpx.Client) -> None:
    body = {"prompt": "x", "steps": 10, "image": PNG_BASE64, "strength": 0.3, "preview_steps": [4]}
    error = error_of(http.post(ROUTE, json=body), 400)
    assert error["message"] == "preview_steps[0]: got 4; allowed: 1 to 3"


def test_preview_steps_reach_the_job_in_order(http: httpx.Client, worker: TestWorker) -> None:
    body = {"prompt": "x", "steps": 5, "preview_steps": [5, 1]}
    assert http.post(ROUTE, json=body).status_code == 200
    assert only_job(worker).preview_steps == (1, 5)


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(
    ("steps", "param", "says"),
    [
        ([0], "preview_steps[0]", "got 0; allowed: 1 to 5"),
        ([1, 6], "preview_steps[1]", "got 6; allowed: 1 to 5"),
        ([2, 2], "preview_steps[1]", "got 2 again; allowed: once"),
        ([1, 2, 3, 4], "preview_steps", "got 4 steps; allowed: at most 3"),
        (["1"], "preview_steps[0]", "valid integer"),
    ],
)
def test_preview_steps_that_are_none_of_the_steps_are_refused(
    http: httpx.Client, steps: list[object], param: str, says: str
) -> None:
    body = {"prompt": "x", "steps": 5, "preview_steps": steps}
    error = error_of(http.post(ROUTE, json=body), 400)
    assert error["param"] == param
    assert says in str(error["message"])


@pytest.mark.usefixtures("worker")
def test_openais_other_fields_are_accepted(http: httpx.Client) -> None:
    ignored = {"user": "u", "style": "vivid", "moderation": "low", "background": "opaque"}
    body = {"prompt": "x", "safety_identifier": "s", "stream": False, "partial_images": 0}
    response = http.post(ROUTE, json=body | ignored)
    assert response.status_code == 200
    assert response.json()["safety_identifier"] == "s"


@pytest.mark.usefixtures("redis")
@pytest.mark.parametrize(
    ("field", "value", "code", "says"),
    [
        ("prompt", "", "invalid_value", "at least 1 character"),
        ("prompt", "x" * 32_001, "invalid_value", "at most 32000 characters"),
        ("prompt", 5, "invalid_value", "valid string; got 5"),
        ("prompt", None, "invalid_value", "got null"),
        ("n", 0, "invalid_value", "greater than or equal to 1; got 0"),
        ("n", 11, "invalid_value", "got 11; allowed: 1 to 10"),
        ("n", "2", "invalid_value", 'valid integer; got "2"'),
        ("n", True, "invalid_value", "got true"),
        ("size", "big", "invalid_value", 'got "big"; allowed: auto or WIDTHxHEIGHT'),
        ("size", "100x128", "invalid_value", "width 100 is not a multiple of 16"),
        ("size", "128x48", "invalid_value", "height 48 is not in 64 to 256"),
        ("size", "256x64", "invalid_value", "allowed: 1:3 to 3:1"),
        ("size", "1024x1024", "invalid_value", "width 1024 is not in 64 to 256"),
        ("seed", -1, "invalid_value", "greater than or equal to 0"),
        ("seed", 2**63, "invalid_value", "less than or equal to 9223372036854775807"),
        ("num_inference_steps", 81, "invalid_value", "got 81; allowed: 1 to 80"),
        ("steps", 0, "invalid_value", "greater than or equal to 1"),
        ("steps", 81, "invalid_value", "got 81; allowed: 1 to 80"),
        ("guidance", 10.5, "invalid_value", "got 10.5; allowed: 0 to 10"),
        ("guidance", -1, "invalid_value", "greater than or equal to 0"),
        ("user", "u" * 513, "invalid_value", "at most 512 characters"),
        ("negative_prompt", "x" * 32_001, "invalid_value", "at most 32000 characters"),
        ("safety_identifier", "u" * 513, "invalid_value", "at most 512 characters"),
        ("model", "m" * 513, "invalid_value", "at most 512 characters"),
        ("guidance_scale", 10.5, "invalid_value", "got 10.5; allowed: 0 to 10"),
        ("guidance_scale", -1, "invalid_value", "greater than or equal to 0"),
        ("quality", "best", "invalid_value", "'auto', 'low'"),
        ("max_sequence_length", 0, "invalid_value", "greater than or equal to 1"),
        ("flow_shift", 0, "invalid_value", "greater than 0"),
        ("flow_shift", 101, "invalid_value", "less than or equal to 100"),
        ("acceleration", "high", "unsupported_value", "allowed: 'none'"),
        ("acceleration", "fast", "invalid_value", "should be 'none'"),
        ("response_format", "file", "invalid_value", "'b64_json', 'base64' or 'url'"),
        ("output_format", "gif", "unsupported_value", "allowed: 'png', 'jpeg' or 'webp'"),
        ("output_format", "svg", "unsupported_value", "allowed: 'png', 'jpeg' or 'webp'"),
        ("output_format", "bmp", "invalid_value", "'png', 'jpeg' or 'webp'"),
        ("background", "transparent", "unsupported_value", "allowed: 'auto', 'opaque'"),
        ("stream", "true", "invalid_value", 'valid boolean; got "true"'),
        ("partial_images", 2, "invalid_value", "got 2; needs stream"),
        ("partial_images", 4, "invalid_value", "less than or equal to 3"),
        ("stream_options", {}, "invalid_value", "needs stream"),
        ("output_compression", 90, "invalid_value", "got 90; allowed: null, for a PNG"),
        ("output_compression", 101, "invalid_value", "less than or equal to 100"),
        ("frame_count", 4, "unsupported_parameter", "allowed: null"),
        ("num_inferece_steps", 4, "unknown_parameter", "unknown parameter"),
        ("style", "loud", "invalid_value", "'vivid' or 'natural'"),
        ("negative_prompt", 5, "invalid_value", "valid string; got 5"),
        ("true_cfg_scale", 0.5, "invalid_value", "greater than or equal to 1"),
        ("true_cfg_scale", 10.5, "invalid_value", "got 10.5: allowed: 1 to 10"),
        ("true_cfg_scale", 2, "invalid_value", 'got 2: needs negative_prompt, for which ""'),
        ("strength", 0, "invalid_value", "greater than 0; got 0"),
        ("strength", 1.5, "invalid_value", "less than or equal to 1"),
        ("strength", 0.5, "invalid_value", "got 0.5; needs image"),
        ("loras", "ink", "invalid_value", "valid list"),
        ("loras", [{"name": "ink"}], "unsupported_parameter", "flux_shapes is served without"),
        ("image", 5, "invalid_value", "valid string; got 5"),
        ("image", "", "invalid_image", "starts with nothing; allowed: PNG, JPEG or WebP"),
        ("image", "https://a/b.png", "unsupported_value", "URLs are not fetched"),
        ("image", "data:image/png,abc", "invalid_value", "a data URI in base64"),
        ("image", "!!", "invalid_image", "not base64"),
        ("image", SVG, "invalid_image", "allowed: PNG, JPEG or WebP"),
        pytest.param(
            "image", TOO_LARGE, "image_too_large", "allowed: at most 10485760", id="too large"
        ),
    ],
)
def test_a_bad_field_is_named_with_what_was_got_and_what_is_allowed(
    http: httpx.Client, field: str, value: object, code: str, says: str
) -> None:
    error = error_of(http.post(ROUTE, json={"prompt": "x", field: value}), 400)
    assert error["param"] == field
    assert error["code"] == code
    assert error["type"] == "invalid_request_error"
    assert str(error["message"]).startswith(f"{field}: ")
    assert says in str(error["message"])


def test_the_prompt_is_required(http: httpx.Client) -> None:
    error = error_of(http.post(ROUTE, json={"n": 1}), 400)
    assert (error["param"], error["code"]) == ("prompt", "missing_required_parameter")


def test_an_alias_beside_its_field_is_refused(http: httpx.Client) -> None:
    body = {"prompt": "x", "steps": 3, "num_inference_steps": 3}
    error = error_of(http.post(ROUTE, json=body), 400)
    assert error["message"] == "steps: the same as num_inference_steps, which is given too"


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_guidance_that_is_no_number_is_refused(http: httpx.Client, number: str) -> None:
    content = f'{{"prompt": "x", "guidance_scale": {number}}}'
    response = http.post(ROUTE, content=content, headers={"content-type": "application/json"})
    assert error_of(response, 400)["param"] == "guidance_scale"


@pytest.mark.parametrize("field", ["prompt", "negative_prompt", "image"])
def test_a_text_with_half_a_character_is_refused(http: httpx.Client, field: str) -> None:
    content = json.dumps({"prompt": "x", field: "\ud800"})
    response = http.post(ROUTE, content=content, headers={"content-type": "application/json"})
    assert error_of(response, 400)["param"] == field


def test_a_long_value_is_cut_in_the_message(http: httpx.Client) -> None:
    error = error_of(http.post(ROUTE, json={"prompt": "x" * 40_000}), 400)
    assert len(str(error["message"])) < 250
    assert "(40000 characters)" in str(error["message"])


@pytest.mark.parametrize("field", ["n", "seed", "num_inference_steps", "size"])
def test_a_number_of_any_length_is_cut_in_the_message(http: httpx.Client, field: str) -> None:
    error = error_of(http.post(ROUTE, json={"prompt": "x", field: 10**4000}), 400)
    assert error["param"] == field
    assert "… (4001 characters)" in str(error["message"])
    assert len(str(error["message"])) < 250


def test_guidance_for_a_model_without_it_is_refused() -> None:
    unguided = {"default_guidance_scale": None, "max_guidance_scale": None}
    limits = SHAPES_LIMITS.model_copy(update=unguided)
    request = ImageRequest.model_validate({"prompt": "x", "guidance_scale": 2.0})
    with pytest.raises(RequestError, match="plain has no guidance") as caught:
        request.to_job("plain", limits, 0.0, 1.0)
    assert caught.value.body.param == "guidance_scale"


def test_the_chosen_loras_reach_the_job_and_the_answer(
    http: httpx.Client, redis: Redis, worker: TestWorker
) -> None:
    publish(redis, INKED)
    chosen = [{"name": "pixel-art", "scale": 0.8}, {"name": "ink"}]
    body = http.post(ROUTE, json={"prompt": "x", "model": "inked", "loras": chosen}).json()
    expected = (LoraScale(name="pixel-art", scale=0.8), LoraScale(name="ink", scale=1.0))
    assert only_job(worker).loras == expected
    assert body["loras"] == [lora.model_dump() for lora in expected]


@pytest.mark.parametrize(
    ("loras", "param", "says"),
    [
        ([{"name": "ink"}, {"name": "oil"}], "loras[1].name", 'got "oil"; allowed: ink, pixel-art'),
        ([{"name": "ink"}, {"name": "ink"}], "loras[1].name", 'got "ink" again; allowed: once'),
        ([{"name": "ink", "scale": 11}], "loras[0].scale", "less than or equal to 10; got 11"),
        ([{"name": "ink", "scale": "1"}], "loras[0].scale", 'valid number; got "1"'),
        ([{"name": "ink", "weight": 1}], "loras[0].weight", "unknown parameter"),
        ([{"scale": 1}], "loras[0].name", "missing; it is required"),
        (["ink"], "loras[0]", 'got "ink"'),
    ],
)
def test_a_bad_lora_is_named(
    http: httpx.Client, redis: Redis, loras: list[object], param: str, says: str
) -> None:
    publish(redis, INKED)
    body = {"prompt": "x", "model": "inked", "loras": loras}
    error = error_of(http.post(ROUTE, json=body), 400)
    assert error["param"] == param
    assert str(error["message"]).startswith(f"{param}: ")
    assert says in str(error["message"])


def test_a_lora_scale_that_is_no_number_is_refused(http: httpx.Client, redis: Redis) -> None:
    publish(redis, INKED)
    content = '{"prompt": "x", "model": "inked", "loras": [{"name": "ink", "scale": NaN}]}'
    response = http.post(ROUTE, content=content, headers={"content-type": "application/json"})
    assert error_of(response, 400)["param"] == "loras[0].scale"


@pytest.mark.parametrize(
    ("fields", "negative"),
    [
        ({"negative_prompt": "y"}, NegativePrompt(prompt="y", true_cfg_scale=3.0)),
        (
            {"negative_prompt": "y", "true_cfg_scale": 1.5},
            NegativePrompt(prompt="y", true_cfg_scale=1.5),
        ),
        (
            {"negative_prompt": "", "true_cfg_scale": 4},
            NegativePrompt(prompt="", true_cfg_scale=4.0),
        ),
        ({"negative_prompt": ""}, None),
        ({"negative_prompt": "", "true_cfg_scale": 1}, None),
        ({"true_cfg_scale": 1.0}, None),
        ({"negative_prompt": None, "true_cfg_scale": None}, None),
    ],
)
def test_a_negative_prompt_has_a_scale_and_a_scale_a_prompt(
    http: httpx.Client, worker: TestWorker, fields: dict[str, object], negative: NegativePrompt
) -> None:
    body = http.post(ROUTE, json={"prompt": "x", **fields}).json()
    assert only_job(worker).negative == negative
    assert body.get("true_cfg_scale") == (negative and negative.true_cfg_scale)


@pytest.mark.usefixtures("redis")
def test_a_negative_prompt_without_effect_is_refused(http: httpx.Client) -> None:
    body = {"prompt": "x", "negative_prompt": "y", "true_cfg_scale": 1}
    error = error_of(http.post(ROUTE, json=body), 400)
    assert error["param"] == "true_cfg_scale"
    assert "got 1: negative_prompt has no effect at 1; allowed: above 1 to 10" in str(
        error["message"]
    )


@pytest.mark.parametrize("prefix", ["", "data:image/png;base64,"])
def test_a_start_image_lies_beside_the_record(
    http: httpx.Client, worker: TestWorker, prefix: str
) -> None:
    found: list[bytes] = []

    def answer(job: AnyJob, attempt: int) -> Outcome | None:
        assert isinstance(job, ImageJob)
        assert job.start is not None
        found.append(worker.image_files.read_start(job.start.file_name))
        return worker.default_answer(job, attempt)

    worker.answer = answer
    body = http.post(ROUTE, json={"prompt": "x", "image": prefix + PNG_BASE64}).json()
    assert found == [PNG]
    assert only_job(worker).start == StartImage(file_name=f"{body['id']}.start", strength=0.6)
    assert body["strength"] == 0.6


def test_a_start_image_that_no_worker_decodes_is_a_400(
    http: httpx.Client, worker: TestWorker
) -> None:
    failure = Failure(code=FailureCode.INVALID_IMAGE, message="broken", param="image")
    worker.answer = lambda *_: failure
    error = error_of(http.post(ROUTE, json={"prompt": "x", "image": PNG_BASE64}), 400)
    assert (error["param"], error["code"]) == ("image", "invalid_image")


@pytest.mark.usefixtures("redis")
def test_a_disk_that_takes_no_start_image_is_a_503(
    settings: ServiceSettings, tmp_path: Path
) -> None:
    (tmp_path / "images").write_text("a file where the directory should be")
    app = create_app(settings.model_copy(update={"data_dir": tmp_path}))
    with serve(app) as url:
        response = httpx.post(f"{url}{ROUTE}", json={"prompt": "x", "image": PNG_BASE64})
    assert error_of(response, 503)["code"] == "storage"


def test_a_full_disk_takes_no_start_image_and_says_so(
    http: httpx.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(_descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    response = http.post(ROUTE, json={"prompt": "x", "image": PNG_BASE64})
    assert error_of(response, 503)["code"] == "disk_full"
    assert int(response.headers["retry-after"]) >= 1


def test_an_unknown_model_is_a_404_that_names_the_known(http: httpx.Client) -> None:
    error = error_of(http.post(ROUTE, json={"prompt": "x", "model": "dall-e-9"}), 404)
    assert (error["param"], error["code"]) == ("model", "model_not_found")
    says = 'model: "dall-e-9" does not exist here; allowed: flux_shapes, gpt-image-1'
    assert str(error["message"]).startswith(says)


def test_a_model_of_another_task_is_a_404(http: httpx.Client) -> None:
    error_of(http.post(ROUTE, json={"prompt": "x", "model": "vit_shapes"}), 404)


@pytest.mark.usefixtures("worker")
def test_an_alias_names_a_model(http: httpx.Client, redis: Redis) -> None:
    publish(redis, SHAPES[0], aliases=("gpt-image-1",))
    response = http.post(ROUTE, json={"prompt": "x", "model": "gpt-image-1"})
    assert response.json()["model"] == "flux_shapes"


def test_a_image_that_is_gone_fails_the_call(http: httpx.Client, worker: TestWorker) -> None:
    def answer(job: object, attempt: int) -> object:
        assert isinstance(job, ImageJob)
        outcome = worker.default_answer(job, attempt)
        worker.image_files.path(f"{job.id}-{attempt}-0.png").unlink()
        return outcome

    worker.answer = answer  # type: ignore[assignment]
    error = error_of(http.post(ROUTE, json={"prompt": "x"}), 500)
    assert error["code"] == "storage"
    assert "/" not in str(error["message"])
