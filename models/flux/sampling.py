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

    def sigmas(
        self,
        num_steps: int,
        num_patches: int,
        strength: float = 1.0,
        flow_shift: float | None = None,
    ) -> Tensor:
        """Noise levels [num_steps + 1] float32 on the CPU, falling from 1 to 0.

        Even levels are shifted towards 1: `s` becomes `f * s / (1 + (f - 1) * s)`. The factor `f`
        is `flow_shift`; None: the model's, which is `exp(mu)` where the shift is dynamic, with `mu`
        linear in the number of patches, and `shift` elsewhere. A `strength` below 1 leaves out the
        first levels: about `strength * num_steps` steps remain.

        Raises ValueError for fewer than one step, for a strength outside (0, 1], and for a
        `flow_shift` that is not a finite number above 0.
        """
        skipped = _num_skipped(num_steps, strength)
        even = torch.linspace(1.0, 1.0 / num_steps, num_steps, dtype=torch.float64)
        factor = self._factor(num_patches) if flow_shift is None else checked_shift(flow_shift)
        shifted = factor * even / (1 + (factor - 1) * even)
        return torch.cat((shifted, torch.zeros(1, dtype=torch.float64))).float()[skipped:]

    def _factor(self, num_patches: int) -> float:
        return math.exp(self._mu(num_patches)) if self.use_dynamic_shifting else self.shift

    def _mu(self, num_patches: int) -> float:
        slope = (self.max_shift - self.base_shift) / (
            self.max_image_seq_len - self.base_image_seq_len
        )
        return self.base_shift + slope * (num_patches - self.base_image_seq_len)


def checked_shift(flow_shift: float) -> float:
    if not 0 < flow_shift < math.inf:
        raise ValueError(f"flow_shift {flow_shift} is not a finite number above 0")
    return flow_shift


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
