"""The contract of all backbones: configuration, presets, weights.

A backbone turns inputs into features; it has no head and does no I/O of its own beyond presets,
which `preset_files` reads and writes. KerasHub's form: keras_hub/src/models/backbone.py
(keras-hub 0.32.0).
"""

from collections.abc import Callable, Mapping, Sequence
from importlib import import_module
from pathlib import Path
from typing import Literal, Self

import torch
from torch import nn

from models.checkpoints import preset_files
from models.checkpoints.filling import Target, fill, on_meta_device
from models.checkpoints.safetensors_files import save_shards
from models.errors import PresetError
from models.keras import lora
from models.keras import weights as keras_weights
from models.keras.layers import KerasModel, snake_case
from models.keras.writing import shard_bytes
from models.layers.adapters import merged_state
from models.layers.dtypes import DtypeLike, as_torch_dtype, dtype_policy
from models.presets import PRESETS, Preset
from models.presets.formats import read_stored
from models.presets.handles import Part, fetch
from models.presets.table import FAMILIES

WeightsFormat = Literal["h5", "safetensors"]


class _Presets:
    """A read-only class property."""

    def __get__(self, backbone: "Backbone | None", owner: type["Backbone"]) -> dict[str, Preset]:
        """Map the names of the presets that `owner.from_preset` can build to their rows."""
        classes = {family.__name__ for family in _families() if issubclass(family, owner)}
        return {name: row for name, row in PRESETS.items() if row.backbone_class in classes}


class Backbone(KerasModel):
    """Inputs to features.

    A subclass says what its constructor was called with (`get_config`) and how KerasHub knows it
    (`keras_layers` and what begins with `keras_`). Its constructor ends with `_finish`.
    """

    presets = _Presets()

    def __init__(self, name: str | None = None) -> None:
        super().__init__()
        self.name = name or snake_case(type(self).__name__)

    def _finish(self, trainable: bool, dtype: DtypeLike) -> None:
        self.to(as_torch_dtype(dtype)).requires_grad_(trainable)

    def get_config(self) -> dict[str, object]:
        """Give the constructor's arguments, as JSON holds them."""
        parameter = next(self.parameters())
        dtype_name = str(parameter.dtype).removeprefix("torch.")
        return {
            "name": self.name,
            "trainable": any(each.requires_grad for each in self.parameters()),
            "dtype": dtype_policy(dtype_name),
        }

    @classmethod
    def from_config(cls, config: Mapping[str, object]) -> Self:
        """Build a backbone with fresh weights from what `get_config` gave.

        Raises TypeError or ValueError for arguments that do not fit.
        """
        constructor: Callable[..., Self] = cls  # each subclass has arguments of its own
        return constructor(**config)

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
        """Build the backbone of a preset, in evaluation mode.

        `preset` is a built-in name, a handle (`kaggle://`, `hf://`, `modelscope://`), a directory
        in the form of KerasHub, transformers or diffusers, or a file of original Flux weights.
        `dtype` None means float32, as in KerasHub, whatever the files hold; `overrides` replace
        arguments of the constructor. Weights go to torch's default device; without them
        (`load_weights=False`) the values are fresh, and a built-in name needs no network.

        Raises UnknownPresetError for no such preset, DownloadError for one that cannot be fetched,
        PresetFileError for a missing or malformed file, WeightsError for weights that do not fit,
        PresetError for a preset of another class.
        """
        dtype = as_torch_dtype(dtype)
        if not load_weights:
            backbone = cls._build(*_read_config(preset), overrides, preset)
        else:
            stored = read_stored(fetch(preset, Part.BACKBONE))
            device = torch.get_default_device()
            with on_meta_device():
                backbone = cls._build(stored.class_name, stored.config, overrides, preset)
            with stored.open_weights() as weights:
                recipes = stored.recipes(backbone)
                fill(backbone, weights, recipes, Target(device, dtype), stored.is_ignored)
        return backbone.to(dtype).eval().requires_grad_(trainable)

    @classmethod
    def _build(
        cls,
        class_name: str,
        config: Mapping[str, object],
        overrides: Mapping[str, object],
        preset: str | Path,
    ) -> Self:
        """Call the constructor of a stored class, which must be this one or one below it."""
        family = _family(class_name, preset)
        if not issubclass(family, cls):
            raise PresetError(
                f"preset {str(preset)!r} holds a {family.__name__}, which is not a {cls.__name__}; "
                f"call {family.__name__}.from_preset or Backbone.from_preset"
            )
        arguments = {key: value for key, value in config.items() if key != "dtype"}
        try:
            return family.from_config(arguments | dict(overrides))
        except torch.OutOfMemoryError:
            raise
        except (TypeError, ValueError, RuntimeError) as error:  # the last for a size beyond memory
            raise PresetError(
                f"preset {str(preset)!r} does not fit {family.__name__}: {error}"
            ) from error

    def save_to_preset(
        self,
        preset_dir: str | Path,
        max_shard_size: float | None = 10,
        weights_format: WeightsFormat = "h5",
    ) -> None:
        """Write configuration, metadata and weights; leave other files alone.

        `weights_format` "h5" is KerasHub's own, which KerasHub loads; "safetensors" has our names
        of the parameters. `max_shard_size` in GB (2**30 bytes) decides whether the weights are one
        file or several; None is one file. Adapters are written as part of the weights that they add
        to.

        Raises ValueError for another format, a size that is not positive, a backbone on the meta
        device, and in H5 for a parameter larger than a shard.
        """
        directory = Path(preset_dir)
        match weights_format:
            case "h5":
                keras_weights.write(self, directory, max_shard_size)
            case "safetensors":
                limit = shard_bytes(max_shard_size)
                save_shards(merged_state(self), directory, preset_files.WEIGHTS_STEM, limit)
                keras_weights.write_description(self, directory)
                for stale in preset_files.KERAS_WEIGHTS_FILES:  # they would be read instead
                    (directory / stale).unlink(missing_ok=True)
            case _:
                raise ValueError(f"weights_format {weights_format!r} is not h5 or safetensors")

    def default_lora_layer_names(self) -> list[str]:
        """Name the layers that `enable_lora` takes where it is told none, as KerasHub does."""
        return list(lora.DEFAULT_TARGETS)

    def enable_lora(
        self,
        rank: int,
        target_names: Sequence[str] | None = None,
        *,
        target_layer_names: Sequence[str] | None = None,
    ) -> None:
        """Freeze everything and give the targets low-rank adapters, which add nothing yet.

        The adapters, float32, and the targets' biases are trainable. Targets are KerasHub's layer
        names, counted as in a process that has built nothing else (`query`, `dense_9`), or our
        module names or ends of them (`qkv`, `double_blocks.0.img_attn.qkv`); None is
        `default_lora_layer_names`. `target_layer_names` is KerasHub's newer name for the same.

        Raises ValueError for a rank below 1, for names that come twice or match no layer that can
        hold an adapter, and where LoRA is enabled already; TypeError for a plain string and for
        both spellings at once.
        """
        if target_names is not None and target_layer_names is not None:
            raise TypeError("target_names and target_layer_names are the same: give one of them")
        lora.enable(self, rank, target_layer_names if target_names is None else target_names)

    def save_lora_weights(self, filepath: str | Path) -> None:
        """Write the adapters that `enable_lora` gave as KerasHub does, without the biases.

        Raises ValueError where LoRA is not enabled, and for a file name without `.lora.h5`.
        """
        lora.save(self, filepath)

    def load_lora_weights(self, filepath: str | Path) -> None:
        """Load what KerasHub or `save_lora_weights` wrote.

        Where LoRA is not enabled, this enables it for the layers that the file names.

        Raises PresetFileError for a missing or malformed file, ValueError where it has another
        rank than the adapters, WeightsError where its layers are not those that are enabled, or
        cannot hold its adapters. Then the backbone is unchanged.
        """
        lora.load(self, filepath)


def _families() -> list[type[Backbone]]:
    return [getattr(import_module(module), name) for name, module in FAMILIES.items()]


def _family(class_name: str, preset: str | Path) -> type[Backbone]:
    if class_name not in FAMILIES:
        allowed = ", ".join(sorted(FAMILIES))
        raise PresetError(f"preset {str(preset)!r} holds a {class_name}, not one of {allowed}")
    family: type[Backbone] = getattr(import_module(FAMILIES[class_name]), class_name)
    return family


def _read_config(preset: str | Path) -> tuple[str, dict[str, object]]:
    """Give class and configuration; of a built-in preset without asking its hub."""
    row = PRESETS.get(preset) if isinstance(preset, str) else None
    if row is not None and row.backbone_config is not None:
        return row.backbone_class, dict(row.backbone_config)
    stored = read_stored(fetch(preset, Part.CONFIG))
    return stored.class_name, stored.config
