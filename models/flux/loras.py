"""The LoRAs of one pipeline: loaded by name, for the transformer and for CLIP, each with a scale.

A scale that is set holds for all calls; one call, or one row of a step, may have its own instead.
How files become adapters is `lora_files`' business.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path

from torch import nn

from models.flux.backbone import FluxBackbone
from models.flux.formats import lora_files


class LoadedLoras:
    """What is loaded, and how many times it counts."""

    def __init__(self, backbone: FluxBackbone, clip: nn.Module) -> None:
        self._backbone, self._clip = backbone, clip
        self._find()

    def load(self, file: str | Path, name: str | None, scale: float) -> None:
        name = Path(file).stem if name is None else name
        lora_files.attach(self._backbone, file, name, scale, clip=self._clip)
        self._find()

    def remove(self, name: str) -> None:
        lora_files.detach(self._backbone, name, clip=self._clip)
        self._find()

    @property
    def scales(self) -> dict[str, float]:
        """The scales that are set, by name."""
        return {name: scale.value for name, scale in (self._of_clip | self.of_backbone).items()}

    def set_scales(self, scales: Mapping[str, float]) -> None:
        self._check(scales)
        for loras in (self._of_clip, self.of_backbone):
            for name in scales.keys() & loras.keys():
                loras[name].value = scales[name]

    def counting(self, asked: Mapping[str, float] | None) -> dict[str, float]:
        """The scales of those that count for a call; None: as they are set.

        Raises ValueError for a name that is not loaded and a scale that is not finite.
        """
        if asked is None:
            asked = self.scales
        else:
            self._check(asked)
        return {name: scale for name, scale in asked.items() if scale}

    @contextmanager
    def reading_with(self, counting: Mapping[str, float], num_prompts: int) -> Iterator[None]:
        """Within, let these and no others count for CLIP; the transformer's stay as they are."""
        with ExitStack() as by_row:
            for name, scale in self._of_clip.items():
                by_row.enter_context(scale.by_row([counting.get(name, 0.0)] * num_prompts))
            yield

    def _find(self) -> None:
        """Look the scales up once: a step has no time to walk through all layers."""
        self.of_backbone = lora_files.attached(self._backbone)
        self._of_clip = lora_files.attached(self._clip)

    def _check(self, scales: Mapping[str, float]) -> None:
        lora_files.check_names(scales.keys(), self._of_clip | self.of_backbone)
        for scale in scales.values():
            lora_files.check_scale(scale)
