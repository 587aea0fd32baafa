"""The noise levels of a run: rectified flow, as diffusers computes it.

`Schedule` says which levels a run visits, as diffusers' FlowMatchEulerDiscreteScheduler and Flux
pipelines do (0.42); `rows` steps from one to the next. Knows nothing about models.
"""

import math
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, slots=True)
class Schedule:
    """A preset's scheduler configuration, under the names of `scheduler_config.json`."""

    use_dynamic_shifting: bool
    shift: float = 1.0
    base_shift: float = 0.5
    max_shift: float = 1.15
    base_image_seq_len: int = 256
    max_image_seq_len: int = 4096

    def sigmas(self, num_steps: int, num_patches: int, strength: float = 1.0) -> Tensor:
        """Noise levels [num_steps + 1] float32 on the CPU, falling from 1 to 0.

        The dynamic shift grows with the image: `mu` is linear in the number of patches. A
        `strength` below 1 leaves out the first levels: about `strength * num_steps` steps remain.

        Raises ValueError for fewer than one step and for a strength outside (0, 1].
        """
        skipped = _num_skipped(num_steps, strength)
        even = torch.linspace(1.0, 1.0 / num_steps, num_steps, dtype=torch.float64)
        factor = math.exp(self._mu(num_patches)) if self.use_dynamic_shifting else self.shift
        shifted = factor * even / (1 + (factor - 1) * even)
        return torch.cat((shifted, torch.zeros(1, dtype=torch.float64))).float()[skipped:]

    def _mu(self, num_patches: int) -> float:
        slope = (self.max_shift - self.base_shift) / (
            self.max_image_seq_len - self.base_image_seq_len
        )
        return self.base_shift + slope * (num_patches - self.base_image_seq_len)


def _num_skipped(num_steps: int, strength: float) -> int:
    """Count the steps that image-to-image leaves out, rounded as diffusers rounds."""
    if num_steps < 1:
        raise ValueError(f"num_steps {num_steps} is less than 1")
    if not 0 < strength <= 1:
        raise ValueError(f"strength {strength} is not in (0, 1]")
    skipped = int(num_steps - num_steps * strength)
    return min(skipped, num_steps - 1)  # a strength below float's resolution would skip them all


@dataclass(frozen=True, slots=True)
class DenoiseStep:
    """Where the loop stands after step `step` of `num_steps`: patches [B, S, 64] float32."""

    step: int
    num_steps: int
    sigma: float
    patches: Tensor
