"""The contract of all backbones: configuration, presets, weights.

A backbone turns inputs into features; it has no head and does no I/O of its own beyond presets,
which `preset_files` reads and writes. KerasHub's form: keras_hub/src/models/backbone.py
(keras-hub 0.32.0).
"""

import re
from pathlib import Path
from typing import ClassVar, Self, cast

import torch
from torch import nn

import models
from models import preset_files
from models.errors import PresetError
from models.presets import PRESETS, Preset, PresetTask

# Written beside the constructor's arguments; they decide nothing about the weights.
_KERAS_LAYER_KEYS = frozenset({"name", "trainable", "dtype"})


class _Presets:
    """A read-only class property."""

    def __get__(self, backbone: "Backbone | None", owner: type["Backbone"]) -> dict[str, Preset]:
        """Map the names of the presets that `owner.from_preset` can build to their rows."""
        tasks = {family.preset_task for family in _families() if issubclass(family, owner)}
        return {name: preset for name, preset in PRESETS.items() if preset.task in tasks}


class Backbone(nn.Module):
    """Inputs to features.

    A subclass says what its constructor was called with (`get_config`), which class it is for
    KerasHub (`keras_module`) and what its presets are for (`preset_task`).
    """

    keras_module: ClassVar[str]  # where KerasHub defines the class of this name
    preset_task: ClassVar[PresetTask | None] = None
    presets = _Presets()

    def get_config(self) -> dict[str, object]:
        """Give the constructor's arguments, as JSON holds them."""
        raise NotImplementedError(f"{type(self).__name__} does not say its configuration")

    @property
    def token_embedding(self) -> nn.Module | None:
        """The embedding of token ids; None for a backbone that takes no tokens."""
        return None

    @classmethod
    def from_preset(
        cls,
        preset: str | Path,
        load_weights: bool = True,
        dtype: torch.dtype | str | None = None,
        trainable: bool = True,
        **overrides: object,
    ) -> Self:
        """Build the backbone of a preset, in evaluation mode, on the CPU.

        `preset` is a built-in name or a directory, in KerasHub's form or of diffusers' Flux;
        `dtype` None means float32, as in KerasHub, whatever the files hold; `overrides` replace
        arguments of the constructor.

        Raises UnknownPresetError for no such preset, PresetFileError for a missing or malformed
        file, WeightsError for weights that do not fit, PresetError for a preset of another class.
        """
        directory = preset_files.find_directory(preset)
        stored = _read_config(directory)
        family = _family(stored.class_name, preset)
        if not issubclass(family, cls):
            raise PresetError(
                f"preset {str(preset)!r} holds a {family.__name__}, which is not a {cls.__name__}; "
                f"call {family.__name__}.from_preset or Backbone.from_preset"
            )
        config = {k: v for k, v in stored.config.items() if k not in _KERAS_LAYER_KEYS} | overrides
        target = as_torch_dtype(dtype)
        backbone = _build(family, config, "meta" if load_weights else "cpu", preset)
        if load_weights:
            _load_weights(backbone, directory, target)
        return cast(Self, backbone.to(target).eval().requires_grad_(trainable))

    def save_to_preset(self, preset_dir: str | Path) -> None:
        """Write `config.json`, `metadata.json` and `model.safetensors`; leave other files alone."""
        directory = Path(preset_dir)
        preset_files.write_object(directory, preset_files.CONFIG_FILE, self.to_keras_object())
        preset_files.write_metadata(directory, sum(p.numel() for p in self.parameters()))
        preset_files.save_weights(self, directory / preset_files.WEIGHTS_FILE)

    def to_keras_object(self) -> preset_files.KerasObject:
        """Serialise the configuration in KerasHub's form."""
        class_name = type(self).__name__
        parameter = next(self.parameters())
        layer_keys = {
            "name": snake_case(class_name),
            "trainable": parameter.requires_grad,
            "dtype": preset_files.dtype_policy(str(parameter.dtype).removeprefix("torch.")),
        }
        return preset_files.KerasObject(
            module=self.keras_module,
            class_name=class_name,
            config=layer_keys | self.get_config(),
            registered_name=f"keras_hub>{class_name}",
        )


def as_torch_dtype(dtype: torch.dtype | str | None) -> torch.dtype:
    """Read "bfloat16" and torch.bfloat16 alike; None is float32.

    Raises ValueError for what is not a floating dtype.
    """
    named = getattr(torch, dtype, None) if isinstance(dtype, str) else dtype or torch.float32
    if not isinstance(named, torch.dtype) or not named.is_floating_point:
        raise ValueError(f"dtype {dtype!r} is not a floating dtype such as 'float32' or 'bfloat16'")
    return named


def snake_case(class_name: str) -> str:
    """Name a layer as Keras does: ViTBackbone is vi_t_backbone, FNetBackbone f_net_backbone."""
    apart = re.sub(r"(.)([A-Z][a-z0-9]+)", r"\1_\2", class_name)
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", apart).lower()


def _families() -> list[type[Backbone]]:
    return [getattr(models, name) for name in models.__all__ if name != Backbone.__name__]


def _family(class_name: str, preset: str | Path) -> type[Backbone]:
    families = {family.__name__: family for family in _families()}
    if class_name not in families:
        allowed = ", ".join(sorted(families))
        raise PresetError(f"preset {str(preset)!r} holds a {class_name}, not one of {allowed}")
    return families[class_name]


def _build(
    family: type[Backbone], config: dict[str, object], device: str, preset: str | Path
) -> Backbone:
    try:
        with torch.device(device):
            return family(**config)
    except (TypeError, ValueError) as error:
        raise PresetError(
            f"preset {str(preset)!r} does not fit {family.__name__}: {error}"
        ) from error


def _read_config(directory: Path) -> preset_files.KerasObject:
    if not preset_files.is_diffusers_directory(directory):
        return preset_files.read_object(directory, preset_files.CONFIG_FILE)
    from models.flux.diffusers_directory import build_backbone

    return build_backbone(directory).to_keras_object()


def _load_weights(backbone: Backbone, directory: Path, dtype: torch.dtype) -> None:
    if not preset_files.is_diffusers_directory(directory):
        preset_files.load_weights(backbone, directory / preset_files.WEIGHTS_FILE, dtype)
        return
    from models.flux.backbone import FluxBackbone
    from models.flux.diffusers_directory import load_weights

    assert isinstance(backbone, FluxBackbone), "diffusers' layout is Flux's alone: this is a bug"
    load_weights(backbone, directory, "cpu", dtype)
