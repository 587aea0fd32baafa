"""Noise, patches and noise levels."""

import numpy as np
import pytest
import torch
from diffusers import FlowMatchEulerDiscreteScheduler, FluxPipeline
from diffusers.pipelines.flux.pipeline_flux import calculate_shift

from models.flux.latents import image_ids, noise, patchify, unpatchify
from models.flux.sampling import Schedule


def test_unpatchify_is_the_exact_inverse_of_patchify() -> None:
    latents = noise([1, 2], width=160, height=96)
    assert torch.equal(unpatchify(patchify(latents), width=160, height=96), latents)


def test_patches_lie_as_in_diffusers() -> None:
    latents = noise([1], width=160, height=96)
    expected = FluxPipeline._pack_latents(latents, 1, 16, 12, 20)
    assert torch.equal(patchify(latents), expected)


def test_positions_are_as_in_diffusers() -> None:
    expected = FluxPipeline._prepare_latent_image_ids(1, 6, 10, "cpu", torch.float32)
    assert torch.equal(image_ids(width=160, height=96)[0], expected)


def test_a_seed_is_the_same_noise_in_any_batch() -> None:
    assert torch.equal(noise([5, 6], 64, 64)[1], noise([6], 64, 64)[0])


@pytest.mark.parametrize("num_steps", [1, 4, 28, 50])
@pytest.mark.parametrize("num_patches", [16, 256, 1024, 4096])
@pytest.mark.parametrize("is_dynamic", [True, False])
def test_sigmas_are_those_of_diffusers(num_steps: int, num_patches: int, is_dynamic: bool) -> None:
    oracle = FlowMatchEulerDiscreteScheduler(shift=3.0, use_dynamic_shifting=is_dynamic)
    mu = calculate_shift(num_patches, 256, 4096, 0.5, 1.15)
    oracle.set_timesteps(sigmas=np.linspace(1.0, 1 / num_steps, num_steps), mu=mu)

    sigmas = Schedule(use_dynamic_shifting=is_dynamic, shift=3.0).sigmas(num_steps, num_patches)

    torch.testing.assert_close(sigmas, oracle.sigmas, atol=1e-6, rtol=0)
    assert sigmas[0] == 1.0
    assert sigmas[-1] == 0.0
    assert (sigmas.diff() < 0).all()


@pytest.mark.parametrize("flow_shift", [0.25, 1.0, 3.0, 12.5])
@pytest.mark.parametrize("is_dynamic", [True, False])
def test_a_flow_shift_replaces_the_models_own_as_diffusers_static_shift(
    is_dynamic: bool, flow_shift: float
) -> None:
    oracle = FlowMatchEulerDiscreteScheduler(shift=flow_shift)
    oracle.set_timesteps(sigmas=np.linspace(1.0, 1 / 28, 28))
    schedule = Schedule(use_dynamic_shifting=is_dynamic, shift=2.0)
    sigmas = schedule.sigmas(28, num_patches=1024, flow_shift=flow_shift)
    torch.testing.assert_close(sigmas, oracle.sigmas, atol=1e-6, rtol=0)


@pytest.mark.parametrize("flow_shift", [0.0, -1.0, float("inf"), float("nan")])
def test_a_flow_shift_is_a_finite_number_above_0(flow_shift: float) -> None:
    with pytest.raises(ValueError, match="is not a finite number above 0"):
        Schedule(use_dynamic_shifting=True).sigmas(4, num_patches=16, flow_shift=flow_shift)
