"""What text-to-image models take: FLUX.1's limits, and what the configuration says instead."""

import pytest
from transformers import T5Tokenizer

from models.errors import PresetError
from models.presets import PRESETS, PresetTask, get_preset
from worker.image_limits import FluxProperties, limits_of, preset_limits
from worker.model_specs import ModelSpec

GUIDED = FluxProperties(has_guidance=True, max_sequence_length=512)
UNGUIDED = FluxProperties(has_guidance=False, max_sequence_length=512)


def spec(**options: object) -> ModelSpec:
    return ModelSpec.model_validate({"name": "oil", "handle": "/x", **options})


def test_only_a_model_that_embeds_guidance_has_a_guidance_scale() -> None:
    expected = {"flux_shapes": (2.0, 20), "flux_schnell": (None, 4), "flux_dev": (3.5, 28)}
    painters = [row.name for row in PRESETS.values() if row.task is PresetTask.TEXT_TO_IMAGE]
    assert set(painters) == set(expected)
    for name, (guidance, num_steps) in expected.items():
        limits = preset_limits(name)
        assert (limits.default_guidance_scale, limits.default_num_steps) == (guidance, num_steps)
        assert (limits.max_guidance_scale is None) == (guidance is None)


def test_a_checkpoint_is_taken_for_the_flux_that_it_is_like() -> None:
    guided, unguided = limits_of(spec(), GUIDED), limits_of(spec(), UNGUIDED)
    assert guided == preset_limits("flux_dev")
    assert unguided == preset_limits("flux_schnell")
    assert (guided.low_num_steps, unguided.low_num_steps) == (20, None)
    assert limits_of(spec(num_steps=10), GUIDED).low_num_steps is None


def test_a_default_size_may_be_asked_for() -> None:
    limits = limits_of(spec(default_size="1536x1536"), GUIDED)
    assert limits.max_pixels == 1536 * 1536


def test_a_prompt_has_no_more_tokens_than_the_tokenizer_reads() -> None:
    assert limits_of(spec(), FluxProperties(False, 77)).max_sequence_length == 77


def test_the_bundled_model_is_given_all_tokens_that_it_reads() -> None:
    tokenizer = T5Tokenizer.from_pretrained(f"{get_preset('flux_shapes').handle}/tokenizer_2")
    assert preset_limits("flux_shapes").max_sequence_length == tokenizer.model_max_length


def test_loras_are_listed_as_they_are_configured() -> None:
    loras = {"pixel-art": "/p.safetensors", "ink": "/i.safetensors"}
    assert limits_of(spec(loras=loras), GUIDED).loras == ("pixel-art", "ink")
    assert limits_of(spec(), GUIDED).loras == ()


def test_the_configuration_wins() -> None:
    options = {"default_size": "128x96", "max_side": 512, "num_steps": 90, "guidance_scale": 12.0}
    limits = limits_of(spec(**options), GUIDED)
    assert (limits.default_width, limits.default_height, limits.min_side) == (128, 96, 96)
    assert (limits.max_side, limits.max_pixels) == (512, 512 * 512)
    assert (limits.default_num_steps, limits.max_num_steps) == (90, 90)
    assert (limits.default_guidance_scale, limits.max_guidance_scale) == (12.0, 12.0)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"default_size": "100x96"}, "default_size is 100x96; allowed: multiples of 16 up to 2048"),
        ({"max_side": 512}, r"default_size is 1024x1024; .* up to 512 \(max_side\)"),
        ({"default_size": "2048x512"}, "default_size is 2048x512; .* 1:3 to 3:1"),
        ({"guidance_scale": 2.0}, "oil has no guidance; guidance_scale must be left out"),
    ],
)
def test_a_configuration_that_the_model_cannot_fulfil_is_refused(
    options: dict[str, object], says: str
) -> None:
    with pytest.raises(PresetError, match=says):
        limits_of(spec(**options), UNGUIDED)
