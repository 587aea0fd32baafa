"""What `triptych generate` may be asked for: the same as the API."""

from dataclasses import replace

import pytest

from triptych.generate_request import GenerateRequest, GenerateRequestError, to_job
from worker.image_limits import preset_limits

RED_CIRCLE = GenerateRequest("a red circle", "flux_shapes", size=None, num_steps=None, seed=None)


def test_what_is_left_out_comes_from_the_preset() -> None:
    limits = preset_limits("flux_shapes")
    job = to_job(RED_CIRCLE)
    assert (job.width, job.height) == (limits.default_width, limits.default_height)
    assert job.num_steps == limits.default_num_steps
    assert job.guidance_scale == limits.default_guidance_scale


def test_what_is_given_is_taken() -> None:
    job = to_job(replace(RED_CIRCLE, size="96x64", num_steps=4, seed=7))
    assert (job.prompt, job.width, job.height) == ("a red circle", 96, 64)
    assert (job.num_steps, job.seeds) == (4, (7,))


def test_without_a_seed_every_image_is_another() -> None:
    assert to_job(RED_CIRCLE).seeds != to_job(RED_CIRCLE).seeds


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        (replace(RED_CIRCLE, model="vit_shapes"), "model: got 'vit_shapes'; allowed: flux_shapes"),
        (replace(RED_CIRCLE, model="nothing"), "model: got 'nothing'; allowed: flux_shapes"),
        (replace(RED_CIRCLE, size="big"), "allowed: auto or WIDTHxHEIGHT"),
        (replace(RED_CIRCLE, num_steps=0), "num_inference_steps: got 0: "),
        (replace(RED_CIRCLE, num_steps=81), "num_inference_steps: got 81; allowed: 1 to 80"),
        (replace(RED_CIRCLE, seed=-1), "seed: got -1: "),
        (replace(RED_CIRCLE, prompt=""), "prompt: got ''"),
    ],
)
def test_what_the_preset_does_not_take_is_refused_with_what_it_takes(
    asked: GenerateRequest, message: str
) -> None:
    with pytest.raises(GenerateRequestError) as refused:
        to_job(asked)
    assert message in str(refused.value)
