"""Noise levels: which sigmas a run visits.

As diffusers' FlowMatchEulerDiscreteScheduler and FluxPipeline compute them (0.42), from the same
configuration file. Knows nothing about models.
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

    def sigmas(self, num_steps: int, num_patches: int) -> Tensor:
        """Noise levels [num_steps + 1] float32 on the CPU, falling from 1 to 0.

        The dynamic shift grows with the picture: `mu` is linear in the number of patches.
        """
        even = torch.linspace(1.0, 1.0 / num_steps, num_steps, dtype=torch.float64)
        factor = math.exp(self._mu(num_patches)) if self.use_dynamic_shifting else self.shift
        shifted = factor * even / (1 + (factor - 1) * even)
        return torch.cat((shifted, torch.zeros(1, dtype=torch.float64))).float()

    def _mu(self, num_patches: int) -> float:
        slope = (self.max_shift - self.base_shift) / (
            self.max_image_seq_len - self.base_image_seq_len
        )
        return self.base_shift + slope * (num_patches - self.base_image_seq_len)
